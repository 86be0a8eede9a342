//! Group commit: one thread makes the write-ahead log durable for everybody who waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::kv::Kv;
use crate::raft_types::TypeConfig;

/// Waiters that one sync may serve; beyond that the writer itself waits.
const QUEUE: usize = 16 << 10;

/// Somebody who waits until what is written now is durable.
enum Waiter {
    Append(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    fn complete(self, result: &Result<(), String>) {
        let result = result.clone().map_err(io::Error::other);
        match self {
            Self::Append(callback) => callback.io_completed(result),
            Self::Caller(to) => {
                let _ = to.send(result);
            }
        }
    }
}

/// Makes writes durable. After the first failure nothing is ever durable again: a second attempt
/// may succeed although the pages of the first were dropped.
pub(crate) struct Syncer {
    /// Let go at the end, so that the store can close.
    kv: Mutex<Option<Arc<dyn Kv>>>,
    thread: Mutex<Option<Thread>>,
    failed: Arc<Mutex<Option<String>>>,
    syncs: Arc<AtomicU64>,
}

struct Thread {
    waiters: mpsc::SyncSender<Waiter>,
    handle: JoinHandle<()>,
}

impl Syncer {
    /// Syncs in the caller's thread: for a store whose sync costs nothing.
    pub(crate) fn inline(kv: Arc<dyn Kv>) -> Self {
        Self {
            kv: Mutex::new(Some(kv)),
            thread: Mutex::new(None),
            failed: Arc::default(),
            syncs: Arc::default(),
        }
    }

    /// Syncs in a thread of its own.
    pub(crate) fn threaded(kv: Arc<dyn Kv>) -> io::Result<Self> {
        let this = Self::inline(Arc::clone(&kv));
        let (failed, syncs) = (Arc::clone(&this.failed), Arc::clone(&this.syncs));
        let (waiters, queue) = mpsc::sync_channel(QUEUE);
        let handle = std::thread::Builder::new()
            .name("wal-sync".into())
            .spawn(move || run(&*kv, &queue, &failed, &syncs))?;
        *this.thread.lock() = Some(Thread { waiters, handle });
        Ok(this)
    }

    pub(crate) fn syncs_total(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Complete `callback` once everything written so far is durable.
    pub(crate) fn append(&self, callback: IOFlushed<TypeConfig>) {
        self.submit(Waiter::Append(callback));
    }

    /// Wait until everything written so far is durable.
    pub(crate) async fn barrier(&self) -> io::Result<()> {
        let (to, done) = oneshot::channel();
        self.submit(Waiter::Caller(to));
        done.await
            .map_err(|_| io::Error::other("the sync thread has ended"))?
    }

    fn submit(&self, waiter: Waiter) {
        let sender = self.thread.lock().as_ref().map(|t| t.waiters.clone());
        match sender {
            None => match self.kv.lock().clone() {
                Some(kv) => complete(&*kv, vec![waiter], &self.failed, &self.syncs),
                None => waiter.complete(&Err("the store is closed".into())),
            },
            Some(sender) => {
                if let Err(mpsc::SendError(waiter)) = sender.send(waiter) {
                    waiter.complete(&Err("the sync thread has ended".into()));
                }
            }
        }
    }

    /// Serve those who wait, then end the thread. Blocks for one sync.
    pub(crate) fn close(&self) {
        self.kv.lock().take();
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        *self.failed.lock() = Some("the store is closed".into());
        drop(thread.waiters);
        if thread.handle.join().is_err() {
            tracing::error!("the sync thread panicked");
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(
    kv: &dyn Kv,
    queue: &mpsc::Receiver<Waiter>,
    failed: &Mutex<Option<String>>,
    syncs: &AtomicU64,
) {
    while let Ok(first) = queue.recv() {
        let mut waiters = vec![first];
        waiters.extend(queue.try_iter().take(QUEUE));
        complete(kv, waiters, failed, syncs);
    }
}

fn complete(kv: &dyn Kv, waiters: Vec<Waiter>, failed: &Mutex<Option<String>>, syncs: &AtomicU64) {
    let before = failed.lock().clone();
    let result = match before {
        Some(why) => Err(why),
        None => {
            syncs.fetch_add(1, Ordering::Relaxed);
            kv.sync().map_err(|e| {
                let why = format!("the write-ahead log could not be synced: {e}");
                tracing::error!("{why}; this node stops");
                *failed.lock() = Some(why.clone());
                why
            })
        }
    };
    for waiter in waiters {
        waiter.complete(&result);
    }
}
