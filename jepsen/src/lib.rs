//! Attacks a system of real processes on hosts of their own, and judges what its clients saw.
//!
//! A user brings a [`System`](system::System): how to start their service and how to talk to it.
//! The harness brings workloads, faults, checkers and the report.

pub mod cli;
pub mod leasehold;
pub mod nemesis;
pub mod pod;
pub mod register;
pub mod rpc;
pub mod runner;
pub mod store;
pub mod system;
#[cfg(test)]
mod toy;
pub mod workload;
pub mod workloads;
