//! Watches: what a Clerk is told, message by message, across connections and Assigners.
//!
//! The events are written as [`leasehold_checkers::watch`] wants them. The view is put together
//! here from the messages alone, by other code than Leasehold's own, so that a mistake of its code
//! for views is seen as well.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use leasehold_proto::view::Assigned;
use leasehold_proto::wire::{WatchReply, WatchRequest, pb};
use leasehold_proto::{Generation, PodAddress, SessionId, Slice, TargetName, ViewUpdate};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Status, Streaming};

use super::LeaseholdClient;
use super::outcome::{nonsense, of_status, out_of_time};
use crate::leasehold::TARGET;
use crate::leasehold::admin::{Admin, Node};
use crate::system::{Completion, Invocation};

/// Before a watch that could not be opened is tried again.
const AGAIN: Duration = Duration::from_millis(50);
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
    ///
    /// `{"last": HOST}` is another watch, through this Assigner alone, that is never given up: what
    /// it takes in until it has something, or with `"until"` until it has that generation, or until
    /// its time is over.
    pub(super) async fn watch(&mut self, invocation: &Invocation) -> Completion {
        if let Some(host) = invocation.value["last"].as_str() {
            let until = match invocation.value["until"].as_str() {
                Some(_) => self.final_generation,
                None => 0,
            };
            return self
                .watch_to_the_end(host, until, invocation.deadline)
                .await;
        }
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
            let nodes = self.admin.nodes();
            let node = &nodes[rand::random_range(0..nodes.len())];
            let (node, stream) = self.open_watch(node, from).await?;
            watched.stream = Some((node.clone(), stream));
            let open = json!({ "event": "open", "from": from.map(number), "scope": "clerk" });
            return Ok((node, open));
        };
        let node = node.clone();
        let event = match next_update(stream).await {
            Update::Given(update) => watched.take_in(*update),
            Update::Garbled(why) => {
                watched.stream = None;
                watched.ended = Some(node.clone());
                return Ok((node, json!({ "event": "garbled", "why": why })));
            }
            Update::Ended => {
                watched.stream = None;
                return Ok((node, json!({ "event": "close" })));
            }
        };
        if rand::random_range(0..MOVE_ON_IN) == 0 {
            watched.stream = None;
            watched.ended = Some(node.clone());
        }
        Ok((node, event))
    }

    /// What comes through one Assigner until the generation is there or the time is over: either
    /// way that is what came. That nothing could be opened is a failure.
    async fn watch_to_the_end(&mut self, host: &str, until: u64, limit: Duration) -> Completion {
        let nodes = self.admin.nodes();
        let Some(node) = nodes.iter().find(|node| node.host == host).cloned() else {
            return nonsense("no such Assigner");
        };
        let mut watched = self.last_watched.remove(host).unwrap_or_default();
        let mut events = Vec::new();
        let by = Instant::now() + limit;
        while watched.known.is_none_or(|known| number(known) < until) {
            let event = match &mut watched.stream {
                None => match timeout_at(by, self.open_watch(&node, watched.known)).await {
                    Ok(Ok(opened)) => {
                        let from = watched.known.map(number);
                        watched.stream = Some(opened);
                        json!({ "event": "open", "from": from, "scope": "clerk" })
                    }
                    Ok(Err(_)) if Instant::now() + AGAIN < by => {
                        sleep(AGAIN).await;
                        continue;
                    }
                    Ok(Err(_)) | Err(_) => break,
                },
                Some((_, stream)) => match timeout_at(by, next_update(stream)).await {
                    Ok(Update::Given(update)) => watched.take_in(*update),
                    Ok(Update::Garbled(why)) => {
                        watched.stream = None;
                        json!({ "event": "garbled", "why": why })
                    }
                    Ok(Update::Ended) => {
                        watched.stream = None;
                        json!({ "event": "close" })
                    }
                    Err(_) => break,
                },
            };
            events.push(event);
        }
        for event in &mut events {
            event["watcher"] = json!(format!("last-{host}"));
        }
        let known = watched.known;
        self.last_watched.insert(host.to_owned(), watched);
        match known {
            None if events.is_empty() => Completion::Fail("no watch could be opened".into()),
            _ => Completion::Ok {
                value: Value::Array(events),
                node: Some(host.to_owned()),
                epoch: None,
            },
        }
    }

    /// `generation` of the target as of now: what every watcher must come to have.
    pub(super) async fn generation(&mut self, invocation: &Invocation) -> Completion {
        let admin = self.admin.patient(invocation.deadline);
        match timeout(invocation.deadline, admin.target(TARGET, true)).await {
            Ok(Ok(target)) => {
                self.final_generation = number(target.generation);
                Completion::Ok {
                    value: json!(self.final_generation),
                    node: None,
                    epoch: None,
                }
            }
            // Reading changes nothing.
            Ok(Err(error)) => Completion::Fail(format!("{error:#}")),
            Err(_) => out_of_time(false, invocation.deadline),
        }
    }

    /// `stir`: a slice is split and made whole again, so that there is something to be told.
    pub(super) async fn stir(&mut self, invocation: &Invocation) -> Completion {
        // The leader may be any of them, and may change.
        let admin = self.admin.patient(invocation.deadline);
        match timeout(invocation.deadline, split_and_merge(&admin)).await {
            Ok(Ok(())) => Completion::Ok {
                value: Value::Null,
                node: None,
                epoch: None,
            },
            // Stirring more than once does no harm: it is not an operation whose effect is judged.
            Ok(Err(error)) => Completion::Fail(format!("{error:#}")),
            Err(_) => Completion::Fail("no answer in time".into()),
        }
    }

    async fn open_watch(
        &self,
        node: &Node,
        known: Option<Generation>,
    ) -> Result<(String, Streaming<pb::WatchReply>), Completion> {
        let target = TargetName::new(TARGET).map_err(|error| nonsense(&error.to_string()))?;
        let request = WatchRequest {
            target,
            known,
            client_name: format!("watcher-{}", self.worker),
        };
        match node.watch().watch(pb::WatchRequest::from(&request)).await {
            Ok(stream) => Ok((node.host.clone(), stream.into_inner())),
            Err(status) => Err(of_status(&status)),
        }
    }
}

/// What came next on a stream.
enum Update {
    Given(Box<ViewUpdate>),
    /// It cannot be understood; why.
    Garbled(String),
    Ended,
}

/// Waits for the next message that says something.
async fn next_update(stream: &mut Streaming<pb::WatchReply>) -> Update {
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Err(status) if is_garbled(&status) => return Update::Garbled(status.to_string()),
            Ok(None) | Err(_) => return Update::Ended,
        };
        match WatchReply::try_from(message).map(|reply| reply.update) {
            Ok(Some(update)) => return Update::Given(Box::new(update)),
            Ok(None) => {}
            Err(error) => return Update::Garbled(error.to_string()),
        }
    }
}

/// Whether bytes came that are no message at all.
fn is_garbled(status: &Status) -> bool {
    status.code() == Code::Internal && status.message().starts_with("failed to decode")
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

async fn split_and_merge(admin: &Admin) -> anyhow::Result<()> {
    let slices = admin.slices(TARGET).await?;
    let wide = slices.slices.iter().map(|info| info.slice);
    let wide = wide.max_by_key(|slice| slice.last().as_u64() - slice.first().as_u64());
    let slice = wide.context("the target has no slices")?;
    let (first, last) = (slice.first().as_u64(), slice.last().as_u64());
    anyhow::ensure!(first < last, "no slice can be split");
    let split = pb::SplitSliceRequest {
        target: TARGET.to_owned(),
        at: first + (last - first) / 2 + 1,
        reason: None,
    };
    let asked = admin.ask(|mut client| {
        let split = split.clone();
        async move { client.split_slice(split).await }
    });
    asked.await.map_err(|status| anyhow::anyhow!("{status}"))?;
    let merge = pb::MergeSlicesRequest {
        target: TARGET.to_owned(),
        slice_key: first,
        reason: None,
    };
    let asked = admin.ask(|mut client| {
        let merge = merge.clone();
        async move { client.merge_slices(merge).await }
    });
    // The planner may have moved a half meanwhile: there was a change all the same.
    let _ = asked.await;
    Ok(())
}
