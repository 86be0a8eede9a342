//! Targets as they are printed.

use std::time::Duration;

use leasehold_proto::Mode;
use leasehold_proto::target::OnLapse;
use leasehold_proto::wire::listing::TargetInfo;
use serde::Serialize;

use crate::cli::output::Report;
use crate::cli::table::{Table, pairs};
use crate::config::show_duration;

/// A target.
#[derive(Serialize, Clone)]
pub struct TargetReport {
    /// Its name.
    pub target: String,
    /// What it promises: `strong`, `eventual` or `arming`.
    pub mode: String,
    /// While arming, the generation that began it.
    pub arming_since: Option<String>,
    /// What the operator wants: `strong` or `eventual`.
    pub consistency: String,
    /// `xxh3`, `farmhash64` or `identity`.
    pub key_hash: &'static str,
    /// Of sessions registered from now on.
    pub ttl_ms: u64,
    /// `stop` or `serve_fenced`.
    pub on_lapse: &'static str,
    /// How long the source of a handoff waits.
    pub handoff_deadline_ms: u64,
    /// Most handoffs that the planner keeps open.
    pub max_open_handoffs: u32,
    /// Why it is held; null when it is not.
    pub hold_reason: Option<String>,
    /// The operator's note.
    pub description: String,
    /// Raised by each change of the configuration.
    pub config_version: u64,
    /// Version of the assignment.
    pub generation: String,
    /// Deleted, and waits for its sessions to go.
    pub deleted: bool,
    /// How many slices it has.
    pub slices: u64,
    /// How many of them nobody serves.
    pub vacant_slices: u64,
    /// Moves of ownership under way.
    pub open_handoffs: u64,
    /// Sessions that may own slices.
    pub live_sessions: u64,
    /// How many of them are about to leave.
    pub draining_sessions: u64,
    /// Ended sessions whose processes may serve on.
    pub ghosts: u64,
    /// Ghosts of which only the number is kept.
    pub ghosts_uncounted: u32,
    /// While arming, sessions that have not acknowledged.
    pub unarmed_sessions: u64,
    /// Readers at the Assigner that answered.
    pub watchers: u64,
}

/// A duration in whole milliseconds.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<TargetInfo> for TargetReport {
    fn from(info: TargetInfo) -> Self {
        let (mode, arming_since) = match info.mode {
            Mode::Arming(since) => ("arming".to_owned(), Some(since.to_string())),
            mode => (mode.to_string(), None),
        };
        Self {
            target: info.target.to_string(),
            mode,
            arming_since,
            consistency: info.config.consistency.to_string(),
            key_hash: info.config.key_hash.name(),
            ttl_ms: ms(info.config.ttl),
            on_lapse: match info.config.on_lapse {
                OnLapse::Stop => "stop",
                OnLapse::ServeFenced => "serve_fenced",
            },
            handoff_deadline_ms: ms(info.config.handoff_deadline),
            max_open_handoffs: info.config.max_open_handoffs,
            hold_reason: info.config.hold.map(|hold| hold.reason),
            description: info.config.description,
            config_version: info.config_version,
            generation: info.generation.to_string(),
            deleted: info.deleted,
            slices: info.slices,
            vacant_slices: info.vacant_slices,
            open_handoffs: info.open_handoffs,
            live_sessions: info.live_sessions,
            draining_sessions: info.draining_sessions,
            ghosts: info.ghosts,
            ghosts_uncounted: info.ghosts_uncounted,
            unarmed_sessions: info.unarmed_sessions,
            watchers: info.watchers,
        }
    }
}

impl TargetReport {
    /// What an operator should notice, in a few words.
    fn notes(&self) -> String {
        let mut notes = Vec::new();
        if self.deleted {
            notes.push("deleted".to_owned());
        }
        if self.hold_reason.is_some() {
            notes.push("held".to_owned());
        }
        if self.mode == "arming" {
            notes.push(format!("{} unarmed", self.unarmed_sessions));
        }
        let ghosts = self.ghosts + u64::from(self.ghosts_uncounted);
        if ghosts > 0 {
            notes.push(format!("{ghosts} ghosts"));
        }
        notes.join(", ")
    }
}

impl Report for TargetReport {
    fn human(&self) -> String {
        let duration = |ms| show_duration(Duration::from_millis(ms));
        let mode = match &self.arming_since {
            Some(since) => format!(
                "arming since {since}: {} sessions have not acknowledged",
                self.unarmed_sessions
            ),
            None => self.mode.clone(),
        };
        pairs(&[
            ("target", self.target.clone()),
            ("mode", mode),
            ("generation", self.generation.clone()),
            (
                "slices",
                format!(
                    "{} ({} vacant, {} being handed over)",
                    self.slices, self.vacant_slices, self.open_handoffs
                ),
            ),
            (
                "sessions",
                format!(
                    "{} ({} draining)",
                    self.live_sessions, self.draining_sessions
                ),
            ),
            (
                "ghosts",
                (self.ghosts + u64::from(self.ghosts_uncounted)).to_string(),
            ),
            ("watchers here", self.watchers.to_string()),
            (
                "held",
                self.hold_reason.clone().unwrap_or_else(|| "no".into()),
            ),
            (
                "deleted",
                if self.deleted {
                    "yes, waits for its sessions to go"
                } else {
                    "no"
                }
                .into(),
            ),
            ("key hash", self.key_hash.into()),
            ("ttl", duration(self.ttl_ms)),
            ("on lapse", self.on_lapse.replace('_', " ")),
            ("handoff deadline", duration(self.handoff_deadline_ms)),
            ("max open handoffs", self.max_open_handoffs.to_string()),
            ("config version", self.config_version.to_string()),
            ("description", self.description.clone()),
        ])
    }
}

/// All targets.
#[derive(Serialize)]
pub struct Targets {
    /// In order of their names.
    pub targets: Vec<TargetReport>,
}

impl Report for Targets {
    fn human(&self) -> String {
        let heads = [
            "TARGET",
            "MODE",
            ">SLICES",
            ">VACANT",
            ">HANDOFFS",
            ">SESSIONS",
            ">DRAINING",
            ">TTL",
            "GENERATION",
            "NOTES",
        ];
        let mut table = Table::new(&heads);
        for target in &self.targets {
            table.row([
                target.target.clone(),
                target.mode.clone(),
                target.slices.to_string(),
                target.vacant_slices.to_string(),
                target.open_handoffs.to_string(),
                target.live_sessions.to_string(),
                target.draining_sessions.to_string(),
                show_duration(Duration::from_millis(target.ttl_ms)),
                target.generation.clone(),
                target.notes(),
            ]);
        }
        table.or("no targets; create one with `leasehold target create NAME`")
    }
}
