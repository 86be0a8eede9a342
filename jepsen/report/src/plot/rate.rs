//! Operations ended per second, by what they were and how they ended.

use std::collections::BTreeMap;

use leasehold_checkers::Kind;

use crate::axis::{TimeAxis, ValueAxis};
use crate::bands::Bands;
use crate::chart::{Chart, line_key};
use crate::plot::latency::middle;
use crate::plot::{line, outcome_class};
use crate::run::Run;
use crate::text::{clip, count, put, span};

const HEIGHT: f64 = 220.0;
/// Lines at most; the rarest are left out and the plot says so.
const MAX_LINES: usize = 12;

/// Operations per second in each bucket, for one operation and outcome.
type Series = BTreeMap<u64, usize>;

/// Draws the plot.
pub(crate) fn draw(run: &Run, axis: TimeAxis, bands: &Bands<'_>) -> String {
    let mut chart = Chart::new("Rate: operations ended per second", axis, HEIGHT);
    let width = axis.bucket_ns();
    let mut series: BTreeMap<(&str, &str), Series> = BTreeMap::new();
    for operation in &run.operations {
        if let Some((_, at)) = operation.end {
            let kind = outcome_class(operation.outcome);
            *series
                .entry((&operation.f, kind))
                .or_default()
                .entry(at / width)
                .or_default() += 1;
        }
    }
    let Some(last) = series
        .values()
        .filter_map(|s| s.keys().next_back())
        .max()
        .copied()
    else {
        chart.nothing("no operation ended");
        return chart.render(bands);
    };
    let fs: Vec<&str> = series.keys().map(|(f, _)| *f).collect();
    let colour = colours(&fs);
    let mut ranked: Vec<_> = series.iter().collect();
    ranked.sort_by_key(|(name, s)| (std::cmp::Reverse(s.values().sum::<usize>()), **name));
    if ranked.len() > MAX_LINES {
        chart.notes.push(format!(
            "the {MAX_LINES} most frequent of {} lines",
            ranked.len()
        ));
        ranked.truncate(MAX_LINES);
    }
    ranked.sort_by_key(|(name, _)| **name);
    let per_second = 1e9 / width as f64;
    let most = ranked
        .iter()
        .flat_map(|(_, s)| s.values())
        .max()
        .copied()
        .unwrap_or(1);
    let values = ValueAxis::linear(0.0, most as f64 * per_second, HEIGHT, "/s");
    chart.value_axis(&values, 0.0);
    chart.notes.push(format!(
        "counted {} at a time; the line's style is the outcome",
        span(width)
    ));
    for ((f, kind), counts) in ranked {
        let at = |bucket: u64| counts.get(&bucket).copied().unwrap_or(0) as f64 * per_second;
        let points = (0..=last).map(|bucket| (middle(axis, bucket), values.y(at(bucket))));
        let class = format!("c{} {}", colour.get(f).copied().unwrap_or(7), style(kind));
        put!(
            chart.body,
            r#"<path class="line {class}" d="{}"/>"#,
            line(points)
        );
        let total = count(counts.values().sum());
        let words = match *kind {
            "ok" => "ok",
            "fail" => "failed",
            _ => "unknown",
        };
        chart.legend.push((
            line_key(&class),
            format!("{} {words} ({total})", clip(f, 24)),
        ));
    }
    chart.render(bands)
}

fn style(kind: &str) -> &'static str {
    match kind {
        k if k == outcome_class(Kind::Ok) => "",
        k if k == outcome_class(Kind::Fail) => "dash",
        _ => "dot",
    }
}

fn colours<'a>(fs: &[&'a str]) -> BTreeMap<&'a str, usize> {
    let mut colours = BTreeMap::new();
    for f in fs {
        let next = colours.len() % 12;
        colours.entry(*f).or_insert(next);
    }
    colours
}
