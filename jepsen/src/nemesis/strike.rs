//! One fault from its beginning to its end, and what all faults have in common.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use leasehold_checkers::run::{Fault, Installed};
use leasehold_faults::{Disk, Effect, Shim};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;

use super::attack;
use super::claims::{Claims, Overlay, Part};
use super::field::Field;
use super::schedule::Strike;

/// An attempt to undo that fails is made again until this has passed.
const UNDO: Duration = Duration::from_secs(60);
/// How often an effect is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(200);
/// A fault that has an effect at all has it within this, and a change to the clocks of a process
/// that is awake reaches it.
const REACH: Duration = Duration::from_secs(5);

/// What all faults of a run share.
pub(crate) struct Stage<'a> {
    pub(crate) field: &'a Field<'a>,
    pub(crate) claims: Claims,
    pub(crate) overlay: Overlay,
    /// The one host whose disk loses what it has synced, once it is chosen.
    pub(crate) broken: Mutex<Option<String>>,
    pub(crate) begun: Instant,
    /// Becomes true when all faults are to end.
    pub(crate) stop: watch::Receiver<bool>,
}

/// How to undo a piece of harm. Noted before the harm is done, so that none is forgotten.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Remedy {
    /// A process lives.
    Start(String),
    /// It goes on.
    Resume(String),
    /// It has all processors.
    Feed(String),
    /// The changes of this number are off the links.
    Links(u64),
    /// Its clocks run truly.
    Clock(String),
    /// Its `fsync` does what it should.
    Sync(String),
    /// Its disk takes writes.
    Disk(String),
    /// It votes.
    Join(String),
    /// It may have slices.
    Undrain(String),
    /// Leases last as at the beginning.
    Ttl,
    /// The strong promise holds.
    Strong,
}

/// Looks afterwards whether a fault had the effect that it should have had; says what is missing.
type Proof<'a> = Box<dyn Fn() -> Option<String> + Send + 'a>;

/// What one fault has done so far.
pub(crate) struct Harm<'a> {
    pub(crate) hosts: Vec<String>,
    pub(crate) detail: String,
    pub(crate) remedies: Vec<Remedy>,
    pub(crate) proofs: Vec<Proof<'a>>,
    held: Vec<(Vec<String>, Vec<Part>)>,
}

impl<'a> Harm<'a> {
    fn none() -> Self {
        Self {
            hosts: Vec::new(),
            detail: String::new(),
            remedies: Vec::new(),
            proofs: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Demands that a counter has risen by the end of the fault.
    pub(crate) fn must_rise(&mut self, what: &str, counter: impl Fn() -> u64 + Send + 'a) {
        let before = counter();
        let what = what.to_owned();
        self.proofs.push(Box::new(move || {
            (counter() <= before).then(|| what.clone())
        }));
    }
}

impl<'a> Stage<'a> {
    /// Takes hold of parts of up to `count` of these hosts. They are let go of when the fault has
    /// been undone.
    pub(crate) fn claim(
        &self,
        harm: &mut Harm<'_>,
        hosts: &[String],
        count: usize,
        parts: &[Part],
    ) -> Vec<String> {
        let taken = self.claims.take(hosts, count, parts);
        harm.held.push((taken.clone(), parts.to_vec()));
        harm.hosts.extend(taken.iter().cloned());
        taken
    }

    /// The shim of a host, or why there is none.
    pub(crate) fn shim(&self, host: &str) -> Result<&'a Arc<Shim>, Effect> {
        self.field.shims.get(host).ok_or_else(|| {
            let why = self.field.no_shims.clone();
            Effect::Skipped(why.unwrap_or_else(|| format!("`{host}` has no shim")))
        })
    }

    /// The disk of a host, or why there is none.
    pub(crate) fn disk(&self, host: &str) -> Result<&'a Arc<Disk>, Effect> {
        let disk = self.field.disks.get(host);
        disk.ok_or_else(|| Effect::skipped(format!("`{host}` has no disk of its own")))
    }

    /// Whether all faults are to end.
    pub(crate) fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Sleeps until then, or until all faults are to end.
    pub(crate) async fn sleep_until(&self, then: Instant) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep_until(then) => {}
            // An error means that nobody can stop the faults any more but the clock.
            Ok(_) = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Waits until a host's process has read a clock under its newest setting.
    pub(crate) async fn until_seen(&self, shim: &Shim) -> bool {
        let until = Instant::now() + REACH;
        while !shim.is_seen() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        shim.is_seen()
    }

    /// Carries out one fault. `None`: all faults ended before it began.
    pub(crate) async fn carry_out(&self, strike: &Strike) -> Option<Fault> {
        self.sleep_until(self.begun + strike.at).await;
        if self.is_over() {
            return None;
        }
        let from_ns = self.field.origin.elapsed_ns();
        let least = self.field.ttl.mul_f64(strike.mode.least_ttls);
        let mut until = Instant::now() + strike.lasts;
        let mut rng = StdRng::seed_from_u64(strike.seed);
        let mut harm = Harm::none();
        let struck = attack::strike(self, strike.mode.name, &mut rng, &mut harm).await;
        // Until here it was not in force, or not seen to be.
        let in_force = Instant::now();
        if matches!(struck, Ok(Effect::Done)) {
            until = until.max(in_force + least);
            self.announce(strike, "begins", &harm);
            attack::go_on(self, strike.mode.name, &mut rng, &mut harm, until).await;
            self.sleep_until(until).await;
        }
        let mut installed = match struck {
            Ok(Effect::Done) => long_enough(in_force.elapsed(), least),
            Ok(Effect::Skipped(why)) => Installed::Skipped(why),
            Err(error) => Installed::Indeterminate(format!("{error:#}")),
        };
        let missing = self.missing(&harm).await;
        if installed == Installed::Installed && !missing.is_empty() {
            installed = Installed::Indeterminate(missing.join("; "));
        }
        let undone = self.undo(&harm).await;
        for (hosts, parts) in &harm.held {
            self.claims.release(hosts, parts);
        }
        if let Err(error) = &undone {
            harm.detail = format!("{}; NOT UNDONE: {error:#}", harm.detail);
        }
        self.announce(strike, "ended", &harm);
        Some(Fault {
            kind: strike.mode.group.to_owned(),
            mode: strike.mode.name.to_owned(),
            hosts: harm.hosts,
            detail: harm.detail,
            installed,
            from_ns,
            to_ns: undone.ok().map(|()| self.field.origin.elapsed_ns()),
        })
    }

    /// What a fault should have done and has not. On a busy machine it may take its time, so it
    /// is held until it is seen, or patience runs out.
    async fn missing(&self, harm: &Harm<'_>) -> Vec<String> {
        let until = Instant::now() + REACH;
        loop {
            let missing: Vec<String> = harm.proofs.iter().filter_map(|proof| proof()).collect();
            if missing.is_empty() || self.is_over() || Instant::now() >= until {
                return missing;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn announce(&self, strike: &Strike, what: &str, harm: &Harm<'_>) {
        let (mode, hosts) = (strike.mode.name, harm.hosts.join(" "));
        (self.field.say)(&format!("{mode} {what}: {hosts} {}", harm.detail));
    }

    /// Undoes all harm, newest first, each piece until it succeeds or patience runs out.
    async fn undo(&self, harm: &Harm<'_>) -> Result<()> {
        let mut failed = Vec::new();
        for remedy in harm.remedies.iter().rev() {
            let until = Instant::now() + UNDO;
            while let Err(error) = self.apply(remedy).await {
                if Instant::now() >= until {
                    failed.push(format!("{remedy:?}: {error:#}"));
                    break;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(anyhow!(failed.join("; ")))
        }
    }

    async fn apply(&self, remedy: &Remedy) -> Result<()> {
        let processes = &self.field.processes;
        match remedy {
            Remedy::Start(host) => self.start(host).await,
            Remedy::Resume(host) => {
                processes.resume(host)?;
                anyhow::ensure!(!processes.is_paused(host), "`{host}` is still stopped");
                Ok(())
            }
            Remedy::Feed(host) => processes.feed(host),
            Remedy::Links(number) => self.overlay.set(&self.field.network, *number, Vec::new()),
            Remedy::Clock(host) => {
                if let Ok(shim) = self.shim(host) {
                    shim.restore_clocks();
                }
                Ok(())
            }
            Remedy::Sync(host) => {
                if let Ok(shim) = self.shim(host) {
                    shim.restore_sync();
                }
                Ok(())
            }
            Remedy::Disk(host) => self.restore_disk(host).await,
            Remedy::Join(host) => done(self.cluster()?.add_member(host).await),
            Remedy::Undrain(pod) => done(self.cluster()?.undrain(pod).await),
            Remedy::Ttl => done(self.cluster()?.set_ttl(None).await),
            Remedy::Strong => done(self.cluster()?.set_strong(true).await),
        }
    }

    fn cluster(&self) -> Result<&'a dyn super::ClusterControl> {
        self.field.cluster.context("the system cannot be operated")
    }

    async fn start(&self, host: &str) -> Result<()> {
        let (processes, host) = (self.field.processes.clone(), host.to_owned());
        blocking(move || {
            let alive = processes.is_alive(&host);
            processes.allow_end(&host, false);
            if alive {
                Ok(())
            } else {
                processes.restart(&host)
            }
        })
        .await
    }

    /// A disk that takes no writes is mounted anew, for which the process must die.
    async fn restore_disk(&self, host: &str) -> Result<()> {
        let Ok(disk) = self.disk(host) else {
            return Ok(());
        };
        let (disk, processes, host) = (disk.clone(), self.field.processes.clone(), host.to_owned());
        blocking(move || {
            disk.thaw()?;
            disk.drain()?;
            if !disk.is_writable() {
                processes.kill(&host)?;
            }
            disk.restore()
        })
        .await
    }
}

/// Whether a fault was in force for as long as it needs to show anything: the end of the run may
/// have cut it short.
fn long_enough(lasted: Duration, least: Duration) -> Installed {
    if lasted >= least {
        return Installed::Installed;
    }
    Installed::Indeterminate(format!(
        "it was cut short after {:.1} s and shows nothing before {:.1} s",
        lasted.as_secs_f64(),
        least.as_secs_f64()
    ))
}

/// Skipping an undoing is failing to.
fn done(effect: Result<Effect>) -> Result<()> {
    match effect? {
        Effect::Done => Ok(()),
        Effect::Skipped(why) => Err(anyhow!("skipped: {why}")),
    }
}

/// Runs something that waits for the kernel where it holds up no other fault.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| anyhow!("a fault's own code panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_was_cut_short_is_no_fault_that_was_tried() {
        let least = Duration::from_secs(4);
        assert_eq!(long_enough(least, least), Installed::Installed);
        assert_eq!(
            long_enough(Duration::ZERO, Duration::ZERO),
            Installed::Installed
        );
        let short = long_enough(least / 2, least);
        assert!(matches!(short, Installed::Indeterminate(why) if why.contains("cut short")));
    }
}
