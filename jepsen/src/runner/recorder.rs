//! Writes the history while it happens: whole lines, in the order of true time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use leasehold_checkers::{Kind, Op};
use parking_lot::Mutex;

use crate::system::{Completion, Invocation};
use leasehold_faults::TrueTime;

/// How operations of one kind ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Begun.
    pub invoked: u64,
    /// Took effect.
    pub ok: u64,
    /// Certainly took no effect.
    pub fail: u64,
    /// May have taken effect.
    pub info: u64,
}

impl Counts {
    /// Of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            invoked: self.invoked + other.invoked,
            ok: self.ok + other.ok,
            fail: self.fail + other.fail,
            info: self.info + other.info,
        }
    }
}

/// The one writer of a history. Index and time of a line are taken under one lock, so that the
/// order of lines is the order of time. Each line is one write to the file: if the harness dies,
/// the lines before stand whole.
pub struct Recorder {
    origin: TrueTime,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    index: u64,
    counts: BTreeMap<String, Counts>,
}

impl Recorder {
    /// A history in a new file.
    ///
    /// # Errors
    ///
    /// The file exists already or cannot be made.
    pub fn create(path: &Path, origin: TrueTime) -> std::io::Result<Self> {
        Ok(Self {
            origin,
            inner: Mutex::new(Inner {
                file: File::create_new(path)?,
                index: 0,
                counts: BTreeMap::new(),
            }),
        })
    }

    /// Writes that an operation begins. To be called before anything of it is sent.
    ///
    /// # Errors
    ///
    /// The line could not be written: the operation must not be sent, and the run has failed.
    pub fn invoked(&self, process: u64, invocation: &Invocation) -> std::io::Result<()> {
        let op = Op {
            index: 0,
            time: 0,
            process,
            kind: Kind::Invoke,
            f: invocation.f.clone(),
            key: invocation.key.clone(),
            value: invocation.value.clone(),
            node: None,
            epoch: None,
            error: None,
        };
        self.write(op)
    }

    /// Writes how an operation ended. To be called after all of its answer has arrived.
    ///
    /// # Errors
    ///
    /// The line could not be written: the run has failed.
    pub fn ended(
        &self,
        process: u64,
        invocation: &Invocation,
        completion: &Completion,
    ) -> std::io::Result<()> {
        let mut op = Op {
            index: 0,
            time: 0,
            process,
            kind: Kind::Info,
            f: invocation.f.clone(),
            key: invocation.key.clone(),
            value: invocation.value.clone(),
            node: None,
            epoch: None,
            error: None,
        };
        match completion {
            Completion::Ok { value, node, epoch } => {
                op.kind = Kind::Ok;
                op.value = value.clone();
                op.node = node.clone();
                op.epoch = *epoch;
            }
            Completion::Fail(why) => {
                op.kind = Kind::Fail;
                op.error = Some(why.clone());
            }
            Completion::Unknown(why) => op.error = Some(why.clone()),
        }
        self.write(op)
    }

    /// How the operations of each kind have ended so far.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        self.inner.lock().counts.clone()
    }

    /// How all operations have ended so far.
    pub fn total(&self) -> Counts {
        let inner = self.inner.lock();
        inner
            .counts
            .values()
            .fold(Counts::default(), |sum, counts| sum.plus(*counts))
    }

    fn write(&self, mut op: Op) -> std::io::Result<()> {
        let mut inner = self.inner.lock();
        op.index = inner.index;
        op.time = self.origin.elapsed_ns();
        let mut line = serde_json::to_vec(&op)?;
        line.push(b'\n');
        inner.file.write_all(&line)?;
        inner.index += 1;
        let counts = inner.counts.entry(op.f).or_default();
        match op.kind {
            Kind::Invoke => counts.invoked += 1,
            Kind::Ok => counts.ok += 1,
            Kind::Fail => counts.fail += 1,
            Kind::Info => counts.info += 1,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn write(value: Value) -> Invocation {
        Invocation {
            f: "write".into(),
            key: Some("k".into()),
            value,
            deadline: Duration::from_secs(1),
        }
    }

    #[test]
    fn lines_are_whole_numbered_and_in_the_order_of_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let recorder = Recorder::create(&path, TrueTime::now()).unwrap();
        let invocation = write(json!(7));
        recorder.invoked(3, &invocation).unwrap();
        // What is written so far is in the file before the operation could be sent.
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        let ended = Completion::Ok {
            value: json!({"version": 2}),
            node: Some("p1".into()),
            epoch: Some(9),
        };
        recorder.ended(3, &invocation, &ended).unwrap();
        recorder.invoked(4, &invocation).unwrap();
        let unknown = Completion::Unknown("timed out".into());
        recorder.ended(4, &invocation, &unknown).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let ops: Vec<Op> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            ops.iter().map(|op| op.index).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        assert!(ops.windows(2).all(|pair| pair[0].time <= pair[1].time));
        assert_eq!(
            ops.iter().map(|op| op.kind).collect::<Vec<_>>(),
            [Kind::Invoke, Kind::Ok, Kind::Invoke, Kind::Info]
        );
        assert_eq!(ops[1].epoch, Some(9));
        assert_eq!(ops[3].error.as_deref(), Some("timed out"));
        let counts = recorder.total();
        assert_eq!((counts.invoked, counts.ok, counts.info), (2, 1, 1));
    }

    #[test]
    fn a_history_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        Recorder::create(&path, TrueTime::now()).unwrap();
        assert!(Recorder::create(&path, TrueTime::now()).is_err());
    }
}
