//! Ownership and routing as tower layers, for gRPC services of a few lines.
//!
//! The request's key travels in the metadata [`KEY_HEADER`]; [`set_key`] puts it there.

mod client;
mod server;

pub use client::RoutedChannel;
pub use server::{HeldGuard, OwnershipLayer, OwnershipService};

use bytes::Bytes;
use http::HeaderMap;
use tonic::metadata::{MetadataMap, MetadataValue};

/// The metadata that carries a request's application key, any bytes.
pub const KEY_HEADER: &str = "leasehold-key-bin";

/// Names the key that a request is about.
pub fn set_key<T>(request: &mut tonic::Request<T>, key: &[u8]) {
    request
        .metadata_mut()
        .insert_bin(KEY_HEADER, MetadataValue::from_bytes(key));
}

/// The key that a request's headers name; `None` when there is none, or one that cannot be read.
fn key_of(headers: &HeaderMap) -> Option<Bytes> {
    let mut only = HeaderMap::with_capacity(1);
    only.insert(KEY_HEADER, headers.get(KEY_HEADER)?.clone());
    MetadataMap::from_headers(only)
        .get_bin(KEY_HEADER)?
        .to_bytes()
        .ok()
}

/// What a layer answers to a request without a key.
fn no_key() -> tonic::Status {
    tonic::Status::invalid_argument(format!("the request names no key in {KEY_HEADER}"))
}
