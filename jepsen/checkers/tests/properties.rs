//! What holds of all histories: those of a linearizable object are accepted, and the search agrees
//! with trying every order.

mod support;

use leasehold_checkers::linearizable::{self, Budget, Counter, List, Register};
use leasehold_checkers::verdict::Verdict;
use leasehold_checkers::{History, history, list_append, version_order};
use proptest::prelude::*;
use support::{Kind, Seeded, arbitrary, brute_force, simulated};

fn register(history: &History) -> Verdict {
    linearizable::check(history, &Register::default(), &Budget::default()).verdict
}

/// Without the versions that results carry.
fn stripped(history: &History) -> History {
    let mut plain = history.clone();
    for op in &mut plain.0 {
        let value = op.value.get("value").cloned();
        op.value = value.unwrap_or_else(|| op.value.clone());
    }
    plain
}

/// A failure prints its seed; a history worth keeping becomes a test with a name.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn a_linearizable_register_is_accepted(seed: u64) {
        let history = simulated(seed, Kind::Register, 120);
        prop_assert_eq!(history::validate(&history), Ok(()));
        prop_assert_eq!(register(&history), Verdict::Valid);
        prop_assert_eq!(register(&stripped(&history)), Verdict::Valid);
        let outcome = version_order::check(&history);
        prop_assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
    }

    #[test]
    fn a_linearizable_counter_is_accepted(seed: u64) {
        let history = simulated(seed, Kind::Counter, 60);
        let outcome = linearizable::check(&history, &Counter, &Budget::default());
        prop_assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        prop_assert!(leasehold_checkers::counter::check(&history).verdict != Verdict::Invalid);
    }

    #[test]
    fn a_linearizable_list_is_accepted(seed: u64) {
        let history = simulated(seed, Kind::List, 40);
        let outcome = linearizable::check(&history, &List, &Budget::default());
        prop_assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        prop_assert!(list_append::check(&history).verdict != Verdict::Invalid);
    }

    /// Versions say more than values alone; whatever they rule out, the search rules out too.
    #[test]
    fn what_version_order_calls_invalid_no_search_calls_valid(seed: u64) {
        let mut history = simulated(seed, Kind::Register, 40);
        Seeded::new(seed).mutate_read(&mut history);
        if version_order::check(&history).verdict == Verdict::Invalid {
            prop_assert_eq!(register(&history), Verdict::Invalid);
        }
    }

    /// The window that explains a bad history must itself be bad, and none of it can go.
    #[test]
    fn an_explanation_is_a_bad_history_of_its_own(seed: u64) {
        let mut history = simulated(seed, Kind::Register, 60);
        Seeded::new(seed).mutate_read(&mut history);
        let history = stripped(&history);
        let outcome = linearizable::check(&history, &Register::default(), &Budget::default());
        for finding in &outcome.findings {
            prop_assert_eq!(register(&support::weakened(&history, &finding.ops)), Verdict::Invalid);
            for left_out in 0..finding.ops.len() {
                let mut fewer = finding.ops.clone();
                fewer.remove(left_out);
                prop_assert_eq!(register(&support::weakened(&history, &fewer)), Verdict::Valid);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn the_search_agrees_with_trying_every_order(seed: u64) {
        for kind in [Kind::Register, Kind::Counter, Kind::List] {
            let history = arbitrary(seed, kind, false);
            let expected = match brute_force(&history, kind) {
                true => Verdict::Valid,
                false => Verdict::Invalid,
            };
            let budget = Budget::default();
            let outcome = match kind {
                Kind::Register => linearizable::check(&history, &Register::default(), &budget),
                Kind::Counter => linearizable::check(&history, &Counter, &budget),
                Kind::List => linearizable::check(&history, &List, &budget),
            };
            prop_assert_eq!(outcome.verdict, expected, "{:?}:\n{}", kind, support::shown(&history));
        }
    }

    #[test]
    fn versions_agree_with_trying_every_order(seed: u64) {
        let history = arbitrary(seed, Kind::Register, true);
        let expected = match brute_force(&history, Kind::Register) {
            true => Verdict::Valid,
            false => Verdict::Invalid,
        };
        prop_assert_eq!(register(&history), expected, "{}", support::shown(&history));
        let outcome = version_order::check(&history);
        prop_assert_eq!(outcome.verdict, expected, "{}", support::shown(&history));
    }
}

#[test]
fn most_histories_with_one_wrong_value_are_rejected() {
    let (mut by_search, mut by_versions) = (0, 0);
    let seeds = 0..300;
    for seed in seeds.clone() {
        let mut history = simulated(seed, Kind::Register, 120);
        Seeded::new(seed).mutate_read(&mut history);
        by_search += usize::from(register(&stripped(&history)) == Verdict::Invalid);
        by_versions += usize::from(version_order::check(&history).verdict == Verdict::Invalid);
    }
    let (total, least) = (seeds.count(), 225);
    assert!(by_search >= least, "{by_search} of {total} by values");
    assert!(by_versions >= least, "{by_versions} of {total} by versions");
}
