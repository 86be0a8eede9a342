//! What an owner keeps in memory is what all owners before it made of it: a planned move carries
//! everything, once; only where an owner was lost without a surrender does memory begin anew.
//!
//! docs/PROTOCOL.md, "planned handoff". The reference is one value per key, changed by each effect
//! whose guard was verified; strong mode has one owner at a time, so that it is the only history
//! that is linearizable. Where a slice begins without state, the reason is sought in what was
//! committed and in what sources have said, not in the destination's own word.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_proto::command::{Command, Digest};
use leasehold_proto::id::HandoffId;
use leasehold_proto::table::TargetState;
use leasehold_proto::view::Lease;
use leasehold_proto::{Epoch, Slice};

use super::{Broken, Judged, keys_of};
use crate::world::{KEYS, Value, key};

/// What the value of a key must be.
struct Truth {
    period: u64,
    /// At which the newest owner began.
    epoch: Epoch,
    value: Value,
}

/// A source's irrevocable word.
#[derive(Clone, Copy)]
struct Surrendered {
    handoff: HandoffId,
    digest: Digest,
    period: Option<u64>,
}

/// What is remembered of values in memory.
#[derive(Default)]
pub struct Memories {
    truths: [Option<Truth>; KEYS],
    /// By key and the destination's epoch.
    surrendered: BTreeMap<(usize, Epoch), Surrendered>,
    /// Handoffs that ended since their source was lost.
    source_lost: BTreeSet<HandoffId>,
    /// Keys that nobody owned, or whose owner was lost, before this epoch.
    begins_empty: BTreeSet<(usize, Epoch)>,
    owners: [Option<Lease>; KEYS],
}

impl Memories {
    /// A source has surrendered. Without state only if it was told to rather lose it than wait.
    pub fn invariant_state_is_given_up_only_where_that_is_wanted(
        &mut self,
        handoff: HandoffId,
        slice: Slice,
        to_epoch: Epoch,
        digest: Digest,
        may_go_cold: bool,
        period: Option<u64>,
    ) -> Judged {
        let word = Surrendered {
            handoff,
            digest,
            period,
        };
        for k in keys_of(slice) {
            self.surrendered.insert((k, to_epoch), word);
        }
        if digest != Digest::EMPTY || may_go_cold {
            return Ok(());
        }
        Err(Broken {
            invariant: "state is given up only where that is wanted",
            what: format!("{handoff}: surrendered without the state by a source that should stay"),
        })
    }

    /// A handoff ended since its source was lost.
    pub fn source_lost(&mut self, handoff: HandoffId) {
        self.source_lost.insert(handoff);
    }

    /// The table changed.
    pub fn committed(&mut self, command: &Command, state: Option<&TargetState>) {
        for k in 0..KEYS {
            let assigned = state.and_then(|state| state.slice_of(key(k)));
            let now = assigned.and_then(|(_, assigned)| assigned.owner);
            let before = std::mem::replace(&mut self.owners[k], now);
            let Some(now) = now.filter(|now| before != Some(*now)) else {
                continue;
            };
            let begins_empty = match before {
                None => true,
                Some(before) if before.session == now.session => {
                    !self.begun(k, before.epoch) && self.may_begin_empty(k, before.epoch, None)
                }
                Some(_) => !matches!(command, Command::CompleteHandoff { .. }),
            };
            if begins_empty {
                self.begins_empty.insert((k, now.epoch));
            }
        }
    }

    /// The table is another one.
    pub fn restored(&mut self) {
        self.owners = [None; KEYS];
    }

    fn begun(&self, k: usize, epoch: Epoch) -> bool {
        let truth = self.truths[k].as_ref();
        truth.is_some_and(|truth| truth.epoch >= epoch)
    }

    fn may_begin_empty(&self, k: usize, epoch: Epoch, period: Option<u64>) -> bool {
        match self.surrendered.get(&(k, epoch)) {
            Some(word) => {
                word.digest == Digest::EMPTY
                    || self.source_lost.contains(&word.handoff)
                    || (period.is_some() && word.period != period)
            }
            None => self.begins_empty.contains(&(k, epoch)),
        }
    }

    /// An owner begins with state that it received, or kept.
    pub fn invariant_state_that_arrives_is_the_newest(
        &mut self,
        k: usize,
        epoch: Epoch,
        value: &Value,
        period: Option<u64>,
    ) -> Judged {
        let Some(truth) = self.truth_before(k, epoch, period) else {
            return Ok(());
        };
        truth.epoch = epoch;
        if truth.value == *value {
            return Ok(());
        }
        let what = format!(
            "key {k} begins at {epoch} with {value}, but {} was left",
            truth.value
        );
        Err(Broken {
            invariant: "state that arrives is the newest",
            what,
        })
    }

    /// An owner begins without state.
    pub fn invariant_a_planned_move_loses_no_state(
        &mut self,
        k: usize,
        epoch: Epoch,
        period: Option<u64>,
    ) -> Judged {
        let explained = self.may_begin_empty(k, epoch, period);
        let Some(truth) = self.truth_before(k, epoch, period) else {
            return Ok(());
        };
        let lost = std::mem::replace(&mut truth.value, Value::born(epoch));
        truth.epoch = epoch;
        if explained {
            return Ok(());
        }
        Err(Broken {
            invariant: "a planned move loses no state",
            what: format!("key {k} begins empty at {epoch}, but {lost} was left, by no loss"),
        })
    }

    /// What is known, if it is of before `epoch` and of this period: who begins later than it was
    /// superseded can serve nothing.
    fn truth_before(&mut self, k: usize, epoch: Epoch, period: Option<u64>) -> Option<&mut Truth> {
        let known = &mut self.truths[k];
        if known.as_ref().map(|truth| truth.period) != period {
            *known = None;
        }
        known.as_mut().filter(|truth| truth.epoch < epoch)
    }

    /// What an owner has in memory, at an instant at which it may serve it.
    pub fn invariant_memory_is_what_was_made_of_it(
        &self,
        k: usize,
        epoch: Epoch,
        value: &Value,
        period: u64,
    ) -> Judged {
        let truth = self.truths[k].as_ref();
        match truth.filter(|truth| truth.period == period && truth.value != *value) {
            None => Ok(()),
            Some(truth) => Err(Broken {
                invariant: "memory is what was made of it",
                what: format!(
                    "the owner at {epoch} has {value} of key {k}, but {} was made of it",
                    truth.value
                ),
            }),
        }
    }

    /// An effect, after it. In a period of which nothing is known yet it is where knowledge begins.
    pub fn changed(&mut self, k: usize, epoch: Epoch, value: &Value, period: Option<u64>) {
        self.truths[k] = period.map(|period| Truth {
            period,
            epoch,
            value: value.clone(),
        });
    }
}
