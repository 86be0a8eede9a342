//! What clients propose: commands of the lease table that make sense of what it shows, and some
//! that do not.

use std::time::Duration;

use leasehold_proto::clock::ClockClass;
use leasehold_proto::command::{CloseProof, Command, EndWord, PlanStep};
use leasehold_proto::table::{LeaseTable, TargetState};
use leasehold_proto::target::{PodAddress, SessionSecret, Squid, TargetConfig, TargetName};
use leasehold_proto::{SessionId, Slice};

use crate::random::Random;

/// Sessions beyond which no more are registered.
const SESSIONS: usize = 8;
/// Slices of a new target.
const SLICES: u32 = 6;

/// A command for a table that looks like this, as a leader of `term` would decide it.
pub(crate) fn next(table: &LeaseTable, term: u64, random: &mut Random) -> Option<Command> {
    let name = TargetName::new("cart").ok()?;
    let Some(state) = table.target(&name) else {
        return Some(Command::CreateTarget {
            target: name,
            config: TargetConfig {
                ttl: Duration::from_secs(2),
                ..TargetConfig::default()
            },
            initial_slices: SLICES,
        });
    };
    let sessions: Vec<SessionId> = state.live_sessions().map(|session| session.id).collect();
    if sessions.len() < 3 || (sessions.len() < SESSIONS && random.chance(0.1)) {
        return register(name, random);
    }
    match random.below(10) {
        0 => Some(Command::ExpireSession {
            target: name,
            session: *random.pick(&sessions)?,
            term,
            successors: Vec::new(),
        }),
        1 => Some(Command::CloseSession {
            target: name,
            session: *random.pick(&sessions)?,
            proof: CloseProof::OwnWord,
        }),
        2..=4 => word(state, random).or_else(|| plan(state, &sessions, random)),
        _ => plan(state, &sessions, random),
    }
}

fn register(target: TargetName, random: &mut Random) -> Option<Command> {
    let secret = random.bytes();
    Some(Command::RegisterSession {
        target,
        squid: Squid {
            address: PodAddress::new("pod:9000").ok()?,
            id: u128::from_le_bytes(random.bytes()),
        },
        clock: ClockClass::Raw,
        secret: SessionSecret::from_bytes(secret),
        app_version: String::new(),
    })
}

/// A word of a party of an open handoff.
fn word(state: &TargetState, random: &mut Random) -> Option<Command> {
    let open: Vec<_> = state.handoffs().collect();
    let (_, from, handoff) = random.pick(&open)?;
    let target = state.name().clone();
    Some(match random.below(3) {
        0 => Command::CompleteHandoff {
            target,
            handoff: handoff.id,
            word: EndWord::Surrendered(from.session),
            digest: None,
        },
        1 => Command::CompleteHandoff {
            target,
            handoff: handoff.id,
            word: EndWord::Accepted(handoff.to),
            digest: None,
        },
        _ => Command::CancelHandoff {
            target,
            handoff: handoff.id,
            refused_by: from.session,
        },
    })
}

/// A grant of a vacant slice, a handoff, a split or a merge.
fn plan(state: &TargetState, sessions: &[SessionId], random: &mut Random) -> Option<Command> {
    let slices: Vec<_> = state.slices().collect();
    let place = random.below(slices.len().max(1));
    let (slice, assigned) = slices.get(place)?;
    let to = *random.pick(sessions)?;
    let step = match assigned.owner {
        None => PlanStep::Grant { slice: *slice, to },
        Some(_) if random.chance(0.1) => split(*slice, assigned.owner)?,
        Some(owner) if random.chance(0.1) => PlanStep::Merge {
            left: *slice,
            right: slices.get(place + 1)?.0,
            owner: owner.session,
            // Nothing has state here.
            taken_in: Some(state.generation()),
        },
        Some(from) => PlanStep::BeginHandoff {
            slice: *slice,
            from,
            to,
        },
    };
    Some(Command::ApplyPlan {
        target: state.name().clone(),
        config_version: state.config_version(),
        steps: vec![step],
    })
}

fn split(slice: Slice, owner: Option<leasehold_proto::Lease>) -> Option<PlanStep> {
    let (first, last) = (slice.first().as_u64(), slice.last().as_u64());
    let at = leasehold_proto::SliceKey::from_u64(first + (last - first) / 2 + 1);
    Some(PlanStep::Split { slice, owner, at })
}
