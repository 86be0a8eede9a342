//! The configuration of a target, and changes of it.

use super::codec::{Codec, Deadline, Enum, Maybe, Same, Text, Ttl, message};
use super::error::WireError;
use super::pb;
use crate::limits;
use crate::target::{Hold, TargetChange, TargetConfig};

message!(Hold = Hold { reason: Text<{ limits::TEXT_BYTES }> });
message!(TargetConfig = TargetConfig {
    consistency: Enum, key_hash: Enum, ttl_nanos = ttl: Ttl, on_lapse: Enum,
    handoff_deadline_nanos = handoff_deadline: Deadline, max_open_handoffs: Same, hold: Maybe,
    description: Text<{ limits::TEXT_BYTES }>,
}; check_config);
message!(TargetChange = TargetChange {
    consistency: Enum, ttl_nanos = ttl: Ttl, on_lapse: Enum, handoff_deadline_nanos = handoff_deadline: Deadline,
    max_open_handoffs: Same, hold: Maybe, description: Text<{ limits::TEXT_BYTES }>,
}; check_change);

fn check_config(config: &TargetConfig) -> Result<(), WireError> {
    config
        .check()
        .map_err(|error| WireError::invalid("TargetConfig", error))
}

fn check_change(change: &TargetChange) -> Result<(), WireError> {
    let changed = change.onto(&TargetConfig::default());
    changed
        .check()
        .map_err(|error| WireError::invalid("TargetChange", error))
}

impl From<&Option<Hold>> for pb::HoldChange {
    fn from(noun: &Option<Hold>) -> Self {
        Self {
            hold: Maybe::put(noun),
        }
    }
}

impl TryFrom<pb::HoldChange> for Option<Hold> {
    type Error = WireError;

    fn try_from(wire: pb::HoldChange) -> Result<Self, WireError> {
        Maybe::take("HoldChange.hold", wire.hold)
    }
}
