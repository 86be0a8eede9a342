//! A deterministic world around the machines that ship: random schedules from seeds.
//!
//! [`run`] plays one schedule: faults first, then a time in which nothing goes wrong and everything
//! must be served again. The same seed and options give the same schedule, byte by byte.

mod world;

pub use world::{STEPS, Stats, run};
