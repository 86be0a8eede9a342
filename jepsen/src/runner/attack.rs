//! The faults of a run: a schedule carried out beside the load, and undone at its end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use leasehold_faults::TrueTime;
use tokio::sync::watch;

use super::Plan;
use super::notes::Notes;
use super::place::Place;
use crate::nemesis::{self, Attacked, Field, Schedule, Timing};
use crate::store::{RunDir, write_lines};
use crate::system::System;

/// How long undoing everything may take at the end, beyond what each single step is given.
const UNDO: Duration = Duration::from_secs(180);

/// Faults under way on a thread of their own.
pub struct Attack {
    schedule: Schedule,
    begun: Instant,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<anyhow::Result<Attacked>>>,
    file: std::path::PathBuf,
}

impl Attack {
    /// Draws the schedule and begins to carry it out.
    ///
    /// # Errors
    ///
    /// A fault's name is unknown, or there is nothing to strike.
    pub fn start(
        plan: &Plan,
        place: &Arc<Place>,
        system: &Arc<dyn System>,
        origin: TrueTime,
        dir: &RunDir,
        notes: &Arc<Notes>,
    ) -> anyhow::Result<Self> {
        let timing = match plan.overlapping {
            true => Timing::mixed(plan.time_limit, plan.ttl),
            false => Timing::alone(plan.time_limit, plan.ttl),
        };
        let schedule = Schedule::from_seed(plan.seed, &plan.nemeses, &timing)?;
        std::fs::write(dir.file("schedule.txt"), schedule.to_string())
            .context("writing the schedule")?;
        let (stop, stopped) = watch::channel(false);
        let thread = if schedule.strikes.is_empty() {
            None
        } else {
            let body = Body {
                place: Arc::clone(place),
                system: Arc::clone(system),
                notes: Arc::clone(notes),
                schedule: schedule.clone(),
                origin,
                ttl: plan.ttl,
                rho: plan.rho,
            };
            let thread = std::thread::Builder::new().name("faults".into());
            Some(thread.spawn(move || body.run(stopped))?)
        };
        Ok(Self {
            schedule,
            begun: Instant::now(),
            stop,
            thread,
            file: dir.file("faults.jsonl"),
        })
    }

    /// The faults that should be in force now.
    pub fn active(&self) -> Vec<&'static str> {
        let now = self.begun.elapsed();
        let strikes = self.schedule.strikes.iter();
        strikes
            .filter(|strike| strike.at <= now && now < strike.at + strike.lasts)
            .map(|strike| strike.mode.name)
            .collect()
    }

    /// Ends all faults, waits until they are undone, and writes down what was done.
    ///
    /// # Errors
    ///
    /// They could not be carried out at all, or not be written down; or a host is still wrong, so
    /// that nothing can be said of how the system recovers.
    pub fn end(self) -> anyhow::Result<()> {
        // An error means that the thread has ended already.
        let _ = self.stop.send(true);
        let Some(thread) = self.thread else {
            return Ok(());
        };
        let until = Instant::now() + UNDO;
        while !thread.is_finished() {
            anyhow::ensure!(
                Instant::now() < until,
                "faults were not undone within {} s",
                UNDO.as_secs()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let attacked = match thread.join() {
            Ok(attacked) => attacked?,
            Err(_) => anyhow::bail!("the thread of the faults panicked"),
        };
        write_lines(&self.file, &attacked.faults)?;
        match attacked.not_healed {
            Some(why) => anyhow::bail!("not everything was healed: {why}"),
            None => Ok(()),
        }
    }
}

/// What the thread of the faults needs.
struct Body {
    place: Arc<Place>,
    system: Arc<dyn System>,
    notes: Arc<Notes>,
    schedule: Schedule,
    origin: TrueTime,
    ttl: Duration,
    rho: f64,
}

impl Body {
    fn run(self, mut stop: watch::Receiver<bool>) -> anyhow::Result<Attacked> {
        let place = &self.place;
        let ground = place
            .ground
            .as_ref()
            .context("faults need hosts, and the system has none")?;
        let operator = self.system.operator(&place.hosts);
        let field = Field {
            network: Arc::clone(&ground.network),
            processes: Arc::clone(&ground.processes),
            shims: place.shims.clone(),
            no_shims: place.no_shims.clone(),
            disks: place.disks.clone(),
            system: self.system.as_ref(),
            cluster: operator.as_deref(),
            hosts: &place.hosts,
            clients: &place.clients,
            core: self.system.core(),
            ttl: self.ttl,
            rho: self.rho,
            origin: self.origin,
            say: &|what| self.notes.say(what),
        };
        ground.network.enter(place.control())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let until = async move {
            // An error means that nobody waits for the faults any more: they end as well.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        Ok(runtime.block_on(nemesis::run(&self.schedule, &field, until)))
    }
}
