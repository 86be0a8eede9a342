//! The server's side: a request is served only under a guard.

use std::convert::Infallible;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::server::NamedService;
use tower::{Layer, Service};

use super::{key_of, no_key};
use crate::slicelet::{Guard, Slicelet};

/// The guard under which a request is served; a handler finds it with
/// `request.extensions().get::<HeldGuard>()`.
#[derive(Clone, Debug)]
pub struct HeldGuard(Arc<Guard>);

impl Deref for HeldGuard {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        &self.0
    }
}

type KeyOf = Arc<dyn Fn(&HeaderMap) -> Option<Bytes> + Send + Sync>;

/// Serves a request only while this process owns its key: takes a guard before the inner service
/// is called, waiting while the slice is handed over, and lets the reply go only if the guard
/// verifies then. Of a reply that is a stream only the beginning is protected; its messages need
/// a `verify` of their own.
///
/// Requests that are not served are answered with a redirect, which a
/// [`RoutedChannel`](super::RoutedChannel) or [`Clerk::call`](crate::Clerk::call) follows.
#[derive(Clone)]
pub struct OwnershipLayer {
    slicelet: Arc<Slicelet>,
    key_of: KeyOf,
}

impl OwnershipLayer {
    /// Takes the key from [`super::KEY_HEADER`].
    pub fn new(slicelet: Arc<Slicelet>) -> Self {
        Self {
            slicelet,
            key_of: Arc::new(key_of),
        }
    }

    /// Takes the key from elsewhere in the headers. A request without one is refused.
    #[must_use]
    pub fn with_key(
        mut self,
        key_of: impl Fn(&HeaderMap) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.key_of = Arc::new(key_of);
        self
    }
}

impl<S> Layer<S> for OwnershipLayer {
    type Service = OwnershipService<S>;

    fn layer(&self, inner: S) -> OwnershipService<S> {
        OwnershipService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind an [`OwnershipLayer`].
#[derive(Clone)]
pub struct OwnershipService<S> {
    inner: S,
    layer: OwnershipLayer,
}

impl<S: NamedService> NamedService for OwnershipService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for OwnershipService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default + Send,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The clone takes the place of the service that was polled ready.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let layer = self.layer.clone();
        Box::pin(async move {
            let Some(key) = (layer.key_of)(request.headers()) else {
                return Ok(no_key().into_http());
            };
            let guard = match layer.slicelet.guard_or_wait(&key).await {
                Ok(guard) => HeldGuard(Arc::new(guard)),
                Err(error) => return Ok(Status::from(error).into_http()),
            };
            request.extensions_mut().insert(guard.clone());
            let begun = Instant::now();
            let reply = inner.call(request).await?;
            layer.slicelet.observe(begun.elapsed());
            match guard.verify() {
                Ok(()) => Ok(reply),
                Err(lost) => Ok(Status::from(lost).into_http()),
            }
        })
    }
}
