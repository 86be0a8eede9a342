//! `leasehold slice`.
//!
//! JSON: `list` prints `{"target", "generation", "slices": [SLICE...]}`, `get` a SLICE, see
//! [`SliceReport`]. `move` prints `{"done", "target", "slice_key", "handoff"}`, `shift` a
//! [`shift::Shifted`].

mod report;
mod shift;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use leasehold_proto::wire::admin::{self, MoveTo, SliceToMove};
use leasehold_proto::wire::listing::{SliceInfo, SliceMoved, SlicePage};
use leasehold_proto::wire::pb;
use leasehold_proto::{Generation, PodAddress, SessionId, SliceKey, TargetName};
pub use report::{Party, SliceReport, Slices};
#[cfg(test)]
pub use shift::{Shifted, SliceRange};

use super::Global;
use super::client::Client;
use super::error::Failure;
use super::output::{Done, emit};
use super::wait::{Look, until};
use crate::config::parse_duration;

const MOVE_HELP: &str = "\
The slice is the one that holds KEY. Its owner serves until the new one is ready; no request fails.

Examples:
  leasehold slice move cart 0x8000000000000000 --to 10.0.0.8:9000 --wait
  leasehold slice move cart 0 --to s17";

/// Verbs of `leasehold slice`.
#[derive(Subcommand)]
pub enum Verb {
    /// Show the slices of a target in order
    List(List),
    /// Show the slice that holds a slice key
    Get {
        /// Name of the target
        target: TargetName,
        /// A slice key: 0x… or a decimal number
        key: SliceKey,
    },
    /// Hand a slice to another pod
    #[command(after_help = MOVE_HELP)]
    Move(Move),
    /// Hand a share of a pod's slices to another pod, and back
    #[command(after_help = shift::HELP)]
    Shift(shift::Shift),
    /// Cut a slice in two; both halves keep their owner
    Split {
        /// Name of the target
        target: TargetName,
        /// First slice key of the upper half
        at: SliceKey,
    },
    /// Join a slice and the one behind it; they must have the same owner
    Merge {
        /// Name of the target
        target: TargetName,
        /// A slice key in the lower slice
        key: SliceKey,
    },
}

/// Arguments of `list`.
#[derive(Args)]
pub struct List {
    /// Name of the target
    target: TargetName,
    /// Only slices that nobody serves
    #[arg(long)]
    vacant: bool,
    /// Only slices that are being handed over
    #[arg(long)]
    moving: bool,
    /// Only slices that this session owns or is to own
    #[arg(long, value_name = "SESSION")]
    session: Option<SessionId>,
    /// Begin with the slice that holds this slice key
    #[arg(long, value_name = "KEY", default_value = "0")]
    from: SliceKey,
    /// Show at most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Arguments of `move`.
#[derive(Args)]
pub struct Move {
    /// Name of the target
    target: TargetName,
    /// A slice key in the slice: 0x… or a decimal number
    key: SliceKey,
    /// To whom: a session (s17) or a pod's address (host:port)
    #[arg(long, value_name = "POD", value_parser = destination)]
    to: MoveTo,
    /// Wait until the new owner serves, at most so long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "1m", value_parser = parse_duration)]
    wait: Option<Duration>,
}

fn destination(text: &str) -> Result<MoveTo, String> {
    if let Ok(session) = SessionId::from_str(text) {
        return Ok(MoveTo::Session(session));
    }
    PodAddress::new(text).map(MoveTo::Address).map_err(|_| {
        "neither a session nor an address; they look like s17 and 10.0.0.7:9000".to_owned()
    })
}

impl Verb {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global);
        match self {
            Verb::List(list) => emit(global, &list.run(client).await?),
            Verb::Get { target, key } => emit(
                global,
                &get(&mut client.about(&target), &target, key).await?,
            ),
            Verb::Move(wish) => wish.run(client, global).await,
            Verb::Shift(wish) => {
                let shifted = wish.run(client).await?;
                emit(global, &shifted)
            }
            Verb::Split { target, at } => {
                let mut client = client.about(&target);
                let request = admin::SplitSlice {
                    target: target.clone(),
                    at,
                    reason: client.reason(),
                };
                client
                    .change(pb::SplitSliceRequest::from(&request), async |grpc, r| {
                        grpc.split_slice(r).await
                    })
                    .await?;
                let done = format!("slice of {target} cut at {at}");
                emit(
                    global,
                    &Done::new(done)
                        .with("target", target.as_str())
                        .with("at", at.to_string()),
                )
            }
            Verb::Merge { target, key } => {
                let mut client = client.about(&target);
                let request = admin::MergeSlices {
                    target: target.clone(),
                    slice_key: key,
                    reason: client.reason(),
                };
                client
                    .change(pb::MergeSlicesRequest::from(&request), async |grpc, r| {
                        grpc.merge_slices(r).await
                    })
                    .await?;
                let done =
                    format!("slice of {target} that holds {key} joined with the one behind it");
                emit(
                    global,
                    &Done::new(done)
                        .with("target", target.as_str())
                        .with("slice_key", key.to_string()),
                )
            }
        }
    }
}

impl List {
    async fn run(self, client: Client) -> Result<Slices, Failure> {
        let mut client = client.about(&self.target);
        let most = self.limit.unwrap_or(usize::MAX);
        let mut found = Slices {
            target: self.target.to_string(),
            generation: String::new(),
            slices: Vec::new(),
        };
        let mut next = Some(self.from);
        while let Some(from_key) = next.filter(|_| found.slices.len() < most) {
            let request = admin::ListSlices {
                target: self.target.clone(),
                from_key,
                limit: u32::try_from(most - found.slices.len()).map_or(0, |left| left.min(PAGE)),
                session: self.session,
                with_handoff: self.moving,
                vacant: self.vacant,
            };
            let page = page(&mut client, &request).await?;
            let pods: BTreeMap<_, _> = page.pods.into_iter().collect();
            found.generation = page.generation.to_string();
            found.slices.extend(
                page.slices
                    .into_iter()
                    .map(|info| SliceReport::new(info, &pods)),
            );
            next = page.next_key.filter(|key| *key > from_key);
        }
        found.slices.truncate(most);
        Ok(found)
    }
}

/// Every slice that a session owns, is to own or has a copy of, with the generation of the last
/// page.
pub async fn of_session(
    client: &mut Client,
    target: &TargetName,
    session: SessionId,
) -> Result<(Generation, Vec<SliceInfo>), Failure> {
    let mut request = admin::ListSlices {
        target: target.clone(),
        from_key: SliceKey::MIN,
        limit: PAGE,
        session: Some(session),
        with_handoff: false,
        vacant: false,
    };
    let mut found = Vec::new();
    loop {
        let page = page(client, &request).await?;
        found.extend(page.slices);
        match page.next_key {
            // A page that does not lead on would never end.
            Some(next) if next > request.from_key => request.from_key = next,
            _ => return Ok((page.generation, found)),
        }
    }
}

/// Slices asked for at once.
const PAGE: u32 = leasehold_proto::limits::PAGE_ITEMS as u32;

async fn page(client: &mut Client, request: &admin::ListSlices) -> Result<SlicePage, Failure> {
    client
        .read(pb::ListSlicesRequest::from(request), async |grpc, r| {
            grpc.list_slices(r).await
        })
        .await
}

/// The slice that holds a slice key.
pub async fn get(
    client: &mut Client,
    target: &TargetName,
    key: SliceKey,
) -> Result<SliceReport, Failure> {
    let target = target.clone();
    let request = admin::ListSlices {
        target,
        from_key: key,
        limit: 1,
        session: None,
        with_handoff: false,
        vacant: false,
    };
    let page = page(client, &request).await?;
    let pods = page.pods.into_iter().collect();
    let info = page
        .slices
        .into_iter()
        .next()
        .filter(|info| info.slice.contains(key));
    info.map(|info| SliceReport::new(info, &pods))
        .ok_or_else(|| Failure::negative(format!("no slice holds {key}")))
}

impl Move {
    async fn run(self, client: Client, global: &Global) -> Result<(), Failure> {
        let mut client = client.about(&self.target);
        let to = match &self.to {
            MoveTo::Session(session) => session.to_string(),
            MoveTo::Address(address) => address.to_string(),
        };
        let which = SliceToMove::Holding(self.key);
        let moved = begin(&mut client, &self.target, which, self.to).await?;
        let handoff = moved.handoff.map(|handoff| handoff.to_string());
        let done = match (&handoff, self.wait) {
            (None, _) => format!(
                "slice of {} that holds {} moved to {to}",
                self.target, self.key
            ),
            (Some(handoff), None) => format!("{handoff} begun: {} is handed to {to}", self.key),
            (Some(handoff), Some(patience)) => {
                let owner = ended(&mut client, &self.target, self.key, handoff, patience).await?;
                let there = owner.as_ref().is_some_and(|owner| {
                    owner.session == to || owner.address.as_ref() == Some(&to)
                });
                if !there {
                    let owner = owner.map_or_else(|| "nobody".to_owned(), |owner| owner.name());
                    return Err(Failure::negative(format!(
                        "{handoff} has ended, but {owner} owns {}",
                        self.key
                    )));
                }
                format!("{handoff} completed: {to} serves {}", self.key)
            }
        };
        let facts = Done::new(done)
            .with("target", self.target.as_str())
            .with("slice_key", self.key.to_string());
        emit(global, &facts.with("to", to).with("handoff", handoff))
    }
}

/// Begins to move a slice; in an eventual target moves it.
async fn begin(
    client: &mut Client,
    target: &TargetName,
    which: SliceToMove,
    to: MoveTo,
) -> Result<SliceMoved, Failure> {
    let request = admin::MoveSlice {
        target: target.clone(),
        which,
        to,
        reason: client.reason(),
    };
    let answer = client
        .change(pb::MoveSliceRequest::from(&request), async |grpc, r| {
            grpc.move_slice(r).await
        })
        .await?;
    SliceMoved::try_from(answer).map_err(|error| Failure::unreadable(&error))
}

/// Waits until a handoff is no longer open and says who owns the slice then.
async fn ended(
    client: &mut Client,
    target: &TargetName,
    key: SliceKey,
    handoff: &str,
    patience: Duration,
) -> Result<Option<Party>, Failure> {
    until(patience, async || {
        let slice = get(client, target, key).await?;
        match &slice.handoff {
            Some(open) if open.handoff == handoff => Ok(Look::NotYet(format!("{handoff} is open"))),
            _ => Ok(Look::Done(slice.owner.map(|owner| owner.party))),
        }
    })
    .await
}
