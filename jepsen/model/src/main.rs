//! `leasehold-model`: searches small worlds of the machines that ship.
//!
//! Exit status: 0 all is well; 1 something was broken (or a planted bug survived); 2 wrong usage,
//! or a search that was promised to be complete was not.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use leasehold_figures::{Goal, Report as Figures};
use leasehold_model::bounds::Bounds;
use leasehold_model::search::{Options, Report, explore};
use leasehold_model::world::SIGHTS;
#[cfg(leasehold_mutants)]
use leasehold_model::worlds::TRAPS;
use leasehold_model::worlds::{WORLDS, find};

/// States of each trap that are searched without a planted bug: as many as the bug that is hardest
/// to find needs.
#[cfg(leasehold_mutants)]
const BASELINE_STATES: usize = 600_000;

#[derive(Parser)]
#[command(
    about = "Searches small worlds of the machines that ship, state by state",
    version
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Search worlds; without names, all
    Check(Check),
    /// Name the worlds and what they may do
    List,
    /// Plant each bug of the protocol and demand that a world shows it
    #[cfg(leasehold_mutants)]
    Mutants(Mutants),
}

#[derive(clap::Args)]
struct Check {
    /// Worlds to search
    worlds: Vec<String>,
    /// Search only worlds whose search is promised to end
    #[arg(long)]
    complete_only: bool,
    /// States at which each search ends; worlds with a cap of their own end there
    #[arg(long, default_value_t = 30_000_000)]
    max_states: usize,
    /// Threads; all cores when left out
    #[arg(long)]
    threads: Option<usize>,
    /// Say also how often each noteworthy thing was seen
    #[arg(long)]
    sights: bool,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[cfg(leasehold_mutants)]
#[derive(clap::Args)]
struct Mutants {
    /// Mutants to plant; without names, all
    mutants: Vec<String>,
    /// States at which each search gives up
    #[arg(long, default_value_t = 3_000_000)]
    max_states: usize,
    /// Print the steps that show each
    #[arg(long)]
    trace: bool,
    /// Write one line of JSON for each to this file
    #[arg(long, value_name = "FILE")]
    json_lines: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Check(args) => check(&args),
        Verb::List => list(),
        #[cfg(leasehold_mutants)]
        Verb::Mutants(args) => mutants(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("leasehold-model: error: {error:#}");
        ExitCode::from(2)
    })
}

fn list() -> anyhow::Result<ExitCode> {
    for bounds in WORLDS {
        let end = match bounds.cap {
            Some(cap) => format!("ends at {cap} states"),
            None => "complete".into(),
        };
        println!(
            "{}: {}\n    {}; {end}",
            bounds.name,
            bounds.about,
            bounds.words()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(args: &Check) -> anyhow::Result<Vec<&'static Bounds>> {
    let named = args.worlds.iter().map(|name| {
        find(name).with_context(|| format!("there is no world {name:?}; `list` names them"))
    });
    let named: Vec<&Bounds> = named.collect::<anyhow::Result<_>>()?;
    let all = WORLDS
        .iter()
        .filter(|bounds| !args.complete_only || bounds.cap.is_none());
    Ok(if named.is_empty() {
        all.collect()
    } else {
        named
    })
}

fn check(args: &Check) -> anyhow::Result<ExitCode> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "world",
        "states",
        "transitions",
        "depth",
        "search",
        "liveness",
        "seconds",
        "bounds",
    ]);
    let (mut states, mut seconds, mut complete) = (0, 0.0, 0);
    let mut worst = ExitCode::SUCCESS;
    for bounds in chosen(args)? {
        eprintln!("{}: {} …", bounds.name, bounds.words());
        let max_states = args.max_states.min(bounds.cap.unwrap_or(usize::MAX));
        let threads = args.threads.unwrap_or(Options::default().threads);
        let report = explore(
            bounds,
            Options {
                max_states,
                threads,
                mutant: None,
            },
        );
        table.add_row(row(bounds, &report));
        sights(&report, args.sights);
        states += report.states;
        seconds += report.took.as_secs_f64();
        complete += u32::from(report.complete);
        if let Some(broken) = &report.broken {
            println!(
                "\n{}: {}\n{}\n",
                bounds.name,
                broken.what,
                broken.trace.join("\n")
            );
            worst = ExitCode::from(1);
            break;
        }
        if !report.complete && bounds.cap.is_none() {
            eprintln!("{}: not complete within {max_states} states", bounds.name);
            worst = ExitCode::from(2);
        }
    }
    println!("{table}");
    if let Some(path) = &args.json {
        let mut figures = Figures::new("model", std::path::Path::new("."));
        figures.figure("model_states", states as f64, "states", Goal::None);
        figures.figure(
            "model_states_per_s",
            states as f64 / f64::max(seconds, 1e-9),
            "1/s",
            Goal::None,
        );
        figures.figure(
            "model_worlds_complete",
            f64::from(complete),
            "worlds",
            Goal::None,
        );
        figures
            .write(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(worst)
}

fn row(bounds: &Bounds, report: &Report) -> Vec<String> {
    let search = match (&report.broken, report.complete) {
        (Some(_), _) => "BROKEN",
        (None, true) => "complete",
        (None, false) => "cap",
    };
    let liveness = match report.stuck {
        Some(0) => "ok".to_owned(),
        Some(stuck) => format!("{stuck} STUCK"),
        None => "-".to_owned(),
    };
    vec![
        bounds.name.to_owned(),
        report.states.to_string(),
        report.transitions.to_string(),
        report.depth.to_string(),
        search.to_owned(),
        liveness,
        format!("{:.1}", report.took.as_secs_f64()),
        bounds.words(),
    ]
}

fn sights(report: &Report, wanted: bool) {
    for ((_, name), count) in SIGHTS.iter().zip(&report.sights) {
        if wanted && *count > 0 {
            println!("  {count:>10}  {name}");
        }
    }
}

#[cfg(leasehold_mutants)]
fn mutants(args: &Mutants) -> anyhow::Result<ExitCode> {
    use leasehold_model::mutants::{MUTANTS, Verdict, catch};
    use std::io::Write;
    let mut lines = match &args.json_lines {
        Some(path) => Some(
            std::fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => None,
    };
    // A world that breaks by itself would show everything. The others are searched by `check`.
    for bounds in TRAPS {
        let options = Options {
            max_states: BASELINE_STATES,
            ..Options::default()
        };
        if let Some(broken) = explore(bounds, options).broken {
            eprintln!(
                "{} breaks although nothing is planted: {}",
                bounds.name, broken.what
            );
            return Ok(ExitCode::from(1));
        }
    }
    let mut survived = Vec::new();
    for (mutant, _) in MUTANTS {
        if !args.mutants.is_empty() && !args.mutants.iter().any(|name| name == mutant) {
            continue;
        }
        let verdict = catch(mutant, args.max_states);
        let line = match &verdict {
            Verdict::Caught(caught) => {
                println!(
                    "{mutant}: caught in {}: {} ({} steps, {} states, {:.1} s)",
                    caught.world,
                    caught.what,
                    caught.steps,
                    caught.states,
                    caught.took.as_secs_f64()
                );
                if args.trace {
                    println!("{}\n", caught.trace.join("\n"));
                }
                let took = caught.took.as_secs_f64();
                leasehold_proto::mutants::record(mutant, "model", true, &caught.what, took);
                serde_json::json!({ "mutant": mutant, "ring": "model", "outcome": "caught",
                    "world": caught.world, "how": caught.what, "steps": caught.steps,
                    "states": caught.states, "seconds": took })
            }
            Verdict::NotCaught {
                worlds,
                states,
                took,
            } => {
                survived.push(*mutant);
                println!(
                    "{mutant}: SURVIVED in {} ({states} states)",
                    worlds.join(", ")
                );
                let took = took.as_secs_f64();
                leasehold_proto::mutants::record(mutant, "model", false, "", took);
                serde_json::json!({ "mutant": mutant, "ring": "model", "outcome": "survived",
                    "worlds": worlds, "states": states, "seconds": took })
            }
            Verdict::NotApplicable(why) => {
                println!("{mutant}: not for this ring: {why}");
                serde_json::json!({ "mutant": mutant, "ring": "model",
                    "outcome": "not applicable", "why": why })
            }
        };
        if let Some(lines) = &mut lines {
            writeln!(lines, "{line}")?;
        }
    }
    if survived.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("survived: {}", survived.join(", "));
    Ok(ExitCode::from(1))
}
