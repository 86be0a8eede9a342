//! What `leasehold serve` runs with: flags over environment over file over defaults.
//!
//! Every key stands once, in `keys.rs`, with its meaning, its type and its default; the file, the
//! environment, the flags and `config print-default` are all read from that list, so they cannot
//! drift apart. A key that the list does not have is an error that names it.

mod keys;
mod layers;
mod print;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use leasehold_assigner::planner::DrainOrder;

pub use layers::{ConfigError, Layers};
pub use print::{print_default, print_effective};
pub use units::{parse_duration, show_duration};

/// Everything that `leasehold serve` can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name: recorded in the data directory, checked in every message of peers.
    pub cluster: String,
    /// The Assigners of a new cluster, by id.
    pub members: BTreeMap<u64, String>,
    /// Begin a new cluster here, whatever the ids.
    pub bootstrap: bool,
    /// Listen beyond loopback although nothing is encrypted.
    pub insecure: bool,
    /// About this Assigner.
    pub node: Node,
    /// About metrics and health.
    pub http: Http,
    /// About the loss of a leader.
    pub timers: Timers,
    /// About the ttl of targets.
    pub ttl: Ttl,
    /// About the placing of slices.
    pub planner: Planner,
    /// About logs.
    pub log: Log,
}

/// About this Assigner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number; never 0, never used again once removed.
    pub id: u64,
    /// Where it serves Slicelets, Clerks, operators and its peers.
    pub listen: SocketAddr,
    /// Where all of those reach it; `listen` when not given.
    pub advertise: Option<String>,
    /// Where its state is kept.
    pub data_dir: PathBuf,
}

/// About metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where they are served.
    pub listen: SocketAddr,
}

/// About the loss of a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// Where the values below come from when not given.
    pub profile: Profile,
    /// Period of the leader's heartbeats.
    pub heartbeat: Option<Duration>,
    /// A follower that hears nothing for at least this long stands for election.
    pub election_min: Option<Duration>,
    /// See `election_min`: the longest such time.
    pub election_max: Option<Duration>,
}

/// A set of timers that fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Heartbeat 100 ms, election 300 to 600 ms.
    Default,
    /// Heartbeat 50 ms, election 150 to 300 ms: for a quiet network and short leases.
    Fast,
}

/// About the ttl of targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ttl {
    /// Shortest ttl that targets are meant to have; by profile when not given.
    pub min: Option<Duration>,
}

/// About the placing of slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planner {
    /// How long vacant slices wait when many sessions lapse together; the target's ttl when not
    /// given.
    pub settle_window: Option<Duration>,
    /// Begin handoffs away from a pod whose renewals are missing.
    pub warm_successors: bool,
    /// Which slices of a draining pod go first.
    pub drain_order: DrainOrder,
    /// Most handoffs open from or to one pod, at least 1.
    pub max_open_per_pod: usize,
    /// How long the next pod of a rolling restart is waited for before counts are evened out.
    pub restart_pause: Duration,
}

/// About logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What is logged: a level, or directives as in `info,leasehold=debug`.
    pub level: String,
    /// How.
    pub format: LogFormat,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "leasehold".into(),
            members: BTreeMap::new(),
            bootstrap: false,
            insecure: false,
            node: Node {
                id: 1,
                listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
                advertise: None,
                data_dir: PathBuf::from("leasehold-data"),
            },
            http: Http {
                listen: SocketAddr::from(([127, 0, 0, 1], 7402)),
            },
            timers: Timers {
                profile: Profile::Default,
                heartbeat: None,
                election_min: None,
                election_max: None,
            },
            ttl: Ttl { min: None },
            planner: Planner {
                settle_window: None,
                warm_successors: true,
                drain_order: DrainOrder::default(),
                max_open_per_pod: 8,
                restart_pause: Duration::from_secs(30),
            },
            log: Log {
                level: "info".into(),
                format: LogFormat::Auto,
            },
        }
    }
}

impl Config {
    /// Where others reach this Assigner.
    pub fn advertise(&self) -> String {
        self.node
            .advertise
            .clone()
            .unwrap_or_else(|| self.node.listen.to_string())
    }

    /// Period of heartbeats, shortest and longest election timeout.
    pub fn timer_values(&self) -> (Duration, Duration, Duration) {
        let ms = Duration::from_millis;
        let (heartbeat, min, max) = match self.timers.profile {
            Profile::Default => (ms(100), ms(300), ms(600)),
            Profile::Fast => (ms(50), ms(150), ms(300)),
        };
        let timers = &self.timers;
        (
            timers.heartbeat.unwrap_or(heartbeat),
            timers.election_min.unwrap_or(min),
            timers.election_max.unwrap_or(max),
        )
    }

    /// The shortest ttl that targets are meant to have.
    pub fn ttl_min(&self) -> Duration {
        self.ttl.min.unwrap_or(match self.timers.profile {
            Profile::Default => Duration::from_secs(2),
            Profile::Fast => Duration::from_secs(1),
        })
    }

    /// The shortest ttl with which a lease outlives the loss of a leader.
    pub fn least_ttl(&self) -> Duration {
        // 5/6 of it are left after a renewal: time to notice, to elect, and to find the leader.
        let needed = self.timer_values().2 * 2 + Duration::from_millis(200);
        Duration::from_millis(
            u64::try_from(needed.as_millis() * 6)
                .unwrap_or(u64::MAX)
                .div_ceil(5),
        )
    }

    /// Whether this Assigner is the one that begins the cluster: it was told so, or it has the
    /// lowest id of the members. On a data directory that belongs to a cluster already, beginning
    /// it again changes nothing.
    pub fn begins_cluster(&self) -> bool {
        self.bootstrap || self.members.keys().next() == Some(&self.node.id)
    }

    /// The members with which a cluster is begun: those given, or this one alone.
    pub fn first_members(&self) -> BTreeMap<u64, String> {
        if self.members.is_empty() {
            return BTreeMap::from([(self.node.id, self.advertise())]);
        }
        self.members.clone()
    }

    /// Checks what no single key can tell.
    ///
    /// # Errors
    ///
    /// The text names the keys and what to do about them.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_addresses()?;
        self.check_timers()?;
        if let Some(listed) = self.members.get(&self.node.id) {
            if *listed != self.advertise() {
                return Err(ConfigError::new(format!(
                    "members lists this node ({}) at {listed}, but its own address is {}; make node.advertise and \
                     members agree",
                    self.node.id,
                    self.advertise()
                )));
            }
        } else if !self.members.is_empty() {
            return Err(ConfigError::new(format!(
                "members does not list this node ({}); list it, or leave members out and add the node with \
                 `leasehold member add`",
                self.node.id
            )));
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let open: Vec<String> = [
            ("node.listen", self.node.listen),
            ("http.listen", self.http.listen),
        ]
        .iter()
        .filter(|(_, address)| !address.ip().is_loopback())
        .map(|(key, address)| format!("{key} = {address}"))
        .collect();
        if !open.is_empty() && !self.insecure {
            return Err(ConfigError::new(format!(
                "{} can be reached from other machines, but nothing is encrypted or authenticated yet: whoever reaches \
                 it can move slices; listen on loopback, or accept that with insecure = true (flag --insecure)",
                open.join(" and ")
            )));
        }
        if self.node.advertise.is_none() && self.node.listen.ip().is_unspecified() {
            return Err(ConfigError::new(format!(
                "node.listen = {} is no address that others can dial; name one with node.advertise, such as \
                 assigner-{}.example:{}",
                self.node.listen,
                self.node.id,
                self.node.listen.port()
            )));
        }
        if self.node.listen == self.http.listen && self.node.listen.port() != 0 {
            return Err(ConfigError::new(format!(
                "node.listen and http.listen are both {}; give http.listen another port",
                self.node.listen
            )));
        }
        Ok(())
    }

    fn check_timers(&self) -> Result<(), ConfigError> {
        let (heartbeat, min, max) = self.timer_values();
        if heartbeat.is_zero() || min <= heartbeat || max <= min {
            return Err(ConfigError::new(format!(
                "timers.heartbeat ({}), timers.election_min ({}) and timers.election_max ({}) must rise in this order",
                show_duration(heartbeat),
                show_duration(min),
                show_duration(max)
            )));
        }
        let (ttl, least) = (self.ttl_min(), self.least_ttl());
        if ttl < least {
            return Err(ConfigError::new(format!(
                "ttl.min ({}) is too short for timers.election_max ({}): a lease must outlive the loss of a leader, so \
                 5/6 of it must be at least two election timeouts and 200ms; set ttl.min to {}ms or more, or choose \
                 timers.profile = \"fast\"",
                show_duration(ttl),
                show_duration(max),
                least.as_millis()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
