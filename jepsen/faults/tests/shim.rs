//! The preloaded library, seen from inside a process (`examples/shim_probe.rs`).
//!
//! Both times of a measurement are read at its two ends, so that their ratio does not depend on
//! how loaded the machine is; that a wait is *short* is asked of the best of several.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use leasehold_faults::{Shim, SyncFault};
use tempfile::TempDir;

const WAIT_NS: u64 = 300_000_000;
const CLOCKS: [&str; 4] = ["instant", "raw", "boottime", "wall"];
const WAITS: [&str; 8] = [
    "sleep",
    "park",
    "condvar",
    "channel",
    "pthread-cond",
    "poll",
    "tokio-sleep",
    "tokio-timeout",
];

/// `target/debug` or its like.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().to_owned()
}

/// Builds the library and the probe where they are found: cargo builds no `cdylib` for a test of
/// another package, and no example for a single test.
fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = target();
        for what in [
            &["leasehold-shim"][..],
            &["leasehold-faults", "--example", "shim_probe"],
        ] {
            let mut command = Command::new(env!("CARGO"));
            command.args(["build", "-q", "-p"]).args(what);
            command.arg("--target-dir").arg(dir.parent().unwrap());
            if dir.ends_with("release") {
                command.arg("--release");
            }
            assert!(command.status().unwrap().success(), "{command:?}");
        }
    });
}

struct Bent {
    shim: Shim,
    dir: TempDir,
}

impl Bent {
    fn new() -> Self {
        build();
        let dir = TempDir::new().unwrap();
        Self {
            shim: Shim::create(dir.path(), "host").unwrap(),
            dir,
        }
    }

    fn start(&self, questions: &[&str]) -> std::process::Child {
        let mut command = Command::new(target().join("examples/shim_probe"));
        command.args(questions).stdout(Stdio::piped());
        self.shim.apply(&mut command);
        command.spawn().unwrap()
    }

    /// What the probe answers: question, truly, as shown.
    fn ask(&self, questions: &[&str]) -> Vec<(String, u64, u64)> {
        let mut child = self.start(questions);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let answers: Vec<_> = lines.map(|line| parse(&line.unwrap())).collect();
        assert!(child.wait().unwrap().success());
        assert_eq!(answers.len(), questions.len());
        answers
    }
}

fn parse(line: &str) -> (String, u64, u64) {
    let mut words = line.rsplitn(3, ' ');
    let shown_ns = words.next().unwrap().parse().unwrap();
    let true_ns = words.next().unwrap().parse().unwrap();
    (words.next().unwrap().to_owned(), true_ns, shown_ns)
}

fn close(ratio: f64, rate: f64) -> bool {
    (ratio / rate - 1.0).abs() < 0.01
}

#[test]
fn every_clock_runs_at_the_rate_set() {
    let bent = Bent::new();
    for rate in [1.0, 1.05, 0.5, 2.0] {
        bent.shim.set_rate(rate).unwrap();
        for (clock, true_ns, shown_ns) in bent.ask(&CLOCKS) {
            let ratio = shown_ns as f64 / true_ns as f64;
            assert!(close(ratio, rate), "{clock} at {rate}: {ratio}");
        }
        assert!(bent.shim.is_seen());
    }
}

#[test]
fn every_wait_is_as_long_as_asked_for_in_shown_time() {
    let bent = Bent::new();
    for rate in [0.5, 1.0, 2.0] {
        bent.shim.set_rate(rate).unwrap();
        for (wait, true_ns, shown_ns) in bent.ask(&WAITS) {
            // Timers of runtimes may be a millisecond early, clocks of condition variables others.
            assert!(
                shown_ns + 2_000_000 >= WAIT_NS,
                "{wait} at {rate}: {shown_ns}"
            );
            assert!(
                close(shown_ns as f64 / true_ns as f64, rate),
                "{wait} at {rate}"
            );
        }
    }
}

#[test]
fn a_fast_clock_wakes_its_process_early() {
    let bent = Bent::new();
    bent.shim.set_rate(3.0).unwrap();
    for wait in WAITS {
        let shortest = (0..5).map(|_| bent.ask(&[wait])[0].1).min().unwrap();
        assert!(shortest < WAIT_NS * 2 / 3, "{wait}: {shortest} ns");
    }
}

#[test]
fn a_change_of_the_rate_reaches_a_wait_in_progress() {
    let bent = Bent::new();
    let shortest = (0..3)
        .map(|_| {
            bent.shim.set_rate(1.0).unwrap();
            let mut child = bent.start(&["instant", "long-sleep"]);
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            lines.next().unwrap().unwrap();
            // It sleeps for three seconds now, or will in a moment.
            std::thread::sleep(Duration::from_millis(200));
            bent.shim.set_rate(10.0).unwrap();
            let (_, true_ns, _) = parse(&lines.next().unwrap().unwrap());
            child.wait().unwrap();
            true_ns
        })
        .min()
        .unwrap();
    assert!(shortest < 10 * WAIT_NS / 2, "{shortest} ns");
}

#[test]
fn the_wall_clock_jumps_there_and_back_alone() {
    let bent = Bent::new();
    const HOUR_NS: i64 = 3_600_000_000_000;
    for jump_ns in [HOUR_NS, -HOUR_NS] {
        bent.shim.jump_wall(jump_ns);
        let (_, true_ns, shown_ns) = bent.ask(&["wall-now"])[0].clone();
        let off_ns = shown_ns as i64 - true_ns as i64 - jump_ns;
        assert!(off_ns.abs() < 1_000_000_000, "{jump_ns}: {off_ns}");
        let (_, true_ns, shown_ns) = bent.ask(&["tokio-sleep"])[0].clone();
        assert!(close(shown_ns as f64 / true_ns as f64, 1.0));
        bent.shim.restore_clocks();
        let (_, true_ns, shown_ns) = bent.ask(&["wall-now"])[0].clone();
        assert!((shown_ns as i64 - true_ns as i64).abs() < 1_000_000_000);
    }
}

#[test]
fn no_clock_goes_back_while_its_rate_changes() {
    let bent = Bent::new();
    let mut child = bent.start(&["monotonic"]);
    let rates = [2.0, 0.5, 1.0, 10.0, 0.1];
    let mut changes = 0;
    while child.try_wait().unwrap().is_none() {
        bent.shim.set_rate(rates[changes % rates.len()]).unwrap();
        changes += 1;
        std::thread::sleep(Duration::from_micros(200));
    }
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next();
    let (_, back_ns, _) = parse(&line.unwrap().unwrap());
    eprintln!("{changes} changes");
    assert_eq!(back_ns, 0, "after {changes} changes");
}

fn fsync(bent: &Bent, dir: &Path) -> (u64, u64) {
    let (_, true_ns, error) = bent.ask(&[&format!("fsync:{}", dir.display())])[0].clone();
    (true_ns, error)
}

#[test]
fn an_fsync_fails_dawdles_or_lies_below_its_directory_only() {
    let bent = Bent::new();
    let struck = bent.dir.path().join("data");
    let spared = bent.dir.path().join("database");
    for dir in [&struck, &spared] {
        std::fs::create_dir(dir).unwrap();
    }
    assert_eq!(fsync(&bent, &struck).1, 0);
    bent.shim.set_sync_fault(&struck, SyncFault::Fails).unwrap();
    assert_eq!(fsync(&bent, &struck).1, libc::EIO as u64);
    assert_eq!(fsync(&bent, &spared).1, 0);
    assert_eq!(bent.shim.syncs_struck(), 1);
    let delay = Duration::from_millis(200);
    bent.shim
        .set_sync_fault(&struck, SyncFault::Slow(delay))
        .unwrap();
    let (true_ns, error) = fsync(&bent, &struck);
    assert!(true_ns >= delay.as_nanos() as u64 && error == 0);
    bent.shim.set_sync_fault(&struck, SyncFault::Lies).unwrap();
    assert_eq!(fsync(&bent, &struck).1, 0);
    bent.shim.restore_sync();
    assert_eq!(fsync(&bent, &struck).1, 0);
    assert_eq!(bent.shim.syncs_struck(), 3);
}
