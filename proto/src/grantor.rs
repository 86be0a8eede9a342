//! The clocked half of the Assigner's leader: who was answered when, and whose lease must have
//! run out.
//!
//! ◆ One value belongs to one term. It is made with the time read *after* the votes of that term
//! were counted, and dropped when the term ends; nothing of it is carried over.

mod canonical;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::{ClockClass, ClockTime, wait_after_answer};
use crate::id::SessionId;
use crate::limits;

/// How a Grantor measures and batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantorConfig {
    /// Of the clock that `now` is read from.
    pub clock: ClockClass,
    /// Added to every wait: the coarseness of timers and clocks.
    pub granularity: Duration,
    /// Shortest time between the starts of two quorum rounds.
    pub collect_window: Duration,
}

impl Default for GrantorConfig {
    fn default() -> Self {
        Self {
            clock: ClockClass::Raw,
            granularity: Duration::from_millis(5),
            collect_window: Duration::from_micros(500),
        }
    }
}

/// A session as the table describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its number.
    pub session: SessionId,
    /// Its time to live.
    pub ttl: Duration,
    /// Its clock class.
    pub clock: ClockClass,
    /// Its target was deleted: it is never answered, but D runs on.
    pub leaving: bool,
}

/// One transmission to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Renewal {
    /// Whose.
    pub session: SessionId,
    /// Which transmission.
    pub seq: u64,
}

/// What happens to a Grantor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An entry of this term is committed and applied; these sessions are in the table there.
    Ready(Vec<SessionInfo>),
    /// A registration was applied.
    Registered(SessionInfo),
    /// The session's target was deleted.
    Leaving(SessionId),
    /// The session was closed, by whatever entry.
    Closed(SessionId),
    /// Renewals arrived.
    Renewals(Vec<Renewal>),
    /// The quorum round of this number, begun after [`Action::Confirm`], succeeded, and the table
    /// has applied the index that it read.
    Confirmed(u64),
    /// That round failed: nothing is answered; the senders send again.
    NotConfirmed(u64),
    /// The time of an earlier `wake_at` has come.
    Wake,
}

/// What the shell must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin a quorum round now.
    Confirm(u64),
    /// Answer these: the lease of each runs for its ttl from its own `t0`.
    Answer(Vec<Renewal>),
    /// Tell these that their session is closed or unknown.
    TellClosed(Vec<Renewal>),
    /// Propose the expiry of this session in this term; it is never answered again.
    Expire(SessionId),
    /// Two renewals are missing: successors may be warmed up.
    Suspect(SessionId),
    /// The session speaks again.
    Trust(SessionId),
}

/// Actions, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Output {
    /// To carry out in order.
    pub actions: Vec<Action>,
    /// When to give [`Input::Wake`]; `None` when nothing is waited for.
    pub wake_at: Option<ClockTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    ttl: Duration,
    /// D, fixed at registration.
    wait: Duration,
    answered: ClockTime,
    heard: ClockTime,
    /// Whether it was ever answered in this term.
    renewed: bool,
    suspected: bool,
    expiring: bool,
    leaving: bool,
    /// Where it stands in `due`.
    queued: ClockTime,
}

impl Slot {
    fn expires(&self) -> ClockTime {
        self.answered + self.wait
    }

    /// A renewal is sent every sixth of the ttl: two and a half periods of silence.
    fn suspicious(&self) -> ClockTime {
        self.heard + self.ttl * 5 / 12
    }

    fn next_due(&self) -> ClockTime {
        if self.suspected || self.leaving {
            self.expires()
        } else {
            self.expires().min(self.suspicious())
        }
    }
}

/// The leader's memory of one term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grantor {
    term: u64,
    config: GrantorConfig,
    /// When this term was won.
    won: ClockTime,
    ready: bool,
    sessions: BTreeMap<SessionId, Slot>,
    /// Every session that is not expiring, by the earliest time at which it may need attention.
    due: BTreeSet<(ClockTime, SessionId)>,
    collected: Vec<Renewal>,
    round: u64,
    in_flight: Option<Vec<Renewal>>,
    last_round: Option<ClockTime>,
}

impl Grantor {
    /// The empty memory of `term`. `won` must be read after the votes were counted.
    pub fn new(term: u64, won: ClockTime, config: GrantorConfig) -> Self {
        Self {
            term,
            config,
            won,
            ready: false,
            sessions: BTreeMap::new(),
            due: BTreeSet::new(),
            collected: Vec::new(),
            round: 0,
            in_flight: None,
            last_round: None,
        }
    }

    /// The term that it belongs to.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether the session was answered in this term and is not suspected: it may be given slices.
    pub fn may_receive(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|slot| slot.renewed && !slot.suspected && !slot.expiring && !slot.leaving)
    }

    /// How long ago the session was last answered; `None` if it was not in this term.
    pub fn answered_ago(&self, now: ClockTime, session: SessionId) -> Option<Duration> {
        let slot = self.sessions.get(&session).filter(|slot| slot.renewed)?;
        Some(now.since(slot.answered))
    }

    /// Whether renewals of the session are missing.
    pub fn is_suspected(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|slot| slot.suspected || slot.expiring)
    }

    /// Sessions that are not closed, as far as this term knows.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Handles one input. Requires `now` never to run backwards.
    pub fn handle(&mut self, now: ClockTime, input: Input) -> Output {
        let mut out = Output::default();
        match input {
            Input::Ready(sessions) => {
                self.ready = true;
                for info in sessions {
                    self.admit(self.won, info);
                }
            }
            Input::Registered(info) => self.admit(now, info),
            Input::Leaving(session) => {
                if let Some(slot) = self.sessions.get_mut(&session) {
                    slot.leaving = true;
                }
            }
            Input::Closed(session) => self.forget(session),
            Input::Renewals(renewals) => self.collect(now, renewals, &mut out),
            Input::Confirmed(round) => self.answer(now, round, &mut out),
            Input::NotConfirmed(round) if round == self.round => self.in_flight = None,
            Input::NotConfirmed(_) | Input::Wake => {}
        }
        self.begin_round(now, &mut out);
        self.attend(now, &mut out);
        out.wake_at = self.wake_at();
        out
    }

    /// D counts from the latest of: term won, registration applied, last answer in this term.
    fn admit(&mut self, since: ClockTime, info: SessionInfo) {
        let mut since = since.max(self.won);
        if self.sessions.contains_key(&info.session) {
            return;
        }
        let mut wait = wait_after_answer(
            info.ttl,
            info.clock,
            self.config.clock,
            self.config.granularity,
        );
        if mutant!("wait_without_drift") {
            wait = info.ttl;
        }
        if mutant!("new_leader_does_not_wait") && since == self.won {
            since = ClockTime::from_nanos(0);
        }
        let slot = Slot {
            ttl: info.ttl,
            wait,
            answered: since,
            heard: since,
            renewed: false,
            suspected: false,
            expiring: false,
            leaving: info.leaving,
            queued: since,
        };
        self.due.insert((slot.queued, info.session));
        self.sessions.insert(info.session, slot);
    }

    fn forget(&mut self, session: SessionId) {
        if let Some(slot) = self.sessions.remove(&session) {
            self.due.remove(&(slot.queued, session));
        }
    }

    fn collect(&mut self, now: ClockTime, renewals: Vec<Renewal>, out: &mut Output) {
        let room = limits::PENDING_RENEWALS.saturating_sub(self.collected.len());
        for renewal in renewals.into_iter().take(room) {
            if let Some(slot) = self.sessions.get_mut(&renewal.session) {
                slot.heard = now;
                if std::mem::take(&mut slot.suspected) && !slot.expiring {
                    out.actions.push(Action::Trust(renewal.session));
                    // It counts as due at once, so that its next suspicion is queued anew.
                    self.due.remove(&(slot.queued, renewal.session));
                    slot.queued = now;
                    self.due.insert((now, renewal.session));
                }
            }
            self.collected.push(renewal);
        }
    }

    /// A round confirms only what was collected before it began.
    fn begin_round(&mut self, now: ClockTime, out: &mut Output) {
        let due = self
            .last_round
            .is_none_or(|last| now >= last + self.config.collect_window);
        let ready = self.ready || mutant!("answers_before_own_term");
        if ready && self.in_flight.is_none() && !self.collected.is_empty() && due {
            self.round += 1;
            self.last_round = Some(now);
            self.in_flight = Some(std::mem::take(&mut self.collected));
            if mutant!("no_quorum_confirm") {
                return self.answer(now, self.round, out);
            }
            out.actions.push(Action::Confirm(self.round));
        }
    }

    fn answer(&mut self, now: ClockTime, round: u64, out: &mut Output) {
        if round != self.round {
            return;
        }
        let (mut answered, mut closed) = (Vec::new(), Vec::new());
        let mut confirmed = self.in_flight.take().unwrap_or_default();
        if mutant!("answers_what_came_after_the_round_began") {
            confirmed.append(&mut self.collected);
        }
        for renewal in confirmed {
            match self.sessions.get_mut(&renewal.session) {
                // ◆ From deciding to expire it on, the session is answered no more.
                Some(slot) if slot.expiring && !mutant!("expiring_session_answered") => {}
                Some(slot) if slot.leaving => closed.push(renewal),
                Some(slot) => {
                    slot.answered = slot.answered.max(now);
                    slot.renewed = true;
                    answered.push(renewal);
                }
                None if mutant!("answers_before_own_term") => answered.push(renewal),
                None => closed.push(renewal),
            }
        }
        if !answered.is_empty() {
            out.actions.push(Action::Answer(answered));
        }
        if !closed.is_empty() {
            out.actions.push(Action::TellClosed(closed));
        }
    }

    /// Looks at the sessions whose time may have come; their true time is computed only here.
    fn attend(&mut self, now: ClockTime, out: &mut Output) {
        if !self.ready {
            return;
        }
        while let Some((at, session)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, session));
            let Some(slot) = self.sessions.get_mut(&session) else {
                continue;
            };
            if slot.expires() <= now {
                slot.expiring = true;
                out.actions.push(Action::Expire(session));
                continue;
            }
            if !slot.suspected && !slot.leaving && slot.suspicious() <= now {
                slot.suspected = true;
                out.actions.push(Action::Suspect(session));
            }
            slot.queued = slot.next_due();
            self.due.insert((slot.queued, session));
        }
    }

    fn wake_at(&self) -> Option<ClockTime> {
        if !self.ready {
            return None;
        }
        let attention = self.due.first().map(|(at, _)| *at);
        let waiting = self.in_flight.is_none() && !self.collected.is_empty();
        let round = self
            .last_round
            .filter(|_| waiting)
            .map(|last| last + self.config.collect_window);
        attention.into_iter().chain(round).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> ClockTime {
        ClockTime::from_nanos(ms * 1_000_000)
    }

    fn session(n: u64) -> SessionId {
        SessionId::from_u64(n)
    }

    fn info(n: u64) -> SessionInfo {
        SessionInfo {
            session: session(n),
            ttl: TTL,
            clock: ClockClass::Raw,
            leaving: false,
        }
    }

    fn renewal(n: u64, seq: u64) -> Renewal {
        Renewal {
            session: session(n),
            seq,
        }
    }

    fn ready(sessions: &[u64]) -> Grantor {
        let mut grantor = Grantor::new(5, at(1_000), GrantorConfig::default());
        grantor.handle(
            at(1_010),
            Input::Ready(sessions.iter().copied().map(info).collect()),
        );
        grantor
    }

    fn expired(out: &Output) -> bool {
        out.actions.contains(&Action::Expire(session(1)))
    }

    fn d() -> Duration {
        wait_after_answer(
            TTL,
            ClockClass::Raw,
            ClockClass::Raw,
            GrantorConfig::default().granularity,
        )
    }

    #[test]
    fn nothing_is_answered_before_an_entry_of_its_own_term_is_applied() {
        let mut grantor = Grantor::new(5, at(1_000), GrantorConfig::default());
        assert_eq!(
            grantor
                .handle(at(1_001), Input::Renewals(vec![renewal(1, 1)]))
                .actions,
            vec![]
        );
        let out = grantor.handle(at(1_010), Input::Ready(vec![info(1)]));
        assert_eq!(out.actions, vec![Action::Confirm(1)]);
        let out = grantor.handle(at(1_011), Input::Confirmed(1));
        assert_eq!(out.actions, vec![Action::Answer(vec![renewal(1, 1)])]);
    }

    #[test]
    fn a_round_answers_only_what_arrived_before_it_began() {
        let mut grantor = ready(&[1, 2]);
        assert_eq!(
            grantor
                .handle(at(1_020), Input::Renewals(vec![renewal(1, 1)]))
                .actions,
            vec![Action::Confirm(1)]
        );
        assert_eq!(
            grantor
                .handle(at(1_021), Input::Renewals(vec![renewal(2, 1)]))
                .actions,
            vec![]
        );
        let out = grantor.handle(at(1_022), Input::Confirmed(1));
        assert_eq!(
            out.actions,
            vec![Action::Answer(vec![renewal(1, 1)]), Action::Confirm(2)]
        );
        assert_eq!(
            grantor.handle(at(1_023), Input::Confirmed(1)).actions,
            vec![]
        );
        assert_eq!(
            grantor.handle(at(1_023), Input::NotConfirmed(2)).actions,
            vec![]
        );
    }

    #[test]
    fn d_counts_from_the_term_the_registration_and_the_last_answer() {
        // From the term, for a session that was never heard.
        let mut grantor = ready(&[1]);
        let last = ClockTime::from_nanos((at(1_000) + d()).as_nanos() - 1);
        assert!(!expired(&grantor.clone().handle(last, Input::Wake)));
        assert!(expired(&grantor.handle(at(1_000) + d(), Input::Wake)));
        // From the registration.
        let mut grantor = ready(&[]);
        grantor.handle(at(2_000), Input::Registered(info(1)));
        assert!(!expired(&grantor.handle(at(1_999) + d(), Input::Wake)));
        assert!(expired(&grantor.handle(at(2_000) + d(), Input::Wake)));
        // From the answer, not from the arrival of the renewal.
        let mut grantor = ready(&[1]);
        grantor.handle(at(2_000), Input::Renewals(vec![renewal(1, 1)]));
        grantor.handle(at(2_500), Input::Confirmed(1));
        assert!(!expired(&grantor.handle(at(2_499) + d(), Input::Wake)));
        assert!(expired(&grantor.handle(at(2_500) + d(), Input::Wake)));
    }

    #[test]
    fn an_expiring_session_is_answered_no_more() {
        let mut grantor = ready(&[1]);
        grantor.handle(at(2_000), Input::Renewals(vec![renewal(1, 1)]));
        assert!(expired(&grantor.handle(at(1_000) + d(), Input::Wake)));
        let out = grantor.handle(at(1_001) + d(), Input::Confirmed(1));
        assert_eq!(out.actions, vec![]);
        grantor.handle(at(1_002) + d(), Input::Closed(session(1)));
        grantor.handle(at(1_003) + d(), Input::Renewals(vec![renewal(1, 2)]));
        let out = grantor.handle(at(1_004) + d(), Input::Confirmed(2));
        assert_eq!(out.actions, vec![Action::TellClosed(vec![renewal(1, 2)])]);
    }

    #[test]
    fn a_silent_session_is_suspected_once_and_trusted_when_it_speaks() {
        let mut grantor = ready(&[1]);
        let out = grantor.handle(at(2_250), Input::Wake);
        assert_eq!(out.actions, vec![Action::Suspect(session(1))]);
        assert!(grantor.is_suspected(session(1)));
        assert_eq!(grantor.handle(at(2_300), Input::Wake).actions, vec![]);
        let out = grantor.handle(at(2_400), Input::Renewals(vec![renewal(1, 1)]));
        assert_eq!(
            out.actions,
            vec![Action::Trust(session(1)), Action::Confirm(1)]
        );
        grantor.handle(at(2_401), Input::Confirmed(1));
        assert!(grantor.may_receive(session(1)));
        let out = grantor.handle(at(2_400 + 1_250), Input::Wake);
        assert_eq!(out.actions, vec![Action::Suspect(session(1))]);
    }

    #[test]
    fn a_leaving_session_is_not_answered_but_expires() {
        let mut grantor = ready(&[1]);
        grantor.handle(at(1_100), Input::Leaving(session(1)));
        grantor.handle(at(1_200), Input::Renewals(vec![renewal(1, 1)]));
        let out = grantor.handle(at(1_201), Input::Confirmed(1));
        assert_eq!(out.actions, vec![Action::TellClosed(vec![renewal(1, 1)])]);
        assert!(expired(&grantor.handle(at(1_000) + d(), Input::Wake)));
    }
}
