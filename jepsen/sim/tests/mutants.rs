//! Plants each bug of `leasehold_proto::mutants` and demands that random schedules notice it.
//!
//! `RUSTFLAGS='--cfg leasehold_mutants' CARGO_TARGET_DIR=target/mutants cargo test -p leasehold-sim --test mutants`
#![cfg(leasehold_mutants)]

use leasehold_proto::mutants::plant;

/// A planted bug, and whether random schedules can show it: not where another
/// rule stands in front.
struct Mutant(&'static str, bool);

/// Schedules that may pass before one fails.
const BUDGET: u64 = 40_000;

#[rustfmt::skip]
const MUTANTS: &[Mutant] = &[
    Mutant("deadline_from_receipt", true),
    Mutant("retry_under_the_same_seq", true),
    Mutant("check_after_deadline", true),
    Mutant("new_leader_does_not_wait", true),
    Mutant("wait_without_drift", true),
    // Mistakes of the shell, which keeps the Grantor and reads the clock: only a world has one.
    Mutant("leader_memory_kept_across_terms", true),
    Mutant("wait_counted_from_candidacy", true),
    Mutant("expiring_session_answered", true),
    Mutant("answers_before_own_term", true),
    Mutant("no_quorum_confirm", true),
    Mutant("answers_what_came_after_the_round_began", false),
    Mutant("expiry_across_terms", true),
    Mutant("view_applied_backwards", true),
    Mutant("diff_applied_over_a_gap", false),
    Mutant("not_before_ignored", false),
    Mutant("surrender_before_drain", true),
    Mutant("surrender_of_another_handoff", true),
    Mutant("refusal_forgotten", true),
    Mutant("no_epoch_floor", false),
    Mutant("words_said_once", true),
    Mutant("open_handoff_replaced", true),
    Mutant("expiry_of_source_vacates", true),
    Mutant("closing_of_destination_ends_handoff", true),
    Mutant("completes_to_closed_destination", true),
    Mutant("cancel_without_word_of_source", true),
    Mutant("words_of_another_session", false),
    Mutant("speaks_for_another_session", false),
    Mutant("ghosts_dropped", true),
    Mutant("older_arming_ack_counted", true),
    Mutant("eventual_moves_while_arming", true),
    Mutant("arming_acked_unchecked", true),
];

#[test]
fn random_schedules_catch_mutants() {
    let mut missed = Vec::new();
    for Mutant(name, by_schedules) in MUTANTS {
        if !by_schedules {
            continue;
        }
        let run = |seed| {
            plant(Some(name));
            leasehold_sim::run(seed, leasehold_sim::STEPS)
        };
        let caught = (1..=BUDGET).find_map(|seed| Some((seed, run(seed).err()?)));
        plant(None);
        match caught {
            Some((seed, failure)) => {
                let how = failure.rsplit_once("}: ").map_or("", |(_, how)| how);
                println!(
                    "{name}: schedule {seed}: {}",
                    how.chars().take(90).collect::<String>()
                );
            }
            None => missed.push(*name),
        }
    }
    assert!(
        missed.is_empty(),
        "not caught by random schedules: {missed:?}"
    );
}
