//! The load: workers that do what their workload says, each on a thread of its own.
//!
//! Process numbers: worker `w` of `n` begins as process `w`. After an operation that ended
//! unknown, which may take effect at any later time, its process is never used again: the worker
//! goes on as process + `n`, with a new client. So a process tells its worker, `process mod n`,
//! and with that its workload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use self::seat::{Seat, SeatReport};
use super::recorder::Recorder;
use crate::system::{Host, System};
use crate::workload::Workload;

pub mod seat;

/// Between two questions to a workload that has nothing to do, or to a system that refuses a
/// client.
const PAUSE: Duration = Duration::from_millis(10);
/// How long all workers may take to end once told to.
const JOIN: Duration = Duration::from_secs(30);

/// The workers that one workload of a run has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The workload.
    pub workload: String,
    /// Its first worker.
    pub first: u64,
    /// How many it has.
    pub count: u64,
}

impl Share {
    /// Whether this process, of a run with `workers` in all, is one of its workers.
    pub fn has(&self, process: u64, workers: u64) -> bool {
        let worker = process % workers.max(1);
        (self.first..self.first + self.count).contains(&worker)
    }
}

/// Deals workers to workloads, in order.
pub fn shares<'a>(workloads: impl IntoIterator<Item = &'a dyn Workload>) -> Vec<Share> {
    let mut first = 0;
    workloads
        .into_iter()
        .map(|workload| {
            let share = Share {
                workload: workload.name().to_owned(),
                first,
                count: workload.workers() as u64,
            };
            first += share.count;
            share
        })
        .collect()
}

/// One workload while it runs.
pub struct Part {
    /// Its workers.
    pub share: Share,
    /// What they do.
    pub workload: Mutex<Box<dyn Workload>>,
}

impl Part {
    /// This workload, with these workers.
    pub fn new(share: Share, workload: Box<dyn Workload>) -> Self {
        Self {
            share,
            workload: Mutex::new(workload),
        }
    }
}

/// Moves the calling thread into the network of a host.
pub type Enter = dyn Fn(&str) -> anyhow::Result<()> + Send + Sync;

/// What all workers share.
pub struct Load {
    /// The system under test.
    pub system: Arc<dyn System>,
    /// Its hosts.
    pub hosts: Vec<Host>,
    /// Names of the clients' hosts; workers are dealt to them in turn.
    pub clients: Vec<String>,
    /// How a thread gets into them.
    pub enter: Box<Enter>,
    /// The workloads.
    pub parts: Vec<Arc<Part>>,
    /// The history.
    pub recorder: Recorder,
    /// Operations a second, all workers together; `None`: as fast as answers come.
    pub rate: Option<f64>,
    /// Decides the pauses between operations.
    pub seed: u64,
}

/// The workers of a load, at work.
pub struct Workers {
    stop: Arc<AtomicBool>,
    reports: mpsc::Receiver<anyhow::Result<SeatReport>>,
    count: usize,
}

impl Load {
    /// How many workers there are in all.
    pub fn workers(&self) -> u64 {
        self.parts.iter().map(|part| part.share.count).sum()
    }

    /// The host of a worker's client.
    fn client_host(&self, worker: u64) -> Option<&str> {
        let count = self.clients.len().max(1);
        let host = self.clients.get(worker as usize % count)?;
        Some(host.as_str())
    }

    /// Starts every worker.
    ///
    /// # Errors
    ///
    /// A thread could not be had; those started are told to stop.
    pub fn start(self: &Arc<Self>) -> anyhow::Result<Workers> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, reports) = mpsc::channel();
        let mut count = 0;
        for (part, share) in self.parts.iter().map(|part| &part.share).enumerate() {
            for worker in share.first..share.first + share.count {
                let (load, told) = (Arc::clone(self), Arc::clone(&stop));
                let sender = sender.clone();
                let name = format!("worker-{worker}");
                let spawned = std::thread::Builder::new().name(name).spawn(move || {
                    let _ = sender.send(load.work(part, worker, &told));
                });
                if let Err(error) = spawned {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error.into());
                }
                count += 1;
            }
        }
        Ok(Workers {
            stop,
            reports,
            count,
        })
    }

    /// What one worker does until it is told to stop.
    fn work(&self, part: usize, worker: u64, stop: &AtomicBool) -> anyhow::Result<SeatReport> {
        let part = &self.parts[part];
        let number = usize::try_from(worker - part.share.first)?;
        let mut pauses = SmallRng::seed_from_u64(self.seed ^ worker.rotate_left(32));
        self.seated(worker, worker, async |mut seat: Seat<'_>| {
            while !stop.load(Ordering::Relaxed) {
                let Some(()) = seat.connect(&part.share.workload).await else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let next = part.workload.lock().next(number);
                let Some(invocation) = next else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let completion = seat.perform(&invocation).await?;
                part.workload.lock().ended(number, &invocation, &completion);
                if let Some(pause) = self.pause(&mut pauses) {
                    tokio::time::sleep(pause).await;
                }
            }
            Ok(seat.report())
        })
    }

    /// Runs something in the network of a worker's client host, with a runtime of its own.
    pub(super) fn seated<R>(
        &self,
        worker: u64,
        process: u64,
        body: impl AsyncFnOnce(Seat<'_>) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        if let Some(host) = self.client_host(worker) {
            (self.enter)(host)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(body(Seat::new(self, worker, process)))
    }

    /// How long a worker waits before its next operation: evenly spread around the mean that
    /// gives the wanted rate.
    fn pause(&self, random: &mut SmallRng) -> Option<Duration> {
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        let mean = self.workers() as f64 / rate;
        Some(Duration::from_secs_f64(
            random.random_range(0.0..=2.0) * mean.min(60.0),
        ))
    }
}

impl Workers {
    /// Tells all workers to end and waits until they have.
    ///
    /// # Errors
    ///
    /// A worker could not write the history, or could not get into its network, or does not end:
    /// the harness has failed.
    pub fn stop(self) -> anyhow::Result<Vec<SeatReport>> {
        self.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + JOIN;
        let mut reports = Vec::with_capacity(self.count);
        while reports.len() < self.count {
            let left = until.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => reports.push(report?),
                Err(mpsc::RecvTimeoutError::Timeout) => anyhow::bail!(
                    "{} of {} workers did not end within {} s: a client blocks its thread",
                    self.count - reports.len(),
                    self.count,
                    JOIN.as_secs()
                ),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("a worker panicked; its message is on standard error")
                }
            }
        }
        Ok(reports)
    }

    /// Whether a worker ended before it was told to: it has failed, and so will the run.
    pub fn failed(&self) -> Option<anyhow::Error> {
        match self.reports.try_recv() {
            Ok(Err(error)) => Some(error),
            Ok(Ok(_)) => Some(anyhow::anyhow!("a worker ended before it was told to")),
            Err(mpsc::TryRecvError::Disconnected) if self.count > 0 => {
                Some(anyhow::anyhow!("every worker panicked"))
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
