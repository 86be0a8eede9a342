//! The Slicelet: an application's proof of ownership.

mod builder;
mod cell;
mod driver;
mod guard;
mod handler;
mod lease;
mod link;
pub(crate) mod offline;
mod order;
mod ownership;
mod peer;
mod publish;
mod stats;
mod sync;
mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod transfer;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use leasehold_proto::{
    Epoch, FencingToken, Generation, KeyHash, Mode, SessionId, Slice, SliceKey, Squid, TargetName,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use builder::SliceletBuilder;
pub use guard::Guard;
pub use handler::{Arrival, Cause, SliceHandler, SliceInfo};
pub use ownership::{OwnershipEvent, OwnershipLog};
pub use peer::PeerService;
pub use stats::Stats;
pub use transfer::{OnTransferFailure, Transfers};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, GuardError};
use crate::pace::UserLatency;
use peer::Asked;
use stats::Counters;
use table::{Phase, Table};

/// What checks, the driver and services share.
pub(crate) struct Shared {
    table: ArcSwap<Table>,
    /// Told after each new table.
    published: Notify,
    /// Held while a table is published; true once the Slicelet was dropped.
    stopped: Mutex<bool>,
    generation: Mutex<Option<Generation>>,
    session: AtomicU64,
    status: watch::Sender<Status>,
    waiting: AtomicUsize,
    counters: Counters,
    clock: Clock,
    /// How long the application's requests take.
    latency: UserLatency,
}

impl Shared {
    fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            table: ArcSwap::from_pointee(Table::empty(Phase::Starting, KeyHash::default())),
            published: Notify::new(),
            stopped: Mutex::new(false),
            generation: Mutex::new(None),
            session: AtomicU64::new(0),
            status: watch::Sender::default(),
            waiting: AtomicUsize::new(0),
            counters: Counters::default(),
            clock,
            latency: UserLatency::new(std::time::Instant::now()),
        })
    }

    /// The session held now.
    fn session(&self) -> Option<SessionId> {
        let number = self.session.load(Ordering::Acquire);
        (number != 0).then(|| SessionId::from_u64(number))
    }

    fn set_session(&self, session: Option<SessionId>) {
        self.session
            .store(session.map_or(0, SessionId::as_u64), Ordering::Release);
    }

    fn refuse(&self, mut error: GuardError) -> GuardError {
        self.counters.refused(&error);
        if let GuardError::NotOwner { generation } = &mut error {
            *generation = *self
                .generation
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
        }
        error
    }

    /// Serves nothing from now on. What is left is done by the driver.
    fn stop(&self) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        *stopped = true;
        let table = self.table.load();
        table.end_lease();
        self.table
            .store(Arc::new(Table::empty(Phase::Stopped, table.key_hash)));
        drop(stopped);
        self.published.notify_waiters();
    }
}

/// Where a Slicelet stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    session: Option<SessionId>,
    mode: Option<Mode>,
    /// Slices owned, frozen ones too.
    owned: usize,
    /// Slices with any part in them: arriving and gone ones too.
    local: usize,
    /// Slices that are another's whose state is kept for it.
    kept: usize,
    shut: bool,
}

/// What the driver is asked to do.
enum Request {
    Drain {
        until: Instant,
        reply: oneshot::Sender<Result<(), Error>>,
    },
}

/// One application process's part in one target: registers, renews its lease, and answers for
/// each request whether this process owns its key.
///
/// Several may live in one process, for several targets. Dropping it serves nothing any more and
/// tells the Assigner in the background; [`Slicelet::drain`] and then [`Slicelet::close`] is the
/// way to leave without a failed request.
pub struct Slicelet {
    shared: Arc<Shared>,
    target: TargetName,
    squid: Squid,
    requests: mpsc::Sender<Request>,
    asked: mpsc::Sender<Asked>,
    stop: watch::Sender<bool>,
    driver: Option<JoinHandle<Result<(), Error>>>,
    most_waiting: usize,
    longest_wait: Duration,
}

impl Slicelet {
    /// Begins to make a Slicelet of `target`.
    pub fn builder(target: impl Into<String>) -> SliceletBuilder {
        SliceletBuilder::new(target.into())
    }

    /// Proof that this process owns `key` now. Takes no lock, allocates nothing, makes no system
    /// call but one clock read.
    ///
    /// # Errors
    /// [`GuardError`]: answer the client with `Status::from(error)`; nothing was done.
    #[inline]
    pub fn guard(&self, key: &[u8]) -> Result<Guard, GuardError> {
        let table = self.shared.table.load();
        match table.guard(table.key_hash.slice_key(key)) {
            Ok(guard) => Ok(guard),
            Err(refused) => self.refused(&table, refused, table.key_hash.slice_key(key)),
        }
    }

    /// [`Slicelet::guard`] for a key that is hashed already.
    ///
    /// # Errors
    /// As [`Slicelet::guard`].
    #[inline]
    pub fn guard_slice_key(&self, key: SliceKey) -> Result<Guard, GuardError> {
        let table = self.shared.table.load();
        match table.guard(key) {
            Ok(guard) => Ok(guard),
            Err(refused) => self.refused(&table, refused, key),
        }
    }

    /// A cell that refused was closed after its table was replaced: the newer one says why.
    #[cold]
    fn refused(
        &self,
        table: &Arc<Table>,
        refused: Option<GuardError>,
        key: SliceKey,
    ) -> Result<Guard, GuardError> {
        let mut seen = Arc::clone(table);
        let mut refused = refused;
        loop {
            let error = match refused {
                Some(error) => error,
                None => {
                    let newer = self.shared.table.load_full();
                    if Arc::ptr_eq(&newer, &seen) {
                        GuardError::HandingOver
                    } else {
                        match newer.guard(key) {
                            Ok(guard) => return Ok(guard),
                            Err(again) => {
                                (seen, refused) = (newer, again);
                                continue;
                            }
                        }
                    }
                }
            };
            return Err(self.shared.refuse(error));
        }
    }

    /// As [`Slicelet::guard`], but while the slice is being handed over, from here or to here, the
    /// request waits for the outcome: at the source it is then told where the slice went, at the
    /// destination it is served.
    ///
    /// # Errors
    /// [`GuardError`]; `HandingOver` or `TooManyWaiting` when the wait was too long or too many
    /// requests wait. Cancelling the future ends the wait and nothing else.
    pub async fn guard_or_wait(&self, key: &[u8]) -> Result<Guard, GuardError> {
        self.guard_slice_key_or_wait(self.slice_key(key)).await
    }

    /// [`Slicelet::guard_or_wait`] for a key that is hashed already.
    ///
    /// # Errors
    /// As [`Slicelet::guard_or_wait`].
    pub async fn guard_slice_key_or_wait(&self, key: SliceKey) -> Result<Guard, GuardError> {
        match self.guard_slice_key(key) {
            Err(GuardError::HandingOver) => {}
            result => return result,
        }
        let Some(_place) = Place::take(&self.shared.waiting, self.most_waiting) else {
            self.shared.counters.waited_in_vain.add(1);
            return Err(GuardError::TooManyWaiting);
        };
        self.shared.counters.waited.add(1);
        let waited = async {
            loop {
                // Listen first, then look: a table published in between is not missed.
                let published = self.shared.published.notified();
                tokio::pin!(published);
                published.as_mut().enable();
                match self.guard_slice_key(key) {
                    Err(GuardError::HandingOver) => published.await,
                    result => return result,
                }
            }
        };
        match tokio::time::timeout(self.longest_wait, waited).await {
            Ok(result) => result,
            Err(_) => {
                self.shared.counters.waited_in_vain.add(1);
                Err(GuardError::HandingOver)
            }
        }
    }

    /// The slice key of an application key, by the target's hash (known once registered).
    pub fn slice_key(&self, key: &[u8]) -> SliceKey {
        self.shared.table.load().key_hash.slice_key(key)
    }

    /// The gRPC service through which other Slicelets take slices over. Add it to the server at
    /// the advertised address; without it every handoff from here waits for its deadline.
    pub fn peer_service(&self) -> PeerService {
        PeerService {
            slicelets: vec![(Arc::clone(&self.shared), self.asked.clone())],
        }
    }

    /// The target.
    pub fn target(&self) -> &TargetName {
        &self.target
    }

    /// This object's identity: its address and an id of its own.
    pub fn squid(&self) -> &Squid {
        &self.squid
    }

    /// The session held now; another one after the Assigner closed it.
    pub fn session(&self) -> Option<SessionId> {
        self.shared.session()
    }

    /// What the target promises, by the newest view.
    pub fn mode(&self) -> Option<Mode> {
        self.shared.status.borrow().mode
    }

    /// The slices for which guards are given (while the lease runs), with their tokens.
    pub fn owned(&self) -> Vec<(Slice, Epoch, FencingToken)> {
        self.shared
            .table
            .load()
            .open()
            .map(|(slice, epoch)| (slice, epoch, epoch.token()))
            .collect()
    }

    /// Tells how long a request took that this process served: transfers of state slow down when
    /// requests do. Cheap. [`layer::OwnershipLayer`](crate::layer::OwnershipLayer) tells it by
    /// itself.
    #[inline]
    pub fn observe(&self, took: Duration) {
        self.shared.latency.observe(took);
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// Ends when an assignment is known: from then on keys are refused or served for a reason.
    ///
    /// # Errors
    /// `Unavailable` after `deadline`, or when the Slicelet was closed.
    pub async fn ready(&self, deadline: Duration) -> Result<(), Error> {
        self.wait_for(deadline, "no assignment became known", |status| {
            status.mode.is_some()
        })
        .await
    }

    /// Ends when at least one slice is owned.
    ///
    /// # Errors
    /// As [`Slicelet::ready`].
    pub async fn wait_until_owns_any(&self, deadline: Duration) -> Result<(), Error> {
        self.wait_for(deadline, "no slice was given", |status| status.owned > 0)
            .await
    }

    async fn wait_for(
        &self,
        deadline: Duration,
        missing: &str,
        found: impl Fn(&Status) -> bool,
    ) -> Result<(), Error> {
        let mut status = self.shared.status.subscribe();
        let waited = tokio::time::timeout(
            deadline,
            status.wait_for(|status| status.shut || found(status)),
        )
        .await;
        match waited {
            Ok(Ok(status)) if found(&status) => Ok(()),
            Ok(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "the Slicelet was closed",
            )),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{missing} within {deadline:?}"),
            )),
        }
    }

    /// Has every slice moved elsewhere, without a failed request, and ends when none is left. Goes
    /// on serving meanwhile. [`Slicelet::close`] should follow.
    ///
    /// # Errors
    /// `Unavailable` when the Assigner could not be asked, or slices are left after `deadline` (as
    /// when there is no other Slicelet to take them). The Slicelet serves on; closing it then
    /// loses what these slices hold in memory.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Error> {
        let until = Instant::now() + deadline;
        let (reply, answer) = oneshot::channel();
        let gone = || Error::new(ErrorKind::Unavailable, "the Slicelet was closed");
        self.requests
            .send(Request::Drain { until, reply })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())??;
        let left = until.saturating_duration_since(Instant::now());
        self.wait_for(left, "slices are left that nobody took over", |status| {
            status.local == 0 && status.kept == 0
        })
        .await
    }

    /// Serves nothing any more, then tells the Assigner, which gives the slices away at once. Ends
    /// when the last callback has returned.
    ///
    /// # Errors
    /// `Unavailable` when the Assigner could not be told: its lease will expire. Nothing is served
    /// here in any case.
    pub async fn close(mut self) -> Result<(), Error> {
        self.stop();
        match self.driver.take() {
            Some(driver) => driver
                .await
                .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?,
            None => Ok(()),
        }
    }

    fn stop(&self) {
        self.shared.stop();
        self.stop.send_replace(true);
    }
}

impl Drop for Slicelet {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Slicelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Slicelet({} of {}, {:?})",
            self.squid,
            self.target,
            self.session()
        )
    }
}

/// One of the places in which a request may wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let place = Place(waiting);
        // Given back at once, by dropping it, when there were too many before.
        (waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
