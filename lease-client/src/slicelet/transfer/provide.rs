//! Eventual mode: a slice is served by its new owner at once, which then merges in what the one
//! before has; that one keeps it for a while.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use leasehold_proto::command::Digest;
use leasehold_proto::holder::{Holder, Local, Part};
use leasehold_proto::target::Mode;
use leasehold_proto::transfer::TransferTag;
use leasehold_proto::view::Lease;
use leasehold_proto::wire::PullBegin;
use leasehold_proto::{ClockTime, Epoch, Slice};

use super::super::handler::{Arrival, Callbacks, Cause, SliceInfo};
use super::destination::{Destination, Gate, Purpose};
use super::refusal::NotServed;
use super::{Engine, Line, Outgoing, Task, Which};

/// How long state is kept for a new owner that has not asked for it yet, or does not go on.
const KEEP: Duration = Duration::from_secs(5);

/// Parts of a kept slice that are sent at once: it may have been split since.
const MOST_PARTS: usize = 64;

/// A slice that is another's, and whose state is here still.
pub(super) struct Kept {
    slice: Slice,
    epoch: Epoch,
    until: ClockTime,
    /// What no new owner has yet.
    left: Vec<Slice>,
    /// Who asked for which part.
    given: Vec<(u64, TransferTag, Outgoing)>,
}

/// A slice that is served while its state is merged in.
pub(super) struct Merging {
    slice: Slice,
    epoch: Epoch,
    gate: Arc<Gate>,
    complete: Arc<OnceLock<Digest>>,
    task: Task,
}

impl Merging {
    /// All has been merged, or it will not come.
    fn has_ended(&self) -> bool {
        self.complete.get().is_some() || self.task.has_ended()
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        // The end of a task is not waited for.
        self.gate.close();
    }
}

fn is_eventual(holder: &Holder) -> bool {
    let mode = holder.view().map(|view| view.mode);
    mode == Some(Mode::Eventual)
}

impl Engine {
    fn now(&self) -> ClockTime {
        self.common.shared.clock.lease().for_check()
    }

    /// Whether the state of a slice that is no longer owned is to be kept for its new owner.
    pub(in super::super) fn keep(&mut self, holder: &Holder, lost: &SliceInfo) -> bool {
        let mine = holder.session().map(|session| Lease {
            session,
            epoch: lost.epoch,
        });
        let provider = holder
            .view()
            .and_then(|view| view.get(lost.slice.first()).1.provider);
        let wanted = is_eventual(holder)
            && lost.cause == Cause::Lost
            && provider.is_some_and(|from| from.digest.is_none() && Some(from.lease) == mine);
        if wanted {
            self.kept.push(Kept {
                slice: lost.slice,
                epoch: lost.epoch,
                until: self.now() + KEEP,
                left: vec![lost.slice],
                given: Vec::new(),
            });
        }
        wanted
    }

    /// How many slices are kept for others.
    pub(in super::super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// When the first of them is kept no longer.
    pub(in super::super) fn kept_until(&self) -> Option<ClockTime> {
        self.kept.iter().map(|kept| kept.until).min()
    }

    /// A new owner moves on.
    pub(in super::super) fn keep_on(&mut self, number: u64) {
        let until = self.now() + KEEP;
        for kept in &mut self.kept {
            if kept.given.iter().any(|(given, ..)| *given == number) {
                kept.until = until;
            }
        }
    }

    /// A new owner has its part, or cannot have it. What may be forgotten.
    pub(in super::super) fn given(&mut self, number: u64) -> Vec<Slice> {
        for kept in &mut self.kept {
            let Some(at) = kept.given.iter().position(|(given, ..)| *given == number) else {
                continue;
            };
            let (_, tag, _) = kept.given.remove(at);
            let left = std::mem::take(&mut kept.left).into_iter();
            kept.left = left.flat_map(|piece| piece.without(tag.slice)).collect();
        }
        self.forget_kept(|kept| kept.left.is_empty())
    }

    /// What has been kept for long enough.
    pub(in super::super) fn kept_too_long(&mut self, now: ClockTime) -> Vec<Slice> {
        self.forget_kept(|kept| kept.until <= now)
    }

    fn forget_kept(&mut self, over: impl Fn(&Kept) -> bool) -> Vec<Slice> {
        let mut forgotten = Vec::new();
        self.kept.retain(|kept| {
            let over = over(kept);
            forgotten.extend(over.then_some(kept.slice));
            !over
        });
        forgotten
    }

    /// A new owner asks for the state of what was owned here before it.
    pub(super) fn provide(
        &mut self,
        holder: &Holder,
        callbacks: &mut Callbacks,
        begin: PullBegin,
        line: Box<Line>,
    ) -> Result<(), (NotServed, Box<Line>)> {
        if let Err(refused) = super::refusal::check_provided(holder, &begin) {
            return Err((refused, line));
        }
        let tag = &begin.tag;
        let kept = self
            .kept
            .iter_mut()
            .find(|kept| kept.epoch == tag.from_epoch && kept.slice.covers(tag.slice));
        let Some(kept) = kept else {
            return Err((NotServed::Over, line));
        };
        kept.until = self.common.shared.clock.lease().for_check() + KEEP;
        if begin.waiting {
            return Ok(());
        }
        let at = kept.given.iter().position(|(_, known, _)| known == tag);
        if at.is_none() && kept.given.len() >= MOST_PARTS {
            return Err((NotServed::NotYet, line));
        }
        let at = at.unwrap_or_else(|| {
            self.common.shared.counters.transfers_out.add(1);
            let (before, turn) = callbacks.order.turn(tag.slice);
            self.next_number += 1;
            let which = Which::Kept(self.next_number);
            let outgoing = Outgoing::start(&self.common, which, tag.clone(), before, turn);
            kept.given.push((self.next_number, tag.clone(), outgoing));
            kept.given.len() - 1
        });
        kept.given[at].2.commands.connect(line, begin.have);
        Ok(())
    }

    /// Whether a former owner may have the state of a slice that is owned now.
    pub(super) fn is_provided(holder: &Holder, slice: Slice, epoch: Epoch) -> bool {
        let Some((session, view)) = holder.session().zip(holder.view()) else {
            return false;
        };
        let (_, assigned) = view.get(slice.first());
        is_eventual(holder)
            && assigned.owner == Some(Lease { session, epoch })
            && assigned
                .provider
                .is_some_and(|from| from.digest.is_none() && from.lease.session != session)
    }

    /// Begins to merge in what former owners have of the slices that have come.
    pub(in super::super) fn merge(
        &mut self,
        holder: &Holder,
        callbacks: &mut Callbacks,
        arrived: &[SliceInfo],
    ) {
        let merging = |info: &&SliceInfo| info.arrival == Arrival::Merging;
        for info in arrived.iter().filter(merging) {
            let Some((to, view)) = holder.session().zip(holder.view()) else {
                return;
            };
            let Some(from) = view.get(info.slice.first()).1.provider else {
                continue;
            };
            let Some(address) = view.pods.get(&from.lease.session).cloned() else {
                continue;
            };
            let begin = PullBegin {
                tag: TransferTag {
                    target: self.target.clone(),
                    slice: info.slice,
                    from_epoch: from.lease.epoch,
                    to_epoch: info.epoch,
                    handoff: None,
                },
                from: from.lease.session,
                to,
                have: None,
                waiting: false,
            };
            self.adjust_speed();
            // Behind the application's `acquire`, which the slice waits for as well.
            let (before, turn) = callbacks.order.turn(info.slice);
            let complete = Arc::new(OnceLock::new());
            let common = self.common.clone();
            let gate: Arc<Gate> = Arc::default();
            let purpose = Purpose::Merge(Arc::clone(&gate));
            let all = Arc::clone(&complete);
            let import = Destination::new(common, purpose, begin, address, all);
            self.merging.push(Merging {
                slice: info.slice,
                epoch: info.epoch,
                gate,
                complete,
                task: Task(tokio::spawn(import.run(before, turn)).abort_handle()),
            });
        }
    }

    /// The oldest epoch at which a slice came whose state is still being merged. ◆ Said in every
    /// renewal: the Assigner plans no move that would leave the rest behind.
    pub(in super::super) fn oldest_merge(&self) -> Option<Epoch> {
        let unfinished = self.merging.iter().filter(|merging| !merging.has_ended());
        unfinished.map(|merging| merging.epoch).min()
    }

    /// Ends the merges of slices that are not owned any more, and keeps nothing of those that came
    /// back. ◆ In another mode than eventual nothing is merged or kept, from before the Assigner
    /// hears that this mode is known: what was removed there would come back.
    pub(super) fn settle_provided(
        &mut self,
        holder: &Holder,
        callbacks: &mut Callbacks,
        arrived: &[SliceInfo],
    ) {
        // A slice that is lost in part takes nothing in any more: the merge knows only the whole.
        let owned = |merging: &Merging| {
            let mine = |part: &&Local| {
                matches!(part.part, Part::Owner | Part::Frozen(_)) && part.epoch >= merging.epoch
            };
            let mut left = vec![merging.slice];
            for part in holder.local().iter().filter(mine) {
                let pieces = left.into_iter();
                left = pieces.flat_map(|piece| piece.without(part.slice)).collect();
            }
            left.is_empty()
        };
        let eventual = is_eventual(holder);
        self.merging
            .retain(|merging| eventual && !merging.task.has_ended() && owned(merging));
        if !eventual {
            for slice in self.forget_kept(|_| true) {
                callbacks.discard(slice);
            }
        }
        for info in arrived {
            for slice in self.forget_kept(|kept| kept.slice.overlaps(info.slice)) {
                callbacks.discard(slice);
            }
        }
    }
}
