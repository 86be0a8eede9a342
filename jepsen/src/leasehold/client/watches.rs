//! Watches: what a Clerk is told, message by message, across connections and Assigners.

use std::hash::{DefaultHasher, Hash, Hasher};

use leasehold_proto::view::View;
use leasehold_proto::wire::{WatchReply, WatchRequest, pb};
use leasehold_proto::{Generation, TargetName, ViewUpdate};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Streaming;

use super::LeaseholdClient;
use super::outcome::{nonsense, of_status, out_of_time};
use crate::leasehold::TARGET;
use crate::system::{Completion, Invocation};

/// One in so many events the watch is given up and taken up again elsewhere.
const MOVE_ON_IN: u32 = 16;

/// A watch that goes on over several connections.
pub(super) struct Open {
    stream: Option<(String, Streaming<pb::WatchReply>)>,
    known: Option<View>,
}

impl LeaseholdClient {
    /// `watch`: the next event. A watch that was lost is taken up again where it ended, at any
    /// Assigner.
    pub(super) async fn watch(&mut self, invocation: &Invocation) -> Completion {
        let mut open = self.watch.take().unwrap_or(Open {
            stream: None,
            known: None,
        });
        let event = timeout(invocation.deadline, self.next_event(&mut open)).await;
        if event.is_err() || rand::random_range(0..MOVE_ON_IN) == 0 {
            open.stream = None;
        }
        self.watch = Some(open);
        match event {
            Ok(Ok((node, value))) => Completion::Ok {
                value,
                node: Some(node),
                epoch: None,
            },
            // Watching changes nothing.
            Ok(Err(Completion::Unknown(why))) => Completion::Fail(why),
            Ok(Err(other)) => other,
            Err(_) => out_of_time(false, invocation.deadline),
        }
    }

    async fn next_event(&mut self, open: &mut Open) -> Result<(String, Value), Completion> {
        let resumed_at = match &open.stream {
            Some(_) => None,
            None => {
                let known = open.known.as_ref().map(|view| view.generation);
                open.stream = Some(self.open_watch(known).await?);
                Some(known)
            }
        };
        let Some((node, stream)) = &mut open.stream else {
            return Err(nonsense("a watch that is not open"));
        };
        let node = node.clone();
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                ended => {
                    open.stream = None;
                    return Err(Completion::Fail(format!("the watch ended: {ended:?}")));
                }
            };
            let reply = WatchReply::try_from(message)
                .map_err(|error| Completion::Fail(error.to_string()))?;
            if let Some(update) = reply.update {
                let value = event(self.worker, &mut open.known, update, resumed_at.flatten());
                return Ok((node, value));
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
            client_name: format!("watch-{}", self.worker),
        };
        let nodes = self.admin.nodes();
        let node = &nodes[rand::random_range(0..nodes.len())];
        match node.watch().watch(pb::WatchRequest::from(&request)).await {
            Ok(stream) => Ok((node.host.clone(), stream.into_inner())),
            Err(status) => Err(of_status(&status)),
        }
    }
}

fn pair(generation: Generation) -> Value {
    json!([generation.incarnation().get(), generation.number()])
}

/// What an update says, and what it leads to.
fn event(
    watcher: usize,
    known: &mut Option<View>,
    update: ViewUpdate,
    resumed_at: Option<Generation>,
) -> Value {
    let generation = pair(update.generation());
    let base = match &update {
        ViewUpdate::Full(_) => Value::Null,
        ViewUpdate::Diff(diff) => pair(diff.base),
    };
    let before = known.as_ref().map(|view| view.generation);
    let outcome = match View::advance(known, update) {
        Ok(applied) => format!("{applied:?}").to_lowercase(),
        Err(error) => error.to_string(),
    };
    json!({
        "watcher": watcher,
        "kind": if base.is_null() { "full" } else { "diff" },
        "base": base,
        "known": before.map(pair),
        "resumed": resumed_at.map(pair),
        "generation": generation,
        "applied": outcome,
        "view": known.as_ref().map(digest),
    })
}

/// Who serves what at a generation, in one number; addresses that no slice names count for
/// nothing.
fn digest(view: &View) -> String {
    let mut hasher = DefaultHasher::new();
    view.mode.hash(&mut hasher);
    for (slice, assigned) in view.slices.iter() {
        (slice.first(), slice.last(), assigned).hash(&mut hasher);
        for session in assigned.sessions() {
            view.pods.get(&session).hash(&mut hasher);
        }
    }
    format!("{:016x}", hasher.finish())
}
