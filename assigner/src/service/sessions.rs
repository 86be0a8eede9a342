//! Sessions: registered, attached to a stream, drained, closed. Only the leader serves them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use leasehold_proto::command::{CloseProof, Command, Reply};
use leasehold_proto::message::Renew;
use leasehold_proto::table::SessionPhase;
use leasehold_proto::target::SessionSecret;
use leasehold_proto::wire::pb::sessions_server::Sessions;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{
    AssignerMessage, CloseRequest, ClosedReason, DrainRequest, Hello, RefusedReason, RegisterReply,
    RegisterRequest, SliceletMessage, WireError, pb,
};
use leasehold_proto::{SessionId, TargetName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::leader::{LeaderHandle, OUTBOX, Outbox, StreamId, ToLeader};
use crate::shared::Shared;

/// Messages of one stream that are handled together.
const CHUNK: usize = 512;

/// See the file.
pub(super) struct SessionsService {
    shared: Arc<Shared>,
    streams: Arc<Semaphore>,
    next_stream: AtomicU64,
}

impl SessionsService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let streams = Arc::new(Semaphore::new(shared.config.limits.session_streams));
        Self {
            shared,
            streams,
            next_stream: AtomicU64::new(1),
        }
    }

    /// Checks that the caller speaks for the session, which need not live any more.
    fn check_secret(
        &self,
        target: &TargetName,
        session: SessionId,
        secret: &SessionSecret,
    ) -> Result<(), Refusal> {
        let table = self.shared.replica.table();
        let state = table.target(target).ok_or(Refusal::UnknownTarget)?;
        let record = state.session(session).ok_or(Refusal::UnknownSession)?;
        if record.secret == *secret {
            Ok(())
        } else {
            Err(Refusal::BadSecret)
        }
    }

    async fn serve_register(&self, request: RegisterRequest) -> Result<RegisterReply, Refusal> {
        self.shared.ready_leader().await?;
        let target = request.target.clone();
        let command = Command::RegisterSession {
            target: request.target,
            squid: request.squid,
            clock: request.clock,
            secret: SessionSecret::from_bytes(random_bytes()?),
            app_version: request.app_version,
        };
        let Reply::Registered(registered) = self.shared.propose(&command).await? else {
            return Err(Refusal::Internal(
                "a registration was answered with something else".into(),
            ));
        };
        let table = self.shared.replica.table();
        let config = table
            .target(&target)
            .ok_or(Refusal::UnknownTarget)?
            .config();
        tracing::info!(target_name = %target, session = %registered.session, "registered");
        Ok(RegisterReply {
            session: registered.session,
            secret: registered.secret,
            ttl: registered.ttl,
            not_before: registered.not_before,
            key_hash: config.key_hash,
            on_lapse: config.on_lapse,
            handoff_deadline: config.handoff_deadline,
        })
    }
}

/// 128 bits from the system's own source.
fn random_bytes() -> Result<[u8; 16], Refusal> {
    use rand::TryRng;
    let mut bytes = [0; 16];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| {
            Refusal::Internal(format!("the system gives no random numbers: {error}"))
        })?;
    Ok(bytes)
}

fn decoded<N: TryFrom<P, Error = WireError>, P>(request: Request<P>) -> Result<N, Refusal> {
    Ok(N::try_from(request.into_inner())?)
}

#[tonic::async_trait]
impl Sessions for SessionsService {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterReply>, Status> {
        let reply = self.serve_register(decoded(request)?).await?;
        Ok(Response::new((&reply).into()))
    }

    type AttachStream = Outgoing;

    async fn attach(
        &self,
        request: Request<Streaming<pb::SliceletMessage>>,
    ) -> Result<Response<Outgoing>, Status> {
        let permit = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Refusal::Overload)?;
        let leader = self.shared.leader()?;
        let (out, batches) = mpsc::channel(OUTBOX);
        let stream = Incoming {
            shared: Arc::clone(&self.shared),
            leader,
            id: self.next_stream.fetch_add(1, Ordering::Relaxed),
            out,
            attached: 0,
            _permit: permit,
        };
        self.shared.metrics.session_streams.inc();
        tokio::spawn(stream.run(request.into_inner()));
        Ok(Response::new(Outgoing {
            batches,
            current: Vec::new().into_iter(),
        }))
    }

    async fn close(
        &self,
        request: Request<pb::CloseRequest>,
    ) -> Result<Response<pb::CloseReply>, Status> {
        let request: CloseRequest = decoded(request)?;
        self.shared.ready_leader().await?;
        match self.check_secret(&request.target, request.session, &request.secret) {
            Ok(()) => {}
            // Closed already, if a quorum says so too: what the caller wants is so.
            Err(Refusal::UnknownTarget | Refusal::UnknownSession) => {
                self.shared.confirmed().await?;
                match self.check_secret(&request.target, request.session, &request.secret) {
                    Ok(()) => {}
                    Err(Refusal::UnknownTarget | Refusal::UnknownSession) => {
                        return Ok(Response::new(pb::CloseReply {}));
                    }
                    Err(refusal) => return Err(refusal.into()),
                }
            }
            Err(refusal) => return Err(refusal.into()),
        }
        let CloseRequest {
            target, session, ..
        } = request;
        tracing::info!(target_name = %target, %session, "closed by its own word");
        match self
            .shared
            .propose(&Command::CloseSession {
                target,
                session,
                proof: CloseProof::OwnWord,
            })
            .await
        {
            Ok(_) | Err(Refusal::UnknownSession | Refusal::UnknownTarget) => {
                Ok(Response::new(pb::CloseReply {}))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainReply>, Status> {
        let request: DrainRequest = decoded(request)?;
        self.shared.ready_leader().await?;
        self.check_secret(&request.target, request.session, &request.secret)?;
        let DrainRequest {
            target, session, ..
        } = request;
        tracing::info!(target_name = %target, %session, "draining by its own word");
        self.shared
            .propose(&Command::DrainSession { target, session })
            .await?;
        Ok(Response::new(pb::DrainReply {}))
    }
}

/// What one stream is sent: batches, flattened.
pub(crate) struct Outgoing {
    batches: mpsc::Receiver<Vec<pb::AssignerMessage>>,
    current: std::vec::IntoIter<pb::AssignerMessage>,
}

impl Stream for Outgoing {
    type Item = Result<pb::AssignerMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.current.next() {
                return Poll::Ready(Some(Ok(message)));
            }
            match self.batches.poll_recv(context) {
                Poll::Ready(Some(batch)) => self.current = batch.into_iter(),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// How a session stands in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Live,
    Ghost,
    Leaving,
    Unknown,
    BadSecret,
    /// Made after a restore that this node's history does not have.
    OfLaterLife,
}

/// What one stream says: read in chunks, passed on to the leader of the term in which it began.
struct Incoming {
    shared: Arc<Shared>,
    leader: Arc<LeaderHandle>,
    id: StreamId,
    out: Outbox,
    /// Sessions introduced so far.
    attached: usize,
    _permit: OwnedSemaphorePermit,
}

impl Incoming {
    async fn run(mut self, incoming: Streaming<pb::SliceletMessage>) {
        let (ended, mut ready) = (self.leader.ended.clone(), self.leader.ready.clone());
        tokio::select! {
            () = ended.cancelled() => {}
            is_ready = async { ready.wait_for(|ready| *ready).await.is_ok() } => {
                if is_ready {
                    self.read(incoming).await;
                }
            }
        }
        if ended.is_cancelled() {
            self.refuse(None, RefusedReason::NotLeader);
        }
        self.shared.metrics.session_streams.dec();
        // Fails only when the term is over, and then nothing is remembered of the stream.
        let _ = self
            .leader
            .inbox
            .send(ToLeader::Detach { stream: self.id })
            .await;
    }

    async fn read(&mut self, incoming: Streaming<pb::SliceletMessage>) {
        let given_up = CancellationToken::new();
        let open = ToLeader::Open {
            stream: self.id,
            out: self.out.clone(),
            ended: given_up.clone(),
        };
        if self.leader.inbox.send(open).await.is_err() {
            return;
        }
        let mut chunks = incoming.ready_chunks(CHUNK);
        loop {
            let chunk = tokio::select! {
                () = self.leader.ended.cancelled() => return,
                () = given_up.cancelled() => return,
                () = self.out.closed() => return,
                chunk = chunks.next() => chunk,
            };
            let Some(chunk) = chunk else { return };
            if !self.handle(chunk).await {
                return;
            }
        }
    }

    /// Passes on what a chunk says, in its order; false when the stream must end.
    async fn handle(&mut self, chunk: Vec<Result<pb::SliceletMessage, Status>>) -> bool {
        let mut renewals = Vec::with_capacity(chunk.len());
        for message in chunk {
            let Ok(message) = message else {
                self.pass_on(&mut renewals);
                return false;
            };
            match SliceletMessage::try_from(message) {
                Ok(SliceletMessage::Renew(renew)) => renewals.push(renew),
                Ok(SliceletMessage::Hello(hello)) => {
                    if !self.pass_on(&mut renewals) || !self.hello(hello).await {
                        return false;
                    }
                }
                Ok(SliceletMessage::Load(report)) => {
                    let load = ToLeader::Load {
                        stream: self.id,
                        report,
                    };
                    // A leader that cannot keep up does without: the next report follows.
                    let _ = self.leader.inbox.try_send(load);
                }
                Err(error) => {
                    tracing::debug!(stream = self.id, %error, "a message outside its bounds");
                    self.refuse(None, RefusedReason::Invalid);
                    return false;
                }
            }
        }
        self.pass_on(&mut renewals)
    }

    /// False when the leader is gone. A leader that cannot keep up refuses: senders try again.
    fn pass_on(&mut self, renewals: &mut Vec<Renew>) -> bool {
        if renewals.is_empty() {
            return true;
        }
        let message = ToLeader::Renewals {
            stream: self.id,
            renewals: std::mem::take(renewals),
        };
        match self.leader.inbox.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(message)) => {
                if let ToLeader::Renewals { renewals, .. } = message {
                    self.shared
                        .metrics
                        .renewals_refused
                        .inc_by(renewals.len() as u64);
                    let refused =
                        |renew: &Renew| refused(Some(renew.session), RefusedReason::Overload, None);
                    // A reader that cannot even take refusals finds out by itself.
                    let _ = self.out.try_send(renewals.iter().map(refused).collect());
                }
                true
            }
        }
    }

    async fn hello(&mut self, hello: Hello) -> bool {
        let mut standing = self.standing(&hello);
        if standing == Standing::Unknown {
            // ◆ A leader that has lost its quorum without knowing would call every session unknown
            // that was registered since: what the table does not show is known only to a quorum.
            if self.shared.confirmed().await.is_err() {
                self.refuse(None, RefusedReason::NotLeader);
                return false;
            }
            standing = self.standing(&hello);
        }
        let session = hello.session;
        let reason = match standing {
            Standing::Live => {
                if self.attached >= self.shared.config.limits.sessions_per_stream {
                    self.refuse(Some(session), RefusedReason::Overload);
                    return true;
                }
                self.attached += 1;
                let attach = ToLeader::Attach {
                    stream: self.id,
                    session,
                    target: hello.target,
                };
                return self.leader.inbox.send(attach).await.is_ok();
            }
            Standing::BadSecret => {
                let told = refused(Some(session), RefusedReason::BadSecret, None);
                return self.out.send(vec![told]).await.is_ok();
            }
            Standing::OfLaterLife => {
                self.shared.halt(format!(
                    "{session} belongs to a later life of this cluster: this is an old copy that must not go on; stop \
                     it, or restore it with a larger incarnation"
                ));
                self.refuse(Some(session), RefusedReason::HigherIncarnation);
                return false;
            }
            Standing::Unknown => ClosedReason::Unknown,
            Standing::Ghost => ClosedReason::Expired,
            Standing::Leaving => ClosedReason::TargetDeleted,
        };
        let closed = AssignerMessage::Closed { session, reason };
        self.out.send(vec![(&closed).into()]).await.is_ok()
    }

    /// How the session of a greeting stands, as far as this node's table shows.
    fn standing(&self, hello: &Hello) -> Standing {
        let table = self.shared.replica.table();
        if hello.session.incarnation() > table.incarnation().get() {
            return Standing::OfLaterLife;
        }
        let found = table
            .target(&hello.target)
            .and_then(|target| target.session(hello.session));
        match found {
            None => Standing::Unknown,
            Some(record) if record.secret != hello.secret => Standing::BadSecret,
            Some(record) => match record.phase {
                SessionPhase::Live => Standing::Live,
                SessionPhase::Ghost => Standing::Ghost,
                SessionPhase::Leaving => Standing::Leaving,
            },
        }
    }

    fn refuse(&self, session: Option<SessionId>, reason: RefusedReason) {
        let leader = self
            .shared
            .leader_address()
            .filter(|_| reason == RefusedReason::NotLeader);
        // A full outbox belongs to a reader that does not read; the end of the stream tells it.
        let _ = self.out.try_send(vec![refused(session, reason, leader)]);
    }
}

fn refused(
    session: Option<SessionId>,
    reason: RefusedReason,
    leader: Option<leasehold_proto::target::PodAddress>,
) -> pb::AssignerMessage {
    (&AssignerMessage::Refused {
        session,
        reason,
        leader,
    })
        .into()
}
