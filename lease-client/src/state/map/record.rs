//! How a [`StateMap`](super::StateMap) writes down one key.
//!
//! | Bytes | What |
//! | --- | --- |
//! | 8 | slice key, little-endian |
//! | 4 | length of the key, little-endian, at most [`limits::KEY_BYTES`] |
//! | 4 | length of the value, little-endian; `0xffff_ffff` says that the key is gone, `0xffff_fffe` that it begins a range |
//! | | the key, as the application writes it |
//! | | the value, by [`StateValue::encode`] |
//!
//! A record is at most [`limits::STATE_FRAME_BYTES`] long. One that begins a range says that all
//! keys of it are gone, but for those whose records follow. Behind it stands where the range ends:
//!
//! | Bytes | What |
//! | --- | --- |
//! | 8 | slice key, little-endian |
//! | 4 | length of the key, little-endian; `0xffff_ffff` says that the range ends with the slice |
//! | | the key, the first one that is not in the range |

use std::borrow::Cow;

use leasehold_proto::{Slice, SliceKey, limits};

use super::tree::Position;
use super::value::StateValue;
use crate::state::BadRecords;

const HEADER: usize = 16;
const GONE: u32 = u32::MAX;
const CLEARED: u32 = u32::MAX - 1;

/// What was at the other end.
pub(super) enum Record<'a, V> {
    Key {
        position: Position<'a>,
        /// `None`: the key is gone.
        value: Option<V>,
    },
    /// Nothing, from the first position up to, not including, the end; `None` is the slice's.
    Cleared {
        first: Position<'a>,
        end: Option<Position<'a>>,
    },
}

/// About how long the record of this key is.
pub(super) fn size_bytes<V: StateValue>(key: &[u8], value: Option<&V>) -> u64 {
    (HEADER + key.len() + value.map_or(0, V::size_bytes)) as u64
}

/// Appends a record. One of a key or value that is too long for its limit is refused by whoever
/// reads it.
pub(super) fn write<V: StateValue>(at: SliceKey, key: &[u8], value: Option<&V>, out: &mut Vec<u8>) {
    // A length that does not fit is beyond its limit in any case.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(GONE).min(CLEARED - 1);
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

/// Appends a record that begins a range.
pub(super) fn write_cleared(first: &Position<'_>, end: Option<&Position<'_>>, out: &mut Vec<u8>) {
    let length = |key: &[u8]| u32::try_from(key.len()).unwrap_or(GONE).to_le_bytes();
    out.extend_from_slice(&first.at.as_u64().to_le_bytes());
    out.extend_from_slice(&length(&first.key));
    out.extend_from_slice(&CLEARED.to_le_bytes());
    out.extend_from_slice(&first.key);
    let at = end.map_or(0, |end| end.at.as_u64());
    out.extend_from_slice(&at.to_le_bytes());
    let Some(end) = end else {
        return out.extend_from_slice(&GONE.to_le_bytes());
    };
    out.extend_from_slice(&length(&end.key));
    out.extend_from_slice(&end.key);
}

/// Takes the next record, of a key or a range in `slice`, off `records`.
pub(super) fn read<'a, V: StateValue>(
    slice: Slice,
    records: &mut &'a [u8],
) -> Result<Record<'a, V>, BadRecords> {
    let at = SliceKey::from_u64(u64::from_le_bytes(*take(records)?));
    let key_bytes = u32::from_le_bytes(*take(records)?);
    let value_bytes = u32::from_le_bytes(*take(records)?);
    if !slice.contains(at) {
        return Err(BadRecords(format!("{at} is not in {slice}")));
    }
    let key = take_key(key_bytes, records)?;
    let position = Position { at, key };
    let value = match value_bytes {
        GONE => None,
        CLEARED => {
            let end = read_end(slice, records)?;
            let first = position;
            return Ok(Record::Cleared { first, end });
        }
        bytes => Some(bytes as usize),
    };
    if HEADER + position.key.len() + value.unwrap_or(0) > limits::STATE_FRAME_BYTES {
        return Err(BadRecords(format!(
            "a value of {value_bytes} bytes; a record of at most {} may move",
            limits::STATE_FRAME_BYTES
        )));
    }
    let unreadable = || BadRecords(format!("the value of a key at {at} does not decode"));
    let value = match value {
        Some(bytes) => Some(V::decode(take_bytes(bytes, records)?).ok_or_else(unreadable)?),
        None => None,
    };
    Ok(Record::Key { position, value })
}

fn read_end<'a>(slice: Slice, records: &mut &'a [u8]) -> Result<Option<Position<'a>>, BadRecords> {
    let at = SliceKey::from_u64(u64::from_le_bytes(*take(records)?));
    let key_bytes = u32::from_le_bytes(*take(records)?);
    if key_bytes == GONE {
        return Ok(None);
    }
    if !slice.contains(at) {
        return Err(BadRecords(format!("a range to {at} is not in {slice}")));
    }
    let key = take_key(key_bytes, records)?;
    Ok(Some(Position { at, key }))
}

fn take_key<'a>(bytes: u32, records: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, BadRecords> {
    let bytes = bytes as usize;
    if bytes > limits::KEY_BYTES {
        return Err(BadRecords(format!(
            "a key of {bytes} bytes; at most {} may move",
            limits::KEY_BYTES
        )));
    }
    Ok(Cow::Borrowed(take_bytes(bytes, records)?))
}

fn take_bytes<'a>(bytes: usize, records: &mut &'a [u8]) -> Result<&'a [u8], BadRecords> {
    let (taken, rest) = records.split_at_checked(bytes).ok_or_else(cut_short)?;
    *records = rest;
    Ok(taken)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], BadRecords> {
    let (taken, rest) = bytes.split_first_chunk().ok_or_else(cut_short)?;
    *bytes = rest;
    Ok(taken)
}

fn cut_short() -> BadRecords {
    BadRecords("the last record is cut short".to_owned())
}
