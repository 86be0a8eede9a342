//! Planted bugs of the replica, and whether the world notices them. Only in builds with
//! `--cfg leasehold_mutants`.

use crate::process;
use crate::world::Options;

/// Name of a planted bug, and the rule that it leaves out.
pub const MUTANTS: &[(&str, &str)] = &[
    ("sync_skipped", "what is acknowledged was synced"),
    (
        "entries_acknowledged_before_their_sync",
        "entries count only once they are synced",
    ),
    (
        "vote_not_persisted",
        "a vote is on the disk before anybody hears of it",
    ),
    (
        "conflicting_entries_left_on_disk",
        "entries that another leader replaced are gone",
    ),
    (
        "acknowledged_before_commit",
        "a proposal is acknowledged when it is committed and applied",
    ),
    (
        "unknown_outcome_called_a_failure",
        "three outcomes, never two",
    ),
    ("proposal_repeated", "a proposal is appended at most once"),
    (
        "proposal_of_an_old_term",
        "a proposal bound to a term is appended in no other",
    ),
    (
        "confirmed_without_a_quorum",
        "a confirmation asks a quorum after it was asked for",
    ),
    (
        "confirmed_before_applied",
        "a confirmation waits until its position is applied",
    ),
    (
        "position_written_before_effects",
        "effects and position are written in one batch",
    ),
    (
        "snapshot_without_its_members",
        "a snapshot carries the members as of its position",
    ),
    (
        "snapshot_without_its_records",
        "a snapshot replaces the records",
    ),
];

/// How a planted bug was noticed.
#[derive(Clone, Debug)]
pub struct Caught {
    /// In which world.
    pub seed: u64,
    /// By which rule.
    pub invariant: String,
    /// In words.
    pub why: String,
}

/// Runs up to `budget` worlds, from seed 1 on, with the planted bug `mutant`, until one notices.
/// `None`: it went unnoticed. A world that could not be judged notices nothing.
///
/// The worlds run in processes of the program `leasehold-sim-cluster`, which must be this one or
/// stand beside it, built with `--cfg leasehold_mutants`.
pub fn catch(mutant: &str, budget: u64) -> Option<Caught> {
    let options = Options {
        faults_for_ms: 12_000,
        ..Options::default()
    };
    catch_with(mutant, budget, options)
}

/// Like [`catch`], with worlds of another kind.
pub fn catch_with(mutant: &str, budget: u64, options: Options) -> Option<Caught> {
    (1..=budget).find_map(|seed| {
        let judged = process::run(seed, options, Some(mutant));
        let report = judged
            .inspect_err(|why| eprintln!("seed {seed}: unknown: {why}"))
            .ok()?;
        let (invariant, why, _) = report.violation?;
        Some(Caught {
            seed,
            invariant,
            why,
        })
    })
}
