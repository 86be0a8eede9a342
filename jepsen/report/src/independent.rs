//! Pages of single keys, for keys with findings: the smallest failing window step by step, and the
//! key's whole history.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use leasehold_checkers::{Finding, Kind, Op};

use crate::bands::Bands;
use crate::page::{READOUT, page};
use crate::run::{Operation, Run};
use crate::text::{count, escape, put, safe, seconds, span};
use crate::timeline::{self, Window, describe, ending, result};

/// Keys with a page at most.
const MAX_KEYS: usize = 50;
/// Findings of a key that have a plot; the others are told in words.
const MAX_PLOTS: usize = 10;
/// Rows of a key's history on its page at most.
const MAX_ROWS: usize = 1_000;
/// Steps of an explanation at most.
const MAX_STEPS: usize = 60;
/// Operations of a key in its file at most.
const MAX_IN_FILE: usize = 100_000;

/// Writes `independent/KEY/` for every key with findings. Gives the name of each key's directory.
pub(crate) fn write(
    run: &Run,
    bands: &Bands<'_>,
    dir: &Path,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut keys: BTreeMap<String, Vec<(String, Finding)>> = BTreeMap::new();
    for outcome in run.results.iter().flat_map(|results| &results.outcomes) {
        for finding in &outcome.findings {
            if let Some(key) = &finding.key {
                let of_key = keys.entry(key.clone()).or_default();
                of_key.push((outcome.checker.clone(), finding.clone()));
            }
        }
    }
    let root = dir.join("independent");
    let kept: BTreeMap<String, String> = keys
        .keys()
        .take(MAX_KEYS)
        .map(|key| (key.clone(), directory(key)))
        .collect();
    clear(&root, &kept);
    for (key, findings) in keys.iter().take(MAX_KEYS) {
        let Some(name) = kept.get(key) else { continue };
        let place = root.join(name);
        fs::create_dir_all(&place)?;
        crate::put_file(
            &place.join("index.html"),
            &key_page(run, bands, key, findings),
        )?;
        crate::put_file(&place.join("history.jsonl"), &key_history(run, key)?)?;
    }
    Ok(kept)
}

/// A name for the directory of a key: letters, digits and `-` as they are, other bytes as `_` and
/// two hexadecimal digits, so that no key leaves the directory and no two share one.
fn directory(key: &str) -> String {
    let mut name = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => name.push(char::from(byte)),
            _ => put!(name, "_{byte:02x}"),
        }
    }
    if name.is_empty() {
        return "_".to_owned();
    }
    if name.len() > 100 {
        use sha2::{Digest as _, Sha256};
        let hash = Sha256::digest(key.as_bytes());
        name.truncate(60);
        name.push_str("__");
        hash.iter()
            .take(12)
            .for_each(|byte| put!(name, "{byte:02x}"));
    }
    name
}

/// Removes pages of an earlier report that are no longer wanted; what cannot be removed stays.
fn clear(root: &Path, kept: &BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if ours && !kept.values().any(|keep| name.to_str() == Some(keep)) {
            let _ = fs::remove_file(entry.path().join("index.html"));
            let _ = fs::remove_file(entry.path().join("history.jsonl"));
            let _ = fs::remove_dir(entry.path());
        }
    }
    let _ = fs::remove_dir(root);
}

fn key_page(run: &Run, bands: &Bands<'_>, key: &str, findings: &[(String, Finding)]) -> String {
    let name = safe(key, 200);
    let mut body = format!(
        "<p><a href=\"../../index.html\">← the run</a></p><h1>Key {name}</h1>\
         <p><a href=\"history.jsonl\">history.jsonl</a> of this key</p><div class=\"plots\">"
    );
    for (i, (checker, finding)) in findings.iter().enumerate() {
        put!(
            body,
            "<h2>{}</h2><p>{}</p>",
            safe(checker, 80),
            safe(&finding.what, 2_000)
        );
        body.push_str(&steps(run, checker, finding));
        if i >= MAX_PLOTS {
            continue;
        }
        if let Some(window) = Window::around(run, finding) {
            body.push_str(&timeline::draw(run, &window, bands));
        }
    }
    body.push_str("</div>");
    body.push_str(&history_table(run, key, findings));
    body.push_str(READOUT);
    page(&format!("Key {key}"), &body)
}

/// The operations that a finding points at, in the order in which they began, each with what it
/// must have seen because it had ended before.
fn steps(run: &Run, checker: &str, finding: &Finding) -> String {
    if finding.ops.is_empty() {
        return "<p class=\"note\">The checker points at no single operations.</p>".to_owned();
    }
    let ops: BTreeSet<u64> = finding.ops.iter().copied().collect();
    let mut marked: Vec<&Operation> = run.operations.iter().filter(|o| o.is_among(&ops)).collect();
    marked.sort_by_key(|o| (o.from_ns, o.index));
    let mut out = String::from("<p>The operations that the checker points at, as they began.");
    if checker.starts_with("linearizable") {
        out.push_str(
            " It is the smallest window found that cannot be: no order of its operations, in which \
             each takes effect between its beginning and its end, explains what they returned.",
        );
    }
    out.push_str("</p><ol>");
    for (i, operation) in marked.iter().enumerate().take(MAX_STEPS) {
        let end = operation
            .end
            .map_or_else(|| "…".to_owned(), |(_, at)| seconds(at));
        put!(
            out,
            "<li><span class=\"mono\">{} to {end}</span> <b>{}</b> — {}{}</li>",
            seconds(operation.from_ns),
            describe(operation),
            ending(operation),
            relation(&marked, i)
        );
    }
    out.push_str("</ol>");
    let steps = marked.len();
    if steps > MAX_STEPS {
        put!(
            out,
            "<p class=\"note\">The first {MAX_STEPS} of {} steps.</p>",
            count(steps)
        );
    }
    if steps < finding.ops.len() && steps == 0 {
        out.push_str("<p class=\"note\">The history does not hold these operations.</p>");
    }
    out
}

/// How step `i` lies to the steps before it.
fn relation(marked: &[&Operation], i: usize) -> String {
    let Some(operation) = marked.get(i) else {
        return String::new();
    };
    let (mut after, mut beside) = (Vec::new(), Vec::new());
    for (j, earlier) in marked.iter().enumerate().take(i.min(MAX_STEPS)) {
        let ended = earlier.end.is_some_and(|(_, at)| at < operation.from_ns);
        if ended && earlier.outcome != Kind::Info {
            after.push((j + 1).to_string());
        } else {
            beside.push((j + 1).to_string());
        }
    }
    let mut out = String::new();
    if !after.is_empty() {
        put!(out, "; begun after step {} had ended", after.join(", "));
    }
    if !beside.is_empty() {
        put!(out, "; at the same time as step {}", beside.join(", "));
    }
    out
}

fn history_table(run: &Run, key: &str, findings: &[(String, Finding)]) -> String {
    let of_key: Vec<&Operation> = run
        .operations
        .iter()
        .filter(|o| o.key.as_deref() == Some(key))
        .collect();
    let ops: BTreeSet<u64> = findings
        .iter()
        .flat_map(|(_, f)| f.ops.iter().copied())
        .collect();
    let hit = |o: &Operation| o.is_among(&ops);
    let first_hit = of_key.iter().position(|o| hit(o)).unwrap_or(0);
    let from = if of_key.len() > MAX_ROWS {
        first_hit.saturating_sub(MAX_ROWS / 4)
    } else {
        0
    };
    let mut out = format!(
        "<h2>History of the key: {} operations</h2>",
        count(of_key.len())
    );
    if of_key.len() > MAX_ROWS {
        put!(
            out,
            "<p class=\"note\">{} are shown, from the {}th on; history.jsonl has {}.</p>",
            count(MAX_ROWS),
            count(from + 1),
            if of_key.len() > MAX_IN_FILE {
                count(MAX_IN_FILE)
            } else {
                "all".to_owned()
            }
        );
    }
    out.push_str(
        "<div class=\"wide\"><table><tr><th class=\"n\">line</th><th class=\"n\">began</th><th class=\"n\">took</th>\
         <th class=\"n\">process</th><th>operation</th><th>value</th><th>ended</th></tr>",
    );
    for operation in of_key.iter().skip(from).take(MAX_ROWS) {
        put!(
            out,
            "<tr{}><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            if hit(operation) { " class=\"hit\"" } else { "" },
            operation.index,
            seconds(operation.from_ns),
            operation
                .latency_ns()
                .map_or_else(|| "open".to_owned(), span),
            operation.process,
            safe(&operation.f, 40),
            result(operation, 120),
            ending(operation)
        );
    }
    out.push_str("</table></div>");
    if of_key.is_empty() {
        put!(
            out,
            "<p class=\"note\">{}</p>",
            escape("The history has no operation of this key.")
        );
    }
    out
}

/// The lines of the history that are about a key.
fn key_history(run: &Run, key: &str) -> anyhow::Result<String> {
    let mut lines: Vec<Op> = Vec::new();
    let of_key = run
        .operations
        .iter()
        .filter(|o| o.key.as_deref() == Some(key));
    for operation in of_key.take(MAX_IN_FILE) {
        let begun = Op {
            index: operation.index,
            time: operation.from_ns,
            process: operation.process,
            kind: Kind::Invoke,
            f: operation.f.to_string(),
            key: Some(key.to_owned()),
            value: operation.argument.clone(),
            node: None,
            epoch: None,
            error: None,
        };
        if let Some((index, time)) = operation.end {
            lines.push(Op {
                index,
                time,
                kind: operation.outcome,
                value: operation.result.clone(),
                node: operation.node.as_deref().map(str::to_owned),
                epoch: operation.epoch,
                error: operation.error.clone(),
                ..begun.clone()
            });
        }
        lines.push(begun);
    }
    lines.sort_by_key(|op| op.index);
    let mut out = String::new();
    for op in lines {
        out.push_str(&serde_json::to_string(&op)?);
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_names_a_place_elsewhere_and_no_two_the_same() {
        let long = "x".repeat(5_000);
        let keys = [
            "../../etc/passwd",
            "..",
            ".",
            "",
            "/",
            "a/b",
            "a_2fb",
            "_",
            "k1",
            &long,
        ];
        let names: std::collections::BTreeSet<String> = keys.iter().map(|k| directory(k)).collect();
        assert_eq!(names.len(), keys.len());
        for name in names {
            assert!(name.len() <= 100, "{name}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            );
        }
    }
}
