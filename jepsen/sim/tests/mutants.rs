//! Plants each bug and demands that random schedules notice it, or that it is known why they
//! cannot.
//!
//! `RUSTFLAGS='--cfg leasehold_mutants' CARGO_TARGET_DIR=target/mutants cargo test -p leasehold-sim --test mutants`
#![cfg(leasehold_mutants)]

use leasehold_sim::mutants::{MUTANTS, catch};

/// Schedules that may pass before one fails.
const BUDGET: u64 = 20_000;

#[test]
fn random_schedules_catch_mutants() {
    let mut missed = Vec::new();
    for mutant in MUTANTS.iter().filter(|mutant| mutant.hidden.is_none()) {
        let start = std::time::Instant::now();
        let caught = catch(mutant.name, BUDGET);
        let how = match &caught {
            Some((seed, how)) => format!("schedule {seed}: {how}"),
            None => format!("not noticed in {BUDGET} schedules"),
        };
        let seconds = start.elapsed().as_secs_f64();
        leasehold_proto::mutants::record(
            mutant.name,
            "simulation",
            caught.is_some(),
            &how,
            seconds,
        );
        println!(
            "{}: {}",
            mutant.name,
            how.chars().take(100).collect::<String>()
        );
        if caught.is_none() {
            missed.push(mutant.name);
        }
    }
    assert!(
        missed.is_empty(),
        "not caught by random schedules: {missed:?}"
    );
}
