//! What the committed entries changed, for the leader of this node.

use leasehold_proto::table::Event;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Events that may wait; beyond that they are lost, and the leader is told so.
const KEPT: usize = 10_000;

/// Unread events of one node.
#[derive(Default)]
pub(crate) struct News {
    unread: Mutex<(Vec<Event>, bool)>,
    bell: Notify,
}

impl News {
    pub(crate) fn push(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut unread = self.unread.lock();
        unread.0.extend(events);
        if unread.0.len() > KEPT {
            unread.0.clear();
            unread.1 = true;
        }
        drop(unread);
        self.bell.notify_one();
    }

    /// The table was replaced as a whole.
    pub(crate) fn lost(&self) {
        self.unread.lock().1 = true;
        self.bell.notify_one();
    }

    /// A leader begins: what it needs it reads from the table.
    pub(crate) fn clear(&self) {
        *self.unread.lock() = (Vec::new(), false);
    }

    /// What is unread; nothing if some of it was lost.
    pub(crate) fn take(&self) -> Option<Vec<Event>> {
        let mut unread = self.unread.lock();
        (!unread.1).then(|| std::mem::take(&mut unread.0))
    }

    /// Returns when something may be unread.
    pub(crate) async fn wait(&self) {
        self.bell.notified().await;
    }
}
