//! A control group that limits the processor time of one host's process; version 1 or 2,
//! whichever the machine has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Length of the period in which the limit holds, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup";

/// Where groups of runs may stand, old and new.
pub(crate) fn roots() -> Vec<PathBuf> {
    vec![PathBuf::from(V1), PathBuf::from(V2)]
}

/// A host's group. Dropping it removes it, if it is empty.
pub(crate) struct CpuGroup {
    dir: PathBuf,
    is_v2: bool,
}

impl CpuGroup {
    pub(crate) fn create(host: &str) -> Result<Self> {
        let run = crate::run_name();
        if Path::new(V1).join("cpu.cfs_quota_us").exists() || Path::new(V1).join("tasks").exists() {
            let dir = Path::new(V1).join(run).join(host);
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            return Ok(Self { dir, is_v2: false });
        }
        let controllers = Path::new(V2).join("cgroup.controllers");
        if !fs::read_to_string(controllers)
            .unwrap_or_default()
            .contains("cpu")
        {
            bail!("no processor controller is mounted at {V1} or {V2}");
        }
        let parent = Path::new(V2).join(run);
        fs::create_dir_all(&parent).with_context(|| format!("make {}", parent.display()))?;
        for dir in [Path::new(V2), &parent] {
            fs::write(dir.join("cgroup.subtree_control"), "+cpu").context("switch it on")?;
        }
        let dir = parent.join(host);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self { dir, is_v2: true })
    }

    /// Allows this part of one processor, or everything.
    pub(crate) fn limit(&self, part: Option<f64>) -> Result<()> {
        let quota_us = part.map(|part| (part.clamp(0.01, 1.0) * PERIOD_US as f64) as u64);
        let (file, text) = match (self.is_v2, quota_us) {
            (false, Some(quota)) => ("cpu.cfs_quota_us", quota.to_string()),
            (false, None) => ("cpu.cfs_quota_us", "-1".to_owned()),
            (true, Some(quota)) => ("cpu.max", format!("{quota} {PERIOD_US}")),
            (true, None) => ("cpu.max", format!("max {PERIOD_US}")),
        };
        fs::write(self.dir.join(file), text).context("limit a process's processor time")
    }

    /// Takes a process in. Version 1 refuses a process that has a real-time thread, to which the
    /// limit would not apply: then its other threads are taken in, and what they start.
    pub(crate) fn admit(&self, pid: u32) -> Result<()> {
        let whole = fs::write(self.dir.join("cgroup.procs"), pid.to_string());
        match whole {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && !self.is_v2 => {
                self.admit_threads(pid)
            }
            whole => whole.context("put a process into its control group"),
        }
    }

    fn admit_threads(&self, pid: u32) -> Result<()> {
        let mut refused = None;
        let mut admitted = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let id = thread.file_name();
            match fs::write(self.dir.join("tasks"), id.as_encoded_bytes()) {
                Ok(()) => admitted += 1,
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if admitted == 0 => {
                Err(error).context("put a process's threads into its control group")
            }
            _ => Ok(()),
        }
    }

    /// In how many periods the limit was hit.
    pub(crate) fn throttled(&self) -> u64 {
        fs::read_to_string(self.dir.join("cpu.stat"))
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
        if let Some(run) = self.dir.parent() {
            // Only the last host's succeeds.
            let _ = fs::remove_dir(run);
        }
    }
}
