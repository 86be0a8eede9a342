//! The command line: nouns and verbs, one module per noun.
//!
//! Each noun's module has the arguments of its verbs, asks the Assigners through [`client`], and
//! puts the answer into a report that prints as a table or as JSON.
//!
//! # JSON
//!
//! `-o json` prints one object to standard output. What holds for all of them:
//!
//! - Field names are in snake case and are never renamed or given another meaning; fields may be
//!   added. A list stands in a field with the noun's plural (`targets`, `slices`, `sessions`, ...).
//! - Slice keys are texts of sixteen hexadecimal digits behind `0x`; `first` and `last` are both
//!   included. Generations and epochs are texts (`1#42`), ids too (`s17`, `h9`), and
//!   fencing tokens (decimal digits: a reader that keeps numbers as floating point would round them).
//! - Durations are whole milliseconds and say so (`ttl_ms`), sizes bytes (`state_bytes`).
//! - What is not known is `null`, never 0 or absent.
//! - A verb that changes something prints `{"done": "...", ...}` with what it changed.
//! - A refusal prints `{"error": "...", "kind": "..."}` to standard error; `kind` is one of
//!   `negative`, `usage`, `unavailable`, `denied`, `conflict`, as the exit code.

mod client;
mod completion;
mod config;
mod error;
mod handoff;
mod key;
mod member;
mod output;
mod pod;
mod session;
mod slice;
mod snapshot;
mod status;
mod table;
mod target;
mod version;
mod wait;

#[cfg(test)]
mod golden;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use client::Endpoint;
pub use config::utf8 as utf8_variable;
pub use error::Failure;
pub use output::print_line;

use crate::config::parse_duration;

const AFTER_HELP: &str = "\
Exit codes:
  0  done, or the answer is yes
  1  the answer is no: not found, nobody serves it, not healthy; or a local file failed
  2  usage: the command or a value in it is wrong
  3  no Assigner answers, none leads, or no answer in time
  4  denied
  5  conflict: the present state forbids it, or it has changed meanwhile

Examples:
  leasehold dev                                an Assigner to try things with
  leasehold target create cart --slices 64
  leasehold status
  leasehold key lookup cart customer-4711      who serves this key?
  leasehold slice list cart -o json | jq .
  leasehold pod drain 10.0.0.7:9000 --wait --reason 'kernel update'";

/// Leasehold: an auto-sharder with proof of ownership.
#[derive(Parser)]
#[command(name = "leasehold", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every verb understands.
#[derive(Args, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Assigners to ask, separated by commas. One is enough: the leader is found from any
    #[arg(long, global = true, value_name = "URL,…", value_delimiter = ',')]
    #[arg(env = "LEASEHOLD_ENDPOINTS", default_value = "http://127.0.0.1:7400")]
    pub endpoints: Vec<Endpoint>,
    /// Form of the output
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORM",
        default_value = "table"
    )]
    pub output: Output,
    /// How long to wait for an answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Why, for the audit; with verbs that change something
    #[arg(long, global = true, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
}

/// Form of the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: stable names, durations in milliseconds.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run an Assigner of a cluster
    Serve(crate::serve::Serve),
    /// Run a single Assigner to try things with
    Dev(crate::dev::Dev),
    /// The cluster and its targets on one screen
    Status,
    /// Sharded services
    #[command(subcommand)]
    Target(target::Verb),
    /// Ranges of keys, and who serves them
    #[command(subcommand)]
    Slice(slice::Verb),
    /// Single keys
    #[command(subcommand)]
    Key(key::Verb),
    /// Processes that serve slices, by address
    #[command(subcommand)]
    Pod(pod::Verb),
    /// Relations of Assigners to pods, one per target
    #[command(subcommand)]
    Session(session::Verb),
    /// Moves of ownership under way
    #[command(subcommand)]
    Handoff(handoff::Verb),
    /// The Assigners themselves
    #[command(subcommand)]
    Member(member::Verb),
    /// Backups of the replicated state
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Configuration files of `leasehold serve`
    #[command(subcommand)]
    Config(config::Verb),
    /// Real processes on this machine, under load, with the claims checked
    #[command(subcommand)]
    Demo(crate::demo::Demo),
    /// Figures from real processes on this machine
    Bench(crate::bench::BenchArgs),
    /// Print a completion script for a shell
    Completion(completion::Completion),
    /// Print the version of this program
    Version,
}

fn reason(text: &str) -> Result<String, String> {
    let most = leasehold_proto::limits::TEXT_BYTES;
    match text.trim() {
        "" => Err("must not be empty".into()),
        text if text.len() > most => {
            Err(format!("has {} bytes; at most {most} are kept", text.len()))
        }
        text => Ok(text.to_owned()),
    }
}

/// Reads the command line, does what it says, and says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions are no errors; a stream that is closed already is none of ours.
            let _ = error.print();
            return if error.use_stderr() {
                error::Kind::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let global = cli.global.clone();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&global, &failure);
            failure.kind().into()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Demo(demo) => return measure(crate::demo::run(demo)),
        Command::Bench(bench) => return measure(crate::bench::run(bench)),
        Command::Serve(serve) => runtime(true)?.block_on(serve.run()),
        Command::Dev(dev) => runtime(true)?.block_on(dev.run()),
        Command::Config(verb) => verb.run(global),
        Command::Completion(completion) => completion.run(),
        Command::Version => version::run(global),
        asking => runtime(false)?.block_on(ask(asking, global)),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Runs a demo or a bench: it tells by its exit code whether every claim held.
fn measure(run: impl Future<Output = anyhow::Result<ExitCode>>) -> Result<ExitCode, Failure> {
    crate::logging::start("warn", crate::config::LogFormat::Human);
    runtime(true)?
        .block_on(run)
        .map_err(|error| Failure::negative(format!("{error:#}")))
}

async fn ask(command: Command, global: &Global) -> Result<(), Failure> {
    match command {
        Command::Status => status::run(global).await,
        Command::Target(verb) => verb.run(global).await,
        Command::Slice(verb) => verb.run(global).await,
        Command::Key(verb) => verb.run(global).await,
        Command::Pod(verb) => verb.run(global).await,
        Command::Session(verb) => verb.run(global).await,
        Command::Handoff(verb) => verb.run(global).await,
        Command::Member(verb) => verb.run(global).await,
        Command::Snapshot(verb) => verb.run(global).await,
        _ => Ok(()),
    }
}

fn runtime(threads: bool) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match threads {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::negative(format!("cannot start: {error}")))
}

/// Whether this program has a command of that name.
pub fn has_command(name: &str) -> bool {
    command().find_subcommand(name).is_some()
}

/// The command as clap sees it, for completion scripts.
fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}
