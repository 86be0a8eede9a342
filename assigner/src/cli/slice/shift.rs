//! `leasehold slice shift`: canary moves. A share of a pod's slices, then more, or back.
//!
//! Nothing is remembered between two commands. Which slices are in a share is decided by their
//! first keys alone, and which have been shifted already by a generation: those that the
//! destination owns since. So the first command prints the generation at which it began, and the
//! later ones are told it with `--since`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use leasehold_proto::table::SessionPhase;
use leasehold_proto::wire::admin::{MoveTo, SliceToMove};
use leasehold_proto::wire::listing::SliceInfo;
use leasehold_proto::wire::pb;
use leasehold_proto::{Generation, SessionId, Slice, SliceKey, TargetName};
use serde::Serialize;

use super::{begin, destination, of_session};
use crate::cli::client::Client;
use crate::cli::error::Failure;
use crate::cli::output::Report;
use crate::cli::table::Table;
use crate::cli::wait::{Look, until};
use crate::cli::{session, target};
use crate::config::parse_duration;

pub const HELP: &str = "\
Hold the target first: where it is not held, the planner evens the counts of slices out again. An
operator's moves work while it is held. Which slices go first is decided by their keys, so a larger
share holds the smaller one. The command prints the generation at which it began: give it with
--since to shift more of the same slices, or to shift them back. Every slice that the destination
owns since then counts as shifted.

Examples:
  leasehold target hold cart --reason 'canary of 10.0.0.8'
  leasehold slice shift cart --from 10.0.0.7:9000 --to 10.0.0.8:9000 --share 5% --wait
  leasehold slice shift cart --from 10.0.0.7:9000 --to 10.0.0.8:9000 --share 20% --since 1#1234
  leasehold slice shift cart --from 10.0.0.7:9000 --to 10.0.0.8:9000 --back --since 1#1234
  leasehold target unhold cart";

/// Handoffs that the command keeps open at once.
const AT_ONCE: usize = 8;
/// How long the command goes on without --wait until all are begun.
const BEGIN_WITHIN: Duration = Duration::from_secs(600);

/// Arguments of `shift`.
#[derive(Args)]
pub struct Shift {
    /// Name of the target
    target: TargetName,
    /// Whose slices: a session (s17) or a pod's address (host:port)
    #[arg(long, value_name = "POD", value_parser = destination)]
    from: MoveTo,
    /// To whom: a session (s17) or a pod's address (host:port)
    #[arg(long, value_name = "POD", value_parser = destination)]
    to: MoveTo,
    /// How much of them is to be shifted in all: 5%, 12.5%
    #[arg(long, value_name = "PERCENT", required_unless_present = "back")]
    share: Option<Share>,
    /// The generation at which the shift began, as the first command printed it
    #[arg(long, value_name = "GENERATION", value_parser = generation)]
    since: Option<Generation>,
    /// Shift back what was shifted since then
    #[arg(long, requires = "since", conflicts_with = "share")]
    back: bool,
    /// Wait until all are served there, at most so long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "10m", value_parser = parse_duration)]
    wait: Option<Duration>,
}

/// A share in thousandths of a percent, more than none and at most all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    const ALL: u32 = 100_000;

    /// How many of `count` are in it; at least one.
    fn of(self, count: usize) -> usize {
        let part = count as u128 * u128::from(self.0);
        usize::try_from(part.div_ceil(u128::from(Self::ALL))).unwrap_or(count)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write it in percent, more than 0% and at most 100%, such as 5%".to_owned();
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?;
        let percent: f64 = number.trim().parse().map_err(|_| wrong())?;
        let thousandths = (percent * 1_000.0).round();
        if !(1.0..=f64::from(Self::ALL)).contains(&thousandths) {
            return Err(wrong());
        }
        Ok(Self(thousandths as u32))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 1_000.0)
    }
}

/// Reads `1#1234`.
fn generation(text: &str) -> Result<Generation, String> {
    let parse = || {
        let (incarnation, number) = text.trim().split_once('#')?;
        let generation = pb::Generation {
            incarnation: incarnation.parse().ok()?,
            number: number.parse().ok()?,
        };
        Generation::try_from(generation).ok()
    };
    parse().ok_or_else(|| "a generation looks like 1#1234".to_owned())
}

/// Two pods, and what they own.
struct Pair {
    from: SessionId,
    to: SessionId,
    since: Generation,
    /// Slices of `from` that nobody moves, those first that are in the smallest share.
    here: Vec<Slice>,
    /// Slices that `to` owns since, or is being given by `from`.
    shifted: Vec<Slice>,
    /// Those of them whose handoff is open.
    open: usize,
}

/// Where a slice stands in the order of shares. Any fixed rule does that spreads keys.
fn rank(slice: &Slice) -> u64 {
    let mixed = slice.first().as_u64().wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Pair {
    fn new(
        (from, to): (SessionId, SessionId),
        since: Generation,
        slices: impl IntoIterator<Item = SliceInfo>,
    ) -> Self {
        let mut pair = Self {
            from,
            to,
            since,
            here: Vec::new(),
            shifted: Vec::new(),
            open: 0,
        };
        // Named by both while it moves from one to the other: seen twice.
        let slices: BTreeMap<SliceKey, SliceInfo> = slices
            .into_iter()
            .map(|info| (info.slice.first(), info))
            .collect();
        for info in slices.into_values() {
            let Some(owner) = info.assigned.owner else {
                continue;
            };
            match info.assigned.handoff.map(|handoff| handoff.to) {
                None if owner.session == from => pair.here.push(info.slice),
                Some(receiver) if owner.session == from && receiver == to => {
                    pair.shifted.push(info.slice);
                    pair.open += 1;
                }
                None if owner.session == to && owner.epoch.generation() > since => {
                    pair.shifted.push(info.slice);
                }
                _ => {}
            }
        }
        pair.here.sort_by_key(rank);
        pair
    }

    fn all(&self) -> usize {
        self.here.len() + self.shifted.len()
    }

    /// An owner may refuse.
    fn all_arrived(&self, slices: &[Slice]) -> Result<(), Failure> {
        let stayed: Vec<&Slice> = slices
            .iter()
            .filter(|slice| !self.shifted.contains(slice))
            .collect();
        match stayed.first() {
            None => Ok(()),
            Some(first) => Err(Failure::negative(format!(
                "{} of {} slices did not move to {}, the first is {first}; `leasehold slice get` shows who owns it",
                stayed.len(),
                slices.len(),
                self.to
            ))),
        }
    }
}

impl Shift {
    /// Shifts, and says what it did.
    pub async fn run(self, client: Client) -> Result<Shifted, Failure> {
        let mut client = client.about(&self.target);
        let hold = target::get(&mut client, &self.target).await?.hold_reason;
        let mut parties = self.parties(&mut client).await?;
        let pair = self.look(&mut client, parties, self.since).await?;
        let wanted = match self.share {
            Some(share) => self.more(&pair, share)?,
            None => self.all_back(&pair)?,
        };
        if self.back {
            parties = (parties.1, parties.0);
        }
        self.carry_out(&mut client, parties, pair.since, &wanted)
            .await?;
        let already = if self.back { 0 } else { pair.shifted.len() };
        let verb = match self.wait {
            Some(_) => "moved",
            None => "are being handed",
        };
        let mut done = format!(
            "{} of {} slices {verb} from {} to {}",
            wanted.len(),
            pair.all(),
            parties.0,
            parties.1
        );
        if already > 0 {
            done += &format!("; {already} were shifted before");
        }
        Ok(Shifted {
            done,
            target: self.target.to_string(),
            from: parties.0.to_string(),
            to: parties.1.to_string(),
            share: self.share.map(|share| share.to_string()),
            since: pair.since.to_string(),
            slices: pair.all(),
            already,
            shifted: wanted.iter().map(SliceRange::from).collect(),
            completed: self.wait.is_some(),
            held: hold.is_some(),
        })
    }

    fn all_back(&self, pair: &Pair) -> Result<Vec<Slice>, Failure> {
        if pair.open > 0 {
            return Err(Failure::conflict(format!(
                "{} slices are still on their way to {}; wait for them, or cancel them: `leasehold handoff list {}`",
                pair.open, pair.to, self.target
            )));
        }
        if pair.shifted.is_empty() {
            return Err(Failure::negative(format!(
                "{} owns no slice of {} since {}; --since is the generation that `slice shift` printed first",
                pair.to, self.target, pair.since
            )));
        }
        Ok(pair.shifted.clone())
    }

    /// What is missing to a share, in the order of shares.
    fn more(&self, pair: &Pair, share: Share) -> Result<Vec<Slice>, Failure> {
        let wanted = share.of(pair.all());
        let already = pair.shifted.len();
        if pair.all() == 0 {
            return Err(Failure::negative(format!(
                "{} owns no slice of {} that could be shifted; `leasehold session list {}` shows who owns how many",
                pair.from, self.target, self.target
            )));
        }
        if already > wanted {
            return Err(Failure::conflict(format!(
                "{already} of {} slices are shifted already, and {share} would be {wanted}; shift them back with \
                 --back, or name a larger share",
                pair.all()
            )));
        }
        Ok(pair.here.iter().take(wanted - already).copied().collect())
    }

    /// The two sessions, of which the second may be given slices.
    async fn parties(&self, client: &mut Client) -> Result<(SessionId, SessionId), Failure> {
        let sessions = session::list(client, &self.target).await?;
        let find = |pod: &MoveTo| {
            let live = sessions
                .iter()
                .filter(|info| info.phase == SessionPhase::Live);
            let mut found = live.filter(|info| match pod {
                MoveTo::Session(session) => info.session == *session,
                MoveTo::Address(address) => info.squid.address == *address,
            });
            let name = match pod {
                MoveTo::Session(session) => session.to_string(),
                MoveTo::Address(address) => address.to_string(),
            };
            let list = format!("`leasehold session list {}` shows all", self.target);
            match (found.next(), found.next()) {
                (Some(info), None) => Ok((info.session, info.draining)),
                (Some(_), Some(_)) => Err(Failure::conflict(format!(
                    "several sessions live at {name}; name one; {list}"
                ))),
                (None, _) => Err(Failure::negative(format!(
                    "no session lives at {name}; {list}"
                ))),
            }
        };
        let ((from, from_leaves), (to, to_leaves)) = (find(&self.from)?, find(&self.to)?);
        if from == to {
            return Err(Failure::usage(format!(
                "--from and --to are both {from}; name two pods"
            )));
        }
        let receiver = if self.back {
            (from, from_leaves)
        } else {
            (to, to_leaves)
        };
        match receiver {
            (session, true) => Err(Failure::conflict(format!(
                "{session} is draining and is given no slices; shift to another pod"
            ))),
            _ => Ok((from, to)),
        }
    }

    async fn look(
        &self,
        client: &mut Client,
        parties: (SessionId, SessionId),
        since: Option<Generation>,
    ) -> Result<Pair, Failure> {
        let (now, mut slices) = of_session(client, &self.target, parties.0).await?;
        slices.extend(of_session(client, &self.target, parties.1).await?.1);
        if let Some(since) = since.filter(|since| *since > now) {
            return Err(Failure::usage(format!(
                "{} is at generation {now}, before {since}; --since is the one that `slice shift` printed first",
                self.target
            )));
        }
        Ok(Pair::new(parties, since.unwrap_or(now), slices))
    }

    /// Moves these slices, a few at once. Ends when all have been begun; with `--wait`, when the
    /// receiver owns them.
    async fn carry_out(
        &self,
        client: &mut Client,
        parties: (SessionId, SessionId),
        since: Generation,
        slices: &[Slice],
    ) -> Result<(), Failure> {
        let (target, count) = (&self.target, slices.len());
        let mut begun = 0;
        let done = until(self.wait.unwrap_or(BEGIN_WITHIN), async || {
            let pair = self.look(client, parties, Some(since)).await?;
            let progress = format!("{begun} of {count} handoffs begun, {} open", pair.open);
            if begun < count {
                for slice in slices[begun..]
                    .iter()
                    .take(AT_ONCE.saturating_sub(pair.open))
                {
                    let which = SliceToMove::Exactly(*slice);
                    match begin(client, target, which, MoveTo::Session(pair.to)).await {
                        Ok(_) => begun += 1,
                        // Its owner is about to have its state, say.
                        Err(failure) if failure.passes() && pair.here.contains(slice) => {
                            return Ok(Look::Slow(progress, failure.to_string()));
                        }
                        Err(failure) => return Err(failure),
                    }
                }
                return Ok(Look::NotYet(progress));
            }
            match self.wait {
                Some(_) if pair.open > 0 => Ok(Look::NotYet(progress)),
                Some(_) => pair.all_arrived(slices).map(Look::Done),
                None => Ok(Look::Done(())),
            }
        })
        .await;
        done.map_err(|failure| match begun {
            0 => failure,
            _ => failure.with(&format!(
                "; {begun} of {count} were begun, counted from --since {since}"
            )),
        })
    }
}

/// What was shifted.
#[derive(Serialize)]
pub struct Shifted {
    /// In words.
    pub done: String,
    /// Of which target.
    pub target: String,
    /// The session that owned the slices.
    pub from: String,
    /// The session that they were given.
    pub to: String,
    /// The share that was asked for; null when shifted back.
    pub share: Option<String>,
    /// Slices that `to` owns since this generation count as shifted.
    pub since: String,
    /// How many slices the share is of: those of `from`, and those shifted.
    pub slices: usize,
    /// How many of them were shifted before.
    pub already: usize,
    /// Those that this command shifted.
    pub shifted: Vec<SliceRange>,
    /// `to` owns them; otherwise their handoffs are begun.
    pub completed: bool,
    /// The target is held: the planner does not undo it.
    pub held: bool,
}

/// A slice by its ends.
#[derive(Serialize)]
pub struct SliceRange {
    /// The lowest slice key.
    pub first: String,
    /// The highest slice key, included.
    pub last: String,
}

impl From<&Slice> for SliceRange {
    fn from(slice: &Slice) -> Self {
        Self {
            first: slice.first().to_string(),
            last: slice.last().to_string(),
        }
    }
}

impl Report for Shifted {
    fn human(&self) -> String {
        let mut lines = vec![self.done.clone()];
        if !self.shifted.is_empty() {
            let mut table = Table::new(&["FIRST", "LAST"]);
            for slice in &self.shifted {
                table.row([slice.first.clone(), slice.last.clone()]);
            }
            lines.push(table.to_string());
        }
        if let Some(share) = &self.share {
            let again = format!(
                "leasehold slice shift {} --from {} --to {}",
                self.target, self.from, self.to
            );
            lines.push(format!(
                "more than {share}: {again} --share PERCENT --since {}",
                self.since
            ));
            lines.push(format!(
                "all of it back: {again} --back --since {}",
                self.since
            ));
        }
        if !self.held {
            lines.push(format!(
                "{} is not held: the planner evens counts out again; `leasehold target hold {} --reason TEXT` keeps them",
                self.target, self.target
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
