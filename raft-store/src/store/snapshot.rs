//! Snapshots as a checksummed stream of records, in a file or in memory.
//!
//! Frames are `u32 length | u32 crc32c | payload`, little endian: one head, records, one trailer
//! that counts them. What has no valid trailer is not a snapshot.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;

use super::kv::{Column, Pair, View};
use super::records::{self, Applied};
use crate::codec::{self, Malformed};
use crate::raft_types::{LogId, SnapshotMeta};
use crate::wire::{self, snapshot_frame::Frame};

/// Format of the frames' content.
const FORMAT: u32 = 1;
/// Bytes of records collected into one frame.
const FRAME_BYTES: usize = 256 << 10;
/// A longer frame is a corrupt one.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// A whole snapshot, ready to be read at any offset.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotData {
    bytes: Source,
    len: u64,
}

#[derive(Clone, Debug)]
enum Source {
    /// Readable also after its file has been deleted or renamed.
    File {
        file: Arc<File>,
        temporary: Option<Arc<Temporary>>,
    },
    Memory(Arc<Vec<u8>>),
}

/// A file that disappears unless it is renamed.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Already gone if it was renamed.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl SnapshotData {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Up to `max` bytes from `offset`; empty at the end.
    pub(crate) fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; max.min(left)];
        match &self.bytes {
            Source::File { file, .. } => file.read_exact_at(&mut buffer, offset)?,
            Source::Memory(bytes) => {
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let end = start + buffer.len();
                buffer.copy_from_slice(&bytes[start..end]);
            }
        }
        Ok(buffer.into())
    }
}

/// Where a node keeps its newest snapshot.
#[derive(Clone)]
pub(crate) enum Snapshots {
    Memory(Arc<MemorySnapshots>),
    Files(Arc<SnapshotFiles>),
}

/// The newest snapshot, in memory.
#[derive(Default)]
pub(crate) struct MemorySnapshots(Mutex<Option<(Option<LogId>, SnapshotData)>>);

/// A directory with the newest snapshot and those on their way.
pub(crate) struct SnapshotFiles {
    directory: PathBuf,
    /// Serialises publishing, and names temporary files.
    sequence: Mutex<u64>,
}

const SUFFIX: &str = ".snapshot";

fn file_name(last: Option<&LogId>) -> String {
    let (term, index) = last.map_or((0, 0), |l| (l.leader_id.term, l.index));
    format!("{index:020}-{term:020}{SUFFIX}")
}

impl SnapshotFiles {
    /// Open the directory, creating it if need be, and delete what was on its way.
    #[cfg_attr(not(feature = "rocksdb"), allow(dead_code))]
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if !path.to_string_lossy().ends_with(SUFFIX) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            sequence: Mutex::new(0),
        })
    }

    /// The published files, newest last.
    fn published(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(SUFFIX) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    fn current(&self) -> io::Result<Option<SnapshotData>> {
        let Some(path) = self.published()?.pop() else {
            return Ok(None);
        };
        let file = Arc::new(File::open(path)?);
        let len = file.metadata()?.len();
        Ok(Some(SnapshotData {
            bytes: Source::File {
                file,
                temporary: None,
            },
            len,
        }))
    }

    fn publish(&self, last: Option<&LogId>, temporary: &Temporary) -> io::Result<()> {
        let _one_at_a_time = self.sequence.lock();
        let target = self.directory.join(file_name(last));
        let older = self.published()?;
        let is_newer = older.last().is_none_or(|newest| *newest <= target);
        if !is_newer || !temporary.0.exists() {
            return Ok(());
        }
        std::fs::rename(&temporary.0, &target)?;
        File::open(&self.directory)?.sync_all()?;
        for path in older.into_iter().filter(|p| *p != target) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

impl Snapshots {
    /// May the caller's thread do the work? True where nothing blocks.
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Delete the current snapshot if it is damaged; if it is whole, those that it has replaced: a
    /// crash may have come between. This node's records are whole without any, and what is sent to
    /// peers, or installed after a crash, must be whole.
    pub(crate) fn drop_damaged(&self) -> io::Result<()> {
        let Some(data) = self.current()? else {
            return Ok(());
        };
        let Err(error) = SnapshotReader::open(&data).and_then(SnapshotReader::verify) else {
            return self.drop_older();
        };
        tracing::error!(%error, "the snapshot is damaged and is deleted; a new one will be taken");
        match self {
            Self::Memory(m) => *m.0.lock() = None,
            Self::Files(f) => {
                if let Some(path) = f.published()?.pop() {
                    std::fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }

    fn drop_older(&self) -> io::Result<()> {
        let Self::Files(files) = self else {
            return Ok(());
        };
        let mut published = files.published()?;
        published.pop();
        published.into_iter().try_for_each(std::fs::remove_file)
    }

    pub(crate) fn current(&self) -> io::Result<Option<SnapshotData>> {
        match self {
            Self::Memory(m) => Ok(m.0.lock().as_ref().map(|(_, data)| data.clone())),
            Self::Files(f) => f.current(),
        }
    }

    /// Start a snapshot that is not visible before [`publish`](Self::publish).
    pub(crate) fn writer(&self) -> io::Result<SnapshotWriter> {
        let sink = match self {
            Self::Memory(_) => Sink::Memory(Vec::new()),
            Self::Files(f) => {
                let number = {
                    let mut sequence = f.sequence.lock();
                    *sequence += 1;
                    *sequence
                };
                let temporary = Temporary(f.directory.join(format!("{number}.part")));
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&temporary.0)?;
                Sink::File(file, temporary)
            }
        };
        Ok(SnapshotWriter {
            sink,
            len: 0,
            frames: 0,
            records: 0,
            checksum: 0,
        })
    }

    /// A copy of what lies elsewhere.
    fn copy(&self, data: &SnapshotData) -> io::Result<SnapshotData> {
        let mut writer = self.writer()?;
        while writer.len() < data.len() {
            writer.raw(&data.read_at(writer.len(), FRAME_BYTES)?)?;
        }
        writer.finish()
    }

    /// Make `data` the current snapshot, atomically and durably, and delete older ones. Does
    /// nothing if it is current already, or if a newer one is.
    pub(crate) fn publish(&self, last: Option<&LogId>, data: &SnapshotData) -> io::Result<()> {
        match (self, &data.bytes) {
            (
                Self::Files(f),
                Source::File {
                    temporary: Some(temporary),
                    ..
                },
            ) => f.publish(last, temporary),
            (Self::Files(f), _) if !f.directory.join(file_name(last)).exists() => {
                self.publish(last, &self.copy(data)?)
            }
            (Self::Memory(m), Source::Memory(_)) => {
                let mut current = m.0.lock();
                if current.as_ref().is_none_or(|(l, _)| l.as_ref() <= last) {
                    *current = Some((last.copied(), data.clone()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

enum Sink {
    File(File, Temporary),
    Memory(Vec<u8>),
}

/// Writes a snapshot: frames of our own, or bytes as a peer sends them.
pub(crate) struct SnapshotWriter {
    sink: Sink,
    len: u64,
    frames: u64,
    records: u64,
    checksum: u32,
}

impl SnapshotWriter {
    /// Append bytes that somebody else has framed.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        match &mut self.sink {
            Sink::File(file, _) => file.write_all(bytes),
            Sink::Memory(buffer) => {
                buffer.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn frame(&mut self, frame: Frame) -> io::Result<()> {
        let payload = wire::SnapshotFrame { frame: Some(frame) }.encode_to_vec();
        let len = u32::try_from(payload.len()).map_err(|_| Malformed("a frame beyond 4 GiB"))?;
        let checksum = crc32c::crc32c(&payload);
        self.checksum = crc32c::crc32c_append(self.checksum, &checksum.to_le_bytes());
        self.frames += 1;
        let mut bytes = Vec::with_capacity(payload.len() + 8);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&payload);
        self.raw(&bytes)
    }

    pub(crate) fn head(&mut self, cluster: &str, applied: &Applied) -> io::Result<()> {
        self.frame(Frame::Head(wire::SnapshotFileHead {
            format_version: FORMAT,
            cluster: cluster.to_owned(),
            last: applied.last.as_ref().map(codec::log_id_to),
            membership: Some(codec::stored_membership_to(&applied.membership)),
        }))
    }

    /// `pairs` become one frame.
    pub(crate) fn records(&mut self, pairs: impl Iterator<Item = Pair>) -> io::Result<()> {
        let records: Vec<_> = pairs
            .map(|(k, v)| wire::Record {
                key: k.into(),
                value: v.into(),
            })
            .collect();
        self.records += records.len() as u64;
        self.frame(Frame::Records(wire::SnapshotRecords { records }))
    }

    pub(crate) fn trailer(&mut self) -> io::Result<()> {
        let trailer = wire::SnapshotTrailer {
            records: self.records,
            frames: self.frames,
            checksum: self.checksum,
        };
        self.frame(Frame::Trailer(trailer))
    }

    /// Make it durable. Not visible yet: see [`Snapshots::publish`].
    pub(crate) fn finish(self) -> io::Result<SnapshotData> {
        let bytes = match self.sink {
            Sink::File(file, temporary) => {
                file.sync_all()?;
                Source::File {
                    file: Arc::new(file),
                    temporary: Some(Arc::new(temporary)),
                }
            }
            Sink::Memory(buffer) => Source::Memory(Arc::new(buffer)),
        };
        Ok(SnapshotData {
            bytes,
            len: self.len,
        })
    }
}

/// Write the state that `view` shows as a snapshot; durable, not yet published.
pub(crate) fn write(
    view: &dyn View,
    cluster: &str,
    snapshots: &Snapshots,
) -> io::Result<(Applied, SnapshotData)> {
    let applied = records::applied_in(view)?;
    let mut writer = snapshots.writer()?;
    writer.head(cluster, &applied)?;
    let (mut from, to) = records::generation_range(applied.generation);
    loop {
        let pairs = view.page(Column::State, &from, &to, FRAME_BYTES)?;
        let Some((last, _)) = pairs.last() else { break };
        from = last.clone();
        from.push(0);
        writer.records(
            pairs
                .into_iter()
                .map(|(key, value)| (key[8..].to_vec(), value)),
        )?;
    }
    writer.trailer()?;
    Ok((applied, writer.finish()?))
}

/// Reads a snapshot front to back and trusts nothing.
pub(crate) struct SnapshotReader<'a> {
    data: &'a SnapshotData,
    offset: u64,
    frames: u64,
    records: u64,
    checksum: u32,
    cluster: String,
    meta: SnapshotMeta,
}

impl<'a> SnapshotReader<'a> {
    /// Read the head.
    pub(crate) fn open(data: &'a SnapshotData) -> io::Result<Self> {
        let mut this = Self {
            data,
            offset: 0,
            frames: 0,
            records: 0,
            checksum: 0,
            cluster: String::new(),
            meta: SnapshotMeta::default(),
        };
        let Frame::Head(head) = this.frame()? else {
            return Err(Malformed("a snapshot without a head").into());
        };
        if head.format_version != FORMAT {
            return Err(Malformed("a snapshot of a newer format").into());
        }
        this.cluster = head.cluster;
        this.meta.last_log_id = codec::log_id_option(head.last)?;
        this.meta.last_membership = codec::stored_membership_from(head.membership)?;
        Ok(this)
    }

    pub(crate) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    fn frame(&mut self) -> io::Result<Frame> {
        let header = self.data.read_at(self.offset, 8)?;
        let header: [u8; 8] = header
            .as_ref()
            .try_into()
            .map_err(|_| Malformed("a snapshot cut short"))?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
        if len > MAX_FRAME_BYTES {
            return Err(Malformed("a snapshot frame beyond the bound").into());
        }
        let payload = self.data.read_at(self.offset + 8, len)?;
        if payload.len() != len {
            return Err(Malformed("a snapshot cut short").into());
        }
        if crc32c::crc32c(&payload) != checksum {
            return Err(Malformed("a snapshot frame with a wrong checksum").into());
        }
        self.offset += 8 + len as u64;
        let frame = wire::SnapshotFrame::decode(payload)
            .map_err(|_| Malformed("a snapshot frame"))?
            .frame
            .ok_or(Malformed("an empty snapshot frame"))?;
        if !matches!(frame, Frame::Trailer(_)) {
            self.frames += 1;
            self.checksum = crc32c::crc32c_append(self.checksum, &checksum.to_le_bytes());
        }
        Ok(frame)
    }

    /// The next records; none after a valid trailer, which must end the snapshot.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<wire::Record>>> {
        match self.frame()? {
            Frame::Head(_) => Err(Malformed("a second head in a snapshot").into()),
            Frame::Records(found) => {
                self.records += found.records.len() as u64;
                Ok(Some(found.records))
            }
            Frame::Trailer(t) => {
                let whole = t.records == self.records
                    && t.frames == self.frames
                    && t.checksum == self.checksum
                    && self.offset == self.data.len();
                if whole {
                    Ok(None)
                } else {
                    Err(Malformed("a snapshot with a wrong trailer").into())
                }
            }
        }
    }

    /// Read to the end; what is returned can be trusted as a whole.
    pub(crate) fn verify(mut self) -> io::Result<SnapshotMeta> {
        while self.next()?.is_some() {}
        Ok(self.meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft_types::log_id;

    fn sample(snapshots: &Snapshots) -> SnapshotData {
        let mut writer = snapshots.writer().expect("a writer");
        let applied = Applied {
            last: Some(log_id(2, 7)),
            ..Applied::default()
        };
        writer.head("c", &applied).expect("a head");
        for i in 0..3u8 {
            writer
                .records([(vec![i], vec![i; 100])].into_iter())
                .expect("records");
        }
        writer.trailer().expect("a trailer");
        writer.finish().expect("a snapshot")
    }

    fn memory(bytes: Vec<u8>) -> SnapshotData {
        SnapshotData {
            len: bytes.len() as u64,
            bytes: Source::Memory(Arc::new(bytes)),
        }
    }

    fn verify(data: &SnapshotData) -> io::Result<SnapshotMeta> {
        SnapshotReader::open(data)?.verify()
    }

    #[test]
    fn every_damage_is_noticed() {
        let data = sample(&Snapshots::Memory(Arc::default()));
        assert_eq!(
            verify(&data).expect("whole").last_log_id,
            Some(log_id(2, 7))
        );
        let bytes = data.read_at(0, usize::MAX).expect("a read").to_vec();
        for cut in 0..bytes.len() {
            assert!(
                verify(&memory(bytes[..cut].to_vec())).is_err(),
                "cut at {cut}"
            );
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(verify(&memory(damaged)).is_err(), "flipped at {at}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(
            verify(&memory(longer)).is_err(),
            "something after the trailer"
        );
    }

    #[test]
    fn files_appear_whole_and_replace_each_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || {
            let files = SnapshotFiles::open(directory.path()).expect("open");
            Snapshots::Files(Arc::new(files))
        };
        let count = || {
            std::fs::read_dir(directory.path())
                .expect("a listing")
                .count()
        };
        let snapshots = open();
        drop(sample(&snapshots));
        assert_eq!(count(), 0, "what is not published disappears");

        let data = sample(&snapshots);
        assert!(snapshots.current().expect("a read").is_none());
        snapshots
            .publish(Some(&log_id(2, 7)), &data)
            .expect("published");
        let newer = sample(&snapshots);
        snapshots
            .publish(Some(&log_id(2, 9)), &newer)
            .expect("published");
        drop(newer);
        let older = sample(&snapshots);
        snapshots
            .publish(Some(&log_id(2, 8)), &older)
            .expect("not published");
        drop(older);
        assert_eq!(count(), 1);
        verify(&data).expect("a deleted file is readable by those who had it");

        std::fs::write(directory.path().join("9.part"), b"half").expect("a write");
        let reopened = open();
        assert_eq!(count(), 1);
        let current = reopened.current().expect("a read").expect("a snapshot");
        verify(&current).expect("whole");

        let replaced = directory.path().join(file_name(Some(&log_id(1, 3))));
        let newest = directory.path().join(file_name(Some(&log_id(2, 9))));
        std::fs::copy(&newest, &replaced).expect("killed between publishing and deleting");
        open().drop_damaged().expect("looked through");
        assert!(newest.exists() && !replaced.exists());
    }
}
