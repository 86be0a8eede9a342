//! A cluster of Assigner processes on loopback, each with a data directory on the real disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::control::Control;
use super::procs::{Ports, Proc};
use super::{PATIENCE, now_ns};

/// One Assigner.
pub struct Assigner {
    id: u64,
    address: SocketAddr,
    http: SocketAddr,
    config: PathBuf,
    proc: Option<Proc>,
}

/// All of them.
pub struct Assigners {
    dir: PathBuf,
    all: Vec<Assigner>,
    env: Vec<(String, String)>,
}

impl Assigners {
    /// Writes the configuration of `count` Assigners under `dir`; starts none. Timers are the fast
    /// ones where `ttl` needs them.
    pub fn plan(dir: &Path, count: u16, ttl: Duration, ports: &mut Ports) -> anyhow::Result<Self> {
        let profile = if ttl < Duration::from_secs(2) {
            "fast"
        } else {
            "default"
        };
        let mut all = Vec::new();
        for id in 1..=u64::from(count) {
            let config = dir.join(format!("assigner-{id}.toml"));
            all.push(Assigner {
                id,
                address: ports.next()?,
                http: ports.next()?,
                config,
                proc: None,
            });
        }
        let members: Vec<String> = all
            .iter()
            .map(|a| format!("\"{}={}\"", a.id, a.address))
            .collect();
        for assigner in &all {
            let text = format!(
                "cluster = \"demo\"\nmembers = [{}]\n\n[node]\nid = {}\nlisten = \"{}\"\ndata_dir = \"{}\"\n\n\
                 [http]\nlisten = \"{}\"\n\n[timers]\nprofile = \"{profile}\"\n",
                members.join(", "),
                assigner.id,
                assigner.address,
                dir.join(format!("data-{}", assigner.id)).display(),
                assigner.http,
            );
            std::fs::write(&assigner.config, text)
                .context("cannot write an Assigner's configuration")?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            all,
            env: Vec::new(),
        })
    }

    /// Runs every Assigner that is started from now on with this environment variable.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where Slicelets, Clerks and operators reach them.
    pub fn endpoints(&self) -> Vec<String> {
        self.all
            .iter()
            .map(|assigner| format!("http://{}", assigner.address))
            .collect()
    }

    /// How many there are, running or not.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Starts, or starts again, one of them.
    pub fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let assigner = &mut self.all[index];
        let args = [
            "serve".to_owned(),
            "--config".to_owned(),
            assigner.config.display().to_string(),
        ];
        assigner.proc = Some(Proc::start_with(
            &self.dir,
            &format!("assigner-{}", assigner.id),
            &args,
            &self.env,
        )?);
        Ok(())
    }

    /// Starts all of them and waits for a leader.
    pub async fn start_all(&mut self) -> anyhow::Result<Control> {
        for index in 0..self.all.len() {
            self.start(index)?;
        }
        let control = Control::new(&self.endpoints())?;
        let begun = Instant::now();
        while control.known_leader().await.is_none() {
            self.check_alive()?;
            ensure!(
                begun.elapsed() < PATIENCE,
                "no Assigner became leader within {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(control)
    }

    /// Kills the one that leads. Returns its index and the instant just before.
    pub async fn kill_leader(&mut self, control: &Control) -> anyhow::Result<(usize, u64)> {
        let leader = control.leader().await?;
        let index = self
            .all
            .iter()
            .position(|assigner| assigner.id == leader)
            .context("the leader is none of ours")?;
        let proc = self.all[index]
            .proc
            .take()
            .context("the leader does not run")?;
        let at = now_ns();
        proc.kill().await?;
        Ok((index, at))
    }

    /// The endpoint of the one that leads.
    pub async fn leader_endpoint(&self, control: &Control) -> anyhow::Result<String> {
        let leader = control.leader().await?;
        let assigner = self
            .all
            .iter()
            .find(|assigner| assigner.id == leader)
            .context("the leader is none of ours")?;
        Ok(format!("http://{}", assigner.address))
    }

    /// Fsyncs of all of them together, as their metrics count them.
    pub async fn fsyncs(&self) -> anyhow::Result<f64> {
        let mut total = 0.0;
        for assigner in &self.all {
            let text = metrics(assigner.http)
                .await
                .with_context(|| format!("the metrics of Assigner {}", assigner.id))?;
            let line = text
                .lines()
                .find(|line| line.starts_with("leasehold_raft_fsyncs_total "));
            let value = line
                .and_then(|line| line.split(' ').nth(1))
                .context("leasehold_raft_fsyncs_total is missing")?;
            total += value.parse::<f64>()?;
        }
        Ok(total)
    }

    /// Fails if one that should run has ended by itself.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.all
            .iter_mut()
            .filter_map(|assigner| assigner.proc.as_mut())
            .try_for_each(Proc::check_alive)
    }

    /// User and system time that the running ones have spent, in seconds.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        self.all
            .iter()
            .filter_map(|assigner| assigner.proc.as_ref())
            .map(Proc::cpu_s)
            .sum()
    }

    /// Asks all of them to stop, and waits until each has ended cleanly.
    pub async fn stop_all(&mut self) -> anyhow::Result<()> {
        for assigner in &mut self.all {
            if let Some(proc) = assigner.proc.take() {
                proc.stop(PATIENCE).await?;
            }
        }
        Ok(())
    }
}

/// One plain HTTP request: the endpoint is ours, on loopback, and closes the connection.
async fn metrics(address: SocketAddr) -> anyhow::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
