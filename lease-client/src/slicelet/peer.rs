//! Slicelets among themselves: the source's answer to *ready* travels as the reply of the
//! destination's call, over a connection that the destination made. An unsolicited surrender
//! cannot be received.

use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::message::{Ready, ReadyAnswer};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::pb::slicelet_peer_client::SliceletPeerClient;
use leasehold_proto::wire::pb::slicelet_peer_server::{SliceletPeer, SliceletPeerServer};
use leasehold_proto::wire::status::Refusal;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use super::Shared;
use crate::channels::ChannelPool;

/// How long a source keeps a destination's call; it calls again.
const LONG_POLL: Duration = Duration::from_secs(5);

/// What a source is asked.
pub(super) struct Asked {
    pub(super) ready: Ready,
    pub(super) reply: oneshot::Sender<ReadyAnswer>,
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
}

#[tonic::async_trait]
impl SliceletPeer for PeerService {
    type PullStateStream = futures::stream::Empty<Result<pb::StateFrame, Status>>;

    async fn pull_state(
        &self,
        _: Request<tonic::Streaming<pb::PullRequest>>,
    ) -> Result<Response<Self::PullStateStream>, Status> {
        Err(Status::unimplemented("this Slicelet has no state to send"))
    }

    async fn take_over(
        &self,
        request: Request<pb::ReadyRequest>,
    ) -> Result<Response<pb::ReadyReply>, Status> {
        let ready = Ready::try_from(request.into_inner()).map_err(Refusal::from)?;
        let holds = |(shared, _): &&(Arc<Shared>, _)| shared.session() == Some(ready.from);
        let Some((_, asked)) = self.slicelets.iter().find(holds) else {
            let answer = ReadyAnswer::NotMine(ready.from);
            return Ok(Response::new((&answer).into()));
        };
        let (reply, answer) = oneshot::channel();
        asked
            .try_send(Asked { ready, reply })
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
