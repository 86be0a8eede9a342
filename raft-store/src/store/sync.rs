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
use super::memory::Attached;
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
    task: Mutex<Option<tokio::sync::mpsc::UnboundedSender<Waiter>>>,
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
            task: Mutex::new(None),
            failed: Arc::default(),
            syncs: Arc::default(),
        }
    }

    /// Syncs in a task of its own, in the time of the runtime: for a simulated disk. Its queue is
    /// bounded by those who wait: every writer of a replica does.
    pub(crate) fn timed(disk: Arc<Attached>) -> Self {
        let this = Self::inline(Arc::clone(&disk) as Arc<dyn Kv>);
        let (failed, syncs) = (Arc::clone(&this.failed), Arc::clone(&this.syncs));
        let (waiters, mut queue) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while queue.recv_many(&mut waiting, QUEUE).await > 0 {
                let mark = disk.mark();
                tokio::time::sleep(disk.sync_takes().unwrap_or_default()).await;
                let waiters = std::mem::take(&mut waiting);
                complete(|| disk.sync_up_to(mark), waiters, &failed, &syncs);
            }
        });
        *this.task.lock() = Some(waiters);
        this
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
        if let Some(task) = self.task.lock().as_ref() {
            if let Err(error) = task.send(waiter) {
                error.0.complete(&Err("the sync task has ended".into()));
            }
            return;
        }
        let sender = self.thread.lock().as_ref().map(|t| t.waiters.clone());
        match sender {
            None => match self.kv.lock().clone() {
                Some(kv) => complete(|| kv.sync(), vec![waiter], &self.failed, &self.syncs),
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
        self.task.lock().take();
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
        complete(|| kv.sync(), waiters, failed, syncs);
    }
}

fn complete(
    sync: impl FnOnce() -> io::Result<()>,
    waiters: Vec<Waiter>,
    failed: &Mutex<Option<String>>,
    syncs: &AtomicU64,
) {
    let before = failed.lock().clone();
    let result = match before {
        Some(why) => Err(why),
        None if mutant!("sync_skipped") => Ok(()),
        None => {
            syncs.fetch_add(1, Ordering::Relaxed);
            sync().map_err(|e| {
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
