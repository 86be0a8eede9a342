//! The client's side: a channel that leads to whoever serves the request's key.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use leasehold_proto::limits;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use super::{key_of, no_key};
use crate::clerk::Clerk;
use crate::error::{Error, ErrorKind};

/// A channel for generated gRPC clients: sends each request to the pod that serves the key in
/// [`super::KEY_HEADER`], and follows redirects. Requests are buffered, up to 4 MiB, so that they
/// can be sent again; only one that certainly was not executed is.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use leasehold_client::{Clerk, layer::RoutedChannel};
/// let clerk = Clerk::builder("counter").endpoints(["127.0.0.1:7400"]).connect_lazy()?;
/// let channel = RoutedChannel::new(clerk);
/// // let mut client = CounterClient::new(channel);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RoutedChannel {
    clerk: Clerk,
}

impl RoutedChannel {
    /// A channel that is routed by `clerk`.
    pub fn new(clerk: Clerk) -> Self {
        Self { clerk }
    }
}

impl Service<Request<Body>> for RoutedChannel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let clerk = self.clerk.clone();
        Box::pin(async move {
            Ok(route(clerk, request)
                .await
                .unwrap_or_else(Status::into_http))
        })
    }
}

async fn route(clerk: Clerk, request: Request<Body>) -> Result<Response<Body>, Status> {
    let key = key_of(request.headers()).ok_or_else(no_key)?;
    let (head, body) = request.into_parts();
    let too_large =
        |error| Status::out_of_range(format!("the request cannot be buffered: {error}"));
    let body: Bytes = Limited::new(body, limits::MESSAGE_BYTES)
        .collect()
        .await
        .map_err(too_large)?
        .to_bytes();
    let attempt = |channel: tonic::transport::Channel, _| {
        let mut request = Request::new(Body::new(Full::new(body.clone())));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers.clone();
        *request.extensions_mut() = head.extensions.clone();
        async move {
            let sent = channel.oneshot(request).await;
            let reply = sent.map_err(|error| Status::from_error(error.into()))?;
            // A pod that does not serve the key says so before anything else.
            match Status::from_header_map(reply.headers()) {
                Some(status) if status.code() != Code::Ok => Err(status),
                _ => Ok(reply),
            }
        }
    };
    clerk.call(&key, attempt).await.map_err(status_of)
}

/// An application's own status as it was; else one that says what the caller must do.
fn status_of(error: Error) -> Status {
    match (error.status(), error.kind()) {
        // Nothing was done, and where the key is was not found out in time.
        (_, ErrorKind::Unavailable | ErrorKind::NotOwner) => Status::unavailable(error.to_string()),
        (Some(status), _) => status.clone(),
        (None, ErrorKind::Invalid) => Status::invalid_argument(error.to_string()),
        (None, ErrorKind::Indeterminate) => Status::unknown(error.to_string()),
        (None, ErrorKind::Internal) => Status::internal(error.to_string()),
        (None, _) => Status::unavailable(error.to_string()),
    }
}
