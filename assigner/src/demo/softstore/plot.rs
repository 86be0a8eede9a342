//! The picture of a run: hit rate, work of the backing store and latency over time, arm by arm.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::arm::{Arm, Seen};
use super::figures::{backing_reads_per_s, hit_rate, p99_ms};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// Seconds since the first restart, and what was measured then.
type Line = Vec<(f64, f64)>;

const SIZE: (u32, u32) = (960, 900);
const STEP_NS: u64 = 1_000_000_000;
const FONT: &str = "sans-serif";

/// Drawn for a light page. The style sheet changes these, and no other colours, for a dark one; the
/// arms' colours are readable on both.
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const MESH: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const BAND: RGBColor = RGBColor(0xee, 0xf1, 0xf6);
const DARK: &str = "<style>svg{background:#fff}@media(prefers-color-scheme:dark){svg{background:#16181d}\
    [fill=\"#333333\"]{fill:#d8dbe2}[stroke=\"#333333\"]{stroke:#d8dbe2}\
    [stroke=\"#DDDDDD\"]{stroke:#33373f}[fill=\"#EEF1F6\"]{fill:#232833}}</style>";

fn colour(arm: Arm) -> RGBColor {
    match arm {
        Arm::Strong => RGBColor(0x1f, 0x8a, 0x4c),
        Arm::Eventual => RGBColor(0x2f, 0x7d, 0xd1),
        Arm::Cold => RGBColor(0xd9, 0x6c, 0x06),
        Arm::Static => RGBColor(0xc0, 0x3a, 0x6b),
    }
}

/// Draws what was seen into the file at `path`.
pub fn draw(all: &[Seen], path: &Path) -> anyhow::Result<()> {
    let mut svg = String::new();
    picture(all, &mut svg).map_err(|error| anyhow!("cannot draw the plot: {error}"))?;
    let head = svg.find('>').map_or(0, |end| end + 1);
    svg.insert_str(head, DARK);
    std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

fn picture(all: &[Seen], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let title = "Every pod restarts, one after the other (time since the first restart)";
    let root = root.titled(title, (FONT, 18).into_font().color(&INK))?;
    let [hits, reads, latency] = <[Area; 3]>::try_from(root.split_evenly((3, 1)))
        .map_err(|_| "the page was not split in three")?;
    let first = "reads answered from cache, %";
    let percent = lines(all, |seen, step| {
        Some(hit_rate(&seen.answers, step)? * 100.0)
    });
    let mut chart = panel(&hits, first, all, &percent, Some(100.0))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .label_font((FONT, 13).into_font().color(&INK))
        .draw()?;
    let second = "reads of the backing store a second";
    panel(&reads, second, all, &lines(all, backing_reads_per_s), None)?;
    let third = "latency, 99th percentile, ms";
    let p99 = lines(all, |seen, step| p99_ms(&seen.answers, step));
    panel(&latency, third, all, &p99, None)?;
    root.present()?;
    Ok(())
}

/// One line for each arm, from one value for each step of time.
fn lines(all: &[Seen], value: impl Fn(&Seen, (u64, u64)) -> Option<f64>) -> Vec<Line> {
    let line = |seen: &Seen| {
        let zero = seen.restarting().0 as f64;
        let steps = (seen.begin_ns..seen.end_ns.saturating_sub(STEP_NS)).step_by(STEP_NS as usize);
        let at = |from: u64| (from as f64 + STEP_NS as f64 / 2.0 - zero) / 1e9;
        let point = |from: u64| Some((at(from), value(seen, (from, from + STEP_NS))?));
        steps.filter_map(point).collect()
    };
    all.iter().map(line).collect()
}

/// One panel: the first arm's restarts as bands, and over them the lines of all.
fn panel<'a, 'b>(
    area: &'a Area<'b>,
    title: &str,
    all: &[Seen],
    lines: &[Line],
    most: Option<f64>,
) -> Result<Chart<'a, 'b>, Box<dyn std::error::Error>> {
    let points = || lines.iter().flatten();
    let least_x = points().map(|point| point.0).fold(0.0, f64::min);
    let most_x = points().map(|point| point.0).fold(1.0, f64::max);
    let most_y = points().map(|point| point.1).fold(1.0, f64::max) * 1.08;
    let y: Range<f64> = 0.0..most.unwrap_or(most_y);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 15).into_font().color(&INK))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(46)
        .build_cartesian_2d(least_x..most_x, y.clone())?;
    if let Some(seen) = all.first() {
        bands(&mut chart, seen, &y)?;
    }
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(MESH)
        .axis_style(MESH)
        .label_style((FONT, 12).into_font().color(&INK))
        .x_label_formatter(&|x| format!("{x:.0} s"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for (seen, line) in all.iter().zip(lines) {
        let style = colour(seen.arm).stroke_width(2);
        let mark = move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style);
        chart
            .draw_series(LineSeries::new(line.iter().copied(), style))?
            .label(seen.arm.title())
            .legend(mark);
    }
    Ok(chart)
}

fn bands(
    chart: &mut Chart<'_, '_>,
    seen: &Seen,
    y: &Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let zero = seen.restarting().0;
    let second = |ns: u64| ns.saturating_sub(zero) as f64 / 1e9;
    let band = |(from, to): &(u64, u64)| {
        let corners = [(second(*from), y.start), (second(*to), y.end)];
        Rectangle::new(corners, BAND.filled())
    };
    let mark = |(x, y)| Rectangle::new([(x, y - 5), (x + 22, y + 5)], BAND.filled());
    chart
        .draw_series(seen.restarts.iter().map(band))?
        .label(format!("a pod restarts ({})", seen.arm.title()))
        .legend(mark);
    Ok(())
}
