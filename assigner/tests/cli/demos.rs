//! The demos in their short forms, with the real program: what they claim holds, and what they
//! write can be read.

use std::path::Path;

use serde_json::Value;

use crate::program::{arg, run};

/// The figure's value in a report that a demo wrote.
fn figure(report: &Path, name: &str) -> f64 {
    let text = std::fs::read_to_string(report).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let mut figures = report["figures"].as_array().expect("figures").iter();
    let figure = figures.find(|figure| figure["name"] == name);
    figure
        .and_then(|figure| figure["value"].as_f64())
        .unwrap_or_else(|| panic!("{name} is missing: {text}"))
}

#[test]
fn counters_keep_every_acknowledged_increment_while_their_slices_move() {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("figures.json");
    let command = ["demo", "counter", "--quick", "--json", arg(&json)];
    let said = run(&command);
    assert_eq!(figure(&json, "increments_lost"), 0.0, "{said:?}");
    assert_eq!(figure(&json, "increments_doubled"), 0.0, "{said:?}");
    assert!(figure(&json, "increments_acknowledged") > 0.0, "{said:?}");
    assert_eq!(figure(&json, "planned_moves_total"), 100.0, "{said:?}");
}

#[test]
fn a_cache_that_moves_with_its_slices_outlives_a_rolling_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (json, out) = (dir.path().join("figures.json"), dir.path().join("out"));
    let command = [
        "demo",
        "softstore",
        "--quick",
        "--json",
        arg(&json),
        "--out",
        arg(&out),
    ];
    let said = run(&command);
    for wrong in [
        "wrong_answers_strong",
        "stale_answers_strong",
        "stale_answers_no_transfer",
    ] {
        assert_eq!(figure(&json, wrong), 0.0, "{said:?}");
    }
    let kept = figure(&json, "hit_rate_during_strong_transfer");
    assert!(kept > 0.9 * figure(&json, "hit_rate_before"), "{said:?}");
    assert!(
        kept > figure(&json, "hit_rate_during_no_transfer"),
        "{said:?}"
    );
    let plot = std::fs::read_to_string(out.join("softstore.svg")).expect("a plot");
    assert!(
        plot.starts_with("<svg") && plot.contains("without transfer"),
        "{plot}"
    );
}
