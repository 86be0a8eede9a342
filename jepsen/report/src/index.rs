//! The page of a run: the verdict at a glance, what was run, everything that was found, and all
//! plots one above the other.

mod facts;

use std::collections::BTreeMap;
use std::path::Path;

use leasehold_checkers::run::Installed;
use leasehold_checkers::{Finding, Outcome, Verdict};

use crate::Plot;
use crate::bands::Bands;
use crate::clash::{Clash, MAX_CLASHES};
use crate::page::{READOUT, component, page, verdict, verdict_class, verdict_words};
use crate::plot;
use crate::run::Run;
use crate::text::{count, escape, put, safe, seconds, stat};
use crate::timeline::{self, Window};

/// Findings of one checker shown at most.
const MAX_FINDINGS: usize = 8;
/// The same of a checker that found nothing prohibited.
const MAX_REMARKS: usize = 3;
/// Findings shown with a plot of their own at most.
const MAX_CLOSE_UPS: usize = 4;
/// Rows of the table of faults at most.
const MAX_FAULTS: usize = 300;
/// Files linked at most.
const MAX_FILES: usize = 200;

/// What the page is made from.
pub(crate) struct Report<'a> {
    /// The run.
    pub run: &'a Run,
    /// Holds that must not both be.
    pub clashes: &'a [Clash],
    /// Faults with their colours.
    pub bands: &'a Bands<'a>,
    /// Its plots.
    pub plots: &'a [Plot],
}

impl Report<'_> {
    /// The page. `keys` have pages of their own in these directories; `files` are linked.
    pub fn page(&self, keys: &BTreeMap<String, String>, files: &[String]) -> String {
        let name = self
            .run
            .test
            .as_ref()
            .map_or("A run", |test| test.name.as_str());
        let mut body = self.banner(name);
        body.push_str(&facts::facts(self.run));
        body.push_str(&self.checkers(keys));
        body.push_str(&self.close_ups());
        body.push_str(
            "<h2>What happened when</h2><p class=\"note\">All plots share one axis of true time. ",
        );
        body.push_str("<a href=\"timeline.html\">Timeline: operations of each process</a> · <a href=\"ownership.html\">Ownership, close up: each handoff around faults</a></p><div class=\"plots\">");
        for (_, svg) in self.plots {
            body.push_str(svg);
        }
        body.push_str("</div>");
        body.push_str(&self.faults());
        body.push_str(&facts::options(self.run));
        body.push_str(&file_list(files));
        body.push_str(READOUT);
        page(name, &body)
    }

    fn banner(&self, name: &str) -> String {
        let mut out = format!("<h1>{}</h1>", safe(name, 200));
        let results = self.run.results.as_ref();
        let class = results.map_or("unknown", |results| match results.harness_error {
            Some(_) => "unknown",
            None => verdict_class(results.verdict),
        });
        put!(out, "<div class=\"banner {class}\"><p class=\"big\">");
        match results {
            None => out.push_str("? No results: nothing was judged"),
            Some(results) => match &results.harness_error {
                Some(error) => put!(
                    out,
                    "⚠ The harness failed: no verdict counts</p><p>{}",
                    safe(error, 2_000)
                ),
                None => put!(
                    out,
                    "{} — {}",
                    verdict_words(results.verdict),
                    expectation(results.as_expected, self.run)
                ),
            },
        }
        out.push_str("</p>");
        if results.is_some_and(|results| results.verdict == Verdict::Unknown) {
            out.push_str(
                "<p>Unknown is never a pass: too little was covered, or a budget ran out.</p>",
            );
        }
        if !self.clashes.is_empty() && results.is_some_and(|r| r.verdict == Verdict::Valid) {
            put!(
                out,
                "<p><b>But the holds of this run clash {}{} times, see the ownership plot.</b></p>",
                count(self.clashes.len()),
                if self.clashes.len() >= MAX_CLASHES {
                    " or more"
                } else {
                    ""
                }
            );
        }
        if let Some(test) = &self.run.test {
            put!(
                out,
                "<p>Run it again:</p><pre>{}</pre>",
                safe(&test.command, 4_000)
            );
        }
        out.push_str("</div>");
        if !self.run.notes.is_empty() {
            out.push_str("<p class=\"note\">");
            let notes: Vec<String> = self.run.notes.iter().map(|note| safe(note, 300)).collect();
            put!(out, "Files: {}.</p>", notes.join("; "));
        }
        out
    }

    fn checkers(&self, keys: &BTreeMap<String, String>) -> String {
        let mut out = String::from("<h2>What the checkers say</h2>");
        let mut outcomes: Vec<&Outcome> = self
            .run
            .results
            .iter()
            .flat_map(|results| &results.outcomes)
            .collect();
        if outcomes.is_empty() {
            out.push_str("<p class=\"note\">No checker has judged this run.</p>");
            return out;
        }
        outcomes.sort_by_key(|outcome| (std::cmp::Reverse(outcome.verdict), &outcome.checker));
        let found = outcomes.iter().any(|outcome| !outcome.findings.is_empty());
        put!(
            out,
            "<div class=\"wide\"><table><tr><th>verdict</th><th>checker</th><th{}>findings</th><th>counted</th></tr>",
            if found { " class=\"half\"" } else { "" }
        );
        for outcome in outcomes {
            put!(
                out,
                "<tr><td>{}</td><td class=\"w\">{}</td><td>",
                verdict(outcome.verdict),
                safe(&outcome.checker, 60)
            );
            let most = match outcome.verdict {
                Verdict::Valid => MAX_REMARKS,
                Verdict::Unknown | Verdict::Invalid => MAX_FINDINGS,
            };
            for finding in outcome.findings.iter().take(most) {
                out.push_str(&finding_line(finding, keys));
            }
            if outcome.findings.len() > most {
                put!(
                    out,
                    "<div class=\"muted\">and {} more in results.json</div>",
                    count(outcome.findings.len() - most)
                );
            }
            out.push_str("</td><td class=\"muted\">");
            let stats: Vec<String> = outcome
                .stats
                .iter()
                .take(40)
                .map(|(name, counted)| escape(&stat(name, counted)))
                .collect();
            out.push_str(&stats.join("; "));
            out.push_str("</td></tr>");
        }
        out.push_str("</table></div>");
        out
    }

    /// The first findings of what is invalid, each with the plot that shows it best.
    fn close_ups(&self) -> String {
        let mut out = String::new();
        let outcomes = self
            .run
            .results
            .iter()
            .flat_map(|results| &results.outcomes);
        let invalid = outcomes.filter(|outcome| outcome.verdict == Verdict::Invalid);
        let pairs = invalid.flat_map(|o| o.findings.iter().take(2).map(move |f| (o, f)));
        for (outcome, finding) in pairs.take(MAX_CLOSE_UPS) {
            let Some(window) = Window::around(self.run, finding) else {
                continue;
            };
            put!(
                out,
                "<h3>{}: {}</h3>",
                safe(&outcome.checker, 60),
                safe(&finding.what, 600)
            );
            if finding.ops.is_empty() {
                let title = "Ownership around this finding";
                let axis = window.axis;
                let run = self.run;
                out.push_str(&plot::ownership::draw(
                    title,
                    run,
                    self.clashes,
                    axis,
                    self.bands,
                ));
            } else {
                out.push_str(&timeline::draw(self.run, &window, self.bands));
            }
        }
        if out.is_empty() {
            return out;
        }
        format!(
            "<h2>Findings, close up</h2><p class=\"note\">Each has a time axis of its own; the line under the pointer is at the same time in all plots.</p><div class=\"plots\">{out}</div>"
        )
    }

    fn faults(&self) -> String {
        let faults = &self.run.faults;
        let mut out = format!("<h2>Faults: {}</h2>", count(faults.len()));
        if faults.is_empty() {
            return out;
        }
        let shown = faults.len().min(MAX_FAULTS);
        put!(out, "<details><summary>All in the order of time</summary>");
        if shown < faults.len() {
            put!(
                out,
                "<p class=\"note\">The first {}; faults.jsonl has all.</p>",
                count(shown)
            );
        }
        out.push_str("<div class=\"wide\"><table><tr><th class=\"n\">from</th><th class=\"n\">to</th><th>kind</th><th>mode</th><th>hosts</th><th>how it went</th><th>detail</th></tr>");
        for fault in faults.iter().take(shown) {
            let went = match &fault.installed {
                Installed::Installed => "in force".to_owned(),
                Installed::Skipped(why) => format!("skipped: {}", safe(why, 300)),
                Installed::Indeterminate(why) => format!("perhaps: {}", safe(why, 300)),
            };
            let to = match (fault.to_ns, &fault.installed) {
                (Some(to), _) => seconds(to),
                (None, Installed::Skipped(_)) => String::new(),
                (None, _) => "<b>never undone</b>".to_owned(),
            };
            put!(
                out,
                "<tr><td class=\"n\">{}</td><td class=\"n\">{to}</td><td>{}</td><td>{}</td><td>{}</td><td>{went}</td><td>{}</td></tr>",
                seconds(fault.from_ns),
                safe(&fault.kind, 60),
                safe(&fault.mode, 100),
                safe(&fault.hosts.join(", "), 200),
                safe(&fault.detail, 400)
            );
        }
        out.push_str("</table></div></details>");
        out
    }
}

fn expectation(as_expected: bool, run: &Run) -> &'static str {
    let must_fail = run.test.as_ref().is_some_and(|test| !test.expect_valid);
    match (as_expected, must_fail) {
        (true, false) => "as expected",
        (true, true) => "as expected: this run is meant to fail",
        (false, false) => "NOT as expected",
        (false, true) => "NOT as expected: this run is meant to fail",
    }
}

fn finding_line(finding: &Finding, keys: &BTreeMap<String, String>) -> String {
    let mut out = format!("<div>{}", safe(&finding.what, 1_000));
    if let Some((from, to)) = finding.time_ns {
        put!(
            out,
            " <span class=\"tag\">{} to {}</span>",
            seconds(from),
            seconds(to)
        );
    }
    if !finding.ops.is_empty() {
        let ops: Vec<String> = finding.ops.iter().take(8).map(u64::to_string).collect();
        let more = if finding.ops.len() > 8 { ", …" } else { "" };
        put!(
            out,
            " <span class=\"tag\">lines {}{more}</span>",
            ops.join(", ")
        );
    }
    if let Some(key) = &finding.key {
        let label = safe(key, 60);
        match keys.get(key) {
            Some(directory) => put!(
                out,
                " <a class=\"tag\" href=\"independent/{}/index.html\">key {label}: step by step</a>",
                component(directory)
            ),
            None => put!(out, " <span class=\"tag\">key {label}</span>"),
        }
    }
    out.push_str("</div>");
    out
}

/// A page for a run that has no report yet: one under way, or one that broke off.
pub(crate) fn without_report(dir: &Path) -> String {
    let body = format!(
        "<h1>A run without a report</h1><p class=\"banner\">It is under way, or it broke off: nothing was judged.</p>{}",
        file_list(&files(dir))
    );
    page("A run without a report", &body)
}

fn file_list(files: &[String]) -> String {
    let mut out = String::from("<h2>Files</h2><ul class=\"files\">");
    for file in files {
        let link: Vec<String> = file.split('/').map(component).collect();
        put!(
            out,
            "<li><a href=\"{}\">{}</a></li>",
            link.join("/"),
            safe(file, 80)
        );
    }
    out.push_str("</ul>");
    out
}

/// Files of the run and of its hosts, for links: not the page itself, nothing hidden, nothing
/// behind a symbolic link, and of data directories only their presence.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for (name, is_dir) in entries(dir) {
        if !is_dir {
            out.push(name);
            continue;
        }
        for (inner, inner_is_dir) in entries(&dir.join(&name)) {
            if !inner_is_dir {
                out.push(format!("{name}/{inner}"));
            } else if name == "independent" {
                out.push(format!("{name}/{inner}/index.html"));
            }
        }
    }
    out.sort();
    out.truncate(MAX_FILES);
    out
}

fn entries(dir: &Path) -> Vec<(String, bool)> {
    let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
    listed
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kind = entry.file_type().ok()?;
            let unwanted = name.starts_with('.') || name.ends_with(".new") || name == "index.html";
            (!unwanted && !kind.is_symlink()).then(|| (name, kind.is_dir()))
        })
        .collect()
}
