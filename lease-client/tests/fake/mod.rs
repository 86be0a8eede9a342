//! A small Assigner for this crate's own tests: one node, nothing stored, the real machines.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test files"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use leasehold_client::clock::{LeaseClock, SystemClock};
use leasehold_client::proto::command::{
    CloseProof, Command, Digest, EndWord, PlanStep, Registered, Reply,
};
use leasehold_client::proto::grantor::{self, Grantor, GrantorConfig, Renewal, SessionInfo};
use leasehold_client::proto::message::Word;
use leasehold_client::proto::table::{Event, LeaseTable};
use leasehold_client::proto::target::{
    Consistency, SessionSecret, Squid, TargetChange, TargetConfig,
};
use leasehold_client::proto::view::{Handoff, Lease};
use leasehold_client::proto::wire::pb::sessions_server::{Sessions, SessionsServer};
use leasehold_client::proto::wire::pb::watch_server::{Watch, WatchServer};
use leasehold_client::proto::wire::status::Refusal;
use leasehold_client::proto::wire::{
    self, AssignerMessage, CloseRequest, ClosedReason, DrainRequest, RefusedReason, RegisterReply,
    RegisterRequest, SliceletMessage, WatchRequest, pb,
};
use leasehold_client::proto::{
    ClockClass, Epoch, Generation, HandoffId, LogId, PodAddress, SessionId, Slice, SliceKey,
    TargetName,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

type ToSlicelet = mpsc::Sender<Result<pb::AssignerMessage, Status>>;
type ToClerk = mpsc::Sender<Result<pb::WatchReply, Status>>;

struct State {
    table: LeaseTable,
    index: u64,
    grantor: Grantor,
    clock: SystemClock,
    streams: BTreeMap<SessionId, (TargetName, ToSlicelet)>,
    known: BTreeMap<SessionId, Option<Generation>>,
    merging: BTreeMap<SessionId, Option<Epoch>>,
    watchers: Vec<(TargetName, Option<Generation>, ToClerk)>,
    /// Gives vacant slices away.
    places: bool,
    /// Answers nothing.
    silent: bool,
    /// Nor does anything else.
    absent: bool,
}

/// See the module's description.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    pub address: SocketAddr,
}

pub fn target(name: &str) -> TargetName {
    TargetName::new(name).unwrap()
}

impl Fake {
    /// Serves on a free port.
    pub async fn start() -> Fake {
        let clock = SystemClock::new();
        let mut grantor = Grantor::new(1, clock.for_t0(), GrantorConfig::default());
        grantor.handle(clock.for_t0(), grantor::Input::Ready(Vec::new()));
        let state = State {
            table: LeaseTable::new(),
            index: 0,
            grantor,
            clock,
            streams: BTreeMap::new(),
            known: BTreeMap::new(),
            merging: BTreeMap::new(),
            watchers: Vec::new(),
            places: true,
            silent: false,
            absent: false,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake {
            state: Arc::new(Mutex::new(state)),
            address: listener.local_addr().unwrap(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(SessionsServer::new(fake.clone()))
            .add_service(WatchServer::new(fake.clone()))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        tokio::spawn(async move { server.await.unwrap() });
        let ticking = Arc::downgrade(&fake.state);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            while let Some(state) = ticking.upgrade() {
                state.lock().unwrap().wake();
                drop(state);
                tick.tick().await;
            }
        });
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The address of an Assigner that does not lead but knows that this one does.
    pub async fn follower(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder()
            .add_service(SessionsServer::new(Follower(self.address.to_string())))
            .add_service(WatchServer::new(self.clone()))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        tokio::spawn(async move { server.await.unwrap() });
        address
    }

    pub fn endpoints(&self) -> Vec<String> {
        vec![self.address.to_string()]
    }

    pub fn create(&self, name: &str, slices: u32, config: TargetConfig) {
        let reply = self.state().apply(Command::CreateTarget {
            target: target(name),
            config,
            initial_slices: slices,
        });
        assert_eq!(reply, Reply::Done);
    }

    /// Answers no renewal from now on, or again.
    pub fn silence(&self, silent: bool) {
        self.state().silent = silent;
    }

    /// There is no leader, or a new one: nothing is answered and nothing expires while there is
    /// none, and a new one remembers nothing.
    pub fn absent(&self, absent: bool) {
        let mut state = self.state();
        state.absent = absent;
        state.silent = absent;
        if !absent {
            let now = state.now();
            let mut grantor = Grantor::new(1, now, GrantorConfig::default());
            let sessions = state
                .table
                .targets()
                .flat_map(|target| target.live_sessions());
            let info = |s: &leasehold_client::proto::table::SessionRecord| SessionInfo {
                session: s.id,
                ttl: s.ttl,
                clock: s.clock,
                leaving: false,
            };
            grantor.handle(now, grantor::Input::Ready(sessions.map(info).collect()));
            state.grantor = grantor;
        }
    }

    /// Whether vacant slices are given away at once.
    pub fn places(&self, places: bool) {
        self.state().places = places;
    }

    pub fn step(&self, name: &str, step: PlanStep) -> Result<(), String> {
        let mut state = self.state();
        let config_version = state.table.target(&target(name)).unwrap().config_version();
        match state.apply(Command::ApplyPlan {
            target: target(name),
            config_version,
            steps: vec![step],
        }) {
            Reply::Plan(mut results) => {
                results.remove(0).map_err(|rejection| rejection.to_string())
            }
            other => Err(format!("{other:?}")),
        }
    }

    pub fn grant(&self, name: &str, slice: Slice, to: SessionId) {
        self.step(name, PlanStep::Grant { slice, to }).unwrap();
    }

    pub fn owner(&self, name: &str, key: SliceKey) -> Option<(Slice, Lease)> {
        let state = self.state();
        let (slice, assigned) = state.table.target(&target(name)).unwrap().slice_of(key)?;
        assigned.owner.map(|owner| (slice, owner))
    }

    /// Begins to hand the slice of `key` off.
    pub fn hand_off(&self, name: &str, key: SliceKey, to: SessionId) -> Result<(), String> {
        let (slice, from) = self.owner(name, key).ok_or("vacant")?;
        self.step(name, PlanStep::BeginHandoff { slice, from, to })
    }

    /// What a session last said that it still merges.
    pub fn merging(&self, session: SessionId) -> Option<Epoch> {
        self.state().merging.get(&session).copied().flatten()
    }

    pub fn has_open_handoff(&self, name: &str) -> bool {
        self.state()
            .table
            .target(&target(name))
            .unwrap()
            .handoffs()
            .next()
            .is_some()
    }

    /// The open handoff, if there is one.
    pub fn handoff(&self, name: &str) -> Option<(Slice, Lease, Handoff)> {
        self.state()
            .table
            .target(&target(name))
            .unwrap()
            .handoffs()
            .next()
    }

    /// Asks the source of the open handoff to refuse.
    pub fn ask_cancel(&self, name: &str) {
        let (_, _, handoff) = self.handoff(name).unwrap();
        let reply = self.state().apply(Command::AskCancel {
            target: target(name),
            handoff: handoff.id,
        });
        assert_eq!(reply, Reply::Done);
    }

    /// Registers a session that a test speaks for.
    pub fn register(&self, name: &str, address: &str) -> SessionId {
        let reply = self.state().apply(Command::RegisterSession {
            target: target(name),
            squid: Squid {
                address: PodAddress::new(address).unwrap(),
                id: rand::random(),
            },
            clock: ClockClass::Raw,
            secret: SessionSecret::from_bytes([1; 16]),
            app_version: String::new(),
        });
        match reply {
            Reply::Registered(registered) => registered.session,
            other => panic!("{other:?}"),
        }
    }

    /// A session's word about a handoff, as its renewal would bring it.
    pub fn surrendered(&self, name: &str, handoff: HandoffId, from: SessionId, digest: Digest) {
        let reply = self.state().apply(Command::CompleteHandoff {
            target: target(name),
            handoff,
            word: EndWord::Surrendered(from),
            digest: Some(digest),
        });
        assert_eq!(reply, Reply::Done);
    }

    /// Ends a session as if D had passed.
    pub fn expire(&self, name: &str, session: SessionId) {
        let command = Command::ExpireSession {
            target: target(name),
            session,
            term: 1,
            successors: Vec::new(),
        };
        assert_eq!(self.state().apply(command), Reply::Done);
    }

    pub fn set_consistency(&self, name: &str, consistency: Consistency) {
        let change = TargetChange {
            consistency: Some(consistency),
            ..TargetChange::default()
        };
        let command = Command::UpdateTarget {
            target: target(name),
            expected_version: None,
            change,
        };
        assert_eq!(self.state().apply(command), Reply::Done);
    }

    /// Cuts every stream.
    pub fn cut(&self) {
        let mut state = self.state();
        state.streams.clear();
        state.watchers.clear();
    }

    /// Says to the holder of a session that it is closed, as an Assigner might that leads no more
    /// and has not heard of it. It lives on in the table.
    pub fn say_closed_wrongly(&self, session: SessionId) {
        self.state().tell_closed(session);
    }

    pub fn live_sessions(&self, name: &str) -> Vec<SessionId> {
        self.state()
            .table
            .target(&target(name))
            .unwrap()
            .live_sessions()
            .map(|session| session.id)
            .collect()
    }
}

impl State {
    fn now(&self) -> leasehold_client::proto::ClockTime {
        self.clock.for_t0()
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let outcome = self.table.apply(
            LogId {
                term: 1,
                index: self.index,
            },
            command,
        );
        for event in outcome.events {
            match event {
                Event::SessionRegistered {
                    session,
                    ttl,
                    clock,
                    ..
                } => {
                    let info = SessionInfo {
                        session,
                        ttl,
                        clock,
                        leaving: false,
                    };
                    self.grantor(grantor::Input::Registered(info));
                }
                Event::SessionClosed(session) => {
                    self.grantor(grantor::Input::Closed(session));
                    self.tell_closed(session);
                }
                Event::SessionLeaving(session) => self.grantor(grantor::Input::Leaving(session)),
                Event::ViewChanged(target) => self.push(&target),
                Event::TargetGone(_) | Event::HandoffEnded { .. } => {}
            }
        }
        outcome.reply
    }

    fn grantor(&mut self, input: grantor::Input) {
        let now = self.now();
        let out = self.grantor.handle(now, input);
        for action in out.actions {
            match action {
                grantor::Action::Confirm(round) => self.grantor(grantor::Input::Confirmed(round)),
                grantor::Action::Answer(renewals) => renewals
                    .into_iter()
                    .for_each(|renewal| self.answer(renewal)),
                grantor::Action::TellClosed(renewals) => {
                    renewals
                        .into_iter()
                        .for_each(|renewal| self.tell_closed(renewal.session));
                }
                grantor::Action::Expire(session) => {
                    let of = self
                        .table
                        .targets()
                        .find(|target| target.session(session).is_some());
                    if let Some(target) = of.map(|target| target.name().clone()) {
                        self.apply(Command::ExpireSession {
                            target,
                            session,
                            term: 1,
                            successors: Vec::new(),
                        });
                    }
                }
                grantor::Action::Suspect(_) | grantor::Action::Trust(_) => {}
            }
        }
    }

    fn wake(&mut self) {
        if self.absent {
            return;
        }
        self.grantor(grantor::Input::Wake);
        if self.places {
            let names: Vec<TargetName> = self
                .table
                .targets()
                .map(|target| target.name().clone())
                .collect();
            names.iter().for_each(|name| self.place(name));
        }
    }

    /// Gives vacant slices to those who have fewest; moves slices of those who leave.
    fn place(&mut self, name: &TargetName) {
        let Some(state) = self.table.target(name) else {
            return;
        };
        let able = |id: SessionId| {
            self.grantor.may_receive(id) && state.session(id).is_some_and(|s| !s.draining)
        };
        let mut counts: BTreeMap<SessionId, usize> = state
            .live_sessions()
            .filter(|s| able(s.id))
            .map(|s| (s.id, state.owned_by(s.id)))
            .collect();
        let mut steps = Vec::new();
        for (slice, assigned) in state
            .slices()
            .filter(|(_, assigned)| assigned.handoff.is_none())
        {
            let leaving = |lease: &Lease| state.session(lease.session).is_some_and(|s| s.draining);
            if assigned.owner.as_ref().is_some_and(|owner| !leaving(owner)) {
                continue;
            }
            let Some((to, count)) = counts.iter_mut().min_by_key(|(_, count)| **count) else {
                return;
            };
            *count += 1;
            steps.push(match assigned.owner {
                None => PlanStep::Grant { slice, to: *to },
                Some(from) => PlanStep::BeginHandoff {
                    slice,
                    from,
                    to: *to,
                },
            });
        }
        let config_version = state.config_version();
        if !steps.is_empty() {
            self.apply(Command::ApplyPlan {
                target: name.clone(),
                config_version,
                steps,
            });
        }
    }

    fn answer(&mut self, renewal: Renewal) {
        let Some((target, stream)) = self.streams.get(&renewal.session) else {
            return;
        };
        let Some(state) = self.table.target(target) else {
            return;
        };
        let Some(session) = state.session(renewal.session) else {
            return;
        };
        let known = self.known.get(&renewal.session).copied().flatten();
        let update = state
            .update_since(known)
            .map(|update| wire::encode_view_update(&update))
            .unwrap_or_default();
        let _ = stream.try_send(Ok(wire::renewed_message(
            renewal.session,
            renewal.seq,
            session.ttl,
            update,
        )));
        self.known.insert(renewal.session, Some(state.generation()));
    }

    fn push(&mut self, target: &TargetName) {
        let Some(state) = self.table.target(target) else {
            return;
        };
        for (session, (of, stream)) in &self.streams {
            let known = self.known.entry(*session).or_default();
            if of == target
                && let Some(update) = state.update_since(*known)
            {
                let _ = stream.try_send(Ok(wire::pushed_message(
                    *session,
                    wire::encode_view_update(&update),
                )));
                *known = Some(state.generation());
            }
        }
        for (of, known, stream) in &mut self.watchers {
            if of == target
                && let Some(update) = state.update_since(*known)
            {
                let message =
                    wire::watch_message(wire::encode_view_update(&update), state.config().key_hash);
                let _ = stream.try_send(Ok(message));
                *known = Some(state.generation());
            }
        }
    }

    fn tell_closed(&mut self, session: SessionId) {
        if let Some((_, stream)) = self.streams.get(&session) {
            let closed = AssignerMessage::Closed {
                session,
                reason: ClosedReason::Expired,
            };
            let _ = stream.try_send(Ok((&closed).into()));
        }
    }

    fn receive(&mut self, message: SliceletMessage, stream: &ToSlicelet) {
        match message {
            SliceletMessage::Hello(hello) => {
                let known = self
                    .table
                    .target(&hello.target)
                    .and_then(|target| target.session(hello.session));
                let right = known.is_some_and(|session| session.secret == hello.secret);
                if right {
                    self.streams
                        .insert(hello.session, (hello.target, stream.clone()));
                } else {
                    let closed = AssignerMessage::Closed {
                        session: hello.session,
                        reason: ClosedReason::Unknown,
                    };
                    let _ = stream.try_send(Ok((&closed).into()));
                }
            }
            SliceletMessage::Renew(renew) if !self.silent => {
                let Some((target, _)) = self.streams.get(&renew.session).cloned() else {
                    let (session, reason) = (Some(renew.session), RefusedReason::NotAttached);
                    let _ = stream.try_send(Ok((&AssignerMessage::Refused {
                        session,
                        reason,
                        leader: None,
                    })
                        .into()));
                    return;
                };
                for word in renew.words {
                    self.apply(match word {
                        Word::Surrendered(handoff, digest) => {
                            let word = EndWord::Surrendered(renew.session);
                            Command::CompleteHandoff {
                                target: target.clone(),
                                handoff,
                                word,
                                digest: Some(digest),
                            }
                        }
                        Word::Accepted(handoff) => {
                            let word = EndWord::Accepted(renew.session);
                            Command::CompleteHandoff {
                                target: target.clone(),
                                handoff,
                                word,
                                digest: None,
                            }
                        }
                        Word::Refused(handoff) => Command::CancelHandoff {
                            target: target.clone(),
                            handoff,
                            refused_by: renew.session,
                        },
                    });
                }
                if let Some(arming) = renew.armed {
                    self.apply(Command::AckArming {
                        target,
                        session: renew.session,
                        arming,
                    });
                }
                self.known.insert(renew.session, renew.known);
                self.merging.insert(renew.session, renew.merging);
                let renewal = Renewal {
                    session: renew.session,
                    seq: renew.seq,
                };
                self.grantor(grantor::Input::Renewals(vec![renewal]));
            }
            SliceletMessage::Renew(_) | SliceletMessage::Load(_) => {}
        }
    }
}

#[tonic::async_trait]
impl Sessions for Fake {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterReply>, Status> {
        let request = RegisterRequest::try_from(request.into_inner()).map_err(Refusal::from)?;
        let mut state = self.state();
        let command = Command::RegisterSession {
            target: request.target.clone(),
            squid: request.squid,
            clock: request.clock,
            secret: SessionSecret::from_bytes(rand::random()),
            app_version: request.app_version,
        };
        let Registered {
            session,
            secret,
            ttl,
            not_before,
        } = match state.apply(command) {
            Reply::Registered(registered) => registered,
            Reply::Rejected(rejection) => return Err(Refusal::from(&rejection).into()),
            other => panic!("{other:?}"),
        };
        let config = state.table.target(&request.target).unwrap().config();
        let reply = RegisterReply {
            session,
            secret,
            ttl,
            not_before,
            key_hash: config.key_hash,
            on_lapse: config.on_lapse,
            handoff_deadline: config.handoff_deadline,
        };
        Ok(Response::new((&reply).into()))
    }

    type AttachStream = ReceiverStream<Result<pb::AssignerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::SliceletMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (sender, receiver) = mpsc::channel(1_024);
        let mut messages = request.into_inner();
        let fake = self.clone();
        tokio::spawn(async move {
            let weak = sender.downgrade();
            let mut first = Some(sender);
            while let Ok(Some(message)) = messages.message().await {
                let message = SliceletMessage::try_from(message).unwrap();
                // After `cut` nobody holds the stream any more.
                let Some(sender) = first.take().or_else(|| weak.upgrade()) else {
                    return;
                };
                fake.state().receive(message, &sender);
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn close(
        &self,
        request: Request<pb::CloseRequest>,
    ) -> Result<Response<pb::CloseReply>, Status> {
        let request = CloseRequest::try_from(request.into_inner()).map_err(Refusal::from)?;
        let mut state = self.state();
        let proof = CloseProof::OwnWord;
        match state.apply(Command::CloseSession {
            target: request.target,
            session: request.session,
            proof,
        }) {
            Reply::Rejected(rejection) => Err(Refusal::from(&rejection).into()),
            _ => Ok(Response::new(pb::CloseReply {})),
        }
    }

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainReply>, Status> {
        let request = DrainRequest::try_from(request.into_inner()).map_err(Refusal::from)?;
        match self.state().apply(Command::DrainSession {
            target: request.target,
            session: request.session,
        }) {
            Reply::Rejected(rejection) => Err(Refusal::from(&rejection).into()),
            _ => Ok(Response::new(pb::DrainReply {})),
        }
    }
}

#[tonic::async_trait]
impl Watch for Fake {
    type WatchStream = ReceiverStream<Result<pb::WatchReply, Status>>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = WatchRequest::try_from(request.into_inner()).map_err(Refusal::from)?;
        let (sender, receiver) = mpsc::channel(1_024);
        let mut state = self.state();
        if state.table.target(&request.target).is_none() {
            return Err(Refusal::UnknownTarget.into());
        }
        state
            .watchers
            .push((request.target.clone(), request.known, sender));
        state.push(&request.target);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Follower(String);

impl Follower {
    fn refusal(&self) -> Status {
        let leader = leasehold_client::proto::PodAddress::new(&self.0).ok();
        Refusal::NotLeader { leader }.into()
    }
}

#[tonic::async_trait]
impl Sessions for Follower {
    async fn register(
        &self,
        _: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterReply>, Status> {
        Err(self.refusal())
    }

    type AttachStream = ReceiverStream<Result<pb::AssignerMessage, Status>>;

    async fn attach(
        &self,
        _: Request<Streaming<pb::SliceletMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(self.refusal())
    }

    async fn close(
        &self,
        _: Request<pb::CloseRequest>,
    ) -> Result<Response<pb::CloseReply>, Status> {
        Err(self.refusal())
    }

    async fn drain(
        &self,
        _: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainReply>, Status> {
        Err(self.refusal())
    }
}
