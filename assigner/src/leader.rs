//! The leader: one task and one value per term that this node leads.
//!
//! ◆ Everything here belongs to one term. It is made after the votes were counted, with the clock
//! read after that, and dropped when the term ends; what it decides is proposed in that term only.
//! This file is the loop; what happens is split by family: `renew`, `words`, `expiry`, `plan`, and
//! `streams` with the sessions that are attached and the views they are sent.

mod expiry;
mod plan;
mod renew;
mod streams;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_proto::command::{Command, Reply};
use leasehold_proto::grantor::{Action, Grantor, Input, SessionInfo};
use leasehold_proto::message::Renew;
use leasehold_proto::table::{Event, SessionPhase};
use leasehold_proto::view::Lease;
use leasehold_proto::wire::LoadReport;
use leasehold_proto::{ClockTime, Generation, SessionId, TargetName};
use leasehold_raft_store::{Leadership, ProposeError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::replica::EventQueue;
use crate::shared::{Shared, propose};

pub(crate) use streams::{OUTBOX, Outbox, StreamId};

/// Messages from streams that may wait for the loop; each carries up to a chunk of renewals.
const INBOX: usize = 4_096;
/// Messages taken from the inbox at one wake.
const INBOX_AT_ONCE: usize = 512;
/// Shortest pause between two tries of anything.
const TIMER_TICK: Duration = Duration::from_millis(1);
/// Longest sleep.
const IDLE: Duration = Duration::from_secs(60);
/// Longest sleep by a clock that a test may move.
const CONTROLLED_CLOCK_TICK: Duration = Duration::from_millis(5);

/// How streams and services reach the leader of one term.
pub(crate) struct LeaderHandle {
    pub(crate) inbox: mpsc::Sender<ToLeader>,
    /// True once the table shows everything that was committed before this term.
    pub(crate) ready: watch::Receiver<bool>,
    /// Cancelled when the term is over for this node.
    pub(crate) ended: CancellationToken,
}

/// What streams tell the leader.
pub(crate) enum ToLeader {
    /// A stream begins.
    Open {
        stream: StreamId,
        out: Outbox,
        ended: CancellationToken,
    },
    /// It introduced a session, with the right secret.
    Attach {
        stream: StreamId,
        session: SessionId,
        target: TargetName,
    },
    /// Renewals of one stream.
    Renewals {
        stream: StreamId,
        renewals: Vec<Renew>,
    },
    /// How much the slices of a session are used.
    Load {
        stream: StreamId,
        report: LoadReport,
    },
    /// A stream has ended.
    Detach { stream: StreamId },
    /// An operator wants to give the session a slice: may it be given any?
    MayReceive {
        session: SessionId,
        answer: oneshot::Sender<bool>,
    },
    /// Up to which view has the owner taken in the state of what it has by this lease?
    TakenIn {
        owner: Lease,
        answer: oneshot::Sender<Option<Generation>>,
    },
    /// An operator looks at sessions: how long ago was each last answered?
    AnsweredAgo {
        sessions: Vec<SessionId>,
        answer: oneshot::Sender<Vec<Option<Duration>>>,
    },
}

/// What became of a proposal.
struct Proposed {
    what: Proposal,
    result: Result<Reply, ProposeError>,
}

/// What a proposal was for.
#[derive(Clone, Debug)]
enum Proposal {
    Expire(SessionId),
    Word(words::Said),
    Plan(TargetName),
    EndRestoreWait,
}

/// The memory of one term.
struct Leader {
    shared: Arc<Shared>,
    clock: Clock,
    term: u64,
    grantor: Grantor,
    ready: bool,
    events: Arc<EventQueue>,
    streams: streams::Streams,
    words: words::Words,
    expiry: expiry::Expiry,
    plans: plan::Plans,
    confirming: renew::Confirming,
    proposals: JoinSet<Proposed>,
    /// When the Grantor wants to be asked again.
    wake_at: Option<ClockTime>,
}

/// Leads whenever this node is the leader; returns when the node stops.
pub(crate) async fn supervise(shared: Arc<Shared>, stop: CancellationToken) {
    let mut leadership = shared.raft.leadership();
    loop {
        let leads = leadership.borrow_and_update().leads();
        if let Some(term) = leads {
            lead(&shared, term, &mut leadership, &stop).await;
        } else {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Leads one term, from its start to its end.
async fn lead(
    shared: &Arc<Shared>,
    term: u64,
    leadership: &mut watch::Receiver<Leadership>,
    stop: &CancellationToken,
) {
    // ◆ Read after the votes were counted: `Role::Leader` is shown only then.
    let won = shared.config.clock.now();
    let (inbox, inbound) = mpsc::channel(INBOX);
    let (ready, is_ready) = watch::channel(false);
    let ended = CancellationToken::new();
    let handle = LeaderHandle {
        inbox,
        ready: is_ready,
        ended: ended.clone(),
    };
    *shared.leader.lock() = Some(Arc::new(handle));
    tracing::info!(term, "leading");
    shared.loads.clear();
    let leader = Leader::new(Arc::clone(shared), term, won);
    let events = Arc::clone(&leader.events);
    tokio::select! {
        () = stop.cancelled() => {}
        () = over(leadership, term) => {}
        () = leader.run(inbound, ready) => {}
    }
    *shared.leader.lock() = None;
    *shared.halted.lock() = None;
    shared.replica.unsubscribe(&events);
    ended.cancel();
    tracing::info!(term, "leading no more");
}

/// Returns when the term is over for this node.
async fn over(leadership: &mut watch::Receiver<Leadership>, term: u64) {
    // An error means that the node has stopped.
    let _ = leadership.wait_for(|now| now.leads() != Some(term)).await;
}

impl Leader {
    fn new(shared: Arc<Shared>, term: u64, won: ClockTime) -> Self {
        let mut config = shared.config.grantor.clone();
        if let Clock::Controlled(_) = shared.config.clock {
            // Rounds go on while a test has stopped the clock.
            config.collect_window = Duration::ZERO;
        }
        Self {
            clock: shared.config.clock.clone(),
            term,
            grantor: Grantor::new(term, won, config),
            ready: false,
            events: shared.replica.subscribe(),
            streams: streams::Streams::default(),
            words: words::Words::default(),
            expiry: expiry::Expiry::new(won),
            plans: plan::Plans::default(),
            confirming: renew::Confirming::default(),
            proposals: JoinSet::new(),
            wake_at: None,
            shared,
        }
    }

    async fn run(mut self, mut inbound: mpsc::Receiver<ToLeader>, ready: watch::Sender<bool>) {
        if !self.become_ready().await {
            return;
        }
        ready.send_replace(true);
        let events = Arc::clone(&self.events);
        let mut inbox = Vec::with_capacity(INBOX_AT_ONCE);
        loop {
            let sleep = self.sleep_time();
            tokio::select! {
                () = events.wait() => {}
                (round, result) = self.confirming.next() => {
                    self.read_events();
                    if !self.round_ended(round, result) {
                        return;
                    }
                }
                Some(Ok(done)) = self.proposals.join_next(), if !self.proposals.is_empty() => {
                    self.read_events();
                    self.proposal_ended(done);
                }
                count = inbound.recv_many(&mut inbox, INBOX_AT_ONCE) => {
                    self.read_events();
                    if count == 0 {
                        return;
                    }
                    self.read_inbox(&mut inbox);
                }
                () = tokio::time::sleep(sleep), if !sleep.is_zero() => {}
            }
            self.read_events();
            if sleep.is_zero() || self.wake_at.is_some_and(|at| at <= self.clock.now()) {
                self.input(Input::Wake);
            }
            self.end_restore_wait();
            self.retry_expiries();
            self.push_views();
            self.plan();
            self.streams.flush(&self.shared.metrics);
        }
    }

    /// Waits until an entry of this term is committed and applied; only then is the table complete
    /// enough to answer from. False when the term ended instead.
    async fn become_ready(&mut self) -> bool {
        loop {
            match self.shared.raft.confirm().await {
                Ok(at) if at.term == self.term => break,
                Ok(_) => return false,
                Err(ProposeError::NoQuorum | ProposeError::Overloaded) => {}
                // Whether the term is over, or the node has stopped, is told by the leadership.
                Err(error) => {
                    tracing::info!(term = self.term, %error, "the term could not be confirmed");
                    tokio::time::sleep(self.shared.config.timers.heartbeat).await;
                }
            }
        }
        self.read_events();
        let infos = self.every_session();
        self.plans
            .begin(Instant::now() + self.shared.config.planner.hear_all_within);
        self.ready = true;
        self.input(Input::Ready(infos));
        true
    }

    /// Every session that time can end, as the table has it now.
    fn every_session(&mut self) -> Vec<SessionInfo> {
        let table = self.shared.replica.table();
        let mut infos = Vec::new();
        for target in table.targets() {
            self.plans.touched([target.name().clone()]);
            for session in target
                .sessions()
                .filter(|session| session.phase != SessionPhase::Ghost)
            {
                let leaving = session.phase == SessionPhase::Leaving;
                infos.push(SessionInfo {
                    session: session.id,
                    ttl: session.ttl,
                    clock: session.clock,
                    leaving,
                });
                self.plans.note_home(session.id, target.name());
            }
        }
        infos
    }

    /// How long nothing need be done; zero when something is due.
    fn sleep_time(&self) -> Duration {
        let (now, lease_now) = (Instant::now(), self.clock.now());
        let lease_times = [
            self.wake_at,
            self.expiry.restored_at(),
            self.plans.settled_at(),
        ];
        let by_lease_clock = lease_times
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.since(lease_now));
        let by_pacing = self
            .expiry
            .retry_at()
            .into_iter()
            .chain(self.plans.plan_at())
            .min();
        let by_pacing = by_pacing.map(|at| at.saturating_duration_since(now).max(TIMER_TICK));
        let until = by_lease_clock
            .into_iter()
            .chain(by_pacing)
            .min()
            .unwrap_or(IDLE);
        match &self.clock {
            Clock::System => until,
            // A test may move it at any time.
            Clock::Controlled(_) => until.min(CONTROLLED_CLOCK_TICK),
        }
    }

    /// Everything committed so far reaches the Grantor before anything else does.
    fn read_events(&mut self) {
        let unread = self.events.take();
        if unread.lost {
            self.resynchronise();
        }
        for event in unread.events {
            self.event(event);
        }
        self.plans.touched(unread.touched);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::SessionRegistered {
                target,
                session,
                ttl,
                clock,
            } => {
                self.plans.note_home(session, &target);
                self.shared.metrics.sessions_registered.inc();
                self.input(Input::Registered(SessionInfo {
                    session,
                    ttl,
                    clock,
                    leaving: false,
                }));
            }
            Event::SessionLeaving(session) => {
                self.input(Input::Leaving(session));
                self.streams
                    .close(session, leasehold_proto::wire::ClosedReason::TargetDeleted);
            }
            Event::SessionClosed(session) => self.session_closed(session),
            Event::ViewChanged(target) => self.streams.view_changed(target),
            Event::TargetGone(target) => {
                self.streams.target_gone(&target);
                self.plans.target_gone(&target);
            }
            Event::HandoffEnded {
                target,
                handoff,
                slice,
                to,
                completed,
            } => {
                self.words.ended(handoff);
                let now = self.clock.now();
                self.plans.handoff_ended(now, &target, slice, to, completed);
                let metrics = &self.shared.metrics;
                if completed {
                    metrics.handoffs_completed.inc()
                } else {
                    metrics.handoffs_cancelled.inc()
                };
            }
        }
    }

    /// Events were dropped: compares everything with the table. What it finds it counts from now,
    /// which is later than it happened, and so on the safe side.
    fn resynchronise(&mut self) {
        tracing::warn!(
            term = self.term,
            "events were dropped; reading the whole table"
        );
        let infos = self.every_session();
        let live: std::collections::BTreeSet<SessionId> =
            infos.iter().map(|info| info.session).collect();
        for session in self
            .plans
            .homes()
            .into_iter()
            .filter(|session| !live.contains(session))
        {
            self.session_closed(session);
        }
        for info in infos {
            self.input(Input::Registered(info));
            if info.leaving {
                self.input(Input::Leaving(info.session));
            }
        }
        let names: Vec<TargetName> = self
            .shared
            .replica
            .table()
            .targets()
            .map(|target| target.name().clone())
            .collect();
        for gone in self.streams.targets_other_than(&names) {
            self.streams.target_gone(&gone);
        }
        for name in names {
            self.streams.view_changed(name.clone());
            self.plans.touched([name]);
        }
    }

    fn session_closed(&mut self, session: SessionId) {
        let expired = self.expiry.closed(session);
        let reason = match expired {
            true => leasehold_proto::wire::ClosedReason::Expired,
            false => leasehold_proto::wire::ClosedReason::Closed,
        };
        self.input(Input::Closed(session));
        self.streams.close(session, reason);
        self.plans.session_closed(session);
        self.shared.loads.forget(session);
    }

    fn read_inbox(&mut self, inbox: &mut Vec<ToLeader>) {
        let mut collected = Vec::new();
        for message in inbox.drain(..) {
            match message {
                ToLeader::Open { stream, out, ended } => self.streams.open(stream, out, ended),
                ToLeader::Attach {
                    stream,
                    session,
                    target,
                } => self.attach(stream, session, target),
                ToLeader::Renewals { stream, renewals } => {
                    self.collect(stream, renewals, &mut collected)
                }
                ToLeader::Load { stream, report } => {
                    if self
                        .streams
                        .attached(report.session)
                        .is_some_and(|attached| attached.stream == stream)
                    {
                        self.shared.loads.report(&report);
                    }
                }
                ToLeader::Detach { stream } => self.streams.detach(stream),
                ToLeader::MayReceive { session, answer } => {
                    // Who asked may have given up.
                    let _ = answer.send(self.grantor.may_receive(session));
                }
                ToLeader::TakenIn { owner, answer } => {
                    let _ = answer.send(self.taken_in(owner));
                }
                ToLeader::AnsweredAgo { sessions, answer } => {
                    let now = self.clock.now();
                    let ago = |id: &SessionId| self.grantor.answered_ago(now, *id);
                    let _ = answer.send(sessions.iter().map(ago).collect());
                }
            }
        }
        if !collected.is_empty() {
            self.input(Input::Renewals(collected));
        }
    }

    /// Gives the Grantor one input and carries out what it says, in order.
    fn input(&mut self, input: Input) {
        let now = self.clock.now();
        let output = self.grantor.handle(now, input);
        self.wake_at = output.wake_at;
        for action in output.actions {
            match action {
                Action::Confirm(round) => self.confirming.begin(round, &self.shared),
                Action::Answer(renewals) => self.answer(&renewals),
                Action::TellClosed(renewals) => self.tell_closed(&renewals),
                Action::Expire(session) => self.expire(session),
                Action::Suspect(session) => self.plans.suspected(session),
                Action::Trust(session) => self.plans.trusted(session),
            }
        }
    }

    fn propose(&mut self, what: Proposal, command: Command) {
        let (shared, term) = (Arc::clone(&self.shared), self.term);
        self.proposals.spawn(async move {
            let result = propose(&shared.raft, &command, Some(term)).await;
            Proposed { what, result }
        });
    }

    fn proposal_ended(&mut self, done: Proposed) {
        if let Err(error) = &done.result {
            tracing::debug!(term = self.term, what = ?done.what, %error, "a proposal has no result");
        }
        match done.what {
            Proposal::Expire(session) => self.expiry_proposed(session, &done.result),
            Proposal::Word(said) => self.words.proposed(said, &done.result),
            Proposal::Plan(target) => self.plan_proposed(&target, &done.result),
            Proposal::EndRestoreWait => self.restore_wait_proposed(&done.result),
        }
    }

    /// Nothing more is granted or answered in this term, and the status says why.
    fn halt(&mut self, why: String) {
        self.shared.halt(why);
    }

    fn is_halted(&self) -> bool {
        self.shared.halted.lock().is_some()
    }
}
