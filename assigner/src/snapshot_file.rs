//! A saved snapshot as a file.
//!
//! All numbers are big-endian:
//!
//! | Part    | Bytes |
//! | ------- | ----- |
//! | head    | `LHSNAP01` |
//! | record  | byte 1, key length (4), value length (4), key, value; any number of them |
//! | end     | byte 2, term (8), index (8), incarnation (4), number of records (8), CRC-32C (4) of everything before it |

use std::io::{self, Read};

use leasehold_proto::LogId;
use leasehold_proto::id::Incarnation;
use leasehold_proto::limits;

const HEAD: &[u8; 8] = b"LHSNAP01";
const RECORD: u8 = 1;
const END: u8 = 2;
/// Longest key of a record.
const KEY_BYTES: usize = 1 << 10;

/// Writes a snapshot, a part at a time.
pub(crate) struct Writer {
    buffer: Vec<u8>,
    crc: u32,
    /// Bytes of `buffer` that `crc` covers.
    summed: usize,
    taken: u64,
    records: u64,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            buffer: HEAD.to_vec(),
            crc: 0,
            summed: 0,
            taken: 0,
            records: 0,
        }
    }

    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.buffer.push(RECORD);
        self.buffer.extend_from_slice(&length(key));
        self.buffer.extend_from_slice(&length(value));
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        self.records += 1;
    }

    /// Bytes written and not taken.
    pub(crate) fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Ends the file; gives its length and the CRC-32C of all of it.
    pub(crate) fn finish(&mut self, applied: LogId, incarnation: Incarnation) -> (u64, u32) {
        self.buffer.push(END);
        self.buffer.extend_from_slice(&applied.term.to_be_bytes());
        self.buffer.extend_from_slice(&applied.index.to_be_bytes());
        self.buffer
            .extend_from_slice(&u32::from(incarnation.get()).to_be_bytes());
        self.buffer.extend_from_slice(&self.records.to_be_bytes());
        self.sum();
        self.buffer.extend_from_slice(&self.crc.to_be_bytes());
        self.sum();
        (self.taken + self.buffer.len() as u64, self.crc)
    }

    fn sum(&mut self) {
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer[self.summed..]);
        self.summed = self.buffer.len();
    }

    /// What was written since the last call.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.sum();
        self.summed = 0;
        self.taken += self.buffer.len() as u64;
        std::mem::take(&mut self.buffer)
    }
}

/// A snapshot file that was read whole and is intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The newest entry in it.
    pub applied: LogId,
    /// Which life of the replicated state it is of.
    pub incarnation: Incarnation,
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl SnapshotFile {
    /// Reads a file as `SaveSnapshot` gave it.
    ///
    /// Errors: `InvalidData` when it is no snapshot, is cut off or was altered; it must not be
    /// used. Others are the reader's.
    pub fn read(from: impl Read) -> io::Result<Self> {
        let mut input = Summing {
            inner: from,
            crc: 0,
        };
        if input.array::<8>()? != *HEAD {
            return Err(invalid(
                "it does not begin as a snapshot of this version does",
            ));
        }
        let mut records = Vec::new();
        loop {
            match input.array::<1>()? {
                [RECORD] => {
                    let key_bytes = input.length(KEY_BYTES)?;
                    let value_bytes = input.length(limits::MESSAGE_BYTES)?;
                    records.push((input.bytes(key_bytes)?, input.bytes(value_bytes)?));
                }
                [END] => return input.end(records),
                _ => return Err(invalid("a part of an unknown kind; it was altered")),
            }
        }
    }
}

fn invalid(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not an intact snapshot: {why}"),
    )
}

struct Summing<R> {
    inner: R,
    crc: u32,
}

impl<R: Read> Summing<R> {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.inner
            .read_exact(buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => invalid("it is cut off"),
                _ => error,
            })?;
        self.crc = crc32c::crc32c_append(self.crc, buffer);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut buffer = [0; N];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    fn length(&mut self, most: usize) -> io::Result<usize> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        if length <= most {
            Ok(length)
        } else {
            Err(invalid(format_args!("a record of {length} bytes")))
        }
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; length];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    fn end(mut self, records: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<SnapshotFile> {
        let term = u64::from_be_bytes(self.array()?);
        let index = u64::from_be_bytes(self.array()?);
        let incarnation = u32::from_be_bytes(self.array()?);
        let count = u64::from_be_bytes(self.array()?);
        let computed = self.crc;
        if u32::from_be_bytes(self.array()?) != computed {
            return Err(invalid("its checksum does not match"));
        }
        if count != records.len() as u64 {
            return Err(invalid(format_args!(
                "{count} records were saved, {} are there",
                records.len()
            )));
        }
        if self.inner.read(&mut [0])? != 0 {
            return Err(invalid("something follows its end"));
        }
        let incarnation = Incarnation::new(u64::from(incarnation))
            .ok_or_else(|| invalid("no such incarnation"))?;
        Ok(SnapshotFile {
            applied: LogId { term, index },
            incarnation,
            records,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn saved() -> Vec<u8> {
        let mut writer = Writer::new();
        writer.record(b"Tcart", b"value");
        let mut bytes = writer.take();
        writer.record(b"M", b"");
        let (total, crc) = writer.finish(LogId { term: 3, index: 42 }, Incarnation::FIRST);
        bytes.extend(writer.take());
        assert_eq!((total, crc), (bytes.len() as u64, crc32c::crc32c(&bytes)));
        bytes
    }

    #[test]
    fn a_file_reads_back() {
        let file = SnapshotFile::read(saved().as_slice()).unwrap();
        assert_eq!(file.applied, LogId { term: 3, index: 42 });
        assert_eq!(
            file.records,
            [
                (b"Tcart".to_vec(), b"value".to_vec()),
                (b"M".to_vec(), Vec::new())
            ]
        );
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = saved();
        for end in 0..bytes.len() {
            assert!(SnapshotFile::read(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(
                SnapshotFile::read(altered.as_slice()).is_err(),
                "flipped at {at}"
            );
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(SnapshotFile::read(longer.as_slice()).is_err());
    }
}
