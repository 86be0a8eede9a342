//! The list of runs, newest first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use leasehold_checkers::Verdict;
use leasehold_checkers::run::{Results, Test};
use serde::Deserialize;

use crate::page::{component, page as whole, verdict};
use crate::run::document;
use crate::summary::Summary;
use crate::text::{count, put, safe, span};

/// Runs looked at; the newest.
const MAX_RUNS: usize = 5_000;
/// Rows of the list.
const MAX_ROWS: usize = 500;

/// What the query asks for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    /// Only runs with this verdict: `valid`, `invalid`, `unknown` or `none`.
    #[serde(default)]
    verdict: String,
    /// Only runs of this workload.
    #[serde(default)]
    workload: String,
}

/// One run.
#[derive(Debug)]
struct Entry {
    name: String,
    time: String,
    test: Option<Test>,
    results: Option<Results>,
    summary: Option<Summary>,
}

impl Entry {
    fn read(name: String, time: String, dir: &Path) -> Self {
        let notes = &mut Vec::new();
        Self {
            name,
            time,
            test: document(dir, "test.json", notes),
            results: document(dir, "results.json", notes),
            summary: Summary::read(dir),
        }
    }

    /// Its verdict, unless it has none that counts.
    fn verdict(&self) -> Option<Verdict> {
        let results = self.results.as_ref()?;
        results.harness_error.is_none().then_some(results.verdict)
    }

    fn matches(&self, filter: &Filter) -> bool {
        let verdict = match self.verdict() {
            Some(verdict) => crate::page::verdict_class(verdict),
            None => "none",
        };
        let workload = self.test.as_ref().map_or("", |test| &test.workload);
        (filter.verdict.is_empty() || filter.verdict == verdict)
            && (filter.workload.is_empty() || filter.workload == workload)
    }
}

/// The page.
pub(super) fn page(store: &Path, filter: &Filter) -> String {
    let (dirs, total) = directories(store);
    let entries: Vec<Entry> = dirs
        .into_iter()
        .map(|(time, name, dir)| Entry::read(name, time, &dir))
        .collect();
    let workloads: BTreeSet<&str> = entries
        .iter()
        .filter_map(|e| Some(e.test.as_ref()?.workload.as_str()))
        .collect();
    let shown: Vec<&Entry> = entries.iter().filter(|e| e.matches(filter)).collect();
    let mut body = String::from("<h1>Runs</h1>");
    body.push_str(&form(filter, &workloads));
    put!(
        body,
        "<p class=\"note\">{} of {} runs",
        count(shown.len()),
        count(total)
    );
    if total > MAX_RUNS {
        put!(body, "; only the newest {} were looked at", count(MAX_RUNS));
    }
    if shown.len() > MAX_ROWS {
        put!(body, "; the newest {} are shown", count(MAX_ROWS));
    }
    body.push_str(".</p><div class=\"wide\"><table><tr><th>time</th><th>name</th><th>workload</th><th>faults</th><th class=\"n\">seed</th><th>verdict</th><th>expected?</th><th class=\"n\">operations</th><th class=\"n\">duration</th><th></th></tr>");
    for entry in shown.iter().take(MAX_ROWS) {
        row(&mut body, entry);
    }
    body.push_str("</table></div>");
    if total == 0 {
        body.push_str("<p class=\"banner\">There is no run here yet.</p>");
    }
    whole("Runs", &body)
}

/// Directories of runs, newest first, at most [`MAX_RUNS`]; and how many there are.
fn directories(store: &Path) -> (Vec<(String, String, PathBuf)>, usize) {
    let mut found = Vec::new();
    for (name, dir) in subdirectories(store) {
        for (time, dir) in subdirectories(&dir) {
            found.push((time, name.clone(), dir));
        }
    }
    found.sort_by(|a, b| (&b.0, &b.1).cmp(&(&a.0, &a.1)));
    let total = found.len();
    found.truncate(MAX_RUNS);
    (found, total)
}

/// Real ones: `latest` and its like, which are links, would list a run twice.
fn subdirectories(dir: &Path) -> Vec<(String, PathBuf)> {
    let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
    listed
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect()
}

fn form(filter: &Filter, workloads: &BTreeSet<&str>) -> String {
    let mut out = String::from("<form method=\"get\" action=\"/\">");
    let mut select = |name: &str, chosen: &str, choices: &[&str]| {
        put!(
            out,
            "<label>{name} <select name=\"{name}\"><option value=\"\">any</option>"
        );
        for choice in choices {
            let selected = if *choice == chosen { " selected" } else { "" };
            // The value must be whole, or the filter would not find it again.
            let value = crate::text::escape(choice);
            put!(
                out,
                "<option value=\"{value}\"{selected}>{}</option>",
                safe(choice, 60)
            );
        }
        out.push_str("</select></label>");
    };
    select(
        "verdict",
        &filter.verdict,
        &["valid", "invalid", "unknown", "none"],
    );
    let workloads: Vec<&str> = workloads.iter().copied().take(200).collect();
    select("workload", &filter.workload, &workloads);
    out.push_str("<button>Show</button></form>");
    out
}

fn row(out: &mut String, entry: &Entry) {
    let link = format!("{}/{}", component(&entry.name), component(&entry.time));
    let test = entry.test.as_ref();
    put!(
        out,
        "<tr><td class=\"w\"><a href=\"/run/{link}/\">{}</a></td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td>",
        safe(&entry.time, 60),
        safe(&entry.name, 80),
        test.map_or_else(String::new, |t| safe(&t.workload, 60)),
        test.map_or_else(String::new, |t| safe(&t.nemeses.join(", "), 100)),
        test.map_or_else(String::new, |t| t.seed.to_string())
    );
    let words = match (&entry.results, entry.verdict()) {
        (_, Some(found)) => verdict(found),
        (Some(_), None) => "<span class=\"v unknown\">⚠ harness failed</span>".to_owned(),
        (None, _) => "<span class=\"muted\">not judged</span>".to_owned(),
    };
    let expected = match &entry.results {
        Some(results) if results.as_expected => "yes",
        Some(_) => "<b>NO</b>",
        None => "",
    };
    let summary = entry.summary.as_ref();
    put!(
        out,
        "<td>{words}</td><td>{expected}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"w\"><a href=\"/tar/{link}\">tar</a></td></tr>",
        summary.map_or_else(String::new, |s| count(s.operations)),
        summary.map_or_else(String::new, |s| span(s.duration_ns))
    );
}
