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
    let key = operation
        .key
        .as_deref()
        .map_or_else(String::new, |key| format!(" of key {}", safe(key, 60)));
    format!(
        "process {}: {} {}{key}",
        operation.process,
        safe(&operation.f, 40),
        result(operation, 80)
    )
}

/// What went in and what came out, escaped.
pub(crate) fn result(operation: &Operation, chars: usize) -> String {
    let argument = value(&operation.argument, chars);
    let result = value(&operation.result, chars);
    let text = match (argument.is_empty(), result.is_empty() || result == argument) {
        (true, true) => String::new(),
        (true, false) => format!("→ {result}"),
        (false, true) => argument,
        _ if result
            .strip_prefix(argument.as_str())
            .is_some_and(|rest| rest.starts_with(" @")) =>
        {
            result
        }
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
        put!(out, " under token {}", crate::text::token(epoch));
    }
    if let Some(error) = &operation.error {
        put!(out, ": {}", safe(error, 300));
    }
    out
}

/// Draws one window.
pub(crate) fn draw(run: &Run, window: &Window, bands: &Bands<'_>) -> String {
    let shown: Vec<&Operation> = window
        .operations
        .iter()
        .filter_map(|at| run.operations.get(*at))
        .collect();
    let processes: BTreeSet<u64> = shown.iter().map(|o| o.process).collect();
    let lanes = lanes(&shown, &processes, window);
    let rows: BTreeMap<u64, usize> = lanes.iter().enumerate().map(|(i, p)| (*p, i)).collect();
    let mut steps: Vec<(u64, u64)> = shown
        .iter()
        .filter(|o| window.marks(o))
        .map(|o| (o.from_ns, o.index))
        .collect();
    steps.sort_unstable();
    let height = if lanes.len() <= 24 { 24.0 } else { 15.0 };
    let mut chart = Chart::new(
        &window.title,
        window.axis,
        (lanes.len() as f64 * height).max(40.0),
    );
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
        if let Some(lane) = rows.get(&operation.process) {
            let step = steps
                .binary_search(&(operation.from_ns, operation.index))
                .ok();
            bar(
                &mut chart,
                operation,
                step.map(|i| i + 1),
                *lane as f64 * height,
                height,
            );
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

/// The processes shown: those of marked operations on top.
fn lanes(shown: &[&Operation], processes: &BTreeSet<u64>, window: &Window) -> Vec<u64> {
    let mut lanes: Vec<u64> = processes.iter().copied().collect();
    if lanes.len() > MAX_LANES {
        let mut busy: BTreeMap<u64, usize> = BTreeMap::new();
        for (rank, operation) in shown.iter().enumerate() {
            // Operations of a finding come first in a window.
            *busy.entry(operation.process).or_default() += 1 + 10_000 / (rank + 1);
        }
        lanes.sort_by_key(|p| (std::cmp::Reverse(busy.get(p).copied().unwrap_or(0)), *p));
        lanes.truncate(MAX_LANES);
    }
    let marked: BTreeSet<u64> = shown
        .iter()
        .filter(|o| window.marks(o))
        .map(|o| o.process)
        .collect();
    lanes.sort_by_key(|process| (!marked.contains(process), *process));
    lanes
}

/// Draws an operation; `step` is its number in the explanation of a finding.
fn bar(chart: &mut Chart<'_>, operation: &Operation, step: Option<usize>, y: f64, height: f64) {
    let axis = chart.axis;
    let end = operation.end.map_or(axis.to_ns, |(_, at)| at);
    let x = axis.x(operation.from_ns);
    let width = (axis.x(end) - x).max(2.0);
    let (top, high) = (y + 3.0, (height - 6.0).max(2.0));
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
    if step.is_some() {
        put!(
            chart.body,
            r#"<rect class="mark" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" rx="3"/>"#,
            x - 2.0,
            top - 2.0,
            width + 4.0,
            high + 4.0
        );
    }
    bar_label(chart, operation, step, (x, width), y + height / 2.0 + 4.0);
    put!(
        chart.body,
        "<title>{}\n{}\n{} to {} ({}), line {}</title></g>",
        describe(operation),
        ending(operation),
        seconds(operation.from_ns),
        operation
            .end
            .map_or_else(|| "the end".to_owned(), |(_, at)| seconds(at)),
        operation
            .latency_ns()
            .map_or_else(|| "open".to_owned(), span),
        operation.index
    );
}

/// Names an operation in its bar, or, if it is a step of an explanation, beside it.
fn bar_label(
    chart: &mut Chart<'_>,
    operation: &Operation,
    step: Option<usize>,
    (x, width): (f64, f64),
    y: f64,
) {
    let f = safe(&operation.f, 17);
    let number = step.map_or_else(String::new, |step| format!("{step}. "));
    let label = format!("{number}{f} {}", result(operation, 12));
    let room = |label: &str| label.chars().count() as f64 * 6.6 + 8.0;
    let inside = [&label, &f]
        .into_iter()
        .find(|label| step.is_none() && room(label) < width);
    let (label, x, anchor) = match inside {
        Some(inside) => (inside, x + 3.0, "start"),
        None if step.is_none() => return,
        None if room(&label) < width => (&label, x + 4.0, "start"),
        None if x + width + room(&label) < RIGHT => (&label, x + width + 6.0, "start"),
        None => (&label, x - 6.0, "end"),
    };
    let class = if step.is_some() { "on halo" } else { "on" };
    put!(
        chart.body,
        r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" pointer-events="none">{label}</text>"#
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
        "<p class=\"note\">{}</p>",
        "Point at a bar for its operation, value and error. A bar lasts from the beginning of its operation to its end; an unknown one goes on as a broken line, since it may take effect at any later time."
    );
    if let Some(left_out) = left_out {
        put!(
            body,
            "<p class=\"note\">{}</p>",
            crate::text::escape(&left_out)
        );
    }
    if run.operations.is_empty() {
        body.push_str(
            "<p class=\"banner\">The history is empty or missing: there is nothing to show.</p>",
        );
    }
    body.push_str("<div class=\"plots\">");
    for window in &windows {
        body.push_str(&draw(run, window, bands));
    }
    body.push_str("</div>");
    body.push_str(crate::page::READOUT);
    crate::page::page("Timeline", &body)
}
