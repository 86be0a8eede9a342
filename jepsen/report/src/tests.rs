//! What the report of a run promises.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::testing;

const PLOTS: [&str; 7] = [
    "faults.svg",
    "ownership.svg",
    "availability.svg",
    "rate.svg",
    "latency-raw.svg",
    "latency-quantiles.svg",
    "clock-skew.svg",
];

fn reported(made: &testing::Made) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path());
    crate::write(dir.path()).unwrap();
    dir
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

fn all_files(dir: &Path, under: &str, out: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{under}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            all_files(&entry.path(), &format!("{name}/"), out);
        } else {
            out.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

/// The drawings within a page, which must be as well-formed as those of their own.
fn drawings(page: &str) -> Vec<&str> {
    page.split("<svg class=\"plot\"")
        .skip(1)
        .map(|rest| rest.split("</svg>").next().unwrap())
        .collect()
}

fn assert_well_formed(dir: &Path) {
    for name in PLOTS {
        let text = read(dir, name);
        if let Err(error) = roxmltree::Document::parse(&text) {
            panic!("{name}: {error}");
        }
    }
    for page in ["index.html", "timeline.html", "ownership.html"] {
        for drawing in drawings(&read(dir, page)) {
            let text = format!("<svg class=\"plot\"{drawing}</svg>");
            if let Err(error) = roxmltree::Document::parse(&text) {
                panic!("a drawing in {page}: {error}");
            }
        }
    }
}

#[test]
fn a_valid_run_shows_its_verdict_its_command_and_every_plot() {
    let dir = reported(&testing::valid(1, 20_000));
    assert_well_formed(dir.path());
    let index = read(dir.path(), "index.html");
    assert!(index.contains("✔ valid — as expected"));
    assert!(index.contains("--seed 1</pre>"));
    assert_eq!(drawings(&index).len(), PLOTS.len());
    for name in PLOTS {
        assert!(
            index.contains(&format!("<a href=\"{name}\">")),
            "{name} is linked"
        );
    }
    assert!(!dir.path().join("independent").exists());
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let made = testing::stale_read(7);
    let (one, two) = (reported(&made), reported(&made));
    crate::write(two.path()).unwrap();
    let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
    all_files(one.path(), "", &mut first);
    all_files(two.path(), "", &mut second);
    assert!(
        first == second,
        "{:?} and {:?}",
        first.keys(),
        second.keys()
    );
}

#[test]
fn all_plots_of_a_run_have_one_time_axis() {
    let dir = reported(&testing::valid(2, 2_000));
    let mut axes = std::collections::BTreeSet::new();
    for name in PLOTS {
        let text = read(dir.path(), name);
        let document = roxmltree::Document::parse(&text).unwrap();
        let root = document.root_element();
        let of = |name: &str| root.attribute(name).unwrap().to_owned();
        axes.insert(["width", "data-left", "data-right", "data-from", "data-to"].map(of));
    }
    assert_eq!(axes.len(), 1, "{axes:?}");
}

#[test]
fn a_kind_of_fault_has_one_colour_in_all_plots_and_a_legend() {
    let dir = reported(&testing::valid(3, 2_000));
    for name in PLOTS.iter().filter(|name| **name != "faults.svg") {
        let text = read(dir.path(), name);
        assert!(
            text.contains(">fault: partition</text>"),
            "{name} has a legend"
        );
        assert!(text.contains("<rect class=\"band f2\""), "{name} has bands");
    }
}

#[test]
fn an_overlap_is_drawn_over_the_slice_and_close_up() {
    let dir = reported(&testing::overlapping(4));
    assert_well_formed(dir.path());
    let ownership = read(dir.path(), "ownership.svg");
    assert!(ownership.contains("two holders at once: 1</text>"));
    assert!(ownership.contains("both held it for 120.0 ms"));
    let index = read(dir.path(), "index.html");
    assert!(index.contains("✘ invalid — NOT as expected"));
    assert!(index.contains("Findings, close up"));
    assert_eq!(drawings(&index).len(), PLOTS.len() + 1);
}

#[test]
fn an_overlap_that_no_checker_reported_is_told() {
    let mut made = testing::overlapping(4);
    made.results.verdict = leasehold_checkers::Verdict::Valid;
    let dir = reported(&made);
    assert!(read(dir.path(), "index.html").contains("But the holds of this run clash 1 times"));
}

#[test]
fn a_failing_key_has_a_page_that_explains_the_window() {
    let dir = reported(&testing::stale_read(5));
    let index = read(dir.path(), "index.html");
    assert!(index.contains("as expected: this run is meant to fail"));
    assert!(index.contains("href=\"independent/k7/index.html\""));
    let page = read(dir.path(), "independent/k7/index.html");
    assert!(page.contains("process 904: read → 71 of key k7"));
    assert!(page.contains("begun after step 1, 2, 3 had ended; at the same time as step 4"));
    assert!(page.contains("<tr class=\"hit\">"));
    let history = read(dir.path(), "independent/k7/history.jsonl");
    assert!(history.lines().all(|line| line.contains("\"key\":\"k7\"")));
    assert!(history.lines().count() >= 10);
}

#[test]
fn a_page_of_a_key_without_findings_goes_when_the_report_is_made_anew() {
    let mut made = testing::stale_read(5);
    let dir = reported(&made);
    made.results.outcomes[0].findings.clear();
    made.write(dir.path());
    crate::write(dir.path()).unwrap();
    assert!(!dir.path().join("independent").exists());
}

#[test]
fn an_empty_directory_gives_pages_that_say_so() {
    let dir = tempfile::tempdir().unwrap();
    crate::write(dir.path()).unwrap();
    assert_well_formed(dir.path());
    let index = read(dir.path(), "index.html");
    for words in [
        "No results",
        "history.jsonl is missing",
        "no operation was seen",
    ] {
        assert!(index.contains(words), "{words}");
    }
    assert!(read(dir.path(), "timeline.html").contains("empty or missing"));
}

#[test]
fn damaged_files_give_pages_that_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let made = testing::valid(6, 100);
    made.write(dir.path());
    let mut history = read(dir.path(), "history.jsonl");
    history.push_str("{\"index\":1\n\u{0}\n{\"index\":9999,\"time\":18446744073709551615,\"process\":3,\"type\":\"ok\",\"f\":\"read\"}\n");
    fs::write(dir.path().join("history.jsonl"), history).unwrap();
    fs::write(dir.path().join("results.json"), "{").unwrap();
    fs::write(dir.path().join("holds.jsonl"), [0xff, 0xfe, b'\n']).unwrap();
    crate::write(dir.path()).unwrap();
    assert_well_formed(dir.path());
    let index = read(dir.path(), "index.html");
    for words in [
        "history.jsonl: 2 damaged lines",
        "history.jsonl: 1 lines do not fit",
        "results.json cannot be read",
        "holds.jsonl: 1 damaged lines",
    ] {
        assert!(index.contains(words), "{words}");
    }
}

#[test]
fn times_at_the_end_of_the_world_are_no_harm() {
    let mut made = testing::valid(8, 100);
    made.holds[0].to_ns = u64::MAX;
    made.holds[1].from_ns = u64::MAX;
    made.faults[0].from_ns = u64::MAX;
    made.faults[1].to_ns = Some(u64::MAX);
    made.clocks[0].time_ns = u64::MAX;
    made.clocks[0].lease_offset_ns = i64::MIN;
    made.clocks[1].wall_offset_ns = i64::MAX;
    made.ops[0].time = u64::MAX;
    made.results.outcomes[0]
        .findings
        .push(leasehold_checkers::Finding {
            what: "far away".to_owned(),
            ops: vec![u64::MAX],
            time_ns: Some((u64::MAX, 0)),
            key: None,
        });
    made.results.outcomes[0].verdict = leasehold_checkers::Verdict::Invalid;
    assert_well_formed(reported(&made).path());
}

#[test]
fn hostile_names_are_text_and_nothing_else() {
    let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>]]>\u{0}\u{8}\u{202e}";
    let mut made = testing::stale_read(9);
    made.test.name = evil.to_owned();
    made.test.command = evil.to_owned();
    made.test.options.insert(evil.to_owned(), evil.into());
    for op in &mut made.ops {
        op.f = evil.to_owned();
        op.error = Some(evil.to_owned());
        op.value = evil.into();
        op.key = Some(format!("../../../{evil}"));
        op.node = Some(evil.to_owned());
    }
    for fault in &mut made.faults {
        fault.kind = format!("{evil}{}", fault.kind);
        fault.mode = evil.to_owned();
        fault.hosts = vec![evil.to_owned()];
        fault.detail = evil.to_owned();
    }
    for hold in &mut made.holds {
        hold.pod = format!("{evil}{}", hold.pod);
        hold.first = format!("{evil}{}", hold.first);
    }
    for sample in &mut made.clocks {
        sample.host = format!("{evil}{}", sample.host);
    }
    for outcome in &mut made.results.outcomes {
        outcome.checker = format!("{evil}{}", outcome.checker);
        outcome.stats.insert(evil.to_owned(), evil.into());
        for finding in &mut outcome.findings {
            finding.what = evil.to_owned();
            finding.key = Some(format!("../../../{evil}"));
        }
    }
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("a/b/c/d");
    made.write(&dir);
    crate::write(&dir).unwrap();
    assert_well_formed(&dir);
    let mut files = BTreeMap::new();
    all_files(outer.path(), "", &mut files);
    for (name, bytes) in files {
        assert!(name.starts_with("a/b/c/d/"), "{name} lies elsewhere");
        let text = String::from_utf8(bytes).unwrap();
        let report = name.ends_with(".html") || name.ends_with(".svg");
        assert!(!report || !text.contains("<img"), "{name}");
        assert!(!report || !text.contains("<script>alert"), "{name}");
        assert!(!report || !text.contains("\u{202e}"), "{name}");
    }
}

#[test]
fn pages_have_no_style_or_script_that_their_policy_forbids() {
    let dir = reported(&testing::stale_read(10));
    for name in ["index.html", "timeline.html", "independent/k7/index.html"] {
        let page = read(dir.path(), name);
        assert!(!page.contains(" style=\""), "{name}");
        assert!(!page.contains(" onclick="), "{name}");
        assert_eq!(page.matches("<script").count(), 1, "{name}");
        assert_eq!(page.matches("<style").count(), 1, "{name}");
        assert!(
            !page.contains("http://")
                || page.matches("http://").count()
                    == page.matches("http://www.w3.org/2000/svg").count()
        );
    }
}

#[test]
fn a_history_of_200_000_operations_gives_files_of_bounded_size_that_say_what_they_leave_out() {
    let mut made = testing::valid(11, 200_000);
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(11);
    made.holds = testing::holds(&mut rng, 200, 1_500);
    let dir = reported(&made);
    assert_well_formed(dir.path());
    for name in PLOTS {
        let size = fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size < 2_500_000, "{name} has {size} bytes");
    }
    for page in ["index.html", "timeline.html", "ownership.html"] {
        let size = fs::metadata(dir.path().join(page)).unwrap().len();
        assert!(size < 6_000_000, "{page} has {size} bytes");
    }
    assert!(read(dir.path(), "latency-raw.svg").contains("marks for 200,000 operations"));
    assert!(
        read(dir.path(), "timeline.html").contains("The run has 200,000 operations; shown are")
    );
    assert!(read(dir.path(), "ownership.svg").contains("64 of 200 slices"));
}

/// Writes example runs to the directory that `LEASEHOLD_REPORT_EXAMPLES` names, for eyes.
#[test]
fn example_runs_can_be_had_for_eyes() {
    let Ok(root) = std::env::var("LEASEHOLD_REPORT_EXAMPLES") else {
        return;
    };
    let root = Path::new(&root);
    for (name, made) in [
        ("valid", testing::valid(1, 20_000)),
        ("short", testing::valid(2, 600)),
        ("overlap", testing::overlapping(3)),
        ("stale-read", testing::stale_read(4)),
        ("long", testing::valid(5, 200_000)),
    ] {
        let dir = root.join(name).join("20261120T100000.000Z");
        made.write(&dir);
        crate::write(&dir).unwrap();
    }
    let mut many = testing::valid(6, 2_000);
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(6);
    many.holds = testing::holds(&mut rng, 200, 1_500);
    let dir = root.join("many-slices").join("20261120T100000.000Z");
    many.write(&dir);
    crate::write(&dir).unwrap();
    let dir = root.join("empty").join("20261120T110000.000Z");
    fs::create_dir_all(&dir).unwrap();
    crate::write(&dir).unwrap();
}
