//! `leasehold-jepsen recheck`: an old run, judged by the checkers of today.

use std::path::{Path, PathBuf};

use anyhow::Context;
use leasehold_checkers::run::Results;

use super::options::short;
use super::show::{self, say};
use crate::runner::load::Share;
use crate::runner::{Finished, SHARES, judge};
use crate::store::{RunDir, read_json, write_json};
use crate::workloads;

/// Options of `recheck`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory of the run, e.g. store/latest
    pub dir: PathBuf,
    /// Put the new results and a new report in the place of the old; else they go beside them, as
    /// results.N.json
    #[arg(long)]
    pub write: bool,
}

/// Judges the run again and shows what came of it.
///
/// # Errors
///
/// It is not the directory of a run, or of one of other workloads than there are.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let run = RunDir::open(&args.dir)?;
    let test = run.test()?;
    let shares: Vec<Share> = match test.options.get(SHARES) {
        Some(shares) => serde_json::from_value(shares.clone()).context("its workers")?,
        None => anyhow::bail!("test.json does not tell which workers each workload had"),
    };
    let loads = shares
        .iter()
        .map(|share| workloads::by_name(&share.workload, test.seed, &test.options))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let parts = shares.iter().zip(loads.iter().map(AsRef::as_ref));
    let mut results = judge::judge(&run, &test, parts)?;
    let old: Option<Results> = read_json(&run.file("results.json")).ok();
    // What the harness suffered then is no better now.
    results.harness_error = old.and_then(|old| old.harness_error);
    let path = if args.write {
        run.file("results.json")
    } else {
        free_name(&run)?
    };
    write_json(&path, &results)?;
    if args.write {
        judge::write_other_forms(&run, &results)?;
        leasehold_report::write(run.path())?;
    }
    let finished = Finished {
        dir: run.path().to_owned(),
        test,
        results,
    };
    show::finished(&finished);
    say!("results {}", short(&path));
    Ok(finished.exit_code())
}

/// The first of results.2.json, results.3.json, … that is not there.
fn free_name(run: &RunDir) -> anyhow::Result<PathBuf> {
    (2..10_000)
        .map(|number| run.file(&format!("results.{number}.json")))
        .find(|path: &PathBuf| !Path::new(path).exists())
        .context("10,000 results are there already")
}
