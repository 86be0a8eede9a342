//! A Clerk's map: the newest view, what pods have said since, and an index that answers lookups.

mod canonical;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{Epoch, Generation, SessionId};
use crate::key::SliceKey;
use crate::limits;
use crate::message::Moved;
use crate::slice::Slice;
use crate::target::PodAddress;
use crate::view::{Applied, UpdateError, View, ViewUpdate};

/// Which pod a route leads to: an index into [`RouteTable::pods`] of the table that gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PodIndex(u32);

const NOBODY: PodIndex = PodIndex(u32::MAX);

/// Where a key is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Which pod.
    pub pod: PodIndex,
    /// Its slice's place in the table, for [`RouteTable::replicas`].
    slice: u32,
}

/// The published form of a Router's knowledge: immutable, made for lookups.
///
/// A table of the top key bits leads to the first slice that can hold a key; a short search in
/// one array of starts does the rest.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    generation: Option<Generation>,
    starts: Vec<u64>,
    owners: Vec<PodIndex>,
    /// `radix[i]` is the last slice that begins at or before the `i`-th bucket of keys.
    radix: Vec<u32>,
    shift: u32,
    pods: Vec<(SessionId, PodAddress)>,
    replicas: BTreeMap<u32, Vec<PodIndex>>,
}

impl RouteTable {
    /// The generation of the view behind it.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Where `key` is served; `None` while nobody is known to serve it.
    #[inline]
    pub fn lookup(&self, key: SliceKey) -> Option<Route> {
        let key = key.as_u64();
        let bucket = if self.shift >= 64 {
            0
        } else {
            (key >> self.shift) as usize
        };
        let low = *self.radix.get(bucket)? as usize;
        let high = self
            .radix
            .get(bucket + 1)
            .map_or(self.starts.len(), |next| *next as usize + 1);
        let window = self.starts.get(low..high)?;
        // One or two starts in the usual window: step through them; bisect a crowded one.
        let at = if window.len() <= 8 {
            window
                .iter()
                .skip(1)
                .take_while(|start| **start <= key)
                .count()
        } else {
            window
                .partition_point(|start| *start <= key)
                .saturating_sub(1)
        };
        let slice = low + at;
        let pod = *self.owners.get(slice)?;
        (pod != NOBODY).then_some(Route {
            pod,
            slice: slice as u32,
        })
    }

    /// The session and address of a pod that a route of this table names.
    pub fn pod(&self, pod: PodIndex) -> Option<&(SessionId, PodAddress)> {
        self.pods.get(pod.0 as usize)
    }

    /// Pods that serve copies of the route's slice beside its owner.
    pub fn replicas(&self, route: Route) -> &[PodIndex] {
        self.replicas.get(&route.slice).map_or(&[], Vec::as_slice)
    }

    /// Every pod that the table names.
    pub fn pods(&self) -> impl Iterator<Item = &(SessionId, PodAddress)> {
        self.pods.iter()
    }

    /// How many ranges it distinguishes.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    fn build(view: &View, hints: &BTreeMap<SliceKey, Moved>) -> Self {
        let mut table = Builder::default();
        for (slice, assigned) in view.slices.iter() {
            let owner = assigned
                .owner
                .and_then(|lease| table.pod(lease.session, view.pods.get(&lease.session)));
            let at = table.push(slice.first(), owner.unwrap_or(NOBODY));
            let replicas: Vec<PodIndex> = assigned
                .replicas
                .iter()
                .filter_map(|id| table.pod(*id, view.pods.get(id)))
                .collect();
            if !replicas.is_empty() {
                table.replicas.insert(at, replicas);
            }
        }
        for hint in hints.values() {
            if let Some(pod) = table.pod(hint.session, Some(&hint.address)) {
                table.overlay(hint.slice, pod);
            }
        }
        table.finish(view.generation)
    }
}

#[derive(Default)]
struct Builder {
    starts: Vec<u64>,
    owners: Vec<PodIndex>,
    pods: Vec<(SessionId, PodAddress)>,
    seen: BTreeMap<SessionId, PodIndex>,
    replicas: BTreeMap<u32, Vec<PodIndex>>,
}

impl Builder {
    fn pod(&mut self, session: SessionId, address: Option<&PodAddress>) -> Option<PodIndex> {
        if let Some(known) = self.seen.get(&session) {
            return Some(*known);
        }
        let index = PodIndex(u32::try_from(self.pods.len()).ok()?);
        self.pods.push((session, address?.clone()));
        self.seen.insert(session, index);
        Some(index)
    }

    fn push(&mut self, first: SliceKey, owner: PodIndex) -> u32 {
        self.starts.push(first.as_u64());
        self.owners.push(owner);
        (self.starts.len() - 1) as u32
    }

    /// Routes exactly the keys of `slice` to `pod`. The slice of a hint is nearly always one of the
    /// view's; where a split or merge came between, its edges are cut in.
    fn overlay(&mut self, slice: Slice, pod: PodIndex) {
        let from = self.cut(slice.first());
        let to = slice
            .last()
            .next()
            .map_or(self.starts.len(), |end| self.cut(end));
        self.owners[from..to].fill(pod);
    }

    /// The place of the entry that begins at `key`, made if there is none.
    fn cut(&mut self, key: SliceKey) -> usize {
        let at = self.starts.partition_point(|start| *start < key.as_u64());
        if self.starts.get(at) != Some(&key.as_u64()) {
            let owner = at
                .checked_sub(1)
                .map_or(NOBODY, |before| self.owners[before]);
            self.starts.insert(at, key.as_u64());
            self.owners.insert(at, owner);
            let behind = self.replicas.split_off(&(at as u32));
            self.replicas
                .extend(behind.into_iter().map(|(slice, pods)| (slice + 1, pods)));
        }
        at
    }

    fn finish(self, generation: Generation) -> RouteTable {
        let bits = self.starts.len().next_power_of_two().trailing_zeros();
        let shift = 64 - bits;
        let mut radix = Vec::with_capacity(1 << bits);
        let mut at = 0;
        for bucket in 0..(1u64 << bits) {
            let low = if shift >= 64 { 0 } else { bucket << shift };
            while self.starts.get(at + 1).is_some_and(|start| *start <= low) {
                at += 1;
            }
            radix.push(at as u32);
        }
        RouteTable {
            generation: Some(generation),
            starts: self.starts,
            owners: self.owners,
            radix,
            shift,
            pods: self.pods,
            replicas: self.replicas,
        }
    }
}

/// A Clerk's knowledge of one target. Kept for ever: the last map serves while no Assigner answers.
#[derive(Clone, Debug, Default)]
pub struct Router {
    view: Option<View>,
    /// By first key; ranges do not overlap. ◆ A hint outranks the map until the map shows an epoch
    /// at or above it there, or the handoff's end.
    hints: BTreeMap<SliceKey, Moved>,
}

impl Router {
    /// A Router that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The generation known, to ask for what is newer.
    pub fn generation(&self) -> Option<Generation> {
        self.view.as_ref().map(|view| view.generation)
    }

    /// The newest view.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// The hints that outrank the view.
    pub fn hints(&self) -> impl Iterator<Item = &Moved> {
        self.hints.values()
    }

    /// Applies a newer view. Returns whether lookups may change: publish [`Self::table`] then.
    ///
    /// Errors leave everything as it was; ask for a full view.
    pub fn update(&mut self, update: ViewUpdate) -> Result<bool, UpdateError> {
        let applied = View::advance(&mut self.view, update)?;
        if applied == Applied::Newer
            && let Some(view) = &self.view
        {
            self.hints.retain(|_, hint| outranks(hint, view));
        }
        Ok(applied == Applied::Newer)
    }

    /// Learns from a pod where a slice went. Returns whether lookups may change.
    pub fn learn(&mut self, moved: Moved) -> bool {
        let Some(view) = &self.view else { return false };
        let newer =
            |known: &&Moved| known.slice.overlaps(moved.slice) && known.epoch >= moved.epoch;
        if !outranks(&moved, view) || self.hints.values().any(|known| newer(&known)) {
            return false;
        }
        self.hints
            .retain(|_, known| !known.slice.overlaps(moved.slice));
        if self.hints.len() >= limits::ROUTER_HINTS {
            return false;
        }
        self.hints.insert(moved.slice.first(), moved);
        true
    }

    /// The epoch at which `key` is owned, as far as is known.
    pub fn epoch(&self, key: SliceKey) -> Option<Epoch> {
        let hint = self
            .hints
            .range(..=key)
            .next_back()
            .filter(|(_, hint)| hint.slice.contains(key));
        match hint {
            Some((_, hint)) => Some(hint.epoch),
            None => self
                .view
                .as_ref()?
                .get(key)
                .1
                .owner
                .map(|lease| lease.epoch),
        }
    }

    /// An index of what is known now; empty while nothing is.
    pub fn table(&self) -> Arc<RouteTable> {
        Arc::new(
            self.view
                .as_ref()
                .map(|view| RouteTable::build(view, &self.hints))
                .unwrap_or_default(),
        )
    }
}

/// Whether a hint still says more than the view: some part of its range is shown below its epoch,
/// and the view is older than the teller's or still shows the handoff open.
fn outranks(hint: &Moved, view: &View) -> bool {
    let below = view
        .slices
        .overlapping(hint.slice)
        .any(|(_, assigned)| assigned.owner.is_none_or(|lease| lease.epoch < hint.epoch));
    let open = || {
        view.slices
            .overlapping(hint.slice)
            .any(|(_, assigned)| assigned.handoff.is_some_and(|h| h.id == hint.handoff))
    };
    let older = view.generation < hint.generation;
    below && (older || open())
}
