//! A few worlds, as `leasehold-sim-cluster run` would run them, and the promise that a seed repeats
//! its world.

use std::process::{Command, Output};

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leasehold-sim-cluster"))
        .args(args)
        .output()
        .expect("the program runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_world_breaks_no_rule() {
    let output = program(&["run", "--seed", "1", "--seconds", "5"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

/// Only such a build promises it.
#[test]
#[cfg(tokio_unstable)]
fn a_seed_gives_the_same_events_in_two_processes() {
    let one = |seed: &str| {
        let output = program(&["one", "--seed", seed, "--seconds", "5"]);
        let text = text(&output);
        assert!(text.contains("\"hash\""), "{text}");
        text
    };
    assert_eq!(one("7"), one("7"));
    assert_ne!(one("7"), one("8"));
}

#[test]
fn a_run_that_missed_rare_states_does_not_pass() {
    let output = program(&["run", "--seeds", "1", "--first", "1", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("never"), "{}", text(&output));
}
