//! One feed per watched target: each change is compared once, serialised once, and handed to all
//! who watch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use leasehold_proto::key::KeyHash;
use leasehold_proto::table::TargetState;
use leasehold_proto::{Generation, TargetName, wire};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::replica::Replica;
use crate::shared::Shared;

/// Serialised updates kept for the newest generation, for those who are behind.
const UPDATES_KEPT: usize = 64;

/// A target's newest view, as one step from the one before.
#[derive(Clone)]
pub(crate) enum Step {
    /// The view; the bytes lead from `base` to `generation`.
    View {
        base: Option<Generation>,
        generation: Generation,
        bytes: Bytes,
    },
    /// The target is deleted.
    Gone,
    /// This node stops.
    Stopping,
}

/// A generation, and the serialised updates that lead to it, by what they begin at.
type Updates = (Option<Generation>, HashMap<Option<Generation>, Bytes>);

/// The feed of one target.
pub(crate) struct Feed {
    target: TargetName,
    pub(crate) key_hash: KeyHash,
    newest: watch::Sender<Step>,
    /// Updates to the newest generation for those who know another one than the step's base.
    updates: Mutex<Updates>,
}

/// The feeds of the targets that somebody watches.
#[derive(Default)]
pub(crate) struct Feeds {
    feeds: Mutex<HashMap<TargetName, Arc<Feed>>>,
}

impl Feeds {
    /// The feed of a target, and its newest step with every later one (a slow reader sees the
    /// newest only); `None` if there is no such target. Do not hold the table meanwhile.
    pub(crate) fn subscribe(
        &self,
        name: &TargetName,
        replica: &Replica,
    ) -> Option<(Arc<Feed>, watch::Receiver<Step>)> {
        let mut feeds = self.feeds.lock();
        if let Some(feed) = feeds
            .get(name)
            .filter(|feed| matches!(*feed.newest.borrow(), Step::View { .. }))
        {
            return Some((Arc::clone(feed), feed.newest.subscribe()));
        }
        let table = replica.table();
        let target = table.target(name).filter(|target| !target.is_deleted())?;
        let (base, generation) = (Some(target.generation()), target.generation());
        let (newest, steps) = watch::channel(Step::View {
            base,
            generation,
            bytes: Bytes::new(),
        });
        let key_hash = target.config().key_hash;
        let feed = Arc::new(Feed {
            target: name.clone(),
            key_hash,
            newest,
            updates: Mutex::default(),
        });
        feeds.insert(name.clone(), Arc::clone(&feed));
        Some((feed, steps))
    }

    /// Ends every watch.
    pub(crate) fn stop(&self) {
        for feed in self.feeds.lock().values() {
            feed.newest.send_replace(Step::Stopping);
        }
    }

    /// How many watch a target. Do not hold the table meanwhile.
    pub(crate) fn watchers(&self, name: &TargetName) -> usize {
        self.feeds
            .lock()
            .get(name)
            .map_or(0, |feed| feed.newest.receiver_count())
    }

    /// Publishes what became of a target, if anybody watches it.
    fn publish(&self, name: &TargetName, replica: &Replica) {
        let mut feeds = self.feeds.lock();
        let Some(feed) = feeds.get(name).cloned() else {
            return;
        };
        if feed.newest.receiver_count() == 0 {
            feeds.remove(name);
            return;
        }
        drop(feeds);
        feed.publish(replica);
    }
}

impl Feed {
    fn publish(&self, replica: &Replica) {
        let before = match &*self.newest.borrow() {
            Step::View { generation, .. } => *generation,
            Step::Gone | Step::Stopping => return,
        };
        let step = {
            let table = replica.table();
            match self.present(table.target(&self.target)) {
                None => Step::Gone,
                Some(target) => {
                    let Some(update) = target.update_since(Some(before)) else {
                        return;
                    };
                    let generation = update.generation();
                    Step::View {
                        base: Some(before),
                        generation,
                        bytes: wire::encode_view_update(&update),
                    }
                }
            }
        };
        self.newest.send_replace(step);
    }

    /// The target, unless it is deleted, or another one under the same name.
    fn present<'a>(&self, target: Option<&'a TargetState>) -> Option<&'a TargetState> {
        target.filter(|target| !target.is_deleted() && target.config().key_hash == self.key_hash)
    }

    /// What leads from `known` to the newest view, serialised once for all who know the same; and
    /// the generation that it leads to. Empty bytes if nothing is newer, `None` if the target is
    /// gone.
    pub(crate) fn update(
        &self,
        known: Option<Generation>,
        replica: &Replica,
    ) -> Option<(Option<Generation>, Bytes)> {
        // The lock is held over the encoding: of many who want the same only one does the work.
        let mut updates = self.updates.lock();
        let (generation, update) = {
            let table = replica.table();
            let target = self.present(table.target(&self.target))?;
            let generation = Some(target.generation());
            if updates.0 == generation
                && let Some(bytes) = updates.1.get(&known)
            {
                return Some((generation, bytes.clone()));
            }
            (generation, target.update_since(known))
        };
        if updates.0 != generation || updates.1.len() >= UPDATES_KEPT {
            *updates = (generation, HashMap::new());
        }
        let bytes = update
            .as_ref()
            .map(wire::encode_view_update)
            .unwrap_or_default();
        updates.1.insert(known, bytes.clone());
        Some((generation, bytes))
    }
}

/// Publishes to the feeds whatever the entries change; runs on every node.
pub(crate) async fn publish(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = shared.replica.changed_targets() => changed,
        };
        for name in changed {
            shared.feeds.publish(&name, &shared.replica);
            let table = shared.replica.table();
            shared.ages.look(&name, table.target(&name), Instant::now());
        }
    }
}
