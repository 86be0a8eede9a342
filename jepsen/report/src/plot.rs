//! The plots of a run. All have the same width and, over the whole run, the same time axis.

pub(crate) mod availability;
pub(crate) mod clock;
pub(crate) mod faults;
pub(crate) mod latency;
pub(crate) mod ownership;
pub(crate) mod rate;

use std::collections::BTreeMap;

use leasehold_checkers::Kind;

use crate::axis::TimeAxis;
use crate::text::put;

/// Points that a line may have: more than there are pixels.
pub(crate) const MAX_LINE_POINTS: usize = 2_400;

/// The three outcomes, with their classes and words.
pub(crate) const OUTCOMES: [(Kind, &str, &str); 3] = [
    (Kind::Ok, "ok", "ok"),
    (Kind::Fail, "fail", "failed: took no effect"),
    (Kind::Info, "info", "unknown: may have taken effect"),
];

/// Class of an outcome.
pub(crate) fn outcome_class(kind: Kind) -> &'static str {
    match kind {
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info | Kind::Invoke => "info",
    }
}

/// Puts items into equal buckets of time; empty buckets are left out.
pub(crate) fn buckets<T>(
    axis: TimeAxis,
    items: impl Iterator<Item = (u64, T)>,
) -> BTreeMap<u64, Vec<T>> {
    let width = axis.bucket_ns();
    let mut out: BTreeMap<u64, Vec<T>> = BTreeMap::new();
    for (at, item) in items {
        out.entry(at / width).or_default().push(item);
    }
    out
}

/// A line through points, as the data of a path.
pub(crate) fn line(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    for (i, (x, y)) in points.enumerate() {
        put!(out, "{}{x:.1},{y:.1}", if i == 0 { 'M' } else { 'L' });
    }
    out
}
