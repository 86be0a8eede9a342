//! Slicelets among themselves: the source's answer to *ready* travels as the reply of the
//! destination's call, over a connection that the destination made. An unsolicited surrender
//! cannot be received.

use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::SessionId;
use leasehold_proto::message::{Ready, ReadyAnswer};
use leasehold_proto::wire::pb::slicelet_peer_client::SliceletPeerClient;
use leasehold_proto::wire::pb::slicelet_peer_server::{SliceletPeer, SliceletPeerServer};
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{PullRequest, pb};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::transfer::{Line, Pull};
use crate::channels::ChannelPool;

/// How long a source keeps a destination's call; it calls again.
const LONG_POLL: Duration = Duration::from_secs(5);

/// How long a call for state may take to say what it is about.
const BEGIN_TIME: Duration = Duration::from_secs(5);

/// What a source is asked.
pub(super) enum Asked {
    /// To surrender.
    Ready(Ready, oneshot::Sender<ReadyAnswer>),
    /// For state.
    Pull(Box<Pull>),
}

/// The gRPC service that every pod with a Slicelet serves at its advertised address. See
/// [`Slicelet::peer_service`](crate::Slicelet::peer_service).
#[derive(Clone)]
pub struct PeerService {
    pub(super) slicelets: Vec<(Arc<Shared>, mpsc::Sender<Asked>)>,
}

impl PeerService {
    /// Answers also for the Slicelets of `other`: one server can carry only one such service.
    #[must_use]
    pub fn and(mut self, other: PeerService) -> Self {
        self.slicelets.extend(other.slicelets);
        self
    }

    /// The service as a server takes it.
    pub fn into_server(self) -> SliceletPeerServer<Self> {
        SliceletPeerServer::new(self)
    }

    /// How to ask the Slicelet that holds a session.
    fn holder_of(&self, session: SessionId) -> Option<&mpsc::Sender<Asked>> {
        let holds = |(shared, _): &&(Arc<Shared>, _)| shared.session() == Some(session);
        self.slicelets.iter().find(holds).map(|(_, asked)| asked)
    }
}

#[tonic::async_trait]
impl SliceletPeer for PeerService {
    type PullStateStream = ReceiverStream<Result<pb::StateFrame, Status>>;

    async fn pull_state(
        &self,
        request: Request<Streaming<pb::PullRequest>>,
    ) -> Result<Response<Self::PullStateStream>, Status> {
        let mut acks = request.into_inner();
        let first = tokio::time::timeout(BEGIN_TIME, acks.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nothing was asked"))??;
        let first = first.map(PullRequest::try_from).transpose();
        let Some(PullRequest::Begin(begin)) = first.map_err(Refusal::from)? else {
            return Err(Refusal::Invalid("a call for state begins with `begin`".to_owned()).into());
        };
        let Some(asked) = self.holder_of(begin.from) else {
            return Err(Refusal::UnknownSession.into());
        };
        let (reply, answer) = oneshot::channel();
        let line = Box::new(Line { acks, reply });
        asked
            .try_send(Asked::Pull(Box::new(Pull { begin, line })))
            .map_err(|_| Refusal::Overload)?;
        match tokio::time::timeout(LONG_POLL, answer).await {
            Ok(Ok(answer)) => Ok(Response::new(ReceiverStream::new(answer?))),
            _ => Err(Status::unavailable("the transfer has not begun; ask again")),
        }
    }

    async fn take_over(
        &self,
        request: Request<pb::ReadyRequest>,
    ) -> Result<Response<pb::ReadyReply>, Status> {
        let ready = Ready::try_from(request.into_inner()).map_err(Refusal::from)?;
        let Some(asked) = self.holder_of(ready.from) else {
            let answer = ReadyAnswer::NotMine(ready.from);
            return Ok(Response::new((&answer).into()));
        };
        let (reply, answer) = oneshot::channel();
        asked
            .try_send(Asked::Ready(ready, reply))
            .map_err(|_| Refusal::Overload)?;
        match tokio::time::timeout(LONG_POLL, answer).await {
            Ok(Ok(answer)) => Ok(Response::new((&answer).into())),
            // Not decided yet, or the Slicelet is gone: the destination asks again.
            _ => Err(Status::unavailable(
                "the handoff is not decided yet; ask again",
            )),
        }
    }
}

/// Makes the connection to a source before it is needed.
pub(super) fn connect_early(pool: &ChannelPool, address: String) {
    let pool = pool.clone();
    tokio::spawn(async move {
        if let Err(error) = pool.get(&address).await {
            tracing::debug!(%error, "the source of a handoff cannot be reached yet");
        }
    });
}

/// Says ready and waits for the source's answer; `None` when there was none.
pub(super) async fn say_ready(
    pool: ChannelPool,
    address: String,
    ready: Ready,
) -> Option<ReadyAnswer> {
    let asked = async {
        let channel = pool
            .get(&address)
            .await
            .map_err(|error| error.to_string())?;
        let reply = SliceletPeerClient::new(channel)
            .take_over(pb::ReadyRequest::from(&ready))
            .await;
        let reply = reply.map_err(|status| status.to_string())?;
        ReadyAnswer::try_from(reply.into_inner()).map_err(|error| error.to_string())
    };
    match tokio::time::timeout(LONG_POLL + Duration::from_secs(1), asked).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(handoff = %ready.handoff, %error, "the source has not answered");
            None
        }
        Err(_) => None,
    }
}
