//! Plants each bug of `leasehold_proto::mutants` and demands that the scripted test of the rule that
//! it leaves out fails. That random schedules notice it too is shown in `jepsen/sim`, as are the
//! mistakes of a shell, which only a world has.
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
#[path = "rules/transfer.rs"]
mod transfer;

use leasehold_proto::mutants::{plant, record};

/// A planted bug, and the test of its rule.
struct Mutant(&'static str, fn());

#[rustfmt::skip]
const MUTANTS: &[Mutant] = &[
    Mutant("deadline_from_receipt", clock::the_deadline_counts_from_t0_not_from_receipt),
    Mutant("retry_under_the_same_seq", clock::every_transmission_has_its_own_seq_and_t0),
    Mutant("check_after_deadline", clock::no_check_passes_at_the_deadline_or_after),
    Mutant("new_leader_does_not_wait", clock::a_new_leader_waits_d_with_the_drift_of_both_clocks),
    Mutant("wait_without_drift", clock::a_new_leader_waits_d_with_the_drift_of_both_clocks),
    Mutant("expiring_session_answered", clock::an_expiring_session_is_answered_no_more),
    Mutant("answers_before_own_term", clock::nothing_is_answered_before_an_entry_of_the_own_term_is_applied),
    Mutant("no_quorum_confirm", clock::nothing_is_answered_without_a_quorum_round),
    Mutant("answers_what_came_after_the_round_began", clock::a_round_answers_only_what_arrived_before_it_began),
    Mutant("expiry_across_terms", clock::an_expiry_decided_in_another_term_is_rejected),
    Mutant("view_applied_backwards", sessions::a_view_never_goes_backwards),
    Mutant("diff_applied_over_a_gap", sessions::a_difference_fits_only_onto_what_it_begins_at),
    Mutant("not_before_ignored", sessions::a_session_applies_no_view_older_than_its_registration),
    Mutant("surrender_before_drain", handoff::a_source_surrenders_only_when_drained),
    Mutant("surrender_of_another_handoff", handoff::a_destination_owns_by_the_surrender_of_exactly_the_handoff_in_its_present_view),
    Mutant("refusal_forgotten", handoff::a_refusal_is_remembered_and_final),
    Mutant("no_epoch_floor", handoff::a_surrendered_epoch_is_never_held_again_whatever_a_view_shows),
    Mutant("words_said_once", handoff::words_are_repeated_in_every_renewal_until_the_handoff_has_ended),
    Mutant("open_handoff_replaced", handoff::an_open_handoff_is_never_replaced_split_merged_or_granted_over),
    Mutant("expiry_of_source_vacates", handoff::the_expiry_of_the_source_completes_to_a_live_destination),
    Mutant("closing_of_destination_ends_handoff", handoff::the_closing_of_the_destination_does_not_end_a_handoff),
    Mutant("completes_to_closed_destination", handoff::completing_to_a_closed_destination_vacates),
    Mutant("cancel_without_word_of_source", handoff::only_the_word_of_the_source_ends_a_handoff_without_effect),
    Mutant("words_of_another_session", handoff::a_word_counts_only_from_the_session_that_has_the_part),
    Mutant("speaks_for_another_session", handoff::a_process_speaks_only_for_the_session_that_it_holds_now),
    Mutant("ghosts_dropped", arming::arming_waits_for_ghosts),
    Mutant("older_arming_ack_counted", arming::only_an_acknowledgement_of_this_arming_counts),
    Mutant("eventual_moves_while_arming", arming::while_arming_ownership_moves_only_by_the_strong_rules),
    Mutant("arming_acked_unchecked", arming::an_acknowledgement_follows_applying_the_view_and_checking_leases),
    Mutant("state_of_older_epoch_accepted", transfer::frames_of_an_older_transfer_are_refused),
    Mutant("state_applied_twice", transfer::a_frame_is_taken_in_once),
    Mutant("state_frame_dropped", transfer::no_frame_is_left_out),
    Mutant("merge_drops_the_proof", transfer::slices_are_merged_only_when_the_state_they_came_with_was_taken_in),
    Mutant("state_digest_ignored", transfer::state_is_complete_only_if_both_ends_have_the_same_bytes),
];

fn fails_under(mutant: &'static str, rule: fn()) -> bool {
    let begun = std::time::Instant::now();
    let planted = std::thread::spawn(move || {
        plant(Some(mutant));
        rule();
    });
    let failed = planted.join();
    let how = match &failed {
        Ok(()) => "",
        Err(panic) => panic
            .downcast_ref::<String>()
            .map_or("the test of its rule", String::as_str),
    };
    let seconds = begun.elapsed().as_secs_f64();
    record(mutant, "rules", failed.is_err(), how, seconds);
    failed.is_err()
}

#[test]
fn each_mutant_fails_the_test_of_its_rule() {
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<&str> = MUTANTS
        .iter()
        .filter(|Mutant(name, rule)| !fails_under(name, *rule))
        .map(|Mutant(name, _)| *name)
        .collect();
    let _ = std::panic::take_hook();
    assert!(
        missed.is_empty(),
        "not caught by the test of the rule: {missed:?}"
    );
}
