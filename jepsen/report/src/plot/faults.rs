//! Which faults there were: a lane for each kind, a bar for each fault.

use leasehold_checkers::run::{Fault, Installed};

use crate::axis::{LEFT, RIGHT, TimeAxis};
use crate::bands::{Bands, label};
use crate::chart::{Chart, box_key};
use crate::run::Run;
use crate::text::{count, put, safe, seconds, span};

const LANE: f64 = 22.0;
/// Bars at most; of more, the longest are shown.
const MAX_BARS: usize = 1_500;

/// Draws the plot.
pub(crate) fn draw(run: &Run, axis: TimeAxis, bands: &Bands<'_>) -> String {
    let kinds: Vec<&str> = bands.kinds().collect();
    let mut chart = Chart::new("Faults", axis, (kinds.len().max(1) as f64) * LANE + 4.0);
    chart.with_bands = false;
    if run.faults.is_empty() {
        chart.nothing("no faults");
        return chart.render(bands);
    }
    let mut shown: Vec<&Fault> = run.faults.iter().collect();
    if shown.len() > MAX_BARS {
        let all = count(shown.len());
        chart
            .notes
            .push(format!("the {} longest of {all} faults", count(MAX_BARS)));
        shown.sort_by_key(|fault| std::cmp::Reverse(bands.until(fault) - fault.from_ns));
        shown.truncate(MAX_BARS);
        shown.sort_by_key(|fault| fault.from_ns);
    }
    for (i, kind) in kinds.iter().enumerate() {
        let y = i as f64 * LANE + 2.0;
        put!(
            chart.body,
            r#"<rect class="lane" x="{LEFT}" y="{y}" width="{}" height="{}"/><text x="{}" y="{}" text-anchor="end">{}</text>"#,
            RIGHT - LEFT,
            LANE - 3.0,
            LEFT - 8.0,
            y + 14.0,
            safe(kind, 18)
        );
    }
    for fault in shown {
        let lane = kinds
            .iter()
            .position(|kind| *kind == fault.kind)
            .unwrap_or(0);
        bar(&mut chart, fault, bands, lane as f64 * LANE + 2.0);
    }
    legend(&mut chart, run);
    chart.render(bands)
}

fn bar(chart: &mut Chart<'_>, fault: &Fault, bands: &Bands<'_>, y: f64) {
    let (axis, until) = (chart.axis, bands.until(fault));
    let class = bands.class(&fault.kind);
    let x = axis.x(fault.from_ns);
    let (how, maybe) = match &fault.installed {
        Installed::Installed => (String::new(), ""),
        Installed::Skipped(why) => (format!("skipped: {}", safe(why, 200)), ""),
        Installed::Indeterminate(why) => (format!("perhaps: {}", safe(why, 200)), " maybe"),
    };
    let end = match fault.to_ns {
        Some(_) => format!("{} (for {})", seconds(until), span(until - fault.from_ns)),
        None => "the end: never undone".to_owned(),
    };
    let title = format!(
        "{}\n{}\n{} to {end}\n{how}",
        label(fault),
        safe(&fault.detail, 300),
        seconds(fault.from_ns)
    );
    if matches!(fault.installed, Installed::Skipped(_)) {
        put!(
            chart.body,
            r#"<path class="mark" d="M{:.1},{:.1}l8,8m0,-8l-8,8"><title>{title}</title></path>"#,
            x - 4.0,
            y + 6.0
        );
        return;
    }
    let width = (axis.x(until) - x).max(2.0);
    put!(
        chart.body,
        r#"<rect class="{class}{maybe}" data-a="{}" data-b="{until}" data-t="{}" x="{x:.1}" y="{:.1}" width="{width:.1}" height="{}" rx="2" fill-opacity=".55"><title>{title}</title></rect>"#,
        fault.from_ns,
        label(fault),
        y + 2.0,
        LANE - 7.0
    );
    let mode = &fault.mode;
    if mode.chars().count() as f64 * 6.6 + 8.0 < width {
        put!(
            chart.body,
            r#"<text class="on" x="{:.1}" y="{:.1}" pointer-events="none">{}</text>"#,
            x + 4.0,
            y + 14.0,
            safe(mode, 80)
        );
    }
}

fn legend(chart: &mut Chart<'_>, run: &Run) {
    let skipped = run
        .faults
        .iter()
        .filter(|f| matches!(f.installed, Installed::Skipped(_)))
        .count();
    let maybe = run
        .faults
        .iter()
        .filter(|f| matches!(f.installed, Installed::Indeterminate(_)))
        .count();
    let installed = run.faults.len() - skipped - maybe;
    chart
        .legend
        .push((box_key("c7"), format!("in force ({})", count(installed))));
    if maybe > 0 {
        chart.legend.push((
            box_key("c7 maybe"),
            format!("perhaps in force ({})", count(maybe)),
        ));
    }
    if skipped > 0 {
        let cross = r#"<path class="mark" d="M4,2l8,8m0,-8l-8,8"/>"#.to_owned();
        chart.legend.push((
            cross,
            format!("skipped: nothing was done ({})", count(skipped)),
        ));
    }
}
