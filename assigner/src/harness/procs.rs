//! Child processes: started, asked to stop, killed, reaped; each with a log file.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::process::{Child, Command};

/// One child process of this very binary.
pub struct Proc {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Proc {
    /// Starts `leasehold ARGS`, its output going to `NAME.log` in `dir`. The child is killed when
    /// the value is dropped: a demo that fails leaves nothing behind.
    pub fn start(dir: &Path, name: &str, args: &[String]) -> anyhow::Result<Self> {
        Self::start_with(dir, name, args, &[])
    }

    /// As [`Proc::start`], with environment variables.
    pub fn start_with(
        dir: &Path,
        name: &str,
        args: &[String],
        env: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)?;
        let exe = std::env::current_exe().context("the path of this program")?;
        let child = Command::new(exe)
            .args(args)
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// User and system time that it has spent, in seconds.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        let pid = self
            .child
            .id()
            .ok_or_else(|| anyhow!("{} has ended already", self.name))?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Fields behind the name, which may hold spaces: state is the third of all, utime the 14th.
        let fields: Vec<&str> = text
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        let (user, system) = ticks(11)
            .zip(ticks(12))
            .context("/proc/PID/stat has too few fields")?;
        // SAFETY: sysconf takes no pointer.
        let per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Ok((user + system) as f64 / per_s.max(1) as f64)
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// Errors: it did not stop in time, or not with success; the end of its log is in the message.
    pub async fn stop(mut self, patience: Duration) -> anyhow::Result<()> {
        self.signal(libc::SIGTERM)?;
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.complaint(&format!("stopped with {status}"))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.complaint(&format!("did not stop within {patience:?}"))),
        }
    }

    /// Kills it (SIGKILL) and reaps it.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.signal(libc::SIGKILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// An error if it has ended, with the end of its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.complaint(&format!("ended with {status}"))),
        }
    }

    fn signal(&self, signal: i32) -> anyhow::Result<()> {
        let pid = self
            .child
            .id()
            .ok_or_else(|| anyhow!("{} has ended already", self.name))?;
        // SAFETY: kill(2) takes no pointer. The child is not reaped yet, so the id is its own.
        if unsafe { libc::kill(pid as i32, signal) } != 0 {
            bail!(
                "cannot signal {}: {}",
                self.name,
                std::io::Error::last_os_error()
            );
        }
        Ok(())
    }

    fn complaint(&self, what: &str) -> anyhow::Error {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n  ");
        anyhow!(
            "{} {what}; its log {} ends with\n  {tail}",
            self.name,
            self.log.display()
        )
    }
}

/// Loopback addresses that nobody listens on now. Each is given once.
#[derive(Default)]
pub struct Ports {
    given: BTreeSet<u16>,
}

impl Ports {
    /// The next free address.
    pub fn next(&mut self) -> anyhow::Result<SocketAddr> {
        loop {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            if self.given.insert(address.port()) {
                return Ok(address);
            }
        }
    }
}
