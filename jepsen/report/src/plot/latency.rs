//! How long operations took: every one as a point, and quantiles over time.

use std::collections::BTreeSet;

use leasehold_checkers::Kind;

use crate::axis::{LEFT, TimeAxis, ValueAxis};
use crate::bands::Bands;
use crate::chart::{Chart, line_key};
use crate::plot::{OUTCOMES, buckets, line};
use crate::run::Run;
use crate::text::{count, put, seconds, span};

const HEIGHT: f64 = 280.0;
/// Marks at most; beyond, marks that would lie on each other are one.
const MAX_MARKS: usize = 12_000;
/// Up to so many marks, each tells its operation to the pointer.
const MAX_NAMED: usize = 3_000;

/// Every operation: when it began, how long it took, how it ended.
pub(crate) fn raw(run: &Run, axis: TimeAxis, bands: &Bands<'_>) -> String {
    let mut chart = Chart::new("Latency of every operation", axis, HEIGHT);
    let Some(values) = value_axis(run) else {
        chart.nothing("no operation ended");
        return chart.render(bands);
    };
    chart.value_axis(&values, 0.0);
    for (kind, class, words) in OUTCOMES {
        let key = format!(
            r#"<path class="pts {class}" d="{}"/>"#,
            mark(kind, 8.0, 6.0, 2.5)
        );
        chart
            .legend
            .push((key, format!("{words} ({})", count(run.ended(kind)))));
    }
    let total = run.operations.iter().filter(|o| o.end.is_some()).count();
    if total <= MAX_NAMED {
        named_marks(&mut chart, run, &values);
    } else {
        merged_marks(&mut chart, run, &values, total);
    }
    chart.render(bands)
}

/// Half, nineteen in twenty, ninety-nine in a hundred, and the slowest, of those that ended ok.
pub(crate) fn quantiles(run: &Run, axis: TimeAxis, bands: &Bands<'_>) -> String {
    const QUANTILES: [(f64, &str, &str); 4] = [
        (1.0, "slowest", "c7 dot"),
        (0.99, "99 %", "c3 dash"),
        (0.95, "95 %", "c1"),
        (0.5, "50 %", "c0"),
    ];
    let mut chart = Chart::new(
        "Latency quantiles of operations that ended ok",
        axis,
        HEIGHT,
    );
    let ok = run.operations.iter().filter(|o| o.outcome == Kind::Ok);
    let mut buckets = buckets(axis, ok.filter_map(|o| Some((o.from_ns, o.latency_ns()?))));
    buckets
        .values_mut()
        .for_each(|latencies| latencies.sort_unstable());
    let (Some(values), false) = (value_axis(run), buckets.is_empty()) else {
        chart.nothing("no operation ended ok");
        return chart.render(bands);
    };
    chart.value_axis(&values, 0.0);
    chart.notes.push(format!(
        "by the time they began, {} at a time",
        span(axis.bucket_ns())
    ));
    for (share, words, class) in QUANTILES {
        let points = buckets.iter().filter_map(|(bucket, sorted)| {
            Some((
                middle(axis, *bucket),
                values.y(nearest_rank(sorted, share)? as f64),
            ))
        });
        put!(
            chart.body,
            r#"<path class="line {class}" d="{}"/>"#,
            line(points)
        );
        chart.legend.push((line_key(class), words.to_owned()));
    }
    for (bucket, sorted) in &buckets {
        tooltip(&mut chart, *bucket, sorted);
    }
    chart.render(bands)
}

/// The smallest value that at least this share of `sorted` does not exceed.
pub(crate) fn nearest_rank(sorted: &[u64], share: f64) -> Option<u64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Where the middle of a bucket is.
pub(crate) fn middle(axis: TimeAxis, bucket: u64) -> f64 {
    let width = axis.bucket_ns();
    axis.x(bucket.saturating_mul(width).saturating_add(width / 2))
}

fn tooltip(chart: &mut Chart<'_>, bucket: u64, sorted: &[u64]) {
    let width = chart.axis.bucket_ns();
    let (x, to) = (
        chart.axis.x(bucket * width),
        chart.axis.x((bucket + 1) * width),
    );
    let at = |share| nearest_rank(sorted, share).map_or_else(String::new, span);
    put!(
        chart.body,
        r#"<rect x="{x:.1}" y="0" width="{:.1}" height="{HEIGHT}" fill="none" pointer-events="all"><title>{} + {}: {} operations; 50 % {}, 95 % {}, 99 % {}, slowest {}</title></rect>"#,
        to - x,
        seconds(bucket * width),
        span(width),
        count(sorted.len()),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
}

fn value_axis(run: &Run) -> Option<ValueAxis> {
    let latencies = || run.operations.iter().filter_map(|o| o.latency_ns());
    Some(ValueAxis::log_ns(
        latencies().min()?,
        latencies().max()?,
        HEIGHT,
    ))
}

/// A dot, a cross or a triangle of this radius: outcomes differ without colour too.
fn mark(kind: Kind, x: f64, y: f64, r: f64) -> String {
    match kind {
        Kind::Ok => format!("M{x:.1},{y:.1}h0"),
        Kind::Fail => {
            let d = 2.0 * r;
            format!("M{:.1},{:.1}l{d},{d}m0,-{d}l-{d},{d}", x - r, y - r)
        }
        Kind::Info | Kind::Invoke => {
            format!(
                "M{x:.1},{:.1}l{:.1},{:.1}h-{:.1}z",
                y - r,
                r * 1.2,
                r * 2.2,
                r * 2.4
            )
        }
    }
}

fn named_marks(chart: &mut Chart<'_>, run: &Run, values: &ValueAxis) {
    for (kind, class, words) in OUTCOMES {
        for operation in run.operations.iter().filter(|o| o.outcome == kind) {
            let Some(latency) = operation.latency_ns() else {
                continue;
            };
            let d = mark(
                kind,
                chart.axis.x(operation.from_ns),
                values.y(latency as f64),
                2.5,
            );
            put!(
                chart.body,
                r#"<path class="pts {class}" d="{d}"><title>{} — {} after {}</title></path>"#,
                crate::timeline::describe(operation),
                words,
                span(latency)
            );
        }
    }
}

/// One mark for all operations of an outcome in a cell of a few pixels, so that no outlier is
/// lost and the drawing stays small.
fn merged_marks(chart: &mut Chart<'_>, run: &Run, values: &ValueAxis, total: usize) {
    let mut cell = 2.0;
    let cells = loop {
        let cells: BTreeSet<(usize, u32, u32)> = run
            .operations
            .iter()
            .filter_map(|o| {
                let kind = OUTCOMES.iter().position(|(kind, ..)| *kind == o.outcome)?;
                let x = (chart.axis.x(o.from_ns) - LEFT) / cell;
                let y = values.y(o.latency_ns()? as f64) / cell;
                Some((kind, x as u32, y as u32))
            })
            .collect();
        if cells.len() <= MAX_MARKS || cell > 64.0 {
            break cells;
        }
        cell *= 1.5;
    };
    for (i, (kind, class, _)) in OUTCOMES.into_iter().enumerate() {
        let mut d = String::new();
        for (_, x, y) in cells.range((i, 0, 0)..(i + 1, 0, 0)) {
            let (x, y) = (f64::from(*x) + 0.5, f64::from(*y) + 0.5);
            d.push_str(&mark(kind, LEFT + x * cell, y * cell, 1.5));
        }
        put!(chart.body, r#"<path class="pts {class}" d="{d}"/>"#);
    }
    if total > cells.len() {
        chart.notes.push(format!(
            "{} marks for {} operations: those of one outcome within {cell:.1} pixels are one mark",
            count(cells.len()),
            count(total)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let sorted = [10, 20, 30, 40];
        assert_eq!(nearest_rank(&sorted, 0.5), Some(20));
        assert_eq!(nearest_rank(&sorted, 0.95), Some(40));
        assert_eq!(nearest_rank(&sorted, 1.0), Some(40));
        assert_eq!(nearest_rank(&[], 0.5), None);
    }
}
