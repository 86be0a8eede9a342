//! How a [`StateMap`](super::StateMap) writes down one key.
//!
//! | Bytes | What |
//! | --- | --- |
//! | 8 | slice key, little-endian |
//! | 4 | length of the key, little-endian, at most [`limits::KEY_BYTES`] |
//! | 4 | length of the value, little-endian; `0xffff_ffff` says that the key is gone |
//! | | the key, as the application writes it |
//! | | the value, by [`StateValue::encode`] |
//!
//! A record is at most [`limits::STATE_FRAME_BYTES`] long.

use std::borrow::Cow;

use leasehold_proto::{Slice, SliceKey, limits};

use super::tree::Position;
use super::value::StateValue;
use crate::state::BadRecords;

const HEADER: usize = 16;
const GONE: u32 = u32::MAX;

/// One key, as it was at the other end.
pub(super) struct Record<'a, V> {
    pub(super) position: Position<'a>,
    /// `None`: the key is gone.
    pub(super) value: Option<V>,
}

/// About how long the record of this key is.
pub(super) fn size_bytes<V: StateValue>(key: &[u8], value: Option<&V>) -> u64 {
    (HEADER + key.len() + value.map_or(0, V::size_bytes)) as u64
}

/// Appends a record. One of a key or value that is too long for its limit is refused by whoever
/// reads it.
pub(super) fn write<V: StateValue>(at: SliceKey, key: &[u8], value: Option<&V>, out: &mut Vec<u8>) {
    // A length that does not fit is beyond its limit in any case.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(GONE).min(GONE - 1);
    out.extend_from_slice(&at.as_u64().to_le_bytes());
    out.extend_from_slice(&length(key.len()).to_le_bytes());
    let length_at = out.len();
    out.extend_from_slice(&GONE.to_le_bytes());
    out.extend_from_slice(key);
    let Some(value) = value else { return };
    let value_at = out.len();
    value.encode(out);
    let bytes = length(out.len() - value_at).to_le_bytes();
    out[length_at..length_at + bytes.len()].copy_from_slice(&bytes);
}

/// Takes the next record, of a key in `slice`, off `records`.
pub(super) fn read<'a, V: StateValue>(
    slice: Slice,
    records: &mut &'a [u8],
) -> Result<Record<'a, V>, BadRecords> {
    let cut_short = || BadRecords("the last record is cut short".to_owned());
    let at = SliceKey::from_u64(u64::from_le_bytes(*take(records).ok_or_else(cut_short)?));
    let key_bytes = u32::from_le_bytes(*take(records).ok_or_else(cut_short)?);
    let value_bytes = u32::from_le_bytes(*take(records).ok_or_else(cut_short)?);
    let (key_bytes, gone) = (key_bytes as usize, value_bytes == GONE);
    let value_bytes = if gone { 0 } else { value_bytes as usize };
    if !slice.contains(at) {
        return Err(BadRecords(format!("{at} is not in {slice}")));
    }
    if key_bytes > limits::KEY_BYTES {
        return Err(BadRecords(format!(
            "a key of {key_bytes} bytes; at most {} may move",
            limits::KEY_BYTES
        )));
    }
    if HEADER + key_bytes + value_bytes > limits::STATE_FRAME_BYTES {
        return Err(BadRecords(format!(
            "a value of {value_bytes} bytes; a record of at most {} may move",
            limits::STATE_FRAME_BYTES
        )));
    }
    let (key, rest) = records.split_at_checked(key_bytes).ok_or_else(cut_short)?;
    let (value, rest) = rest.split_at_checked(value_bytes).ok_or_else(cut_short)?;
    *records = rest;
    let unreadable = || BadRecords(format!("the value of a key at {at} does not decode"));
    let value = (!gone).then(|| V::decode(value).ok_or_else(unreadable));
    Ok(Record {
        position: Position {
            at,
            key: Cow::Borrowed(key),
        },
        value: value.transpose()?,
    })
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}
