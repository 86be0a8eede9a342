//! The processes of a demo and the files that they leave.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use leasehold_proto::target::Consistency;

use super::ownership::{self, History};
use crate::harness::assigners::Assigners;
use crate::harness::control::Control;
use crate::harness::procs::{Ports, Proc};
use crate::harness::{PATIENCE, now_ns};

/// The target of the demo.
pub const TARGET: &str = "demo";

/// Pods restart one by one, each when the one before has its share again: a longer pause, in which
/// the next restart is waited for, would only be waited out.
const RESTART_PAUSE: &str = "1s";

/// How many of what a world has.
#[derive(Clone, Debug)]
pub struct Plan {
    pub assigners: u16,
    pub pods: u16,
    pub clients: u16,
    /// Requests per second of all clients together.
    pub rate: u32,
    /// Closed loop instead: so many requests under way at any time in each client.
    pub concurrency: Option<u32>,
    pub ttl: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            assigners: 3,
            pods: 5,
            clients: 2,
            rate: 2_000,
            concurrency: None,
            ttl: Duration::from_secs(3),
        }
    }
}

/// One pod: a place, at which one process after another serves.
pub struct Pod {
    pub name: String,
    pub address: SocketAddr,
    pub proc: Option<Proc>,
    /// Ownership log of the present process.
    log: PathBuf,
    /// Number of the present process among all that were pods: the holder in intervals.
    holder: u64,
}

/// Everything that runs.
pub struct World {
    pub dir: PathBuf,
    plan: Plan,
    pub assigners: Assigners,
    pub pods: Vec<Pod>,
    pub clients: Vec<(Proc, PathBuf)>,
    /// Logs of pod processes that have ended, with the time at which each was certainly dead.
    ended: Vec<(PathBuf, u64, u64)>,
    next_holder: u64,
}

impl World {
    /// Plans the processes; starts none.
    pub fn new(dir: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let mut ports = Ports::default();
        let assigners = Assigners::plan(dir, plan.assigners, plan.ttl, &mut ports)?
            .with_env("LEASEHOLD_PLANNER__RESTART_PAUSE", RESTART_PAUSE);
        let mut pods = Vec::new();
        for number in 0..plan.pods {
            let name = format!("pod-{number}");
            pods.push(Pod {
                name,
                address: ports.next()?,
                proc: None,
                log: PathBuf::new(),
                holder: 0,
            });
        }
        let (clients, ended) = (Vec::new(), Vec::new());
        Ok(Self {
            dir: dir.to_owned(),
            plan: plan.clone(),
            assigners,
            pods,
            clients,
            ended,
            next_holder: 1,
        })
    }

    /// Starts Assigners and pods, creates the target and waits until it is served evenly.
    pub async fn start(&mut self, mode: Consistency, slices: u32) -> anyhow::Result<Control> {
        let control = self.assigners.start_all().await?;
        control
            .create_target(TARGET, mode, self.plan.ttl, slices)
            .await?;
        for index in 0..self.pods.len() {
            self.start_pod(index)?;
        }
        self.settle(&control).await?;
        Ok(control)
    }

    /// Whether every slice is owned by a running pod, nothing moves, and the counts are even.
    pub async fn is_settled(&self, control: &Control) -> anyhow::Result<bool> {
        let running = self.pods.iter().filter(|pod| pod.proc.is_some());
        let mut counts: BTreeMap<String, usize> =
            running.map(|pod| (pod.address.to_string(), 0)).collect();
        let slices = control.slices(TARGET).await?;
        for slice in &slices {
            match slice
                .owner
                .as_ref()
                .and_then(|(_, address)| counts.get_mut(address))
            {
                Some(count) if !slice.moving => *count += 1,
                _ => return Ok(false),
            }
        }
        let (most, least) = (counts.values().max(), counts.values().min());
        Ok(!slices.is_empty()
            && most
                .zip(least)
                .is_some_and(|(most, least)| most - least <= 1))
    }

    /// Waits until [`World::is_settled`].
    pub async fn settle(&mut self, control: &Control) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.is_settled(control).await? {
            self.check_alive()?;
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "the slices were not served evenly within {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Starts, or starts again, one pod, with an ownership log of its own.
    pub fn start_pod(&mut self, index: usize) -> anyhow::Result<()> {
        let endpoints = self.assigners.endpoints().join(",");
        let pod = &mut self.pods[index];
        pod.holder = self.next_holder;
        self.next_holder += 1;
        pod.log = self
            .dir
            .join(format!("{}-{}.ownership", pod.name, pod.holder));
        let args = [
            "demo".to_owned(),
            "pod".to_owned(),
            format!("--assigner={endpoints}"),
            format!("--target={TARGET}"),
            format!("--listen={}", pod.address),
            format!("--ownership-log={}", pod.log.display()),
        ];
        pod.proc = Some(Proc::start(&self.dir, &pod.name, &args)?);
        Ok(())
    }

    /// Asks a pod to stop: it drains, closes its session and ends with success.
    pub async fn stop_pod(&mut self, index: usize) -> anyhow::Result<()> {
        let proc = self.pods[index]
            .proc
            .take()
            .context("the pod does not run")?;
        proc.stop(PATIENCE).await?;
        self.note_end(index);
        Ok(())
    }

    /// Kills a pod. Returns the instant just before.
    pub async fn kill_pod(&mut self, index: usize) -> anyhow::Result<u64> {
        let proc = self.pods[index]
            .proc
            .take()
            .context("the pod does not run")?;
        let at = now_ns();
        proc.kill().await?;
        self.note_end(index);
        Ok(at)
    }

    fn note_end(&mut self, index: usize) {
        let pod = &self.pods[index];
        self.ended.push((pod.log.clone(), pod.holder, now_ns()));
    }

    /// Starts the load clients and waits until each is served.
    pub async fn start_clients(&mut self) -> anyhow::Result<()> {
        let rate = (self.plan.rate / u32::from(self.plan.clients)).max(1);
        for number in 0..self.plan.clients {
            let log = self.dir.join(format!("client-{number}.requests"));
            let mut args = vec![
                "demo".to_owned(),
                "client".to_owned(),
                format!("--assigner={}", self.assigners.endpoints().join(",")),
                format!("--target={TARGET}"),
                format!("--number={number}"),
                format!("--rate={rate}"),
                format!("--request-log={}", log.display()),
                format!("--status={}", self.status_file(number).display()),
            ];
            args.extend(
                self.plan
                    .concurrency
                    .map(|count| format!("--concurrency={count}")),
            );
            self.clients.push((
                Proc::start(&self.dir, &format!("client-{number}"), &args)?,
                log,
            ));
        }
        let begun = Instant::now();
        while (0..self.plan.clients)
            .any(|number| super::screen::served(&self.status_file(number)) == 0)
        {
            self.check_alive()?;
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "the clients were not served within {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Where a client says how it fares.
    pub fn status_file(&self, number: u16) -> PathBuf {
        self.dir.join(format!("client-{number}.status"))
    }

    /// Fails if a process that should run has ended by itself.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.assigners.check_alive()?;
        let pods = self.pods.iter_mut().filter_map(|pod| pod.proc.as_mut());
        let clients = self.clients.iter_mut().map(|(proc, _)| proc);
        pods.chain(clients).try_for_each(Proc::check_alive)
    }

    /// Stops clients, then pods, then Assigners, each by its own clean shutdown, and reads the
    /// request logs and the ownership logs of every pod process.
    pub async fn finish(mut self) -> anyhow::Result<(Vec<super::requests::Request>, Vec<History>)> {
        let mut requests = Vec::new();
        for (proc, log) in std::mem::take(&mut self.clients) {
            proc.stop(PATIENCE).await?;
            requests.extend(super::requests::read(&log)?);
        }
        // All at once: nobody is left to take a slice over, so a drain would wait in vain.
        for index in 0..self.pods.len() {
            if self.pods[index].proc.is_some() {
                self.kill_pod(index).await?;
            }
        }
        self.assigners.stop_all().await?;
        let histories = self
            .ended
            .iter()
            .map(|(log, holder, died)| ownership::read(log, *holder, *died));
        Ok((
            requests,
            histories.collect::<anyhow::Result<Vec<History>>>()?,
        ))
    }
}
