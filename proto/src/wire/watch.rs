//! Clerks: a watch on a target's assignment.

use bytes::Bytes;

use super::codec::{Codec, Enum, Maybe, Name, Text, message};
use super::pb;
use super::session::Update;
use crate::id::Generation;
use crate::key::KeyHash;
use crate::limits;
use crate::target::TargetName;
use crate::view::ViewUpdate;

/// Which target to watch, from where on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchRequest {
    /// The target.
    pub target: TargetName,
    /// The newest view known; `None` for a full one.
    pub known: Option<Generation>,
    /// Who watches, for the operator.
    pub client_name: String,
}

/// A newer view, or a sign of life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchReply {
    /// The view; `None` for a sign of life.
    pub update: Option<ViewUpdate>,
    /// How keys become slice keys.
    pub key_hash: KeyHash,
}

message!(WatchRequest = WatchRequest { target: Name, known: Maybe, client_name: Text<{ limits::CLIENT_NAME_BYTES }> });
message!(
    WatchReply = WatchReply {
        update: Update,
        key_hash: Enum
    }
);

/// A reply whose update was serialised before, or is empty for a sign of life; ready to be sent.
pub fn watch_message(update: Bytes, key_hash: KeyHash) -> pb::WatchReply {
    pb::WatchReply {
        update,
        key_hash: Enum::put(&key_hash),
    }
}
