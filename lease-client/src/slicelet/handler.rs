//! What an application is told about its slices, and when.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use leasehold_proto::{Epoch, FencingToken, Slice};

use super::order::{Order, Turn};
use super::transfer::State;

/// A slice of this Slicelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceInfo {
    /// The slice.
    pub slice: Slice,
    /// The epoch at which it is, will be or was owned.
    pub epoch: Epoch,
    /// The epoch as a number for an external store.
    pub token: FencingToken,
    /// Why this is told.
    pub cause: Cause,
    /// Whether the slice's state is there; said with [`SliceHandler::acquire`].
    pub arrival: Arrival,
}

/// Whether a slice has come with its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// All of it, up to the last write that its former owner acknowledged.
    Warm,
    /// It begins empty.
    Cold,
    /// It begins empty, and the state that its former owner has is merged into it while it is
    /// served: eventual mode.
    Merging,
}

/// Why a slice came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It was vacant and is given to this Slicelet.
    Granted,
    /// Another Slicelet hands it over.
    HandedOver,
    /// It was handed over to another Slicelet.
    Surrendered,
    /// The session ended, or the target let it go without a handoff.
    Lost,
    /// This Slicelet was shut down.
    Shutdown,
}

/// An application's part in the coming and going of slices. Every method does nothing by default.
///
/// Calls that concern overlapping slices are made one after another; others run side by side. A
/// panic is contained and logged. Splits and merges of slices that stay here are not told.
pub trait SliceHandler: Send + Sync + 'static {
    /// The slice will be handed over to this Slicelet; its owner goes on serving until this has
    /// returned, or until the deadline of handoffs has passed. Warm up here. The handoff may yet
    /// be cancelled.
    fn prepare(&self, slice: &SliceInfo) -> impl Future<Output = ()> + Send {
        let _ = slice;
        async {}
    }

    /// The slice is owned. Guards are given only after this has returned: install the fencing
    /// token in the store here, before the first read that is served from it. After a panic none
    /// are given, since the fence may not stand: the slice waits for the operator or a restart.
    fn acquire(&self, slice: &SliceInfo) -> impl Future<Output = ()> + Send {
        let _ = slice;
        async {}
    }

    /// Ownership has ended: no guard is given and none verifies. The slice may be a part of what
    /// was acquired, or several such joined.
    fn release(&self, slice: &SliceInfo) -> impl Future<Output = ()> + Send {
        let _ = slice;
        async {}
    }
}

/// A [`SliceHandler`] that can stand behind a pointer.
pub(super) trait Handler: Send + Sync {
    fn call<'a>(&'a self, step: Step, slice: &'a SliceInfo) -> BoxFuture<'a, ()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Prepare,
    Acquire,
    Release,
    /// As `Release`, but the state is kept for the slice's new owner.
    ReleaseKept,
}

impl<H: SliceHandler> Handler for H {
    fn call<'a>(&'a self, step: Step, slice: &'a SliceInfo) -> BoxFuture<'a, ()> {
        match step {
            Step::Prepare => Box::pin(self.prepare(slice)),
            Step::Acquire => Box::pin(self.acquire(slice)),
            Step::Release | Step::ReleaseKept => Box::pin(self.release(slice)),
        }
    }
}

/// Runs the calls, each after those before it that concern overlapping slices.
pub(super) struct Callbacks {
    handler: Option<Arc<dyn Handler>>,
    state: Option<Arc<dyn State>>,
    pub(super) order: Order,
}

impl Callbacks {
    pub(super) fn new(handler: Option<Arc<dyn Handler>>, state: Option<Arc<dyn State>>) -> Self {
        Self {
            handler,
            state,
            order: Order::default(),
        }
    }

    /// Whether there is an application that wants to be told.
    pub(super) fn has_handler(&self) -> bool {
        self.handler.is_some()
    }

    /// Makes a call on a task of its own; `then` is told whether it returned. What is left of a
    /// slice that begins cold is forgotten before the call, what there is of one that has gone
    /// after it.
    pub(super) fn call(
        &mut self,
        step: Step,
        slice: SliceInfo,
        then: impl FnOnce(bool) + Send + 'static,
    ) {
        // Warming up may take long and owns nothing: nobody waits for it.
        let (before, turn) = if step == Step::Prepare {
            (self.order.before(slice.slice), None)
        } else {
            let (before, turn) = self.order.turn(slice.slice);
            (before, Some(turn))
        };
        let (handler, state) = (self.handler.clone(), self.state.clone());
        tokio::spawn(async move {
            before.ended().await;
            let mut returned = true;
            if step == Step::Acquire && slice.arrival != Arrival::Warm {
                returned &= forget(&state, slice.slice, &turn).await;
            }
            if let Some(handler) = handler {
                let call = async { handler.call(step, &slice).await };
                let called = AssertUnwindSafe(call).catch_unwind().await;
                if called.is_err() {
                    tracing::error!(?step, slice = %slice.slice, "a callback of the application panicked");
                }
                returned &= called.is_ok();
            }
            if step == Step::Release {
                returned &= forget(&state, slice.slice, &turn).await;
            }
            drop(turn);
            then(returned);
        });
    }

    /// Forgets what there is of a slice that will not be served from it.
    pub(super) fn discard(&mut self, slice: Slice) {
        let (before, turn) = self.order.turn(slice);
        let state = self.state.clone();
        tokio::spawn(async move {
            before.ended().await;
            forget(&state, slice, &Some(turn)).await;
        });
    }

    /// Ends when every call made so far has returned.
    pub(super) fn idle(&mut self) -> impl Future<Output = ()> + Send + 'static {
        self.order.all().ended()
    }
}

/// Whether it returned. The turn is held until then, even if nobody waits for it any more.
async fn forget(state: &Option<Arc<dyn State>>, slice: Slice, turn: &Option<Turn>) -> bool {
    match state {
        Some(state) => super::transfer::discard(state, slice, turn.clone()).await,
        None => true,
    }
}
