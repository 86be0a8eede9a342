//! Peers: who is dialled, on which connection, and what both sides check.

pub(crate) mod client;
#[cfg(test)]
mod hostile;
pub(crate) mod pool;
pub(crate) mod server;

use std::fmt;
use std::io;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::NodeId;

/// A byte stream to a peer.
pub trait PeerIo: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> PeerIo for T {}

/// Opens connections to peers. The production one is [`TcpDialer`]; tests and simulations bring
/// their own network.
pub trait Dialer: fmt::Debug + Send + Sync + 'static {
    /// Connect to `address`, where node `to` is said to be. A connection that cannot be made must
    /// fail within a bounded time.
    fn dial(&self, to: NodeId, address: &str) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>>;
}

/// Dials over TCP, without delay for small messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial(&self, _: NodeId, address: &str) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn PeerIo>)
        })
    }
}
