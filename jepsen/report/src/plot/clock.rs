//! How the hosts' clocks stood against true time: the lease clocks, and below the wall clocks.

use std::collections::BTreeMap;

use leasehold_checkers::run::ClockSample;

use crate::axis::{TimeAxis, ValueAxis};
use crate::bands::Bands;
use crate::chart::{Chart, line_key};
use crate::plot::{MAX_LINE_POINTS, line};
use crate::run::Run;
use crate::text::{clip, put};

const PANEL: f64 = 130.0;
const GAP: f64 = 34.0;
/// Hosts at most; the page says when there are more.
const MAX_HOSTS: usize = 24;
/// Styles that, with colours, tell hosts apart.
const STYLES: [&str; 3] = ["", "dash", "dot"];

/// Which of its clocks a sample is asked for.
type Offset = fn(&ClockSample) -> i64;

/// Draws the plot.
pub(crate) fn draw(run: &Run, axis: TimeAxis, bands: &Bands<'_>) -> String {
    let mut chart = Chart::new(
        "Clocks against true time",
        axis,
        GAP * 2.0 + PANEL * 2.0 - 12.0,
    );
    let mut hosts: BTreeMap<&str, Vec<&ClockSample>> = BTreeMap::new();
    for sample in &run.clocks {
        hosts.entry(&sample.host).or_default().push(sample);
    }
    if hosts.is_empty() {
        chart.nothing("no clock was sampled");
        return chart.render(bands);
    }
    if hosts.len() > MAX_HOSTS {
        chart
            .notes
            .push(format!("the first {MAX_HOSTS} of {} hosts", hosts.len()));
    }
    for (i, host) in hosts.keys().take(MAX_HOSTS).enumerate() {
        chart.legend.push((line_key(&class(i)), clip(host, 24)));
    }
    let panels: [(&str, Offset); 2] = [
        (
            "lease clock minus true time, since the process began",
            |s| s.lease_offset_ns,
        ),
        ("wall clock minus true wall clock", |s| s.wall_offset_ns),
    ];
    for (i, (words, offset)) in panels.into_iter().enumerate() {
        let top = i as f64 * (PANEL + GAP) + 22.0;
        panel(&mut chart, words, top, &hosts, offset);
    }
    chart.render(bands)
}

fn class(i: usize) -> String {
    format!("c{} {}", i % 12, STYLES[(i / 4) % STYLES.len()])
}

fn panel(
    chart: &mut Chart<'_>,
    words: &str,
    top: f64,
    hosts: &BTreeMap<&str, Vec<&ClockSample>>,
    offset: Offset,
) {
    let all = || hosts.values().take(MAX_HOSTS).flatten().map(|s| offset(s));
    let (low, high) = (
        all().min().unwrap_or(0).min(0),
        all().max().unwrap_or(0).max(0),
    );
    let (scale, unit) = match low.unsigned_abs().max(high.unsigned_abs()) {
        n if n < 2_000 => (1.0, " ns"),
        n if n < 2_000_000 => (1e3, " µs"),
        n if n < 2_000_000_000 => (1e6, " ms"),
        _ => (1e9, " s"),
    };
    let values = ValueAxis::linear(low as f64 / scale, high as f64 / scale, PANEL, unit);
    chart.value_axis(&values, top);
    let x = crate::axis::LEFT + 6.0;
    put!(
        chart.body,
        r#"<text class="note" x="{x}" y="{:.0}">{words}</text>"#,
        top - 6.0
    );
    for (i, samples) in hosts.values().take(MAX_HOSTS).enumerate() {
        let every = samples.len().div_ceil(MAX_LINE_POINTS / 4).max(1);
        let points = samples
            .chunks(every)
            .flat_map(|chunk| extremes(chunk, offset))
            .map(|s| {
                (
                    chart.axis.x(s.time_ns),
                    top + values.y(offset(s) as f64 / scale),
                )
            });
        let d = line(points);
        put!(chart.body, r#"<path class="line {}" d="{d}"/>"#, class(i));
    }
}

/// The first, the lowest and highest, and the last of a few samples, in the order of time.
fn extremes<'a>(chunk: &[&'a ClockSample], offset: Offset) -> Vec<&'a ClockSample> {
    let key = |s: &&&ClockSample| offset(s);
    let mut picked: Vec<&ClockSample> = [
        chunk.first(),
        chunk.iter().min_by_key(key),
        chunk.iter().max_by_key(key),
        chunk.last(),
    ]
    .into_iter()
    .flatten()
    .copied()
    .collect();
    picked.sort_by_key(|s| s.time_ns);
    picked.dedup_by_key(|s| s.time_ns);
    picked
}
