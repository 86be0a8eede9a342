//! The leader's loop of a simulated node: the real Grantor of one term, fed as the service feeds
//! it, with plans drawn at random.
//!
//! The service's own loop is bound to its sockets and to the system's clocks. This one keeps its
//! rules (docs/PROTOCOL.md): one value per term, made after the votes were counted and dropped when
//! the term ends; everything committed reaches the Grantor before anything else does; renewals are
//! answered only after a confirmation of this very term; expiries are proposed in this term only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use leasehold_proto::clock::ClockClass;
use leasehold_proto::command::{Command, PlanStep, Reply};
use leasehold_proto::grantor::{Action, Grantor, GrantorConfig, Input, Renewal, SessionInfo};
use leasehold_proto::message::{Renew, Renewed, Word};
use leasehold_proto::table::{Event, SessionPhase};
use leasehold_proto::target::{SessionSecret, TargetConfig, TargetName};
use leasehold_proto::{ClockTime, Generation, HandoffId, SessionId, Squid, wire};
use leasehold_raft_store::{LogPosition, ProposeError, RaftNode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::node::{self, Phase, Place};
use crate::post::{Letter, Mailbox};
use crate::random::Random;

/// The target whose slices the pods hold.
pub(crate) const TARGET: &str = "pods";
/// Slices of that target.
pub(crate) const SLICES: u32 = 6;
/// Letters that may wait for a leader.
const INBOX: usize = 1024;
/// Longest sleep.
const IDLE: Duration = Duration::from_millis(500);
/// Pause before a refused expiry is proposed again.
const RETRY: Duration = Duration::from_millis(20);

/// What a proposal was for.
enum Done {
    Expire(SessionId, bool),
    Word(HandoffId),
    Registered(String, Squid, Option<Reply>),
    Plan,
}

type Round = BoxFuture<'static, (u64, Result<LogPosition, ProposeError>)>;

struct Leader {
    place: Arc<Place>,
    node: RaftNode,
    mailbox: Mailbox,
    random: Random,
    target: TargetName,
    term: u64,
    grantor: Grantor,
    proposals: JoinSet<Done>,
    round: Option<Round>,
    wake_at: Option<ClockTime>,
    plan_at: Instant,
    /// Who speaks for each session, and what it knows.
    homes: BTreeMap<SessionId, (String, Option<Generation>)>,
    expiring: BTreeSet<SessionId>,
    retry: Vec<(Instant, SessionId)>,
    words: BTreeSet<HandoffId>,
}

/// Leads whenever this node is the leader.
pub(crate) async fn supervise(place: Arc<Place>, node: RaftNode, mailbox: Mailbox) {
    let (inbox, mut letters) = mpsc::channel(INBOX);
    let receiving = mailbox.clone();
    tokio::spawn(async move {
        while let Ok(letter) = receiving.receive().await {
            // What does not fit is lost, as a datagram would be.
            let _ = inbox.try_send(letter);
        }
    });
    let mut leadership = node.leadership();
    loop {
        let leads = leadership.borrow_and_update().leads();
        if let Some(term) = leads {
            let mut watch = leadership.clone();
            let leader = Leader::new(&place, &node, &mailbox, term);
            tokio::select! {
                biased;
                _ = watch.wait_for(|now| now.leads() != Some(term)) => {}
                () = leader.run(&mut letters) => {}
            }
        }
        tokio::select! {
            biased;
            changed = leadership.changed() => if changed.is_err() { return },
            // Nobody leads here: who writes gets no answer and tries elsewhere.
            Some(_) = letters.recv() => {}
        }
    }
}

impl Leader {
    fn new(place: &Arc<Place>, node: &RaftNode, mailbox: &Mailbox, term: u64) -> Self {
        // Read after the votes were counted: `Role::Leader` is shown only then.
        let won = place.clock.now();
        let config = GrantorConfig {
            clock: ClockClass::Raw,
            granularity: Duration::from_millis(5),
            collect_window: Duration::from_millis(1),
        };
        place.news.clear();
        Self {
            random: Random::of(place.seed, (place.id << 40) | (1 << 60) | term),
            target: node::target_name(TARGET),
            term,
            grantor: Grantor::new(term, won, config),
            proposals: JoinSet::new(),
            round: None,
            wake_at: None,
            plan_at: Instant::now(),
            homes: BTreeMap::new(),
            expiring: BTreeSet::new(),
            retry: Vec::new(),
            words: BTreeSet::new(),
            place: Arc::clone(place),
            node: node.clone(),
            mailbox: mailbox.clone(),
        }
    }

    /// Until the term ends, or the events do not tell everything any more.
    async fn run(mut self, letters: &mut mpsc::Receiver<(String, Letter)>) {
        loop {
            match node::confirm(&self.place, &self.node).await {
                Ok(at) if at.term == self.term => break,
                Ok(_) | Err(ProposeError::Fatal(_)) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        if !self.read_events().await {
            return;
        }
        let infos = self.every_session();
        self.input(Input::Ready(infos)).await;
        loop {
            let sleep = self.sleep_time();
            let place = Arc::clone(&self.place);
            let mut letter = None;
            let mut ended = None;
            let mut done = None;
            tokio::select! {
                biased;
                () = place.news.wait() => {}
                round = next(&mut self.round) => ended = Some(round),
                Some(Ok(proposed)) = self.proposals.join_next(), if !self.proposals.is_empty() => {
                    done = Some(proposed);
                }
                Some(found) = letters.recv() => letter = Some(found),
                () = tokio::time::sleep(sleep) => {}
            }
            if !self.read_events().await {
                return;
            }
            if let Some((round, result)) = ended {
                match result {
                    Ok(at) if at.term == self.term => self.input(Input::Confirmed(round)).await,
                    Ok(_) | Err(ProposeError::Fatal(_)) => return,
                    Err(_) => self.input(Input::NotConfirmed(round)).await,
                }
            }
            if let Some(done) = done {
                self.proposed(done).await;
            }
            if let Some((from, letter)) = letter {
                self.read(from, letter).await;
            }
            self.timers().await;
        }
    }

    fn sleep_time(&self) -> Duration {
        let now = self.place.clock.now();
        let wake = self.wake_at.map_or(IDLE, |at| at.since(now));
        let plan = self.plan_at.saturating_duration_since(Instant::now());
        wake.min(plan).min(IDLE).max(Duration::from_millis(1))
    }

    async fn timers(&mut self) {
        if self.wake_at.is_some_and(|at| at <= self.place.clock.now()) {
            self.input(Input::Wake).await;
        }
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.retry)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.retry = later;
        for (_, session) in due {
            self.expire(session);
        }
        if now >= self.plan_at {
            self.plan_at = now + self.random.millis(100, 900);
            self.plan();
        }
    }

    /// Every session that time can end, as the table has it now.
    fn every_session(&self) -> Vec<SessionInfo> {
        let shown = self.place.replica.lock();
        let Some(state) = shown.table.target(&self.target) else {
            return Vec::new();
        };
        let sessions = state.sessions();
        let timed = sessions.filter(|session| session.phase != SessionPhase::Ghost);
        timed
            .map(|session| SessionInfo {
                session: session.id,
                ttl: session.ttl,
                clock: session.clock,
                leaving: session.phase == SessionPhase::Leaving,
            })
            .collect()
    }

    /// Everything committed so far reaches the Grantor. False when some of it was lost.
    async fn read_events(&mut self) -> bool {
        let Some(events) = self.place.news.take() else {
            return false;
        };
        for event in events {
            match event {
                Event::SessionRegistered {
                    target,
                    session,
                    ttl,
                    clock,
                } if target == self.target => {
                    let leaving = false;
                    let info = SessionInfo {
                        session,
                        ttl,
                        clock,
                        leaving,
                    };
                    self.input(Input::Registered(info)).await;
                }
                Event::SessionLeaving(session) => self.input(Input::Leaving(session)).await,
                Event::SessionClosed(session) => {
                    self.expiring.remove(&session);
                    self.input(Input::Closed(session)).await;
                    if let Some((home, _)) = self.homes.remove(&session) {
                        self.mailbox.send(&home, Letter::Closed(session)).await;
                    }
                }
                Event::HandoffEnded {
                    target, completed, ..
                } if target == self.target => {
                    self.place.observer.count(match completed {
                        true => "handoff completed",
                        false => "handoff cancelled",
                    });
                }
                _ => {}
            }
        }
        true
    }

    async fn read(&mut self, from: String, letter: Letter) {
        match letter {
            Letter::Register(squid) => self.register(from, squid),
            Letter::Renew(renew) => self.renew(from, renew).await,
            _ => {}
        }
    }

    fn register(&mut self, from: String, squid: Squid) {
        let command = Command::RegisterSession {
            target: self.target.clone(),
            squid: squid.clone(),
            clock: ClockClass::Raw,
            secret: SessionSecret::from_bytes(self.random.bytes()),
            app_version: String::new(),
        };
        self.propose(None, command, move |reply| {
            Done::Registered(from, squid, reply)
        });
    }

    async fn renew(&mut self, from: String, renew: Renew) {
        let session = renew.session;
        self.homes.insert(session, (from, renew.known));
        for word in &renew.words {
            self.listen(session, *word);
        }
        let seq = renew.seq;
        self.input(Input::Renewals(vec![Renewal { session, seq }]))
            .await;
    }

    /// Proposes what a session says of a handoff in which it has that part.
    fn listen(&mut self, session: SessionId, word: Word) {
        let open = {
            let shown = self.place.replica.lock();
            let state = shown.table.target(&self.target);
            state.and_then(|state| state.handoff(word.handoff()))
        };
        let Some((_, from, handoff)) = open else {
            return;
        };
        let speaker = match word {
            Word::Surrendered(..) | Word::Refused(_) => from.session,
            Word::Accepted(_) => handoff.to,
        };
        if speaker != session {
            return;
        }
        let id = handoff.id;
        let command = Command::of_word(self.target.clone(), session, word);
        if self.words.insert(id) {
            self.propose(Some(self.term), command, move |_| Done::Word(id));
        }
    }

    async fn input(&mut self, input: Input) {
        let now = self.place.clock.now();
        let output = self.grantor.handle(now, input);
        self.wake_at = output.wake_at;
        for action in output.actions {
            match action {
                Action::Confirm(round) => {
                    let (place, node) = (Arc::clone(&self.place), self.node.clone());
                    self.round = Some(Box::pin(async move {
                        (round, node::confirm(&place, &node).await)
                    }));
                }
                Action::Answer(renewals) => self.answer(renewals).await,
                Action::TellClosed(renewals) => {
                    for renewal in renewals {
                        if let Some((home, _)) = self.homes.remove(&renewal.session) {
                            let closed = Letter::Closed(renewal.session);
                            self.mailbox.send(&home, closed).await;
                        }
                    }
                }
                Action::Expire(session) => self.expire(session),
                Action::Suspect(_) | Action::Trust(_) => {}
            }
        }
    }

    async fn answer(&mut self, renewals: Vec<Renewal>) {
        for Renewal { session, seq } in renewals {
            let Some((home, known)) = self.homes.get(&session).cloned() else {
                continue;
            };
            let found = {
                let shown = self.place.replica.lock();
                let state = shown.table.target(&self.target);
                state.and_then(|state| {
                    let ttl = state.session(session)?.ttl;
                    Some((ttl, state.update_since(known)))
                })
            };
            let Some((ttl, update)) = found else { continue };
            let renewed = Renewed {
                session,
                seq,
                ttl,
                update,
            };
            self.mailbox.send(&home, Letter::Renewed(renewed)).await;
        }
    }

    /// D has passed: proposes the end of the session, again and again in this term only.
    fn expire(&mut self, session: SessionId) {
        self.expiring.insert(session);
        let live = self.may_receive();
        let successors = {
            let shown = self.place.replica.lock();
            let Some(state) = shown.table.target(&self.target) else {
                return;
            };
            let owned = state.owned_slices(session);
            let to = self.random.pick(&live).copied();
            owned
                .filter_map(|(slice, _)| Some((slice.first(), to?)))
                .collect()
        };
        let command = Command::ExpireSession {
            target: self.target.clone(),
            session,
            term: self.term,
            successors,
        };
        self.propose(Some(self.term), command, move |reply| {
            Done::Expire(session, reply.is_some())
        });
    }

    fn may_receive(&self) -> Vec<SessionId> {
        let shown = self.place.replica.lock();
        let Some(state) = shown.table.target(&self.target) else {
            return Vec::new();
        };
        let sessions = state.live_sessions().map(|session| session.id);
        sessions
            .filter(|session| self.grantor.may_receive(*session))
            .collect()
    }

    /// One change of assignment: vacant slices first.
    fn plan(&mut self) {
        let live = self.may_receive();
        let moves = self.place.is(Phase::Working);
        let found = {
            let shown = self.place.replica.lock();
            shown.table.target(&self.target).map(|state| {
                let slices: Vec<_> = state.slices().map(|(s, a)| (s, a.clone())).collect();
                (state.config_version(), slices)
            })
        };
        let Some((config_version, slices)) = found else {
            return self.create();
        };
        let mut steps: Vec<PlanStep> = Vec::new();
        for (slice, assigned) in &slices {
            if assigned.owner.is_none()
                && let Some(to) = self.random.pick(&live).copied()
            {
                steps.push(PlanStep::Grant { slice: *slice, to });
            }
        }
        if steps.is_empty()
            && moves
            && let Some((slice, assigned)) = self.random.pick(&slices).cloned()
            && let (Some(from), None) = (assigned.owner, assigned.handoff)
            && let Some(to) = self.random.pick(&live).copied()
            && to != from.session
        {
            steps.push(PlanStep::BeginHandoff { slice, from, to });
        }
        if steps.is_empty() {
            return;
        }
        let target = self.target.clone();
        let command = Command::ApplyPlan {
            target,
            config_version,
            steps,
        };
        self.propose(Some(self.term), command, |_| Done::Plan);
    }

    fn create(&mut self) {
        let command = Command::CreateTarget {
            target: self.target.clone(),
            config: TargetConfig {
                ttl: Duration::from_secs(2),
                ..TargetConfig::default()
            },
            initial_slices: SLICES,
        };
        self.propose(None, command, |_| Done::Plan);
    }

    fn propose(
        &mut self,
        in_term: Option<u64>,
        command: Command,
        done: impl FnOnce(Option<Reply>) -> Done + Send + 'static,
    ) {
        let (place, node) = (Arc::clone(&self.place), self.node.clone());
        self.proposals.spawn(async move {
            let reply = node::propose(&place, &node, in_term, &command).await;
            done(reply.and_then(|bytes| wire::decode_reply(&bytes).ok()))
        });
    }

    async fn proposed(&mut self, done: Done) {
        match done {
            Done::Expire(session, false) if self.expiring.contains(&session) => {
                self.retry.push((Instant::now() + RETRY, session));
            }
            Done::Expire(..) => self.place.observer.count("session expired"),
            Done::Word(handoff) => {
                self.words.remove(&handoff);
            }
            Done::Registered(home, squid, Some(Reply::Registered(reply))) => {
                let letter = Letter::Registered(squid.id, reply);
                self.mailbox.send(&home, letter).await;
            }
            Done::Registered(..) | Done::Plan => {}
        }
    }
}

/// How the round under way ended; never returns while there is none.
async fn next(round: &mut Option<Round>) -> (u64, Result<LogPosition, ProposeError>) {
    let Some(running) = round.as_mut() else {
        return std::future::pending().await;
    };
    let ended = running.await;
    *round = None;
    ended
}
