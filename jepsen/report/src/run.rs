//! A run as its files tell it. What is missing, damaged or too long is noted, never an error.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use leasehold_checkers::run::{ClockSample, Fault, Hold, Results, Test};
use leasehold_checkers::{Kind, Op};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::axis::TimeAxis;
use crate::text;

/// Lines read of one file of lines; the rest is left out, and the page says so.
const MAX_LINES: usize = 2_000_000;
/// Bytes of one line; a longer one counts as damaged.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Bytes read of `test.json` or `results.json`.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// A time later than this is damage, not a run: thirty days.
const MAX_TIME_NS: u64 = 30 * 86_400 * 1_000_000_000;

/// One operation: its beginning and, if it was seen, its end.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// Who did it.
    pub process: u64,
    /// What it was.
    pub f: Arc<str>,
    /// What it was about.
    pub key: Option<Arc<str>>,
    /// `index` of its first line.
    pub index: u64,
    /// When it began.
    pub from_ns: u64,
    /// `index` and time of its last line, unless it was still open when the history ended.
    pub end: Option<(u64, u64)>,
    /// How it ended; [`Kind::Info`] when it did not.
    pub outcome: Kind,
    /// Its argument.
    pub argument: Value,
    /// Its result.
    pub result: Value,
    /// Who answered.
    pub node: Option<Arc<str>>,
    /// Under which fencing token.
    pub epoch: Option<u64>,
    /// Why it failed or is unknown.
    pub error: Option<String>,
}

impl Operation {
    /// How long it took, if it ended.
    pub fn latency_ns(&self) -> Option<u64> {
        self.end.map(|(_, at)| at.saturating_sub(self.from_ns))
    }

    /// Whether one of its lines is among these, by index.
    pub fn is_among(&self, indices: &BTreeSet<u64>) -> bool {
        let has = |index: u64| indices.contains(&index);
        has(self.index) || self.end.is_some_and(|(end, _)| has(end))
    }
}

/// Everything that the report is made from.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// What was run.
    pub test: Option<Test>,
    /// What the checkers said.
    pub results: Option<Results>,
    /// In the order in which they began.
    pub operations: Vec<Operation>,
    /// What was done to the system.
    pub faults: Vec<Fault>,
    /// Who held what.
    pub holds: Vec<Hold>,
    /// How the clocks stood.
    pub clocks: Vec<ClockSample>,
    /// What is missing, damaged or left out.
    pub notes: Vec<String>,
    /// The last time that anything happened.
    pub end_ns: u64,
}

impl Run {
    /// Reads what there is in `dir`.
    pub fn read(dir: &Path) -> Self {
        let mut run = Self::default();
        let notes = &mut run.notes;
        run.test = document(dir, "test.json", notes);
        run.results = document(dir, "results.json", notes);
        let ops = lines::<Op>(dir, "history.jsonl", notes);
        run.faults = lines(dir, "faults.jsonl", notes);
        run.holds = lines(dir, "holds.jsonl", notes);
        run.clocks = lines(dir, "clocks.jsonl", notes);
        run.operations = pair(ops, notes);
        if run
            .test
            .as_ref()
            .is_some_and(|test| test.nemeses.iter().all(|name| name == "none"))
        {
            // Without faults asked for there is no file of them.
            notes.retain(|note| note != "faults.jsonl is missing");
        }
        run.faults.sort_by_key(|fault| fault.from_ns);
        run.holds.sort_by_key(|hold| (hold.from_ns, hold.to_ns));
        run.clocks.sort_by_key(|sample| sample.time_ns);
        run.end_ns = run.last_time();
        run
    }

    /// The axis of the whole run.
    pub fn axis(&self) -> TimeAxis {
        TimeAxis::new(0, self.end_ns.max(1_000_000))
    }

    /// How many operations ended so.
    pub fn ended(&self, outcome: Kind) -> usize {
        let same = |operation: &&Operation| operation.outcome == outcome;
        self.operations.iter().filter(same).count()
    }

    fn last_time(&self) -> u64 {
        let operations = self
            .operations
            .iter()
            .map(|o| o.end.map_or(o.from_ns, |e| e.1));
        let faults = self.faults.iter().map(|f| f.to_ns.unwrap_or(f.from_ns));
        let holds = self.holds.iter().map(|h| h.to_ns);
        let clocks = self.clocks.iter().map(|c| c.time_ns);
        operations
            .chain(faults)
            .chain(holds)
            .chain(clocks)
            .filter(|at| *at <= MAX_TIME_NS)
            .max()
            .unwrap_or(0)
    }
}

/// One JSON document of a run, if it can be had.
pub(crate) fn document<T: DeserializeOwned>(
    dir: &Path,
    name: &str,
    notes: &mut Vec<String>,
) -> Option<T> {
    let Ok(file) = File::open(dir.join(name)) else {
        notes.push(format!("{name} is missing"));
        return None;
    };
    match serde_json::from_reader(BufReader::new(file.take(MAX_JSON_BYTES))) {
        Ok(document) => Some(document),
        Err(error) => {
            notes.push(format!("{name} cannot be read: {error}"));
            None
        }
    }
}

fn lines<T: DeserializeOwned>(dir: &Path, name: &str, notes: &mut Vec<String>) -> Vec<T> {
    let Ok(file) = File::open(dir.join(name)) else {
        notes.push(format!("{name} is missing"));
        return Vec::new();
    };
    let mut reader = BufReader::new(file);
    let mut found = Vec::new();
    let mut damaged = 0usize;
    let mut line = Vec::new();
    for read in 0.. {
        line.clear();
        match reader
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
        {
            Ok(0) => break,
            Ok(_) if read >= MAX_LINES => {
                let most = text::count(MAX_LINES);
                notes.push(format!(
                    "{name} is long: only its first {most} lines are shown"
                ));
                break;
            }
            Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            Ok(_) => match serde_json::from_slice(&line) {
                Ok(item) => found.push(item),
                Err(_) => damaged += 1,
            },
            Err(error) => {
                notes.push(format!("{name} cannot be read to its end: {error}"));
                break;
            }
        }
    }
    if damaged > 0 {
        notes.push(format!(
            "{name}: {} damaged lines are left out",
            text::count(damaged)
        ));
    }
    found
}

/// Puts beginnings and ends together.
fn pair(ops: Vec<Op>, notes: &mut Vec<String>) -> Vec<Operation> {
    let mut names: HashMap<String, Arc<str>> = HashMap::new();
    let mut intern = |name: String| {
        let shared = names
            .entry(name)
            .or_insert_with_key(|name| Arc::from(name.as_str()));
        Arc::clone(shared)
    };
    let mut open: HashMap<u64, usize> = HashMap::new();
    let mut operations: Vec<Operation> = Vec::with_capacity(ops.len() / 2);
    let mut stray = 0usize;
    for op in ops {
        if op.kind == Kind::Invoke {
            stray += usize::from(open.insert(op.process, operations.len()).is_some());
            operations.push(Operation {
                process: op.process,
                f: intern(op.f),
                key: op.key.map(&mut intern),
                index: op.index,
                from_ns: op.time.min(MAX_TIME_NS),
                end: None,
                outcome: Kind::Info,
                argument: op.value,
                result: Value::Null,
                node: None,
                epoch: None,
                error: None,
            });
            continue;
        }
        let begun = open
            .remove(&op.process)
            .and_then(|at| operations.get_mut(at));
        let Some(operation) = begun else {
            stray += 1;
            continue;
        };
        operation.end = Some((op.index, op.time.min(MAX_TIME_NS).max(operation.from_ns)));
        operation.outcome = op.kind;
        operation.result = op.value;
        operation.node = op.node.map(&mut intern);
        operation.epoch = op.epoch;
        operation.error = op.error;
    }
    if stray > 0 {
        let stray = text::count(stray);
        notes.push(format!(
            "history.jsonl: {stray} lines do not fit the one before of their process"
        ));
    }
    operations
}
