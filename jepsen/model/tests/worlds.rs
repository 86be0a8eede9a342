//! The smallest worlds are searched to their end, are safe and live, and show what they are for.

use leasehold_model::search::{Options, Report, explore};
use leasehold_model::world::{SIGHTS, Seen};
use leasehold_model::worlds::find;

fn searched(world: &str) -> Report {
    let bounds = find(world).expect("a world of this name");
    let report = explore(bounds, Options::default());
    let broken = report.broken.as_ref().map(|broken| broken.trace.join("\n"));
    assert_eq!(broken, None, "{world}");
    assert!(report.complete, "{world}: not searched to its end");
    let wanted = bounds.live.then_some(0);
    assert_eq!(report.stuck, wanted, "{world}: states without a way on");
    println!("{world}: {} states, depth {}", report.states, report.depth);
    report
}

fn reached(report: &Report, sights: &[Seen]) {
    for (count, (sight, name)) in report.sights.iter().zip(SIGHTS) {
        let wanted = sights.contains(sight);
        assert!(!wanted || *count > 0, "never reached: {name}");
    }
}

#[test]
fn a_handoff_ends_in_every_way_that_the_rules_know() {
    let report = searched("handoff");
    reached(
        &report,
        &[
            Seen::ACCEPTED_DIRECTLY,
            Seen::SURRENDER_TOO_EARLY_OR_LATE,
            Seen::COMPLETED_BY_WORD,
            Seen::COMPLETED_BY_EXPIRY,
            Seen::COMPLETED_VACANT,
            Seen::CANCELLED,
            Seen::EXPIRED,
        ],
    );
}

#[test]
fn a_source_that_waits_for_a_tick_only_refuses_or_surrenders_but_never_both() {
    reached(
        &searched("impatient"),
        &[Seen::CANCELLED, Seen::ACCEPTED_DIRECTLY],
    );
}

#[test]
fn a_new_leader_waits_and_then_expires_whom_it_has_not_answered() {
    reached(&searched("election"), &[Seen::NEW_LEADER_WAITED]);
}

/// A planted bug is found, in the world that is meant to show it.
#[cfg(leasehold_mutants)]
#[test]
fn planted_bugs_are_caught() {
    use leasehold_model::mutants::{Verdict, catch};
    for mutant in [
        "check_after_deadline",
        "wait_without_drift",
        "no_quorum_confirm",
        "expiring_session_answered",
        "closing_of_destination_ends_handoff",
        "expiry_of_source_vacates",
    ] {
        let verdict = catch(mutant, 400_000);
        assert!(
            matches!(verdict, Verdict::Caught(_)),
            "{mutant}: {verdict:?}"
        );
    }
}
