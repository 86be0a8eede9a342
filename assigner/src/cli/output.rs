//! Printing: a report as a table or as JSON, a failure as one line.

use std::io::{IsTerminal, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::Failure;
use super::{Global, Output};

/// An answer that prints both ways. Its serialised form is the documented JSON.
pub trait Report: Serialize {
    /// The answer for people, without a line end behind.
    fn human(&self) -> String;
}

/// Prints a report to standard output.
pub fn emit(global: &Global, report: &impl Report) -> Result<(), Failure> {
    let text = match global.output {
        Output::Table => embolden(report.human()),
        Output::Json => json(report)?,
    };
    print_line(&text)
}

/// The JSON of a report.
pub fn json(report: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(report)
        .map_err(|error| Failure::negative(format!("cannot print the answer: {error}")))
}

/// Prints a text and a line end. A reader that has gone (`| head`) has seen what it wanted.
pub fn print_line(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::negative(
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Prints a failure to standard error: one line, or an object where JSON is wanted.
pub fn complain(global: &Global, failure: &Failure) {
    let text = match global.output {
        Output::Table if colour(&std::io::stderr()) => format!("\x1b[1;31merror\x1b[0m: {failure}"),
        Output::Table => format!("error: {failure}"),
        Output::Json => {
            serde_json::json!({ "error": failure.to_string(), "kind": failure.kind().name() })
                .to_string()
        }
    };
    // Nobody is left to be told when this fails.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether a stream may be coloured: a terminal, and the user has not said otherwise.
fn colour(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Heads of tables in bold, where that shows.
fn embolden(text: String) -> String {
    if !colour(&std::io::stdout()) {
        return text;
    }
    let head = |line: &str| {
        let mut letters = line
            .chars()
            .filter(|letter| letter.is_alphabetic())
            .peekable();
        letters.peek().is_some() && letters.all(char::is_uppercase)
    };
    let bold = |line| {
        if head(line) {
            format!("\x1b[1m{line}\x1b[0m")
        } else {
            line.to_owned()
        }
    };
    text.lines().map(bold).collect::<Vec<_>>().join("\n")
}

/// A change that was made: a line for people, and its facts for programs.
#[derive(Serialize)]
pub struct Done {
    done: String,
    #[serde(flatten)]
    facts: Map<String, Value>,
}

impl Done {
    /// A change in words.
    pub fn new(done: impl Into<String>) -> Self {
        Self {
            done: done.into(),
            facts: Map::new(),
        }
    }

    /// What it changed, for programs.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

impl Report for Done {
    fn human(&self) -> String {
        self.done.clone()
    }
}
