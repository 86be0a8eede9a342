//! Planted bugs, and the worlds that can show each.

use std::time::Duration;

/// What became of a planted bug.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// A world showed it.
    Caught(Caught),
    /// None of its worlds showed it within the budget.
    NotCaught {
        /// The worlds searched.
        worlds: Vec<&'static str>,
        /// States of all of them together.
        states: usize,
        /// How long that took.
        took: Duration,
    },
    /// No world of the model can show it.
    NotApplicable(&'static str),
}

/// How a planted bug was shown.
#[derive(Clone, Debug)]
pub struct Caught {
    /// In which world.
    pub world: &'static str,
    /// The invariant that it broke.
    pub what: String,
    /// Steps to there.
    pub steps: usize,
    /// States until then, in all worlds searched.
    pub states: usize,
    /// How long it took.
    pub took: Duration,
    /// The steps, for a person.
    pub trace: Vec<String>,
}

/// A mutant of `leasehold_proto::mutants` and the worlds to look for it in; none, with the reason.
type Entry = (&'static str, Result<&'static [&'static str], &'static str>);

/// Every mutant of the protocol.
#[rustfmt::skip]
pub const MUTANTS: &[Entry] = &[
    ("deadline_from_receipt", Ok(&["late"])),
    ("retry_under_the_same_seq", Ok(&["late"])),
    ("check_after_deadline", Ok(&["late"])),
    ("new_leader_does_not_wait", Ok(&["election"])),
    ("wait_without_drift", Ok(&["drift"])),
    ("leader_memory_kept_across_terms", Ok(&["terms"])),
    ("wait_counted_from_candidacy", Ok(&["election"])),
    ("expiring_session_answered", Ok(&["terms"])),
    ("answers_before_own_term", Ok(&["deposed"])),
    ("no_quorum_confirm", Ok(&["deposed"])),
    ("answers_what_came_after_the_round_began", Ok(&["deposed"])),
    ("expiry_across_terms", Ok(&["terms"])),
    ("view_applied_backwards", Ok(&["back"])),
    ("diff_applied_over_a_gap", Err("a difference begins at what its receiver knew, and views do not go back: no gap comes about")),
    ("not_before_ignored", Err("a process that has just registered has no session under which an older view could reach it")),
    ("surrender_before_drain", Ok(&["cancel"])),
    ("surrender_of_another_handoff", Ok(&["again"])),
    ("refusal_forgotten", Ok(&["cancel"])),
    ("no_epoch_floor", Err("behind the handoff's own state: a surrendered slice is not served while its handoff is in the view")),
    ("words_said_once", Ok(&["handoff", "cancel"])),
    ("open_handoff_replaced", Ok(&["replace"])),
    ("expiry_of_source_vacates", Ok(&["handoff"])),
    ("closing_of_destination_ends_handoff", Ok(&["handoff"])),
    ("completes_to_closed_destination", Ok(&["handoff"])),
    ("cancel_without_word_of_source", Ok(&["cancel"])),
    ("words_of_another_session", Err("behind the Holder, which speaks for its own session only")),
    ("speaks_for_another_session", Err("behind the view: a handoff of another session is not in it with that part")),
    ("ghosts_dropped", Ok(&["arming"])),
    ("older_arming_ack_counted", Ok(&["flips"])),
    ("eventual_moves_while_arming", Ok(&["arming"])),
    ("arming_acked_unchecked", Ok(&["arming"])),
];

/// Plants a bug and searches the worlds that can show it, until one does; `budget_states` bounds
/// each search.
#[cfg(leasehold_mutants)]
pub fn catch(mutant: &str, budget_states: usize) -> Verdict {
    use crate::search::{Options, explore};
    let Some((name, worlds)) = MUTANTS.iter().find(|(name, _)| *name == mutant) else {
        return Verdict::NotApplicable("no mutant of the protocol");
    };
    let worlds = match worlds {
        Ok(worlds) => *worlds,
        Err(why) => return Verdict::NotApplicable(why),
    };
    let (mut states, begun) = (0, std::time::Instant::now());
    for world in worlds {
        let Some(bounds) = crate::worlds::find(world) else {
            continue;
        };
        let report = explore(
            bounds,
            Options {
                max_states: budget_states,
                mutant: Some(*name),
                ..Options::default()
            },
        );
        states += report.states;
        if let Some(broken) = report.broken {
            return Verdict::Caught(Caught {
                world: *world,
                what: broken.what,
                steps: broken.steps,
                states,
                took: begun.elapsed(),
                trace: broken.trace,
            });
        }
    }
    Verdict::NotCaught {
        worlds: worlds.to_vec(),
        states,
        took: begun.elapsed(),
    }
}
