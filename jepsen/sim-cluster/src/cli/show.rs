//! What people and other programs are shown.

use std::io;
use std::path::Path;
use std::time::Duration;

use leasehold_figures::{Goal, Report as Figures};

use super::Kind;
use super::run::Total;
use crate::world::Report;

/// The command that runs a world again.
pub(super) fn again(seed: u64, kind: &Kind) -> String {
    let planted = match std::env::var("LEASEHOLD_MUTANT") {
        Ok(name) => format!("LEASEHOLD_MUTANT={name} "),
        Err(_) => String::new(),
    };
    format!(
        "{planted}leasehold-sim-cluster run --seed {seed} --seconds {} --step-ms {} --trace",
        kind.seconds, kind.step_ms
    )
}

/// A world in which a rule was broken, or one that was traced.
pub(super) fn report(report: &Report, kind: &Kind) {
    let Some((invariant, why, at_ms)) = &report.violation else {
        println!(
            "seed {}: passed; {} events, hash {:016x}",
            report.seed, report.events, report.hash
        );
        return;
    };
    println!(
        "seed {}: \"{invariant}\" broken at {at_ms} ms: {why}",
        report.seed
    );
    for line in &report.tail {
        println!("  {line}");
    }
    println!("  again: {}", again(report.seed, kind));
}

pub(super) fn progress(total: &Total, count: u64, elapsed: Duration) {
    println!(
        "{} of {count} worlds, {} broken, {} unknown, {:.0} s",
        total.passed + total.broken + total.unknown,
        total.broken,
        total.unknown,
        elapsed.as_secs_f64()
    );
}

fn per_second(total: &Total, elapsed: Duration) -> f64 {
    total.simulated_ms as f64 / 1000.0 / elapsed.as_secs_f64().max(1e-9)
}

pub(super) fn summary(total: &Total, missing: &[&str], elapsed: Duration) {
    for (name, count) in total.coverage.counts() {
        println!("{count:>10}  {name}");
    }
    for name in missing {
        println!("     never  {name}");
    }
    println!(
        "{} worlds passed, {} broken, {} unknown; {} events; {:.0} simulated s in {:.1} s ({:.1} per s)",
        total.passed,
        total.broken,
        total.unknown,
        total.events,
        total.simulated_ms as f64 / 1000.0,
        elapsed.as_secs_f64(),
        per_second(total, elapsed)
    );
}

/// Writes the figures of a run.
pub(super) fn figures(path: &Path, total: &Total, elapsed: Duration) -> io::Result<()> {
    let mut figures = Figures::new("sim-cluster", &std::env::temp_dir());
    let runs = total.passed + total.broken + total.unknown;
    figures.figure("cluster_sim_runs_total", runs as f64, "runs", Goal::None);
    figures.figure(
        "cluster_sim_runs_valid",
        total.passed as f64,
        "runs",
        Goal::AtLeast(runs as f64),
    );
    figures.figure(
        "cluster_sim_runs_unknown",
        total.unknown as f64,
        "runs",
        Goal::AtMost(0.0),
    );
    figures.figure(
        "cluster_sim_violations",
        total.broken as f64,
        "runs",
        Goal::AtMost(0.0),
    );
    figures.figure(
        "cluster_sim_s_per_s",
        per_second(total, elapsed),
        "s/s",
        Goal::None,
    );
    figures.figure(
        "cluster_sim_events",
        total.events as f64,
        "events",
        Goal::None,
    );
    figures.write(path)
}

/// Writes the figures of a run over all planted bugs.
#[cfg(leasehold_mutants)]
pub(super) fn mutants(path: Option<&Path>, total: usize, caught: usize) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut figures = Figures::new("sim-cluster mutants", &std::env::temp_dir());
    figures.figure("mutants_total", total as f64, "mutants", Goal::None);
    figures.figure(
        "mutants_caught",
        caught as f64,
        "mutants",
        Goal::AtLeast(total as f64),
    );
    figures.write(path)
}
