//! What the command's exit code says: 0 clean, 1 broken, 2 cannot be told.

use std::process::{Command, Output};

fn sim(args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leasehold-sim"))
        .args(args.split(' '))
        .output()
        .expect("the command starts")
}

#[test]
fn clean_schedules_exit_with_0_and_figures_are_written() {
    let dir = std::env::temp_dir().join(format!("leasehold-sim-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let json = dir.join("sim.json");
    let output = sim(&format!(
        "run --seeds 20 --threads 2 --json {}",
        json.display()
    ));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let figures = std::fs::read_to_string(&json).expect("figures");
    assert!(figures.contains("\"sim_schedules\"") && figures.contains("sim_schedules_per_s"));
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn rare_situations_that_were_never_reached_are_no_pass() {
    let output = sim("run --seeds 5000 --events 3");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("never reached: handoff cancelled after the ask"),
        "{text}"
    );
}

#[test]
fn a_kind_of_fault_that_does_not_exist_is_named() {
    let output = sim("run --seed 1 --without meteors");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("meteors") && text.contains("wall-jumps"),
        "{text}"
    );
}
