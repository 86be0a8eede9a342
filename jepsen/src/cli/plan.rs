//! Which runs cover every workload with every fault: a seeded, greedy pairwise cover.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::nemesis;

/// One run of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Workloads that run at once.
    pub workloads: Vec<String>,
    /// Faults that take turns or overlap.
    pub nemeses: Vec<String>,
    /// Of the run.
    pub seed: u64,
    /// How often it was made with a seed before, and did not show what it must.
    pub tried: u64,
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
    /// Each workload under a kill and a partition.
    Smoke,
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
                seed: u64::from(random.random::<u32>()),
                tried: 0,
                promise: Promise::Valid,
                options: Vec::new(),
            });
        }
    }
    runs
}

/// Workloads that may run at once on one system of the usual make, none of them twice in another
/// guise.
pub fn together() -> Vec<String> {
    owned(&[
        "converge",
        "store",
        "counter",
        "kv-memory",
        "append",
        "owner",
        "fenced",
        "lock",
        "lock-external-set",
        "watch",
    ])
}

/// Sets of workloads that run together, and the arguments that they need. Each workload that must
/// be valid is in one of them.
const GROUPS: &[(&[&str], &[&str])] = &[
    (&["register", "counter", "append", "owner"], &[]),
    // Something must move for watches to have something to say.
    (
        &["fenced", "lock", "lock-external-set", "watch"],
        &["--storm=2"],
    ),
    // What is only in memory must move to be shown to survive that.
    (&["kv-memory", "counter-memory"], &["--storm=4"]),
    (&["converge", "store"], &[]),
    (&["membership"], &["--spares=1"]),
    (&["election"], &["--slices=1"]),
];

/// Faults that break what time promises, with workloads whose fences must hold all the same.
const BEYOND: (&[&str], &[&str]) = (
    &["fenced", "lock", "lock-external-set", "watch"],
    &["clock-beyond", "mode"],
);

/// What must fail: workload, faults, arguments, and the checker that must find it.
const CONTROLS: &[(&str, &[&str], &[&str], &str)] = &[
    // Without leases two pods serve while one is cut off.
    ("owner", &["isolate-owner"], &["--mode=eventual"], "overlap"),
    // With a clock beyond the bound an owner that is cut off serves on when another owns already:
    // so the harness does bend the clock that leases rest on, and sees what comes of it.
    ("owner", &["clock-slow-isolated"], &[], "overlap"),
    // Without fences a write that was on its way while its owner was stopped lands late.
    (
        "fenced",
        &["pause-owner-long"],
        &["--unfenced"],
        "fenced_register",
    ),
    // A lock alone protects nothing outside, as is published of others.
    ("lock-set", &["pause-owner-long"], &[], "list_append"),
];

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The groups of faults under which every promise must hold.
pub fn kept_groups() -> Vec<String> {
    nemesis::names()
        .into_iter()
        .filter(|name| nemesis::keeps_promises(&[name]))
        .map(str::to_owned)
        .collect()
}

/// The modes of those groups.
fn kept_modes() -> Vec<String> {
    let modes = nemesis::MODES.iter();
    modes
        .map(|mode| mode.name)
        .filter(|name| nemesis::keeps_promises(&[name]))
        .map(str::to_owned)
        .collect()
}

/// All runs of a suite, in a shuffled order, so that one that is cut short has still tried a bit
/// of everything.
pub fn suite(size: Size, seed: u64) -> Vec<Planned> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (nemeses, mixed) = match size {
        Size::Smoke => (owned(&["kill", "partition"]), 2),
        Size::Short => (kept_groups(), 5),
        Size::Usual => (kept_groups(), 3),
        Size::Full => (kept_modes(), 3),
    };
    let mut runs = Vec::new();
    for (workloads, options) in GROUPS {
        let group = cover(&[owned(workloads)], &nemeses, mixed, random.random());
        runs.extend(group.into_iter().map(|run| Planned {
            options: owned(options),
            ..run
        }));
    }
    if size != Size::Smoke {
        runs.extend(cover(
            &[owned(BEYOND.0)],
            &owned(BEYOND.1),
            1,
            random.random(),
        ));
    }
    for (workload, nemeses, options, checker) in CONTROLS {
        runs.push(Planned {
            workloads: owned(&[workload]),
            nemeses: owned(nemeses),
            seed: u64::from(random.random::<u32>()),
            tried: 0,
            promise: Promise::MustFail((*checker).to_owned()),
            options: owned(options),
        });
    }
    runs.shuffle(&mut random);
    runs
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
    fn a_suite_tries_every_workload_under_every_fault_and_every_control() {
        for size in [Size::Short, Size::Usual, Size::Full] {
            let runs = suite(size, 5);
            let valid: Vec<Planned> = runs
                .iter()
                .filter(|run| run.promise == Promise::Valid)
                .cloned()
                .collect();
            let pairs = pairs(&valid);
            let nemeses = match size {
                Size::Full => kept_modes(),
                _ => kept_groups(),
            };
            let controls: BTreeSet<&str> = CONTROLS.iter().map(|control| control.0).collect();
            for (workload, _) in crate::workloads::list() {
                if workload == "lock-set" {
                    assert!(controls.contains(workload), "it can only fail");
                    continue;
                }
                for nemesis in &nemeses {
                    assert!(pairs.contains(&(workload, nemesis.as_str())));
                }
            }
            assert_eq!(runs.len() - valid.len(), CONTROLS.len());
            let names: BTreeSet<String> = runs.iter().map(Planned::name).collect();
            assert_eq!(
                names.len(),
                runs.len(),
                "results must not replace each other"
            );
        }
    }

    #[test]
    fn a_run_is_named_by_its_workloads_and_faults() {
        let both = [String::from("a"), String::from("b")];
        assert_eq!(run_name(&both, &both), "a,b+a,b");
        assert_eq!(run_name(&both, &[String::from("none")]), "a,b");
    }
}
