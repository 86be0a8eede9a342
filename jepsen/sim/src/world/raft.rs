//! Abstract Raft: a committed log, and leaders by term.
//!
//! A deposed leader does not know it: it goes on collecting renewals, but its quorum rounds fail
//! and its proposals are refused. A new leader may inherit any prefix of the old one's uncommitted
//! tail; the rest was never synced by enough, and is lost. Nothing commits and no round succeeds
//! unless a majority of the nodes is awake.

use leasehold_proto::command::Command;
use leasehold_proto::id::Incarnation;
use leasehold_proto::table::LeaseTable;
use leasehold_proto::{LogId, Mode};

use super::{TTL, World, target};
use crate::check::invariant_no_living_session_expires;
use crate::coverage::Seen;
use crate::options::Fault;

/// The truth that a quorum holds.
pub struct Raft {
    pub term: u64,
    pub leader: Option<usize>,
    /// The node that won the newest term, whether it still lives.
    pub won_last: Option<usize>,
    pub log: Vec<(LogId, Option<Command>)>,
    /// The table before the first entry of the log.
    pub base: LeaseTable,
    /// Entries of the newest leader that are not committed yet.
    pub tail: Vec<(u64, Option<Command>)>,
    pub next_index: u64,
    pub backup: Option<Backup>,
    pub incarnation: u64,
}

pub struct Backup {
    pub table: LeaseTable,
    pub index: u64,
}

impl Raft {
    pub fn new() -> Self {
        Self {
            term: 0,
            leader: None,
            won_last: None,
            log: Vec::new(),
            base: LeaseTable::new(),
            tail: Vec::new(),
            next_index: 1,
            backup: None,
            incarnation: 1,
        }
    }
}

impl World {
    pub(super) fn propose(&mut self, command: Command) {
        if let Some(leader) = self.raft.leader {
            self.nodes[leader].queue.push(command);
        }
    }

    /// Past the queue and committed at this instant: for what is true only now.
    pub(super) fn propose_now(&mut self, command: Command) {
        if self.raft.leader.is_some() && self.raft.tail.is_empty() {
            self.commit(self.raft.term, Some(command));
        }
    }

    /// A majority is awake, the leader among it.
    pub(super) fn quorum(&self) -> bool {
        let awake = self.nodes.iter().filter(|node| !node.asleep).count();
        let leads = self
            .raft
            .leader
            .is_some_and(|leader| !self.nodes[leader].asleep);
        leads && awake * 2 > self.nodes.len()
    }

    pub(super) fn elect_any(&mut self) {
        let node = self.rng.index(self.nodes.len());
        if self.nodes[node].asleep {
            return;
        }
        if self.rng.chance(60) {
            self.nodes[node].stand();
        } else {
            self.win(node);
        }
    }

    /// The votes are counted: whatever the old leader had not committed is inherited or lost.
    pub(super) fn win(&mut self, node: usize) {
        let keep = self.rng.index(self.raft.tail.len() + 1);
        let tail = std::mem::take(&mut self.raft.tail);
        let lost = tail.iter().skip(keep).any(|(_, command)| command.is_some());
        for (term, command) in tail.into_iter().take(keep) {
            if command.is_some() {
                self.coverage.see(Seen::OldTailInherited);
            }
            self.commit(term, command);
        }
        if lost {
            self.coverage.see(Seen::OldTailLost);
        }
        if self.raft.won_last == Some(node) {
            self.coverage.see(Seen::SameLeaderAgain);
        }
        self.raft.term += 1;
        self.raft.leader = Some(node);
        self.raft.won_last = Some(node);
        let term = self.raft.term;
        self.raft.tail.push((term, None));
        self.nodes[node].win(term);
        self.note(|| format!("node {node} wins term {term}"));
    }

    /// Some of the way from a proposal to an answer.
    pub(super) fn pump_some(&mut self) {
        let late = self.rng.chance(self.adversity.chance(Fault::LateAppends));
        for node in 0..self.nodes.len() {
            if !late || self.rng.chance(30) {
                self.append(node);
            }
        }
        if self.quorum() {
            while !self.raft.tail.is_empty() && !self.rng.chance(10) {
                self.commit_next();
            }
        } else if !self.raft.tail.is_empty() {
            self.coverage.see(Seen::NoQuorum);
        }
        let lag = self.adversity.chance(Fault::Lag);
        let slow = self.adversity.chance(Fault::SlowRounds);
        for node in 0..self.nodes.len() {
            if self.nodes[node].asleep {
                continue;
            }
            while self.nodes[node].applied < self.raft.log.len() && !self.rng.chance(lag) {
                self.apply_next(node);
            }
            if !self.rng.chance(slow) {
                self.confirm(node);
            }
        }
    }

    /// All of it.
    pub(super) fn pump(&mut self) {
        for node in 0..self.nodes.len() {
            self.append(node);
        }
        while !self.raft.tail.is_empty() {
            self.commit_next();
        }
        for node in 0..self.nodes.len() {
            while self.nodes[node].applied < self.raft.log.len() {
                self.apply_next(node);
            }
            self.confirm(node);
            self.confirm(node);
        }
    }

    /// The queue reaches Raft: the leader of the newest term appends it in that term; what others
    /// propose is refused, or forwarded and appended in a term that it was not decided in.
    fn append(&mut self, node: usize) {
        if self.nodes[node].asleep || self.nodes[node].queue.is_empty() {
            return;
        }
        let leads = self.raft.leader == Some(node);
        let forwards =
            !leads && self.quorum() && self.rng.chance(self.adversity.chance(Fault::Forwarding));
        if !leads && !forwards && self.rng.chance(70) {
            return;
        }
        let queue = std::mem::take(&mut self.nodes[node].queue);
        if leads || forwards {
            let term = self.raft.term;
            let expiry = |command: &Command| matches!(command, Command::ExpireSession { .. });
            if forwards && queue.iter().any(expiry) {
                self.coverage.see(Seen::ExpiryForwarded);
            }
            self.raft
                .tail
                .extend(queue.into_iter().map(|command| (term, Some(command))));
        }
    }

    fn commit_next(&mut self) {
        let (term, command) = self.raft.tail.remove(0);
        self.commit(term, command);
    }

    pub(super) fn commit(&mut self, term: u64, command: Option<Command>) {
        let at = LogId {
            term,
            index: self.raft.next_index,
        };
        self.raft.next_index += 1;
        self.coverage.commits += 1;
        if let Some(command) = &command {
            let before = self.before(command);
            let outcome = self.check.master.apply(at, command.clone());
            self.note(|| format!("{at} {command:?} -> {:?}", outcome.reply));
            self.notice_commit(command, &before, &outcome);
            self.check.committed(command, &outcome);
            if !self.expiry_allowed && !self.clocks_lie {
                let hosts = &self.hosts;
                let lives = |session| {
                    let holds = |host: &super::Host| host.holder.session() == Some(session);
                    hosts.iter().any(|host| host.alive && holds(host))
                };
                let judged = invariant_no_living_session_expires(command, lives);
                self.check.judge(judged);
            }
        }
        self.raft.log.push((at, command));
    }

    /// A backup of the whole state; or the loss of everything since, and the restore.
    pub(super) fn back_up_or_restore(&mut self) {
        let master = &self.check.master;
        let restorable = |backup: &Backup| {
            match (backup.table.target(target()), master.target(target())) {
                // A switch to eventual that only the lost history knows is beyond the protocol.
                (Some(then), Some(now)) => {
                    then.mode() != Mode::Strong
                        || (now.mode() == Mode::Strong
                            && now.config_version() == then.config_version())
                }
                (None, Some(now)) => now.mode() == Mode::Strong && now.config_version() == 1,
                (_, None) => false,
            }
        };
        match self.raft.backup.take().filter(|backup| restorable(backup)) {
            None => {
                self.raft.backup = Some(Backup {
                    table: master.clone(),
                    index: self.raft.next_index,
                })
            }
            Some(backup) => self.restore(backup),
        }
    }

    fn restore(&mut self, backup: Backup) {
        let Some(incarnation) = Incarnation::new(self.raft.incarnation + 1) else {
            return;
        };
        self.note(|| "everything since the backup is lost".into());
        self.coverage.see(Seen::Restored);
        self.raft.incarnation += 1;
        self.raft.log.clear();
        self.raft.tail.clear();
        (self.raft.leader, self.raft.won_last) = (None, None);
        self.raft.next_index = backup.index;
        for node in &mut self.nodes {
            node.restore(backup.table.clone());
        }
        self.raft.base = backup.table.clone();
        self.check.restored(backup.table);
        self.raft.term += 1;
        let command = Command::Restore {
            incarnation,
            max_ttl: TTL * 2,
        };
        self.commit(self.raft.term, Some(command));
        let awake: Vec<usize> = (0..self.nodes.len())
            .filter(|node| !self.nodes[*node].asleep)
            .collect();
        if !awake.is_empty() {
            let node = *self.rng.pick(&awake);
            self.win(node);
        }
    }
}
