//! `leasehold-jepsen mutants`: which ring notices which planted bug. The last step of
//! `./x mutants`: it reads what the other rings noted, attacks real processes that have a bug
//! planted, and shows the whole. A bug that no ring notices fails the command; so does one that is
//! in the sources and that no ring tried.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use leasehold_figures::{Goal, Report};
use serde::Deserialize;

use super::show::say;
use crate::runner::interrupt;

/// Options of `mutants`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What the other rings noted: one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// Only these bugs
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub only: Option<Vec<String>>,
    /// Leave real processes out
    #[arg(long)]
    pub no_processes: bool,
    /// Runs of real processes that may pass before one notices
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub attempts: u64,
    /// Do not show that each attack passes where nothing is planted
    #[arg(long)]
    pub no_baselines: bool,
    /// Where runs are kept
    #[arg(long, default_value = "store/mutants")]
    pub store: PathBuf,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A run of real processes that must notice a bug.
struct Attack {
    mutant: &'static str,
    /// The checker that must find it: a run may be invalid for another reason.
    checker: &'static str,
    /// Arguments of `test`.
    args: &'static [&'static str],
}

/// Bugs that real processes must notice: those of shells and applications, most of which no other
/// ring contains.
const ATTACKS: &[Attack] = &[
    Attack {
        mutant: "fence_ignored",
        checker: "fenced_register",
        args: &[
            "--workload=fenced",
            "--nemesis=pause-owner-long",
            "--time-limit=20",
        ],
    },
    Attack {
        mutant: "idempotency_ignored",
        checker: "counter",
        args: &[
            "--workload=counter",
            "--nemesis=kill-owner,lossy-links",
            "--time-limit=20",
        ],
    },
    Attack {
        mutant: "stale_read",
        checker: "linearizable",
        args: &[
            "--workload=store",
            "--nemesis=isolate-leader",
            "--time-limit=20",
        ],
    },
    Attack {
        mutant: "watch_skips_on_resume",
        checker: "watch",
        args: &[
            "--workload=watch",
            "--nemesis=clients-from-core,kill-leader",
            "--storm=4",
            "--time-limit=20",
        ],
    },
    Attack {
        mutant: "lease_clock_is_the_wall_clock",
        checker: "overlap",
        args: &[
            "--workload=owner",
            "--nemesis=wall-jump,isolate-owner",
            "--time-limit=30",
        ],
    },
    Attack {
        mutant: "surrender_before_last_change",
        checker: "linearizable",
        args: &[
            "--workload=kv-memory",
            "--nemesis=none",
            "--storm=8",
            "--rate=1000",
            "--time-limit=20",
        ],
    },
    Attack {
        mutant: "state_served_without_proof",
        checker: "linearizable",
        args: &[
            "--workload=kv-memory",
            "--nemesis=kill-owner",
            "--storm=8",
            "--rate=1000",
            "--time-limit=20",
        ],
    },
    Attack {
        mutant: "state_kept_after_loss",
        checker: "linearizable",
        args: &[
            "--workload=kv-memory",
            "--nemesis=kill-owner",
            "--storm=8",
            "--rate=1000",
            "--time-limit=20",
        ],
    },
];

/// What one ring noted of one bug.
#[derive(Clone, Debug, Deserialize)]
struct Note {
    mutant: String,
    ring: String,
    caught: bool,
    how: String,
    seconds: f64,
}

/// The rings, cheapest first, as they name themselves.
const RINGS: [&str; 5] = ["rules", "model", "simulation", "cluster", "processes"];

/// Attacks, judges, shows.
///
/// # Errors
///
/// This build has no planted bugs, or a file cannot be read or written.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    if !cfg!(leasehold_mutants) {
        bail!("this build has no planted bugs: `./x mutants` makes one that has");
    }
    let wanted = |name: &str| {
        args.only
            .as_ref()
            .is_none_or(|only| only.iter().any(|o| o == name))
    };
    let mut notes = match &args.results {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    if !args.no_processes {
        interrupt::watch();
        for attack in ATTACKS.iter().filter(|attack| wanted(attack.mutant)) {
            let note = attacked(attack, args)?;
            say!("{:<42} {}", note.mutant, note.how);
            notes.push(note);
            if interrupt::came() {
                return Ok(2);
            }
        }
    }
    let mut all = in_sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")))?;
    all.extend(notes.iter().map(|note| note.mutant.clone()));
    all.retain(|name| wanted(name));
    let survivors = show(&all, &notes);
    let caught = all.len() - survivors.len();
    if !survivors.is_empty() {
        say!("\nno ring notices: {}", survivors.join(", "));
    }
    let mut report = Report::new("mutants", Path::new("."));
    report.figure("mutants_total", all.len() as f64, "mutants", Goal::None);
    report.figure(
        "mutants_caught",
        caught as f64,
        "mutants",
        Goal::AtLeast(all.len() as f64),
    );
    say!("\n{}", report.table());
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(u8::from(!survivors.is_empty()))
}

fn read(path: &Path) -> anyhow::Result<Vec<Note>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let note = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| {
            format!(
                "line {} of {} is no note of a ring",
                number + 1,
                path.display()
            )
        })
    };
    text.lines().enumerate().map(note).collect()
}

/// Runs until the checker finds one invalid; one that is unknown, invalid for another reason, or
/// breaks the harness has noticed nothing. Then the same run without the bug must be valid: an
/// attack that fails by itself notices nothing either.
fn attacked(attack: &Attack, args: &Args) -> anyhow::Result<Note> {
    let begun = Instant::now();
    let mut how = String::from("not noticed");
    let mut caught = false;
    for seed in 1..=args.attempts {
        if interrupt::came() {
            break;
        }
        let run = format!("{}: seed {seed}, {}", attack.checker, attack.args.join(" "));
        let planted = [
            format!("--mutant={}", attack.mutant),
            "--expect-invalid".to_owned(),
            format!("--must-fail={}", attack.checker),
        ];
        match attempt(attack, args, seed, "mutant", &planted)? {
            Some(0) => {}
            Some(3) => {
                how = format!("the harness failed: {run}");
                continue;
            }
            _ => {
                how = format!("not noticed: {run}");
                continue;
            }
        }
        let clean = args.no_baselines || attempt(attack, args, seed, "baseline", &[])? == Some(0);
        (caught, how) = match clean {
            true => (true, run),
            false => (false, format!("not valid where nothing is planted: {run}")),
        };
        break;
    }
    Ok(Note {
        mutant: attack.mutant.to_owned(),
        ring: "processes".to_owned(),
        caught,
        how,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// One run; its exit code.
fn attempt(
    attack: &Attack,
    args: &Args,
    seed: u64,
    kind: &str,
    planted: &[String],
) -> anyhow::Result<Option<i32>> {
    let status = Command::new(std::env::current_exe()?)
        .arg("test")
        .args(attack.args)
        .arg(format!("--name={kind}-{}", attack.mutant))
        .args(planted)
        .arg(format!("--seed={seed}"))
        .arg(format!("--store={}", args.store.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("starting a run")?;
    Ok(status.code())
}

/// One line a bug: the time each ring took to notice it, and how the first one did. Returns those
/// that nobody noticed.
fn show(all: &BTreeSet<String>, notes: &[Note]) -> Vec<String> {
    let mut by_mutant: BTreeMap<&str, Vec<&Note>> = BTreeMap::new();
    for note in notes {
        by_mutant.entry(&note.mutant).or_default().push(note);
    }
    say!(
        "\n{:<42}{}  noticed as",
        "planted bug",
        RINGS.map(|ring| format!("{ring:>11}")).concat()
    );
    let mut survivors = Vec::new();
    for name in all {
        let notes = by_mutant.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        let of = |ring: &str| notes.iter().find(|note| note.ring == ring);
        let cell = |ring: &str| match of(ring) {
            None => format!("{:>11}", "-"),
            Some(note) if note.caught => format!("{:>9.1} s", note.seconds),
            Some(_) => format!("{:>11}", "no"),
        };
        let first = RINGS
            .iter()
            .filter_map(|ring| of(ring))
            .find(|note| note.caught);
        let how: String = match first {
            Some(note) => note.how.chars().take(70).collect(),
            None => "SURVIVES".into(),
        };
        if first.is_none() {
            survivors.push(name.clone());
        }
        say!("{name:<42}{}  {how}", RINGS.map(cell).concat());
    }
    survivors
}

/// The names of all bugs that are planted anywhere in the sources.
fn in_sources(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir()
                && !name.starts_with('.')
                && !matches!(name.as_str(), "target" | "store")
            {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path)?;
                found.extend(planted(&text).map(str::to_owned));
            }
        }
    }
    Ok(found)
}

fn planted(text: &str) -> impl Iterator<Item = &str> {
    let uses = text.split("mutant!(\"").skip(1);
    uses.filter_map(|rest| rest.split_once("\")").map(|(name, _)| name))
        .filter(|name| {
            !name.is_empty()
                && *name != "name"
                && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_bugs_are_found_in_sources() {
        let found: Vec<&str> =
            planted("if x && !mutant!(\"one_two\") { } mutant!(\"three\")").collect();
        assert_eq!(found, ["one_two", "three"]);
    }

    #[test]
    fn every_attack_is_on_a_bug_that_exists() {
        let all = in_sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))).unwrap();
        for attack in ATTACKS {
            assert!(all.contains(attack.mutant), "{}", attack.mutant);
        }
    }
}
