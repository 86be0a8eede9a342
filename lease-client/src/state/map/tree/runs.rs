//! How large slices are, without a look at each leaf: neighbouring leaves are a run, which counts
//! them together. A run that has grown long is cut in two, wherever in the key space it lies.
//!
//! A leaf knows its run and is counted in that alone, both under the lock of the leaf. A run that
//! is cut is told of first; then its leaves go over one by one. Until they have, the count of the
//! left part has too much by what the count of the right part lacks.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, TryLockError};

use leasehold_proto::Slice;

use super::super::value::StateValue;
use super::{Directory, Held, Leaf, Position, Tree};

/// Leaves of a run that is not cut yet: as many, about, as are looked at one by one at either end
/// of a slice. Few in tests, which then cut runs all the time.
const RUN_LEAVES: usize = if cfg!(test) { 4 } else { 256 };

/// See the module's description. Changed under the lock of the leaf that it is about, read without.
pub(super) struct Run {
    bytes: AtomicU64,
    leaves: AtomicUsize,
}

impl Run {
    /// A run of so many empty leaves.
    pub(super) fn new(leaves: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicU64::new(0),
            leaves: AtomicUsize::new(leaves),
        })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, less: u64, more: u64) {
        if less != more {
            self.bytes
                .fetch_add(more.wrapping_sub(less), Ordering::Relaxed);
        }
    }

    pub(super) fn add_leaf(&self) {
        self.leaves.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove_leaf(&self) {
        self.leaves.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.leaves.load(Ordering::Relaxed) > RUN_LEAVES
    }
}

impl<V: StateValue> Directory<V> {
    /// A leaf has joined its left neighbour, which ends at `end` now. The run that it began, if it
    /// did, begins there.
    pub(super) fn join(&mut self, leaf: &Leaf<V>, end: Option<&Position<'static>>) {
        self.leaves.remove(&leaf.first);
        if let Some(run) = self.runs.remove(&leaf.first)
            && let Some(end) = end
        {
            // Where another one begins already this one had no other leaf.
            self.runs.entry(end.clone()).or_insert(run);
        }
    }

    /// The leaves that cover what is between two positions; `None` is behind the highest key.
    pub(super) fn between(
        &self,
        from: &Position<'static>,
        to: Option<&Position<'static>>,
    ) -> impl Iterator<Item = &Arc<Leaf<V>>> {
        let covering = self.leaves.range(..=from).next_back();
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.leaves.range((Bound::Excluded(from), to));
        covering.into_iter().chain(behind).map(|(_, leaf)| leaf)
    }
}

impl<V: StateValue> Held<'_, V> {
    /// Counts the leaf in another run.
    fn go_over(&mut self, from: &Arc<Run>, to: &Arc<Run>) {
        if Arc::ptr_eq(&self.inside.run, from) {
            from.remove_leaf();
            from.count(self.bytes(), 0);
            to.add_leaf();
            to.count(0, self.bytes());
            self.inside.run = Arc::clone(to);
        }
    }
}

impl<V: StateValue> Tree<V> {
    /// About how many bytes the slice is: of runs that are in it what they count, at its ends leaf
    /// by leaf.
    pub(in super::super) fn bytes(&self, slice: Slice) -> u64 {
        let from = Position::before(slice.first());
        let to = slice.last().next().map(Position::before);
        let (mut whole, mut ends) = (0, Vec::new());
        let directory = self.directory();
        let most = to.as_ref().map_or(Bound::Unbounded, Bound::Included);
        let runs: Vec<_> = directory
            .runs
            .range((Bound::Included(&from), most))
            .collect();
        let mut look_at = |from, to| ends.extend(directory.between(from, to).map(Arc::clone));
        if let Some(((last, run), others)) = runs.split_last() {
            whole += others.iter().map(|(_, run)| run.bytes()).sum::<u64>();
            let first = others.first().map_or(*last, |(first, _)| first);
            if from < *first {
                look_at(&from, Some(first));
            }
            match &to {
                Some(to) if *last < to => look_at(last, Some(to)),
                Some(_) => {}
                None => whole += run.bytes(),
            }
        } else {
            look_at(&from, to.as_ref());
        }
        drop(directory);
        whole
            + ends
                .iter()
                .map(|leaf| leaf.lock().share(slice))
                .sum::<u64>()
    }

    /// Cuts the run at which the position lies, if it is this one and nobody else cuts one.
    pub(super) fn cut_run(&self, run: &Arc<Run>, at: &Position<'static>) {
        let _cuts = match self.cuts_run.try_lock() {
            Ok(cuts) => cuts,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let right = Run::new(0);
        let (first, end) = {
            let mut directory = self.directory_mut();
            let Some((begin, known)) = directory.runs.range(..=at).next_back() else {
                return;
            };
            let behind = (Bound::Excluded(begin), Bound::Unbounded);
            let next = directory.runs.range(behind).next();
            let end = next.map(|(end, _)| end.clone());
            let middle = directory.between(begin, end.as_ref()).nth(RUN_LEAVES / 2);
            let Some(middle) = middle.filter(|_| Arc::ptr_eq(known, run)) else {
                return;
            };
            let first = middle.first.clone();
            directory.runs.insert(first.clone(), Arc::clone(&right));
            (first, end)
        };
        let mut next = Some(first.clone());
        while let Some(position) = next {
            next = self.at(&position, |leaf| {
                // Else it has taken in the first one of the right part, which begins behind it now.
                if leaf.leaf.first >= first {
                    leaf.go_over(run, &right);
                }
                leaf.end()
                    .filter(|next| end.as_ref().is_none_or(|end| *next < end))
                    .cloned()
            });
        }
    }
}

#[cfg(test)]
impl<V: StateValue> Tree<V> {
    /// Each leaf is counted in the run that the directory names. Requires that nobody writes.
    pub(super) fn check_runs(&self, leaves: &[Arc<Leaf<V>>]) {
        let directory = self.directory();
        let (mut bytes, mut count) = (0, 0);
        let mut runs = directory.runs.iter().rev().peekable();
        for leaf in leaves.iter().rev() {
            let (first, run) = runs.peek().unwrap();
            assert!(Arc::ptr_eq(&leaf.lock().inside.run, run));
            bytes += leaf.bytes();
            count += 1;
            if **first == leaf.first {
                assert_eq!(run.bytes(), bytes);
                assert_eq!(run.leaves.load(Ordering::Relaxed), count);
                (bytes, count) = (0, 0);
                runs.next();
            }
        }
        assert!(runs.next().is_none());
    }
}
