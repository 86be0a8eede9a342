//! Assigners and pods of a demo: pods are places, at which one process after another serves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use leasehold_proto::target::Consistency;

use crate::harness::PATIENCE;
use crate::harness::assigners::Assigners;
use crate::harness::control::Control;
use crate::harness::procs::{Ports, Proc};

/// The target of the demo.
pub const TARGET: &str = "demo";
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub assigners: u16,
    pub pods: u16,
    pub ttl: Duration,
}

/// One place.
pub struct Pod {
    name: String,
    pub address: SocketAddr,
    proc: Option<Proc>,
}

/// Everything that runs.
pub struct Fleet {
    pub dir: PathBuf,
    size: Size,
    pub assigners: Assigners,
    pub pods: Vec<Pod>,
    /// The words with which a pod is started, its address aside.
    pod_words: Vec<String>,
    /// Whatever else runs: clients, stores.
    others: Vec<Proc>,
}

impl Fleet {
    /// Plans the processes; starts none.
    pub fn new(dir: &Path, size: Size, ports: &mut Ports) -> anyhow::Result<Self> {
        let assigners = Assigners::plan(dir, size.assigners, size.ttl, ports)?;
        let pod = |number| -> anyhow::Result<Pod> {
            Ok(Pod {
                name: format!("pod-{number}"),
                address: ports.next()?,
                proc: None,
            })
        };
        Ok(Self {
            dir: dir.to_owned(),
            size,
            assigners,
            pods: (0..size.pods).map(pod).collect::<anyhow::Result<_>>()?,
            pod_words: Vec::new(),
            others: Vec::new(),
        })
    }

    /// Starts Assigners, creates the target, starts a pod at each place with `words` and the
    /// Assigners' addresses, and waits until the slices are served evenly.
    pub async fn start(
        &mut self,
        mode: Consistency,
        slices: u32,
        words: Vec<String>,
    ) -> anyhow::Result<Control> {
        let control = self.assigners.start_all().await?;
        control
            .create_target(TARGET, mode, self.size.ttl, slices)
            .await?;
        self.pod_words = words;
        self.pod_words.push(self.assigner_words());
        self.pod_words.push(format!("--target={TARGET}"));
        for index in 0..self.pods.len() {
            self.start_pod(index)?;
        }
        let even = |shares: &[usize]| {
            let most = shares.iter().max();
            most.zip(shares.iter().min())
                .is_some_and(|(most, least)| most - least <= 1)
        };
        self.wait(&control, even).await?;
        Ok(control)
    }

    /// Starts pods that know no Assigner, and waits until they answer.
    pub async fn start_fixed(&mut self, words: Vec<String>) -> anyhow::Result<()> {
        self.pod_words = words;
        for index in 0..self.pods.len() {
            self.start_pod(index)?;
            self.answers(index).await?;
        }
        Ok(())
    }

    /// How a process is told where the Assigners are.
    pub fn assigner_words(&self) -> String {
        format!("--assigner={}", self.assigners.endpoints().join(","))
    }

    /// Starts a process that runs until the demo ends.
    pub fn start_other(&mut self, name: &str, words: &[String]) -> anyhow::Result<()> {
        self.others.push(Proc::start(&self.dir, name, words)?);
        Ok(())
    }

    /// Starts a process at a place.
    pub fn start_pod(&mut self, index: usize) -> anyhow::Result<()> {
        let pod = &mut self.pods[index];
        let mut words = self.pod_words.clone();
        words.push(format!("--listen={}", pod.address));
        pod.proc = Some(Proc::start(&self.dir, &pod.name, &words)?);
        Ok(())
    }

    /// Asks the process at a place to stop, and waits until it has ended with success.
    pub async fn stop_pod(&mut self, index: usize) -> anyhow::Result<()> {
        let proc = self.pods[index].proc.take();
        proc.context("the pod does not run")?.stop(PATIENCE).await
    }

    /// Fails if a process that should run has ended by itself.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.assigners.check_alive()?;
        let pods = self.pods.iter_mut().filter_map(|pod| pod.proc.as_mut());
        pods.chain(&mut self.others).try_for_each(Proc::check_alive)
    }

    /// Waits until each running pod has a session, every slice has one of them as its owner, and
    /// nothing moves.
    pub async fn served(&mut self, control: &Control) -> anyhow::Result<()> {
        self.wait(control, |_| true).await
    }

    async fn wait(
        &mut self,
        control: &Control,
        enough: impl Fn(&[usize]) -> bool,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(counts) = self.shares(control).await?
                && enough(&counts)
            {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the slices were not served as they should within {PATIENCE:?}"
            );
            self.check_alive()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many slices each running pod owns; `None` while any moves or is without an owner, or a
    /// pod without a session.
    async fn shares(&self, control: &Control) -> anyhow::Result<Option<Vec<usize>>> {
        let running = self.pods.iter().filter(|pod| pod.proc.is_some());
        let mut shares: BTreeMap<String, usize> =
            running.map(|pod| (pod.address.to_string(), 0)).collect();
        for row in control.slices(TARGET).await? {
            let owner = row.owner.filter(|_| !row.moving);
            match owner.and_then(|(_, address)| shares.get_mut(&address)) {
                Some(share) => *share += 1,
                None => return Ok(None),
            }
        }
        let sessions = control.sessions(TARGET).await?;
        Ok((sessions.len() == shares.len()).then(|| shares.into_values().collect()))
    }

    /// Waits until something listens at a place.
    pub async fn answers(&mut self, index: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        let address = self.pods[index].address;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            ensure!(
                begun.elapsed() < PATIENCE,
                "{address} did not answer within {PATIENCE:?}"
            );
            self.check_alive()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Stops the other processes, the last first, each by its own clean shutdown.
    pub async fn stop_others(&mut self) -> anyhow::Result<()> {
        while let Some(proc) = self.others.pop() {
            proc.stop(PATIENCE).await?;
        }
        Ok(())
    }

    /// Ends what is left. Pods are killed: nobody is left to take a slice over, so that a drain
    /// would wait in vain.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        self.stop_others().await?;
        for pod in &mut self.pods {
            if let Some(proc) = pod.proc.take() {
                proc.kill().await?;
            }
        }
        self.assigners.stop_all().await
    }
}
