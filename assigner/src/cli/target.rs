//! `leasehold target`.
//!
//! JSON: `list` prints `{"targets": [TARGET...]}`, `get` a TARGET, see [`TargetReport`].

mod report;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use leasehold_proto::target::{Consistency, Hold, OnLapse, TargetChange, TargetConfig};
use leasehold_proto::wire::listing::{AllTargets, OneTarget};
use leasehold_proto::wire::{admin, pb};
use leasehold_proto::{KeyHash, TargetName};
pub use report::{TargetReport, Targets, ms};

use super::Global;
use super::client::Client;
use super::error::Failure;
use super::output::{Done, emit};
use super::wait::{Look, until};
use crate::config::parse_duration;

const CREATE_HELP: &str = "\
Examples:
  leasehold target create cart
  leasehold target create cart --slices 256 --ttl 5s --description 'shopping carts'
  leasehold target create presence --mode eventual";

const MODE_HELP: &str = "\
From eventual to strong a target is armed first: until every process has acknowledged that it
checks leases it promises nothing and says so. --wait waits for that. Processes that vanished while
the target was eventual remain as ghosts, and arming waits for them: `leasehold session list TARGET`
shows them, `leasehold session forget` is your word that one is dead.";

const HOLD_HELP: &str = "\
While a target is held nothing is evened out. Slices of processes that drain or end still go to
others, with their state where they drain, and you can still move slices yourself.

Example:
  leasehold target hold cart --reason 'investigating latency, ticket 4711'";

/// Verbs of `leasehold target`.
#[derive(Subcommand)]
pub enum Verb {
    /// Create a target
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// Delete a target; its sessions are closed
    Delete {
        /// Name of the target
        target: TargetName,
        /// Really delete it
        #[arg(long)]
        yes: bool,
        /// Refuse unless its configuration is at this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Show a target
    Get {
        /// Name of the target
        target: TargetName,
        /// Ask the leader, and let a quorum confirm that nothing newer is known
        #[arg(long)]
        linearizable: bool,
    },
    /// Show all targets
    List,
    /// Change a target's configuration; what is not named stays
    #[command(after_help = "Sessions keep the ttl with which they were registered.")]
    Set(Set),
    /// Switch a target between strong and eventual
    #[command(after_help = MODE_HELP)]
    Mode {
        /// Name of the target
        target: TargetName,
        /// strong or eventual
        mode: Consistency,
        /// Wait until the mode is reached, at most so long
        #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true)]
        #[arg(default_missing_value = "5m", value_parser = parse_duration)]
        wait: Option<Duration>,
    },
    /// Even nothing out in a target for now; give --reason
    #[command(after_help = HOLD_HELP)]
    Hold {
        /// Name of the target
        target: TargetName,
    },
    /// End a hold
    Unhold {
        /// Name of the target
        target: TargetName,
    },
}

/// Arguments of `create`.
#[derive(Args)]
pub struct Create {
    /// Its name: lower-case letters, digits and inner hyphens
    target: TargetName,
    /// How many slices it begins with
    #[arg(long, value_name = "N", default_value = "64")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=leasehold_proto::limits::INITIAL_SLICES as i64))]
    slices: u32,
    /// strong: never two owners; eventual: no lease check
    #[arg(long, value_name = "MODE", default_value = "strong")]
    mode: Consistency,
    /// How keys become slice keys: xxh3, farmhash64 or identity; never changes
    #[arg(long, value_name = "HASH", default_value = "xxh3")]
    hash: KeyHash,
    #[command(flatten)]
    settings: Settings,
}

/// Arguments of `set`.
#[derive(Args)]
pub struct Set {
    /// Name of the target
    target: TargetName,
    /// Refuse unless its configuration is at this version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
struct Settings {
    /// How long a lease runs: a crashed process is replaced after this time [default: 3s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// What a process does when its lease has run out [default: stop]
    #[arg(long, value_name = "RULE")]
    on_lapse: Option<Lapse>,
    /// How long the source of a handoff waits for its destination [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    handoff_deadline: Option<Duration>,
    /// Most handoffs that the planner keeps open at once [default: 32]
    #[arg(long, value_name = "N")]
    max_open_handoffs: Option<u32>,
    /// A note
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Lapse {
    /// Refuse requests until the lease is renewed.
    Stop,
    /// Serve on with the verdict "fenced": the store's fence decides.
    ServeFenced,
}

impl Settings {
    fn change(self) -> TargetChange {
        TargetChange {
            ttl: self.ttl,
            on_lapse: self.on_lapse.map(|rule| match rule {
                Lapse::Stop => OnLapse::Stop,
                Lapse::ServeFenced => OnLapse::ServeFenced,
            }),
            handoff_deadline: self.handoff_deadline,
            max_open_handoffs: self.max_open_handoffs,
            description: self.description,
            ..TargetChange::default()
        }
    }
}

impl Verb {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global);
        match self {
            Verb::Create(create) => create.run(client, global).await,
            Verb::Delete {
                target,
                yes,
                if_version,
            } => delete(client, global, target, yes, if_version).await,
            Verb::Get {
                target,
                linearizable,
            } => {
                let report = read(&mut client.about(&target), &target, linearizable).await?;
                emit(global, &report)
            }
            Verb::List => emit(
                global,
                &Targets {
                    targets: list(&mut Client::new(global)).await?,
                },
            ),
            Verb::Set(set) => {
                let change = set.settings.change();
                if change == TargetChange::default() {
                    return Err(Failure::usage(
                        "nothing to set; `leasehold target set --help` lists what can be",
                    ));
                }
                change
                    .onto(&TargetConfig::default())
                    .check()
                    .map_err(|error| Failure::usage(error.to_string()))?;
                update(
                    &mut client.about(&set.target),
                    &set.target,
                    set.if_version,
                    change,
                )
                .await?;
                let done = format!("target {} changed", set.target);
                emit(global, &Done::new(done).with("target", set.target.as_str()))
            }
            Verb::Mode { target, mode, wait } => switch(client, global, target, mode, wait).await,
            Verb::Hold { target } => {
                let reason =
                    client.required_reason("whoever finds the target held must know why")?;
                hold(client, global, target, Some(Hold { reason })).await
            }
            Verb::Unhold { target } => hold(client, global, target, None).await,
        }
    }
}

impl Create {
    async fn run(self, client: Client, global: &Global) -> Result<(), Failure> {
        let base = TargetConfig {
            consistency: self.mode,
            key_hash: self.hash,
            ..TargetConfig::default()
        };
        let config = self.settings.change().onto(&base);
        config
            .check()
            .map_err(|error| Failure::usage(error.to_string()))?;
        let mut client = client.about(&self.target);
        let request = admin::CreateTarget {
            target: self.target.clone(),
            config,
            initial_slices: self.slices,
            reason: client.reason(),
        };
        client
            .change(pb::CreateTargetRequest::from(&request), async |grpc, r| {
                grpc.create_target(r).await
            })
            .await?;
        let done = format!(
            "target {} created: {}, {} slices",
            self.target, self.mode, self.slices
        );
        emit(
            global,
            &Done::new(done)
                .with("target", self.target.as_str())
                .with("slices", self.slices),
        )
    }
}

async fn delete(
    client: Client,
    global: &Global,
    target: TargetName,
    yes: bool,
    expected_version: Option<u64>,
) -> Result<(), Failure> {
    if !yes {
        return Err(Failure::usage(format!(
            "deleting {target} closes its sessions and stops its service; say so with --yes"
        )));
    }
    let mut client = client.about(&target);
    let request = admin::DeleteTarget {
        target: target.clone(),
        expected_version,
        reason: client.reason(),
    };
    client
        .change(pb::DeleteTargetRequest::from(&request), async |grpc, r| {
            grpc.delete_target(r).await
        })
        .await?;
    let done =
        format!("target {target} deleted; its name is free again when its sessions have gone");
    emit(global, &Done::new(done).with("target", target.as_str()))
}

async fn update(
    client: &mut Client,
    target: &TargetName,
    expected_version: Option<u64>,
    change: TargetChange,
) -> Result<(), Failure> {
    let request = admin::UpdateTarget {
        target: target.clone(),
        expected_version,
        change,
        reason: client.reason(),
    };
    client
        .change(pb::UpdateTargetRequest::from(&request), async |grpc, r| {
            grpc.update_target(r).await
        })
        .await?;
    Ok(())
}

async fn hold(
    client: Client,
    global: &Global,
    target: TargetName,
    hold: Option<Hold>,
) -> Result<(), Failure> {
    let done = match &hold {
        Some(_) => format!(
            "target {target} held: nothing is evened out until `leasehold target unhold {target}`"
        ),
        None => format!("target {target} no longer held"),
    };
    let change = TargetChange {
        hold: Some(hold),
        ..TargetChange::default()
    };
    update(&mut client.about(&target), &target, None, change).await?;
    emit(global, &Done::new(done).with("target", target.as_str()))
}

async fn switch(
    client: Client,
    global: &Global,
    target: TargetName,
    mode: Consistency,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    let mut client = client.about(&target);
    let change = TargetChange {
        consistency: Some(mode),
        ..TargetChange::default()
    };
    update(&mut client, &target, None, change).await?;
    let reached = |report: &TargetReport| report.mode == mode.to_string();
    let mut report = get(&mut client, &target).await?;
    if let Some(patience) = wait {
        report = until(patience, async || {
            let report = get(&mut client, &target).await?;
            if reached(&report) {
                return Ok(Look::Done(report));
            }
            let (unarmed, ghosts) = (
                report.unarmed_sessions,
                report.ghosts + u64::from(report.ghosts_uncounted),
            );
            Ok(Look::NotYet(format!(
                "arming {target}: {unarmed} sessions have not acknowledged, {ghosts} ghosts remain"
            )))
        })
        .await?;
    }
    let done = match reached(&report) {
        true => format!("target {target} is {mode}"),
        false => format!(
            "target {target} is {}; `leasehold target get {target}` shows what it waits for",
            report.mode
        ),
    };
    emit(
        global,
        &Done::new(done)
            .with("target", target.as_str())
            .with("mode", report.mode),
    )
}

/// One target, as any node has applied it.
pub async fn get(client: &mut Client, target: &TargetName) -> Result<TargetReport, Failure> {
    read(client, target, false).await
}

async fn read(
    client: &mut Client,
    target: &TargetName,
    linearizable: bool,
) -> Result<TargetReport, Failure> {
    let request = pb::GetTargetRequest::from(&admin::GetTarget {
        target: target.clone(),
        linearizable,
    });
    let found: OneTarget = client
        .read(request, async |grpc, r| grpc.get_target(r).await)
        .await?;
    Ok(found.target.into())
}

/// All targets.
pub async fn list(client: &mut Client) -> Result<Vec<TargetReport>, Failure> {
    let found: AllTargets = client
        .read(pb::ListTargetsRequest {}, async |grpc, r| {
            grpc.list_targets(r).await
        })
        .await?;
    Ok(found.targets.into_iter().map(TargetReport::from).collect())
}
