//! The place of a run: a network of hosts, with disks, clocks and processes of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use leasehold_checkers::run::ClockSample;
use leasehold_faults::{Disk, Kind, Network, ProcSpec, Processes, Shim, TrueTime};

use super::notes::Notes;
use crate::system::{Host, System};

/// How long a process may take to end when asked to.
const STOP: Duration = Duration::from_secs(15);
/// Room on a disk. The file that stands for it takes only what is written.
const DISK_BYTES: u64 = 512 << 20;
/// Switches a planted bug on.
const MUTANT: &str = "LEASEHOLD_MUTANT";
/// The host from which the harness asks the system about itself. No fault strikes it.
const CONTROL: &str = "control";
/// Where a host's data is kept in the directory of a run.
const DATA: &str = "data";
/// Role of the hosts of clients.
pub const CLIENT: &str = "client";

/// Hosts that are kept apart.
pub struct Ground {
    /// The links between them.
    pub network: Arc<Network>,
    /// One process a host.
    pub processes: Arc<Processes>,
}

/// Everything that a run happens in. Dropping it kills the processes.
pub struct Place {
    /// Network and processes; none for a system that runs elsewhere, whose clients then use the
    /// network that the harness was started in.
    pub ground: Option<Ground>,
    /// What bends the clocks and the `fsync` of each host; none where the library is missing.
    pub shims: BTreeMap<String, Arc<Shim>>,
    /// Why there are no shims.
    pub no_shims: Option<String>,
    /// The disks of the hosts whose role is asked for in [`Wanted::disks`].
    pub disks: BTreeMap<String, Arc<Disk>>,
    /// The system's hosts.
    pub hosts: Vec<Host>,
    /// Names of the clients' hosts.
    pub clients: Vec<String>,
    control: String,
}

/// What is wanted of a place.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// How hosts are kept apart.
    pub network: Kind,
    /// How many hosts clients have.
    pub clients: usize,
    /// What is random follows from it.
    pub seed: u64,
    /// Where hosts keep their logs and data.
    pub dir: &'a Path,
    /// Hosts of this role get a disk each, with a file system of its own where that can be had.
    pub disks: &'a str,
}

impl Ground {
    fn create(wanted: &Wanted<'_>, names: &[&str]) -> anyhow::Result<Self> {
        let network = Network::create(wanted.network, names, wanted.seed)
            .with_context(|| format!("making a network of kind `{}`", wanted.network))?;
        let network = Arc::new(network);
        Ok(Self {
            processes: Arc::new(Processes::new(Arc::clone(&network))?),
            network,
        })
    }
}

impl Place {
    /// Makes the hosts; starts nothing.
    ///
    /// # Errors
    ///
    /// The network or a directory cannot be had: the message says what is missing.
    pub fn create(wanted: &Wanted<'_>, system: &dyn System) -> anyhow::Result<Self> {
        let specs = system.hosts();
        // Behind proxies this process is one host.
        let alone = wanted.network == Kind::Proxy;
        let count = if alone { 1 } else { wanted.clients.max(1) };
        let clients: Vec<String> = (1..=count).map(|n| format!("c{n}")).collect();
        let mut names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        names.extend(clients.iter().map(String::as_str));
        if !alone {
            names.push(CONTROL);
        }
        let ground = if specs.is_empty() {
            None
        } else {
            Some(Ground::create(wanted, &names)?)
        };
        let mut shims = BTreeMap::new();
        let mut no_shims = None;
        let mut disks = BTreeMap::new();
        let mut hosts = Vec::new();
        for spec in specs {
            let log_dir = wanted.dir.join(&spec.name);
            let mut data_dir = log_dir.join(DATA);
            std::fs::create_dir_all(&data_dir)
                .with_context(|| format!("making {}", data_dir.display()))?;
            if spec.role == wanted.disks {
                let disk = Disk::create(&spec.name, DISK_BYTES)?;
                data_dir = disk.dir().to_owned();
                disks.insert(spec.name.clone(), Arc::new(disk));
            }
            match Shim::create(&log_dir, &spec.name) {
                Ok(shim) => drop(shims.insert(spec.name.clone(), Arc::new(shim))),
                Err(error) => no_shims = Some(format!("{error:#}")),
            }
            let ground = ground.as_ref().context("hosts without a network")?;
            hosts.push(Host {
                ip: ground.network.ip(&spec.name)?,
                spec,
                data_dir,
                log_dir,
            });
        }
        Ok(Self {
            ground,
            shims,
            no_shims,
            disks,
            hosts,
            control: if alone { "c1" } else { CONTROL }.to_owned(),
            clients,
        })
    }

    /// Starts every process, in the order of the hosts; `mutant` is the bug that those switch on
    /// that were built with planted bugs.
    ///
    /// # Errors
    ///
    /// One cannot be started.
    pub fn start(&self, system: &dyn System, mutant: Option<&str>) -> anyhow::Result<()> {
        for host in &self.hosts {
            let launch = system
                .launch(host, &self.hosts)
                .with_context(|| format!("asking how to start `{}`", host.spec.name))?;
            let planted = mutant.map(|name| (MUTANT.to_owned(), name.to_owned()));
            let ground = self.ground.as_ref().context("hosts without a network")?;
            ground.processes.start(ProcSpec {
                host: launch.host,
                program: launch.program,
                args: launch.args,
                env: launch.env.into_iter().chain(planted).collect(),
                log_dir: host.log_dir.clone(),
                shim: self.shims.get(&host.spec.name).cloned(),
            })?;
        }
        Ok(())
    }

    /// A host whose process was started and lives no more.
    pub fn ended(&self) -> Option<String> {
        let processes = &self.ground.as_ref()?.processes;
        let mut hosts = processes.hosts().into_iter();
        hosts.find(|host| !processes.is_alive(host))
    }

    /// Asks every process to end, last started first. Gives those that lived and had to be killed.
    ///
    /// # Errors
    ///
    /// One does not even die.
    pub fn stop(&self, notes: &Notes) -> anyhow::Result<Vec<String>> {
        let mut stubborn = Vec::new();
        let Some(ground) = &self.ground else {
            return Ok(stubborn);
        };
        for host in self.hosts.iter().rev() {
            let name = &host.spec.name;
            let begun = Instant::now();
            ground.processes.terminate(name, STOP)?;
            if begun.elapsed() >= STOP {
                notes.say(&format!("{name} did not stop within {} s", STOP.as_secs()));
                stubborn.push(name.clone());
            }
        }
        Ok(stubborn)
    }

    /// Runs something on a thread in a network that no fault strikes, with a runtime of its own.
    ///
    /// # Errors
    ///
    /// Those of `body`; or the thread cannot be had.
    pub fn in_control<R: Send>(
        &self,
        body: impl AsyncFnOnce() -> anyhow::Result<R> + Send,
    ) -> anyhow::Result<R> {
        let work = || {
            if let Some(ground) = &self.ground {
                ground.network.enter(&self.control)?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(body())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("control".into())
                .spawn_scoped(scope, work)?;
            match thread.join() {
                Ok(result) => result,
                Err(_) => anyhow::bail!("the control thread panicked"),
            }
        })
    }

    /// The host that [`in_control`](Self::in_control) runs on.
    pub fn control(&self) -> &str {
        &self.control
    }

    /// Names and roles of all hosts, clients' too.
    pub fn names(&self) -> Vec<(String, String)> {
        let own = self.hosts.iter().map(|host| &host.spec);
        own.map(|spec| (spec.name.clone(), spec.role.clone()))
            .chain(
                self.clients
                    .iter()
                    .map(|name| (name.clone(), CLIENT.into())),
            )
            .collect()
    }

    /// How the clocks of every host stand now, as far as something bends them.
    pub fn clocks(&self, origin: TrueTime) -> Vec<ClockSample> {
        self.shims
            .iter()
            .map(|(host, shim)| ClockSample {
                host: host.clone(),
                time_ns: origin.elapsed_ns(),
                lease_offset_ns: shim.lease_offset_ns(),
                wall_offset_ns: shim.wall_offset_ns(),
            })
            .collect()
    }

    /// Leaves the data of every host in its directory of the run if it is evidence, and takes it
    /// away otherwise. The processes must have ended.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn keep_data(&self, evidence: bool) -> anyhow::Result<()> {
        for host in &self.hosts {
            let kept = host.log_dir.join(DATA);
            if !evidence {
                std::fs::remove_dir_all(&kept)
                    .with_context(|| format!("removing {}", kept.display()))?;
            } else if self.disks.contains_key(&host.spec.name) {
                copy_dir(&host.data_dir, &kept)
                    .with_context(|| format!("keeping the data of `{}`", host.spec.name))?;
            }
        }
        Ok(())
    }
}

/// Copies plain files and directories.
fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
