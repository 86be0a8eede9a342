//! The micro-benchmarks' figures, as criterion has left them: medians, in nanoseconds.

use std::path::Path;

use anyhow::Context;

use leasehold_figures::{Goal, Report};

/// Name of the benchmark and of its figure, and what it may take, in nanoseconds.
const FIGURES: [(&str, f64); 4] = [
    ("guard_ns", 55.0),
    ("verify_ns", 30.0),
    ("lookup_64k_ns", 20.0),
    ("lookup_1m_ns", 40.0),
];

/// Takes what is in `results`, the directory `target/criterion`.
pub fn read(results: &Path, report: &mut Report) {
    for (name, most) in FIGURES {
        match median_ns(&results.join(name)) {
            Ok(median) => report.figure(name, median, "ns", Goal::AtMost(most)),
            Err(error) => report.absent(name, &format!("{error:#}; run `cargo bench` first")),
        }
    }
}

fn median_ns(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join("new").join("estimates.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    estimates["median"]["point_estimate"]
        .as_f64()
        .context("there is no median")
}
