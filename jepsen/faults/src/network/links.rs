//! The rules and counters of all ordered pairs of hosts, shared by those who set them and the one
//! who moves the bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::link::{LinkCount, LinkRule};

#[derive(Debug, Default)]
struct Counters {
    passed: AtomicU64,
    dropped: AtomicU64,
    delayed: AtomicU64,
    duplicated: AtomicU64,
}

/// All links of a network.
#[derive(Debug)]
pub(crate) struct Links {
    hosts: usize,
    rules: Mutex<Vec<LinkRule>>,
    counters: Vec<Counters>,
}

impl Links {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            hosts,
            rules: Mutex::new(vec![LinkRule::default(); hosts * hosts]),
            counters: (0..hosts * hosts).map(|_| Counters::default()).collect(),
        }
    }

    pub(crate) fn hosts(&self) -> usize {
        self.hosts
    }

    /// Where the pair stands in [`Links::rules`].
    pub(crate) fn place(&self, from: usize, to: usize) -> usize {
        from * self.hosts + to
    }

    /// All rules. A panic elsewhere leaves them whole: they are only ever replaced one by one.
    pub(crate) fn rules(&self) -> MutexGuard<'_, Vec<LinkRule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, from: usize, to: usize) -> LinkCount {
        let counters = &self.counters[self.place(from, to)];
        LinkCount {
            passed: counters.passed.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            delayed: counters.delayed.load(Ordering::Relaxed),
            duplicated: counters.duplicated.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn passed(&self, place: usize) {
        self.counters[place].passed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, place: usize) {
        self.counters[place].dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn delayed(&self, place: usize) {
        self.counters[place].delayed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn duplicated(&self, place: usize) {
        self.counters[place]
            .duplicated
            .fetch_add(1, Ordering::Relaxed);
    }
}
