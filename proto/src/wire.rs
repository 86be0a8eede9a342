//! The wire format `leasehold.v1`: protobuf messages and stored records, and their conversions to
//! and from the nouns.
//!
//! Encoding cannot fail: `pb::X::from(&noun)`. Decoding can: `Noun::try_from(message)` checks every
//! bound of [`crate::limits`] and gives a [`WireError`] that names the field. A message whose
//! decoding fails has no effect. Memory used while decoding is proportional to the bytes given,
//! never to a length that they claim; the caller bounds the bytes.

pub mod admin;
mod codec;
mod command;
mod error;
pub mod listing;
mod peer;
mod record;
mod rejection;
mod session;
#[cfg(any(feature = "client", feature = "server"))]
pub mod status;
mod target;
mod types;
mod view;
mod watch;

use bytes::Bytes;
use prost::Message;

pub use codec::{bounded_text, handoff_id, pod_address, session_id, target_name};
pub use error::{Problem, WireError};
pub use peer::{PullBegin, PullRequest};
pub use record::{decode_record, decode_record_key, encode_record, encode_record_key};
pub use session::{
    AssignerMessage, CloseRequest, ClosedReason, DrainRequest, Hello, KeyLoad, LoadReport,
    RefusedReason, RegisterReply, RegisterRequest, SliceLoad, SliceletMessage, pushed_message,
    renewed_message,
};
pub use types::{Redirect, UnavailableReason};
pub use watch::{WatchReply, WatchRequest, watch_message};

use crate::command::{Command, Reply};
use crate::limits;
use crate::view::ViewUpdate;

/// The messages, and behind features `client` and `server` the stubs, as generated from
/// `proto/leasehold/v1/*.proto`.
#[allow(missing_docs, rustdoc::all, clippy::all, clippy::unwrap_used)]
pub mod pb {
    include!("wire/gen/leasehold.v1.rs");

    impl std::fmt::Debug for SessionSecret {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("SessionSecret(..)")
        }
    }
}

/// A command as the log holds it.
pub fn encode_command(command: &Command) -> Bytes {
    pb::Command::from(command).encode_to_vec().into()
}

/// Reads what [`encode_command`] wrote; at most [`limits::MESSAGE_BYTES`].
pub fn decode_command(bytes: &[u8]) -> Result<Command, WireError> {
    decode::<pb::Command>("Command", bytes, limits::MESSAGE_BYTES)?.try_into()
}

/// A command's answer.
pub fn encode_reply(reply: &Reply) -> Bytes {
    pb::Reply::from(reply).encode_to_vec().into()
}

/// Reads what [`encode_reply`] wrote; at most [`limits::MESSAGE_BYTES`].
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, WireError> {
    decode::<pb::Reply>("Reply", bytes, limits::MESSAGE_BYTES)?.try_into()
}

/// An update serialised once for all who receive it.
pub fn encode_view_update(update: &ViewUpdate) -> Bytes {
    pb::ViewUpdate::from(update).encode_to_vec().into()
}

/// Reads what [`encode_view_update`] wrote; at most [`limits::VIEW_BYTES`].
pub fn decode_view_update(bytes: &[u8]) -> Result<ViewUpdate, WireError> {
    decode::<pb::ViewUpdate>("ViewUpdate", bytes, limits::VIEW_BYTES)?.try_into()
}

/// Reads one message of at most `most` bytes; `name` is what an error calls it.
fn decode<M: Message + Default>(
    name: &'static str,
    bytes: &[u8],
    most: usize,
) -> Result<M, WireError> {
    codec::at_most(name, bytes.len(), most, "bytes")?;
    M::decode(bytes).map_err(|error| WireError::invalid(name, error))
}
