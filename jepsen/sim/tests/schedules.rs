//! Random schedules of the machines together: after every event the invariants of the protocol
//! hold, and once nothing goes wrong any more everything is served again. The short form; the long
//! one is `leasehold-sim run --seeds 1000000`.

use leasehold_sim::{Coverage, Options, Seen, run};

#[test]
fn no_schedule_breaks_an_invariant_or_leaves_a_slice_unserved() {
    let mut total = Coverage::default();
    for seed in 1..=300 {
        match run(seed, &Options::default()) {
            Ok(coverage) => total.add(&coverage),
            Err(failure) => panic!("{failure}"),
        }
    }
    // Some of what it takes a world that is alive to reach.
    for seen in [
        Seen::DirectAccept,
        Seen::CompletedByExpiry,
        Seen::CancelledAfterAsk,
        Seen::ArmingEnded,
        Seen::NewLeaderWaited,
        Seen::Restored,
        Seen::ReadFromMemory,
        Seen::OldFenceRejected,
    ] {
        assert!(total.count(seen) > 0, "never: {}", seen.sentence());
    }
    assert_eq!(total.schedules, 300);
}
