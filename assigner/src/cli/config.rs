//! `leasehold config`. JSON of `check`: `{"done": ..., "file": ..., "least_ttl_ms": ...}`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Global;
use super::error::Failure;
use super::output::{Done, emit, print_line};
use crate::config::{Layers, print_default, print_effective};

/// Verbs of `leasehold config`.
#[derive(Subcommand)]
pub enum Verb {
    /// Print a commented file with every key at its default
    #[command(after_help = "Example:\n  leasehold config print-default > leasehold.toml")]
    PrintDefault,
    /// Check a file as `leasehold serve --config` would read it, environment included
    #[command(after_help = "Exits with 2 and the name of the key if something is wrong.")]
    Check {
        /// The file
        file: PathBuf,
        /// Print what results from defaults, file and environment
        #[arg(long)]
        print: bool,
    },
}

impl Verb {
    pub fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Verb::PrintDefault => print_line(print_default().trim_end()),
            Verb::Check { file, print } => {
                let mut layers = Layers::default();
                layers.file(&file)?;
                layers.environment(std::env::vars_os().filter_map(utf8))?;
                let config = layers.build()?;
                if print {
                    return print_line(print_effective(&config).trim_end());
                }
                let least_ttl_ms =
                    u64::try_from(config.least_ttl().as_millis()).unwrap_or(u64::MAX);
                let done = format!(
                    "{} is good; targets need a ttl of at least {least_ttl_ms} ms",
                    file.display()
                );
                let file = file.display().to_string();
                emit(
                    global,
                    &Done::new(done)
                        .with("file", file)
                        .with("least_ttl_ms", least_ttl_ms),
                )
            }
        }
    }
}

/// A variable that is text; others cannot be ours.
pub fn utf8((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}
