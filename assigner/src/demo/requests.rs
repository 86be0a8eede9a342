//! The request log of a load client, and what it says about availability.
//!
//! Fixed-size records, one a request, so that a run of some minutes stays small and every figure is
//! computed afterwards from what really happened.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use leasehold_proto::SliceKey;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Answered.
    Ok,
    /// Answered, but the value that was acknowledged before is gone, with the pod that had it.
    Lost,
    /// Answered with a value older than one that was acknowledged before: wrong.
    Stale,
    /// Certainly not carried out.
    Failed,
    /// Perhaps carried out.
    Unknown,
}

const ENDINGS: [Ending; 5] = [
    Ending::Ok,
    Ending::Lost,
    Ending::Stale,
    Ending::Failed,
    Ending::Unknown,
];

impl Ending {
    /// Whether the client was answered at all.
    pub fn answered(self) -> bool {
        matches!(self, Ending::Ok | Ending::Lost | Ending::Stale)
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it was due to be sent (open loop), on the host's lease clock.
    pub due_ns: u64,
    /// When it had ended.
    pub end_ns: u64,
    /// Its key.
    pub key: SliceKey,
    /// How it ended.
    pub ending: Ending,
}

const RECORD_BYTES: usize = 25;

/// Writes a request log.
pub struct RequestLog {
    file: BufWriter<File>,
}

impl RequestLog {
    /// Creates the log at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(1 << 16, File::create(path)?),
        })
    }

    /// Appends one request.
    pub fn write(&mut self, request: Request) -> io::Result<()> {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&request.due_ns.to_le_bytes());
        record[8..16].copy_from_slice(&request.end_ns.to_le_bytes());
        record[16..24].copy_from_slice(&request.key.as_u64().to_le_bytes());
        record[24] = ENDINGS
            .iter()
            .position(|ending| *ending == request.ending)
            .unwrap_or(0) as u8;
        self.file.write_all(&record)
    }

    /// Writes out what is buffered.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a whole request log.
pub fn read(path: &Path) -> anyhow::Result<Vec<Request>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    anyhow::ensure!(
        bytes.len() % RECORD_BYTES == 0,
        "{} ends in the middle of a record",
        path.display()
    );
    bytes
        .chunks_exact(RECORD_BYTES)
        .map(|record| parse(record, path))
        .collect()
}

fn parse(record: &[u8], path: &Path) -> anyhow::Result<Request> {
    let number = |at: usize| {
        record[at..at + 8]
            .iter()
            .rev()
            .fold(0, |value, byte| (value << 8) | u64::from(*byte))
    };
    let ending = ENDINGS.get(usize::from(record[24]));
    Ok(Request {
        due_ns: number(0),
        end_ns: number(8),
        key: SliceKey::from_u64(number(16)),
        ending: *ending
            .ok_or_else(|| anyhow::anyhow!("{} holds an unknown ending", path.display()))?,
    })
}

/// For each of `slices`: the time from `since_ns` to the end of the first answered request that was
/// due after it, in milliseconds; `None` where no request was answered.
pub fn first_served_ms(
    requests: &[Request],
    slices: &[leasehold_proto::Slice],
    since_ns: u64,
) -> Vec<Option<f64>> {
    slices
        .iter()
        .map(|slice| {
            let served = requests
                .iter()
                .filter(|request| {
                    request.due_ns >= since_ns
                        && request.ending.answered()
                        && slice.contains(request.key)
                })
                .map(|request| request.end_ns)
                .min()?;
            Some((served - since_ns) as f64 / 1e6)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_proto::Slice;

    #[test]
    fn a_log_reads_back_and_tells_when_a_slice_was_served_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests");
        let request = |due_ns, end_ns, ending| Request {
            due_ns,
            end_ns,
            key: SliceKey::from_u64(7),
            ending,
        };
        let all = [
            request(1, 2, Ending::Ok),
            request(10, 3_000_000, Ending::Failed),
            request(20, 5_000_010, Ending::Lost),
        ];
        let mut log = RequestLog::create(&path).unwrap();
        all.iter().for_each(|request| log.write(*request).unwrap());
        log.finish().unwrap();
        assert_eq!(read(&path).unwrap(), all);
        assert_eq!(first_served_ms(&all, &[Slice::ALL], 10), [Some(5.0)]);
        assert_eq!(first_served_ms(&all, &[Slice::ALL], 100), [None]);
    }
}
