//! A Slicelet process: its Holder, its clock, and an application that prepares and drains slices.

use leasehold_proto::command::Digest;
use leasehold_proto::holder::{Action, Holder, HolderConfig, Input, OnNotReady, Output, Part};
use leasehold_proto::id::HandoffId;
use leasehold_proto::message::{ReadyAnswer, Renewed, Word};
use leasehold_proto::router::Router;
use leasehold_proto::target::OnLapse;
use leasehold_proto::{ClockTime, Generation, PodAddress, SessionId, Slice, Squid, ViewUpdate};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::application::Application;
use super::message::Cut;
use super::{Clock, Message, Rng, TTL, World};
use crate::check::Holding;
use crate::coverage::Seen;
use crate::options::Fault;
use crate::planted;

pub struct Host {
    pub clock: Clock,
    pub holder: Holder,
    pub squid: Squid,
    pub alive: bool,
    /// Not scheduled: stopped by a signal, swapped out, or its machine is suspended.
    pub asleep: bool,
    pub cut: Cut,
    pub wake_at: Option<ClockTime>,
    pub preparing: BTreeSet<HandoffId>,
    pub draining: BTreeMap<HandoffId, Slice>,
    /// Handoffs whose slice is frozen, with no guard in flight: the last change may go.
    pub drained: BTreeSet<HandoffId>,
    /// Gives state up rather than wait for a destination.
    pub goes_cold: bool,
    pub application: Application,
    /// Until when each session may serve at most: from the `t0` of what was answered.
    pub may_serve: BTreeMap<SessionId, ClockTime>,
    pub seen: Option<Generation>,
    not_before: Option<Generation>,
    /// Whether it was told something since it was last looked at.
    pub touched: bool,
    pub holding: Holding,
    surrenders_said: BTreeSet<HandoffId>,
    /// The latest time that its Holder was given.
    handled: ClockTime,
    /// Asked to end: it shuts down when it has handed off what it can.
    pub ending: bool,
}

/// A Holder, and whether it gives state up rather than wait.
fn holder(rng: &mut Rng) -> (Holder, bool) {
    let goes_cold = !rng.chance(70);
    let on_not_ready = match goes_cold {
        false => OnNotReady::Stay,
        true => OnNotReady::GoCold,
    };
    let on_lapse = if rng.chance(70) {
        OnLapse::Stop
    } else {
        OnLapse::ServeFenced
    };
    let jitter_seed = rng.draw();
    let config = HolderConfig {
        handoff_deadline: TTL * 2,
        on_not_ready,
        on_lapse,
        jitter_seed,
    };
    (Holder::new(config), goes_cold)
}

impl Host {
    pub fn new(address: PodAddress, rng: &mut Rng, clock_lies: bool) -> Self {
        let clock = Clock::new(rng, clock_lies);
        let (holder, goes_cold) = holder(rng);
        Self {
            wake_at: Some(clock.now()),
            handled: clock.now(),
            clock,
            holder,
            goes_cold,
            drained: BTreeSet::new(),
            squid: Squid {
                address,
                id: u128::from(rng.draw()),
            },
            alive: true,
            asleep: false,
            cut: Cut::default(),
            preparing: BTreeSet::new(),
            draining: BTreeMap::new(),
            application: Application::default(),
            may_serve: BTreeMap::new(),
            seen: None,
            not_before: None,
            touched: true,
            holding: Holding::default(),
            surrenders_said: BTreeSet::new(),
            ending: false,
        }
    }

    /// Whether it does anything now.
    pub fn runs(&self) -> bool {
        self.alive && !self.asleep
    }

    pub fn lease_has_lapsed(&self) -> bool {
        let now = self.clock.now();
        self.holder
            .lease_deadline()
            .is_some_and(|deadline| deadline <= now)
    }
}

impl World {
    /// Kills a process, ends it gracefully, or starts it anew under the same address. A Clerk now
    /// and then.
    pub(super) fn crash_any(&mut self) {
        let at = self.rng.index(self.hosts.len());
        if self.rng.chance(10) {
            let router = self.rng.index(self.routers.len());
            self.note(|| format!("Clerk {router} starts anew"));
            self.routers[router] = Router::new();
            return;
        }
        if self.hosts[at].runs() && self.rng.chance(50) {
            (self.hosts[at].ending, self.hosts[at].goes_cold) = (true, true);
            self.note(|| format!("host {at} is asked to end"));
            let until = ClockTime::from_nanos(0);
            return self.give(at, Input::HurryHandoffs { until });
        }
        self.note(|| format!("host {at} crashes"));
        self.restart(at);
        self.hosts[at].alive = self.rng.chance(70);
    }

    /// ◆ The word that closes a session follows the end of all serving.
    fn end_gracefully(&mut self, at: usize) {
        let session = self.hosts[at].holder.session();
        self.coverage.see(Seen::GracefulEnd);
        self.note(|| format!("host {at} ends"));
        if planted("closes_before_it_stops") {
            if let Some(session) = session {
                self.send(Message::Close { session });
            }
            self.hosts[at].ending = false;
            return;
        }
        self.give(at, Input::Shutdown);
        if let Some(session) = session {
            self.send(Message::Close { session });
        }
        self.restart(at);
    }

    pub(super) fn restart(&mut self, at: usize) {
        let (fresh, goes_cold) = holder(&mut self.rng);
        let id = u128::from(self.rng.draw());
        let host = &mut self.hosts[at];
        (host.holder, host.goes_cold) = (fresh, goes_cold);
        host.squid.id = id;
        (host.alive, host.asleep, host.ending) = (true, false, false);
        host.preparing.clear();
        host.draining.clear();
        host.drained.clear();
        host.surrenders_said.clear();
        let lost = host.application.kept.unacknowledged();
        self.unacknowledged.extend(lost);
        host.application = Application::default();
        host.seen = None;
        host.touched = true;
        host.wake_at = Some(host.clock.now());
    }

    /// A process falls asleep, or wakes up again.
    pub(super) fn doze_any(&mut self) {
        let at = self.rng.index(self.hosts.len());
        let host = &mut self.hosts[at];
        host.asleep = !host.asleep && host.alive;
        if host.asleep {
            self.note(|| format!("host {at} falls asleep"));
            return;
        }
        if host.holder.session().is_some() && host.lease_has_lapsed() {
            let session = host.holder.session();
            self.coverage.see(Seen::SleptThrough);
            if session.is_some_and(|id| !self.is_live(id)) {
                self.coverage.see(Seen::SleptThroughExpiry);
            }
        }
        self.note(|| format!("host {at} wakes up"));
    }

    pub(super) fn is_live(&self, session: SessionId) -> bool {
        let state = self.check.state();
        state.is_some_and(|state| state.live_sessions().any(|known| known.id == session))
    }

    pub(super) fn wake_host(&mut self, at: usize) {
        if !self.hosts[at].runs() {
            return;
        }
        self.give(at, Input::Wake);
        let host = &mut self.hosts[at];
        if host.holder.session().is_none() {
            host.wake_at = Some(host.clock.now() + TTL / 8);
            self.register(at);
        }
    }

    fn register(&mut self, host: usize) {
        let squid = self.hosts[host].squid.clone();
        let node = self.some_leader();
        self.send(Message::Register { host, squid, node });
    }

    /// The application gets on with something that it was asked for.
    pub(super) fn work(&mut self, at: usize) {
        if !self.hosts[at].runs() {
            return;
        }
        if self.adversity.stateful && self.rng.chance(50) {
            self.work_on_transfers(at);
        } else if self.rng.chance(50)
            && let Some(handoff) = self.next_prepared(at)
        {
            self.give(at, Input::Prepared(handoff));
        } else if !self.hosts[at].draining.is_empty() {
            self.drain(at);
        } else if self.hosts[at].ending && self.rng.chance(30) {
            self.end_gracefully(at);
        } else if self.rng.chance(20) {
            self.tell_a_router(at);
        }
    }

    /// ◆ Surrendered only when no guard is in flight, or those that are have been cut off.
    pub(super) fn drain(&mut self, at: usize) {
        let host = &self.hosts[at];
        let nth = self.rng.index(host.draining.len().max(1));
        let Some((handoff, slice)) = host.draining.iter().nth(nth).map(|(h, s)| (*h, *s)) else {
            return;
        };
        if host.application.guards(slice) && !planted("guards_outlive_the_surrender") {
            let patience = self.adversity.chance(Fault::Impatience);
            if !self.benign && !self.rng.chance(patience) {
                self.coverage.see(Seen::GuardHeldBackSurrender);
                return self.continue_any(at);
            }
            self.coverage.see(Seen::GuardCutOff);
            self.hosts[at].application.cut_off(slice);
        }
        if self.adversity.stateful {
            self.finish_transfer(at, handoff);
        } else {
            self.surrender(at, handoff, Digest::EMPTY);
        }
    }

    /// A handoff for which the application is prepared: one that needs state has caught up.
    pub(super) fn next_prepared(&mut self, at: usize) -> Option<HandoffId> {
        let preparing = &self.hosts[at].preparing;
        let ready = preparing.iter().find(|id| self.has_caught_up(at, **id));
        let ready = ready.copied()?;
        self.hosts[at].preparing.remove(&ready);
        Some(ready)
    }

    fn tell_a_router(&mut self, at: usize) {
        let locals = self.hosts[at].holder.local();
        let gone = locals.iter().find_map(|local| match &local.part {
            Part::Gone(moved) => Some((**moved).clone()),
            _ => None,
        });
        if let Some(moved) = gone {
            let router = self.rng.index(self.routers.len());
            self.send(Message::Hint { router, moved });
        }
    }

    pub(super) fn deliver_to_host(&mut self, message: Message) {
        match message {
            // For a process that has died meanwhile.
            Message::Registered { host, squid, .. } if self.hosts[host].squid != squid => {}
            Message::Registered { host, reply, .. } => {
                if self.hosts[host]
                    .holder
                    .session()
                    .is_some_and(|held| reply.session < held)
                {
                    self.coverage.see(Seen::LateRegistration);
                }
                let input = Input::Registered {
                    session: reply.session,
                    ttl: reply.ttl,
                    not_before: reply.not_before,
                };
                self.give(host, input);
                if self.hosts[host].holder.session() == Some(reply.session) {
                    self.hosts[host].not_before = Some(reply.not_before);
                }
            }
            Message::Renewed { host, renewed, t0 } => self.deliver_renewed(host, renewed, t0),
            Message::Closed { host, session } => self.give(host, Input::Closed(session)),
            Message::Pushed {
                host,
                session,
                update,
            } => {
                if self.hosts[host].holder.session() == Some(session) {
                    self.notice_update(host, &update);
                }
                self.give(host, Input::Pushed(session, update));
            }
            Message::Ready { host, ready, .. } => {
                let holder = &self.hosts[host].holder;
                let mine = holder.session() == Some(ready.from);
                let shown = || holder.view().is_some_and(|view| shows(view, ready.handoff));
                if mine && !shown() {
                    self.coverage.see(Seen::ReadyTooEarly);
                }
                self.give(host, Input::Ready(ready));
            }
            Message::Answer { host, answer, .. } => self.deliver_answer(host, answer),
            Message::FromStore {
                host,
                process,
                reply,
            } => self.store_answered(host, process, reply),
            Message::Parcel {
                from,
                host,
                attempt,
                parcel,
            } => self.deliver_parcel(from, host, attempt, parcel),
            _ => {}
        }
    }

    fn deliver_renewed(&mut self, at: usize, renewed: Renewed, t0: ClockTime) {
        let host = &mut self.hosts[at];
        if host.holder.session() == Some(renewed.session) {
            let granted = t0 + renewed.ttl;
            let now = host.clock.now();
            let until = host.may_serve.get(&renewed.session).copied();
            host.may_serve.insert(
                renewed.session,
                until.map_or(granted, |until| until.max(granted)),
            );
            if until.is_some_and(|until| until > granted) {
                self.coverage.see(Seen::AnswersReordered);
            }
            if granted <= now {
                self.coverage.see(Seen::AnswerTooLate);
            } else if until.is_some_and(|until| until <= now) {
                self.coverage.see(Seen::LapsedAndBack);
            }
            if let Some(update) = &renewed.update {
                self.notice_update(at, update);
            }
        }
        self.give(at, Input::Renewed(renewed));
    }

    fn notice_update(&mut self, at: usize, update: &ViewUpdate) {
        let known = self.hosts[at].seen;
        if self.hosts[at]
            .not_before
            .is_some_and(|bound| update.generation() < bound)
        {
            self.coverage.see(Seen::BeforeRegistration);
        }
        if known.is_some_and(|known| update.generation() <= known) {
            self.coverage.see(Seen::StaleView);
        }
        match (update, known) {
            (ViewUpdate::Diff(diff), Some(known)) if diff.base > known => {
                self.coverage.see(Seen::GapRefused)
            }
            (ViewUpdate::Diff(_), None) => self.coverage.see(Seen::GapRefused),
            _ => {}
        }
    }

    fn deliver_answer(&mut self, at: usize, answer: ReadyAnswer) {
        let host = &self.hosts[at];
        let before = host.holder.arriving().count();
        let lapsed = host.lease_has_lapsed();
        match answer {
            ReadyAnswer::NotMine(_) => self.coverage.see(Seen::NotMine),
            ReadyAnswer::Surrendered(surrender)
                if host.holder.session() == Some(surrender.to)
                    && !host
                        .holder
                        .view()
                        .is_some_and(|view| shows(view, surrender.handoff)) =>
            {
                self.coverage.see(Seen::SurrenderTooLate)
            }
            _ => {}
        }
        self.give(at, Input::ReadyAnswered(answer));
        if self.hosts[at].holder.arriving().count() < before {
            if let ReadyAnswer::Surrendered(surrender) = answer
                && self
                    .check
                    .state()
                    .is_some_and(|state| state.handoff(surrender.handoff).is_some())
            {
                self.coverage.see(Seen::DirectAccept);
            }
            if lapsed {
                self.coverage.see(Seen::AcceptedLapsed);
            }
        }
    }

    pub(super) fn give(&mut self, at: usize, input: Input) {
        let host = &mut self.hosts[at];
        if !host.alive {
            return;
        }
        // The time may have been read before a pause: too small, never too large.
        let mut now = host.clock.now();
        let timed = matches!(input, Input::Wake);
        if !self.benign && !timed && now > host.handled && self.rng.chance(3) {
            let pause = now.as_nanos() - host.handled.as_nanos();
            now = host.handled + Duration::from_nanos(self.rng.below(pause));
            self.coverage.see(Seen::OldTime);
        }
        host.handled = host.handled.max(now);
        let before = host.draining.len();
        let out = host.holder.handle(now, input);
        host.touched = true;
        if out.changed && self.adversity.stateful {
            self.take_in(at);
            self.end_transfers(at);
        }
        self.host_says(at, now, out);
        if timed && self.hosts[at].draining.len() > before {
            self.coverage.see(Seen::WentCold);
        }
        self.revoke_guards(at);
        let host = &mut self.hosts[at];
        if let Some(view) = host.holder.view() {
            let judged = self
                .check
                .views
                .invariant_a_view_never_goes_back_and_is_whole(
                    self.check.state(),
                    host.seen,
                    view,
                    "a Holder",
                );
            host.seen = Some(view.generation);
            self.check.judge(judged);
        } else {
            // A new session begins anew.
            host.seen = None;
        }
    }

    fn host_says(&mut self, at: usize, now: ClockTime, out: Output) {
        let host = &mut self.hosts[at];
        let registering = host.wake_at.filter(|_| host.holder.session().is_none());
        host.wake_at = out.wake_at.or(registering);
        for action in out.actions {
            self.note(|| format!("host {at}: {action:?}"));
            match action {
                Action::Renew(renew) => {
                    self.notice_words(at, &renew.words);
                    let node = self.some_leader();
                    self.send(Message::Renew {
                        host: at,
                        node,
                        renew,
                        t0: now,
                    });
                }
                Action::SayClosed(session) => self.send(Message::Close { session }),
                Action::Register => {
                    self.hosts[at].wake_at = Some(now);
                    self.register(at);
                }
                Action::Prepare {
                    handoff,
                    slice,
                    epoch,
                    ..
                } => {
                    self.hosts[at].preparing.insert(handoff);
                    if self.adversity.stateful {
                        self.pull(at, handoff, slice, epoch);
                    }
                }
                Action::SendReady(ready, _) => {
                    if let Some(host) = self.home.get(&ready.from).copied() {
                        self.send(Message::Ready {
                            from: at,
                            host,
                            ready,
                        });
                    }
                }
                Action::AnswerReady(ready, answer) => {
                    if let ReadyAnswer::Surrendered(surrender) = answer
                        && !self.hosts[at].surrenders_said.insert(surrender.handoff)
                    {
                        self.coverage.see(Seen::SurrenderRepeated);
                    }
                    // The destination then learns of the surrender from its view, if at all.
                    let surrendered = matches!(answer, ReadyAnswer::Surrendered(_));
                    let lost =
                        surrendered && !self.benign && self.adversity.chance(Fault::Loss) > 0;
                    if lost && self.rng.chance(40) {
                        continue;
                    }
                    if let Some(host) = self.home.get(&ready.to).copied() {
                        self.send(Message::Answer {
                            from: at,
                            host,
                            answer,
                        });
                    }
                }
                Action::Freeze { handoff, slice } => {
                    let cuts = !self.benign && self.adversity.chance(Fault::Cuts) > 0;
                    self.hosts[at].cut.to_assigner |= cuts && self.rng.chance(20);
                    self.hosts[at].draining.insert(handoff, slice);
                    if planted("surrender_before_last_change") {
                        self.hosts[at].drained.insert(handoff);
                    }
                }
            }
        }
    }
}

impl World {
    /// A refusal that nobody asked for is the source's own: its destination was not ready in time.
    fn notice_words(&mut self, at: usize, words: &[Word]) {
        let Some(view) = self.hosts[at].holder.view() else {
            return;
        };
        let unasked = words.iter().any(|word| match word {
            Word::Refused(id) => view.slices.iter().any(|(_, assigned)| {
                let open = assigned.handoff.filter(|handoff| handoff.id == *id);
                open.is_some_and(|handoff| !handoff.ask_cancel && !handoff.to_closed)
            }),
            _ => false,
        });
        if unasked {
            self.coverage.see(Seen::Stayed);
        }
    }
}

pub fn shows(view: &leasehold_proto::View, handoff: HandoffId) -> bool {
    let open = |id: Option<HandoffId>| id == Some(handoff);
    view.slices
        .iter()
        .any(|(_, assigned)| open(assigned.handoff.map(|handoff| handoff.id)))
}
