//! Timers and bounds of a node. Every bound of this crate stands here.

use std::sync::Arc;
use std::time::Duration;

use crate::NodeId;

/// Largest number of entries in one append to a peer.
pub(crate) const MAX_ENTRIES_PER_APPEND: u64 = 1024;
/// Bytes of commands after which one append to a peer is cut (at least one entry is sent).
pub(crate) const APPEND_BYTES: usize = 1 << 20;
/// Bytes of a snapshot per message.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Flow-control window of a peer connection. The default window makes the HTTP/2 library close a
/// connection on which many small frames wait to be read.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Flow-control window of one stream on a peer connection.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Recent entries kept in memory, so that replication and apply do not read them back.
pub(crate) const CACHE_ENTRIES: usize = 16 << 10;
/// Bytes of commands kept in memory for the same purpose.
pub(crate) const CACHE_BYTES: usize = 32 << 20;
/// Keepalive of peer connections: period and patience.
pub(crate) const KEEPALIVE_PERIOD: Duration = Duration::from_secs(5);
/// See [`KEEPALIVE_PERIOD`].
pub(crate) const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a peer may leave an append unanswered before the stream is given up.
pub(crate) const APPEND_PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer may take no further chunk of a snapshot.
pub(crate) const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a peer may take to install a snapshot that it has received whole.
pub(crate) const INSTALL_PATIENCE: Duration = Duration::from_secs(600);

/// Configuration of one node. Build it with [`RaftConfig::new`] or [`RaftConfig::fast`] and
/// change single fields.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// Name of the cluster; recorded in the data directory and checked in every message.
    pub cluster: String,
    /// Number of this node.
    pub node_id: NodeId,
    /// Where peers reach this node: `host:port`.
    pub advertise_peer_addr: String,
    /// Period of the leader's heartbeats.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for a time between these two starts an election. The larger
    /// one is also the time for which a follower promises to elect nobody else.
    pub election_ms: (u64, u64),
    /// A snapshot is taken after so many entries.
    pub snapshot_every_entries: u64,
    /// Entries kept behind a snapshot, so that a replica that was away for a moment catches up
    /// from the log.
    pub keep_entries: u64,
    /// Proposals in flight, counted until they are committed or discarded, also those whose
    /// proposer has given up waiting.
    pub max_in_flight: usize,
    /// Largest command.
    pub max_command_bytes: usize,
    /// Largest snapshot accepted from a peer.
    pub max_snapshot_bytes: u64,
    /// How peers are dialled. Tests and simulations replace it.
    pub dialer: Arc<dyn crate::Dialer>,
}

impl RaftConfig {
    /// The default profile: heartbeat 100 ms, election 300–600 ms.
    #[must_use]
    pub fn new(
        cluster: impl Into<String>,
        node_id: NodeId,
        advertise_peer_addr: impl Into<String>,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            node_id,
            advertise_peer_addr: advertise_peer_addr.into(),
            heartbeat_ms: 100,
            election_ms: (300, 600),
            snapshot_every_entries: 100_000,
            keep_entries: 20_000,
            max_in_flight: 8192,
            max_command_bytes: 1 << 20,
            max_snapshot_bytes: 4 << 30,
            dialer: Arc::new(crate::TcpDialer),
        }
    }

    /// The fast profile, for a quiet network and short leases: heartbeat 50 ms, election
    /// 150–300 ms.
    #[must_use]
    pub fn fast(
        cluster: impl Into<String>,
        node_id: NodeId,
        advertise_peer_addr: impl Into<String>,
    ) -> Self {
        Self {
            heartbeat_ms: 50,
            election_ms: (150, 300),
            ..Self::new(cluster, node_id, advertise_peer_addr)
        }
    }

    /// The larger election timeout.
    #[must_use]
    pub fn election_timeout_max(&self) -> Duration {
        Duration::from_millis(self.election_ms.1)
    }

    /// Can a lease of `ttl` survive the loss of the leader with these timers?
    ///
    /// A holder renews when 5/6 of its lease remain; within that time the loss must be noticed
    /// (one election timeout), a leader elected (up to another one), and found (200 ms).
    ///
    /// # Errors
    ///
    /// The text says by how much `ttl` is too short; choose a longer one or the fast profile.
    pub fn check_ttl(&self, ttl: Duration) -> Result<(), String> {
        let needed = self.election_timeout_max() * 2 + Duration::from_millis(200);
        if ttl * 5 / 6 >= needed {
            return Ok(());
        }
        let least = (needed * 6).div_f64(5.0);
        Err(format!(
            "a ttl of {} ms does not outlive the loss of a leader: 5/6 of it must be at least two \
             election timeouts ({} ms each) and 200 ms to find the new leader, so at least {} ms",
            ttl.as_millis(),
            self.election_ms.1,
            least.as_millis() + 1,
        ))
    }

    /// Pause before an unreachable peer is tried again.
    pub(crate) fn retry_pause(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms * 2)
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        let (min, max) = self.election_ms;
        if self.cluster.is_empty() || self.cluster.len() > 128 {
            return Err("the cluster's name must have 1 to 128 bytes".into());
        }
        if self.cluster.chars().any(char::is_control) {
            return Err("the cluster's name must not contain control characters".into());
        }
        if self.heartbeat_ms == 0 || min <= self.heartbeat_ms || max <= min {
            return Err(format!(
                "0 < heartbeat < election minimum < election maximum is required, not {} < {min} < {max}",
                self.heartbeat_ms
            ));
        }
        if self.snapshot_every_entries == 0 || self.max_in_flight == 0 {
            return Err("snapshot_every_entries and max_in_flight must not be 0".into());
        }
        if self.max_command_bytes == 0 || self.max_command_bytes > 16 << 20 {
            return Err("max_command_bytes must be between 1 and 16 MiB".into());
        }
        Ok(())
    }

    /// Largest message between peers: a full append, or one entry of the largest size.
    pub(crate) fn max_message_bytes(&self) -> usize {
        2 * APPEND_BYTES + self.max_command_bytes + (64 << 10)
    }

    pub(crate) fn raft_config(&self) -> openraft::Config {
        let (min, max) = self.election_ms;
        openraft::Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: min,
            election_timeout_max: max,
            max_payload_entries: MAX_ENTRIES_PER_APPEND,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every_entries),
            replication_lag_threshold: self.keep_entries.saturating_mul(2).max(5_000),
            max_in_snapshot_log_to_keep: self.keep_entries,
            purge_batch_size: 1024.min(self.snapshot_every_entries),
            install_snapshot_timeout: u64::try_from(INSTALL_PATIENCE.as_millis())
                .unwrap_or(u64::MAX),
            // A restarted leader must not go on in its old term: it has forgotten what it
            // promised, and reads would be measured against its old first entry.
            enable_leader_restore: Some(false),
            // A node that was cut off must not disturb the leader with a higher term.
            enable_pre_vote: Some(true),
            // Without it the heartbeats of a leader that lost its quorum can keep a connected
            // quorum from electing, for ever.
            quorum_loss_probe_interval: Some(2 * max),
            backoff: format!("{}ms", self.retry_pause().as_millis()),
            ..openraft::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_default_to_unsafe_are_set() {
        let c = RaftConfig::new("c", 1, "a:1").raft_config();
        assert_eq!(c.enable_leader_restore, Some(false));
        assert_eq!(c.enable_pre_vote, Some(true));
        assert_eq!(c.quorum_loss_probe_interval, Some(1200));
        c.validate()
            .expect("the library accepts the default profile");
        let fast = RaftConfig::fast("c", 1, "a:1").raft_config();
        fast.validate()
            .expect("the library accepts the fast profile");
    }

    #[test]
    fn a_ttl_must_outlive_the_loss_of_a_leader() {
        let slow = RaftConfig::new("c", 1, "a:1");
        assert!(slow.check_ttl(Duration::from_secs(3)).is_ok());
        assert!(slow.check_ttl(Duration::from_millis(1680)).is_ok());
        let why = slow
            .check_ttl(Duration::from_millis(1679))
            .expect_err("too short");
        assert!(why.contains("1679 ms") && why.contains("1681 ms"), "{why}");
        let fast = RaftConfig::fast("c", 1, "a:1");
        assert!(fast.check_ttl(Duration::from_secs(1)).is_ok());
        assert!(slow.check_ttl(Duration::from_secs(1)).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let good = RaftConfig::new("c", 1, "a:1");
        assert!(good.validate().is_ok());
        assert!(
            RaftConfig {
                heartbeat_ms: 300,
                ..good.clone()
            }
            .validate()
            .is_err()
        );
        assert!(
            RaftConfig {
                election_ms: (300, 300),
                ..good.clone()
            }
            .validate()
            .is_err()
        );
        assert!(
            RaftConfig {
                cluster: String::new(),
                ..good.clone()
            }
            .validate()
            .is_err()
        );
        assert!(
            RaftConfig {
                max_in_flight: 0,
                ..good
            }
            .validate()
            .is_err()
        );
    }
}
