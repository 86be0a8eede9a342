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
//! * The deadline is in the process's own lease clock. Where that clock has run at a rate that it
//!   must not have (see `agreement.rs`), deadlines say nothing, and only probes count.
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

mod agreement;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use leasehold_checkers::run::{ClockSample, Hold, Passage, Passing};

use self::agreement::Agreement;
use super::hold_log::ALIVE;
use crate::system::Trimmed;

/// All that the logs of one pod say.
#[derive(Debug, Default)]
pub struct Witness {
    /// When it certainly could serve what.
    pub holds: Vec<Hold>,
    /// How its clocks stood.
    pub clocks: Vec<ClockSample>,
    /// Which slices came with their state, and how they went.
    pub passages: Vec<Passage>,
    /// Handoffs that it received.
    pub handoffs: u64,
    /// What the intervals leave out, though the log does not exclude that it was served.
    pub trimmed: Trimmed,
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
    lease_clock: Option<Agreement>,
    /// Until when checks pass, by the lease clock.
    until_ns: u64,
    open: BTreeMap<Tenure, Open>,
    closed: Vec<Closed>,
    clocks: Vec<ClockSample>,
    passages: Vec<Passage>,
    /// Since when the process, which is about to end, waits for no destination any more.
    hurried_ns: Option<u64>,
    /// The time of its last line: it lived then.
    last_ns: u64,
    trimmed: Trimmed,
}

impl<'a> Reader<'a> {
    fn new(pod: &'a str, origin_ns: u64) -> Self {
        Self {
            pod,
            origin_ns,
            incarnation: 0,
            lease_clock: None,
            until_ns: 0,
            open: BTreeMap::new(),
            closed: Vec::new(),
            clocks: Vec::new(),
            passages: Vec::new(),
            hurried_ns: None,
            last_ns: 0,
            trimmed: Trimmed::default(),
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
        self.last_ns = self.last_ns.max(at_ns);
        match verb {
            "lease" => {
                self.clock(at_ns, words.number()?);
                self.until_ns = words.number()?;
                self.lives_on(at_ns);
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
            "come" | "gone" => {
                let tenure = words.tenure()?;
                self.passage(at_ns, tenure, words.next()?)?;
            }
            "hurry" => self.hurried_ns = Some(words.number()?),
            other => bail!("{other:?} is nothing that a hold log says"),
        }
        Ok(())
    }

    fn clock(&mut self, at_ns: u64, believed_ns: u64) {
        match &mut self.lease_clock {
            Some(clock) => clock.read(at_ns, believed_ns),
            None => self.lease_clock = Some(Agreement::new(at_ns, believed_ns)),
        }
    }

    fn sample(&mut self, at_ns: u64, wall_offset_ns: i64) {
        let drift_ns = self.lease_clock.as_ref().map_or(0, Agreement::drift_ns);
        self.clocks.push(ClockSample {
            host: self.pod.to_owned(),
            time_ns: at_ns.saturating_sub(self.origin_ns),
            lease_offset_ns: drift_ns,
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

    fn passage(&mut self, at_ns: u64, tenure: Tenure, how: &str) -> anyhow::Result<()> {
        let what = match how {
            "warm" => Passing::Warm,
            "cold-handed-over" => Passing::ColdHandedOver,
            "cold-granted" => Passing::ColdGranted,
            "merging" => Passing::Merging,
            "surrendered" if self.hurried_ns.is_some_and(|from| from <= at_ns) => Passing::Hurried,
            "surrendered" => Passing::Surrendered,
            "lost" => Passing::Lost,
            other => bail!("{other:?} is no way to come or to go"),
        };
        let (first, last, token) = tenure;
        self.passages.push(Passage {
            pod: self.pod.to_owned(),
            incarnation: self.incarnation,
            first: format!("{first:016x}"),
            last: format!("{last:016x}"),
            token,
            time_ns: at_ns.saturating_sub(self.origin_ns),
            what,
            alive_ns: self.alive_ns(),
        });
        Ok(())
    }

    /// Until when the session has not expired, by the newest lease.
    fn alive_ns(&self) -> u64 {
        let deadline = self.deadline_ns().unwrap_or(0);
        deadline.saturating_sub(self.origin_ns)
    }

    /// The lease was extended: if it had not run out, the session is still the one that it was when
    /// slices went.
    fn lives_on(&mut self, at_ns: u64) {
        let at_ns = at_ns.saturating_sub(self.origin_ns);
        let until_ns = self.alive_ns();
        for passage in self.passages.iter_mut().rev() {
            if passage.alive_ns < at_ns {
                break;
            }
            passage.alive_ns = passage.alive_ns.max(until_ns);
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
        let clock = self.lease_clock.as_ref()?;
        match self.until_ns {
            u64::MAX => clock.agrees().then_some(u64::MAX),
            until => clock.true_ns(until),
        }
    }

    fn close(&mut self, tenure: Tenure, open: &Open, at_ns: u64) {
        let deadline_ns = self.deadline_ns();
        let in_time = deadline_ns.is_some_and(|deadline| at_ns <= deadline);
        let end_ns = match in_time {
            true => Some(at_ns).max(open.passed_ns),
            false => open.passed_ns,
        };
        if !in_time {
            // Beyond its deadline nothing is served, unless the probes say so.
            let possible_ns = at_ns.min(deadline_ns.unwrap_or(u64::MAX));
            let from_ns = open.passed_ns.unwrap_or(open.begin_ns);
            self.trimmed.add(end_ns.is_some(), from_ns, possible_ns);
        }
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
                self.trimmed.add(false, open.begin_ns, open.begin_ns);
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
        // Who is killed says nothing more, whatever is left of its lease.
        let last_ns = self.last_ns.saturating_sub(self.origin_ns);
        for passage in &mut self.passages {
            passage.alive_ns = passage.alive_ns.min(last_ns);
        }
        witness.passages.append(&mut self.passages);
        witness.trimmed.merge(&self.trimmed);
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
mod tests;
