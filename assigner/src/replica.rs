//! What the committed entries have made of this node: the lease table, and news of its changes.
//!
//! The machine writes here; the services, the leader and the watches read. News is kept apart from
//! the table's lock: the leader gets every event in order, the watches only learn which targets
//! have changed, so that a slow one holds up nobody and keeps nothing but names.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_proto::TargetName;
use leasehold_proto::table::{Event, LeaseTable};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// Events that a leader may leave unread before it must look at the whole table instead.
const EVENTS_UNREAD: usize = 1 << 17;

/// The table of this node.
#[derive(Default)]
pub(crate) struct Replica {
    table: RwLock<LeaseTable>,
    /// The queue of the term that this node leads.
    leader: Mutex<Option<Arc<EventQueue>>>,
    /// Targets whose view has changed, or that are gone, since the watches looked.
    changed: Mutex<BTreeSet<TargetName>>,
    changed_notify: Notify,
}

/// What entries changed, in the order in which they were applied.
#[derive(Default)]
pub(crate) struct News {
    /// For the leader.
    pub(crate) events: Vec<Event>,
    /// Targets of which anything changed: configuration, sessions or slices.
    pub(crate) touched: BTreeSet<TargetName>,
}

impl Replica {
    /// The table as applied so far. Hold it shortly: the replication waits.
    pub(crate) fn table(&self) -> RwLockReadGuard<'_, LeaseTable> {
        self.table.read()
    }

    /// Changes the table; only the machine does.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut LeaseTable) -> T) -> T {
        change(&mut self.table.write())
    }

    /// Tells what changed. Called after the table shows it.
    pub(super) fn publish(&self, news: News) {
        let views = news.events.iter().filter_map(|event| match event {
            Event::ViewChanged(target) | Event::TargetGone(target) => Some(target.clone()),
            _ => None,
        });
        let mut changed = self.changed.lock();
        let before = changed.len();
        changed.extend(views);
        let grew = changed.len() > before;
        drop(changed);
        if grew {
            self.changed_notify.notify_one();
        }
        if let Some(queue) = self.leader.lock().as_ref() {
            queue.push(news);
        }
    }

    /// The table was replaced as a whole: everything may have changed.
    pub(super) fn replaced(&self) {
        let names: Vec<TargetName> = self
            .table
            .read()
            .targets()
            .map(|target| target.name().clone())
            .collect();
        self.changed.lock().extend(names);
        self.changed_notify.notify_one();
        if let Some(queue) = self.leader.lock().as_ref() {
            queue.lost();
        }
    }

    /// Begins a queue of events; the one of an earlier term gets no more. What the table showed
    /// before is not in it: read the table after this call.
    pub(crate) fn subscribe(&self) -> Arc<EventQueue> {
        let queue = Arc::new(EventQueue::default());
        *self.leader.lock() = Some(Arc::clone(&queue));
        queue
    }

    /// Ends the queue, if it is still the present one.
    pub(crate) fn unsubscribe(&self, queue: &Arc<EventQueue>) {
        let mut leader = self.leader.lock();
        if leader
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, queue))
        {
            *leader = None;
        }
    }

    /// The targets that changed since the last call; waits until there are some.
    pub(crate) async fn changed_targets(&self) -> BTreeSet<TargetName> {
        loop {
            let changed = std::mem::take(&mut *self.changed.lock());
            if !changed.is_empty() {
                return changed;
            }
            self.changed_notify.notified().await;
        }
    }
}

/// Events for the leader of one term.
#[derive(Default)]
pub(crate) struct EventQueue {
    unread: Mutex<Unread>,
    notify: Notify,
}

/// What a leader has not read yet.
#[derive(Default)]
pub(crate) struct Unread {
    /// In order.
    pub(crate) events: Vec<Event>,
    /// Targets of which anything changed.
    pub(crate) touched: BTreeSet<TargetName>,
    /// Events were dropped: look at the whole table.
    pub(crate) lost: bool,
}

impl EventQueue {
    fn push(&self, news: News) {
        let mut unread = self.unread.lock();
        if unread.events.len() + news.events.len() > EVENTS_UNREAD {
            unread.events.clear();
            unread.lost = true;
        } else {
            unread.events.extend(news.events);
        }
        unread.touched.extend(news.touched);
        drop(unread);
        self.notify.notify_one();
    }

    fn lost(&self) {
        self.unread.lock().lost = true;
        self.notify.notify_one();
    }

    /// Everything unread, which may be nothing.
    pub(crate) fn take(&self) -> Unread {
        std::mem::take(&mut *self.unread.lock())
    }

    /// Returns when there may be something to take.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}
