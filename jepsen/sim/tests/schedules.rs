//! Random schedules of the machines together: after every step the invariants of the protocol hold,
//! and once nothing goes wrong any more everything is served again.
//!
//! `LEASEHOLD_SEEDS=N` runs N schedules, `LEASEHOLD_STEPS=N` makes them longer; `LEASEHOLD_SEED=S` replays one, and with
//! `LEASEHOLD_TRACE=1` prints what happened in it.

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

#[test]
fn no_schedule_breaks_an_invariant_or_leaves_a_slice_unserved() {
    let steps = number("LEASEHOLD_STEPS").unwrap_or(leasehold_sim::STEPS);
    if let Some(seed) = number("LEASEHOLD_SEED") {
        println!(
            "{:?}",
            leasehold_sim::run(seed, steps).unwrap_or_else(|failure| panic!("{failure}"))
        );
        return;
    }
    let first = number("LEASEHOLD_FIRST_SEED").unwrap_or(1);
    let mut total = leasehold_sim::Stats::default();
    for seed in first..first + number("LEASEHOLD_SEEDS").unwrap_or(1_000) {
        match leasehold_sim::run(seed, steps) {
            Ok(stats) => total.add(stats),
            Err(failure) => panic!(
                "{failure}\nreplay: LEASEHOLD_SEED={seed} LEASEHOLD_TRACE=1 cargo test -p leasehold-sim --test schedules"
            ),
        }
    }
    println!("{total:?}");
    let rare = [
        total.completed,
        total.cancelled,
        total.direct_accepts,
        total.expired,
        total.armed,
        total.terms,
        total.restores,
    ];
    assert!(
        rare.iter().all(|count| *count > 0),
        "the schedules are idle: {total:?}"
    );
}
