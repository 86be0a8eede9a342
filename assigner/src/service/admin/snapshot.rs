//! The replicated state as a file, streamed in chunks.

use leasehold_proto::wire::listing::{SnapshotEnd, SnapshotPart};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::{LogId, limits};
use leasehold_raft_store::Export;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{AdminService, audit};
use crate::snapshot_file::Writer;

/// The parts of one snapshot.
pub(crate) type Parts = ReceiverStream<Result<pb::SaveSnapshotReply, Status>>;

/// Parts that may wait for a slow reader.
const WAITING: usize = 4;

impl AdminService {
    pub(super) async fn save_parts(&self) -> Result<Parts, Refusal> {
        self.must_lead().await?;
        // Nothing acknowledged may be missing: what is applied here must be as new as a quorum.
        self.shared
            .raft
            .confirm()
            .await
            .map_err(|error| self.shared.refusal(error))?;
        let export = self
            .shared
            .raft
            .export()
            .map_err(|error| Refusal::Internal(error.to_string()))?;
        audit("save snapshot", &self.shared.config.cluster, None);
        let (parts, received) = mpsc::channel(WAITING);
        let incarnation = self.shared.replica.table().incarnation();
        tokio::task::spawn_blocking(move || {
            if let Err(status) = send(export, incarnation, &parts) {
                // Whoever asked may be gone already.
                let _ = parts.blocking_send(Err(status));
            }
        });
        Ok(ReceiverStream::new(received))
    }
}

type To = mpsc::Sender<Result<pb::SaveSnapshotReply, Status>>;

fn send(
    export: Export,
    incarnation: leasehold_proto::id::Incarnation,
    to: &To,
) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::from(Refusal::Internal(error.to_string()));
    let position = export
        .position
        .ok_or_else(|| Refusal::Rejected("nothing is committed yet".into()))?;
    let applied = LogId {
        term: position.term,
        index: position.index,
    };
    let mut writer = Writer::new();
    for record in export {
        let (key, value) = record.map_err(failed)?;
        writer.record(&key, &value);
        if writer.pending() >= limits::CHUNK_BYTES / 2 {
            send_chunks(&mut writer, to)?;
        }
    }
    let (total_bytes, crc32c) = writer.finish(applied, incarnation);
    send_chunks(&mut writer, to)?;
    let end = SnapshotPart::End(SnapshotEnd {
        total_bytes,
        crc32c,
        applied,
        incarnation,
    });
    to.blocking_send(Ok((&end).into()))
        .map_err(|_| Status::cancelled("the reader has gone"))
}

fn send_chunks(writer: &mut Writer, to: &To) -> Result<(), Status> {
    let bytes = bytes::Bytes::from(writer.take());
    for start in (0..bytes.len()).step_by(limits::CHUNK_BYTES) {
        let chunk = bytes.slice(start..bytes.len().min(start + limits::CHUNK_BYTES));
        let part = (&SnapshotPart::Chunk(chunk)).into();
        to.blocking_send(Ok(part))
            .map_err(|_| Status::cancelled("the reader has gone"))?;
    }
    Ok(())
}
