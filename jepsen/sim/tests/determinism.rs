//! The same seed gives the same schedule, byte by byte: in one process, and in two.

use leasehold_sim::{Options, fingerprint, trace};
use std::process::Command;

fn in_another_process(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold-sim"))
        .args(["run", "--fingerprint", "--seed", &seed.to_string()])
        .output()
        .expect("the command starts");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_seed_twice_gives_identical_traces() {
    for seed in 1..=20 {
        let first = trace(seed, &Options::default());
        let second = trace(seed, &Options::default());
        assert!(first.len() > 100, "schedule {seed} is idle");
        assert_eq!(first, second, "schedule {seed}");
    }
    let of = |seed| fingerprint(&trace(seed, &Options::default()));
    assert_ne!(of(1), of(2));
}

#[test]
fn a_seed_gives_the_same_trace_in_two_processes() {
    for seed in 1..=5 {
        let here = format!("{:016x}", fingerprint(&trace(seed, &Options::default())));
        assert_eq!(in_another_process(seed), here, "schedule {seed}");
        assert_eq!(in_another_process(seed), here, "schedule {seed}");
    }
}
