//! Two states that the search takes for one must have the same futures, and states that only the
//! names of numbers tell apart must be taken for one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use leasehold_model::bounds::Bounds;
use leasehold_model::part::Fingerprinter;
use leasehold_model::world::World;
use leasehold_model::worlds::find;

/// What can come next, by fingerprint: all that tells two states apart.
type Futures = BTreeSet<(u128, bool, bool)>;

fn futures(world: &World, maker: &mut Fingerprinter) -> Futures {
    let mut steps = Vec::new();
    world.steps(&mut steps);
    let own = world.fingerprint(maker);
    let after = steps.into_iter().map(|step| world.take(step));
    let prints = after.map(|next| {
        let print = next.fingerprint(maker);
        // A step that changes nothing is none; whether it is benign tells nothing.
        (print, print != own && next.benign, next.violation.is_some())
    });
    let mut all: Futures = prints.collect();
    all.remove(&(own, false, false));
    all
}

/// Compares the futures of every state that is met again with those of the state it is taken for.
/// By induction over the steps, equality everywhere means that nothing is lost by taking them for
/// one.
fn states_met_again_have_the_same_futures(world: &str, states: usize) -> usize {
    let bounds = find(world).expect("a world of this name");
    let mut maker = Fingerprinter::default();
    let first = World::new(Arc::new(bounds.clone()));
    let mut known: HashMap<u128, Futures> = HashMap::new();
    known.insert(first.fingerprint(&mut maker), futures(&first, &mut maker));
    let mut todo = VecDeque::from([first]);
    let (mut steps, mut met_again) = (Vec::new(), 0);
    while let Some(world) = todo.pop_front() {
        world.steps(&mut steps);
        for step in &steps {
            let next = world.take(*step);
            let print = next.fingerprint(&mut maker);
            let ahead = futures(&next, &mut maker);
            match known.get(&print) {
                Some(before) => {
                    assert_eq!(*before, ahead, "after {step}: {next:?}");
                    met_again += 1;
                }
                None if known.len() < states => {
                    known.insert(print, ahead);
                    todo.push_back(next);
                }
                None => {}
            }
        }
    }
    met_again
}

#[test]
fn what_is_taken_for_one_state_has_one_future() {
    let states = if cfg!(debug_assertions) {
        1_500
    } else {
        30_000
    };
    for world in [
        "handoff", "cancel", "crash", "terms", "arming", "main", "split",
    ] {
        let met_again = states_met_again_have_the_same_futures(world, states);
        println!("{world}: {met_again} states met again");
        assert!(met_again > states / 4, "{world}: too few to tell anything");
    }
}

/// A world whose clocks, log and ids have gone on for a while before it begins.
fn later(bounds: &Bounds, rounds: u64) -> World {
    World::later(Arc::new(bounds.clone()), rounds)
}

#[test]
fn the_same_course_of_events_later_gives_the_same_fingerprints() {
    let bounds = find("crash").expect("a world of this name");
    let mut maker = Fingerprinter::default();
    for seed in 1..=6u64 {
        let (mut here, mut there) = (later(bounds, 0), later(bounds, seed));
        let mut dice = seed;
        for _ in 0..60 {
            let (mut steps, mut same) = (Vec::new(), Vec::new());
            here.steps(&mut steps);
            there.steps(&mut same);
            assert_eq!(steps, same, "seed {seed}");
            let Some(step) = steps.get(dice as usize % steps.len().max(1)).copied() else {
                break;
            };
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407)
                >> 3;
            (here, there) = (here.take(step), there.take(step));
            let prints = (here.fingerprint(&mut maker), there.fingerprint(&mut maker));
            assert_eq!(prints.0, prints.1, "seed {seed}, after {step}");
        }
    }
}
