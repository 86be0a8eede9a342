//! From the freeze of a slice to its surrender.

use std::time::Duration;

use leasehold_proto::command::Digest;
use leasehold_proto::holder::{Input, Local, Part};
use leasehold_proto::{ClockTime, HandoffId, Slice, mutant};
use tokio::time::Instant;

use super::super::transfer::{Engine, LastChange, OnTransferFailure};
use super::Driver;

/// What is left of a drain when state that cannot be brought over is given up: at least this, or a
/// tenth of the drain.
const LAST_OF_DRAIN: Duration = Duration::from_secs(1);

impl Driver {
    /// Until when a drain that ends at `until` waits for destinations that are slow. Without state
    /// that must not be lost slices may as well begin cold.
    pub(super) fn patient_until(&self, until: Instant) -> ClockTime {
        let now = self.shared.clock.lease().for_check();
        let stays = |engine: &Engine| engine.on_failure() == OnTransferFailure::Stay;
        if !self.engine.as_ref().is_some_and(stays) {
            return now;
        }
        let grace = until.saturating_duration_since(Instant::now());
        now + grace.saturating_sub(LAST_OF_DRAIN.max(grace / 10))
    }

    /// While this process drains: what it still holds must have gone in the time that is left.
    pub(super) fn say_what_must_go(&self) {
        let left = self
            .ends_at
            .map(|end| end.saturating_duration_since(Instant::now()));
        let (Some(engine), Some(left)) = (&self.engine, left.filter(|left| !left.is_zero())) else {
            return;
        };
        let (state, throttle) = (engine.state(), engine.throttle());
        let parts = self.holder.local().iter();
        let slices: Vec<Slice> = parts.map(|part| part.slice).collect();
        // Large state may take milliseconds to count.
        tokio::task::spawn_blocking(move || {
            let counted = slices.iter().map(|slice| state.bytes(*slice));
            let bytes = counted.fold(0, u64::saturating_add);
            // An application that does not count its state may have any amount.
            throttle.must_go(if bytes > 0 { bytes } else { u64::MAX }, left);
        });
    }

    /// Ends the drains that have nothing in flight any more, or no time left, and the transfers
    /// that have no time left.
    pub(super) fn check_drains(&mut self) {
        let kept = self.engine.as_ref().and_then(Engine::kept_until);
        if self.draining.is_empty() && self.finishing.is_empty() && kept.is_none() {
            return;
        }
        let now = self.shared.clock.lease().for_check();
        if kept.is_some_and(|until| until <= now) {
            self.let_go(|engine| engine.kept_too_long(now));
        }
        // What was refused meanwhile is waited for no longer, and has not failed.
        let open: Vec<HandoffId> = self.holder.leaving().collect();
        self.finishing.retain(|handoff, _| open.contains(handoff));
        let mut done = Vec::new();
        for (handoff, draining) in &self.draining {
            let idle = self.publisher.is_drained(draining.slice);
            if !idle && now < draining.until {
                continue;
            }
            // A handoff that was refused meanwhile is no longer frozen, and its guards are good.
            let frozen = |local: &Local| local.part == Part::Frozen(*handoff);
            if !idle && self.holder.local().iter().any(frozen) {
                tracing::warn!(slice = %draining.slice, "requests in flight are cut off: the drain deadline has passed");
                self.shared.counters.drains_cut_off.add(1);
                self.publisher.cut_off(draining.slice);
            }
            done.push(*handoff);
        }
        for handoff in done {
            self.draining.remove(&handoff);
            self.finish(handoff, now);
        }
        let late: Vec<HandoffId> = self
            .finishing
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(handoff, _)| *handoff)
            .collect();
        for handoff in late {
            tracing::warn!(%handoff, "the last change of a slice was not acknowledged in time");
            self.shared.counters.transfers_out_failed.add(1);
            self.transfer_failed(handoff);
        }
    }

    /// A slice is frozen and nothing is in flight. ◆ With state it is surrendered only when the
    /// destination has acknowledged the last change.
    fn finish(&mut self, handoff: HandoffId, now: ClockTime) {
        let engine = self.engine.as_ref();
        let last_change = engine.map(|engine| (engine.finish(handoff), engine.finish_deadline()));
        match last_change {
            Some((LastChange::UnderWay, deadline)) => {
                self.finishing.insert(handoff, now + deadline);
            }
            Some(_) if mutant!("surrendered_without_its_state") => self.surrender_cold(handoff),
            Some((LastChange::Failed, _)) => {
                // It is frozen already, which decides what the policy means.
                self.finishing.insert(handoff, now);
                self.transfer_failed(handoff);
            }
            Some((LastChange::NeverAsked, _)) if self.would_lose_state(handoff, now) => {
                self.refuse_stateless(handoff);
            }
            Some((LastChange::NeverAsked, _)) | None => self.surrender_cold(handoff),
        }
    }

    fn surrender_cold(&mut self, handoff: HandoffId) {
        self.inputs
            .push_back(Input::Drained(handoff, Digest::EMPTY));
    }

    /// Whether the destination would begin cold with a slice whose state is not to be lost. Whoever
    /// comes late in a drain may: with this process the state goes anyway.
    pub(super) fn would_lose_state(&self, handoff: HandoffId, now: ClockTime) -> bool {
        let late = self.leaving.is_some_and(|until| until <= now);
        self.engine.as_ref().is_some_and(|engine| {
            !late && engine.on_failure() == OnTransferFailure::Stay && engine.is_stateless(handoff)
        })
    }

    /// The destination keeps no state, or has none of this slice.
    pub(super) fn refuse_stateless(&mut self, handoff: HandoffId) {
        tracing::warn!(%handoff, "the destination asks for a slice without its state");
        self.shared.counters.transfers_out_failed.add(1);
        self.transfer_failed(handoff);
    }

    /// The state of a slice that leaves cannot be brought over: the declared policy.
    pub(super) fn transfer_failed(&mut self, handoff: HandoffId) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        engine.failed(handoff);
        let frozen = self.finishing.remove(&handoff).is_some();
        match engine.on_failure() {
            OnTransferFailure::Stay => self.inputs.push_back(Input::Withdraw(handoff)),
            OnTransferFailure::GoCold if frozen => self.surrender_cold(handoff),
            // The destination decides when to say ready.
            OnTransferFailure::GoCold => {}
        }
    }
}
