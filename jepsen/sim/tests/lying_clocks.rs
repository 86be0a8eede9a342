//! Positive control and its complement: with clocks beyond their bound two owners serve at once,
//! and still no store that rejects old tokens loses a change.

use leasehold_sim::{Coverage, Options, run};

#[test]
fn clocks_beyond_their_bound_give_two_owners_but_the_fence_holds() {
    let options = Options {
        clocks_lie: true,
        ..Options::default()
    };
    let mut total = Coverage::default();
    for seed in 1..=300 {
        match run(seed, &options) {
            Ok(coverage) => total.add(&coverage),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(
        total.overlaps_of_lying_clocks > 0,
        "a checker of overlaps that sees none here sees nothing"
    );
}
