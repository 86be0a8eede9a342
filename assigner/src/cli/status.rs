//! `leasehold status`.
//!
//! JSON: `{"healthy", "problems": [TEXT...], "answered_by", "leader", "term", "committed_index",
//! "applied_index", "incarnation", "restore_wait", "halted", "version", "members": [MEMBER...],
//! "targets": [TARGET...]}`; `leader` and `halted` may be null.

use serde::Serialize;

use super::Global;
use super::client::Client;
use super::error::Failure;
use super::member::{self, MemberReport, Members};
use super::output::{Report, emit};
use super::target::{self, TargetReport, Targets};

/// The cluster and its targets.
#[derive(Serialize)]
pub struct Status {
    /// Nothing below keeps it from its work.
    pub healthy: bool,
    /// What does.
    pub problems: Vec<String>,
    /// The number of the Assigner that answered.
    pub answered_by: u64,
    /// The leader's number.
    pub leader: Option<u64>,
    /// The present term.
    pub term: u64,
    /// The newest entry committed.
    pub committed_index: u64,
    /// The newest entry applied at the one that answered.
    pub applied_index: u64,
    /// Rises with every restore.
    pub incarnation: u16,
    /// Nothing is granted yet after a restore.
    pub restore_wait: bool,
    /// Why the one that answered grants nothing.
    pub halted: Option<String>,
    /// Its version.
    pub version: String,
    /// All Assigners.
    pub members: Vec<MemberReport>,
    /// All targets.
    pub targets: Vec<TargetReport>,
}

pub async fn run(global: &Global) -> Result<(), Failure> {
    let mut client = Client::new(global);
    let cluster = member::status(&mut client).await?;
    let targets = target::list(&mut client).await?;
    let mut problems = Vec::new();
    if cluster.leader.is_none() {
        problems.push("no leader is known: nothing new is granted, leases run out; are a majority of the Assigners up?".to_owned());
    }
    if cluster.restore_wait {
        problems.push(
            "restored: nothing is granted until every lease of the old cluster has run out"
                .to_owned(),
        );
    }
    let halted = Some(cluster.halted.clone()).filter(|why| !why.is_empty());
    problems.extend(
        halted
            .iter()
            .map(|why| format!("Assigner {} grants nothing: {why}", cluster.node)),
    );
    let status = Status {
        healthy: problems.is_empty(),
        problems,
        answered_by: cluster.node,
        leader: cluster.leader,
        term: cluster.term,
        committed_index: cluster.committed_index,
        applied_index: cluster.applied_index,
        incarnation: cluster.incarnation.get(),
        restore_wait: cluster.restore_wait,
        halted,
        members: member::members(&cluster),
        version: cluster.version,
        targets,
    };
    emit(global, &status)?;
    match status.problems.first() {
        None => Ok(()),
        Some(problem) => Err(Failure::negative(problem.clone())),
    }
}

impl Report for Status {
    fn human(&self) -> String {
        let leader = self.leader.map_or_else(
            || "no leader".to_owned(),
            |leader| format!("leader {leader}"),
        );
        let head = format!(
            "{leader}, term {}, committed {}, incarnation {}; asked Assigner {} (version {}, applied {})",
            self.term,
            self.committed_index,
            self.incarnation,
            self.answered_by,
            self.version,
            self.applied_index
        );
        let problems: Vec<String> = self
            .problems
            .iter()
            .map(|problem| format!("\nproblem: {problem}"))
            .collect();
        let members = Members {
            members: self.members.to_vec(),
        }
        .human();
        let targets = Targets {
            targets: self.targets.to_vec(),
        }
        .human();
        format!("{head}{}\n\n{members}\n\n{targets}", problems.concat())
    }
}
