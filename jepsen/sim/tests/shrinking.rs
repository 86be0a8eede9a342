//! A failed schedule is made small, and its replay command fails in the same way.
//!
//! `RUSTFLAGS='--cfg leasehold_mutants' CARGO_TARGET_DIR=target/mutants cargo test -p leasehold-sim --test shrinking`
#![cfg(leasehold_mutants)]

use leasehold_proto::mutants::plant;
use leasehold_sim::{Options, run, shrink};

#[test]
fn a_failed_schedule_is_made_small_and_fails_in_the_same_way() {
    plant(Some("deadline_from_receipt"));
    let failure = (1..=1_000).find_map(|seed| run(seed, &Options::default()).err());
    let failure = failure.expect("the mutant is caught");
    let small = shrink(&failure);
    let events = small.options.only.as_ref().map(Vec::len);
    assert!(
        events.is_some_and(|events| events < 100),
        "{events:?} events are left"
    );
    let again = run(small.seed, &small.options).expect_err("it fails again");
    plant(None);
    assert_eq!(again.invariant, failure.invariant);
    assert_eq!(again.trace, small.trace);
    assert!(
        small
            .to_string()
            .contains("replay: leasehold-sim run --seed")
    );
}
