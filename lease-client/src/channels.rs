//! Connections to Assigners, Slicelets and pods: one per address, kept, with deadlines.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};

use crate::error::{Error, ErrorKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that answers no ping for this long is gone; well inside a usual ttl.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// h2 counts small frames that wait against the window: a large one lets many wait.
const WINDOW_BYTES: u32 = 16 << 20;
/// Of bulk data much travels in one h2 frame.
const BULK_FRAME_BYTES: u32 = 1 << 20;
/// Addresses with a kept connection.
const POOLED: usize = 4_096;

fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let uri = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|error| Error::invalid(format_args!("{address}: {error}")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}

/// A connection of its own for bulk data, so that nothing else waits behind it.
///
/// # Errors
/// As [`ChannelPool::get`].
pub(crate) async fn connect_for_bulk(address: &str) -> Result<Channel, Error> {
    connect(endpoint(address)?.max_frame_size(BULK_FRAME_BYTES), address).await
}

async fn connect(endpoint: Endpoint, address: &str) -> Result<Channel, Error> {
    endpoint.connect().await.map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            format!("connecting to {address}: {}", chain(&error)),
        )
    })
}

/// Checks that `address` can be connected to at all.
pub(crate) fn check_address(address: &str) -> Result<(), Error> {
    endpoint(address).map(|_| ())
}

/// Kept connections by address. Cheap to clone; clones share the connections.
#[derive(Clone, Default)]
pub struct ChannelPool {
    channels: Arc<Mutex<HashMap<String, Arc<OnceCell<Channel>>>>>,
}

impl ChannelPool {
    /// A pool without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// The connection to `address`, made now if there is none. A connection that breaks later is
    /// made anew by its next use.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be made, `Invalid` when the address is none. Nothing was sent.
    pub async fn get(&self, address: &str) -> Result<Channel, Error> {
        let slot = {
            let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            if channels.len() >= POOLED && !channels.contains_key(address) {
                // Any one will do: pools this large are not expected.
                if let Some(old) = channels.keys().next().cloned() {
                    channels.remove(&old);
                }
            }
            Arc::clone(channels.entry(address.to_owned()).or_default())
        };
        let connect = || async { connect(endpoint(address)?, address).await };
        slot.get_or_try_init(connect).await.cloned()
    }

    /// Forgets the connection to `address`; calls under way are not disturbed.
    pub fn forget(&self, address: &str) {
        self.channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(address);
    }
}

/// An error with its causes; a transport's own text says only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
