//! Operations as bars, a lane for each process: of a short run all, of a long one the windows that
//! tell most.

mod window;

use std::collections::{BTreeMap, BTreeSet};

use leasehold_checkers::Kind;

use crate::axis::{LEFT, RIGHT};
use crate::bands::Bands;
use crate::chart::{Chart, box_key};
use crate::plot::{OUTCOMES, outcome_class};
use crate::run::{Operation, Run};
use crate::text::{count, put, safe, seconds, span, value};

pub(crate) use window::Window;

/// Lanes of one window at most.
const MAX_LANES: usize = 48;

/// Words for an operation, in one line of escaped text.
pub(crate) fn describe(operation: &Operation) -> String {
    let key = operation.key.as_deref().map_or_else(String::new, |key| format!(" of key {}", safe(key, 60)));
    format!("process {}: {} {}{key}", operation.process, safe(&operation.f, 40), result(operation, 80))
}

/// What went in and what came out, escaped.
pub(crate) fn result(operation: &Operation, chars: usize) -> String {
    let argument = value(&operation.argument, chars);
    let result = value(&operation.result, chars);
    let text = match (argument.is_empty(), result.is_empty() || result == argument) {
        (true, true) => String::new(),
        (true, false) => format!("→ {result}"),
        (false, true) => argument,
        (false, false) => format!("{argument} → {result}"),
    };
    safe(&text, 2 * chars + 3)
}

/// How it ended, in words, escaped.
pub(crate) fn ending(operation: &Operation) -> String {
    let mut out = match operation.outcome {
        Kind::Ok => "ok".to_owned(),
        Kind::Fail => "failed".to_owned(),
        Kind::Info | Kind::Invoke => "unknown".to_owned(),
    };
    if operation.end.is_none() {
        out.push_str(", still open when the history ended");
    }
    if let Some(node) = &operation.node {
        put!(out, ", answered by {}", safe(node, 40));
    }
    if let Some(epoch) = operation.epoch {
        put!(out, " under token {epoch}");
    }
    if let Some(error) = &operation.error {
        put!(out, ": {}", safe(error, 300));
    }
    out
}

/// Draws one window.
pub(crate) fn draw(run: &Run, window: &Window, bands: &Bands<'_>) -> String {
    let shown: Vec<&Operation> =
        window.operations.iter().filter_map(|at| run.operations.get(*at)).collect();
    let processes: BTreeSet<u64> = shown.iter().map(|o| o.process).collect();
    let lanes = lanes(&shown, &processes);
    let height = if lanes.len() <= 24 { 24.0 } else { 15.0 };
    let mut chart = Chart::new(&window.title, window.axis, (lanes.len() as f64 * height).max(40.0));
    chart.notes.extend(window.notes.iter().cloned());
    if processes.len() > lanes.len() {
        chart.notes.push(format!(
            "{} of {} processes: those with marked operations, then the busiest",
            lanes.len(),
            count(processes.len())
        ));
    }
    if shown.is_empty() {
        chart.nothing("no operation was under way");
    }
    for (i, process) in lanes.iter().enumerate() {
        put!(
            chart.body,
            r#"<rect class="lane" x="{LEFT}" y="{:.1}" width="{}" height="{:.1}" fill-opacity=".55"/><text class="axis" x="{}" y="{:.1}" text-anchor="end">process {process}</text>"#,
            i as f64 * height + 1.0,
            RIGHT - LEFT,
            height - 2.0,
            LEFT - 8.0,
            i as f64 * height + height / 2.0 + 4.0
        );
    }
    for operation in shown {
        if let Ok(lane) = lanes.binary_search(&operation.process) {
            bar(&mut chart, operation, window, lane as f64 * height, height);
        }
    }
    for (_, class, words) in OUTCOMES {
        chart.legend.push((box_key(class), words.to_owned()));
    }
    if !window.marked.is_empty() {
        let mark = r#"<rect class="mark" x="1" y="1" width="14" height="10"/>"#.to_owned();
        chart.legend.push((mark, "part of the finding".to_owned()));
    }
    chart.render(bands)
}

fn lanes(shown: &[&Operation], processes: &BTreeSet<u64>) -> Vec<u64> {
    let mut lanes: Vec<u64> = processes.iter().copied().collect();
    if lanes.len() > MAX_LANES {
        let mut busy: BTreeMap<u64, usize> = BTreeMap::new();
        for (rank, operation) in shown.iter().enumerate() {
            // Operations of a finding come first in a window.
            *busy.entry(operation.process).or_default() += 1 + 10_000 / (rank + 1);
        }
        lanes.sort_by_key(|p| (std::cmp::Reverse(busy.get(p).copied().unwrap_or(0)), *p));
        lanes.truncate(MAX_LANES);
        lanes.sort_unstable();
    }
    lanes
}

fn bar(chart: &mut Chart<'_>, operation: &Operation, window: &Window, y: f64, height: f64) {
    let axis = chart.axis;
    let end = operation.end.map_or(axis.to_ns, |(_, at)| at);
    let x = axis.x(operation.from_ns);
    let width = (axis.x(end) - x).max(2.0);
    let (top, high) = (y + 3.0, height - 6.0);
    let class = outcome_class(operation.outcome);
    put!(chart.body, "<g>");
    if operation.outcome == Kind::Info && x + width < RIGHT {
        // It may take effect at any time from here on.
        put!(
            chart.body,
            r#"<path class="line dash {class}" d="M{:.1},{:.1}H{RIGHT}" opacity=".6"/>"#,
            x + width,
            y + height / 2.0
        );
    }
    put!(
        chart.body,
        r#"<rect class="{class}" x="{x:.1}" y="{top:.1}" width="{width:.1}" height="{high:.1}" rx="2" fill-opacity=".4"/>"#
    );
    if window.marks(operation) {
        put!(
            chart.body,
            r#"<rect class="mark" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" rx="3"/>"#,
            x - 2.0,
            top - 2.0,
            width + 4.0,
            high + 4.0
        );
    }
    let f: String = operation.f.chars().take(16).collect();
    let label = format!("{} {}", safe(&f, 17), result(operation, 12));
    let shortest = safe(&f, 17);
    let fits = |label: &&str| height > 20.0 && label.chars().count() as f64 * 6.6 + 6.0 < width;
    if let Some(label) = [label.as_str(), shortest.as_str()].into_iter().find(fits) {
        put!(
            chart.body,
            r#"<text class="axis" x="{:.1}" y="{:.1}" pointer-events="none">{label}</text>"#,
            x + 3.0,
            y + height / 2.0 + 4.0
        );
    }
    put!(
        chart.body,
        "<title>{}\n{}\n{} to {} ({}), line {}</title></g>",
        describe(operation),
        ending(operation),
        seconds(operation.from_ns),
        operation.end.map_or_else(|| "the end".to_owned(), |(_, at)| seconds(at)),
        operation.latency_ns().map_or_else(|| "open".to_owned(), span),
        operation.index
    );
}

/// `timeline.html`.
pub(crate) fn page(run: &Run, bands: &Bands<'_>) -> String {
    let (windows, left_out) = Window::of(run);
    let mut body = String::from(
        "<p><a href=\"index.html\">← the run</a></p><h1>Timeline: operations of each process</h1>",
    );
    put!(
        body,
        "<p class=\"note\">Point at a bar for its operation, value and error. Styles: {}.</p>",
        "filled from its beginning to its end; of unknown outcomes, a broken line on: they may take effect at any later time"
    );
    if let Some(left_out) = left_out {
        put!(body, "<p class=\"note\">{}</p>", crate::text::escape(&left_out));
    }
    if run.operations.is_empty() {
        body.push_str("<p class=\"banner\">The history is empty or missing: there is nothing to show.</p>");
    }
    body.push_str("<div class=\"plots\">");
    for window in &windows {
        body.push_str(&draw(run, window, bands));
    }
    body.push_str("</div>");
    body.push_str(crate::page::READOUT);
    crate::page::page("Timeline", &body)
}
