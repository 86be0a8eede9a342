//! The clocked half of a Slicelet: its lease, its view, what it has surrendered or refused, and the
//! ownership check that follows from them.
//!
//! Times: `handle` takes the clock as it is read for a `t0` (it may be too small, never too
//! large); [`Holder::check`] takes it as it is read for a check (too large at worst). A pause
//! between the reads of one time then errs on the safe side.

mod canonical;
mod floors;
mod handoff;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::floors::Floors;
use crate::clock::ClockTime;
use crate::command::Digest;
use crate::id::{Epoch, Generation, HandoffId, SessionId};
use crate::key::SliceKey;
use crate::limits;
use crate::message::{Moved, Ready, ReadyAnswer, Renew, Renewed, Surrender};
use crate::slice::Slice;
use crate::target::{Mode, OnLapse, PodAddress};
use crate::view::{Applied, Lease, View, ViewUpdate};
use handoff::{Incoming, Outgoing};

/// What a Holder is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderConfig {
    /// What to do when the lease has run out.
    pub on_lapse: OnLapse,
    /// How long the source of a handoff waits for its destination.
    pub handoff_deadline: Duration,
    /// What the source does when that time is over.
    pub on_not_ready: OnNotReady,
    /// Spreads the renewals of many Slicelets; any number.
    pub jitter_seed: u64,
}

impl Default for HolderConfig {
    fn default() -> Self {
        Self {
            on_lapse: OnLapse::Stop,
            handoff_deadline: Duration::from_secs(10),
            on_not_ready: OnNotReady::Stay,
            jitter_seed: 0,
        }
    }
}

/// What the source of a handoff does when its destination is not ready in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNotReady {
    /// Refuse the handoff and go on serving.
    Stay,
    /// Surrender all the same: the destination begins without the state.
    GoCold,
}

/// What happens to a Holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A session was registered for this Slicelet. Ends whatever session it held before.
    Registered {
        /// Its number.
        session: SessionId,
        /// Its time to live, fixed.
        ttl: Duration,
        /// No older view may be applied.
        not_before: Generation,
    },
    /// The leader answered a renewal.
    Renewed(Renewed),
    /// A newer view was pushed. Extends nothing.
    Pushed(SessionId, ViewUpdate),
    /// The Assigner says that this session is closed.
    Closed(SessionId),
    /// A destination says that it is ready.
    Ready(Ready),
    /// A source answered what this destination sent.
    ReadyAnswered(ReadyAnswer),
    /// The application is prepared to take the slice of this handoff over.
    Prepared(HandoffId),
    /// The slice of this handoff is frozen and no guard is in flight (or those that were have been
    /// cut off): the last change has gone out.
    Drained(HandoffId, Digest),
    /// The state of the slice of this handoff is on its way, and more of it has arrived: the time
    /// for which its destination is waited for begins anew.
    Progressing(HandoffId),
    /// The last change of the slice of this handoff cannot be brought to its destination: refuse,
    /// and go on serving, unless it is surrendered already.
    Withdraw(HandoffId),
    /// This process is about to end. A destination that is slow is waited for until then, and as
    /// long as it moves on; then its slice is surrendered all the same. No handoff is refused
    /// because it takes long: it would only be begun again.
    HurryHandoffs {
        /// The past where slices may as well begin cold.
        until: ClockTime,
    },
    /// Serve nothing any more, for ever: the session will be closed by its own word.
    Shutdown,
    /// The time of an earlier `wake_at` has come.
    Wake,
}

/// What the shell must do, in this order, after it has published [`Holder::local`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a renewal. `now` of this call was its `t0`.
    Renew(Renew),
    /// Everything that this closed session gave is dropped: say so (`Sessions.Close`) until it is
    /// answered, so that no ghost and no tombstone waits for this process.
    SayClosed(SessionId),
    /// The session is gone: register a new one.
    Register,
    /// Ask the application to prepare for the slice; then give [`Input::Prepared`].
    Prepare {
        /// Which handoff.
        handoff: HandoffId,
        /// The slice to come.
        slice: Slice,
        /// The epoch to come.
        epoch: Epoch,
        /// The source.
        from: SessionId,
        /// Where the source is, if the view tells.
        address: Option<PodAddress>,
    },
    /// Tell the source, and give its answer back as [`Input::ReadyAnswered`]. Said again until the
    /// view shows the handoff ended.
    SendReady(Ready, Option<PodAddress>),
    /// Answer the destination that said ready.
    AnswerReady(Ready, ReadyAnswer),
    /// Freeze the slice: park new requests, wait for guards in flight up to a deadline, then give
    /// [`Input::Drained`].
    Freeze {
        /// Which handoff.
        handoff: HandoffId,
        /// The slice to freeze.
        slice: Slice,
    },
}

/// Actions, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Output {
    /// To carry out in order.
    pub actions: Vec<Action>,
    /// When to give [`Input::Wake`]; `None` when nothing is waited for.
    pub wake_at: Option<ClockTime>,
    /// Whether [`Holder::local`], the deadline or the mode may have changed: publish before acting.
    pub changed: bool,
}

/// What this Slicelet is to a slice, by its view and its own deeds. The lease is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// It owns the slice.
    Owner,
    /// It owns the slice but takes no new request: about to surrender.
    Frozen(HandoffId),
    /// It serves a copy (eventual mode).
    Replica,
    /// It will own the slice when the source surrenders: early requests wait.
    Arriving(HandoffId),
    /// It has surrendered the slice: clients are told where it went.
    Gone(Box<Moved>),
}

/// One slice in which this Slicelet has a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The slice.
    pub slice: Slice,
    /// The epoch of the part: owned at, will own at, or surrendered at.
    pub epoch: Epoch,
    /// The part.
    pub part: Part,
}

/// The result of an ownership check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This Slicelet owns the key at this epoch (or serves a copy, in eventual mode).
    Owned(Epoch),
    /// Its lease has run out and the target says `serve_fenced`: only the store's fence decides.
    Fenced(Epoch),
    /// The slice is about to be surrendered, or about to arrive: the request waits.
    Wait(HandoffId),
    /// Its lease has run out.
    Lapsed,
    /// It does not own the key.
    NotOwner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    id: SessionId,
    ttl: Duration,
    not_before: Generation,
    /// `t0` of transmissions not yet answered, by seq. Each is used once.
    sent: BTreeMap<u64, ClockTime>,
    deadline: Option<ClockTime>,
    next_renewal: ClockTime,
}

/// A Slicelet's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    config: HolderConfig,
    session: Option<Session>,
    /// The last session that was ever held.
    newest_session: Option<SessionId>,
    view: Option<View>,
    floors: Floors,
    outgoing: BTreeMap<HandoffId, Outgoing>,
    incoming: BTreeMap<HandoffId, Incoming>,
    /// Surrenders of handoffs that the present view does not show (yet).
    early_surrenders: BTreeMap<HandoffId, Surrender>,
    /// Destinations that said ready for handoffs that the present view does not show (yet).
    early_ready: BTreeMap<HandoffId, Ready>,
    next_seq: u64,
    /// The process is about to end: until when slow destinations are waited for.
    hurry: Option<ClockTime>,
    shut: bool,
    local: Vec<Local>,
    /// What `words_said_once` must remember to be the bug that it is.
    #[cfg(leasehold_mutants)]
    said: std::collections::BTreeSet<(SessionId, crate::message::Word)>,
}

impl Holder {
    /// A Slicelet without a session. It serves nothing.
    pub fn new(config: HolderConfig) -> Self {
        Self {
            config,
            session: None,
            newest_session: None,
            view: None,
            floors: Floors::default(),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            early_surrenders: BTreeMap::new(),
            early_ready: BTreeMap::new(),
            next_seq: 1,
            hurry: None,
            shut: false,
            local: Vec::new(),
            #[cfg(leasehold_mutants)]
            said: std::collections::BTreeSet::new(),
        }
    }

    /// Takes what the target wants of sessions registered from now on. To be called before
    /// [`Input::Registered`]; what the Holder remembers of earlier sessions stays.
    pub fn configure(&mut self, on_lapse: OnLapse, handoff_deadline: Duration) {
        self.config.on_lapse = on_lapse;
        self.config.handoff_deadline = handoff_deadline;
    }

    /// The session held now.
    pub fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|session| session.id)
    }

    /// The newest view applied.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Until when ownership checks pass: for ever while the view shows the target eventual.
    pub fn deadline(&self) -> Option<ClockTime> {
        let session = self.session.as_ref().filter(|_| !self.shut)?;
        match &self.view {
            Some(view) if !view.mode.checks_leases() => Some(ClockTime::FAR),
            Some(view) if mutant!("arming_acked_unchecked") && view.mode != Mode::Strong => {
                Some(ClockTime::FAR)
            }
            _ => session.deadline,
        }
    }

    /// When the lease itself runs out, whatever the mode.
    pub fn lease_deadline(&self) -> Option<ClockTime> {
        self.session.as_ref().and_then(|session| session.deadline)
    }

    /// The slices in which this Slicelet has a part, in order.
    pub fn local(&self) -> &[Local] {
        &self.local
    }

    /// The digest with which the slice that is owned at `epoch` was surrendered to this session, if
    /// the source's own word for it is known: from its answer, or through the view. Transferred
    /// state is served only if it has this digest. ◆ That the handoff has ended is not enough: a
    /// source that expired may have changed the state after it sent it.
    pub fn proof_of_state(&self, slice: Slice, epoch: Epoch) -> Option<Digest> {
        let me = self.session()?;
        let mut incoming = self.incoming.values();
        let heard = incoming.find(|known| known.brought(slice, epoch));
        let (_, assigned) = self.view.as_ref()?.get(slice.first());
        let lease = Lease { session: me, epoch };
        let shown = assigned.provider.filter(|_| assigned.owner == Some(lease));
        heard
            .and_then(Incoming::digest)
            .or(shown.and_then(|provider| provider.digest))
    }

    /// The ownership check: passes iff the view gives the slice, it is not frozen, surrendered or
    /// below its floor, and `now` is before the deadline.
    pub fn check(&self, key: SliceKey, now: ClockTime) -> Verdict {
        let found = self.local.binary_search_by(|local| {
            if local.slice.last() < key {
                std::cmp::Ordering::Less
            } else if local.slice.first() > key {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Equal
            }
        });
        let Ok(local) = found.map(|at| &self.local[at]) else {
            return Verdict::NotOwner;
        };
        match &local.part {
            Part::Owner | Part::Replica
                if self
                    .deadline()
                    .is_some_and(|deadline| now < deadline || mutant!("check_after_deadline")) =>
            {
                Verdict::Owned(local.epoch)
            }
            Part::Owner if self.config.on_lapse == OnLapse::ServeFenced && !self.shut => {
                Verdict::Fenced(local.epoch)
            }
            Part::Owner | Part::Replica => Verdict::Lapsed,
            Part::Frozen(handoff) | Part::Arriving(handoff) => Verdict::Wait(*handoff),
            Part::Gone(_) => Verdict::NotOwner,
        }
    }

    /// Handles one input. Requires `now` as read for a `t0`.
    pub fn handle(&mut self, now: ClockTime, input: Input) -> Output {
        let mut out = Output::default();
        match input {
            Input::Registered {
                session,
                ttl,
                not_before,
            } => self.begin_session(now, session, ttl, not_before, &mut out),
            Input::Renewed(renewed) => self.renewed(now, renewed, &mut out),
            Input::Pushed(session, update) if self.holds(session) => {
                self.advance(now, update, &mut out)
            }
            Input::Pushed(..) => {}
            Input::Closed(session) => self.closed(session, &mut out),
            Input::Ready(ready) => self.destination_ready(ready, &mut out),
            Input::ReadyAnswered(answer) => self.source_answered(now, answer, &mut out),
            Input::Prepared(handoff) => self.prepared(handoff, now, &mut out),
            Input::Drained(handoff, digest) => self.drained(now, handoff, digest, &mut out),
            Input::Progressing(handoff) => self.progressing(now, handoff),
            Input::Withdraw(handoff) => self.refuse(now, handoff, &mut out),
            Input::HurryHandoffs { until } => self.hurry_handoffs(now, until),
            Input::Shutdown => {
                self.shut = true;
                self.end_session(&mut out);
            }
            Input::Wake => {}
        }
        self.repeat_ready(now, &mut out);
        self.check_handoff_deadlines(now, &mut out);
        self.renew_if_due(now, &mut out);
        if out.changed {
            self.rebuild_local();
        }
        out.wake_at = self.wake_at();
        out
    }

    fn holds(&self, session: SessionId) -> bool {
        self.session() == Some(session)
    }

    fn begin_session(
        &mut self,
        now: ClockTime,
        id: SessionId,
        ttl: Duration,
        not_before: Generation,
        out: &mut Output,
    ) {
        // ◆ A session is never revived: an answer to an earlier registration comes too late.
        if self.shut || self.newest_session.is_some_and(|newest| id <= newest) {
            return;
        }
        self.end_session(out);
        self.newest_session = Some(id);
        let sent = BTreeMap::new();
        self.session = Some(Session {
            id,
            ttl,
            not_before,
            sent,
            deadline: None,
            next_renewal: now,
        });
    }

    /// Drops everything that the session gave. Floors stay: a key range is never held again at an
    /// epoch that was surrendered.
    fn end_session(&mut self, out: &mut Output) {
        self.session = None;
        self.view = None;
        self.outgoing.clear();
        self.incoming.clear();
        self.early_ready.clear();
        self.early_surrenders.clear();
        out.changed = true;
    }

    fn closed(&mut self, session: SessionId, out: &mut Output) {
        if self.holds(session) {
            self.end_session(out);
            out.actions.push(Action::SayClosed(session));
            out.actions.push(Action::Register);
        }
    }

    fn renewed(&mut self, now: ClockTime, renewed: Renewed, out: &mut Output) {
        if !self.holds(renewed.session) {
            return;
        }
        self.extend(now, renewed.seq, renewed.ttl);
        // Afterwards: a word that the new view calls for is not put off until the next period.
        if let Some(update) = renewed.update {
            self.advance(now, update, out);
        }
        out.changed = true;
    }

    /// ◆ The deadline counts from the `t0` of the very transmission that is answered, never from
    /// receipt, and never moves back.
    fn extend(&mut self, now: ClockTime, seq: u64, ttl: Duration) {
        let period = self.period(session_ttl(&self.session));
        let Some(session) = self.session.as_mut() else {
            return;
        };
        let Some(mut t0) = session.sent.remove(&seq) else {
            return;
        };
        if mutant!("deadline_from_receipt") {
            t0 = now;
        }
        // Answers to older transmissions can only say less.
        session.sent = session.sent.split_off(&seq);
        let deadline = t0 + ttl.min(session.ttl);
        if session.deadline.is_none_or(|known| known < deadline) {
            session.deadline = Some(deadline);
            session.next_renewal = t0 + period;
        }
    }

    /// ◆ The view is one value at one generation, replaced as a whole, never backwards.
    fn advance(&mut self, now: ClockTime, update: ViewUpdate, out: &mut Output) {
        let not_before = self.session.as_ref().map(|session| session.not_before);
        if not_before.is_some_and(|bound| update.generation() < bound)
            && !mutant!("not_before_ignored")
        {
            return;
        }
        match View::advance(&mut self.view, update) {
            Ok(Applied::Newer) => {
                out.changed = true;
                self.follow_view(now, out);
            }
            Ok(Applied::Stale) => {}
            // The next renewal names what is known and is answered with what fits it.
            Err(_) => self.renew_soon(now),
        }
    }

    fn renew_soon(&mut self, now: ClockTime) {
        if let Some(session) = self.session.as_mut() {
            session.next_renewal = session.next_renewal.min(now);
        }
    }

    /// A sixth of the ttl, up to a tenth of that earlier.
    fn period(&self, ttl: Duration) -> Duration {
        let period = ttl / 6;
        let mixed =
            (self.next_seq ^ self.config.jitter_seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        period - period.mul_f64(mixed as f64 / 10_240.0)
    }

    /// ◆ Every transmission, a retry too, has its own seq and its own `t0`. ◆ All words about open
    /// handoffs are in every one.
    fn renew_if_due(&mut self, now: ClockTime, out: &mut Output) {
        #[cfg_attr(not(leasehold_mutants), expect(unused_mut))]
        let mut words = self.words();
        let known = self.view.as_ref().map(|view| view.generation);
        let armed = self.view.as_ref().and_then(|view| match view.mode {
            Mode::Arming(generation) => Some(generation),
            Mode::Strong | Mode::Eventual => None,
        });
        let retry = session_ttl(&self.session) / 12;
        let period = self.period(session_ttl(&self.session));
        let Some(session) = self
            .session
            .as_mut()
            .filter(|session| session.next_renewal <= now)
        else {
            return;
        };
        let mut seq = self.next_seq;
        self.next_seq += 1;
        if mutant!("retry_under_the_same_seq") {
            seq = session.sent.last_key_value().map_or(seq, |(sent, _)| *sent);
        }
        #[cfg(leasehold_mutants)]
        if mutant!("words_said_once") {
            words.retain(|word| self.said.insert((session.id, *word)));
        }
        session.sent.insert(seq, now);
        while session.sent.len() > limits::OUTSTANDING_RENEWALS {
            session.sent.pop_first();
        }
        // Less than half remains: ask twice as often.
        let hurried = session
            .deadline
            .is_none_or(|deadline| deadline.since(now) < session.ttl / 2);
        session.next_renewal = now + if hurried { retry } else { period };
        out.actions.push(Action::Renew(Renew {
            session: session.id,
            seq,
            known,
            words,
            armed,
            merging: None,
        }));
    }

    fn wake_at(&self) -> Option<ClockTime> {
        let renewal = self.session.as_ref().map(|session| session.next_renewal);
        let outgoing = self.outgoing.values().filter_map(Outgoing::wake_at);
        let incoming = self.incoming.values().filter_map(Incoming::wake_at);
        renewal.into_iter().chain(outgoing).chain(incoming).min()
    }
}

fn session_ttl(session: &Option<Session>) -> Duration {
    session
        .as_ref()
        .map(|session| session.ttl)
        .unwrap_or_default()
}
