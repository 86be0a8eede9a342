//! `ownership.html`: who held what around the first fault of each kind, near enough to see every
//! handoff, which the plot of a whole long run cannot show.

use leasehold_checkers::run::{Fault, Installed};

use crate::axis::TimeAxis;
use crate::bands::Bands;
use crate::clash::Clash;
use crate::page::{READOUT, page};
use crate::plot::ownership;
use crate::run::Run;
use crate::text::{clip, put, seconds};

/// Length of a window.
const WINDOW_NS: u64 = 20_000_000_000;
/// How long before a fault its window begins.
const BEFORE_NS: u64 = 3_000_000_000;
/// Windows at most.
const MAX_WINDOWS: usize = 6;

/// The page.
pub(crate) fn draw(run: &Run, clashes: &[Clash], bands: &Bands<'_>) -> String {
    let mut body = String::from(
        "<p><a href=\"index.html\">← the run</a></p><h1>Ownership, close up</h1><div class=\"plots\">",
    );
    for (title, axis) in windows(run, bands) {
        body.push_str(&ownership::draw(&title, run, clashes, axis, bands));
    }
    put!(body, "</div>{READOUT}");
    page("Ownership, close up", &body)
}

/// Around the first fault in force of each kind; without any, the beginning and the middle.
fn windows(run: &Run, bands: &Bands<'_>) -> Vec<(String, TimeAxis)> {
    let axis = |at: u64| {
        let from = at.saturating_sub(BEFORE_NS);
        TimeAxis::new(from, from.saturating_add(WINDOW_NS).min(run.axis().to_ns))
    };
    let first = |kind: &str| {
        let of_kind = |f: &&Fault| f.kind == kind && !matches!(f.installed, Installed::Skipped(_));
        run.faults.iter().find(of_kind)
    };
    let mut faults: Vec<&Fault> = bands.kinds().filter_map(first).collect();
    faults.sort_by_key(|fault| fault.from_ns);
    if faults.is_empty() {
        let middle = run.end_ns / 2;
        return vec![
            ("The beginning".to_owned(), axis(0)),
            (
                format!("From {}", seconds(middle.saturating_sub(BEFORE_NS))),
                axis(middle),
            ),
        ];
    }
    let title = |f: &Fault| {
        let mode = clip(&f.mode, 60);
        format!(
            "Around the first {} ({mode}) at {}",
            clip(&f.kind, 40),
            seconds(f.from_ns)
        )
    };
    faults
        .iter()
        .take(MAX_WINDOWS)
        .map(|f| (title(f), axis(f.from_ns)))
        .collect()
}
