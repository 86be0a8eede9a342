//! Views and what changes them.

use std::collections::BTreeMap;

use super::codec::{Codec, List, Needed, message};
use super::error::WireError;
use super::pb;
use crate::id::SessionId;
use crate::limits;
use crate::slice::Slice;
use crate::slice_map::SliceMap;
use crate::target::PodAddress;
use crate::view::{Assigned, View, ViewDiff, ViewUpdate};

/// Slices in order that cover every key.
struct Cover;
/// Addresses by session.
struct Pods;

message!(
    View = View {
        generation: Needed,
        mode: Needed,
        slices: Cover,
        pods: Pods
    }
);
message!(ViewDiff = ViewDiff {
    base: Needed, generation: Needed, mode: Needed, changed: List<{ limits::SLICES_PER_TARGET }>,
    pods: List<{ limits::PODS_PER_VIEW }>,
}; check_diff);

impl Codec<SliceMap<Assigned>, Vec<pb::SliceEntry>> for Cover {
    fn put(noun: &SliceMap<Assigned>) -> Vec<pb::SliceEntry> {
        let entry = |(slice, assigned): (Slice, &Assigned)| pb::SliceEntry {
            slice: Some((&slice).into()),
            assigned: Some(assigned.into()),
        };
        noun.iter().map(entry).collect()
    }

    fn take(
        field: &'static str,
        wire: Vec<pb::SliceEntry>,
    ) -> Result<SliceMap<Assigned>, WireError> {
        let entries = List::<{ limits::SLICES_PER_TARGET }>::take(field, wire)?;
        SliceMap::new(entries).map_err(|error| WireError::invalid(field, error))
    }
}

impl Codec<BTreeMap<SessionId, PodAddress>, Vec<pb::PodEntry>> for Pods {
    fn put(noun: &BTreeMap<SessionId, PodAddress>) -> Vec<pb::PodEntry> {
        noun.iter()
            .map(|(session, address)| pb::PodEntry::from(&(*session, address.clone())))
            .collect()
    }

    fn take(
        field: &'static str,
        wire: Vec<pb::PodEntry>,
    ) -> Result<BTreeMap<SessionId, PodAddress>, WireError> {
        let pods: Vec<(SessionId, PodAddress)> =
            List::<{ limits::PODS_PER_VIEW }>::take(field, wire)?;
        Ok(pods.into_iter().collect())
    }
}

fn check_diff(diff: &ViewDiff) -> Result<(), WireError> {
    if diff.base > diff.generation {
        return Err(WireError::invalid(
            "ViewDiff.base",
            format_args!("{} is newer than {}", diff.base, diff.generation),
        ));
    }
    match diff
        .changed
        .windows(2)
        .find(|pair| pair[0].0.last() >= pair[1].0.first())
    {
        Some(pair) => Err(WireError::invalid(
            "ViewDiff.changed",
            format_args!("{} stands before {}", pair[0].0, pair[1].0),
        )),
        None => Ok(()),
    }
}

impl From<&ViewUpdate> for pb::ViewUpdate {
    fn from(noun: &ViewUpdate) -> Self {
        let update = match noun {
            ViewUpdate::Full(view) => pb::view_update::Update::Full(view.into()),
            ViewUpdate::Diff(diff) => pb::view_update::Update::Diff(diff.into()),
        };
        Self {
            update: Some(update),
        }
    }
}

impl TryFrom<pb::ViewUpdate> for ViewUpdate {
    type Error = WireError;

    fn try_from(wire: pb::ViewUpdate) -> Result<Self, WireError> {
        Ok(
            match wire.update.ok_or(WireError::missing("ViewUpdate.update"))? {
                pb::view_update::Update::Full(view) => ViewUpdate::Full(view.try_into()?),
                pb::view_update::Update::Diff(diff) => ViewUpdate::Diff(diff.try_into()?),
            },
        )
    }
}
