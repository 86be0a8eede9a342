//! The command line.

use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .try_init();
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let trace = std::env::args().nth(2).is_some();
    let began = std::time::Instant::now();
    let report = crate::world::run(seed, crate::world::Options { trace, ..Default::default() });
    println!("{} {:?} {} events {} ms {:016x} in {:?}", seed, report.violation, report.events, report.simulated_ms, report.hash, began.elapsed());
    for line in &report.tail { println!("{line}"); }
    println!("{:?}", report.coverage.counts());
    println!("{:?}", report.coverage.missing());
    ExitCode::SUCCESS
}
