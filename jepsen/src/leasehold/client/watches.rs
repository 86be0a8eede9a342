//! Watches: what a Clerk is told, message by message, across connections and Assigners.
//!
//! The events are written as [`leasehold_checkers::watch`] wants them. The view is put together
//! here from the messages alone, by other code than Leasehold's own, so that a mistake of its code
//! for views is seen as well.

use std::collections::BTreeMap;

use leasehold_proto::view::Assigned;
use leasehold_proto::wire::{WatchReply, WatchRequest, pb};
use leasehold_proto::{Generation, PodAddress, SessionId, Slice, TargetName, ViewUpdate};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tonic::Streaming;

use super::LeaseholdClient;
use super::outcome::{nonsense, of_status, out_of_time};
use crate::leasehold::TARGET;
use crate::system::{Completion, Invocation};

/// One in so many events the watch is given up, to be taken up again elsewhere.
const MOVE_ON_IN: u32 = 16;

/// A watch that goes on over several connections.
#[derive(Default)]
pub(super) struct Watched {
    stream: Option<(String, Streaming<pb::WatchReply>)>,
    /// The stream has ended and that has not been told yet.
    ended: Option<String>,
    known: Option<Generation>,
    /// First and last key of each slice that is known.
    slices: BTreeMap<u64, u64>,
    addresses: BTreeMap<SessionId, PodAddress>,
}

impl LeaseholdClient {
    /// `watch`: the next event. A watch that was lost is taken up again where it ended, at any
    /// Assigner.
    pub(super) async fn watch(&mut self, invocation: &Invocation) -> Completion {
        let mut watched = std::mem::take(&mut self.watched);
        let event = timeout(invocation.deadline, self.next_event(&mut watched)).await;
        self.watched = watched;
        match event {
            Ok(Ok((node, mut event))) => {
                event["watcher"] = json!(format!("watcher-{}", self.worker));
                Completion::Ok {
                    value: event,
                    node: Some(node),
                    epoch: None,
                }
            }
            // Watching changes nothing.
            Ok(Err(Completion::Unknown(why))) => Completion::Fail(why),
            Ok(Err(other)) => other,
            Err(_) => out_of_time(false, invocation.deadline),
        }
    }

    async fn next_event(&self, watched: &mut Watched) -> Result<(String, Value), Completion> {
        if let Some(node) = watched.ended.take() {
            return Ok((node, json!({ "event": "close" })));
        }
        let Some((node, stream)) = &mut watched.stream else {
            let from = watched.known;
            let (node, stream) = self.open_watch(from).await?;
            watched.stream = Some((node.clone(), stream));
            let open = json!({ "event": "open", "from": from.map(number), "scope": "clerk" });
            return Ok((node, open));
        };
        let node = node.clone();
        loop {
            let update = match stream.message().await {
                Ok(Some(message)) => {
                    WatchReply::try_from(message)
                        .map_err(|error| Completion::Fail(error.to_string()))?
                        .update
                }
                _ => {
                    watched.stream = None;
                    return Ok((node, json!({ "event": "close" })));
                }
            };
            if let Some(update) = update {
                let event = watched.take_in(update);
                if rand::random_range(0..MOVE_ON_IN) == 0 {
                    watched.stream = None;
                    watched.ended = Some(node.clone());
                }
                return Ok((node, event));
            }
        }
    }

    async fn open_watch(
        &self,
        known: Option<Generation>,
    ) -> Result<(String, Streaming<pb::WatchReply>), Completion> {
        let target = TargetName::new(TARGET).map_err(|error| nonsense(&error.to_string()))?;
        let request = WatchRequest {
            target,
            known,
            client_name: format!("watcher-{}", self.worker),
        };
        let nodes = self.admin.nodes();
        let node = &nodes[rand::random_range(0..nodes.len())];
        match node.watch().watch(pb::WatchRequest::from(&request)).await {
            Ok(stream) => Ok((node.host.clone(), stream.into_inner())),
            Err(status) => Err(of_status(&status)),
        }
    }
}

/// A generation as one number that orders as it does.
fn number(generation: Generation) -> u64 {
    u64::from(generation.incarnation().get()) << 48 | generation.number()
}

impl Watched {
    /// An update as an event.
    fn take_in(&mut self, update: ViewUpdate) -> Value {
        let generation = number(update.generation());
        let before = self.known.replace(update.generation());
        match update {
            ViewUpdate::Full(view) => {
                self.slices.clear();
                self.addresses = view.pods;
                let mut entries = Map::new();
                for (slice, assigned) in view.slices.iter() {
                    self.entry(slice, assigned, &mut entries);
                }
                entries.insert("mode".into(), json!(view.mode.to_string()));
                json!({ "event": "full", "generation": generation, "view": entries })
            }
            ViewUpdate::Diff(diff) => {
                self.addresses.extend(diff.pods);
                let mut removed = Vec::new();
                for (slice, _) in &diff.changed {
                    removed.extend(self.covered(*slice));
                }
                let mut set = Map::new();
                for (slice, assigned) in &diff.changed {
                    self.entry(*slice, assigned, &mut set);
                }
                set.insert("mode".into(), json!(diff.mode.to_string()));
                removed.retain(|name| !set.contains_key(name));
                // A difference may begin before what is known, and tells that part again: it is
                // made once for all watchers. What must not be is that it begins later.
                let base = number(diff.base);
                let from = before.map_or(base, |before| base.max(number(before)));
                json!({
                    "event": "diff",
                    "from": from,
                    "generation": generation,
                    "set": set,
                    "removed": removed,
                })
            }
        }
    }

    /// Forgets the known slices that a changed one covers; their names.
    fn covered(&mut self, slice: Slice) -> Vec<String> {
        let range = slice.first().as_u64()..=slice.last().as_u64();
        let firsts: Vec<u64> = self.slices.range(range).map(|(first, _)| *first).collect();
        firsts
            .into_iter()
            .map(|first| {
                self.slices.remove(&first);
                format!("{first:016x}")
            })
            .collect()
    }

    fn entry(&mut self, slice: Slice, assigned: &Assigned, entries: &mut Map<String, Value>) {
        let (first, last) = (slice.first().as_u64(), slice.last().as_u64());
        self.slices.insert(first, last);
        let at = |session: SessionId| {
            let address = self.addresses.get(&session);
            json!([session.as_u64(), address.map(PodAddress::as_str)])
        };
        let owner = assigned
            .owner
            .map(|lease| json!([at(lease.session), lease.epoch.token().as_u64()]));
        let handoff = assigned.handoff.map(|handoff| {
            json!([
                handoff.id.as_u64(),
                at(handoff.to),
                handoff.epoch.token().as_u64(),
                handoff.ask_cancel,
                handoff.to_closed,
            ])
        });
        let entry = json!({ "last": format!("{last:016x}"), "owner": owner, "handoff": handoff });
        entries.insert(format!("{first:016x}"), entry);
    }
}
