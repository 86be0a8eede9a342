//! The program `leasehold`: the Assigner, its command line, its demos.

mod cli;
mod config;
mod dev;
mod http;
mod logging;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
