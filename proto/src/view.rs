//! A target's assignment as one value at one generation, and how a newer one is applied.

use std::collections::BTreeMap;

use crate::command::Digest;
use crate::id::{Epoch, Generation, HandoffId, SessionId};
use crate::key::SliceKey;
use crate::slice::Slice;
use crate::slice_map::{CoverError, SliceMap};
use crate::target::{Mode, PodAddress};

/// The fact that a session owns a slice since an epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Lease {
    /// Who owns.
    pub session: SessionId,
    /// Since when.
    pub epoch: Epoch,
}

/// An open handoff of a slice away from its owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Handoff {
    /// Its id.
    pub id: HandoffId,
    /// The destination session.
    pub to: SessionId,
    /// The epoch at which the destination will own.
    pub epoch: Epoch,
    /// An operator or the planner asked the source to refuse.
    pub ask_cancel: bool,
    /// The destination's session has closed: the source is asked what became of the slice.
    pub to_closed: bool,
}

/// Whence the owner of a slice has its state: who owned it just before, by a planned move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Provider {
    /// The lease before.
    pub lease: Lease,
    /// Strong mode: of the state with which it was surrendered. The destination serves what it has
    /// received only if it has this digest. Eventual mode: none, the state is pulled afterwards.
    pub digest: Option<Digest>,
}

/// Who serves a slice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Assigned {
    /// The owner; `None` while the slice is vacant.
    pub owner: Option<Lease>,
    /// The handoff under way, at most one.
    pub handoff: Option<Handoff>,
    /// Sessions that serve copies beside the owner (eventual mode).
    pub replicas: Box<[SessionId]>,
    /// Where its owner has the state from; `None` where the slice began without any.
    pub provider: Option<Provider>,
}

impl Assigned {
    /// The sessions that this entry names.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        let owner = self.owner.map(|lease| lease.session);
        let to = self.handoff.map(|handoff| handoff.to);
        owner
            .into_iter()
            .chain(to)
            .chain(self.replicas.iter().copied())
    }

    /// The sessions whose addresses a view carries for this entry: those it names, and the one
    /// from which state is pulled.
    pub fn addressed(&self) -> impl Iterator<Item = SessionId> {
        let pulled = self.provider.filter(|from| from.digest.is_none());
        self.sessions().chain(pulled.map(|from| from.lease.session))
    }
}

/// A target's assignment at one generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// Which version this is.
    pub generation: Generation,
    /// What the target promises.
    pub mode: Mode,
    /// Who serves each slice.
    pub slices: SliceMap<Assigned>,
    /// Addresses of the sessions that the slices name, and perhaps of some they named before.
    pub pods: BTreeMap<SessionId, PodAddress>,
}

/// What changed between two generations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewDiff {
    /// The oldest generation that it can be applied to.
    pub base: Generation,
    /// The generation that it leads to.
    pub generation: Generation,
    /// The mode there.
    pub mode: Mode,
    /// Slices whose entry changed, in order; they replace whole slices.
    pub changed: Vec<(Slice, Assigned)>,
    /// Addresses of the sessions that `changed` names.
    pub pods: Vec<(SessionId, PodAddress)>,
}

/// A newer view, whole or as a difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ViewUpdate {
    /// The whole view.
    Full(View),
    /// What changed.
    Diff(ViewDiff),
}

impl ViewUpdate {
    /// The generation that it leads to.
    pub fn generation(&self) -> Generation {
        match self {
            ViewUpdate::Full(view) => view.generation,
            ViewUpdate::Diff(diff) => diff.generation,
        }
    }
}

/// What became of an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The view is newer now.
    Newer,
    /// Not newer than what is known: nothing changed. Views never go backwards.
    Stale,
}

/// Why an update cannot be applied. Nothing changed; ask for a full view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The difference begins after what is known.
    #[error("the difference begins at {base}, but {known:?} is known")]
    Gap {
        /// Where the difference begins.
        base: Generation,
        /// What is known.
        known: Option<Generation>,
    },
    /// The changed slices leave a gap or overlap.
    #[error("the changed slices do not fit: {0}")]
    Cover(#[from] CoverError),
}

impl View {
    /// Who serves `key`.
    pub fn get(&self, key: SliceKey) -> (Slice, &Assigned) {
        self.slices.get(key)
    }

    /// Replaces `known` by what `update` leads to, if that is newer: as a whole, never backwards,
    /// a difference only onto a generation between its base and its end, of the same incarnation.
    pub fn advance(known: &mut Option<View>, update: ViewUpdate) -> Result<Applied, UpdateError> {
        let stale = known
            .as_ref()
            .is_some_and(|view| update.generation() <= view.generation);
        if stale && !mutant!("view_applied_backwards") {
            return Ok(Applied::Stale);
        }
        match update {
            ViewUpdate::Full(view) => *known = Some(view),
            ViewUpdate::Diff(diff) => {
                let fits = |view: &&mut View| {
                    (diff.base <= view.generation || mutant!("diff_applied_over_a_gap"))
                        && view.generation.incarnation() == diff.generation.incarnation()
                };
                let gap = UpdateError::Gap {
                    base: diff.base,
                    known: known.as_ref().map(|view| view.generation),
                };
                let view = known.as_mut().filter(fits).ok_or(gap)?;
                view.slices.overlay(diff.changed)?;
                view.generation = diff.generation;
                view.mode = diff.mode;
                view.pods.extend(diff.pods);
                view.forget_idle_pods();
            }
        }
        Ok(Applied::Newer)
    }

    /// Drops the addresses that no slice names, once they may be the larger part.
    fn forget_idle_pods(&mut self) {
        if self.pods.len() <= 64 || !self.pods.len().is_power_of_two() {
            return;
        }
        let named: std::collections::BTreeSet<_> = self
            .slices
            .iter()
            .flat_map(|(_, a)| a.addressed())
            .collect();
        self.pods.retain(|session, _| named.contains(session));
    }
}
