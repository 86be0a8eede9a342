//! `leasehold serve`: one Assigner of a cluster, until it is told to end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use leasehold_assigner::node::Role;
use leasehold_assigner::{DataDir, Node, NodeConfig, PlannerConfig, StartError, Timers};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;

use crate::cli::Failure;
use crate::cli::utf8_variable;
use crate::config::{Config, ConfigError, Layers};
use crate::http;

const HELP: &str = "\
Values come from flags, over environment variables LEASEHOLD_* (node.id is LEASEHOLD_NODE__ID), over
the file, over the defaults. `leasehold config print-default` prints every key with its meaning.

Examples:
  leasehold serve --bootstrap                     a cluster of one, data in ./leasehold-data

  three on one machine, each with its own id, ports and directory:
  M=1=127.0.0.1:7400,2=127.0.0.1:7410,3=127.0.0.1:7420
  leasehold serve --members $M --node-id 1 --listen 127.0.0.1:7400 --http-listen 127.0.0.1:7402 --data-dir d1
  leasehold serve --members $M --node-id 2 --listen 127.0.0.1:7410 --http-listen 127.0.0.1:7412 --data-dir d2
  leasehold serve --members $M --node-id 3 --listen 127.0.0.1:7420 --http-listen 127.0.0.1:7422 --data-dir d3

Ends cleanly on SIGTERM and SIGINT. Health: curl http://127.0.0.1:7402/readyz?verbose";

/// How often to look whether the node still runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often to ask a member that does not answer yet.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How often to say that it does not.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How long a member may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Run an Assigner of a cluster
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "these texts are the program's help"
)]
#[derive(Args)]
#[command(after_help = HELP)]
pub struct Serve {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_CONFIG")]
    config: Option<PathBuf>,
    /// Name of the cluster [cluster]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Number of this Assigner [node.id]
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Where everything is served: IP:PORT [node.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where others reach it: HOST:PORT [node.advertise]
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Where its state is kept [node.data_dir]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where metrics and health are served: IP:PORT [http.listen]
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Assigners of a new cluster: ID=HOST:PORT,… [members]
    #[arg(long, value_name = "ID=ADDRESS,…")]
    members: Option<String>,
    /// Begin a new cluster here [bootstrap]
    #[arg(long)]
    bootstrap: bool,
    /// Listen beyond loopback without encryption [insecure]
    #[arg(long)]
    insecure: bool,
    /// What is logged: error, warn, info, debug, trace, or directives [log.level]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How: auto, human or json [log.format]
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
    /// Any key of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Serve {
    /// Runs until a signal or a failure.
    pub async fn run(self) -> Result<(), Failure> {
        let config = self.layered()?.build()?;
        crate::logging::start(&config.log.level, config.log.format);
        let running = Running::start(&config, node_config(&config)).await?;
        let http = running.http.local_addr();
        tracing::info!(cluster = config.cluster, node = config.node.id, %http, "serving");
        let result = tokio::select! {
            ended = running.until_ended() => ended,
            failed = begin(&running.node, &config) => Err(failed),
            name = told_to_end() => {
                tracing::info!(signal = name, "ending");
                Ok(())
            }
        };
        running.stop().await;
        result
    }

    fn layered(self) -> Result<Layers, ConfigError> {
        let mut layers = Layers::default();
        if let Some(file) = &self.config {
            layers.file(file)?;
        }
        layers.environment(std::env::vars_os().filter_map(utf8_variable))?;
        let flags = [
            ("--cluster", "cluster", self.cluster),
            ("--node-id", "node.id", self.node_id),
            ("--listen", "node.listen", self.listen),
            ("--advertise", "node.advertise", self.advertise),
            ("--data-dir", "node.data_dir", self.data_dir),
            ("--http-listen", "http.listen", self.http_listen),
            ("--members", "members", self.members),
            (
                "--bootstrap",
                "bootstrap",
                self.bootstrap.then(|| "true".to_owned()),
            ),
            (
                "--insecure",
                "insecure",
                self.insecure.then(|| "true".to_owned()),
            ),
            ("--log-level", "log.level", self.log_level),
            ("--log-format", "log.format", self.log_format),
        ];
        for (flag, key, value) in flags {
            if let Some(value) = value {
                layers.flag(flag, key, value)?;
            }
        }
        for pair in self.set {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| ConfigError::new(format!("--set {pair}: wanted KEY=VALUE")))?;
            layers.flag(&format!("--set {key}"), key.trim(), value)?;
        }
        Ok(layers)
    }
}

fn node_config(config: &Config) -> NodeConfig {
    let (heartbeat, election_min, election_max) = config.timer_values();
    let data = DataDir::Disk(config.node.data_dir.clone());
    NodeConfig {
        advertise: config.node.advertise.clone().unwrap_or_default(),
        timers: Timers {
            heartbeat,
            election_min,
            election_max,
        },
        planner: PlannerConfig {
            settle_window: config.planner.settle_window,
            warm_successors: config.planner.warm_successors,
            drain_order: config.planner.drain_order,
            max_open_per_pod: config.planner.max_open_per_pod,
            restart_pause: config.planner.restart_pause,
            ..PlannerConfig::default()
        },
        ..NodeConfig::new(
            config.cluster.clone(),
            config.node.id,
            data,
            config.node.listen,
        )
    }
}

/// A node and its health server.
pub struct Running {
    /// The node.
    pub node: Arc<Node>,
    /// Metrics and health.
    pub http: http::Server,
}

impl Running {
    /// Starts both.
    pub async fn start(config: &Config, node: NodeConfig) -> Result<Self, Failure> {
        let node = Arc::new(Node::start(node).await.map_err(cannot_start)?);
        let watched = Arc::new(WatchedNode(Arc::clone(&node)));
        match http::Server::start(config.http.listen, watched).await {
            Ok(http) => Ok(Self { node, http }),
            Err(error) => {
                shut_down(node).await;
                Err(cannot_listen(
                    config.http.listen,
                    &error,
                    "http.listen (flag --http-listen)",
                ))
            }
        }
    }

    /// Returns when the replica has ended by itself.
    pub async fn until_ended(&self) -> Result<(), Failure> {
        while self.node.status().role != Role::Stopped {
            sleep(LOOK_EVERY).await;
        }
        Err(Failure::negative(
            "the replica has stopped by itself; the log above says why (a failed or full disk?)",
        ))
    }

    /// Ends both, in the order in which they need each other.
    pub async fn stop(self) {
        self.http.stop().await;
        shut_down(self.node).await;
    }
}

async fn shut_down(node: Arc<Node>) {
    match Arc::try_unwrap(node) {
        Ok(node) => node.shutdown().await,
        Err(_) => tracing::warn!("a health check still runs; the node ends with the process"),
    }
}

struct WatchedNode(Arc<Node>);

impl http::Watched for WatchedNode {
    fn metrics(&self) -> String {
        self.0.metrics()
    }

    fn alive(&self) -> Result<(), String> {
        match self.0.status().role {
            Role::Stopped => Err("the replica has stopped; the log says why".into()),
            _ => Ok(()),
        }
    }

    fn ready(&self) -> Vec<(&'static str, Result<(), String>)> {
        let status = self.0.status();
        let check = |holds: bool, why: &str| if holds { Ok(()) } else { Err(why.to_owned()) };
        vec![
            (
                "replica",
                check(
                    status.role != Role::Stopped,
                    "it has stopped; the log says why",
                ),
            ),
            (
                "member",
                check(
                    !status.members.is_empty(),
                    "the node belongs to no cluster yet",
                ),
            ),
            (
                "leader",
                check(status.leader.is_some(), "no leader is known"),
            ),
            ("serving", self.0.ready()),
        ]
    }
}

fn cannot_start(error: StartError) -> Failure {
    match error {
        StartError::Listen { address, error } => {
            cannot_listen(address, &error, "node.listen (flag --listen)")
        }
        StartError::Config(why) => Failure::usage(why),
        StartError::Raft(error) => Failure::negative(format!("cannot start: {error}")),
    }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error, key: &str) -> Failure {
    let next = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program listens there: stop it, or choose another port with"
        }
        _ => "choose an address of this machine with",
    };
    Failure::negative(format!(
        "cannot listen on {address} ({error}); {next} {key}"
    ))
}

/// Begins the cluster where that is this node's part. Returns only when it must not be begun.
async fn begin(node: &Node, config: &Config) -> Failure {
    if node.status().members.is_empty() {
        if config.begins_cluster() {
            if let Err(failure) = begin_now(node, config).await {
                return failure;
            }
        } else if config.members.is_empty() {
            tracing::info!(
                "this node belongs to no cluster yet: add it with `leasehold member add`, or begin a new cluster with \
                 --bootstrap"
            );
        }
    }
    std::future::pending().await
}

async fn begin_now(node: &Node, config: &Config) -> Result<(), Failure> {
    let mut members = config.first_members();
    // What the node says of itself counts: with port 0 only it knows.
    members.insert(config.node.id, node.address().to_owned());
    for (id, address) in members.iter().filter(|(id, _)| **id != config.node.id) {
        if in_a_cluster(*id, address).await {
            return Err(Failure::negative(format!(
                "member {id} at {address} belongs to a cluster already, but the data directory {} is empty: if the data \
                 of node {} is lost, remove it with `leasehold member remove`, and add a new node under a new number",
                config.node.data_dir.display(),
                config.node.id
            )));
        }
    }
    begin_with(node, members).await
}

async fn begin_with(node: &Node, members: BTreeMap<u64, String>) -> Result<(), Failure> {
    let names: Vec<String> = members
        .iter()
        .map(|(id, address)| format!("{id}={address}"))
        .collect();
    node.bootstrap(members)
        .await
        .map_err(|error| Failure::negative(format!("cannot begin the cluster: {error}")))?;
    tracing::info!(members = names.join(","), "cluster begun");
    Ok(())
}

/// Waits until a member answers, and asks whether it belongs to a cluster. A cluster is begun only
/// when all of them have answered: one that has lived already must not be begun a second time.
async fn in_a_cluster(id: u64, address: &str) -> bool {
    let mut said: Option<Instant> = None;
    loop {
        match timeout(ANSWER_PATIENCE, ask_members(address)).await {
            Ok(Some(any)) => return any,
            _ if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) => {
                tracing::info!(
                    member = id,
                    address,
                    "waiting for a member to answer before the cluster is begun"
                );
                said = Some(Instant::now());
            }
            _ => {}
        }
        sleep(ASK_EVERY).await;
    }
}

async fn ask_members(address: &str) -> Option<bool> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .ok()?
        .connect()
        .await
        .ok()?;
    let answer = AdminClient::new(channel)
        .cluster_status(pb::ClusterStatusRequest {})
        .await
        .ok()?;
    Some(!answer.into_inner().members.is_empty())
}

/// Begins a cluster of this node alone, unless it belongs to one.
pub async fn begin_alone(node: &Node, id: u64) -> Result<(), Failure> {
    if !node.status().members.is_empty() {
        return Ok(());
    }
    begin_with(node, BTreeMap::from([(id, node.address().to_owned())])).await
}

/// Returns when the process is told to end, with the name of the signal.
pub async fn told_to_end() -> &'static str {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => signals.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate => "SIGTERM",
        Ok(()) = tokio::signal::ctrl_c() => "SIGINT",
    }
}
