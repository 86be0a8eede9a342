//! State on its way: what a Slicelet sends of slices that leave it, and takes in of those that come.
//!
//! The driver decides, tasks carry: a [`source`] for each handoff away from here, a
//! [`destination`] for each to here. ◆ A slice is surrendered only after its destination has
//! acknowledged the last change, and with the digest of all that it has; it is served from what was
//! taken in only if the surrender has that digest.

mod chase;
mod config;
mod destination;
mod erased;
mod provide;
mod refusal;
mod source;
mod speed;
mod tick;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use leasehold_proto::command::Digest;
use leasehold_proto::holder::Holder;
use leasehold_proto::transfer::TransferTag;
use leasehold_proto::wire::PullBegin;
use leasehold_proto::{Epoch, HandoffId, PodAddress, SessionId, Slice, TargetName, mutant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

pub use config::{OnTransferFailure, Transfers};
pub(super) use erased::{State, discard};
pub(super) use source::{Line, Pull};

use super::Shared;
use super::driver::Event;
use super::handler::{Arrival, Callbacks, SliceInfo};
use super::order::{Before, Turn};
use crate::channels::ChannelPool;
use destination::Purpose;
use provide::{Kept, Merging};
use refusal::NotServed;
use speed::Throttle;

/// How often a transfer that waits for a place, or moves on, says so.
const SAY_PROGRESS: Duration = Duration::from_millis(100);

/// What all transfers of a Slicelet share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) state: Arc<dyn State>,
    pub(super) config: Arc<Transfers>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Connections for what is small.
    pool: ChannelPool,
    places_out: Arc<Semaphore>,
    places_in: Arc<Semaphore>,
    /// Frames of any transfer sent and acknowledged, or taken in: whether others move on.
    moved: Arc<AtomicU64>,
    throttle: Arc<Throttle>,
}

impl Common {
    fn tell(&self, event: Event) {
        // Nobody listens any more only when the Slicelet is gone.
        let _ = self.events.send(event);
    }

    fn note_moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// A task that ends with its handle.
struct Task(AbortHandle);

impl Task {
    fn has_ended(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Which transfer away from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// That of a handoff.
    Handoff(HandoffId),
    /// Eventual mode: one of a slice that is kept for its new owner, by its number.
    Kept(u64),
}

/// A transfer away from here.
struct Outgoing {
    commands: Arc<source::Commands>,
    failed: bool,
    task: Task,
}

impl Outgoing {
    fn start(
        common: &Common,
        which: Which,
        tag: TransferTag,
        before: Before,
        turn: Turn,
    ) -> Outgoing {
        let (commands, task) = source::start(common.clone(), which, tag, before, turn);
        Outgoing {
            commands,
            failed: false,
            task: Task(task),
        }
    }
}

/// A handoff to here.
struct Incoming {
    slice: Slice,
    epoch: Epoch,
    /// Set before the last frame is acknowledged.
    complete: Arc<OnceLock<Digest>>,
    /// The application's `prepare` has not returned.
    preparing: bool,
    /// The state is not there yet.
    lacking: bool,
    _task: Option<Task>,
}

/// A Slicelet's transfers.
pub(super) struct Engine {
    target: TargetName,
    common: Common,
    outgoing: BTreeMap<HandoffId, Outgoing>,
    incoming: BTreeMap<HandoffId, Incoming>,
    /// Slices that are others' now, kept for them.
    kept: Vec<Kept>,
    /// Slices whose state is merged in while they are served.
    merging: Vec<Merging>,
    next_number: u64,
    /// Adjusts the speed while there is any transfer.
    adjusting: Option<Task>,
    /// Whether there are more places since this process is about to end.
    hurried: bool,
}

/// What becomes of the last change of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastChange {
    /// It is sent; that it was acknowledged is told later.
    UnderWay,
    /// Its transfer has failed before.
    Failed,
    /// The destination has asked for nothing of the slice.
    NeverAsked,
}

/// A handoff to here, as the view shows it.
pub(super) struct Coming {
    pub(super) handoff: HandoffId,
    pub(super) slice: Slice,
    pub(super) epoch: Epoch,
    pub(super) from: SessionId,
    pub(super) address: Option<PodAddress>,
}

impl Engine {
    pub(super) fn new(
        target: TargetName,
        state: Arc<dyn State>,
        config: Transfers,
        pool: ChannelPool,
        shared: Arc<Shared>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let config = config.within_limits();
        let throttle = Arc::new(Throttle::new(config.speed));
        let places = || Arc::new(Semaphore::new(config.most_at_once));
        let (places_out, places_in) = (places(), places());
        Self {
            target,
            common: Common {
                state,
                config: Arc::new(config),
                shared,
                events,
                pool,
                places_out,
                places_in,
                moved: Arc::default(),
                throttle,
            },
            kept: Vec::new(),
            merging: Vec::new(),
            next_number: 0,
            adjusting: None,
            hurried: false,
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
        }
    }

    /// How long a frozen slice may wait for its last change to be acknowledged.
    pub(super) fn finish_deadline(&self) -> Duration {
        self.common.config.finish_deadline
    }

    /// What is done when a transfer fails.
    pub(super) fn on_failure(&self) -> OnTransferFailure {
        self.common.config.on_failure
    }

    /// What all transfers share.
    pub(super) fn throttle(&self) -> Arc<Throttle> {
        Arc::clone(&self.common.throttle)
    }

    /// More transfers at once than the configuration says, once: this process is about to end, and
    /// destinations that are slow must not keep the places of all others.
    pub(super) fn hurry(&mut self) {
        if !std::mem::replace(&mut self.hurried, true) {
            let more = self.common.config.most_at_once;
            self.common.places_out.add_permits(more);
        }
    }

    /// The application's.
    pub(super) fn state(&self) -> Arc<dyn State> {
        Arc::clone(&self.common.state)
    }

    fn adjust_speed(&mut self) {
        let (throttle, shared) = (&self.common.throttle, &self.common.shared);
        throttle.begin(&shared.latency);
        self.adjusting.get_or_insert_with(|| {
            let adjusting = speed::adjust(Arc::clone(throttle), Arc::clone(shared));
            Task(tokio::spawn(adjusting).abort_handle())
        });
    }

    // ---- source ------------------------------------------------------------------------------

    /// A destination asks for state, or only says that it will.
    pub(super) fn pull(&mut self, holder: &Holder, callbacks: &mut Callbacks, pull: Pull) {
        let Pull { begin, line } = pull;
        let refused = match begin.tag.handoff {
            _ if begin.tag.target != self.target => Some((NotServed::WrongTag, line)),
            None => self.provide(holder, callbacks, begin, line).err(),
            Some(handoff) => match refusal::check(holder, handoff, &begin) {
                Err(refused) => Some((refused, line)),
                Ok(()) if begin.waiting => {
                    self.common.tell(Event::Progress(Which::Handoff(handoff)));
                    None
                }
                Ok(()) => {
                    self.connect(handoff, callbacks, begin, line);
                    None
                }
            },
        };
        if let Some((refused, line)) = refused {
            let counters = &self.common.shared.counters;
            match refused {
                NotServed::NotYet => &counters.state_asked_early,
                NotServed::OldEpoch => &counters.state_of_old_epoch,
                NotServed::WrongTag => &counters.state_of_wrong_tag,
                NotServed::Over => &counters.state_asked_late,
            }
            .add(1);
            line.refuse(refused.into());
        }
    }

    fn connect(
        &mut self,
        handoff: HandoffId,
        callbacks: &mut Callbacks,
        begin: PullBegin,
        line: Box<Line>,
    ) {
        self.adjust_speed();
        let common = &self.common;
        let outgoing = self.outgoing.entry(handoff).or_insert_with(|| {
            common.shared.counters.transfers_out.add(1);
            let (before, turn) = callbacks.order.turn(begin.tag.slice);
            let which = Which::Handoff(handoff);
            Outgoing::start(common, which, begin.tag.clone(), before, turn)
        });
        // A task that has failed says so to whoever asks.
        outgoing.commands.connect(line, begin.have);
    }

    /// Whether the destination of the handoff has asked for nothing.
    pub(super) fn is_stateless(&self, handoff: HandoffId) -> bool {
        !self.outgoing.contains_key(&handoff)
    }

    /// The slice is frozen and drained: brings the last change over.
    pub(super) fn finish(&self, handoff: HandoffId) -> LastChange {
        match self.outgoing.get(&handoff) {
            None => LastChange::NeverAsked,
            Some(outgoing) if outgoing.failed || outgoing.task.has_ended() => LastChange::Failed,
            Some(outgoing) => {
                outgoing.commands.finish();
                LastChange::UnderWay
            }
        }
    }

    /// The transfer cannot be completed.
    pub(super) fn failed(&mut self, handoff: HandoffId) {
        if let Some(outgoing) = self.outgoing.get_mut(&handoff) {
            outgoing.failed = true;
        }
    }

    // ---- destination -------------------------------------------------------------------------

    /// Begins to take in the state of a slice that will come.
    pub(super) fn prepare(&mut self, holder: &Holder, callbacks: &mut Callbacks, coming: Coming) {
        self.adjust_speed();
        let Coming {
            handoff,
            slice,
            epoch,
            from,
            address,
        } = coming;
        let complete = Arc::new(OnceLock::new());
        let owner = holder
            .view()
            .and_then(|view| view.get(slice.first()).1.owner);
        let mut task = None;
        // The view that shows the handoff shows these too.
        if let (Some(owner), Some(to), Some(address)) = (owner, holder.session(), address) {
            let tag = TransferTag {
                target: self.target.clone(),
                slice,
                from_epoch: owner.epoch,
                to_epoch: epoch,
                handoff: Some(handoff),
            };
            let (before, turn) = callbacks.order.turn(slice);
            let begin = PullBegin {
                tag,
                from,
                to,
                have: None,
                waiting: false,
            };
            let import = destination::Destination::new(
                self.common.clone(),
                Purpose::Replace(handoff),
                begin,
                address,
                Arc::clone(&complete),
            );
            task = Some(Task(tokio::spawn(import.run(before, turn)).abort_handle()));
        }
        let incoming = Incoming {
            slice,
            epoch,
            complete,
            preparing: callbacks.has_handler(),
            lacking: true,
            _task: task,
        };
        self.incoming.insert(handoff, incoming);
    }

    /// The application's `prepare` has returned. Whether all is ready.
    pub(super) fn prepared(&mut self, handoff: HandoffId) -> bool {
        self.incoming.get_mut(&handoff).is_some_and(|incoming| {
            incoming.preparing = false;
            !incoming.lacking
        })
    }

    /// The state is there, or it will not come. Whether all is ready.
    pub(super) fn state_ready(&mut self, handoff: HandoffId) -> bool {
        self.incoming.get_mut(&handoff).is_some_and(|incoming| {
            incoming.lacking = false;
            !incoming.preparing
        })
    }

    /// Whether the state of a slice that is owned now has come. ◆ Only what has the digest with
    /// which the slice was surrendered is served.
    pub(super) fn arrival(&self, holder: &Holder, slice: Slice, epoch: Epoch) -> Arrival {
        let come = self.incoming.values().any(|incoming| {
            let proven = || {
                let digest = incoming.complete.get().copied();
                let proof = holder.proof_of_state(slice, epoch);
                digest.is_some() && digest == proof || mutant!("state_served_without_proof")
            };
            incoming.epoch == epoch && incoming.slice.covers(slice) && proven()
        });
        match come {
            true => Arrival::Warm,
            false if Self::is_provided(holder, slice, epoch) => Arrival::Merging,
            false => Arrival::Cold,
        }
    }

    /// Ends the transfers whose handoffs have ended. What was taken in and is not served is
    /// forgotten, unless the slice was `acquired`.
    pub(super) fn settle(
        &mut self,
        holder: &Holder,
        callbacks: &mut Callbacks,
        acquired: &[SliceInfo],
    ) {
        let counters = &self.common.shared.counters;
        if !self.outgoing.is_empty() {
            let open: Vec<HandoffId> = holder.leaving().collect();
            self.outgoing.retain(|handoff, _| open.contains(handoff));
        }
        for info in acquired {
            match info.arrival {
                Arrival::Warm => counters.arrivals_warm.add(1),
                Arrival::Cold => counters.arrivals_cold.add(1),
                Arrival::Merging => counters.arrivals_merging.add(1),
            }
        }
        self.settle_provided(holder, callbacks, acquired);
        if self.incoming.is_empty() {
            let others = self.merging.is_empty() && self.kept.is_empty();
            if self.outgoing.is_empty() && others {
                self.adjusting = None;
            }
            return;
        }
        let open: Vec<HandoffId> = holder.arriving().map(|(handoff, ..)| handoff).collect();
        self.incoming.retain(|handoff, incoming| {
            let used = |info: &SliceInfo| {
                info.arrival == Arrival::Warm
                    && info.epoch == incoming.epoch
                    && incoming.slice.covers(info.slice)
            };
            let over = !open.contains(handoff);
            if over && !acquired.iter().any(used) {
                callbacks.discard(incoming.slice);
            }
            !over
        });
    }
}
