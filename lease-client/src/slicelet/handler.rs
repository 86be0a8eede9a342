//! What an application is told about its slices, and when.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use leasehold_proto::{Epoch, FencingToken, Slice};
use tokio::sync::watch;

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
}

impl<H: SliceHandler> Handler for H {
    fn call<'a>(&'a self, step: Step, slice: &'a SliceInfo) -> BoxFuture<'a, ()> {
        match step {
            Step::Prepare => Box::pin(self.prepare(slice)),
            Step::Acquire => Box::pin(self.acquire(slice)),
            Step::Release => Box::pin(self.release(slice)),
        }
    }
}

/// Runs the calls, each after those before it that concern overlapping slices.
pub(super) struct Callbacks {
    handler: Arc<dyn Handler>,
    running: Vec<(Slice, watch::Receiver<()>)>,
}

impl Callbacks {
    pub(super) fn new(handler: Arc<dyn Handler>) -> Self {
        Self {
            handler,
            running: Vec::new(),
        }
    }

    /// Makes a call on a task of its own; `then` is told whether it returned.
    pub(super) fn call(
        &mut self,
        step: Step,
        slice: SliceInfo,
        then: impl FnOnce(bool) + Send + 'static,
    ) {
        // A closed channel is a call that has returned.
        self.running.retain(|(_, done)| done.has_changed().is_ok());
        let before: Vec<_> = self
            .running
            .iter()
            .filter(|(other, _)| other.overlaps(slice.slice))
            .map(|(_, done)| done.clone())
            .collect();
        let (running, done) = watch::channel(());
        // Warming up may take long and owns nothing: nobody waits for it.
        if step != Step::Prepare {
            self.running.push((slice.slice, done));
        }
        let handler = Arc::clone(&self.handler);
        tokio::spawn(async move {
            for mut other in before {
                while other.changed().await.is_ok() {}
            }
            let call = AssertUnwindSafe(async { handler.call(step, &slice).await }).catch_unwind();
            let returned = call.await.is_ok();
            if !returned {
                tracing::error!(?step, slice = %slice.slice, "a callback of the application panicked");
            }
            drop(running);
            then(returned);
        });
    }

    /// Ends when every call made so far has returned.
    pub(super) fn idle(&self) -> impl Future<Output = ()> + Send + 'static {
        let running: Vec<_> = self.running.iter().map(|(_, done)| done.clone()).collect();
        async move {
            for mut other in running {
                while other.changed().await.is_ok() {}
            }
        }
    }
}
