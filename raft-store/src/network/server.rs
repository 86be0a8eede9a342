//! The receiving side: checks that a message is meant for this node and well-formed, then hands
//! it to the library. Nothing here panics on hostile input or keeps unbounded amounts of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::NodeId;
use crate::codec::{self, Malformed};
use crate::raft_types::{Raft, Snapshot, TypeConfig, Vote};
use crate::store::machine::Machine;
use crate::store::snapshot::{SnapshotData, SnapshotReader, SnapshotWriter, Snapshots};
use crate::wire::{self, append_reply, raft_peer_server::RaftPeer};

/// What the service needs of its node.
pub(crate) struct Receiver {
    pub(crate) cluster: String,
    pub(crate) me: NodeId,
    /// Identity of this node's data directory.
    pub(crate) disk: Vec<u8>,
    pub(crate) raft: Raft<Machine>,
    pub(crate) snapshots: Snapshots,
    pub(crate) max_snapshot_bytes: u64,
    /// False once this node is being shut down.
    pub(crate) serving: AtomicBool,
    /// One snapshot is received at a time.
    pub(crate) incoming: Semaphore,
}

/// The service that peers call. See [`RaftNode::grpc_service`](crate::RaftNode::grpc_service).
#[derive(Clone)]
pub struct PeerService(pub(crate) Arc<Receiver>);

impl From<Malformed> for Status {
    fn from(e: Malformed) -> Self {
        Status::invalid_argument(e.to_string())
    }
}

fn stopped(fatal: &Fatal<TypeConfig>) -> Status {
    Status::unavailable(format!("this node has stopped: {fatal}"))
}

fn raft_error(error: &RaftError<TypeConfig>) -> Status {
    Status::unavailable(error.to_string())
}

impl Receiver {
    fn check(&self, envelope: Option<&wire::Envelope>) -> Result<(), Status> {
        let envelope = envelope.ok_or(Malformed("no envelope"))?;
        if envelope.cluster != self.cluster {
            return Err(Status::failed_precondition(
                "this node belongs to another cluster",
            ));
        }
        if envelope.to != self.me || envelope.from == self.me {
            return Err(Status::failed_precondition(format!(
                "this is node {}, not node {}",
                self.me, envelope.to
            )));
        }
        if !envelope.to_disk.is_empty() && envelope.to_disk != self.disk {
            return Err(Status::failed_precondition(format!(
                "node {} had another data directory when it became a member; its number must not \
                 be reused: remove it and add this one under a new number",
                self.me
            )));
        }
        if !self.serving.load(Ordering::Acquire) {
            return Err(Status::unavailable("this node is stopping"));
        }
        Ok(())
    }

    /// Run work that blocks where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let done = if self.snapshots.is_inline() {
            work()
        } else {
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|e| Status::internal(e.to_string()))?
        };
        done.map_err(|e| Status::invalid_argument(e.to_string()))
    }

    /// Receive the chunks after the head, then check the whole.
    async fn receive(
        &self,
        head: &wire::SnapshotHead,
        parts: &mut Streaming<wire::SnapshotPart>,
    ) -> Result<Snapshot<SnapshotData>, Status> {
        let mut writer: SnapshotWriter = self
            .snapshots
            .writer()
            .map_err(|e| Status::internal(e.to_string()))?;
        while let Some(part) = parts.message().await? {
            let Some(wire::snapshot_part::Part::Chunk(chunk)) = part.part else {
                return Err(Malformed("not a chunk").into());
            };
            if writer.len() + chunk.len() as u64 > head.total_bytes {
                return Err(Malformed("more chunks than announced").into());
            }
            writer = self
                .blocking(move || {
                    writer.raw(&chunk)?;
                    Ok(writer)
                })
                .await?;
        }
        if writer.len() != head.total_bytes {
            return Err(Malformed("fewer chunks than announced").into());
        }
        let cluster = self.cluster.clone();
        self.blocking(move || {
            let data = writer.finish()?;
            let reader = SnapshotReader::open(&data)?;
            if reader.cluster() != cluster {
                return Err(Malformed("a snapshot of another cluster").into());
            }
            let meta = reader.verify()?;
            if meta.last_log_id.is_none() {
                return Err(Malformed("a snapshot of nothing").into());
            }
            Ok(Snapshot {
                meta,
                snapshot: data,
            })
        })
        .await
    }
}

/// A leader speaks with a vote that a quorum has granted.
fn leader_vote(vote: Option<wire::Vote>) -> Result<Vote, Malformed> {
    let vote = codec::vote_from(vote)?;
    if vote.committed {
        Ok(vote)
    } else {
        Err(Malformed("a leader without a granted vote"))
    }
}

fn append_from(
    message: wire::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let vote = leader_vote(message.vote)?;
    let prev_log_id = codec::log_id_option(message.previous)?;
    let entries = codec::entries_from(prev_log_id, message.entries)?;
    let newest = entries.last().map(|e| e.log_id).or(prev_log_id);
    if newest.is_some_and(|n| n.leader_id.term > vote.leader_id.term) {
        return Err(Malformed("entries of a later term than their leader's"));
    }
    let leader_commit = codec::log_id_option(message.leader_commit)?;
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn append_reply(result: &StreamAppendResult<TypeConfig>) -> wire::AppendReply {
    use append_reply::{Accepted, Conflict, Outcome};
    let outcome = match result {
        Ok(_) => Outcome::Accepted(Accepted {}),
        Err(StreamAppendError::Conflict(_)) => Outcome::Conflict(Conflict {}),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(codec::vote_to(vote)),
    };
    wire::AppendReply {
        outcome: Some(outcome),
    }
}

/// The requests of a stream, up to the first that is not in order; why it ended goes to `end`.
fn requests(
    first: AppendEntriesRequest<TypeConfig>,
    rest: Streaming<wire::AppendRequest>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    let rest = futures::stream::unfold(rest, |mut rest| async move {
        match rest.message().await {
            Ok(None) => None,
            Ok(Some(message)) => match append_from(message) {
                Ok(request) => Some((request, rest)),
                Err(error) => {
                    tracing::warn!(%error, "a peer's replication stream is cut");
                    None
                }
            },
            Err(status) => {
                tracing::debug!(%status, "a peer's replication stream broke");
                None
            }
        }
    });
    futures::stream::iter([first]).chain(rest)
}

#[tonic::async_trait]
impl RaftPeer for PeerService {
    type AppendStreamStream = BoxStream<'static, Result<wire::AppendReply, Status>>;

    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendReply>, Status> {
        let message = request.into_inner();
        self.0.check(message.envelope.as_ref())?;
        let request = append_from(message)?;
        let results = self.0.raft.stream_append(futures::stream::iter([request]));
        futures::pin_mut!(results);
        match results.next().await {
            Some(Ok(result)) => Ok(Response::new(append_reply(&result))),
            Some(Err(fatal)) => Err(stopped(&fatal)),
            None => Err(Status::unavailable("no answer")),
        }
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        // The headers must go back at once: the sender may have nothing to send yet.
        let this = self.clone();
        let mut messages = request.into_inner();
        let replies = futures::stream::once(async move {
            let Some(first) = messages.message().await? else {
                return Ok(futures::stream::empty().boxed());
            };
            // One check for the stream: it cannot change hands.
            this.0.check(first.envelope.as_ref())?;
            let first = append_from(first)?;
            let results = this.0.raft.stream_append(requests(first, messages));
            let replies = results.map(|result| match result {
                Ok(result) => Ok(append_reply(&result)),
                Err(fatal) => Err(stopped(&fatal)),
            });
            Ok(replies.boxed())
        });
        let flat = replies.flat_map(|replies: Result<Self::AppendStreamStream, Status>| {
            replies.unwrap_or_else(|status| futures::stream::iter([Err(status)]).boxed())
        });
        Ok(Response::new(flat.boxed()))
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteReply>, Status> {
        let message = request.into_inner();
        self.0.check(message.envelope.as_ref())?;
        let vote = codec::vote_from(message.vote)?;
        if vote.committed {
            return Err(Malformed("a candidate with a granted vote").into());
        }
        let mut request = VoteRequest::new(vote, codec::log_id_option(message.last_log)?);
        request.leadership_transfer = message.leadership_transfer;
        let answer = if message.pre_vote {
            self.0.raft.pre_vote(request).await
        } else {
            self.0.raft.vote(request).await
        };
        let answer = answer.map_err(|e| raft_error(&e))?;
        Ok(Response::new(wire::VoteReply {
            vote: Some(codec::vote_to(&answer.vote)),
            granted: answer.vote_granted,
            last_log: answer.last_log_id.as_ref().map(codec::log_id_to),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotPart>>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        let mut parts = request.into_inner();
        let head = match parts.message().await?.and_then(|p| p.part) {
            Some(wire::snapshot_part::Part::Head(head)) => head,
            _ => return Err(Malformed("a snapshot without a head").into()),
        };
        self.0.check(head.envelope.as_ref())?;
        let vote = leader_vote(head.vote)?;
        if head.total_bytes > self.0.max_snapshot_bytes {
            return Err(Status::invalid_argument(format!(
                "a snapshot of {} bytes exceeds this node's bound of {}",
                head.total_bytes, self.0.max_snapshot_bytes
            )));
        }
        let _one_at_a_time = self
            .0
            .incoming
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("another snapshot is being received"))?;
        let snapshot = self.0.receive(&head, &mut parts).await?;
        tracing::info!(bytes = head.total_bytes, meta = %snapshot.meta, "a snapshot has arrived");
        let installed = self.0.raft.install_full_snapshot(vote, snapshot).await;
        let answer = installed.map_err(|fatal| stopped(&fatal))?;
        Ok(Response::new(wire::SnapshotReply {
            vote: Some(codec::vote_to(&answer.vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferRequest>,
    ) -> Result<Response<wire::TransferReply>, Status> {
        let message = request.into_inner();
        self.0.check(message.envelope.as_ref())?;
        let from = leader_vote(message.from_leader)?;
        let last = codec::log_id_option(message.last_log)?;
        let request = TransferLeaderRequest::new(from, message.target, last);
        let answer = self.0.raft.handle_transfer_leader(request).await;
        let refused = match answer.map_err(|fatal| stopped(&fatal))? {
            Ok(()) => String::new(),
            Err(why) => why.to_string(),
        };
        Ok(Response::new(wire::TransferReply { refused }))
    }

    async fn identify(
        &self,
        request: Request<wire::IdentifyRequest>,
    ) -> Result<Response<wire::IdentifyReply>, Status> {
        if request.into_inner().cluster != self.0.cluster {
            return Err(Status::failed_precondition(
                "this node belongs to another cluster",
            ));
        }
        let reply = wire::IdentifyReply {
            node: self.0.me,
            disk: self.0.disk.clone().into(),
        };
        Ok(Response::new(reply))
    }
}
