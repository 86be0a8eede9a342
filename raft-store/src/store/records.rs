//! The keys of our own records and their encoding.

use std::io;

use prost::Message;

use super::kv::{Column, Kv, Ops, View};
use crate::codec::{self, Malformed};
use crate::raft_types::{Entry, LogId, StoredMembership, Vote};
use crate::wire;

const VOTE: &[u8] = b"vote";
const PURGED: &[u8] = b"purged";
const APPLIED: &[u8] = b"applied";

pub(crate) fn index_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// The half-open range of a generation's keys in [`Column::State`].
pub(crate) fn generation_range(generation: u64) -> (Vec<u8>, Vec<u8>) {
    let from = generation.to_be_bytes().to_vec();
    let to = match generation.checked_add(1) {
        Some(next) => next.to_be_bytes().to_vec(),
        None => vec![0xff; 9],
    };
    (from, to)
}

fn decode<M: Message + Default>(bytes: &[u8], what: &'static str) -> io::Result<M> {
    M::decode(bytes).map_err(|_| Malformed(what).into())
}

pub(crate) fn put_entry(ops: &mut Ops, entry: &Entry) {
    let record = codec::entry_to(entry);
    ops.put_with(Column::Log, &[&index_key(entry.log_id.index)], |buffer| {
        // A Vec grows; encoding into one cannot fail.
        let _ = record.encode(buffer);
    });
}

pub(crate) fn entry(key: &[u8], value: Vec<u8>) -> io::Result<Entry> {
    // From `Bytes`, so that the command is a slice of it and not a copy.
    let record =
        wire::LogEntry::decode(bytes::Bytes::from(value)).map_err(|_| Malformed("a log entry"))?;
    if key != index_key(record.index) {
        return Err(Malformed("a log entry under a foreign index").into());
    }
    Ok(codec::entry_from(record)?)
}

pub(crate) fn put_vote(ops: &mut Ops, vote: &Vote) {
    ops.put(Column::Meta, VOTE, &codec::vote_to(vote).encode_to_vec());
}

pub(crate) fn vote(kv: &dyn Kv) -> io::Result<Option<Vote>> {
    let Some(bytes) = kv.get(Column::Meta, VOTE)? else {
        return Ok(None);
    };
    Ok(Some(codec::vote_from(Some(decode(&bytes, "the vote")?))?))
}

pub(crate) fn put_purged(ops: &mut Ops, id: &LogId) {
    ops.put(Column::Meta, PURGED, &codec::log_id_to(id).encode_to_vec());
}

pub(crate) fn purged(kv: &dyn Kv) -> io::Result<Option<LogId>> {
    let Some(bytes) = kv.get(Column::Meta, PURGED)? else {
        return Ok(None);
    };
    Ok(Some(codec::log_id_from(decode(
        &bytes,
        "the purge position",
    )?)?))
}

/// How far the state machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) generation: u64,
}

pub(crate) fn put_applied(ops: &mut Ops, applied: &Applied) {
    let record = wire::Applied {
        last: applied.last.as_ref().map(codec::log_id_to),
        membership: Some(codec::stored_membership_to(&applied.membership)),
        generation: applied.generation,
    };
    ops.put_with(Column::StateMeta, &[APPLIED], |buffer| {
        let _ = record.encode(buffer);
    });
}

fn applied_from(bytes: Option<Vec<u8>>) -> io::Result<Applied> {
    let Some(bytes) = bytes else {
        return Ok(Applied::default());
    };
    let record: wire::Applied = decode(&bytes, "the applied position")?;
    Ok(Applied {
        last: codec::log_id_option(record.last)?,
        membership: codec::stored_membership_from(record.membership)?,
        generation: record.generation,
    })
}

pub(crate) fn applied(kv: &dyn Kv) -> io::Result<Applied> {
    applied_from(kv.get(Column::StateMeta, APPLIED)?)
}

pub(crate) fn applied_in(view: &dyn View) -> io::Result<Applied> {
    let found = view.page(Column::StateMeta, APPLIED, b"applied\0", 1)?;
    applied_from(found.into_iter().next().map(|(_, value)| value))
}
