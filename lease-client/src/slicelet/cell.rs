//! The cell of an owned slice: one atomic word that counts guards in flight and says whether
//! more may come.
//!
//! Everything follows from the order of changes of that one word. A guard first counts itself and
//! then looks at what the word was: if the slice was frozen, it takes itself off again and is
//! refused. Freezing sets its bit and then waits for the count to be zero. Whichever came first,
//! either the guard sees the freeze or the freeze sees the guard.
//!
//! Cells are never freed but used again, so that a guard can be a plain reference: it needs no
//! count beside the one that it is, and no unsafe code. A cell returns to the store when no table
//! names it (its [`CellHandle`] was dropped) and no guard is in flight.

use crate::slicelet::sync::{AtomicU64, Mutex, Ordering};
use std::ops::Deref;
use std::sync::Arc;

/// One guard in flight: bits 0 to 31.
const GUARD: u64 = 1;
const GUARDS: u64 = (1 << 32) - 1;
/// One guard ever asked for: bits 32 to 60, and bit 61 where they spill over.
const ASKED: u64 = 1 << 32;
const ASKED_SPILL: u64 = 1 << 61;
const ALL_ASKED: u64 = (ASKED_SPILL << 1) - ASKED;
/// Guards in flight are no longer valid.
const REVOKED: u64 = 1 << 62;
/// No guard may come.
const FROZEN: u64 = 1 << 63;

/// Told when the last guard of a frozen cell is gone. Spurious calls are allowed.
pub(crate) type Waiter = Arc<dyn Fn() + Send + Sync>;

/// See the module's description.
#[repr(align(128))]
pub(crate) struct Cell {
    word: AtomicU64,
    spilled: AtomicU64,
    waiter: Mutex<Option<Waiter>>,
}

/// The slice takes no new guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl Cell {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            waiter: Mutex::new(None),
        }
    }

    /// Counts a guard in. Each `Ok` must be followed by one [`Cell::leave`].
    #[inline]
    pub(crate) fn enter(&self) -> Result<(), Refused> {
        let before = self.word.fetch_add(ASKED | GUARD, Ordering::AcqRel);
        if before & (FROZEN | REVOKED | ASKED_SPILL) == 0 {
            Ok(())
        } else {
            self.enter_slowly(before)
        }
    }

    #[cold]
    fn enter_slowly(&self, before: u64) -> Result<(), Refused> {
        if before & ASKED_SPILL != 0
            && self.word.fetch_and(!ASKED_SPILL, Ordering::AcqRel) & ASKED_SPILL != 0
        {
            self.spilled
                .fetch_add(ASKED_SPILL / ASKED, Ordering::Relaxed);
        }
        if before & (FROZEN | REVOKED) == 0 {
            return Ok(());
        }
        self.leave();
        Err(Refused)
    }

    /// Counts a guard out; what it did happens before the freezer sees the count at zero.
    #[inline]
    pub(crate) fn leave(&self) {
        let before = self.word.fetch_sub(GUARD, Ordering::AcqRel);
        if before & FROZEN != 0 && before & GUARDS == GUARD {
            self.tell_drained();
        }
    }

    #[cold]
    fn tell_drained(&self) {
        let waiter = self
            .waiter
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        if let Some(waiter) = waiter {
            waiter();
        }
    }

    /// Whether guards in flight are still valid as far as ownership goes.
    #[inline]
    pub(crate) fn is_valid(&self) -> bool {
        self.word.load(Ordering::Acquire) & REVOKED == 0
    }

    /// Lets no guard in any more. `waiter` is called when the last one in flight is gone, perhaps
    /// more often; not when there is none now.
    pub(crate) fn freeze(&self, waiter: Waiter) {
        // First the waiter, then the bit: who sees the bit finds the waiter.
        *self
            .waiter
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(waiter);
        self.word.fetch_or(FROZEN, Ordering::AcqRel);
    }

    /// Lets guards in again.
    pub(crate) fn thaw(&self) {
        self.word.fetch_and(!FROZEN, Ordering::AcqRel);
    }

    /// Cuts off the guards in flight: from now on their checks fail. For ever: a cell that was
    /// revoked serves no slice again before it was in the store.
    pub(crate) fn revoke(&self) {
        self.word.fetch_or(FROZEN | REVOKED, Ordering::AcqRel);
    }

    /// Whether no guard is in flight. On a frozen cell it stays so.
    pub(crate) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Acquire) & GUARDS == 0
    }

    /// How many guards were asked for since the last call.
    pub(crate) fn take_asked(&self) -> u64 {
        // Under contention the rest is counted the next time.
        for _ in 0..64 {
            let word = self.word.load(Ordering::Relaxed);
            let taken = self.word.compare_exchange(
                word,
                word & !ALL_ASKED,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                return (word & ALL_ASKED) / ASKED + self.spilled.swap(0, Ordering::Relaxed);
            }
        }
        0
    }

    /// Makes a cell of the store ready for another slice. Requires that nobody names it.
    fn reset(&self) {
        *self
            .waiter
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        self.spilled.store(0, Ordering::Relaxed);
        self.word.store(0, Ordering::Release);
    }
}

/// A cell in use; back in the store when the last handle is gone and its guards too.
pub(crate) struct CellHandle {
    cell: &'static Cell,
    /// Kept until the cell's guards are gone: they refer to the lease as well.
    lease: Arc<LeaseHandle>,
}

impl CellHandle {
    pub(crate) fn new(lease: &Arc<LeaseHandle>) -> Arc<Self> {
        Arc::new(Self {
            cell: store::take_cell(),
            lease: Arc::clone(lease),
        })
    }

    pub(crate) fn cell(&self) -> &'static Cell {
        self.cell
    }
}

impl Deref for CellHandle {
    type Target = Cell;

    fn deref(&self) -> &Cell {
        self.cell
    }
}

impl Drop for CellHandle {
    fn drop(&mut self) {
        // A guard may be in flight, but no new one can come: no table names the cell.
        self.cell.revoke();
        store::retire(self.cell, Arc::clone(&self.lease));
    }
}

pub(crate) use store::LeaseHandle;

mod store {
    //! Cells and leases that wait for their next use.

    use std::sync::{Arc, Mutex, PoisonError};

    use super::Cell;
    use crate::clock::Clock;
    use crate::slicelet::lease::Lease;

    struct Store {
        cells: Vec<&'static Cell>,
        leases: Vec<&'static Lease>,
        /// No table names them; guards may still be in flight.
        retired: Vec<(&'static Cell, Arc<LeaseHandle>)>,
    }

    static STORE: Mutex<Store> = Mutex::new(Store {
        cells: Vec::new(),
        leases: Vec::new(),
        retired: Vec::new(),
    });

    fn with<R>(f: impl FnOnce(&mut Store) -> R) -> R {
        f(&mut STORE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn take_cell() -> &'static Cell {
        let (cell, finished) = with(|store| {
            let mut finished = Vec::new();
            if store.cells.is_empty() {
                for (cell, lease) in std::mem::take(&mut store.retired) {
                    if cell.is_idle() {
                        store.cells.push(cell);
                        finished.push(lease);
                    } else {
                        store.retired.push((cell, lease));
                    }
                }
            }
            (store.cells.pop(), finished)
        });
        // Outside the lock: the last handle of a lease takes the lock itself.
        drop(finished);
        match cell {
            Some(cell) => {
                cell.reset();
                cell
            }
            None => Box::leak(Box::new(Cell::new())),
        }
    }

    pub(super) fn retire(cell: &'static Cell, lease: Arc<LeaseHandle>) {
        with(|store| store.retired.push((cell, lease)));
    }

    /// A lease in use; back in the store when no cell refers to it.
    pub(crate) struct LeaseHandle {
        lease: &'static Lease,
        again: bool,
    }

    impl LeaseHandle {
        pub(crate) fn new(clock: &Clock) -> Arc<Self> {
            // Only leases on the system's clock are alike; others are rare and only in tests.
            let again = matches!(clock, Clock::System(_));
            let known = again.then(|| with(|store| store.leases.pop())).flatten();
            let lease = known.unwrap_or_else(|| Box::leak(Box::new(Lease::new(clock.clone()))));
            lease.end();
            Arc::new(Self { lease, again })
        }

        pub(crate) fn lease(&self) -> &'static Lease {
            self.lease
        }
    }

    impl Drop for LeaseHandle {
        fn drop(&mut self) {
            self.lease.end();
            if self.again {
                with(|store| store.leases.push(self.lease));
            }
        }
    }
}

#[cfg(all(test, leasehold_loom))]
mod interleavings {
    //! Every interleaving of guards and a freeze:
    //! `RUSTFLAGS="--cfg leasehold_loom" cargo test -p leasehold-client --release --lib interleavings`.

    use std::sync::Arc as StdArc;

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicBool, Ordering};
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::Cell;

    /// What the guards protect.
    struct Protected {
        cell: Cell,
        surrendered: AtomicBool,
        state: [UnsafeCell<u32>; 2],
        drained: Arc<Notify>,
    }

    impl Protected {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                cell: Cell::new(),
                surrendered: AtomicBool::new(false),
                state: [UnsafeCell::new(0), UnsafeCell::new(0)],
                drained: Arc::new(Notify::new()),
            })
        }

        fn serve(&self, thread: usize) {
            if self.cell.enter().is_ok() {
                // SAFETY: only this thread writes, and the freezer reads only when it has gone;
                // loom checks just that.
                self.state[thread].with_mut(|state| unsafe { *state += 1 });
                assert!(
                    !self.surrendered.load(Ordering::Relaxed),
                    "served after the surrender"
                );
                self.cell.leave();
            }
        }

        fn surrender(&self) {
            let drained = Arc::clone(&self.drained);
            self.cell.freeze(StdArc::new(move || drained.notify()));
            while !self.cell.is_idle() {
                self.drained.wait();
            }
            self.surrendered.store(true, Ordering::Relaxed);
            for state in &self.state {
                // SAFETY: see `serve`.
                state.with(|state| unsafe { assert!(*state <= 2) });
            }
        }
    }

    #[test]
    fn no_guard_is_in_flight_when_the_slice_is_surrendered() {
        loom::model(|| {
            let protected = Protected::new();
            let guards = [0, 1].map(|n| {
                let protected = Arc::clone(&protected);
                thread::spawn(move || protected.serve(n))
            });
            protected.surrender();
            guards.into_iter().for_each(|guard| guard.join().unwrap());
            protected.serve(0);
        });
    }

    #[test]
    fn a_guard_that_was_revoked_before_it_verified_does_not_verify() {
        loom::model(|| {
            let protected = Protected::new();
            let guard = {
                let protected = Arc::clone(&protected);
                thread::spawn(move || {
                    if protected.cell.enter().is_ok() {
                        let surrendered = protected.surrendered.load(Ordering::Acquire);
                        assert!(
                            !(surrendered && protected.cell.is_valid()),
                            "valid after the surrender"
                        );
                        protected.cell.leave();
                    }
                })
            };
            protected.cell.revoke();
            protected.surrendered.store(true, Ordering::Release);
            guard.join().unwrap();
        });
    }
}

#[cfg(all(test, not(leasehold_loom)))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn guards_and_freezes_under_load_never_meet() {
        const ROUNDS: usize = 100;
        let cell = Arc::new(Cell::new());
        let (served, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let surrendered = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (cell, served, stop) =
                    (Arc::clone(&cell), Arc::clone(&served), Arc::clone(&stop));
                let surrendered = Arc::clone(&surrendered);
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if cell.enter().is_ok() {
                            assert!(!surrendered.load(Ordering::SeqCst));
                            served.fetch_add(1, Ordering::Relaxed);
                            cell.leave();
                        } else {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let (drained, wait) = mpsc::channel();
        for _ in 0..ROUNDS {
            let drained = drained.clone();
            cell.freeze(Arc::new(move || {
                let _ = drained.send(());
            }));
            while !cell.is_idle() {
                wait.recv().unwrap();
            }
            surrendered.store(true, Ordering::SeqCst);
            std::thread::yield_now();
            surrendered.store(false, Ordering::SeqCst);
            let before = served.load(Ordering::Relaxed);
            cell.thaw();
            while served.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert!(cell.is_idle());
        assert!(cell.take_asked() >= served.load(Ordering::Relaxed));
    }

    #[test]
    fn asked_counts_spill_over_without_touching_the_flags() {
        let cell = Cell::new();
        cell.word.store(ASKED_SPILL - ASKED, Ordering::Relaxed);
        for _ in 0..3 {
            cell.enter().unwrap();
            cell.leave();
        }
        assert!(cell.is_valid() && cell.is_idle());
        assert_eq!(cell.take_asked(), ASKED_SPILL / ASKED + 2);
        assert_eq!(cell.take_asked(), 0);
    }
}
