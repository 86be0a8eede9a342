//! A deterministic world around the machines that ship: random schedules from seeds.
//!
//! [`run`] plays one schedule: first a thousand events in which everything may go wrong, then a
//! time in which nothing does and everything must be served again. After every event the
//! invariants in `check` hold, or the schedule has failed. The same seed and options give the same
//! schedule, byte by byte; a failed one can be made small with [`shrink`].
//!
//! The machines are those of `leasehold_proto`, unchanged; Raft, the network, clocks, processes,
//! applications and the stores outside are the world's own. What Raft and the disk do by themselves
//! is shown by the slower world in `sim-cluster` and by real processes.

mod check;
mod coverage;
mod failure;
#[cfg(leasehold_mutants)]
pub mod mutants;
mod options;
mod shrink;
mod world;

pub use coverage::{Coverage, Seen};
pub use failure::Failure;
pub use options::{EVENTS, Fault, Options, UnknownFault};
pub use shrink::shrink;

/// Plays the schedule of `seed`.
///
/// # Errors
/// [`Failure`] when an invariant broke or the world did not heal; it holds the trace of a second
/// play of the same schedule, and the command that plays it again.
pub fn run(seed: u64, options: &Options) -> Result<Coverage, Box<Failure>> {
    let played = world::play(seed, options, false);
    let Some((broken, step)) = played.broken else {
        return Ok(played.coverage);
    };
    let again = world::play(seed, options, true);
    let same = again.broken.as_ref().is_some_and(|(second, at)| {
        (second.invariant, &second.what, *at) == (broken.invariant, &broken.what, step)
    });
    let (invariant, what) = if same {
        (broken.invariant, broken.what)
    } else {
        let what = format!(
            "failed once only, with {}: {}",
            broken.invariant, broken.what
        );
        ("the same seed gives the same schedule", what)
    };
    Err(Box::new(Failure {
        seed,
        options: options.clone(),
        step,
        invariant,
        what,
        trace: again.trace,
    }))
}

/// Everything that happens in the schedule of `seed`, line by line.
pub fn trace(seed: u64, options: &Options) -> Vec<String> {
    world::play(seed, options, true).trace
}

/// A number that two traces share only if they are the same, byte by byte: FNV-1a, 64 bits.
pub fn fingerprint(trace: &[String]) -> u64 {
    let bytes = trace.iter().flat_map(|line| line.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Whether a mistake of the world's shells or applications, not of a machine, is planted.
fn planted(_name: &str) -> bool {
    #[cfg(leasehold_mutants)]
    return leasehold_proto::mutants::active(_name);
    #[cfg(not(leasehold_mutants))]
    false
}
