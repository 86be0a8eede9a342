//! The program `leasehold`: the Assigner, its command line, its demos and benches.

mod bench;
mod cli;
mod config;
mod demo;
mod dev;
mod harness;
mod http;
mod logging;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
