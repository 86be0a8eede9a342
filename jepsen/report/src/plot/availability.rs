//! Whether the service answered: of the operations begun at a time, the share that ended ok,
//! failed, or are unknown; and the times in which nothing ended ok.

use leasehold_checkers::Kind;

use crate::axis::{TimeAxis, ValueAxis};
use crate::bands::Bands;
use crate::chart::{Chart, box_key};
use crate::plot::{OUTCOMES, buckets};
use crate::run::Run;
use crate::text::{count, put, seconds, span};

const HEIGHT: f64 = 130.0;
const STRIP: f64 = 24.0;
/// Gaps named at most; the longest.
const MAX_GAPS: usize = 40;

/// Draws the plot.
pub(crate) fn draw(run: &Run, axis: TimeAxis, bands: &Bands<'_>) -> String {
    let mut chart = Chart::new(
        "Availability: how operations ended, by the time they began",
        axis,
        HEIGHT + STRIP,
    );
    if run.operations.is_empty() {
        chart.nothing("no operation was begun");
        return chart.render(bands);
    }
    let width = axis.bucket_ns();
    let buckets = buckets(axis, run.operations.iter().map(|o| (o.from_ns, o.outcome)));
    let values = ValueAxis::linear(0.0, 100.0, HEIGHT, " %");
    for (bucket, outcomes) in &buckets {
        let x = axis.x(bucket * width);
        let wide = (axis.x((bucket + 1) * width) - x).max(0.5);
        let counts = OUTCOMES.map(|(kind, ..)| outcomes.iter().filter(|o| **o == kind).count());
        let (mut top, total) = (HEIGHT, outcomes.len() as f64);
        put!(chart.body, "<g>");
        for ((_, class, _), n) in OUTCOMES.into_iter().zip(counts).filter(|(_, n)| *n > 0) {
            let high = HEIGHT * n as f64 / total;
            top -= high;
            put!(
                chart.body,
                r#"<rect class="area {class}" x="{x:.1}" y="{top:.1}" width="{wide:.1}" height="{high:.1}"/>"#
            );
        }
        let [ok, failed, unknown] = counts;
        put!(
            chart.body,
            "<title>{} + {}: {:.1} % ok; {} ok, {} failed, {} unknown</title></g>",
            seconds(bucket * width),
            span(width),
            100.0 * ok as f64 / total,
            count(ok),
            count(failed),
            count(unknown)
        );
    }
    chart.value_axis(&values, 0.0);
    for (_, class, words) in OUTCOMES {
        chart
            .legend
            .push((box_key(&format!("area {class}")), words.to_owned()));
    }
    gaps(&mut chart, run, width.max(500_000_000));
    chart.render(bands)
}

/// Times of at least `least_ns` between one ok and the next.
fn gaps(chart: &mut Chart<'_>, run: &Run, least_ns: u64) {
    let mut ok: Vec<u64> = run
        .operations
        .iter()
        .filter(|o| o.outcome == Kind::Ok)
        .filter_map(|o| Some(o.end?.1))
        .collect();
    ok.sort_unstable();
    let first = run.operations.iter().map(|o| o.from_ns).min().unwrap_or(0);
    let last = run
        .operations
        .iter()
        .map(|o| o.end.map_or(o.from_ns, |e| e.1))
        .max()
        .unwrap_or(0);
    let edges: Vec<u64> = std::iter::once(first).chain(ok).chain([last]).collect();
    let mut gaps: Vec<(u64, u64)> = edges
        .iter()
        .zip(edges.iter().skip(1))
        .filter(|(from, to)| to.saturating_sub(**from) >= least_ns)
        .map(|(from, to)| (*from, *to))
        .collect();
    gaps.sort_by_key(|(from, to)| (std::cmp::Reverse(to - from), *from));
    let found = gaps.len();
    gaps.truncate(MAX_GAPS);
    let y = HEIGHT + 7.0;
    for (from, to) in &gaps {
        let (x, end) = (chart.axis.x(*from), chart.axis.x(*to));
        put!(
            chart.body,
            r#"<rect class="overlap" x="{x:.1}" y="{y}" width="{:.1}" height="9"><title>nothing ended ok for {}: {} to {}</title></rect>"#,
            (end - x).max(2.0),
            span(to - from),
            seconds(*from),
            seconds(*to)
        );
    }
    let longest = gaps
        .first()
        .map_or_else(String::new, |(a, b)| format!(", longest {}", span(b - a)));
    chart.legend.push((
        r#"<rect class="overlap" x="0" y="2" width="16" height="8"/>"#.to_owned(),
        format!(
            "nothing ended ok for {} or more ({found}{longest})",
            span(least_ns)
        ),
    ));
}
