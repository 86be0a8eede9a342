//! What was run, in a few words and then in all of them.

use leasehold_checkers::Kind;

use crate::run::Run;
use crate::text::{count, put, safe, seconds, value};

/// The facts that a reader wants first.
pub(super) fn facts(run: &Run) -> String {
    let mut facts: Vec<(&str, String)> = Vec::new();
    if let Some(test) = &run.test {
        let begun = std::time::Duration::from_secs(test.begun_unix_s.min(253_402_300_799));
        let begun = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + begun);
        facts.push(("workload", safe(&test.workload, 60)));
        facts.push((
            "faults",
            match test.nemeses.as_slice() {
                [] => "none".to_owned(),
                nemeses => safe(&nemeses.join(", "), 200),
            },
        ));
        facts.push(("seed", test.seed.to_string()));
        facts.push(("begun", begun.to_string()));
        facts.push(("load and faults for", format!("{} s", test.time_limit_s)));
        facts.push(("network", safe(&test.network, 40)));
        if let Some(mutant) = &test.mutant {
            facts.push(("planted bug", format!("<b>{}</b>", safe(mutant, 80))));
        }
    }
    let total = run.operations.len();
    facts.push(("operations", count(total)));
    for (words, kind) in [
        ("ok", Kind::Ok),
        ("failed", Kind::Fail),
        ("unknown", Kind::Info),
    ] {
        let n = run.ended(kind);
        let share = if total == 0 {
            0.0
        } else {
            100.0 * n as f64 / total as f64
        };
        facts.push((words, format!("{} ({share:.1} %)", count(n))));
    }
    facts.push(("holds", count(run.holds.len())));
    facts.push(("faults tried", count(run.faults.len())));
    facts.push(("last event", seconds(run.end_ns)));
    let mut out = String::from("<div class=\"facts\">");
    for (name, fact) in facts {
        put!(out, "<div><b>{name}</b><span>{fact}</span></div>");
    }
    out.push_str("</div>");
    if run.operations.is_empty() {
        out.push_str(
            "<p class=\"banner\">The history is empty or missing: no operation was seen.</p>",
        );
    }
    out
}

/// Hosts, sources, kernel and every option.
pub(super) fn options(run: &Run) -> String {
    let Some(test) = &run.test else {
        return String::new();
    };
    let mut out = String::from("<h2>What was run</h2><div class=\"wide\"><table>");
    let mut row = |name: &str, text: String| {
        put!(
            out,
            "<tr><th>{}</th><td class=\"mono\">{text}</td></tr>",
            safe(name, 60)
        );
    };
    let hosts: Vec<String> = test
        .hosts
        .iter()
        .take(60)
        .map(|(name, role)| format!("{name} ({role})"))
        .collect();
    row("hosts", safe(&hosts.join(", "), 2_000));
    row(
        "expected",
        if test.expect_valid {
            "valid"
        } else {
            "to fail"
        }
        .to_owned(),
    );
    row(
        "revision",
        test.revision
            .as_deref()
            .map_or_else(|| "not known".to_owned(), |r| safe(r, 100)),
    );
    row("kernel", safe(&test.kernel, 100));
    for (name, option) in test.options.iter().take(100) {
        row(name, safe(&value(option, 300), 300));
    }
    out.push_str("</table></div>");
    out
}
