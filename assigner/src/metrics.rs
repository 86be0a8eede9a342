//! What is counted, and the OpenMetrics text of it. Names begin with `leasehold_`; labels are few.

use std::sync::atomic::AtomicU64;

use leasehold_raft_store::{RaftStatus, Role};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of one node, since its start.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) renewals_answered: Counter,
    pub(crate) renewals_refused: Counter,
    pub(crate) rounds_answered: Counter,
    pub(crate) rounds_failed: Counter,
    pub(crate) confirm_seconds: ConfirmSeconds,
    pub(crate) sessions_registered: Counter,
    pub(crate) expiries: Counter,
    pub(crate) handoffs_planned: Counter,
    pub(crate) handoffs_completed: Counter,
    pub(crate) handoffs_cancelled: Counter,
    pub(crate) plan_steps: Counter,
    pub(crate) plan_steps_rejected: Counter,
    pub(crate) views_pushed: Counter,
    pub(crate) streams_given_up: Counter,
    pub(crate) session_streams: Gauge,
    pub(crate) watchers: Gauge,
    pub(crate) watch_updates: Counter,
}

/// How long quorum rounds take.
pub(crate) struct ConfirmSeconds(Histogram);

impl Default for ConfirmSeconds {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(100e-6, 2.0, 14)))
    }
}

impl ConfirmSeconds {
    pub(crate) fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

/// What is measured at the moment of asking.
pub(crate) struct Moment {
    pub(crate) raft: RaftStatus,
    pub(crate) sessions: usize,
    pub(crate) targets: usize,
    pub(crate) halted: bool,
}

impl Metrics {
    /// Everything in the OpenMetrics text format.
    pub(crate) fn encode(&self, moment: &Moment) -> String {
        let mut registry = Registry::with_prefix("leasehold");
        self.register_counters(&mut registry);
        register_moment(&mut registry, moment);
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn register_counters(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone())
        };
        counter(
            "renewals_answered",
            "Renewals answered after a quorum round",
            &self.renewals_answered,
        );
        counter(
            "renewals_refused",
            "Renewals refused",
            &self.renewals_refused,
        );
        counter(
            "rounds_answered",
            "Quorum rounds that answered renewals",
            &self.rounds_answered,
        );
        counter(
            "rounds_failed",
            "Quorum rounds that were not confirmed",
            &self.rounds_failed,
        );
        counter(
            "sessions_registered",
            "Sessions registered while this node led",
            &self.sessions_registered,
        );
        counter(
            "sessions_expired",
            "Sessions whose lease ran out while this node led",
            &self.expiries,
        );
        counter(
            "handoffs_begun",
            "Handoffs begun by the planner",
            &self.handoffs_planned,
        );
        counter(
            "handoffs_completed",
            "Handoffs completed while this node led",
            &self.handoffs_completed,
        );
        counter(
            "handoffs_cancelled",
            "Handoffs cancelled while this node led",
            &self.handoffs_cancelled,
        );
        counter("plan_steps", "Steps of plans proposed", &self.plan_steps);
        counter(
            "plan_steps_rejected",
            "Steps of plans that the table rejected",
            &self.plan_steps_rejected,
        );
        counter(
            "views_pushed",
            "Views pushed to sessions",
            &self.views_pushed,
        );
        counter(
            "session_streams_given_up",
            "Session streams ended because their reader was too slow",
            &self.streams_given_up,
        );
        counter(
            "watch_updates",
            "Views sent to watchers",
            &self.watch_updates,
        );
        registry.register(
            "session_streams",
            "Session streams open",
            self.session_streams.clone(),
        );
        registry.register("watchers", "Watchers at this node", self.watchers.clone());
        registry.register(
            "confirm_seconds",
            "Duration of quorum rounds for renewals",
            self.confirm_seconds.0.clone(),
        );
    }
}

fn register_moment(registry: &mut Registry, moment: &Moment) {
    let raft = &moment.raft;
    let index = |at: Option<leasehold_raft_store::LogPosition>| at.map_or(0, |at| at.index);
    let mut gauge = |name: &str, help: &str, value: u64| {
        registry.register(
            name,
            help,
            ConstGauge::<i64>::new(i64::try_from(value).unwrap_or(i64::MAX)),
        );
    };
    gauge("sessions", "Live sessions", moment.sessions as u64);
    gauge("targets", "Targets", moment.targets as u64);
    gauge(
        "halted",
        "1 while this node leads and grants nothing",
        u64::from(moment.halted),
    );
    gauge(
        "raft_leader",
        "1 while this node leads",
        u64::from(raft.leadership.role == Role::Leader),
    );
    gauge(
        "raft_leader_known",
        "1 while a leader is known",
        u64::from(raft.leadership.leader.is_some()),
    );
    gauge("raft_term", "The newest term seen", raft.leadership.term);
    gauge(
        "raft_last_log_index",
        "Last entry in the log",
        raft.last_log.unwrap_or(0),
    );
    gauge(
        "raft_committed_index",
        "Last entry committed",
        index(raft.committed),
    );
    gauge(
        "raft_applied_index",
        "Last entry applied",
        index(raft.applied),
    );
    gauge(
        "raft_snapshot_index",
        "Last entry in the snapshot",
        index(raft.snapshot),
    );
    gauge(
        "raft_proposals_in_flight",
        "Proposals in flight",
        raft.in_flight as u64,
    );
    gauge(
        "raft_members",
        "Members of the cluster",
        raft.members.len() as u64,
    );
    let mut counter = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64, AtomicU64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    counter(
        "raft_fsyncs",
        "Syncs of the write-ahead log",
        raft.syncs_total,
    );
    counter(
        "raft_entries_appended",
        "Entries appended to the log",
        raft.entries_appended_total,
    );
}
