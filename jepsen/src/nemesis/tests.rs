//! Every mode of every fault, carried out on hosts whose processes are small shell scripts: each
//! takes effect, is seen to, and is undone. Where this machine or user does not allow it, the
//! tests say so and prove nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};
use leasehold_checkers::run::Installed;
use leasehold_faults::{Disk, Effect, Kind, Network, ProcSpec, Processes, Shim, TrueTime};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::system::{Client, Host, HostSpec, Launch, System};

/// Reads the clock and syncs a log, again and again. In subshells, since a shell starts a command
/// by `vfork`: were all of a host stopped before the command has begun, the shell would wait for
/// it inside the kernel and not be seen to stop.
const SCRIPT: &str = "while true; do \
    (exec date >/dev/null); \
    (exec dd if=/dev/zero of=$0/000001.log bs=100 count=1 oflag=append conv=notrunc,fsync \
        2>/dev/null); \
    (exec sleep 0.02); done";

struct Scripts {
    /// Whether it is known who leads and who owns.
    tells: bool,
}

impl System for Scripts {
    fn hosts(&self) -> Vec<HostSpec> {
        let host = |name: &str, role: &str| HostSpec {
            name: name.to_owned(),
            role: role.to_owned(),
        };
        vec![
            host("a1", "assigner"),
            host("a2", "assigner"),
            host("a3", "assigner"),
            host("p1", "pod"),
            host("p2", "pod"),
            host("r", "register"),
        ]
    }

    fn launch(&self, _host: &Host, _all: &[Host]) -> anyhow::Result<Launch> {
        anyhow::bail!("started by the test")
    }

    fn ready<'a>(&'a self, _all: &'a [Host]) -> BoxFuture<'a, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn client<'a>(
        &'a self,
        _workload: &'a str,
        _worker: usize,
        _all: &'a [Host],
    ) -> LocalBoxFuture<'a, anyhow::Result<Box<dyn Client>>> {
        async { anyhow::bail!("there are no clients") }.boxed_local()
    }

    fn who_is<'a>(&'a self, part: &'a str, _all: &'a [Host]) -> BoxFuture<'a, Vec<String>> {
        let host = if part == "leader" { "a2" } else { "p1" };
        let hosts = self.tells.then(|| host.to_owned());
        async move { Vec::from_iter(hosts) }.boxed()
    }
}

/// Does as told, and keeps who was removed or drained.
#[derive(Default)]
struct Obedient(Mutex<Vec<String>>);

impl Obedient {
    fn note(&self, what: &str) -> BoxFuture<'_, anyhow::Result<Effect>> {
        self.0.lock().push(what.to_owned());
        async { Ok(Effect::Done) }.boxed()
    }
}

impl ClusterControl for Obedient {
    fn transfer_leader<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, anyhow::Result<Effect>> {
        self.note("transfer")
    }

    fn remove_member<'a>(&'a self, host: &'a str) -> BoxFuture<'a, anyhow::Result<Effect>> {
        self.note(&format!("remove {host}"))
    }

    fn add_member<'a>(&'a self, host: &'a str) -> BoxFuture<'a, anyhow::Result<Effect>> {
        self.note(&format!("add {host}"))
    }

    fn move_slices(&self, _: usize, _: u64) -> BoxFuture<'_, anyhow::Result<Effect>> {
        self.note("move")
    }

    fn drain<'a>(&'a self, pod: &'a str) -> BoxFuture<'a, anyhow::Result<Effect>> {
        self.note(&format!("drain {pod}"))
    }

    fn undrain<'a>(&'a self, pod: &'a str) -> BoxFuture<'a, anyhow::Result<Effect>> {
        self.note(&format!("undrain {pod}"))
    }

    fn set_strong(&self, strong: bool) -> BoxFuture<'_, anyhow::Result<Effect>> {
        self.note(&format!("strong {strong}"))
    }
}

/// A place with scripts running.
struct Place {
    network: Arc<Network>,
    processes: Arc<Processes>,
    shims: BTreeMap<String, Arc<Shim>>,
    disks: BTreeMap<String, Arc<Disk>>,
    hosts: Vec<Host>,
    operator: Obedient,
    system: Scripts,
    _dir: TempDir,
}

/// Cargo builds no `cdylib` for the tests of another package.
fn build_shim() {
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        let program = std::env::current_exe().unwrap();
        let dir = program.ancestors().nth(2).unwrap();
        let mut command = std::process::Command::new(env!("CARGO"));
        command.args(["build", "-q", "-p", "leasehold-shim", "--target-dir"]);
        command.arg(dir.parent().unwrap());
        if dir.ends_with("release") {
            command.arg("--release");
        }
        assert!(command.status().unwrap().success());
    });
}

impl Place {
    fn create() -> Option<Self> {
        build_shim();
        let names = ["a1", "a2", "a3", "p1", "p2", "r", "c1", "control"];
        let network = match Network::create(Kind::Namespaces, &names, 1) {
            Ok(network) => Arc::new(network),
            Err(error) => {
                eprintln!("not tested: {error:#}");
                assert!(std::env::var_os("LEASEHOLD_MUST_TEST_NAMESPACES").is_none());
                return None;
            }
        };
        let dir = TempDir::new().unwrap();
        let processes = Arc::new(Processes::new(network.clone()).unwrap());
        let mut place = Self {
            processes,
            shims: BTreeMap::new(),
            disks: BTreeMap::new(),
            hosts: Vec::new(),
            operator: Obedient::default(),
            system: Scripts { tells: true },
            _dir: dir,
            network,
        };
        for spec in place.system.hosts() {
            place.start(spec);
        }
        Some(place)
    }

    fn start(&mut self, spec: HostSpec) {
        let name = spec.name.clone();
        let log_dir = self._dir.path().join(&name);
        std::fs::create_dir(&log_dir).unwrap();
        let mut data_dir = log_dir.clone();
        if spec.role == "assigner" {
            let disk = Disk::create(&name, 32 << 20).unwrap();
            data_dir = disk.dir().to_owned();
            self.disks.insert(name.clone(), Arc::new(disk));
        }
        let shim = Arc::new(Shim::create(&log_dir, &name).unwrap());
        self.shims.insert(name.clone(), shim.clone());
        self.processes
            .start(ProcSpec {
                host: name.clone(),
                program: "/bin/sh".into(),
                args: vec!["-c".into(), SCRIPT.into(), data_dir.display().to_string()],
                env: Vec::new(),
                log_dir: log_dir.clone(),
                shim: Some(shim),
            })
            .unwrap();
        self.hosts.push(Host {
            ip: self.network.ip(&name).unwrap(),
            spec,
            data_dir,
            log_dir,
        });
    }

    fn attack(&self, schedule: &Schedule, stop_after: Option<Duration>) -> Attacked {
        let field = Field {
            network: self.network.clone(),
            processes: self.processes.clone(),
            shims: self.shims.clone(),
            no_shims: None,
            disks: self.disks.clone(),
            system: &self.system,
            cluster: Some(&self.operator),
            hosts: &self.hosts,
            clients: &["c1".to_owned()],
            core: "assigner",
            ttl: Duration::from_millis(100),
            rho: 0.0005,
            origin: TrueTime::now(),
            say: &|_| {},
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(schedule, &field, async {
            match stop_after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        }))
    }
}

/// One strike of each mode of these groups, one after the other.
fn each_of(groups: &[&str]) -> Schedule {
    let modes = MODES.iter().filter(|mode| groups.contains(&mode.group));
    let strikes = modes.enumerate().map(|(index, mode)| Strike {
        mode,
        at: Duration::from_millis(1) * index as u32,
        lasts: Duration::from_millis(400),
        seed: index as u64,
    });
    Schedule {
        seed: 0,
        strikes: strikes.collect(),
    }
}

/// Carries the modes of these groups out, each alone.
fn every_mode_works(groups: &[&str]) {
    let Some(place) = Place::create() else { return };
    for strike in each_of(groups).strikes {
        let name = strike.mode.name;
        let alone = Schedule {
            seed: 0,
            strikes: vec![Strike {
                at: Duration::ZERO,
                ..strike
            }],
        };
        let attacked = place.attack(&alone, None);
        let [fault] = &attacked.faults[..] else {
            panic!("{name}: {attacked:?}");
        };
        assert_eq!(attacked.not_healed, None, "{fault:?}");
        assert!(fault.to_ns.is_some(), "{fault:?}");
        match &fault.installed {
            Installed::Installed => {
                assert!(fault.mode == name && fault.to_ns > Some(fault.from_ns))
            }
            Installed::Skipped(why) => {
                // What this test's operator cannot do, and what its machine may lack.
                let known = [
                    "the system has no such operation",
                    "control group",
                    "there is no /sys",
                ];
                assert!(
                    known.iter().any(|known| why.contains(known)),
                    "{name}: {why}"
                );
            }
            Installed::Indeterminate(why) => panic!("{name}: {why}"),
        }
    }
    assert!(place.processes.take_unexpected().is_empty());
}

#[test]
fn processes_die_stop_and_starve() {
    every_mode_works(&["kill", "restart", "pause", "cpu"]);
}

#[test]
fn links_are_cut() {
    every_mode_works(&["partition", "flap"]);
}

#[test]
fn clocks_are_bent() {
    every_mode_works(&["clock", "clock-beyond"]);
}

#[test]
fn disks_fail() {
    every_mode_works(&["disk", "fsync", "power", "data-loss"]);
}

#[test]
fn the_operator_is_called_and_called_again_to_undo() {
    let Some(place) = Place::create() else { return };
    let groups = ["leader", "membership", "moves", "config", "mode"];
    let attacked = place.attack(&each_of(&groups), None);
    assert!(
        attacked.faults.iter().all(|fault| fault.to_ns.is_some()),
        "{attacked:?}"
    );
    let said = place.operator.0.lock();
    let about = |what: &str| {
        let host = said.iter().find_map(|said| said.strip_prefix(what));
        host.unwrap_or_else(|| panic!("never {what}: {said:?}"))
            .to_owned()
    };
    assert_eq!(about("remove "), about("add "));
    assert!(
        said.iter().filter(|said| *said == "move").count() > 1,
        "a storm is many moves"
    );
    assert_eq!(about("drain "), about("undrain "));
    assert!(said.contains(&"strong false".to_owned()) && said.contains(&"strong true".to_owned()));
}

/// Strikes of these modes, all at the same time.
fn at_once(names: &[&str]) -> Schedule {
    let strikes = names.iter().flat_map(|name| catalogue::find(name));
    Schedule {
        seed: 0,
        strikes: strikes
            .map(|mode| Strike {
                mode,
                at: Duration::ZERO,
                lasts: Duration::from_millis(400),
                seed: 0,
            })
            .collect(),
    }
}

#[test]
fn a_mode_that_names_a_part_strikes_nobody_else_while_another_has_hold_of_it() {
    let Some(place) = Place::create() else { return };
    let attacked = place.attack(&at_once(&["pause-leader", "kill-leader"]), None);
    let skipped = |fault: &&Fault| matches!(fault.installed, Installed::Skipped(_));
    assert_eq!(attacked.faults.iter().filter(skipped).count(), 1);
    let struck = attacked.faults.iter().find(|fault| !skipped(fault));
    assert_eq!(
        struck.map(|fault| &fault.hosts[..]),
        Some(&["a2".to_owned()][..])
    );
}

#[test]
fn a_mode_that_names_a_part_strikes_nobody_while_it_is_not_known_who_has_it() {
    let Some(mut place) = Place::create() else {
        return;
    };
    place.system.tells = false;
    let names = [
        "kill-leader",
        "starve-owner",
        "isolate-owner",
        "slow-leader",
        "disk-full-leader",
        "clock-within-isolated",
        "clock-slow-isolated",
    ];
    for fault in place.attack(&at_once(&names), None).faults {
        assert!(
            matches!(fault.installed, Installed::Skipped(_)),
            "{fault:?}"
        );
    }
}

#[test]
fn faults_end_when_they_are_told_to() {
    let Some(place) = Place::create() else { return };
    let mut schedule = each_of(&["pause", "partition", "clock"]);
    for strike in &mut schedule.strikes {
        strike.lasts = Duration::from_secs(3_600);
    }
    let attacked = place.attack(&schedule, Some(Duration::from_millis(500)));
    assert_eq!(attacked.not_healed, None);
    assert!(attacked.faults.iter().all(|fault| fault.to_ns.is_some()));
}

#[test]
fn faults_that_overlap_leave_each_other_alone_and_the_data_on_a_majority() {
    let Some(place) = Place::create() else { return };
    let timing = Timing {
        first: Duration::ZERO,
        together: 9,
        least: Duration::from_millis(100),
        most: Duration::from_millis(900),
        lull: Duration::from_millis(1),
        until: Duration::from_secs(6),
        ttl: Duration::from_millis(100),
    };
    let names = [
        "kill",
        "pause",
        "partition",
        "clock",
        "disk",
        "fsync",
        "power",
        "link",
        "cpu",
    ];
    let schedule = Schedule::from_seed(9, &names, &timing).unwrap();
    let attacked = place.attack(&schedule, None);
    assert_eq!(attacked.not_healed, None);
    let undone = attacked.faults.iter().filter(|fault| fault.to_ns.is_some());
    assert_eq!(undone.count(), schedule.strikes.len(), "{schedule}");
    let power: Vec<_> = attacked
        .faults
        .iter()
        .filter(|fault| fault.kind == "power" && fault.installed == Installed::Installed)
        .collect();
    for (index, one) in power.iter().enumerate() {
        for other in &power[index + 1..] {
            assert!(
                Some(other.from_ns) >= one.to_ns,
                "two at once: {one:?} {other:?}"
            );
        }
    }
}
