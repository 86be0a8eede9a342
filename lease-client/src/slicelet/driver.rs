//! The task that owns a Slicelet's Holder: carries inputs to it, and its actions out.

mod freeze;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::command::Digest;
use leasehold_proto::holder::{Action, Holder, HolderConfig, Input};
use leasehold_proto::message::{Ready, ReadyAnswer};
use leasehold_proto::target::OnLapse;
use leasehold_proto::wire::{AssignerMessage, LoadReport, RegisterReply, SliceLoad};
use leasehold_proto::{ClockTime, HandoffId, PodAddress, Slice, limits};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::handler::{Arrival, Callbacks, Cause, SliceInfo, Step};
use super::link::{self, FromLink, Link, LinkConfig, LinkHandle};
use super::peer::{self, Asked};
use super::publish::{Changes, Publisher};
use super::transfer::{Coming, Engine, State, Transfers, Which};
use super::{Request, Shared, Status};
use crate::error::{Error, ErrorKind};

/// How often load is reported.
const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// Destinations' calls that wait for an answer.
const WAITING_CALLS: usize = limits::EARLY_HANDOFF_MESSAGES;
/// How long a Slicelet that is shut down tries to say so.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// What tasks on the side report.
pub(super) enum Event {
    /// A `prepare` has returned.
    Prepared(HandoffId),
    /// An `acquire` has returned.
    Acquired(u64),
    /// A call to a source has ended, perhaps without an answer.
    SaidReady(HandoffId, Option<ReadyAnswer>),
    /// The state of a slice that will come is here, or will not come.
    StateReady(HandoffId),
    /// The state of a slice that leaves moves on.
    Progress(Which),
    /// The destination has everything of a slice that is not served here.
    Finished(Which, Digest),
    /// The state of a slice that leaves cannot be sent.
    TransferFailed(Which),
}

/// What a driver is told once.
pub(super) struct DriverConfig {
    pub(super) link: LinkConfig,
    pub(super) drain_deadline: Duration,
    /// Whether the application takes guards without a lease where the target says so.
    pub(super) accepts_fenced: bool,
    pub(super) jitter_seed: u64,
    pub(super) callbacks: Callbacks,
    /// The application's state, if it lends any.
    pub(super) state: Option<(Arc<dyn State>, Transfers)>,
}

/// A frozen slice that waits for guards in flight.
struct Draining {
    slice: Slice,
    until: ClockTime,
}

/// See the module's description.
pub(super) struct Driver {
    shared: Arc<Shared>,
    config: DriverConfig,
    holder: Holder,
    publisher: Publisher,
    line: Arc<LinkHandle>,
    inputs: VecDeque<Input>,
    wake_at: Option<ClockTime>,
    draining: BTreeMap<HandoffId, Draining>,
    /// Frozen slices, drained, whose last change the destination has not acknowledged, and until
    /// when that is waited for.
    finishing: BTreeMap<HandoffId, ClockTime>,
    engine: Option<Engine>,
    /// Destinations' calls, until the Holder answers.
    asked: BTreeMap<Ready, Vec<oneshot::Sender<ReadyAnswer>>>,
    /// Handoffs about which a source is being called.
    calling: BTreeSet<HandoffId>,
    events: mpsc::UnboundedSender<Event>,
    /// Set by a drain: until when destinations that are slow are waited for.
    leaving: Option<ClockTime>,
    /// Set by a drain: when it ends.
    ends_at: Option<Instant>,
    shut: bool,
    reported: Instant,
}

/// What a driver listens to.
pub(super) struct Sources {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) asked: mpsc::Receiver<Asked>,
    pub(super) drained: Arc<Notify>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Driver {
    pub(super) fn spawn(
        shared: Arc<Shared>,
        mut config: DriverConfig,
        publisher: Publisher,
        sources: Sources,
    ) -> JoinHandle<Result<(), Error>> {
        let line = LinkHandle::new();
        let (link_events, from_link) = mpsc::channel(256);
        let link = Link::new(config.link.clone(), Arc::clone(&line), link_events);
        // Bounded by what causes it: open handoffs and acquired slices.
        let (events, side_events) = mpsc::unbounded_channel();
        let holder = Holder::new(HolderConfig {
            jitter_seed: config.jitter_seed,
            ..HolderConfig::default()
        });
        let engine = config.state.take().map(|(state, transfers)| {
            let target = config.link.register.target.clone();
            let pool = config.link.pool.clone();
            Engine::new(
                target,
                state,
                transfers,
                pool,
                Arc::clone(&shared),
                events.clone(),
            )
        });
        let driver = Driver {
            shared,
            config,
            holder,
            publisher,
            line,
            inputs: VecDeque::new(),
            wake_at: None,
            draining: BTreeMap::new(),
            finishing: BTreeMap::new(),
            engine,
            asked: BTreeMap::new(),
            calling: BTreeSet::new(),
            events,
            leaving: None,
            ends_at: None,
            shut: false,
            reported: Instant::now(),
        };
        tokio::spawn(async move {
            let link = tokio::spawn(link.run());
            driver.run(link, from_link, side_events, sources).await
        })
    }

    async fn run(
        mut self,
        link: JoinHandle<()>,
        mut from_link: mpsc::Receiver<FromLink>,
        mut side: mpsc::UnboundedReceiver<Event>,
        mut sources: Sources,
    ) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let mut report = tokio::time::interval(REPORT_PERIOD);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = self.next_wake();
            let wake = async {
                match next {
                    Some(at) => shared.clock.lease().sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = sources.stop.wait_for(|stop| *stop) => break,
                () = sources.drained.notified() => {}
                Some(asked) = sources.asked.recv() => self.asked(asked),
                Some(message) = from_link.recv() => self.received(message),
                Some(event) = side.recv() => self.event(event),
                Some(request) = sources.requests.recv() => self.request(request),
                () = wake => self.inputs.push_back(Input::Wake),
                _ = report.tick() => {
                    self.report_load();
                    self.say_what_must_go();
                }
            }
            self.work();
        }
        // A line that goes on would register anew when it hears that the session was closed.
        link.abort();
        self.shut_down().await
    }

    /// The Holder's next wake-up or the end of the first drain or transfer.
    fn next_wake(&self) -> Option<ClockTime> {
        self.draining
            .values()
            .map(|draining| draining.until)
            .chain(self.finishing.values().copied())
            .chain(self.engine.as_ref().and_then(Engine::kept_until))
            .chain(self.wake_at)
            .min()
    }

    /// Gives the Holder everything that there is for it.
    fn work(&mut self) {
        self.check_drains();
        while let Some(input) = self.inputs.pop_front() {
            // Read before the input is handled: renewals that follow take it as their `t0`.
            let now = self.shared.clock.lease().for_t0();
            let output = self.holder.handle(now, input);
            self.wake_at = output.wake_at;
            // What is published stands before anything is said or sent.
            if output.changed {
                self.publish();
            }
            for action in output.actions {
                self.act(action);
            }
            self.check_drains();
        }
    }

    fn publish(&mut self) {
        let (holder, engine) = (&self.holder, &self.engine);
        let arrival = |slice, epoch| match engine {
            Some(engine) => engine.arrival(holder, slice, epoch),
            None => Arrival::Cold,
        };
        let changes = self.publisher.publish(holder, self.shut, &arrival);
        let session = self.holder.session().filter(|_| !self.shut);
        self.shared.set_session(session);
        self.tell_application(changes);
        self.tell_status();
    }

    fn tell_status(&self) {
        let session = self.holder.session().filter(|_| !self.shut);
        let mode = self.holder.view().map(|view| view.mode);
        let kept = self.engine.as_ref().map_or(0, Engine::kept);
        let (owned, local) = (self.publisher.owned(), self.holder.local().len());
        let shut = self.shut;
        self.shared.status.send_if_modified(|status| {
            let new = Status {
                session,
                mode,
                owned,
                local,
                kept,
                shut,
            };
            std::mem::replace(status, new) != new
        });
    }

    fn tell_application(&mut self, changes: Changes) {
        let callbacks = &mut self.config.callbacks;
        if let Some(engine) = &mut self.engine {
            engine.settle(&self.holder, callbacks, &changes.arrived);
        }
        if self.engine.is_none() && !callbacks.has_handler() {
            return;
        }
        for slice in changes.release {
            let kept = self
                .engine
                .as_mut()
                .is_some_and(|engine| engine.keep(&self.holder, &slice));
            let step = match kept {
                true => Step::ReleaseKept,
                false => Step::Release,
            };
            callbacks.call(step, slice, |_| {});
        }
        for (call, slice) in changes.acquire {
            let events = self.events.clone();
            callbacks.call(Step::Acquire, slice, move |returned| {
                if returned {
                    let _ = events.send(Event::Acquired(call));
                }
            });
        }
        if let Some(engine) = &mut self.engine {
            engine.merge(&self.holder, callbacks, &changes.arrived);
        }
    }

    /// Forgets slices whose state was kept for their new owners.
    fn let_go(&mut self, over: impl FnOnce(&mut Engine) -> Vec<Slice>) {
        let slices = self.engine.as_mut().map(over).unwrap_or_default();
        for slice in slices {
            self.config.callbacks.discard(slice);
        }
        self.tell_status();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Renew(mut renew) => {
                renew.merging = self.engine.as_ref().and_then(Engine::oldest_merge);
                self.shared.counters.renewals_sent.add(1);
                self.line.send_renewal(renew);
            }
            // Published already: the line may say that the session serves nothing any more.
            Action::SayClosed(session) => self.line.dropped(session),
            // The line registers anew by itself, after it has said so.
            Action::Register => {}
            Action::Prepare {
                handoff,
                slice,
                epoch,
                from,
                address,
            } => self.prepare(Coming {
                handoff,
                slice,
                epoch,
                from,
                address,
            }),
            Action::SendReady(ready, address) => self.say_ready(ready, address),
            Action::AnswerReady(ready, answer) => {
                for reply in self.asked.remove(&ready).unwrap_or_default() {
                    // A destination that has gone away asks again.
                    let _ = reply.send(answer);
                }
            }
            Action::Freeze { handoff, slice } => {
                let now = self.shared.clock.lease().for_check();
                if self.would_lose_state(handoff, now) {
                    return self.refuse_stateless(handoff);
                }
                let until = now + self.config.drain_deadline;
                self.draining.insert(handoff, Draining { slice, until });
            }
        }
    }

    /// Warms up, and has the state brought; then the source may surrender.
    fn prepare(&mut self, coming: Coming) {
        let (handoff, slice, epoch) = (coming.handoff, coming.slice, coming.epoch);
        if let Some(address) = &coming.address {
            peer::connect_early(&self.config.link.pool, address.as_str().to_owned());
        }
        let callbacks = &mut self.config.callbacks;
        // Before the transfer takes its turn, which ends only after the surrender.
        if callbacks.has_handler() {
            let info = SliceInfo {
                slice,
                epoch,
                token: epoch.token(),
                cause: Cause::HandedOver,
                arrival: Arrival::Cold,
            };
            let events = self.events.clone();
            // What was not warmed up is served cold.
            callbacks.call(Step::Prepare, info, move |_| {
                let _ = events.send(Event::Prepared(handoff));
            });
        }
        if let Some(engine) = &mut self.engine {
            engine.prepare(&self.holder, callbacks, coming);
        } else if !callbacks.has_handler() {
            self.inputs.push_back(Input::Prepared(handoff));
        }
    }

    /// Says *ready*, unless the last time is still being answered.
    fn say_ready(&mut self, ready: Ready, address: Option<PodAddress>) {
        let Some(address) = address else { return };
        if !self.calling.insert(ready.handoff) {
            return;
        }
        let (pool, events) = (self.config.link.pool.clone(), self.events.clone());
        tokio::spawn(async move {
            let answer = peer::say_ready(pool, address.as_str().to_owned(), ready).await;
            // Nobody listens any more only when the Slicelet is gone.
            let _ = events.send(Event::SaidReady(ready.handoff, answer));
        });
    }

    fn received(&mut self, message: FromLink) {
        match message {
            FromLink::Registered(reply) => self.registered(reply),
            FromLink::Message(AssignerMessage::Renewed(renewed)) => {
                self.shared.counters.renewals_answered.add(1);
                self.inputs.push_back(Input::Renewed(renewed));
            }
            FromLink::Message(AssignerMessage::Pushed { session, update }) => {
                self.inputs.push_back(Input::Pushed(session, update));
            }
            FromLink::Message(AssignerMessage::Closed { session, .. }) => {
                self.inputs.push_back(Input::Closed(session))
            }
            FromLink::Message(AssignerMessage::Refused { .. }) => {}
        }
    }

    fn registered(&mut self, reply: RegisterReply) {
        tracing::info!(session = %reply.session, ttl = ?reply.ttl, "registered");
        self.shared.counters.registrations.add(1);
        // The same Holder for the life of the Slicelet: it knows which sessions are over, and what
        // was surrendered.
        let on_lapse = match self.config.accepts_fenced {
            true => reply.on_lapse,
            false => OnLapse::Stop,
        };
        self.holder.configure(on_lapse, reply.handoff_deadline);
        self.publisher.configure(on_lapse, reply.key_hash);
        self.draining.clear();
        self.finishing.clear();
        self.asked.clear();
        let RegisterReply {
            session,
            ttl,
            not_before,
            ..
        } = reply;
        if let Some(until) = self.leaving {
            self.inputs.push_back(Input::HurryHandoffs { until });
            self.ask_to_drain(Instant::now() + ttl, None);
        }
        self.inputs.push_back(Input::Registered {
            session,
            ttl,
            not_before,
        });
    }

    fn asked(&mut self, asked: Asked) {
        let (ready, reply) = match asked {
            Asked::Ready(ready, reply) => (ready, reply),
            Asked::Pull(pull) => {
                match &mut self.engine {
                    Some(engine) => engine.pull(&self.holder, &mut self.config.callbacks, *pull),
                    None => pull.line.refuse_stateless(),
                }
                return;
            }
        };
        let waiting: usize = self.asked.values().map(Vec::len).sum();
        if waiting < WAITING_CALLS {
            let calls = self.asked.entry(ready).or_default();
            calls.retain(|call| !call.is_closed());
            calls.push(reply);
            self.inputs.push_back(Input::Ready(ready));
        } else {
            // The caller is told that its call was dropped, and calls again.
            self.asked.retain(|_, calls| {
                calls.retain(|call| !call.is_closed());
                !calls.is_empty()
            });
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Prepared(handoff) => {
                let ready = |engine: &mut Engine| engine.prepared(handoff);
                if self.engine.as_mut().is_none_or(ready) {
                    self.inputs.push_back(Input::Prepared(handoff));
                }
            }
            Event::StateReady(handoff) => {
                let ready = |engine: &mut Engine| engine.state_ready(handoff);
                if self.engine.as_mut().is_some_and(ready) {
                    self.inputs.push_back(Input::Prepared(handoff));
                }
            }
            Event::Progress(Which::Handoff(handoff)) => {
                self.inputs.push_back(Input::Progressing(handoff));
            }
            Event::Finished(Which::Handoff(handoff), digest) => {
                if self.finishing.remove(&handoff).is_some() {
                    self.inputs.push_back(Input::Drained(handoff, digest));
                }
            }
            Event::TransferFailed(Which::Handoff(handoff)) => self.transfer_failed(handoff),
            Event::Progress(Which::Kept(number)) => {
                if let Some(engine) = &mut self.engine {
                    engine.keep_on(number);
                }
            }
            Event::Finished(Which::Kept(number), _)
            | Event::TransferFailed(Which::Kept(number)) => {
                self.let_go(|engine| engine.given(number));
            }
            Event::Acquired(call) => self.publisher.acquired(call),
            Event::SaidReady(handoff, answer) => {
                self.calling.remove(&handoff);
                self.inputs.extend(answer.map(Input::ReadyAnswered));
            }
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Drain { until, reply } => {
                let patient = self.patient_until(until);
                self.leaving = Some(patient);
                self.ends_at = Some(until);
                if let Some(engine) = &mut self.engine {
                    engine.hurry();
                }
                self.say_what_must_go();
                self.inputs
                    .push_back(Input::HurryHandoffs { until: patient });
                self.ask_to_drain(until, Some(reply));
            }
        }
    }

    fn ask_to_drain(&self, until: Instant, reply: Option<oneshot::Sender<Result<(), Error>>>) {
        let (config, line) = (self.config.link.clone(), Arc::clone(&self.line));
        tokio::spawn(async move {
            let result = link::drain(&config, &line, until).await;
            if let Some(reply) = reply {
                let _ = reply.send(result);
            }
        });
    }

    fn report_load(&mut self) {
        let now = Instant::now();
        let seconds = (now - self.reported).as_secs_f64();
        let Some(session) = self.holder.session() else {
            return;
        };
        if seconds <= 0.0 {
            return;
        }
        self.reported = now;
        let load: Vec<(Slice, u64)> = self.publisher.take_load();
        self.shared
            .counters
            .guards
            .add(load.iter().map(|(_, asked)| asked).sum());
        let state = self.engine.as_ref().map(Engine::state);
        let line = Arc::clone(&self.line);
        let report = move || {
            let bytes = |slice| state.as_ref().map_or(0, |state| state.bytes(slice));
            let of_slice = |(slice, asked)| SliceLoad {
                slice,
                load_per_s: asked as f64 / seconds,
                state_bytes: bytes(slice),
                hot_keys: Vec::new(),
            };
            let mut used: Vec<SliceLoad> = load.into_iter().map(of_slice).collect();
            used.retain(|load| load.load_per_s > 0.0 || load.state_bytes > 0);
            for loads in used.chunks(limits::LOADS_PER_REPORT) {
                let loads = loads.to_vec();
                line.send_report(LoadReport { session, loads });
            }
        };
        match self.engine {
            // Large state may take milliseconds to count: no surrender waits for that.
            Some(_) => drop(tokio::task::spawn_blocking(report)),
            None => report(),
        }
    }

    /// ◆ First every check fails for ever, then the Assigner is told.
    async fn shut_down(mut self) -> Result<(), Error> {
        self.shut = true;
        self.inputs.clear();
        self.inputs.push_back(Input::Shutdown);
        self.work();
        let line = Arc::clone(&self.line);
        let callbacks = self.config.callbacks.idle();
        let closed = link::close(&self.config.link, &line, Instant::now() + CLOSE_TIME).await;
        callbacks.await;
        closed.map_err(|error| {
            let text = format!(
                "closed here, but the Assigner was not told ({error}); the lease will expire"
            );
            Error::new(ErrorKind::Unavailable, text)
        })
    }
}
