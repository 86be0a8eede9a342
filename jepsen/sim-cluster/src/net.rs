//! The simulated network under the real gRPC of the replicas.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use leasehold_raft_store::{Dialer, NodeId, PeerIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

/// Where every node listens.
pub(crate) const PORT: u16 = 7400;

/// How long a connection attempt may take: the simulated network never gives up by itself.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// Numbers from here on are of pods.
pub(crate) const FIRST_POD: u64 = 101;

/// The name of a machine: `n` for a node, `p` for a pod.
pub(crate) fn host(machine: u64) -> String {
    match machine.checked_sub(FIRST_POD) {
        Some(pod) => format!("p{}", pod + 1),
        None => format!("n{machine}"),
    }
}

/// Where a node's peers reach it.
pub(crate) fn address(node: NodeId) -> String {
    format!("{}:{PORT}", host(node))
}

/// Dials over the simulated network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimDialer;

impl Dialer for SimDialer {
    fn dial(&self, _: NodeId, address: &str) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let connecting = TcpStream::connect(address);
            match tokio::time::timeout(CONNECT_PATIENCE, connecting).await {
                Ok(stream) => Ok(Box::new(stream?) as Box<dyn PeerIo>),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

/// An accepted connection.
pub(crate) struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The connections that arrive at a listener.
pub(crate) fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Accepted>> {
    futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, _)| Accepted(stream)), listener))
    })
}
