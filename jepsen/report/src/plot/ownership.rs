//! Which pod could serve which slice, in true time: a lane for each slice.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_checkers::run::Hold;

use crate::axis::{LEFT, RIGHT, TimeAxis};
use crate::bands::Bands;
use crate::chart::{Chart, box_key};
use crate::clash::{Clash, MAX_CLASHES, range};
use crate::run::Run;
use crate::text::{clip, count, put, safe, seconds, span, token};

/// Lanes at most: those with clashes first, then those that moved most.
const MAX_LANES: usize = 64;
/// Bars at most; beyond, neighbours too narrow to see apart are drawn as one.
const MAX_BARS: usize = 5_000;
/// Pods named in the legend at most.
const MAX_PODS: usize = 36;

/// The holds of one slice.
#[derive(Debug)]
struct Lane<'a> {
    first: &'a str,
    last: &'a str,
    range: Option<(u64, u64)>,
    holds: Vec<&'a Hold>,
    clashes: usize,
}

/// Draws what `axis` covers.
pub(crate) fn draw(
    title: &str,
    run: &Run,
    clashes: &[Clash],
    axis: TimeAxis,
    bands: &Bands<'_>,
) -> String {
    let all = lanes(run, clashes, axis);
    let total = all.len();
    let lanes = most_telling(all);
    let low = if lanes.len() <= 16 { 26.0 } else { 16.0 };
    // Two holders at once need room for both.
    let heights: Vec<f64> = lanes
        .iter()
        .map(|lane| if lane.clashes > 0 { 42.0 } else { low })
        .collect();
    let height = heights.iter().sum::<f64>().max(60.0);
    let mut chart = Chart::new(title, axis, height);
    if lanes.is_empty() {
        chart.nothing("nobody was seen to hold a slice");
        return chart.render(bands);
    }
    if total > lanes.len() {
        chart.notes.push(format!(
            "{} of {} slices: those with overlaps, then those that moved most",
            lanes.len(),
            count(total)
        ));
    }
    let pods: BTreeSet<&str> = run.holds.iter().map(|hold| hold.pod.as_str()).collect();
    let colours: BTreeMap<&str, usize> = pods
        .iter()
        .enumerate()
        .map(|(i, pod)| (*pod, i % 12))
        .collect();
    let apart = narrowest(&lanes, axis);
    if apart > 0.0 {
        chart.notes.push(format!(
            "holds narrower than {apart:.0} pixels are drawn together, each pod with its share of the time; every overlap is drawn"
        ));
    }
    let digits = digits(&lanes);
    let mut y = 0.0;
    for (lane, height) in lanes.iter().zip(&heights) {
        lane_ground(&mut chart, lane, y, *height, digits);
        bars(&mut chart, lane, y, *height, apart, &colours);
        clash_marks(&mut chart, lane, clashes, y, *height);
        y += height;
    }
    legend(&mut chart, &colours, clashes);
    chart.render(bands)
}

fn lanes<'a>(run: &'a Run, clashes: &[Clash], axis: TimeAxis) -> Vec<Lane<'a>> {
    let mut lanes: BTreeMap<(&str, &str), Lane<'a>> = BTreeMap::new();
    for hold in run
        .holds
        .iter()
        .filter(|hold| axis.shows(hold.from_ns, hold.to_ns))
    {
        let lane = lanes.entry((&hold.first, &hold.last)).or_insert_with(|| {
            let range = range(hold);
            let here = |clash: &&Clash| {
                range.is_some_and(|range| clash.slices.contains(&range))
                    && axis.shows(clash.from_ns, clash.to_ns)
            };
            Lane {
                first: &hold.first,
                last: &hold.last,
                range,
                holds: Vec::new(),
                clashes: clashes.iter().filter(here).count(),
            }
        });
        lane.holds.push(hold);
    }
    lanes.into_values().collect()
}

/// At most [`MAX_LANES`], in the order of keys.
fn most_telling(mut lanes: Vec<Lane<'_>>) -> Vec<Lane<'_>> {
    if lanes.len() > MAX_LANES {
        lanes.sort_by_key(|lane| std::cmp::Reverse((lane.clashes, lane.holds.len())));
        lanes.truncate(MAX_LANES);
        lanes.sort_by_key(|lane| (lane.first, lane.last));
    }
    lanes
}

/// Width in pixels under which neighbours are drawn as one; 0 when all fit.
fn narrowest(lanes: &[Lane<'_>], axis: TimeAxis) -> f64 {
    let mut apart = 0.0;
    loop {
        let bars: usize = lanes
            .iter()
            .map(|lane| groups(lane, axis, apart).len())
            .sum();
        if bars <= MAX_BARS || apart > 256.0 {
            return apart;
        }
        apart = if apart == 0.0 { 1.0 } else { apart * 2.0 };
    }
}

/// Holds that are drawn as one bar: single ones, or neighbours narrower than `apart` within a
/// little more than that.
fn groups<'a>(lane: &'a Lane<'_>, axis: TimeAxis, apart: f64) -> Vec<&'a [&'a Hold]> {
    let x = |ns: u64| axis.x(ns);
    let narrow = |hold: &Hold| apart > 0.0 && x(hold.to_ns) - x(hold.from_ns) < apart;
    let mut out = Vec::new();
    let mut from = 0;
    for at in 1..=lane.holds.len() {
        let joins = match (lane.holds.get(at - 1), lane.holds.get(at)) {
            (Some(a), Some(b)) => {
                let begun = lane.holds.get(from).map_or(0, |first| first.from_ns);
                narrow(a) && narrow(b) && x(b.to_ns) - x(begun) < apart * 1.5
            }
            _ => false,
        };
        if !joins {
            out.extend(lane.holds.get(from..at));
            from = at;
        }
    }
    out
}

/// How many digits of the keys the labels need, from four to eight.
fn digits(lanes: &[Lane<'_>]) -> usize {
    let distinct = |digits: usize| {
        let labels: BTreeSet<(String, String)> = lanes
            .iter()
            .map(|lane| (clip(lane.first, digits + 1), clip(lane.last, digits + 1)))
            .collect();
        labels.len() == lanes.len()
    };
    (4..8).find(|digits| distinct(*digits)).unwrap_or(8)
}

fn lane_ground(chart: &mut Chart<'_>, lane: &Lane<'_>, y: f64, height: f64, digits: usize) {
    let short = |key: &str| key.chars().take(digits).collect::<String>();
    put!(
        chart.body,
        r#"<rect class="lane" x="{LEFT}" y="{:.1}" width="{}" height="{:.1}" fill-opacity=".55"/><text class="mono" x="{}" y="{:.1}" text-anchor="end"><title>{} to {}: {} holds</title>{}…{}…</text>"#,
        y + 1.0,
        RIGHT - LEFT,
        height - 2.0,
        LEFT - 8.0,
        y + height / 2.0 + 4.0,
        safe(lane.first, 40),
        safe(lane.last, 40),
        count(lane.holds.len()),
        safe(&short(lane.first), 9),
        safe(&short(lane.last), 9)
    );
}

fn bars(
    chart: &mut Chart<'_>,
    lane: &Lane<'_>,
    y: f64,
    height: f64,
    apart: f64,
    colours: &BTreeMap<&str, usize>,
) {
    let axis = chart.axis;
    let mut busy_until = 0;
    for group in groups(lane, axis, apart) {
        match group {
            [hold] => {
                // A second holder at one time has the lower half of the lane.
                let half = if hold.from_ns < busy_until {
                    height / 2.0
                } else {
                    0.0
                };
                bar(chart, hold, y + half, height - half, colours);
                busy_until = busy_until.max(hold.to_ns);
            }
            [_, _, ..] => shares(chart, group, y, height, colours),
            [] => {}
        }
    }
}

/// Several holds in one bar, as high for each pod as it held the slice.
fn shares(
    chart: &mut Chart<'_>,
    group: &[&Hold],
    y: f64,
    height: f64,
    colours: &BTreeMap<&str, usize>,
) {
    let from = group.iter().map(|hold| hold.from_ns).min().unwrap_or(0);
    let to = group.iter().map(|hold| hold.to_ns).max().unwrap_or(0);
    let mut held: BTreeMap<&str, u64> = BTreeMap::new();
    for hold in group {
        let long = hold.to_ns.saturating_sub(hold.from_ns);
        let sum = held.entry(&hold.pod).or_default();
        *sum = sum.saturating_add(long);
    }
    let all: f64 = held.values().map(|ns| *ns as f64).sum();
    let whole = all.max(to.saturating_sub(from) as f64).max(1.0);
    let (x, width) = (
        chart.axis.x(from),
        (chart.axis.x(to) - chart.axis.x(from)).max(1.0),
    );
    let (mut bottom, high) = (y + height - 2.0, height - 4.0);
    put!(chart.body, "<g>");
    for (pod, ns) in &held {
        let part = high * *ns as f64 / whole;
        bottom -= part;
        let colour = colours.get(pod).copied().unwrap_or(0);
        put!(
            chart.body,
            r#"<path class="hold c{colour}" d="M{x:.1},{bottom:.1}h{width:.1}v{part:.1}h-{width:.1}z"/>"#
        );
    }
    let pods: Vec<&str> = held.into_keys().collect();
    put!(
        chart.body,
        "<title>{} holds of {}: {} to {}</title></g>",
        group.len(),
        safe(&pods.join(", "), 100),
        seconds(from),
        seconds(to)
    );
}

fn bar(chart: &mut Chart<'_>, hold: &Hold, y: f64, height: f64, colours: &BTreeMap<&str, usize>) {
    let axis = chart.axis;
    let (x, to) = (axis.x(hold.from_ns), axis.x(hold.to_ns));
    let width = (to - x).max(1.0);
    let (top, high) = (y + 3.0, height - 6.0);
    let colour = colours.get(hold.pod.as_str()).copied().unwrap_or(0);
    let frozen = hold.frozen_ns.map_or_else(String::new, |at| {
        format!(
            "\nfrozen for a handoff at {}, {} before its end",
            seconds(at),
            span(hold.to_ns.saturating_sub(at))
        )
    });
    put!(
        chart.body,
        r#"<g><rect class="hold c{colour}" x="{x:.1}" y="{top:.1}" width="{width:.1}" height="{high:.1}"/>"#
    );
    if let Some(at) = hold.frozen_ns.filter(|at| axis.shows(*at, *at)) {
        let at = axis.x(at);
        put!(
            chart.body,
            r#"<rect class="hatch" x="{at:.1}" y="{top:.1}" width="{:.1}" height="{high:.1}"/><path class="freeze" d="M{at:.1},{:.1}v{:.1}"/>"#,
            (to - at).max(0.0),
            y + 1.0,
            height - 2.0
        );
    }
    let token = token(hold.token);
    let sign = if token.contains('#') { "" } else { "#" };
    let label = format!("{} {sign}{token}", hold.pod);
    let label = [label.as_str(), hold.pod.as_str()]
        .into_iter()
        .find(|label| height >= 13.0 && label.chars().count() as f64 * 6.8 + 8.0 < width);
    if let Some(label) = label {
        put!(
            chart.body,
            r#"<text class="in" x="{:.1}" y="{:.1}">{}</text>"#,
            x + 4.0,
            y + height / 2.0 + 4.0,
            safe(label, 60)
        );
    }
    put!(
        chart.body,
        "<title>{}, incarnation {}, token {}\n{} to {} ({}){frozen}</title></g>",
        safe(&hold.pod, 80),
        hold.incarnation,
        if token.contains('#') {
            format!("{token}, the number {}", hold.token)
        } else {
            token
        },
        seconds(hold.from_ns),
        seconds(hold.to_ns),
        span(hold.to_ns.saturating_sub(hold.from_ns))
    );
}

/// Clashes lie above everything and are never too narrow to see.
fn clash_marks(chart: &mut Chart<'_>, lane: &Lane<'_>, clashes: &[Clash], y: f64, height: f64) {
    let axis = chart.axis;
    let here = |clash: &&Clash| {
        lane.range
            .is_some_and(|range| clash.slices.contains(&range))
            && axis.shows(clash.from_ns, clash.to_ns)
    };
    for clash in clashes.iter().filter(here) {
        let x = axis.x(clash.from_ns);
        let width = (axis.x(clash.to_ns) - x).max(3.0);
        put!(chart.body, "<g>");
        if clash.both {
            put!(
                chart.body,
                r#"<rect class="overlap" x="{x:.1}" y="{:.1}" width="{width:.1}" height="{:.1}"/><rect class="clash" x="{x:.1}" y="{:.1}" width="{width:.1}" height="{:.1}"/>"#,
                y + height / 2.0 - 2.0,
                5.0,
                y + 1.0,
                height - 2.0
            );
        }
        let middle = x + if clash.both { width / 2.0 } else { 0.0 };
        put!(
            chart.body,
            r#"<path class="badmark" d="M{middle:.1},{:.1}l-5,-8h10z"/><title>{}: {}</title></g>"#,
            y + 4.0,
            seconds(clash.from_ns),
            safe(&clash.what, 300)
        );
    }
}

fn legend(chart: &mut Chart<'_>, colours: &BTreeMap<&str, usize>, clashes: &[Clash]) {
    for (pod, colour) in colours.iter().take(MAX_PODS) {
        chart
            .legend
            .push((box_key(&format!("hold c{colour}")), clip(pod, 24)));
    }
    if colours.len() > MAX_PODS {
        chart.legend.push((
            String::new(),
            format!("and {} more pods", colours.len() - MAX_PODS),
        ));
    }
    let frozen = r#"<rect class="hold c7" width="16" height="12"/><rect class="hatch" width="16" height="12"/><path class="freeze" d="M0,-1V13"/>"#;
    chart
        .legend
        .push((frozen.to_owned(), "frozen for a handoff".to_owned()));
    let axis = chart.axis;
    let seen = |both: bool| {
        clashes
            .iter()
            .filter(|c| c.both == both && axis.shows(c.from_ns, c.to_ns))
            .count()
    };
    let most = if clashes.len() >= MAX_CLASHES {
        " or more"
    } else {
        ""
    };
    let overlap = r#"<rect class="overlap" width="16" height="12"/>"#.to_owned();
    chart.legend.push((
        overlap,
        format!("two holders at once: {}{most}", count(seen(true))),
    ));
    if seen(false) > 0 {
        let mark = r#"<path class="badmark" d="M8,10l-5,-8h10z"/>"#.to_owned();
        chart.legend.push((
            mark,
            format!("token did not rise: {}{most}", count(seen(false))),
        ));
    }
}
