//! A call to whoever serves a key, redirects followed within it.

use std::future::Future;
use std::time::Duration;

use leasehold_proto::wire::{Redirect, UnavailableReason};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Clerk, PodRoute};
use crate::error::{Error, ErrorKind};

/// Redirects that one call follows.
const MOST_HOPS: u32 = 32;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long a map may lag behind a pod before another Assigner is watched.
const LAG: Duration = Duration::from_millis(500);

/// What an answer means for the call.
pub(crate) enum Verdict {
    /// Go to where the map now leads; nothing was done.
    Again,
    /// The map must become newer first; nothing was done.
    Newer(Option<leasehold_proto::Generation>),
    /// The pod may serve later; nothing was done.
    Later,
    /// The call is over.
    Over(Error),
}

impl Clerk {
    /// Calls whoever serves `key`, through a kept connection, and follows redirects: `call` may be
    /// made several times, but only after answers that say that nothing was done.
    ///
    /// # Errors
    /// `Indeterminate` when the request may have been executed: it is not repeated. `NotOwner` or
    /// `Unavailable` when no pod was found to serve the key within the builder's deadline: nothing
    /// was done. Else the application's own answer, in [`Error::status`].
    pub async fn call<T, F, Fut>(&self, key: &[u8], call: F) -> Result<T, Error>
    where
        F: Fn(Channel, PodRoute) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        // The hash is known with the first map.
        let until = Instant::now() + self.inner.call_deadline;
        self.ready(self.inner.call_deadline).await?;
        let key = self.slice_key(key);
        let mut journey = Journey::new(until);
        loop {
            let serial = self.inner.published.load().serial;
            let Some(route) = self.route_slice_key(key) else {
                journey.last = Error::new(ErrorKind::NotOwner, format!("nobody serves {key}"));
                self.pause(&mut journey, serial, Verdict::Newer(None))
                    .await?;
                continue;
            };
            let channel = match self.inner.pool.get(route.address.as_str()).await {
                Ok(channel) => channel,
                Err(error) => {
                    self.report_failure(route.session);
                    journey.last = error;
                    self.pause(&mut journey, serial, Verdict::Later).await?;
                    continue;
                }
            };
            let session = route.session;
            let status = match call(channel, route).await {
                Ok(reply) => return Ok(reply),
                Err(status) => status,
            };
            let mut verdict = self.judge(&status);
            if matches!(verdict, Verdict::Later | Verdict::Over(_)) {
                self.report_failure(session);
            }
            // The map may have learnt by itself while the request was under way.
            let elsewhere = || {
                self.route_slice_key(key)
                    .is_some_and(|route| route.session != session)
            };
            if matches!(verdict, Verdict::Later | Verdict::Newer(_)) && elsewhere() {
                verdict = Verdict::Again;
            }
            journey.last =
                Error::with_status(ErrorKind::Unavailable, "the key is not served", status);
            self.pause(&mut journey, serial, verdict).await?;
        }
    }

    /// What a status means, and learns from it.
    pub(crate) fn judge(&self, status: &Status) -> Verdict {
        match Redirect::from_status(status) {
            Some(Ok(Redirect::Unavailable(UnavailableReason::Interrupted))) => Verdict::Over(
                Error::with_status(ErrorKind::Indeterminate, "interrupted", status.clone()),
            ),
            Some(Ok(redirect @ Redirect::Moved(_))) if self.learn(&redirect) => Verdict::Again,
            Some(Ok(Redirect::NotOwner { generation })) if generation > self.generation() => {
                Verdict::Newer(generation)
            }
            // The pod knows less than the map, and will learn.
            Some(Ok(_)) => Verdict::Later,
            Some(Err(error)) => Verdict::Over(Error::new(ErrorKind::Internal, error.to_string())),
            None if was_not_executed(status) => Verdict::Later,
            None => {
                let kind = match status.code() {
                    Code::Unavailable
                    | Code::Unknown
                    | Code::Cancelled
                    | Code::DeadlineExceeded => ErrorKind::Indeterminate,
                    Code::Internal | Code::DataLoss => ErrorKind::Internal,
                    Code::ResourceExhausted => ErrorKind::Unavailable,
                    _ => ErrorKind::Invalid,
                };
                Verdict::Over(Error::with_status(kind, "the pod answered", status.clone()))
            }
        }
    }

    /// Waits as `verdict` says; an error when the call is over or out of time.
    pub(crate) async fn pause(
        &self,
        journey: &mut Journey,
        serial: u64,
        verdict: Verdict,
    ) -> Result<(), Error> {
        journey.hops += 1;
        let left = journey.until.saturating_duration_since(Instant::now());
        let give_up = left.is_zero()
            || journey.hops > MOST_HOPS && !matches!(verdict, Verdict::Later | Verdict::Newer(_));
        match verdict {
            Verdict::Over(error) => return Err(error),
            _ if give_up => return Err(journey.last.clone()),
            Verdict::Again => {}
            Verdict::Newer(generation) => {
                let newer = self.inner.newer(serial, generation);
                if timeout(left.min(LAG), newer).await.is_err() && generation.is_some() {
                    self.inner.lagging.notify_waiters();
                }
            }
            // Whatever comes first: a newer map, or the next try.
            Verdict::Later => {
                let pause = journey.pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                journey.pause = (journey.pause * 2).min(LONGEST_PAUSE);
                let _ = timeout(left.min(pause), self.inner.newer(serial, None)).await;
            }
        }
        Ok(())
    }
}

/// Whether the request was certainly not executed: it was never sent, or the server said that it
/// did not take it on.
fn was_not_executed(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let never_sent = error.is::<tonic::ConnectError>()
            || error
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_canceled);
        // Of the streams that a GOAWAY leaves open, none ends with an error of it.
        let not_taken = error.downcast_ref::<h2::Error>().is_some_and(|error| {
            error.is_remote()
                && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
        });
        if never_sent || not_taken {
            return true;
        }
        cause = error.source();
    }
    false
}

/// How far a call has come.
pub(crate) struct Journey {
    until: Instant,
    hops: u32,
    pause: Duration,
    last: Error,
}

impl Journey {
    pub(crate) fn new(until: Instant) -> Self {
        let last = Error::new(ErrorKind::Unavailable, "the call had no time");
        Self {
            until,
            hops: 0,
            pause: FIRST_PAUSE,
            last,
        }
    }
}
