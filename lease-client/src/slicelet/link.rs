//! A Slicelet's line to the Assigner's leader: finds it, registers, keeps the session stream.
//!
//! The line may fail at any time and for any length of time; it never ends a session. Only the
//! Assigner's word does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use leasehold_proto::message::Renew;
use leasehold_proto::target::SessionSecret;
use leasehold_proto::wire::pb::sessions_client::SessionsClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{
    AssignerMessage, CloseRequest, ClosedReason, DrainRequest, Hello, LoadReport, RefusedReason,
    RegisterReply, RegisterRequest, SliceletMessage, pb,
};
use leasehold_proto::{SessionId, TargetName, limits};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::channels::ChannelPool;
use crate::endpoints::Endpoints;
use crate::error::{Error, ErrorKind};

/// One request to an Assigner.
const RPC_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages that wait for the transport.
const SEND_BUFFER: usize = 16;
/// Load reports that wait for a stream.
const WAITING_REPORTS: usize = 16;

/// What came over the line.
pub(super) enum FromLink {
    Registered(RegisterReply),
    Message(AssignerMessage),
}

/// What waits to be sent. Of renewals only the newest: it says all that older ones say.
#[derive(Default)]
struct Outbox {
    renew: Option<Renew>,
    reports: VecDeque<LoadReport>,
}

/// The side of the line that its Slicelet holds.
pub(super) struct LinkHandle {
    outbox: Mutex<Outbox>,
    filled: Notify,
    session: Mutex<Option<(SessionId, SessionSecret)>>,
    /// A session that is over and has not yet said so itself.
    ended: Mutex<Option<(SessionId, SessionSecret)>>,
    /// The newest session of which everything is dropped.
    dropped: Mutex<Option<SessionId>>,
}

impl LinkHandle {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            outbox: Mutex::default(),
            filled: Notify::new(),
            session: Mutex::new(None),
            ended: Mutex::default(),
            dropped: Mutex::default(),
        })
    }

    fn outbox(&self) -> std::sync::MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send_renewal(&self, renew: Renew) {
        self.outbox().renew = Some(renew);
        self.filled.notify_one();
    }

    pub(super) fn send_report(&self, report: LoadReport) {
        let mut outbox = self.outbox();
        if outbox.reports.len() >= WAITING_REPORTS {
            outbox.reports.pop_front();
        }
        outbox.reports.push_back(report);
        drop(outbox);
        self.filled.notify_one();
    }

    fn session(&self) -> Option<(SessionId, SessionSecret)> {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_session(&self, session: SessionId, secret: SessionSecret) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some((session, secret));
    }

    /// The session is over; registering again waits until it has said so itself.
    fn end_session(&self, session: SessionId, secret: SessionSecret) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some((session, secret));
    }

    fn ended(&self) -> Option<(SessionId, SessionSecret)> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said_closed(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Everything that `session` gave is dropped: no check passes by it ever again.
    pub(super) fn dropped(&self, session: SessionId) {
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        self.filled.notify_one();
    }

    fn is_dropped(&self, session: SessionId) -> bool {
        let dropped = *self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.is_some_and(|dropped| session <= dropped)
    }

    fn next(&self, session: SessionId) -> Option<(SliceletMessage, bool)> {
        let mut outbox = self.outbox();
        outbox.renew.take_if(|renew| renew.session != session);
        outbox.reports.retain(|report| report.session == session);
        if let Some(renew) = outbox.renew.take() {
            return Some((SliceletMessage::Renew(renew), true));
        }
        outbox
            .reports
            .pop_front()
            .map(|report| (SliceletMessage::Load(report), false))
    }
}

/// What a line is told once.
#[derive(Clone)]
pub(super) struct LinkConfig {
    pub(super) register: RegisterRequest,
    pub(super) endpoints: Endpoints,
    pub(super) pool: ChannelPool,
}

/// The line itself, a task of its own.
pub(super) struct Link {
    config: LinkConfig,
    handle: Arc<LinkHandle>,
    events: mpsc::Sender<FromLink>,
    ttl: Duration,
    /// The last session that was held.
    newest: Option<SessionId>,
}

/// Why a stream is given up.
enum Ended {
    /// Go on with the present endpoint's successor after this long.
    Wait(Duration),
    /// The Slicelet is gone.
    Abandoned,
}

impl Link {
    pub(super) fn new(
        config: LinkConfig,
        handle: Arc<LinkHandle>,
        events: mpsc::Sender<FromLink>,
    ) -> Self {
        Self {
            config,
            handle,
            events,
            ttl: Duration::from_secs(3),
            newest: None,
        }
    }

    /// Runs until the Slicelet is gone.
    pub(super) async fn run(mut self) {
        loop {
            let ended = match (self.handle.session(), self.handle.ended()) {
                (Some((session, secret)), _) => self.attach(session, secret).await,
                (None, Some((session, secret))) => self.say_closed(session, secret).await,
                (None, None) => self.register().await,
            };
            match ended {
                Ended::Wait(wait) => tokio::time::sleep(wait).await,
                Ended::Abandoned => return,
            }
        }
    }

    async fn register(&mut self) -> Ended {
        let request = pb::RegisterRequest::from(&self.config.register);
        let call = |mut client: SessionsClient<Channel>| {
            let request = request.clone();
            async move { client.register(request).await }.boxed()
        };
        match ask(&mut self.config.endpoints, &self.config.pool, call).await {
            Ok(reply) => match RegisterReply::try_from(reply) {
                Ok(reply) => {
                    if self.newest.is_some_and(|newest| reply.session <= newest) {
                        // ◆ Never revived. It lives on at the Assigner, though a leader that was
                        // none had called it closed: its own word ends it.
                        self.handle.end_session(reply.session, reply.secret);
                        return Ended::Wait(self.config.endpoints.failed());
                    }
                    self.ttl = reply.ttl;
                    self.newest = Some(reply.session);
                    self.handle.begin_session(reply.session, reply.secret);
                    let sent = self.events.send(FromLink::Registered(reply)).await;
                    if sent.is_ok() {
                        Ended::Wait(Duration::ZERO)
                    } else {
                        Ended::Abandoned
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the Assigner's answer to a registration cannot be read");
                    Ended::Wait(self.config.endpoints.failed())
                }
            },
            Err((error, wait)) => {
                tracing::debug!(%error, "not registered yet");
                Ended::Wait(wait)
            }
        }
    }

    /// Says that a session which is over serves nothing any more. ◆ Only when that is so, and before
    /// another is registered: the word must end this session, never one that serves.
    async fn say_closed(&mut self, session: SessionId, secret: SessionSecret) -> Ended {
        while !self.handle.is_dropped(session) {
            tokio::select! {
                () = self.events.closed() => return Ended::Abandoned,
                () = self.handle.filled.notified() => {}
            }
        }
        let call = close_call(&self.config, session, secret);
        match ask(&mut self.config.endpoints, &self.config.pool, call).await {
            Err((error, wait)) if is_worth_asking_again(&error) => {
                tracing::debug!(%session, %error, "the closed session could not say so yet");
                Ended::Wait(wait)
            }
            // Already gone, or refused for good: nothing more can be said.
            Ok(_) | Err(_) => {
                self.handle.said_closed();
                Ended::Wait(Duration::ZERO)
            }
        }
    }

    async fn attach(&mut self, session: SessionId, secret: SessionSecret) -> Ended {
        let (sender, receiver) = mpsc::channel(SEND_BUFFER);
        let hello = Hello {
            session,
            secret,
            target: self.config.register.target.clone(),
        };
        // The buffer is empty: this cannot fail.
        let _ = sender.try_send((&SliceletMessage::Hello(hello)).into());
        let open = async {
            let channel = self
                .config
                .pool
                .get(self.config.endpoints.current())
                .await?;
            let mut client = client(channel);
            let stream = client.attach(ReceiverStream::new(receiver)).await;
            stream
                .map(tonic::Response::into_inner)
                .map_err(|status| Error::from_assigner("attaching", status))
        };
        match timeout(RPC_TIMEOUT, open).await {
            Ok(Ok(stream)) => self.converse((session, secret), sender, stream).await,
            Ok(Err(error)) => match error.status().and_then(Refusal::from_status) {
                Some(Refusal::NotLeader { leader }) => {
                    Ended::Wait(self.config.endpoints.not_leader(leader))
                }
                Some(Refusal::UnknownSession | Refusal::BadSecret) => {
                    self.session_over(session, secret).await
                }
                _ => Ended::Wait(self.config.endpoints.failed()),
            },
            Err(_) => Ended::Wait(self.config.endpoints.failed()),
        }
    }

    /// Sends and receives until the stream ends, or until renewals stay without an answer.
    async fn converse(
        &mut self,
        (session, secret): (SessionId, SessionSecret),
        sender: mpsc::Sender<pb::SliceletMessage>,
        mut stream: tonic::Streaming<pb::AssignerMessage>,
    ) -> Ended {
        let handle = Arc::clone(&self.handle);
        let mut waiting: Option<pb::SliceletMessage> = None;
        let mut answer_due: Option<Instant> = None;
        loop {
            if waiting.is_none() {
                waiting = handle.next(session).map(|(message, renewal)| {
                    if renewal {
                        // A leader that was cut off keeps its streams: its silence is the sign.
                        answer_due.get_or_insert_with(|| Instant::now() + self.ttl / 3);
                    }
                    (&message).into()
                });
            }
            let silent = async {
                match answer_due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.events.closed() => return Ended::Abandoned,
                message = stream.message() => match message {
                    Ok(Some(message)) => match AssignerMessage::try_from(message) {
                        Ok(message) => {
                            if matches!(message, AssignerMessage::Renewed(_)) {
                                answer_due = None;
                                self.config.endpoints.succeeded();
                            }
                            if let Some(ended) = self.receive((session, secret), message).await {
                                return ended;
                            }
                        }
                        Err(error) => tracing::error!(%error, "a message of the Assigner cannot be read"),
                    },
                    Ok(None) => return Ended::Wait(self.config.endpoints.failed()),
                    Err(status) => {
                        tracing::debug!(%status, "the session stream ended");
                        return Ended::Wait(self.config.endpoints.failed());
                    }
                },
                permit = sender.reserve(), if waiting.is_some() => match (permit, waiting.take()) {
                    (Ok(permit), Some(message)) => permit.send(message),
                    _ => return Ended::Wait(self.config.endpoints.failed()),
                },
                () = handle.filled.notified(), if waiting.is_none() => {}
                () = silent => {
                    tracing::debug!("renewals stay without an answer; trying another Assigner");
                    return Ended::Wait(self.config.endpoints.failed());
                }
            }
        }
    }

    async fn receive(
        &mut self,
        (session, secret): (SessionId, SessionSecret),
        message: AssignerMessage,
    ) -> Option<Ended> {
        match message {
            AssignerMessage::Refused {
                session: _,
                reason,
                leader,
            } => match reason {
                RefusedReason::NotLeader => {
                    Some(Ended::Wait(self.config.endpoints.not_leader(leader)))
                }
                RefusedReason::BadSecret => Some(self.session_over(session, secret).await),
                RefusedReason::NotAttached
                | RefusedReason::Superseded
                | RefusedReason::HigherIncarnation => {
                    tracing::warn!(?reason, "the Assigner refuses this session's stream");
                    Some(Ended::Wait(
                        self.config.endpoints.failed().max(RETRY_REFUSED),
                    ))
                }
                RefusedReason::Overload | RefusedReason::Invalid => {
                    tracing::warn!(?reason, "the Assigner refused a message");
                    None
                }
            },
            AssignerMessage::Closed {
                session: closed,
                reason,
            } if closed == session => {
                tracing::info!(%session, ?reason, "the session was closed; a new one will be registered");
                Some(self.session_over(session, secret).await)
            }
            message => {
                let sent = self.events.send(FromLink::Message(message)).await;
                sent.is_err().then_some(Ended::Abandoned)
            }
        }
    }

    async fn session_over(&mut self, session: SessionId, secret: SessionSecret) -> Ended {
        self.handle.end_session(session, secret);
        let closed = AssignerMessage::Closed {
            session,
            reason: ClosedReason::Unknown,
        };
        match self.events.send(FromLink::Message(closed)).await {
            Ok(()) => Ended::Wait(Duration::ZERO),
            Err(_) => Ended::Abandoned,
        }
    }
}

type Closing = BoxFuture<'static, Result<tonic::Response<pb::CloseReply>, Status>>;

const RETRY_REFUSED: Duration = Duration::from_millis(100);

fn client(channel: Channel) -> SessionsClient<Channel> {
    SessionsClient::new(channel)
        .max_decoding_message_size(limits::VIEW_BYTES + limits::MESSAGE_BYTES)
}

/// Makes one request to the present endpoint; on failure moves on and says how long to wait.
async fn ask<T>(
    endpoints: &mut Endpoints,
    pool: &ChannelPool,
    call: impl Fn(SessionsClient<Channel>) -> BoxFuture<'static, Result<tonic::Response<T>, Status>>,
) -> Result<T, (Error, Duration)> {
    let asked = async {
        let channel = pool.get(endpoints.current()).await?;
        call(client(channel))
            .await
            .map_err(|status| Error::from_assigner("asking the Assigner", status))
    };
    let late = || {
        Error::new(
            ErrorKind::Indeterminate,
            "the Assigner did not answer in time",
        )
    };
    let result = timeout(RPC_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| Err(late()));
    match result {
        Ok(reply) => {
            endpoints.succeeded();
            Ok(reply.into_inner())
        }
        Err(error) => {
            let wait = match error.status().and_then(Refusal::from_status) {
                Some(Refusal::NotLeader { leader }) => endpoints.not_leader(leader),
                _ => endpoints.failed(),
            };
            Err((error, wait))
        }
    }
}

/// Asks again and again, of any endpoint, until it is answered, refused for good, or too late.
async fn insist<T>(
    config: &LinkConfig,
    until: Instant,
    call: impl Fn(SessionsClient<Channel>) -> BoxFuture<'static, Result<tonic::Response<T>, Status>>,
) -> Result<T, Error> {
    let mut endpoints = config.endpoints.clone();
    loop {
        let (error, wait) = match ask(&mut endpoints, &config.pool, &call).await {
            Ok(reply) => return Ok(reply),
            Err(failed) => failed,
        };
        if !is_worth_asking_again(&error) || Instant::now() + wait >= until {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
    }
}

/// Says that the session serves nothing any more. Requires that its checks fail for ever.
pub(super) async fn close(
    config: &LinkConfig,
    handle: &LinkHandle,
    until: Instant,
) -> Result<(), Error> {
    let Some((session, secret)) = handle.session().or_else(|| handle.ended()) else {
        return Ok(());
    };
    match insist(config, until, close_call(config, session, secret)).await {
        // Already gone is what was wanted.
        Err(error) if error.kind() == ErrorKind::Expired => Ok(()),
        result => result.map(|_| ()),
    }
}

fn is_worth_asking_again(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Indeterminate
    )
}

fn close_call(
    config: &LinkConfig,
    session: SessionId,
    secret: SessionSecret,
) -> impl Fn(SessionsClient<Channel>) -> Closing + use<> {
    let request = CloseRequest {
        target: target(config),
        session,
        secret,
    };
    let request = pb::CloseRequest::from(&request);
    move |mut client: SessionsClient<Channel>| {
        let request = request.clone();
        async move { client.close(request).await }.boxed()
    }
}

/// Says that the session is about to leave.
pub(super) async fn drain(
    config: &LinkConfig,
    handle: &LinkHandle,
    until: Instant,
) -> Result<(), Error> {
    let Some((session, secret)) = handle.session() else {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "there is no session to drain",
        ));
    };
    let request = DrainRequest {
        target: target(config),
        session,
        secret,
    };
    let request = pb::DrainRequest::from(&request);
    let call = |mut client: SessionsClient<Channel>| {
        let request = request.clone();
        async move { client.drain(request).await }.boxed()
    };
    insist(config, until, call).await.map(|_| ())
}

fn target(config: &LinkConfig) -> TargetName {
    config.register.target.clone()
}
