//! Many sessions from one process, as a bench needs them: the session protocol spoken directly,
//! several sessions multiplexed on one stream.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use leasehold_proto::target::SessionSecret;
use leasehold_proto::wire::pb::assigner_message::Message as FromAssigner;
use leasehold_proto::wire::pb::sessions_client::SessionsClient;
use leasehold_proto::wire::pb::slicelet_message::Message as FromSlicelet;
use leasehold_proto::wire::{self, pb};
use leasehold_proto::{Generation, SessionId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// HTTP/2 window of a connection that carries many small messages.
const WINDOW_BYTES: u32 = 16 << 20;
/// Registrations under way at once.
const REGISTERING: usize = 64;

/// One registered session.
#[derive(Clone)]
pub struct Session {
    pub id: SessionId,
    secret: SessionSecret,
    target: String,
    pub known: Option<Generation>,
    seq: u64,
}

/// A connection of its own to an Assigner.
pub async fn connect(endpoint: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned())?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES / 2);
    endpoint
        .connect()
        .await
        .context("cannot connect to the Assigner")
}

/// Registers `count` sessions of `target`.
pub async fn register(
    channel: &Channel,
    target: &str,
    count: usize,
) -> anyhow::Result<Vec<Session>> {
    let one = |number: usize| {
        let mut client = SessionsClient::new(channel.clone());
        let request = pb::RegisterRequest {
            target: target.to_owned(),
            squid: Some(pb::Squid {
                address: format!("127.0.0.1:{}", 1 + number % 60_000),
                id: rand::random::<u128>().to_be_bytes().to_vec(),
            }),
            clock: pb::ClockClass::Raw.into(),
            app_version: String::new(),
        };
        async move {
            wire::RegisterReply::try_from(client.register(request).await?.into_inner())
                .context("the registration's answer")
        }
    };
    let (mut sessions, mut waiting, mut next) =
        (Vec::with_capacity(count), FuturesUnordered::new(), 0);
    while sessions.len() < count {
        while next < count && waiting.len() < REGISTERING {
            waiting.push(one(next));
            next += 1;
        }
        let reply = waiting
            .next()
            .await
            .context("no registration is under way")??;
        sessions.push(Session {
            id: reply.session,
            secret: reply.secret,
            target: target.to_owned(),
            known: None,
            seq: 0,
        });
    }
    Ok(sessions)
}

/// A stream that carries the messages of some sessions.
pub struct Stream {
    out: mpsc::Sender<pb::SliceletMessage>,
    answers: Streaming<pb::AssignerMessage>,
}

impl Stream {
    /// Opens a stream and attaches `sessions` to it.
    pub async fn attach(channel: &Channel, sessions: &[Session]) -> anyhow::Result<Self> {
        let (out, messages) = mpsc::channel(2 * sessions.len() + 16);
        for session in sessions {
            let hello = pb::Hello {
                session: session.id.as_u64(),
                secret: Some((&session.secret).into()),
                target: session.target.clone(),
            };
            out.send(pb::SliceletMessage {
                message: Some(FromSlicelet::Hello(hello)),
            })
            .await?;
        }
        let answers = SessionsClient::new(channel.clone())
            .max_decoding_message_size(leasehold_proto::limits::VIEW_BYTES)
            .attach(ReceiverStream::new(messages))
            .await?
            .into_inner();
        Ok(Self { out, answers })
    }

    /// Both halves, for a sender and a receiver that do not wait for each other.
    pub fn split(
        self,
    ) -> (
        mpsc::Sender<pb::SliceletMessage>,
        Streaming<pb::AssignerMessage>,
    ) {
        (self.out, self.answers)
    }
}

/// The next renewal of a session; each has a number of its own.
pub fn renewal(session: &mut Session) -> pb::SliceletMessage {
    session.seq += 1;
    let renew = pb::Renew {
        session: session.id.as_u64(),
        seq: session.seq,
        known: session.known.as_ref().map(Into::into),
        words: Vec::new(),
        armed: None,
        merging: None,
    };
    pb::SliceletMessage {
        message: Some(FromSlicelet::Renew(renew)),
    }
}

/// What a session is told.
pub enum Told {
    /// A renewal was answered.
    Renewed(SessionId),
    /// The session is closed.
    Closed,
    /// A newer view.
    View,
}

/// Reads one message, following the views it carries.
pub fn read(
    message: pb::AssignerMessage,
    sessions: &mut impl std::ops::IndexMut<SessionId, Output = Session>,
) -> anyhow::Result<Told> {
    match message.message.context("an empty message")? {
        FromAssigner::Renewed(renewed) => {
            let id = SessionId::from_u64(renewed.session);
            follow(&mut sessions[id], &renewed.view_update)?;
            Ok(Told::Renewed(id))
        }
        FromAssigner::Pushed(pushed) => {
            let id = SessionId::from_u64(pushed.session);
            follow(&mut sessions[id], &pushed.view_update)?;
            Ok(Told::View)
        }
        FromAssigner::Closed(_) => Ok(Told::Closed),
        FromAssigner::Refused(refused) => {
            bail!("the Assigner refused a session: reason {}", refused.reason)
        }
    }
}

fn follow(session: &mut Session, update: &[u8]) -> anyhow::Result<()> {
    if !update.is_empty() {
        session.known = Some(wire::decode_view_update(update)?.generation());
    }
    Ok(())
}

/// Sessions found by number.
pub struct ById(pub std::collections::HashMap<SessionId, Session>);

impl std::ops::Index<SessionId> for ById {
    type Output = Session;

    fn index(&self, id: SessionId) -> &Session {
        &self.0[&id]
    }
}

impl std::ops::IndexMut<SessionId> for ById {
    fn index_mut(&mut self, id: SessionId) -> &mut Session {
        self.0
            .get_mut(&id)
            .expect("the Assigner speaks only of sessions on this stream")
    }
}

/// Splits sessions evenly over `parts`.
pub fn deal(sessions: Vec<Session>, parts: usize) -> anyhow::Result<Vec<Vec<Session>>> {
    ensure!(parts > 0, "nothing to deal to");
    let each = sessions.len().div_ceil(parts);
    Ok(sessions.chunks(each).map(<[Session]>::to_vec).collect())
}

/// Longest time in which a session of a bench may stay unanswered.
pub const ANSWER: Duration = Duration::from_secs(10);
