//! Stored records and the keys under which they are stored.
//!
//! A record is a `Record` message. Its key sorts a table's records by kind, target and place:
//!
//! | Record  | Key |
//! | ------- | --- |
//! | table   | `M` |
//! | target  | `T` name |
//! | slice   | `S` name, byte 0, first key as 8 bytes big-endian |
//! | session | `Z` name, byte 0, id as 8 bytes big-endian |

use prost::Message;

use super::codec::{Enum, Id, Life, Maybe, Name, Nanos, Needed, Same, Text, Ttl, message};
use super::error::WireError;
use super::{decode, pb, session_id, target_name};
use crate::key::SliceKey;
use crate::limits;
use crate::table::{MetaRecord, Record, RecordKey, SessionRecord, SliceRecord, TargetRecord};
use crate::target::TargetName;

message!(MetaRecord = MetaRecord {
    incarnation: Life, next_session: Same, next_handoff: Same, restore_wait_nanos = restore_wait: Nanos,
});
message!(
    TargetRecord = TargetRecord {
        name: Name,
        config: Needed,
        config_version: Same,
        mode: Needed,
        generation: Needed,
        deleted: Same,
        ghosts_uncounted: Same,
    }
);
message!(
    SliceRecord = SliceRecord {
        target: Name,
        slice: Needed,
        assigned: Needed,
        changed_at: Needed
    }
);
message!(SessionRecord = SessionRecord {
    target: Name, id: Id, squid: Needed, clock: Enum, ttl_nanos = ttl: Ttl, secret: Needed,
    app_version: Text<{ limits::APP_VERSION_BYTES }>, phase: Enum, draining: Same, acked_arming: Maybe,
});

impl From<&Record> for pb::Record {
    fn from(noun: &Record) -> Self {
        use pb::record::Record as Wire;
        let record = match noun {
            Record::Meta(record) => Wire::Meta(record.into()),
            Record::Target(record) => Wire::Target(record.into()),
            Record::Slice(record) => Wire::Slice(record.into()),
            Record::Session(record) => Wire::Session(record.into()),
        };
        Self {
            record: Some(record),
        }
    }
}

impl TryFrom<pb::Record> for Record {
    type Error = WireError;

    fn try_from(wire: pb::Record) -> Result<Self, WireError> {
        use pb::record::Record as Wire;
        Ok(
            match wire.record.ok_or(WireError::missing("Record.record"))? {
                Wire::Meta(record) => Record::Meta(record.try_into()?),
                Wire::Target(record) => Record::Target(record.try_into()?),
                Wire::Slice(record) => Record::Slice(record.try_into()?),
                Wire::Session(record) => Record::Session(record.try_into()?),
            },
        )
    }
}

/// A record as it is stored.
pub fn encode_record(record: &Record) -> Vec<u8> {
    pb::Record::from(record).encode_to_vec()
}

/// Reads what [`encode_record`] wrote; at most [`limits::MESSAGE_BYTES`].
pub fn decode_record(bytes: &[u8]) -> Result<Record, WireError> {
    decode::<pb::Record>("Record", bytes, limits::MESSAGE_BYTES)?.try_into()
}

/// The key under which a record is stored.
pub fn encode_record_key(key: &RecordKey) -> Vec<u8> {
    let part = |letter: u8, target: &TargetName, place: u64| {
        [
            &[letter],
            target.as_str().as_bytes(),
            &[0],
            &place.to_be_bytes(),
        ]
        .concat()
    };
    match key {
        RecordKey::Meta => b"M".to_vec(),
        RecordKey::Target(target) => [b"T", target.as_str().as_bytes()].concat(),
        RecordKey::Slice(target, first) => part(b'S', target, first.as_u64()),
        RecordKey::Session(target, session) => part(b'Z', target, session.as_u64()),
    }
}

/// Reads what [`encode_record_key`] wrote.
pub fn decode_record_key(bytes: &[u8]) -> Result<RecordKey, WireError> {
    const FIELD: &str = "RecordKey";
    let name = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => target_name(FIELD, text),
        Err(error) => Err(WireError::invalid(FIELD, error)),
    };
    let part = |rest: &[u8]| -> Result<(TargetName, u64), WireError> {
        let (head, place) = rest
            .split_last_chunk::<8>()
            .ok_or(WireError::invalid(FIELD, "it is too short"))?;
        let target = head
            .strip_suffix(&[0])
            .ok_or(WireError::invalid(FIELD, "nothing ends the name"))?;
        Ok((name(target)?, u64::from_be_bytes(*place)))
    };
    match bytes {
        [b'M'] => Ok(RecordKey::Meta),
        [b'T', target @ ..] => Ok(RecordKey::Target(name(target)?)),
        [b'S', rest @ ..] => {
            part(rest).map(|(target, first)| RecordKey::Slice(target, SliceKey::from_u64(first)))
        }
        [b'Z', rest @ ..] => {
            let (target, session) = part(rest)?;
            Ok(RecordKey::Session(target, session_id(FIELD, session)?))
        }
        _ => Err(WireError::invalid(FIELD, "no record has such a key")),
    }
}
