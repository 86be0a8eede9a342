//! Nodes must not panic or log errors, whatever is done to them: a fault is no surprise.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use crate::verdict::{Finding, Outcome};

const NAME: &str = "logs";

/// No more of a line than this is looked at.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// A log file of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Whose.
    pub node: String,
    /// Where.
    pub path: PathBuf,
}

/// Judges logs: a line that tells of a panic, or is of level `ERROR`, is invalid, unless it contains
/// one of `allowed` (which a workload says why). A log that cannot be read, or none, is unknown.
pub fn check(logs: &[Log], allowed: &[String]) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let mut lines = 0u64;
    for log in logs {
        let file = match File::open(&log.path) {
            Ok(file) => file,
            Err(error) => {
                let what = format!("the log of {} cannot be read: {error}", log.node);
                outcome.unknown(Finding::new(what));
                continue;
            }
        };
        if let Err(error) = judge(&log.node, file, allowed, &mut lines, &mut outcome) {
            let what = format!("the log of {} cannot be read: {error}", log.node);
            outcome.unknown(Finding::new(what));
        }
    }
    if logs.is_empty() {
        outcome.unknown(Finding::new("there are no logs"));
    }
    outcome.count("logs", logs.len());
    outcome.count("lines", lines);
    outcome
}

fn judge(
    node: &str,
    file: File,
    allowed: &[String],
    lines: &mut u64,
    outcome: &mut Outcome,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    // What is longer is judged in pieces.
    while {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_LINE_BYTES);
        bounded.read_until(b'\n', &mut line)? > 0
    } {
        *lines += 1;
        let text = String::from_utf8_lossy(&line);
        let text = without_colours(text.trim_end());
        if is_bad(&text) && !allowed.iter().any(|part| text.contains(part.as_str())) {
            let shown: String = text.chars().take(300).collect();
            outcome.invalid(Finding::new(format!("{node} logged: {shown}")));
        }
    }
    Ok(())
}

fn is_bad(line: &str) -> bool {
    let is_panic = line.contains("panicked at") || line.contains("stack backtrace:");
    is_panic
        || line
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .take(12)
            .any(|word| word == "ERROR" || word == "FATAL")
}

/// Terminals' colour codes hide the word they colour.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split("\u{1b}[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        plain.push_str(end.map_or("", |end| &part[end + 1..]));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;

    fn judged(text: &str, allowed: &[&str]) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a1.log");
        std::fs::write(&path, text).unwrap();
        let allowed: Vec<String> = allowed.iter().map(|part| (*part).to_owned()).collect();
        let node = "a1".to_owned();
        check(&[Log { node, path }], &allowed)
    }

    #[test]
    fn ordinary_lines_are_valid() {
        let text = "2026-01-01T00:00:00.1Z  INFO assigner: leader now\n 1 WARN no ERRORS yet\n";
        let outcome = judged(text, &[]);
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["lines"], 2);
    }

    #[test]
    fn panics_and_errors_are_found_even_in_colour() {
        for text in [
            "thread 'main' panicked at src/main.rs:1:1:\n",
            "2026-01-01T00:00:00.1Z ERROR assigner: it is broken\n",
            "\u{1b}[2m2026-01-01T00:00:00.1Z\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m assigner: broken\n",
            "{\"level\":\"ERROR\",\"message\":\"broken\"}",
        ] {
            let outcome = judged(text, &[]);
            assert_eq!(outcome.verdict, Verdict::Invalid, "{text}");
            assert!(outcome.findings[0].what.starts_with("a1 logged: "));
        }
    }

    #[test]
    fn what_is_allowed_does_not_count() {
        let text = "ERROR raft: No space left on device\n";
        assert_eq!(judged(text, &["No space left"]).verdict, Verdict::Valid);
    }

    #[test]
    fn a_log_that_is_not_there_is_unknown() {
        let log = Log {
            node: "a1".to_owned(),
            path: PathBuf::from("not/there.log"),
        };
        assert_eq!(check(&[log], &[]).verdict, Verdict::Unknown);
        assert_eq!(check(&[], &[]).verdict, Verdict::Unknown);
    }
}
