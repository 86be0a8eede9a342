//! Whether a history is one: a malformed history is a fault of the harness, never a verdict.

use std::collections::{HashMap, HashSet};

use super::{History, Kind};

/// The first thing that is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operation at index {index} (process {process}): {cause}")]
pub struct Malformed {
    /// Its `index`.
    pub index: u64,
    /// Its process.
    pub process: u64,
    /// What is wrong.
    pub cause: String,
}

/// Checks that indices have no gaps, that time never goes back, that a process has one operation
/// under way, ends what it began (same `f` and key), and does nothing after an `info`.
///
/// On an error the caller reports a failure of the harness.
pub fn validate(history: &History) -> Result<(), Malformed> {
    let mut open: HashMap<u64, usize> = HashMap::new();
    let mut retired: HashSet<u64> = HashSet::new();
    let mut before_ns = 0;
    for (at, op) in history.0.iter().enumerate() {
        let wrong = |cause: String| {
            Err(Malformed {
                index: op.index,
                process: op.process,
                cause,
            })
        };
        if op.index != at as u64 {
            return wrong(format!("stands at position {at}"));
        }
        if op.time < before_ns {
            return wrong(format!("is at {} ns, after one at {before_ns} ns", op.time));
        }
        before_ns = op.time;
        if retired.contains(&op.process) {
            return wrong("its process ended in an unknown outcome before".to_owned());
        }
        if op.kind == Kind::Invoke {
            if let Some(other) = open.insert(op.process, at) {
                return wrong(format!("the one at index {other} is still under way"));
            }
            continue;
        }
        let Some(begun) = open.remove(&op.process) else {
            return wrong("ends what was not begun".to_owned());
        };
        let begun = &history.0[begun];
        if begun.f != op.f || begun.key != op.key {
            return wrong(format!(
                "ends {} of {:?}, but {} of {:?} was under way",
                op.f, op.key, begun.f, begun.key
            ));
        }
        if op.kind == Kind::Info {
            retired.insert(op.process);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::Op;
    use super::*;

    fn op(index: u64, time: u64, process: u64, kind: Kind) -> Op {
        Op {
            index,
            time,
            process,
            kind,
            f: "read".to_owned(),
            key: None,
            value: Value::Null,
            node: None,
            epoch: None,
            error: None,
        }
    }

    fn cause(ops: Vec<Op>) -> String {
        validate(&History(ops)).unwrap_err().cause
    }

    #[test]
    fn a_good_history_passes() {
        let ops = vec![
            op(0, 0, 0, Kind::Invoke),
            op(1, 0, 1, Kind::Invoke),
            op(2, 5, 0, Kind::Ok),
            op(3, 6, 1, Kind::Info),
            op(4, 6, 0, Kind::Invoke),
        ];
        assert_eq!(validate(&History(ops)), Ok(()));
    }

    #[test]
    fn each_fault_is_told() {
        assert!(cause(vec![op(1, 0, 0, Kind::Invoke)]).contains("position 0"));
        assert!(
            cause(vec![op(0, 9, 0, Kind::Invoke), op(1, 8, 0, Kind::Ok)])
                .contains("after one at 9")
        );
        assert!(
            cause(vec![op(0, 0, 0, Kind::Invoke), op(1, 0, 0, Kind::Invoke)])
                .contains("still under way")
        );
        assert!(cause(vec![op(0, 0, 0, Kind::Ok)]).contains("not begun"));
        let reused = vec![
            op(0, 0, 0, Kind::Invoke),
            op(1, 0, 0, Kind::Info),
            op(2, 0, 0, Kind::Invoke),
        ];
        assert!(cause(reused).contains("unknown outcome before"));
        let mut other = op(1, 0, 0, Kind::Ok);
        other.f = "write".to_owned();
        assert!(cause(vec![op(0, 0, 0, Kind::Invoke), other]).contains("was under way"));
    }
}
