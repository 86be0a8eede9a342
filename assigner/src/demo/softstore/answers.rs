//! The log of a client: how each request ended, in records of one size, so that every figure is
//! computed afterwards from what really happened.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// A read that a cache answered.
    Hit,
    /// A read for which the backing store was asked.
    Miss,
    /// A write that was acknowledged.
    Written,
    /// Not answered, or not in time.
    Failed,
    /// A read that was answered with something older than the client knew already.
    Stale,
    /// A read that was answered with bytes that nobody ever wrote.
    Wrong,
    /// No ending: ownership was lost while the request was served, and it was made again.
    Repeated,
}

const ENDINGS: [Ending; 7] = [
    Ending::Hit,
    Ending::Miss,
    Ending::Written,
    Ending::Failed,
    Ending::Stale,
    Ending::Wrong,
    Ending::Repeated,
];

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was due to be sent (open loop), on the host's lease clock.
    pub due_ns: u64,
    /// When it had ended.
    pub end_ns: u64,
    /// How.
    pub ending: Ending,
}

impl Answer {
    /// From when it was due to its end.
    pub fn ms(&self) -> f64 {
        self.end_ns.saturating_sub(self.due_ns) as f64 / 1e6
    }
}

const RECORD_BYTES: usize = 17;

/// Writes a log.
pub struct AnswerLog(BufWriter<File>);

impl AnswerLog {
    /// Creates the log at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::with_capacity(1 << 16, File::create(path)?)))
    }

    /// Appends one request.
    pub fn write(&mut self, answer: Answer) -> io::Result<()> {
        self.0.write_all(&answer.due_ns.to_le_bytes())?;
        self.0.write_all(&answer.end_ns.to_le_bytes())?;
        self.0.write_all(&[answer.ending as u8])
    }

    /// Writes out what is buffered.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Reads a whole log.
pub fn read(path: &Path) -> anyhow::Result<Vec<Answer>> {
    let bytes = std::fs::read(path)?;
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    anyhow::ensure!(rest.is_empty(), "{} is cut short", path.display());
    let answer = |record: &[u8; RECORD_BYTES]| {
        let (due_ns, rest) = record.split_first_chunk()?;
        let (end_ns, rest) = rest.split_first_chunk()?;
        Some(Answer {
            due_ns: u64::from_le_bytes(*due_ns),
            end_ns: u64::from_le_bytes(*end_ns),
            ending: *ENDINGS.get(usize::from(*rest.first()?))?,
        })
    };
    let answers: Option<Vec<Answer>> = records.iter().map(answer).collect();
    answers.ok_or_else(|| anyhow::anyhow!("{} holds an unknown ending", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers");
        let answer = |(number, ending)| Answer {
            due_ns: number as u64,
            end_ns: u64::MAX - number as u64,
            ending,
        };
        let all: Vec<Answer> = ENDINGS.into_iter().enumerate().map(answer).collect();
        let mut log = AnswerLog::create(&path).unwrap();
        all.iter().for_each(|answer| log.write(*answer).unwrap());
        log.finish().unwrap();
        assert_eq!(read(&path).unwrap(), all);
    }
}
