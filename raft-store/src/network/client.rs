//! The sending side: implements the library's network on our messages.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::error::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::pool::{Lane, Pool};
use crate::NodeId;
use crate::codec;
use crate::config::{APPEND_PATIENCE, INSTALL_PATIENCE, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_PATIENCE};
use crate::raft_types::{LogId, Peer, Snapshot, TypeConfig, Vote};
use crate::store::snapshot::SnapshotData;
use crate::wire::{self, raft_peer_client::RaftPeerClient};

/// Answers of peers are small.
const MAX_REPLY_BYTES: usize = 64 << 10;

type Client = RaftPeerClient<tonic::transport::Channel>;
type RpcError = RPCError<TypeConfig>;

/// What all connections of this node share.
pub(crate) struct Sender {
    pub(crate) cluster: String,
    pub(crate) me: NodeId,
    pub(crate) pool: Pool,
    /// How long opening a stream may take.
    pub(crate) open_timeout: Duration,
    /// How long to wait before a stream that could not be opened is tried again.
    pub(crate) open_pause: Duration,
    pub(crate) max_message_bytes: usize,
}

impl Sender {
    fn client(&self, to: NodeId, address: &str, lane: Lane) -> Client {
        RaftPeerClient::new(self.pool.channel(to, address, lane))
            .max_decoding_message_size(MAX_REPLY_BYTES)
            .max_encoding_message_size(self.max_message_bytes)
    }

    /// Ask who answers at `address`.
    pub(crate) async fn identify(
        &self,
        to: NodeId,
        address: &str,
        patience: Duration,
    ) -> Result<wire::IdentifyReply, String> {
        let mut client = self.client(to, address, Lane::Control);
        let request = wire::IdentifyRequest {
            cluster: self.cluster.clone(),
        };
        match tokio::time::timeout(patience, client.identify(request)).await {
            Ok(Ok(reply)) => {
                self.pool.answered(to, Lane::Control);
                Ok(reply.into_inner())
            }
            Ok(Err(status)) => {
                self.pool.failed(to, Lane::Control);
                Err(status.message().to_owned())
            }
            Err(_) => {
                self.pool.failed(to, Lane::Control);
                Err(format!("no answer within {} ms", patience.as_millis()))
            }
        }
    }
}

/// Makes connections for the library.
pub(crate) struct Network(pub(crate) Arc<Sender>);

impl Network {
    fn connection(&self, to: NodeId, peer: &Peer, append_lane: Lane) -> Connection {
        Connection {
            sender: Arc::clone(&self.0),
            to,
            peer: peer.clone(),
            append_lane,
            closed_until: None,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, to: NodeId, peer: &Peer) -> Connection {
        self.connection(to, peer, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, to: NodeId, peer: &Peer) -> Connection {
        self.connection(to, peer, Lane::Control)
    }
}

/// Requests to one peer.
pub(crate) struct Connection {
    sender: Arc<Sender>,
    to: NodeId,
    peer: Peer,
    append_lane: Lane,
    /// The peer could not be reached: it is not dialled before then.
    closed_until: Option<Instant>,
}

/// A request that waits for its answer.
struct Sent {
    previous: Option<LogId>,
    last: Option<LogId>,
    vote: Vote,
    at: Instant,
}

type InFlight = Arc<Mutex<VecDeque<Sent>>>;

impl Connection {
    fn envelope(&self) -> Option<wire::Envelope> {
        Some(wire::Envelope {
            cluster: self.sender.cluster.clone(),
            from: self.sender.me,
            to: self.to,
            to_disk: self.peer.disk.clone().into(),
        })
    }

    fn client(&self, lane: Lane) -> Client {
        self.sender.client(self.to, &self.peer.address, lane)
    }

    /// Await an answer on `lane` within `patience`, and note how the connection fared.
    async fn ask<T>(
        &self,
        lane: Lane,
        action: RPCTypes,
        patience: Duration,
        asking: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(reply)) => {
                self.sender.pool.answered(self.to, lane);
                Ok(reply.into_inner())
            }
            Ok(Err(status)) => Err(self.failure(lane, &status)),
            Err(_) => Err(self.timeout(lane, action, patience)),
        }
    }

    fn failure(&self, lane: Lane, status: &Status) -> RpcError {
        self.sender.pool.failed(self.to, lane);
        match status.code() {
            // Wait before the next attempt: nobody is there, or it is somebody else.
            Code::Unavailable | Code::FailedPrecondition | Code::ResourceExhausted => {
                RPCError::Unreachable(Unreachable::from_string(status.message()))
            }
            _ => RPCError::Network(NetworkError::from_string(status)),
        }
    }

    fn timeout(&self, lane: Lane, action: RPCTypes, timeout: Duration) -> RpcError {
        self.sender.pool.failed(self.to, lane);
        RPCError::Timeout(Timeout {
            action,
            id: self.sender.me,
            target: self.to,
            timeout,
        })
    }

    /// As if nobody was there: asking again at once would give the same answer.
    fn malformed(what: &'static str) -> RpcError {
        RPCError::Unreachable(Unreachable::from_string(what))
    }

    async fn vote_request(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = wire::VoteRequest {
            envelope: self.envelope(),
            vote: Some(codec::vote_to(&request.vote)),
            last_log: request.last_log_id.as_ref().map(codec::log_id_to),
            leadership_transfer: request.leadership_transfer,
            pre_vote,
        };
        let mut client = self.client(Lane::Control);
        let asking = client.vote(message);
        let reply = self
            .ask(Lane::Control, RPCTypes::Vote, option.hard_ttl(), asking)
            .await?;
        let vote = codec::vote_from(reply.vote).map_err(|e| Self::malformed(e.0))?;
        let last = codec::log_id_option(reply.last_log).map_err(|e| Self::malformed(e.0))?;
        Ok(VoteResponse::new(vote, last, reply.granted))
    }

    /// Opens the replication stream; its answers come in the order of the requests.
    async fn open_stream<S>(
        &self,
        input: S,
        in_flight: InFlight,
    ) -> Result<tonic::Streaming<wire::AppendReply>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let mut envelope = self.envelope();
        let requests = input.map(move |request| {
            in_flight.lock().push_back(Sent {
                previous: request.prev_log_id,
                last: request
                    .entries
                    .last()
                    .map(|e| e.log_id)
                    .or(request.prev_log_id),
                vote: request.vote,
                at: Instant::now(),
            });
            // The stream stays on its connection: the first message introduces it.
            append_to(request, envelope.take())
        });
        let mut client = self.client(self.append_lane);
        let opening = client.append_stream(requests);
        self.ask(
            self.append_lane,
            RPCTypes::AppendEntries,
            self.sender.open_timeout,
            opening,
        )
        .await
    }

    /// The next answer on the replication stream; `None` at its end.
    async fn next_answer(
        &self,
        replies: &mut tonic::Streaming<wire::AppendReply>,
        in_flight: &InFlight,
    ) -> Option<Result<StreamAppendResult<TypeConfig>, RpcError>> {
        loop {
            let oldest = in_flight.lock().front().map(|sent| sent.at);
            let until = oldest.unwrap_or_else(Instant::now) + APPEND_PATIENCE;
            let reply = match tokio::time::timeout_at(until, replies.message()).await {
                // An idle stream may be silent; a request may not stay unanswered.
                Err(_) if oldest.is_none() || in_flight.lock().front().is_none() => continue,
                Err(_) => {
                    let late =
                        self.timeout(self.append_lane, RPCTypes::AppendEntries, APPEND_PATIENCE);
                    return Some(Err(late));
                }
                Ok(Err(status)) => return Some(Err(self.failure(self.append_lane, &status))),
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(reply))) => reply,
            };
            self.sender.pool.answered(self.to, self.append_lane);
            let Some(sent) = in_flight.lock().pop_front() else {
                return Some(Err(Self::malformed("an answer to nothing")));
            };
            return Some(answer_from(reply, &sent).map_err(Self::malformed));
        }
    }
}

fn append_to(
    request: AppendEntriesRequest<TypeConfig>,
    envelope: Option<wire::Envelope>,
) -> wire::AppendRequest {
    wire::AppendRequest {
        envelope,
        vote: Some(codec::vote_to(&request.vote)),
        previous: request.prev_log_id.as_ref().map(codec::log_id_to),
        leader_commit: request.leader_commit.as_ref().map(codec::log_id_to),
        entries: request.entries.iter().map(codec::entry_to).collect(),
    }
}

/// An answer is believed only as far as it fits what was sent.
fn answer_from(
    reply: wire::AppendReply,
    sent: &Sent,
) -> Result<StreamAppendResult<TypeConfig>, &'static str> {
    use wire::append_reply::Outcome;
    match reply.outcome {
        None => Err("an answer without an outcome"),
        Some(Outcome::Accepted(_)) => Ok(Ok(sent.last)),
        Some(Outcome::Conflict(_)) => match sent.previous {
            Some(previous) => Ok(Err(StreamAppendError::Conflict(previous))),
            None => Err("a conflict with nothing"),
        },
        Some(Outcome::HigherVote(vote)) => {
            let vote = codec::vote_from(Some(vote)).map_err(|e| e.0)?;
            if vote > sent.vote {
                Ok(Err(StreamAppendError::HigherVote(vote)))
            } else {
                Err("a higher vote that is not higher")
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let sent = Sent {
            previous: request.prev_log_id,
            last: request
                .entries
                .last()
                .map(|e| e.log_id)
                .or(request.prev_log_id),
            vote: request.vote,
            at: Instant::now(),
        };
        // Every confirmation sends a heartbeat, and there may be thousands in a second: only the
        // regular ones try a peer again that was not there.
        if self
            .closed_until
            .is_some_and(|until| Instant::now() < until)
        {
            return Err(Self::malformed("not there a moment ago"));
        }
        let message = append_to(request, self.envelope());
        let mut client = self.client(self.append_lane);
        let asking = client.append(message);
        let action = RPCTypes::AppendEntries;
        let asked = self
            .ask(self.append_lane, action, option.hard_ttl(), asking)
            .await;
        self.closed_until = match &asked {
            Err(RPCError::Unreachable(_)) => Some(Instant::now() + self.sender.open_pause / 4),
            _ => None,
        };
        let reply = asked?;
        answer_from(reply, &sent)
            .map(Into::into)
            .map_err(Self::malformed)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.append_lane == Lane::Control {
            // A heartbeat is one request: a stream for it would cost more.
            return openraft::network::stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // The library's own pause is in `input`, which is not asked before a connection
            // stands: a peer that refuses connections would be dialled without end.
            if let Some(until) = self.closed_until.take() {
                tokio::time::sleep_until(until).await;
            }
            let in_flight = InFlight::default();
            let opened = self.open_stream(input, Arc::clone(&in_flight)).await;
            if opened.is_err() {
                self.closed_until = Some(Instant::now() + self.sender.open_pause);
            }
            let replies = opened?;
            let this = &*self;
            let answers =
                futures::stream::unfold(Some((replies, in_flight)), move |state| async move {
                    let (mut replies, in_flight) = state?;
                    let answer = this.next_answer(&mut replies, &in_flight).await?;
                    let next = matches!(answer, Ok(Ok(_))).then_some((replies, in_flight));
                    Some((answer, next))
                });
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.vote_request(request, option, false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.vote_request(request, option, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let data = snapshot.snapshot;
        let head = wire::SnapshotHead {
            envelope: self.envelope(),
            vote: Some(codec::vote_to(&vote)),
            total_bytes: data.len(),
        };
        let total = data.len();
        let sent = Arc::new(AtomicU64::new(0));
        let parts = snapshot_parts(head, data, Arc::clone(&sent));
        let mut client = self.client(Lane::Snapshot);
        let sending = client.install_snapshot(parts);
        tokio::pin!(sending);
        tokio::pin!(cancel);
        let mut seen = 0;
        let mut moved = Instant::now();
        let reply = loop {
            tokio::select! {
                reply = &mut sending => break reply,
                closed = &mut cancel => return Err(closed.into()),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            let now = sent.load(Ordering::Relaxed);
            if now != seen {
                (seen, moved) = (now, Instant::now());
            }
            let patience = if now >= total {
                INSTALL_PATIENCE
            } else {
                SNAPSHOT_PATIENCE
            };
            if moved.elapsed() > patience {
                return Err(self
                    .timeout(Lane::Snapshot, RPCTypes::InstallSnapshot, patience)
                    .into());
            }
        };
        let reply = reply
            .map_err(|s| self.failure(Lane::Snapshot, &s))?
            .into_inner();
        self.sender.pool.answered(self.to, Lane::Snapshot);
        let vote = codec::vote_from(reply.vote).map_err(|e| Self::malformed(e.0))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let message = wire::TransferRequest {
            envelope: self.envelope(),
            from_leader: Some(codec::vote_to(request.from_leader())),
            last_log: request.last_log_id().map(codec::log_id_to),
            target: *request.to_node_id(),
        };
        let mut client = self.client(Lane::Control);
        let asking = client.transfer_leader(message);
        let action = RPCTypes::TransferLeader;
        let reply = self
            .ask(Lane::Control, action, option.hard_ttl(), asking)
            .await?;
        if reply.refused.is_empty() {
            return Ok(Ok(()));
        }
        Err(RPCError::Network(NetworkError::from_string(reply.refused)))
    }
}

/// The head, then chunks, read as the peer takes them.
fn snapshot_parts(
    head: wire::SnapshotHead,
    data: SnapshotData,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = wire::SnapshotPart> + Send + 'static {
    use wire::snapshot_part::Part;
    let first = futures::stream::iter([wire::SnapshotPart {
        part: Some(Part::Head(head)),
    }]);
    let chunks = futures::stream::unfold(0, move |offset| {
        let (data, sent) = (data.clone(), Arc::clone(&sent));
        async move {
            sent.store(offset, Ordering::Relaxed);
            if offset >= data.len() {
                return None;
            }
            match data.read_at(offset, SNAPSHOT_CHUNK_BYTES) {
                Ok(chunk) => {
                    let next = offset + chunk.len() as u64;
                    Some((
                        wire::SnapshotPart {
                            part: Some(Part::Chunk(chunk)),
                        },
                        next,
                    ))
                }
                Err(error) => {
                    // The peer sees a snapshot cut short and refuses it.
                    tracing::error!(%error, "a snapshot could not be read");
                    None
                }
            }
        }
    });
    first.chain(chunks)
}
