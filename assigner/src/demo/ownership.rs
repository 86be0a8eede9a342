//! The ownership log of a pod: when it could serve which slice, on the host's one lease clock.
//!
//! One line an event, flushed at once, so that a killed pod's log ends with what it last knew:
//!
//! * `begin NS FIRST LAST TOKEN`: from here on a guard may pass;
//! * `freeze NS FIRST LAST TOKEN`: no new guard, those in flight go on;
//! * `end NS FIRST LAST TOKEN`: no guard and no verify passes any more;
//! * `lease NS DEADLINE`: from here on checks pass until the deadline (`eventual`: for ever).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use leasehold_proto::overlap::Interval;
use leasehold_proto::{Slice, SliceKey};

/// One event of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// From here on a guard may pass.
    Begin(Span),
    /// No new guard passes.
    Freeze(Span),
    /// Nothing passes any more.
    End(Span),
    /// Checks pass from the first time until the second.
    Lease(u64, u64),
}

/// When, which slice, at which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// On the host's lease clock.
    pub at_ns: u64,
    /// The slice.
    pub slice: Slice,
    /// The fencing token.
    pub token: u64,
}

/// Appends events to a pod's log.
pub struct Log {
    file: File,
    line: String,
}

impl Log {
    /// Opens the log at `path` for appending: a restarted pod has a log of its own.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::create(path)?,
            line: String::new(),
        })
    }

    /// Writes one event with one write call: a kill leaves whole lines or the last one cut.
    pub fn write(&mut self, event: Event) -> io::Result<()> {
        self.line.clear();
        let written = match event {
            Event::Begin(span) => write_span(&mut self.line, "begin", span),
            Event::Freeze(span) => write_span(&mut self.line, "freeze", span),
            Event::End(span) => write_span(&mut self.line, "end", span),
            Event::Lease(at, deadline) => writeln!(self.line, "lease {at} {deadline}"),
        };
        written.map_err(io::Error::other)?;
        self.file.write_all(self.line.as_bytes())
    }
}

fn write_span(line: &mut String, verb: &str, span: Span) -> std::fmt::Result {
    let (first, last) = (span.slice.first().as_u64(), span.slice.last().as_u64());
    writeln!(
        line,
        "{verb} {} {first:x} {last:x} {}",
        span.at_ns, span.token
    )
}

/// What one pod's log says.
#[derive(Debug, Default)]
pub struct History {
    /// When it held which slice.
    pub held: Vec<Interval>,
    /// When it stopped taking requests for a slice that it then gave up, with the token.
    pub freezes: Vec<(Span, u64)>,
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of {path} is no event of an ownership log: {text:?}")]
pub struct BadLine {
    path: String,
    line: usize,
    text: String,
}

/// Reads a log. `died_ns` is when the process was certainly dead; what it still held ends there,
/// or at its last deadline if that is earlier. A last line without an end is cut off.
pub fn read(path: &Path, holder: u64, died_ns: u64) -> anyhow::Result<History> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut reader = Reader {
        holder,
        ..Reader::default()
    };
    for (number, line) in whole.lines().enumerate() {
        let event = parse(line).ok_or_else(|| BadLine {
            path: path.display().to_string(),
            line: number + 1,
            text: line.chars().take(120).collect(),
        })?;
        reader.event(event);
    }
    Ok(reader.finish(died_ns))
}

fn parse(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let verb = words.next()?;
    let at_ns = words.next()?.parse().ok()?;
    if verb == "lease" {
        return Some(Event::Lease(at_ns, words.next()?.parse().ok()?));
    }
    let mut key = || {
        u64::from_str_radix(words.next()?, 16)
            .ok()
            .map(SliceKey::from_u64)
    };
    let slice = Slice::new(key()?, key()?)?;
    let span = Span {
        at_ns,
        slice,
        token: words.next()?.parse().ok()?,
    };
    match verb {
        "begin" => Some(Event::Begin(span)),
        "freeze" => Some(Event::Freeze(span)),
        "end" => Some(Event::End(span)),
        _ => None,
    }
}

#[derive(Default)]
struct Reader {
    holder: u64,
    open: BTreeMap<(Slice, u64), Open>,
    /// Stretches in which the lease ran, in order, joined where they touch.
    leases: Vec<(u64, u64)>,
    spans: Vec<(Slice, u64, u64, u64)>,
    freezes: Vec<(Span, u64)>,
}

struct Open {
    begin_ns: u64,
    frozen: Option<Span>,
}

impl Reader {
    fn event(&mut self, event: Event) {
        match event {
            Event::Begin(span) => {
                self.open.entry((span.slice, span.token)).or_insert(Open {
                    begin_ns: span.at_ns,
                    frozen: None,
                });
            }
            Event::Freeze(span) => {
                if let Some(open) = self.open.get_mut(&(span.slice, span.token)) {
                    open.frozen = Some(span);
                }
            }
            Event::End(span) => {
                if let Some(open) = self.open.remove(&(span.slice, span.token)) {
                    self.spans
                        .push((span.slice, span.token, open.begin_ns, span.at_ns));
                    self.freezes
                        .extend(open.frozen.map(|frozen| (frozen, span.at_ns)));
                }
            }
            Event::Lease(from, to) => match self.leases.last_mut() {
                Some((_, end)) if from <= *end => *end = to.max(*end),
                _ => self.leases.push((from, to)),
            },
        }
    }

    fn finish(mut self, died_ns: u64) -> History {
        for ((slice, token), open) in std::mem::take(&mut self.open) {
            self.spans.push((slice, token, open.begin_ns, died_ns));
        }
        let mut history = History {
            held: Vec::new(),
            freezes: self.freezes,
        };
        for (slice, token, begin, end) in self.spans {
            // What was held while the lease did not run was not held at all.
            for (from, to) in &self.leases {
                let (begin_ns, end_ns) = (begin.max(*from), end.min(*to));
                if begin_ns < end_ns {
                    history.held.push(Interval {
                        slice,
                        begin_ns,
                        end_ns,
                        holder: self.holder,
                        token,
                    });
                }
            }
        }
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(at_ns: u64, token: u64) -> Span {
        Span {
            at_ns,
            slice: Slice::ALL,
            token,
        }
    }

    fn history(events: &[Event], died_ns: u64) -> History {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path).unwrap();
        for event in events {
            log.write(*event).unwrap();
        }
        // A kill in the middle of a write.
        log.file.write_all(b"end 12").unwrap();
        read(&path, 1, died_ns).unwrap()
    }

    fn held(history: &History) -> Vec<(u64, u64)> {
        history
            .held
            .iter()
            .map(|interval| (interval.begin_ns, interval.end_ns))
            .collect()
    }

    #[test]
    fn a_killed_pod_held_until_its_death_or_its_last_deadline() {
        let events = [Event::Lease(0, 100), Event::Begin(span(10, 5))];
        assert_eq!(held(&history(&events, 60)), [(10, 60)]);
        assert_eq!(held(&history(&events, 600)), [(10, 100)]);
    }

    #[test]
    fn a_lapse_is_not_held() {
        let events = [
            Event::Lease(0, 100),
            Event::Begin(span(10, 5)),
            Event::Lease(50, 150),
            Event::Lease(300, 400),
            Event::End(span(350, 5)),
        ];
        assert_eq!(held(&history(&events, 1_000)), [(10, 150), (300, 350)]);
    }

    #[test]
    fn a_freeze_counts_only_where_an_end_follows() {
        let events = [
            Event::Lease(0, u64::MAX),
            Event::Begin(span(1, 5)),
            Event::Freeze(span(7, 5)),
            Event::End(span(9, 5)),
            Event::Begin(span(20, 6)),
            Event::Freeze(span(25, 6)),
        ];
        let history = history(&events, 30);
        assert_eq!(history.freezes, vec![(span(7, 5), 9)]);
        assert_eq!(held(&history), [(1, 9), (20, 30)]);
    }
}
