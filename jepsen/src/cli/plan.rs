//! Which runs cover every workload with every fault: a seeded, greedy pairwise cover.

use std::collections::BTreeSet;

use crate::nemesis;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// One run of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Workloads that run at once.
    pub workloads: Vec<String>,
    /// Faults that take turns or overlap.
    pub nemeses: Vec<String>,
    /// Of the run.
    pub seed: u64,
    /// How it must come out.
    pub promise: Promise,
    /// Arguments beyond the usual.
    pub options: Vec<String>,
}

/// How a run must come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Valid.
    Valid,
    /// A positive control: this checker must find it invalid.
    MustFail(String),
}

impl Planned {
    /// Its name in the store.
    pub fn name(&self) -> String {
        let control = match self.promise {
            Promise::Valid => "",
            Promise::MustFail(_) => "control-",
        };
        format!("{control}{}", run_name(&self.workloads, &self.nemeses))
    }
}

/// How much a suite tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Each group of faults with each workload, many at once.
    Short,
    /// Each group of faults with each workload, few at once.
    Usual,
    /// Each mode of each fault with each workload.
    Full,
}

/// The name of a run of these workloads under these faults.
pub fn run_name(workloads: &[String], nemeses: &[String]) -> String {
    let nemeses: Vec<&str> = nemeses
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "none")
        .collect();
    match nemeses.as_slice() {
        [] => workloads.join(","),
        nemeses => format!("{}+{}", workloads.join(","), nemeses.join(",")),
    }
}

/// Runs in which each workload meets each fault at least once.
///
/// `groups` are sets of workloads that may run together; each run is of one whole group, so that
/// its workloads meet the same faults. Each group meets all faults in a shuffled order of its own,
/// `mixed` at a time, the last run filled up with some that it has met already.
pub fn cover(groups: &[Vec<String>], nemeses: &[String], mixed: usize, seed: u64) -> Vec<Planned> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mixed = mixed.clamp(1, nemeses.len().max(1));
    let mut runs = Vec::new();
    for group in groups {
        let mut order = nemeses.to_vec();
        order.shuffle(&mut random);
        let rest = order.len() % mixed;
        if rest != 0 {
            order.extend_from_within(..mixed - rest);
        }
        for chunk in order.chunks(mixed) {
            runs.push(Planned {
                workloads: group.clone(),
                nemeses: chunk.to_vec(),
                seed: random.random(),
                promise: Promise::Valid,
                options: Vec::new(),
            });
        }
    }
    // Shuffled, so that a suite that is cut short has still tried a bit of everything.
    runs.shuffle(&mut random);
    runs
}

/// Workloads that may run at once on one system of the usual make.
pub fn together() -> Vec<String> {
    ["register"].map(str::to_owned).to_vec()
}

/// The groups of faults under which every promise must hold.
pub fn kept_groups() -> Vec<String> {
    nemesis::names()
        .into_iter()
        .filter(|name| nemesis::keeps_promises(&[name]))
        .map(str::to_owned)
        .collect()
}

/// All runs of a suite.
pub fn suite(size: Size, seed: u64) -> Vec<Planned> {
    let nemeses = kept_groups();
    let mixed = match size {
        Size::Short => 4,
        _ => 2,
    };
    cover(&[together()], &nemeses, mixed, seed)
}

/// The pairs of workload and fault that a plan covers.
pub fn pairs(runs: &[Planned]) -> BTreeSet<(&str, &str)> {
    runs.iter()
        .flat_map(|run| {
            run.workloads.iter().flat_map(|workload| {
                run.nemeses
                    .iter()
                    .map(|nemesis| (workload.as_str(), nemesis.as_str()))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|n| format!("{prefix}{n}")).collect()
    }

    #[test]
    fn every_workload_meets_every_fault_whatever_the_sizes() {
        for (workloads, nemeses, mixed) in [(1, 1, 1), (3, 7, 3), (4, 6, 2), (2, 5, 9)] {
            let groups: Vec<Vec<String>> = names("w", workloads)
                .chunks(2)
                .map(<[String]>::to_vec)
                .collect();
            let runs = cover(&groups, &names("n", nemeses), mixed, 7);
            assert_eq!(pairs(&runs).len(), workloads * nemeses);
            let mixed = mixed.min(nemeses);
            assert_eq!(runs.len(), groups.len() * nemeses.div_ceil(mixed));
            assert!(runs.iter().all(|run| run.nemeses.len() == mixed));
        }
    }

    #[test]
    fn a_plan_is_a_function_of_its_seed() {
        let groups = [names("w", 2)];
        let plan = |seed| cover(&groups, &names("n", 9), 2, seed);
        assert_eq!(plan(3), plan(3));
        assert_ne!(plan(3), plan(4));
    }

    #[test]
    fn a_run_is_named_by_its_workloads_and_faults() {
        let both = [String::from("a"), String::from("b")];
        assert_eq!(run_name(&both, &both), "a,b+a,b");
        assert_eq!(run_name(&both, &[String::from("none")]), "a,b");
    }
}
