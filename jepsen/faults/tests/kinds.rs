//! Each kind of network, as far as this machine and user allow it, carries processes, cuts and
//! delays (`examples/network_probe.rs`); and a run that is killed leaves nothing for ever.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use leasehold_faults::remove_stale;

/// The probe, built beside the library that proxies need.
fn probe() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let dir = program.ancestors().nth(2).unwrap().to_owned();
        for what in [
            &["leasehold-shim"][..],
            &["leasehold-faults", "--example", "network_probe"],
        ] {
            let mut command = Command::new(env!("CARGO"));
            command.args(["build", "-q", "-p"]).args(what);
            command.arg("--target-dir").arg(dir.parent().unwrap());
            if dir.ends_with("release") {
                command.arg("--release");
            }
            assert!(command.status().unwrap().success(), "{command:?}");
        }
        dir.join("examples/network_probe")
    });
    program.clone()
}

fn works(kind: &str) {
    let output = Command::new(probe()).arg(kind).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let not_allowed = [
        "make a network namespace",
        "run again without root",
        "install iproute2",
    ];
    if not_allowed.iter().any(|what| errors.contains(what)) {
        assert!(
            std::env::var_os("LEASEHOLD_MUST_TEST_NAMESPACES").is_none(),
            "{errors}"
        );
        return eprintln!("not tested: {errors}");
    }
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(
        said.contains(&format!("passed: {kind}")),
        "{said}\n{errors}"
    );
}

#[test]
fn namespaces_work() {
    works("namespaces");
}

#[test]
fn a_user_namespace_works() {
    works("rootless");
}

#[test]
fn proxies_work() {
    works("proxy");
}

#[test]
fn what_a_killed_run_left_behind_is_removed() {
    let mut child = Command::new(probe())
        .arg("best")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Once its disk is made it has something to leave behind.
    while !lines.next().unwrap().unwrap().starts_with("disk") {}
    let name = format!("leasehold-run-{}-", child.id());
    let left = || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let dirs = std::fs::read_dir(std::env::temp_dir()).unwrap();
        let mut dirs = dirs.map(|dir| dir.unwrap().file_name().into_string().unwrap());
        mounts.contains(&name) || dirs.any(|dir| dir.starts_with(&name))
    };
    let rootless = std::fs::read_to_string("/proc/self/status").unwrap();
    if rootless.contains("Uid:\t0") {
        assert!(left(), "it has a directory while it runs");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    remove_stale();
    // A process of the dead run may hold the mount for a moment.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while left() {
        assert!(std::time::Instant::now() < end, "it is still there");
        std::thread::yield_now();
        remove_stale();
    }
}
