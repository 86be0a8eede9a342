//! Plants each bug of `leasehold_proto::mutants` and demands that it is caught: by the scripted test
//! of the rule that it leaves out and, where random schedules can show it, by those too.
//!
//! `RUSTFLAGS='--cfg leasehold_mutants' CARGO_TARGET_DIR=target/mutants cargo test -p leasehold-proto --test mutants`
#![cfg(leasehold_mutants)]

#[path = "rules/arming.rs"]
mod arming;
#[path = "rules/clock.rs"]
mod clock;
#[path = "rules/handoff.rs"]
mod handoff;
#[path = "rules/script.rs"]
mod script;
#[path = "rules/sessions.rs"]
mod sessions;
mod world;

use leasehold_proto::mutants::plant;

/// A planted bug, the test of its rule, and whether random schedules can show it: not where another
/// rule stands in front.
struct Mutant(&'static str, Option<fn()>, bool);

/// Schedules that may pass before one fails.
const BUDGET: u64 = 40_000;

#[rustfmt::skip]
const MUTANTS: &[Mutant] = &[
    Mutant("deadline_from_receipt", Some(clock::the_deadline_counts_from_t0_not_from_receipt), true),
    Mutant("retry_under_the_same_seq", Some(clock::every_transmission_has_its_own_seq_and_t0), true),
    Mutant("check_after_deadline", Some(clock::no_check_passes_at_the_deadline_or_after), true),
    Mutant("new_leader_does_not_wait", Some(clock::a_new_leader_waits_d_with_the_drift_of_both_clocks), true),
    Mutant("wait_without_drift", Some(clock::a_new_leader_waits_d_with_the_drift_of_both_clocks), true),
    // Mistakes of the shell, which keeps the Grantor and reads the clock: only a world has one.
    Mutant("leader_memory_kept_across_terms", None, true),
    Mutant("wait_counted_from_candidacy", None, true),
    Mutant("expiring_session_answered", Some(clock::an_expiring_session_is_answered_no_more), true),
    Mutant("answers_before_own_term", Some(clock::nothing_is_answered_before_an_entry_of_the_own_term_is_applied), true),
    Mutant("no_quorum_confirm", Some(clock::nothing_is_answered_without_a_quorum_round), true),
    Mutant("answers_what_came_after_the_round_began", Some(clock::a_round_answers_only_what_arrived_before_it_began), false),
    Mutant("expiry_across_terms", Some(clock::an_expiry_decided_in_another_term_is_rejected), true),
    Mutant("view_applied_backwards", Some(sessions::a_view_never_goes_backwards), true),
    Mutant("diff_applied_over_a_gap", Some(sessions::a_difference_fits_only_onto_what_it_begins_at), false),
    Mutant("not_before_ignored", Some(sessions::a_session_applies_no_view_older_than_its_registration), false),
    Mutant("surrender_before_drain", Some(handoff::a_source_surrenders_only_when_drained), true),
    Mutant("surrender_of_another_handoff", Some(handoff::a_destination_owns_by_the_surrender_of_exactly_the_handoff_in_its_present_view), true),
    Mutant("refusal_forgotten", Some(handoff::a_refusal_is_remembered_and_final), true),
    Mutant("no_epoch_floor", Some(handoff::a_surrendered_epoch_is_never_held_again_whatever_a_view_shows), false),
    Mutant("words_said_once", Some(handoff::words_are_repeated_in_every_renewal_until_the_handoff_has_ended), true),
    Mutant("open_handoff_replaced", Some(handoff::an_open_handoff_is_never_replaced_split_merged_or_granted_over), true),
    Mutant("expiry_of_source_vacates", Some(handoff::the_expiry_of_the_source_completes_to_a_live_destination), true),
    Mutant("closing_of_destination_ends_handoff", Some(handoff::the_closing_of_the_destination_does_not_end_a_handoff), true),
    Mutant("completes_to_closed_destination", Some(handoff::completing_to_a_closed_destination_vacates), true),
    Mutant("cancel_without_word_of_source", Some(handoff::only_the_word_of_the_source_ends_a_handoff_without_effect), true),
    Mutant("words_of_another_session", Some(handoff::a_word_counts_only_from_the_session_that_has_the_part), false),
    Mutant("speaks_for_another_session", Some(handoff::a_process_speaks_only_for_the_session_that_it_holds_now), false),
    Mutant("ghosts_dropped", Some(arming::arming_waits_for_ghosts), true),
    Mutant("older_arming_ack_counted", Some(arming::only_an_acknowledgement_of_this_arming_counts), true),
    Mutant("eventual_moves_while_arming", Some(arming::while_arming_ownership_moves_only_by_the_strong_rules), true),
    Mutant("arming_acked_unchecked", Some(arming::an_acknowledgement_follows_applying_the_view_and_checking_leases), true),
];

fn fails_under(mutant: &'static str, rule: fn()) -> bool {
    let planted = std::thread::spawn(move || {
        plant(Some(mutant));
        rule();
    });
    planted.join().is_err()
}

#[test]
fn each_mutant_fails_the_test_of_its_rule() {
    std::panic::set_hook(Box::new(|_| {}));
    let rules = MUTANTS
        .iter()
        .filter_map(|Mutant(name, rule, _)| Some((*name, (*rule)?)));
    let missed: Vec<&str> = rules
        .filter(|(name, rule)| !fails_under(name, *rule))
        .map(|(name, _)| name)
        .collect();
    let _ = std::panic::take_hook();
    assert!(
        missed.is_empty(),
        "not caught by the test of the rule: {missed:?}"
    );
}

#[test]
fn random_schedules_catch_mutants() {
    let mut missed = Vec::new();
    for Mutant(name, _, by_schedules) in MUTANTS {
        if !by_schedules {
            continue;
        }
        let run = |seed| {
            plant(Some(name));
            world::run(seed, world::STEPS)
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
