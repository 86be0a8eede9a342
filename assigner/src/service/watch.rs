//! Watches: anyone who wants to know who serves what. Every node serves them from what it has
//! applied.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use leasehold_proto::Generation;
use leasehold_proto::mutant;
use leasehold_proto::wire::pb::watch_server::Watch;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{WatchRequest, pb, watch_message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::feed::{Feed, Step};
use crate::shared::Shared;

/// How often a watcher gets a sign of life when nothing changes.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// See the file.
pub(super) struct WatchService {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

impl WatchService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let places = Arc::new(Semaphore::new(shared.config.limits.watchers));
        Self { shared, places }
    }

    /// ◆ Who has seen a later life of the cluster would take everything from this one for old, for
    /// ever: it must find another Assigner, and its operator must learn of it.
    fn must_not_be_older(&self, known: Option<Generation>) -> Result<(), Refusal> {
        let (mine, known) = (
            self.shared.replica.table().incarnation(),
            known.map(Generation::incarnation),
        );
        match known.filter(|known| *known > mine) {
            None => Ok(()),
            Some(known) => Err(Refusal::Halted(format!(
                "the watcher has seen incarnation {known}; this Assigner serves an older life of the cluster, {mine}"
            ))),
        }
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Watching;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Watching>, Status> {
        let request = WatchRequest::try_from(request.into_inner()).map_err(Refusal::from)?;
        self.must_not_be_older(request.known)?;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Refusal::Overload)?;
        let Some((feed, steps)) = self
            .shared
            .feeds
            .subscribe(&request.target, &self.shared.replica)
        else {
            // Without a leader this node may only not have heard of it yet.
            let known = self.shared.raft.leadership().borrow().leader.is_some();
            let refusal = if known {
                Refusal::UnknownTarget
            } else {
                Refusal::NotLeader { leader: None }
            };
            return Err(refusal.into());
        };
        tracing::debug!(target_name = %request.target, client = request.client_name, "watching");
        // Many who came together must not be told that nothing changed all at one moment.
        let first = SIGN_OF_LIFE.mul_f64(0.2 + 0.8 * rand::random::<f64>());
        let mut signs = tokio::time::interval_at(tokio::time::Instant::now() + first, SIGN_OF_LIFE);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.shared.metrics.watchers.inc();
        let watching = Watching {
            shared: Arc::clone(&self.shared),
            feed,
            steps: WatchStream::new(steps),
            known: request.known,
            begun: false,
            ended: false,
            signs,
            _place: place,
        };
        Ok(Response::new(watching))
    }
}

/// One watcher.
pub(crate) struct Watching {
    shared: Arc<Shared>,
    feed: Arc<Feed>,
    steps: WatchStream<Step>,
    /// What it was sent last.
    known: Option<Generation>,
    /// The first reply was sent, which may be empty.
    begun: bool,
    ended: bool,
    signs: Interval,
    _place: OwnedSemaphorePermit,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.shared.metrics.watchers.dec();
    }
}

impl Watching {
    /// What a step means for this watcher: bytes to send, or nothing.
    fn take(&mut self, step: Step) -> Result<Option<Bytes>, Refusal> {
        let (base, generation, bytes) = match step {
            Step::View {
                base,
                generation,
                bytes,
            } => (base, Some(generation), bytes),
            Step::Gone => return Err(Refusal::UnknownTarget),
            Step::Stopping => {
                return Err(Refusal::NotLeader {
                    leader: self.shared.leader_address(),
                });
            }
        };
        if self.known >= generation && self.known.is_some() {
            return Ok(None);
        }
        if mutant!("watch_skips_on_resume") && !self.begun && self.known.is_some() {
            self.known = generation;
            return Ok(None);
        }
        if !bytes.is_empty() && self.known.is_some() && base <= self.known {
            self.known = generation;
            return Ok(Some(bytes));
        }
        let (generation, bytes) = self
            .feed
            .update(self.known, &self.shared.replica)
            .ok_or(Refusal::UnknownTarget)?;
        self.known = self.known.max(generation);
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    fn reply(&mut self, bytes: Bytes) -> Poll<Option<Result<pb::WatchReply, Status>>> {
        self.begun = true;
        self.signs.reset();
        Poll::Ready(Some(Ok(watch_message(bytes, self.feed.key_hash))))
    }
}

impl Stream for Watching {
    type Item = Result<pb::WatchReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        while let Poll::Ready(step) = Pin::new(&mut this.steps).poll_next(context) {
            match this.take(step.unwrap_or(Step::Gone)) {
                Ok(Some(bytes)) => {
                    this.shared.metrics.watch_updates.inc();
                    return this.reply(bytes);
                }
                Ok(None) if !this.begun => return this.reply(Bytes::new()),
                Ok(None) => {}
                Err(refusal) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(refusal.into())));
                }
            }
        }
        match this.signs.poll_tick(context) {
            Poll::Ready(_) => this.reply(Bytes::new()),
            Poll::Pending => Poll::Pending,
        }
    }
}
