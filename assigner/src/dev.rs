//! `leasehold dev`: one Assigner to try things with, gone without a trace when it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use leasehold_assigner::{DataDir, Node, NodeConfig, Timers};
use tokio::time::{Instant, sleep};

use crate::cli::{Failure, has_command, print_line};
use crate::config::{Config, Http, LogFormat, Node as NodeKeys};
use crate::serve::{Running, begin_alone, told_to_end};

const HELP: &str = "\
Examples:
  leasehold dev
  leasehold dev --data ./dev-data          keeps its data, and finds it again
  leasehold dev --listen 127.0.0.1:0       on a free port, printed when ready";

/// How long it may take until the node leads; it takes a fraction of a second.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Run a single Assigner to try things with
#[derive(Args)]
#[command(after_help = HELP)]
pub struct Dev {
    /// Keep the data in this directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where everything is served: IP:PORT
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// Where metrics and health are served: IP:PORT
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7402")]
    http_listen: SocketAddr,
    /// Listen beyond loopback without encryption
    #[arg(long)]
    insecure: bool,
    /// What is logged: error, warn, info, debug, trace, or directives
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: String,
}

impl Dev {
    /// Runs until a signal or a failure.
    pub async fn run(self) -> Result<(), Failure> {
        let began = Instant::now();
        crate::logging::start(&self.log_level, LogFormat::Auto);
        let config = Config {
            insecure: self.insecure,
            node: NodeKeys {
                listen: self.listen,
                ..Config::default().node
            },
            http: Http {
                listen: self.http_listen,
            },
            ..Config::default()
        };
        config.check()?;
        // Removed when it is dropped, at the end of this function.
        let temporary = match &self.data {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix("leasehold-dev-")
                    .tempdir()
                    .map_err(|error| {
                        Failure::negative(format!("cannot make a temporary directory: {error}"))
                    })?,
            ),
        };
        let directory = match (&self.data, &temporary) {
            (Some(data), _) => data.clone(),
            (None, Some(temporary)) => temporary.path().join("node"),
            (None, None) => return Err(Failure::negative("there is no data directory")),
        };
        let node = NodeConfig {
            timers: Timers::fast(),
            ..NodeConfig::new(
                "dev",
                config.node.id,
                DataDir::Disk(directory.clone()),
                self.listen,
            )
        };
        let running = Running::start(&config, node).await?;
        let result = tokio::select! {
            result = run(&running, &directory, temporary.is_some(), began) => result,
            _ = told_to_end() => Ok(()),
        };
        running.stop().await;
        result
    }
}

async fn run(
    running: &Running,
    directory: &Path,
    temporary: bool,
    began: Instant,
) -> Result<(), Failure> {
    let node = &running.node;
    begin_alone(node, node.status().node_id).await?;
    ready(node).await?;
    print_line(&welcome(
        node,
        running.http.local_addr(),
        directory,
        temporary,
        began.elapsed(),
    ))?;
    running.until_ended().await
}

/// Waits until the node leads and serves.
async fn ready(node: &Node) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_PATIENCE;
    while let Err(why) = node.ready() {
        if Instant::now() >= deadline {
            return Err(Failure::unavailable(format!(
                "not ready after {} s: {why}",
                READY_PATIENCE.as_secs()
            )));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn welcome(
    node: &Node,
    http: SocketAddr,
    directory: &Path,
    temporary: bool,
    took: Duration,
) -> String {
    let kept = if temporary {
        " (removed at the end; --data DIR keeps it)"
    } else {
        ""
    };
    let address = node.address();
    let mut paste = vec![
        "leasehold target create cart",
        "leasehold status",
        "leasehold key lookup cart customer-4711",
    ];
    if has_command("demo") {
        paste.push("leasehold demo ownership");
    }
    let export = format!("export LEASEHOLD_ENDPOINTS=http://{address}");
    if address != "127.0.0.1:7400" {
        paste.insert(0, &export);
    }
    format!(
        "One Assigner at http://{address}, ready after {:.2} s\n  data    {}{kept}\n  health  http://{http}/readyz?verbose\n\n\
         Paste into another terminal:\n  {}\n\nCtrl-C ends it.",
        took.as_secs_f64(),
        directory.display(),
        paste.join("\n  ")
    )
}
