//! Planted bugs, and whether random schedules notice them. Only under `--cfg leasehold_mutants`.
//!
//! Those of the machines stand in `leasehold_proto::mutants` and are planted there; the others are
//! mistakes that only a shell or an application can make, and stand in the world of this package.

use leasehold_proto::mutants::plant;

use crate::{Options, run};

/// Whose mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rule of a machine is left out.
    Machine,
    /// The shell around a machine, or an operator, does wrong.
    Shell,
    /// The application does not do what the guarantees ask of it.
    Application,
}

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// As it is planted.
    pub name: &'static str,
    /// Whose mistake.
    pub kind: Kind,
    /// Why random schedules cannot show it, where they cannot; the test of its rule must.
    pub hidden: Option<&'static str>,
}

const fn machine(name: &'static str) -> Mutant {
    Mutant {
        name,
        kind: Kind::Machine,
        hidden: None,
    }
}

const fn hidden(name: &'static str, why: &'static str) -> Mutant {
    Mutant {
        name,
        kind: Kind::Machine,
        hidden: Some(why),
    }
}

const fn shell(name: &'static str) -> Mutant {
    Mutant {
        name,
        kind: Kind::Shell,
        hidden: None,
    }
}

const fn application(name: &'static str) -> Mutant {
    Mutant {
        name,
        kind: Kind::Application,
        hidden: None,
    }
}

/// Every planted bug that has to do with what this world contains.
pub const MUTANTS: &[Mutant] = &[
    machine("deadline_from_receipt"),
    machine("retry_under_the_same_seq"),
    machine("check_after_deadline"),
    machine("new_leader_does_not_wait"),
    machine("wait_without_drift"),
    machine("expiring_session_answered"),
    machine("answers_before_own_term"),
    machine("no_quorum_confirm"),
    hidden(
        "answers_what_came_after_the_round_began",
        "needs a deposed leader whose table lags for most of a D while its round is confirmed already: too rare",
    ),
    machine("expiry_across_terms"),
    machine("view_applied_backwards"),
    hidden(
        "diff_applied_over_a_gap",
        "a difference begins at what its receiver said it knew",
    ),
    hidden(
        "not_before_ignored",
        "a view of before the registration gives the new session nothing",
    ),
    machine("surrender_before_drain"),
    machine("surrender_of_another_handoff"),
    machine("refusal_forgotten"),
    hidden(
        "no_epoch_floor",
        "what is surrendered is remembered by handoff until the view shows its end",
    ),
    machine("words_said_once"),
    machine("open_handoff_replaced"),
    machine("expiry_of_source_vacates"),
    machine("closing_of_destination_ends_handoff"),
    machine("completes_to_closed_destination"),
    machine("cancel_without_word_of_source"),
    hidden(
        "words_of_another_session",
        "no process here says the words of a session that is not its own",
    ),
    hidden(
        "speaks_for_another_session",
        "messages about handoffs lead nowhere once the view has gone with the session",
    ),
    machine("ghosts_dropped"),
    machine("older_arming_ack_counted"),
    machine("eventual_moves_while_arming"),
    machine("arming_acked_unchecked"),
    shell("leader_memory_kept_across_terms"),
    shell("wait_counted_from_candidacy"),
    shell("restore_does_not_wait"),
    shell("closes_before_it_stops"),
    shell("unreachable_taken_for_dead"),
    shell("clock_rate_beyond_the_bound"),
    shell("lease_clock_is_the_wall_clock"),
    shell("clock_stops_in_suspend"),
    application("store_without_fence"),
    application("fence_after_read"),
    shell("verify_always_passes"),
    application("application_does_not_verify"),
    application("guards_outlive_the_surrender"),
    application("memory_kept_across_tokens"),
    application("reply_before_effect"),
    application("retry_as_a_new_write"),
    machine("state_of_older_epoch_accepted"),
    machine("state_applied_twice"),
    machine("state_frame_dropped"),
    machine("state_digest_ignored"),
    machine("merge_drops_the_proof"),
    shell("surrender_before_last_change"),
    shell("state_served_without_proof"),
    shell("state_kept_after_loss"),
    shell("acknowledged_before_taken_in"),
];

/// A schedule that does not heal tells little: so many more are played to see one that breaks what
/// was promised.
const PREFER_SAFETY: u64 = 1_000;

/// Plants `mutant` and plays schedules until one fails: its seed, and how. `None` when `budget`
/// schedules noticed nothing.
pub fn catch(mutant: &'static str, budget: u64) -> Option<(u64, String)> {
    plant(Some(mutant));
    let mut caught: Option<(u64, String)> = None;
    for seed in 1..=budget {
        if caught
            .as_ref()
            .is_some_and(|(first, _)| seed > first + PREFER_SAFETY)
        {
            break;
        }
        let Err(failure) = run(seed, &Options::default()) else {
            continue;
        };
        let how = format!("{}: {}", failure.invariant, failure.what);
        let safety = !failure.invariant.contains("once nothing goes wrong");
        if safety || caught.is_none() {
            caught = Some((seed, how));
        }
        if safety {
            break;
        }
    }
    plant(None);
    caught
}
