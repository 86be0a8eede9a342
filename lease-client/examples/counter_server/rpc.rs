//! The gRPC of the example, as `tonic-build` would generate it from
//! `service Counter { rpc Increment(Increment) returns (Count); }`.

#![allow(
    dead_code,
    missing_docs,
    reason = "stands for generated code; not every user needs both sides"
)]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Bytes, StdError, http};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const INCREMENT: &str = "/demo.Counter/Increment";

#[derive(Clone, PartialEq, prost::Message)]
pub struct Increment {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Count {
    #[prost(uint64, tag = "1")]
    pub value: u64,
    #[prost(uint64, tag = "2")]
    pub token: u64,
}

#[tonic::async_trait]
pub trait Counter: Send + Sync + 'static {
    async fn increment(&self, request: Request<Increment>) -> Result<Response<Count>, Status>;
}

#[derive(Debug)]
pub struct CounterServer<T>(Arc<T>);

impl<T> CounterServer<T> {
    pub fn new(inner: T) -> Self {
        Self(Arc::new(inner))
    }
}

impl<T> Clone for CounterServer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> tonic::server::NamedService for CounterServer<T> {
    const NAME: &'static str = "demo.Counter";
}

struct IncrementMethod<T>(Arc<T>);

impl<T: Counter> tonic::server::UnaryService<Increment> for IncrementMethod<T> {
    type Response = Count;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Count>, Status>> + Send>>;

    fn call(&mut self, request: Request<Increment>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.increment(request).await })
    }
}

impl<T: Counter> tower::Service<http::Request<Body>> for CounterServer<T> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            if request.uri().path() != INCREMENT {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(IncrementMethod(inner), request).await)
        })
    }
}

#[derive(Clone, Debug)]
pub struct CounterClient<C>(tonic::client::Grpc<C>);

impl<C> CounterClient<C>
where
    C: tonic::client::GrpcService<Body>,
    C::Error: Into<StdError>,
    C::ResponseBody: tonic::transport::Body<Data = Bytes> + Send + 'static,
    <C::ResponseBody as tonic::transport::Body>::Error: Into<StdError> + Send,
{
    pub fn new(channel: C) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    pub async fn increment(
        &mut self,
        request: Request<Increment>,
    ) -> Result<Response<Count>, Status> {
        self.0
            .ready()
            .await
            .map_err(|error| Status::unknown(error.into().to_string()))?;
        let path = http::uri::PathAndQuery::from_static(INCREMENT);
        self.0
            .unary(request, path, ProstCodec::<Increment, Count>::default())
            .await
    }
}
