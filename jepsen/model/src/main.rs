//! `leasehold-model`.
use leasehold_model::search::{Options, explore};
use leasehold_model::worlds::WORLDS;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let max: usize = args
        .get(2)
        .and_then(|a| a.parse().ok())
        .unwrap_or(5_000_000);
    let bounds = WORLDS.iter().find(|w| w.name == args[1]).unwrap();
    let r = explore(
        bounds,
        Options {
            max_states: max,
            threads: 2,
            mutant: None,
        },
    );
    println!(
        "{} {} states {} transitions, depth {} complete {} {:.1}s stuck {:?}",
        bounds.name,
        r.states,
        r.transitions,
        r.depth,
        r.complete,
        r.took.as_secs_f64(),
        r.stuck
    );
    for ((_, name), n) in leasehold_model::world::SIGHTS.iter().zip(&r.sights) {
        println!("  {n:>9} {name}");
    }
    if let Some(b) = r.broken {
        for l in b.trace {
            println!("{l}");
        }
    }
}
