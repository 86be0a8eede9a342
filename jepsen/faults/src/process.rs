//! The one process of each host: started, killed, stopped, starved and started again.

mod cgroup;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::network::check;
use crate::{Effect, Network, Shim};
use cgroup::CpuGroup;
pub(crate) use cgroup::roots as cgroup_roots;

/// The kernel carries out a kill or a stop within this, however loaded the machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a state that nothing announces is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// How to start a host's process.
#[derive(Clone)]
pub struct ProcSpec {
    /// Where.
    pub host: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to its environment.
    pub env: Vec<(String, String)>,
    /// Its output is appended to the files `stdout` and `stderr` in here.
    pub log_dir: PathBuf,
    /// What bends its clocks and its `fsync`, if anything does.
    pub shim: Option<Arc<Shim>>,
}

struct Slot {
    spec: ProcSpec,
    child: Option<Child>,
    group: Option<CpuGroup>,
    /// An end of its own is no news.
    may_end: bool,
}

/// An order to the thread that starts processes, and where the answer goes.
type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// All processes of a run. Dropping it kills them. They also die with this process, however it
/// ends: each is bound to the thread that started it (`PR_SET_PDEATHSIG` speaks of threads), and
/// that thread lives as long as this value.
pub struct Processes {
    network: Arc<Network>,
    slots: Mutex<BTreeMap<String, Slot>>,
    /// Ends of processes that nobody asked for.
    unexpected: Mutex<Vec<(String, ExitStatus)>>,
    orders: Option<mpsc::Sender<Order>>,
    starter: Option<JoinHandle<()>>,
}

impl Processes {
    /// None yet, on the hosts of this network.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn new(network: Arc<Network>) -> Result<Self> {
        let (orders, received) = mpsc::channel::<Order>();
        let starter = std::thread::Builder::new()
            .name("starter".to_owned())
            .spawn(move || {
                while let Ok((mut command, answer)) = received.recv() {
                    // Nobody waits any more: the child is dropped, and dies with this thread.
                    let _ = answer.send(command.spawn());
                }
            })
            .context("start the thread that starts processes")?;
        Ok(Self {
            network,
            slots: Mutex::new(BTreeMap::new()),
            unexpected: Mutex::new(Vec::new()),
            orders: Some(orders),
            starter: Some(starter),
        })
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a host's process and remembers how, for [`Processes::restart`].
    ///
    /// # Errors
    ///
    /// One is running there; the program cannot be started.
    pub fn start(&self, spec: ProcSpec) -> Result<()> {
        let mut slots = self.slots();
        let slot = slots.entry(spec.host.clone()).or_insert_with(|| Slot {
            spec: spec.clone(),
            child: None,
            group: None,
            may_end: false,
        });
        slot.spec = spec;
        self.start_slot(slot)
    }

    /// Starts a host's process again, as it was started last.
    ///
    /// # Errors
    ///
    /// It was never started, or is running; the program cannot be started.
    pub fn restart(&self, host: &str) -> Result<()> {
        let mut slots = self.slots();
        let slot = slots
            .get_mut(host)
            .ok_or_else(|| anyhow!("no process was ever started on `{host}`"))?;
        self.start_slot(slot)
    }

    fn start_slot(&self, slot: &mut Slot) -> Result<()> {
        self.reap(slot);
        if slot.child.is_some() {
            bail!("a process is running on `{}`", slot.spec.host);
        }
        let spec = &slot.spec;
        let mut command = self.network.command(&spec.host, &spec.program)?;
        command
            .args(&spec.args)
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log_file(&spec.log_dir, "stdout")?)
            .stderr(log_file(&spec.log_dir, "stderr")?)
            // A group of its own: Ctrl-C is for the harness, and a kill reaches its children.
            .process_group(0);
        if let Some(shim) = &spec.shim {
            shim.apply(&mut command);
        }
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)));
        }
        let child = self
            .spawn(command)
            .with_context(|| format!("start {} on `{}`", spec.program.display(), spec.host))?;
        if let Some(group) = &slot.group {
            // Starved before, starved again; if that fails the fault is over for this host.
            let _ = group.admit(child.id());
        }
        slot.child = Some(child);
        Ok(())
    }

    fn spawn(&self, command: Command) -> Result<Child> {
        let (answer, answered) = mpsc::sync_channel(1);
        let orders = self.orders.as_ref().context("being dropped")?;
        orders
            .send((command, answer))
            .map_err(|_| anyhow!("the thread that starts processes has ended"))?;
        Ok(answered.recv().context("the starting thread has ended")??)
    }

    /// Takes note if the process has ended by itself.
    fn reap(&self, slot: &mut Slot) {
        let Some(child) = &mut slot.child else { return };
        // An error means that somebody else reaped it: gone as well, with an unknown status.
        let status = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => status,
            Err(_) => ExitStatus::default(),
        };
        slot.child = None;
        if slot.may_end {
            return;
        }
        self.unexpected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((slot.spec.host.clone(), status));
    }

    /// Whether a host's process lives (a stopped one does).
    pub fn is_alive(&self, host: &str) -> bool {
        self.pid(host).is_some()
    }

    /// The process id of a host's living process.
    pub fn pid(&self, host: &str) -> Option<u32> {
        let mut slots = self.slots();
        let slot = slots.get_mut(host)?;
        self.reap(slot);
        slot.child.as_ref().map(Child::id)
    }

    /// Hosts whose process was started, alive or not.
    pub fn hosts(&self) -> Vec<String> {
        self.slots().keys().cloned().collect()
    }

    /// From now on a host's process may end by itself, as one must that cannot write any more; or
    /// not, which is the rule. An end that came before is judged by what was said before.
    pub fn allow_end(&self, host: &str, allowed: bool) {
        if let Some(slot) = self.slots().get_mut(host) {
            self.reap(slot);
            slot.may_end = allowed;
        }
    }

    /// Takes the ends of processes that nobody asked for: host and status.
    pub fn take_unexpected(&self) -> Vec<(String, ExitStatus)> {
        let mut slots = self.slots();
        slots.values_mut().for_each(|slot| self.reap(slot));
        let mut unexpected = self
            .unexpected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *unexpected)
    }

    /// Kills a host's process at once (`SIGKILL`) and waits until it is gone. Returns whether one
    /// lived.
    ///
    /// # Errors
    ///
    /// It did not die within 20 s, as one in uninterruptible I/O does not: it may die yet.
    pub fn kill(&self, host: &str) -> Result<bool> {
        self.end(host, libc::SIGKILL, PATIENCE)
    }

    /// Asks a host's process to end (`SIGTERM`), and kills it when patience has run out. Returns
    /// whether one lived.
    ///
    /// # Errors
    ///
    /// As [`Processes::kill`].
    pub fn terminate(&self, host: &str, patience: Duration) -> Result<bool> {
        match self.end(host, libc::SIGTERM, patience) {
            Ok(lived) => Ok(lived),
            Err(_) => self.kill(host),
        }
    }

    fn end(&self, host: &str, signal: i32, patience: Duration) -> Result<bool> {
        let Some(mut child) = self.slots().get_mut(host).and_then(|slot| {
            self.reap(slot);
            slot.child.take()
        }) else {
            return Ok(false);
        };
        let _ = send(child.id(), signal);
        let until = Instant::now() + patience;
        while child.try_wait()?.is_none() {
            if Instant::now() >= until {
                if let Some(slot) = self.slots().get_mut(host) {
                    slot.child = Some(child);
                }
                bail!("the process of `{host}` did not end within {patience:?}");
            }
            std::thread::sleep(LOOK);
        }
        Ok(true)
    }

    /// Stops a host's process (`SIGSTOP`) and waits until it has stopped. Skipped if none lives.
    ///
    /// # Errors
    ///
    /// It was not seen to stop: it may.
    pub fn pause(&self, host: &str) -> Result<Effect> {
        let Some(pid) = self.pid(host) else {
            return Ok(Effect::skipped(format!("no process lives on `{host}`")));
        };
        send(pid, libc::SIGSTOP).context("stop a process")?;
        let until = Instant::now() + PATIENCE;
        while !self.is_paused(host) {
            if !self.is_alive(host) {
                return Ok(Effect::skipped(format!("the process of `{host}` ended")));
            }
            if Instant::now() >= until {
                bail!("the process of `{host}` did not stop");
            }
            std::thread::sleep(LOOK);
        }
        Ok(Effect::Done)
    }

    /// Lets a host's process go on (`SIGCONT`). Nothing happens if none lives.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn resume(&self, host: &str) -> Result<()> {
        match self.pid(host) {
            Some(pid) => send(pid, libc::SIGCONT).context("let a process go on"),
            None => Ok(()),
        }
    }

    /// Whether a host's process is stopped: all its threads are, but for those that wait inside
    /// the kernel (for a disk that hangs, say), and these will stop before they run on.
    pub fn is_paused(&self, host: &str) -> bool {
        let Some(pid) = self.pid(host) else {
            return false;
        };
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            return false;
        };
        // A thread that ends meanwhile is no longer running.
        let states: Vec<char> = tasks
            .flatten()
            .filter_map(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
                stat.rsplit_once(')')?.1.trim_start().chars().next()
            })
            .collect();
        states.contains(&'T') && states.iter().all(|state| matches!(state, 'T' | 'D'))
    }

    /// Leaves a host's process this part of one processor, 0.01 to 1, also when it is started
    /// again. Skipped where control groups cannot be had.
    ///
    /// # Errors
    ///
    /// It was begun and failed midway.
    pub fn starve(&self, host: &str, part: f64) -> Result<Effect> {
        let mut slots = self.slots();
        let slot = slots
            .get_mut(host)
            .ok_or_else(|| anyhow!("no process was ever started on `{host}`"))?;
        self.reap(slot);
        if slot.group.is_none() {
            match CpuGroup::create(host) {
                Ok(group) => slot.group = Some(group),
                Err(error) => return Ok(Effect::skipped(format!("no control group: {error:#}"))),
            }
        }
        let Some(group) = &slot.group else {
            bail!("the control group of `{host}` vanished");
        };
        group.limit(Some(part))?;
        if let Some(child) = &slot.child {
            group.admit(child.id())?;
        }
        Ok(Effect::Done)
    }

    /// Gives a host's process all processors again.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn feed(&self, host: &str) -> Result<()> {
        match self.slots().get(host).and_then(|slot| slot.group.as_ref()) {
            Some(group) => group.limit(None),
            None => Ok(()),
        }
    }

    /// How many times the kernel has held a host's process back for want of processor time.
    pub fn throttled(&self, host: &str) -> u64 {
        self.slots()
            .get(host)
            .and_then(|slot| slot.group.as_ref())
            .map_or(0, CpuGroup::throttled)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let children: Vec<(String, u32)> = self
            .slots()
            .iter()
            .filter_map(|(host, slot)| Some((host.clone(), slot.child.as_ref()?.id())))
            .collect();
        for (_, pid) in &children {
            let _ = send(*pid, libc::SIGKILL);
        }
        for (host, _) in &children {
            let _ = self.kill(host);
        }
        // Groups can be removed only when nobody is in them.
        self.slots().clear();
        drop(self.orders.take());
        if let Some(starter) = self.starter.take() {
            let _ = starter.join();
        }
    }
}

/// Sends a signal to a process and its descendants, which share its group.
fn send(pid: u32, signal: i32) -> io::Result<()> {
    let group = i32::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: no requirement; our own child, not yet reaped, so that the id is still its own.
    check(unsafe { libc::kill(-group, signal) })
}

fn log_file(dir: &Path, name: &str) -> Result<File> {
    std::fs::create_dir_all(dir)
        .and_then(|()| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(dir.join(name))
        })
        .with_context(|| format!("open {} in {}", name, dir.display()))
}
