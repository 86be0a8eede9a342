//! `leasehold-jepsen analyze`: a history that another program wrote.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::ValueEnum;
use leasehold_checkers::history::{read_lines, validate};
use leasehold_checkers::linearizable::{self, Budget, Counter, List, Register};
use leasehold_checkers::{History, Outcome, Verdict, counter, epoch_order, list_append, lock};
use leasehold_checkers::{stats, unhandled, version_order};
use leasehold_figures::{Goal, Report};

use super::show::{self, say};

/// Options of `analyze`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The history: one JSON object a line, as Porcupine's command-line tool reads them
    pub file: PathBuf,
    /// What the objects are, one for each key
    #[arg(long, value_enum, default_value = "register")]
    pub model: Model,
    /// How long the search may take; then the verdict is unknown
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub budget: std::time::Duration,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What a history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// `read`, `write`, `cas`
    Register,
    /// `add`, `read`
    Counter,
    /// `append`, `read`, `txn`
    Append,
    /// `acquire`, `release`, `act`
    Lock,
    /// `serve`, with an epoch
    Owner,
}

/// Judges the history and shows what came of it.
///
/// # Errors
///
/// The file cannot be read, or is no history.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let history = History(read_lines(&args.file)?);
    validate(&history).with_context(|| format!("{} is no history", args.file.display()))?;
    let begun = Instant::now();
    let outcomes = judge(&history, args);
    let seconds = begun.elapsed().as_secs_f64();
    for outcome in &outcomes {
        show::outcome(outcome);
    }
    let worst = outcomes.iter().map(|outcome| outcome.verdict).max();
    let worst = worst.unwrap_or(Verdict::Unknown);
    let operations = history.0.len() / 2;
    say!(
        "\n{}: {operations} operations in {seconds:.3} s",
        show::verdict(worst)
    );
    if let Some(path) = &args.json {
        let dir = path.parent().filter(|dir| dir.is_dir());
        let mut report = Report::new("jepsen analyze", dir.unwrap_or(std::path::Path::new(".")));
        let rate = (operations > 0).then(|| operations as f64 / seconds.max(1e-9));
        let why = "the history is empty";
        // A short history shows what starting a search costs.
        let goal = match operations {
            200_000.. => Goal::AtLeast(200_000.0),
            _ => Goal::None,
        };
        report.maybe("checker_ops_per_s", rate, "1/s", goal, why);
        say!("{}", report.table());
        report.write(path)?;
    }
    Ok(worst.exit_code())
}

fn judge(history: &History, args: &Args) -> Vec<Outcome> {
    let budget = Budget {
        time: args.budget,
        ..Budget::default()
    };
    let mut outcomes = vec![stats::check(history), unhandled::check(history)];
    match args.model {
        Model::Register => {
            outcomes.push(linearizable::check(history, &Register::default(), &budget));
            outcomes.push(version_order::check(history));
        }
        Model::Counter => {
            outcomes.push(linearizable::check(history, &Counter, &budget));
            outcomes.push(counter::check(history));
        }
        Model::Append => {
            outcomes.push(linearizable::check(history, &List, &budget));
            outcomes.push(list_append::check(history));
        }
        Model::Lock => outcomes.push(lock::check(history, lock::Exclusion::Token)),
        Model::Owner => outcomes.push(epoch_order::check(history, &[])),
    }
    outcomes
}
