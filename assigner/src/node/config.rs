//! What a node is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use leasehold_proto::grantor::GrantorConfig;
use leasehold_raft_store::{MemoryStore, RaftConfig};

use crate::clock::Clock;
use crate::planner::DrainOrder;

/// Shortest time between two quorum rounds for renewals. A round usually takes longer; a longer
/// window would make every round wait for a timer of the runtime, which counts whole milliseconds.
const COLLECT_WINDOW: Duration = Duration::from_micros(250);

/// Configuration of a [`Node`](crate::Node). Build it with [`NodeConfig::new`] and change fields.
#[derive(Clone)]
pub struct NodeConfig {
    /// Name of the cluster, 1 to 128 bytes; checked in every message between nodes.
    pub cluster: String,
    /// Number of this node, not 0. It stands for one data directory for the whole life of the
    /// cluster.
    pub node_id: u64,
    /// Where the node keeps its data.
    pub data: DataDir,
    /// Where it listens, for peers, Slicelets, Clerks and operators alike. Port 0 lets the system
    /// choose.
    pub listen: SocketAddr,
    /// Where others reach it: `host:port`. Empty: the address that it listens on.
    pub advertise: String,
    /// Timers of the replication.
    pub timers: Timers,
    /// How renewals are batched and expiries counted.
    pub grantor: GrantorConfig,
    /// How slices are placed.
    pub planner: PlannerConfig,
    /// Bounds of what callers can take up.
    pub limits: Limits,
    /// Where "now" is read; the system's unless a test says otherwise.
    pub clock: Clock,
}

impl NodeConfig {
    /// The defaults for node `node_id` of `cluster`.
    pub fn new(
        cluster: impl Into<String>,
        node_id: u64,
        data: DataDir,
        listen: SocketAddr,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            node_id,
            data,
            listen,
            advertise: String::new(),
            timers: Timers::default(),
            grantor: GrantorConfig {
                collect_window: COLLECT_WINDOW,
                ..GrantorConfig::default()
            },
            planner: PlannerConfig::default(),
            limits: Limits::default(),
            clock: Clock::System,
        }
    }
}

/// Where a node keeps its data.
#[derive(Clone)]
pub enum DataDir {
    /// A directory of its own, created if it does not exist. Needs the cargo feature `rocksdb`.
    Disk(PathBuf),
    /// Memory; it lasts as long as a clone of the store.
    Memory(MemoryStore),
}

/// Timers of the replication: 0 < heartbeat < election_min < election_max.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Period of the leader's heartbeats.
    pub heartbeat: Duration,
    /// A follower that hears nothing for a time between this and `election_max` asks for votes.
    pub election_min: Duration,
    /// See `election_min`; also how long a follower promises to elect nobody else.
    pub election_max: Duration,
}

impl Default for Timers {
    /// For ttls from 1.7 s on: 100 ms, 300 ms, 600 ms.
    fn default() -> Self {
        Self::of_ms(100, 300, 600)
    }
}

impl Timers {
    /// The profile for a quiet network and a ttl of 1 s: 50 ms, 150 ms, 300 ms.
    pub fn fast() -> Self {
        Self::of_ms(50, 150, 300)
    }

    fn of_ms(heartbeat: u64, min: u64, max: u64) -> Self {
        let ms = Duration::from_millis;
        Self {
            heartbeat: ms(heartbeat),
            election_min: ms(min),
            election_max: ms(max),
        }
    }

    /// Whether a lease of `ttl` outlives the loss of a leader with these timers. The error says
    /// how long it must be at least.
    pub fn check_ttl(&self, ttl: Duration) -> Result<(), String> {
        self.raft("-", 1, "-").check_ttl(ttl)
    }

    pub(crate) fn raft(&self, cluster: &str, node_id: u64, address: &str) -> RaftConfig {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        RaftConfig {
            heartbeat_ms: ms(self.heartbeat),
            election_ms: (ms(self.election_min), ms(self.election_max)),
            ..RaftConfig::new(cluster, node_id, address)
        }
    }
}

/// How slices are placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// Breaks ties between equally good choices.
    pub seed: u64,
    /// When at least half of a target's sessions (and at least two) lapse together, vacant slices
    /// wait so long before they are granted. `None`: the target's ttl.
    pub settle_window: Option<Duration>,
    /// Begin handoffs away from a session whose renewals are missing, so that successors warm up
    /// while its lease runs out.
    pub warm_successors: bool,
    /// Which slices of a draining session go first.
    pub drain_order: DrainOrder,
    /// Most handoffs that the planner keeps open from or to one session, at least 1.
    pub max_open_per_pod: usize,
    /// After a drain, and after every session registered since, counts are left uneven for so
    /// long: if the pods restart one after the other, the next one's slices go where there is room.
    pub restart_pause: Duration,
    /// A new leader waits so long, at most, until it has heard every session before it plans.
    pub hear_all_within: Duration,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            settle_window: None,
            warm_successors: true,
            drain_order: DrainOrder::default(),
            max_open_per_pod: 8,
            restart_pause: Duration::from_secs(30),
            hear_all_within: Duration::from_millis(300),
        }
    }
}

/// Bounds of what callers can take up at one node. What is beyond one is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; the others wait to be accepted.
    pub connections: usize,
    /// Streams and requests at once on one connection.
    pub streams_per_connection: u32,
    /// Sessions attached to one stream.
    pub sessions_per_stream: usize,
    /// Session streams at once.
    pub session_streams: usize,
    /// Watchers at once, of all targets together.
    pub watchers: usize,
    /// Proposals in flight.
    pub proposals: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32_768,
            streams_per_connection: 8_192,
            sessions_per_stream: 32_768,
            session_streams: 32_768,
            watchers: 65_536,
            proposals: 8_192,
        }
    }
}
