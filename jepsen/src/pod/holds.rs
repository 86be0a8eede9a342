//! From a pod's [hold log](super::hold_log) to the intervals in which it *certainly* could serve.
//!
//! # What is certain
//!
//! An overlap that is reported must have been one, and one that lasted for two milliseconds must
//! be reported.
//!
//! * An interval begins with its `begin`: the Slicelet writes it before it gives the first guard,
//!   and by the protocol no other may serve from before that instant.
//! * While the lease runs, the interval ends with its `end`: until then requests under way verify,
//!   and the Slicelet writes it before anybody hears that the slice is free.
//! * A process that was paused or cut off writes the `end` when it comes to it, perhaps long after
//!   another has the slice. That its lease had run out by then is seen from the last `lease` line.
//!   Then only probes count: the interval ends when the last check that passed was asked. (So it
//!   does if the process ignores its deadline: it serves, and every probe says so.)
//! * The deadline is in the process's own lease clock. Where that clock no longer agrees with true
//!   time as it did at the start, deadlines say nothing, and only probes count.
//! * A process that was killed served until its last round of probes.
//! * An interval of no length in which no check passed proves nothing and is left out. A process that wakes from a long
//!   pause takes in what arrived meanwhile: it writes `begin` for what an old answer gives it, under
//!   a lease that ran out in the pause, and `end` when it sees that.
//! * A process may also be stopped just before it writes the `begin`, and write it when its lease
//!   has long run out. Where only probes count and none passed, nothing is certain: there is no
//!   interval.
//! * A check that passed is a fact, whatever was written: an interval never ends before it.
//!
//! Probes are asked at most a period apart while the process runs, so the end of an interval by
//! probes is early by one period at most; a pause makes it no earlier, since nothing is served in
//! a pause.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use leasehold_checkers::run::{ClockSample, Hold};

use super::hold_log::ALIVE;

/// By how much the lease clock may leave true time before its deadlines are not believed: reading
/// two clocks one after the other takes this long on a busy machine.
const AGREEMENT_NS: u64 = 1_000_000;

/// All that the logs of one pod say.
#[derive(Debug, Default)]
pub struct Witness {
    /// When it certainly could serve what.
    pub holds: Vec<Hold>,
    /// How its clocks stood.
    pub clocks: Vec<ClockSample>,
    /// Handoffs that it received.
    pub handoffs: u64,
}

/// Reads every incarnation's log at `path`, as [`HoldLog::create`](super::hold_log::HoldLog::create)
/// names them. `origin_ns` is subtracted from all times.
///
/// # Errors
/// A log cannot be read, or a line of it cannot be understood.
pub fn read(path: &Path, pod: &str, origin_ns: u64) -> anyhow::Result<Witness> {
    let mut witness = Witness::default();
    for log in logs(path)? {
        let text = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let (round_ns, handoffs) = alive(&log)?;
        let mut reader = Reader::new(pod, origin_ns);
        for (number, line) in whole.lines().enumerate() {
            reader
                .line(line)
                .with_context(|| format!("line {} of {}", number + 1, log.display()))?;
        }
        reader.finish(round_ns, &mut witness);
        witness.handoffs += handoffs;
    }
    Ok(witness)
}

/// Handoffs that the pod with logs at `path` has received so far.
///
/// # Errors
/// The directory cannot be read.
pub fn handoffs(path: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for log in logs(path)? {
        sum += alive(&log)?.1;
    }
    Ok(sum)
}

/// The logs of all incarnations, in order.
fn logs(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) else {
        bail!("{} names no file", path.display());
    };
    let mut found = Vec::new();
    if dir.is_dir() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?.path();
            let ours = entry.file_name().and_then(|name| name.to_str());
            if ours.is_some_and(|ours| {
                ours.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('-'))
                    && !ours.ends_with(ALIVE)
            }) {
                found.push(entry);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The last round of probes, and the handoffs received.
fn alive(log: &Path) -> anyhow::Result<(u64, u64)> {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{ALIVE}"));
    let bytes = match std::fs::read(&name) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(error.into()),
    };
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    Ok((number(0).unwrap_or(0), number(8).unwrap_or(0)))
}

/// First key, last key, token.
type Tenure = (u64, u64, u64);

#[derive(Debug)]
struct Open {
    begin_ns: u64,
    frozen_ns: Option<u64>,
    passed_ns: Option<u64>,
    /// Whether the probes pass now.
    passing: bool,
}

struct Closed {
    tenure: Tenure,
    begin_ns: u64,
    end_ns: u64,
    frozen_ns: Option<u64>,
    /// Whether the probes pass all the same.
    passing: bool,
}

struct Reader<'a> {
    pod: &'a str,
    origin_ns: u64,
    incarnation: u64,
    /// Lease clock minus true time, at first and now.
    offsets: Option<(i64, i64)>,
    skewed: bool,
    /// Until when checks pass, by the lease clock.
    until_ns: u64,
    open: BTreeMap<Tenure, Open>,
    closed: Vec<Closed>,
    clocks: Vec<ClockSample>,
}

impl<'a> Reader<'a> {
    fn new(pod: &'a str, origin_ns: u64) -> Self {
        Self {
            pod,
            origin_ns,
            incarnation: 0,
            offsets: None,
            skewed: false,
            until_ns: 0,
            open: BTreeMap::new(),
            closed: Vec::new(),
            clocks: Vec::new(),
        }
    }

    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        let mut words = Words(line.split(' '));
        let verb = words.next()?;
        if verb == "log" {
            words.next()?;
            self.incarnation = words.number()?;
            return Ok(());
        }
        let at_ns = words.number()?;
        match verb {
            "lease" => {
                self.clock(at_ns, words.number()?);
                self.until_ns = words.number()?;
            }
            "clock" => {
                let believed = words.number()?;
                self.clock(at_ns, believed);
                let wall: i64 = words.next()?.parse()?;
                self.sample(at_ns, wall);
            }
            "begin" | "freeze" | "end" => {
                self.clock(at_ns, words.number()?);
                let tenure = words.tenure()?;
                if let Some(passed) = words.maybe_number()? {
                    self.passed(tenure, passed, false);
                }
                self.event(verb, at_ns, tenure);
            }
            "pass" | "late" => {
                let tenure = words.tenure()?;
                self.passed(tenure, at_ns, verb == "pass");
            }
            "stop" => {
                let tenure = words.tenure()?;
                self.passed(tenure, words.number()?, false);
            }
            other => bail!("{other:?} is nothing that a hold log says"),
        }
        Ok(())
    }

    fn clock(&mut self, at_ns: u64, believed_ns: u64) {
        let offset = believed_ns.wrapping_sub(at_ns).cast_signed();
        let (first, _) = *self.offsets.get_or_insert((offset, offset));
        self.offsets = Some((first, offset));
        // For good: what a clock once lost cannot be told from its readings alone.
        self.skewed |= offset.abs_diff(first) > AGREEMENT_NS;
    }

    fn sample(&mut self, at_ns: u64, wall_offset_ns: i64) {
        let (first, now) = self.offsets.unwrap_or_default();
        self.clocks.push(ClockSample {
            host: self.pod.to_owned(),
            time_ns: at_ns.saturating_sub(self.origin_ns),
            lease_offset_ns: now.wrapping_sub(first),
            wall_offset_ns,
        });
    }

    fn event(&mut self, verb: &str, at_ns: u64, tenure: Tenure) {
        match verb {
            "begin" => {
                self.open.entry(tenure).or_insert(Open {
                    begin_ns: at_ns,
                    frozen_ns: None,
                    passed_ns: None,
                    passing: false,
                });
            }
            "freeze" => {
                if let Some(open) = self.open.get_mut(&tenure) {
                    open.frozen_ns = Some(at_ns);
                }
            }
            _ => {
                if let Some(open) = self.open.remove(&tenure) {
                    self.close(tenure, &open, at_ns);
                }
            }
        }
    }

    /// A check that passed; `goes_on`: the probes pass from here until they stop.
    fn passed(&mut self, tenure: Tenure, asked_ns: u64, goes_on: bool) {
        match self.open.get_mut(&tenure) {
            Some(open) => {
                open.passed_ns = open.passed_ns.max(Some(asked_ns));
                open.passing = goes_on;
            }
            None => {
                let mut closed = self.closed.iter_mut().rev();
                match closed.find(|closed| closed.tenure == tenure) {
                    Some(closed) => {
                        closed.end_ns = closed.end_ns.max(asked_ns);
                        closed.passing = goes_on;
                    }
                    // A guard that nothing was written of.
                    None => self.closed.push(Closed {
                        tenure,
                        begin_ns: asked_ns,
                        end_ns: asked_ns,
                        frozen_ns: None,
                        passing: goes_on,
                    }),
                }
            }
        }
    }

    /// When the lease runs out in true time; `None` where that cannot be told.
    fn deadline_ns(&self) -> Option<u64> {
        let (_, offset) = self.offsets.filter(|_| !self.skewed)?;
        match self.until_ns {
            u64::MAX => Some(u64::MAX),
            until => Some(until.wrapping_sub(offset.cast_unsigned())),
        }
    }

    fn close(&mut self, tenure: Tenure, open: &Open, at_ns: u64) {
        let in_time = self.deadline_ns().is_some_and(|deadline| at_ns <= deadline);
        let end_ns = match in_time {
            true => Some(at_ns).max(open.passed_ns),
            false => open.passed_ns,
        };
        self.closed.extend(end_ns.map(|end_ns| Closed {
            tenure,
            begin_ns: open.begin_ns,
            end_ns,
            frozen_ns: open.frozen_ns,
            passing: false,
        }));
    }

    fn finish(mut self, round_ns: u64, witness: &mut Witness) {
        for (tenure, open) in std::mem::take(&mut self.open) {
            let Some(passed_ns) = open.passed_ns else {
                continue;
            };
            self.closed.push(Closed {
                tenure,
                begin_ns: open.begin_ns,
                end_ns: passed_ns,
                frozen_ns: None,
                passing: open.passing,
            });
        }
        for closed in self.closed.iter_mut().filter(|closed| closed.passing) {
            closed.end_ns = closed.end_ns.max(round_ns);
        }
        let origin = self.origin_ns;
        witness.clocks.append(&mut self.clocks);
        witness.holds.extend(self.closed.into_iter().map(|closed| {
            let (first, last, token) = closed.tenure;
            Hold {
                pod: self.pod.to_owned(),
                incarnation: self.incarnation,
                first: format!("{first:016x}"),
                last: format!("{last:016x}"),
                token,
                from_ns: closed.begin_ns.saturating_sub(origin),
                to_ns: closed.end_ns.saturating_sub(origin),
                frozen_ns: closed.frozen_ns.map(|at| at.saturating_sub(origin)),
            }
        }));
    }
}

struct Words<'a>(std::str::Split<'a, char>);

impl<'a> Words<'a> {
    fn next(&mut self) -> anyhow::Result<&'a str> {
        self.0.next().context("the line is too short")
    }

    fn number(&mut self) -> anyhow::Result<u64> {
        Ok(self.next()?.parse()?)
    }

    fn maybe_number(&mut self) -> anyhow::Result<Option<u64>> {
        Ok(self.0.next().map(str::parse).transpose()?)
    }

    fn tenure(&mut self) -> anyhow::Result<Tenure> {
        let mut key = || Ok::<_, anyhow::Error>(u64::from_str_radix(self.next()?, 16)?);
        let (first, last) = (key()?, key()?);
        Ok((first, last, self.number()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Reads a log of these lines, with times in milliseconds; the last round of probes at
    /// `round_ms`. Lines have `B` for the lease clock, which is 1000 ms ahead of true time.
    fn holds(lines: &[&str], round_ms: u64) -> Vec<(u64, u64)> {
        let mut reader = Reader::new("p1", 0);
        reader.line("log app 0").unwrap();
        for line in lines {
            let words: Vec<String> = line.split(' ').map(in_ns).collect();
            reader.line(&words.join(" ")).unwrap();
        }
        let mut witness = Witness::default();
        reader.finish(round_ms * MS, &mut witness);
        let mut found: Vec<(u64, u64)> = witness
            .holds
            .iter()
            .map(|hold| (hold.from_ns / MS, hold.to_ns / MS))
            .collect();
        found.sort_unstable();
        found
    }

    /// `12ms` in nanoseconds, `12B` the same on the lease clock; other words as they are.
    fn in_ns(word: &str) -> String {
        let number = |text: &str| text.parse::<u64>().unwrap();
        match (word.strip_suffix("ms"), word.strip_suffix('B')) {
            (Some(ms), _) => (number(ms) * MS).to_string(),
            (_, Some(ms)) => ((number(ms) + 1_000) * MS).to_string(),
            _ => word.to_owned(),
        }
    }

    #[test]
    fn a_slice_that_is_given_up_in_time_is_held_until_the_end_is_written() {
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 f 7",
            "pass 11ms 0 f 7",
            "freeze 50ms 50B 0 f 7",
            "stop 51ms 0 f 7 49ms",
            "end 60ms 60B 0 f 7",
        ];
        assert_eq!(holds(&lines, 90), [(10, 60)]);
    }

    #[test]
    fn a_tenure_between_two_probes_is_not_missed() {
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 f 7",
            "end 11ms 11B 0 f 7",
        ];
        assert_eq!(holds(&lines, 90), [(10, 11)]);
    }

    #[test]
    fn what_a_paused_process_writes_late_counts_for_nothing() {
        // Paused from 51 to 400; the deadline was at 100.
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 f 7",
            "pass 11ms 0 f 7",
            "end 400ms 400B 0 f 7 50ms",
        ];
        assert_eq!(holds(&lines, 410), [(10, 50)]);
    }

    #[test]
    fn what_an_old_answer_gives_a_process_that_wakes_counts_for_nothing() {
        // Paused from 51 to 400; an answer of before the pause moves the deadline to 120.
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 f 7",
            "pass 11ms 0 f 7",
            "end 400ms 400B 0 f 7 50ms",
            "begin 400ms 400B 0 f 7",
            "lease 400ms 400B 120B",
            "end 401ms 401B 0 f 7",
        ];
        assert_eq!(holds(&lines, 410), [(10, 50)]);
    }

    #[test]
    fn a_lapse_ends_one_interval_and_the_next_renewal_begins_another() {
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 f 7",
            "pass 11ms 0 f 7",
            "stop 101ms 0 f 7 99ms",
            "end 300ms 300B 0 f 7",
            "begin 300ms 300B 0 f 7",
            "lease 300ms 300B 500B",
            "pass 301ms 0 f 7",
        ];
        assert_eq!(holds(&lines, 320), [(10, 99), (300, 320)]);
    }

    #[test]
    fn a_process_that_serves_beyond_its_deadline_is_taken_at_its_word() {
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 f 7",
            "pass 11ms 0 f 7",
            "end 300ms 300B 0 f 7 299ms",
            "pass 301ms 0 f 7",
            "stop 351ms 0 f 7 350ms",
        ];
        assert_eq!(holds(&lines, 400), [(10, 350)]);
    }

    #[test]
    fn a_clock_that_has_left_true_time_is_not_believed() {
        // The lease clock stands still; by it the lease never runs out.
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 f 7",
            "pass 11ms 0 f 7",
            "clock 200ms 50B 0",
            "end 300ms 50B 0 f 7 120ms",
        ];
        assert_eq!(holds(&lines, 310), [(10, 120)]);
    }

    #[test]
    fn a_killed_process_served_until_its_last_round_of_probes() {
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 7 7",
            "begin 20ms 20B 8 f 8",
            "pass 21ms 0 7 7",
        ];
        assert_eq!(holds(&lines, 60), [(10, 60)]);
    }

    #[test]
    fn a_guard_that_verifies_after_the_end_is_evidence() {
        let lines = [
            "lease 0ms 0B 100B",
            "begin 10ms 10B 0 f 7",
            "end 30ms 30B 0 f 7",
            "late 45ms 0 f 7",
        ];
        assert_eq!(holds(&lines, 90), [(10, 45)]);
    }

    #[test]
    fn without_a_lease_everything_is_held_until_the_end() {
        let lines = [
            "lease 0ms 0B 18446744073709551615",
            "begin 10ms 10B 0 f 7",
            "pass 11ms 0 f 7",
            "end 900ms 900B 0 f 7 899ms",
        ];
        assert_eq!(holds(&lines, 910), [(10, 900)]);
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_an_error() {
        let mut reader = Reader::new("p1", 0);
        assert!(reader.line("begin 10").is_err());
        assert!(reader.line("hum 10").is_err());
    }
}
