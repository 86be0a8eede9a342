//! Faults behind data: one colour for each kind of fault, the same in every plot of a run.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_checkers::run::{Fault, Installed};

use crate::axis::TimeAxis;
use crate::text::{put, safe, seconds};

/// Colours there are: classes `f0` … `f9`.
const COLOURS: usize = 10;
/// Bands of one kind in one plot; beyond, neighbours less than a pixel apart are one.
const MAX_BANDS: usize = 300;

/// Height of the strip that a kind has of its own above the data, where bands may lie on bands.
pub(crate) const CAP: f64 = 4.0;

/// The faults of a run with their colours.
#[derive(Debug)]
pub(crate) struct Bands<'a> {
    faults: &'a [Fault],
    colours: BTreeMap<&'a str, usize>,
    end_ns: u64,
}

impl<'a> Bands<'a> {
    /// Gives every kind in `faults` a colour. Kinds known to the harness keep theirs from run to
    /// run; two kinds have the same only when there are more kinds than colours.
    pub fn new(faults: &'a [Fault], end_ns: u64) -> Self {
        let kinds: BTreeSet<&str> = faults.iter().map(|fault| fault.kind.as_str()).collect();
        let mut colours = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for kind in kinds {
            let wish = wish(kind);
            let free = (0..COLOURS)
                .map(|i| (wish + i) % COLOURS)
                .find(|c| !taken.contains(c));
            let colour = free.unwrap_or(wish);
            taken.insert(colour);
            colours.insert(kind, colour);
        }
        Self {
            faults,
            colours,
            end_ns,
        }
    }

    /// Class of the colour of a kind.
    pub fn class(&self, kind: &str) -> String {
        format!("f{}", self.colours.get(kind).copied().unwrap_or(0))
    }

    /// The kinds, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.colours.keys().copied()
    }

    /// The kinds with a band in `axis`, in order.
    pub fn kinds_shown(&self, axis: TimeAxis) -> impl Iterator<Item = &str> {
        self.kinds().filter(move |kind| {
            self.in_force(kind)
                .any(|(fault, to)| axis.shows(fault.from_ns, to))
        })
    }

    /// Until when a fault is drawn: one that was never undone, to the end of the run.
    pub fn until(&self, fault: &Fault) -> u64 {
        fault.to_ns.unwrap_or(self.end_ns).max(fault.from_ns)
    }

    /// Faults of this kind that were or may have been in force.
    fn in_force<'b>(&'b self, kind: &'b str) -> impl Iterator<Item = (&'a Fault, u64)> + 'b {
        self.faults
            .iter()
            .filter(move |f| f.kind == kind && !matches!(f.installed, Installed::Skipped(_)))
            .map(|fault| (fault, self.until(fault)))
    }

    /// Bands over the whole `height` of a plot, to be drawn before its data, and above it a strip
    /// for each kind shown.
    pub fn draw(&self, axis: TimeAxis, height: f64) -> String {
        let mut out = String::new();
        let rows = self.kinds_shown(axis).count();
        for (row, kind) in self.kinds_shown(axis).enumerate() {
            let cap = CAP * (row as f64 - rows as f64) - 1.0;
            let shown: Vec<(&Fault, u64)> = self
                .in_force(kind)
                .filter(|(f, to)| axis.shows(f.from_ns, *to))
                .collect();
            let class = self.class(kind);
            for (from, to, title) in merged(&shown, axis) {
                let x = axis.x(from);
                let width = (axis.x(to) - x).max(1.0);
                put!(
                    out,
                    r#"<g><rect class="band {class}" x="{x:.1}" y="0" width="{width:.1}" height="{height}"/><rect class="cap {class}" x="{x:.1}" y="{cap}" width="{width:.1}" height="{}"/><title>{title}</title></g>"#,
                    CAP - 1.0
                );
            }
        }
        out
    }
}

/// What a fault was, in one line of escaped text.
pub(crate) fn label(fault: &Fault) -> String {
    let hosts = if fault.hosts.is_empty() {
        String::new()
    } else {
        format!(" ({})", fault.hosts.join(", "))
    };
    safe(&format!("{} {}{hosts}", fault.kind, fault.mode), 160)
}

fn merged(shown: &[(&Fault, u64)], axis: TimeAxis) -> Vec<(u64, u64, String)> {
    let mut out: Vec<(u64, u64, String)> = Vec::new();
    let near_ns = if shown.len() > MAX_BANDS {
        axis.span_ns() / MAX_BANDS as u64
    } else {
        0
    };
    for (fault, to) in shown {
        match out.last_mut() {
            Some(last) if near_ns > 0 && fault.from_ns <= last.1.saturating_add(near_ns) => {
                last.1 = last.1.max(*to);
                last.2 = format!("{}, many times", safe(&fault.kind, 80));
            }
            _ => {
                let title = format!(
                    "{}: {} to {}",
                    label(fault),
                    seconds(fault.from_ns),
                    seconds(*to)
                );
                out.push((fault.from_ns, *to, title));
            }
        }
    }
    out
}

/// The colour that a kind would like.
fn wish(kind: &str) -> usize {
    const KNOWN: [(&str, usize); 14] = [
        ("kill", 0),
        ("crash", 0),
        ("pause", 1),
        ("partition", 2),
        ("clock", 4),
        ("delay", 3),
        ("loss", 3),
        ("link", 3),
        ("slow", 3),
        ("disk", 7),
        ("fsync", 7),
        ("power", 9),
        ("member", 5),
        ("leader", 6),
    ];
    let known = KNOWN.iter().find(|(start, _)| kind.starts_with(start));
    known.map_or_else(
        || {
            kind.bytes()
                .fold(0usize, |sum, byte| (sum * 31 + usize::from(byte)) % 9_973)
                % COLOURS
        },
        |(_, colour)| *colour,
    )
}
