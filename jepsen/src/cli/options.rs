//! What several commands can be told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use leasehold_faults::Kind;
use leasehold_proto::target::Consistency;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::leasehold;
use crate::system::System;

/// Where runs are kept unless told otherwise.
pub const STORE: &str = "store";

/// How far the rate of a Slicelet's clock may be off by what the protocol assumes.
pub const RHO: f64 = 500e-6;

/// Slices of the target unless told otherwise.
const SLICES: u32 = 16;

/// What the target promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One owner at every instant.
    Strong,
    /// No leases: two may serve for a while.
    Eventual,
}

/// What the system under test is made of.
#[derive(Clone, Debug, clap::Args)]
pub struct SystemArgs {
    /// Assigners
    #[arg(long, default_value_t = 3)]
    pub assigners: usize,
    /// Assigners that wait to be added
    #[arg(long, default_value_t = 0)]
    pub spares: usize,
    /// Pods
    #[arg(long, default_value_t = 3)]
    pub pods: usize,
    /// How long leases last
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// What the target promises
    #[arg(long, value_enum, default_value = "strong")]
    pub mode: Mode,
    /// Slices of the target [default: 16; in a soak 64]
    #[arg(long)]
    pub slices: Option<u32>,
    /// Pods write without a fence: must fail under a pause
    #[arg(long)]
    pub unfenced: bool,
    /// The program `leasehold` [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub leasehold: Option<PathBuf>,
    /// Plant this bug into the programs, which must be built for that
    #[arg(long, value_name = "NAME")]
    pub mutant: Option<String>,
}

impl SystemArgs {
    fn slices(&self) -> u32 {
        self.slices.unwrap_or(SLICES)
    }

    /// The system.
    ///
    /// # Errors
    ///
    /// A program is missing: the message says how to build it.
    pub fn system(&self) -> anyhow::Result<Arc<dyn System>> {
        let harness = std::env::current_exe().context("the path of this program")?;
        let program = match &self.leasehold {
            Some(path) => path.clone(),
            None => harness.with_file_name("leasehold"),
        };
        anyhow::ensure!(
            program.is_file(),
            "{} is not there: build it with `cargo build --release -p leasehold-assigner --bin \
             leasehold`, or say where it is by --leasehold",
            program.display()
        );
        let program = program
            .canonicalize()
            .with_context(|| format!("finding {}", program.display()))?;
        let options = leasehold::Options {
            assigners: self.assigners,
            spares: self.spares,
            pods: self.pods,
            mode: match self.mode {
                Mode::Strong => Consistency::Strong,
                Mode::Eventual => Consistency::Eventual,
            },
            ttl: self.ttl,
            slices: self.slices(),
            unfenced: self.unfenced,
            leasehold: program,
            harness,
        };
        Ok(Arc::new(leasehold::system(options)))
    }

    /// What of it workloads and later judges want to know.
    pub fn describe(&self) -> BTreeMap<String, Value> {
        let values = [
            ("assigners", json!(self.assigners)),
            ("spares", json!(self.spares)),
            ("pods", json!(self.pods)),
            ("ttl_ms", json!(self.ttl.as_millis() as u64)),
            ("mode", json!(self.mode)),
            ("slices", json!(self.slices())),
            ("unfenced", json!(self.unfenced)),
        ];
        values
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }
}

/// How runs are carried out.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Hosts for clients
    #[arg(long, default_value_t = 2)]
    pub clients: usize,
    /// How hosts are kept apart: namespaces, rootless, proxy, or the best that can be had
    #[arg(long, default_value = "best")]
    pub network: String,
    /// Operations a second, all workers together; 0: as fast as answers come
    #[arg(long, default_value_t = 300.0)]
    pub rate: f64,
    /// How long the system may take to be ready, at first and after everything was healed
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// Where runs are kept
    #[arg(long, default_value = STORE)]
    pub store: PathBuf,
    /// Everything random follows from it [default: drawn and shown]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl RunArgs {
    /// The kind of network, and gets this program into a state in which it can be had. First
    /// thing of all, while there is one thread.
    ///
    /// # Errors
    ///
    /// It cannot be had; the message says what is missing.
    pub fn prepare_network(&self) -> anyhow::Result<Kind> {
        let kind = match self.network.as_str() {
            "best" => {
                let (kind, why) = Kind::best();
                eprintln!("network: {kind} ({why})");
                kind
            }
            name => name.parse()?,
        };
        leasehold_faults::prepare(kind)?;
        // Mounts and control groups of runs that were killed.
        leasehold_faults::remove_stale();
        Ok(kind)
    }

    /// The seed given, or one that nobody chose.
    pub fn seed(&self) -> u64 {
        // Kept short, since people copy it.
        self.seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>()))
    }

    /// The rate as the runner wants it.
    pub fn rate(&self) -> Option<f64> {
        (self.rate > 0.0).then_some(self.rate)
    }
}

/// Shortens a path for people: relative to where the program was started, if it is below.
pub fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let path = path.strip_prefix(&here).unwrap_or(path);
    path.display().to_string()
}
