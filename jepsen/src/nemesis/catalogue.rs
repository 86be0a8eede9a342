//! All modes of all faults, by group.

/// What a fault asks of the promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// Every promise must hold under it.
    Kept,
    /// It breaks what the promises assume: a run with it may be invalid. What does not rest on the
    /// broken assumption must hold all the same, fencing above all.
    MayBreak,
}

/// One exact form of a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mode {
    /// The group that is asked for on the command line.
    pub group: &'static str,
    /// Its own name, which can be asked for as well.
    pub name: &'static str,
    /// What it asks of the promises.
    pub safety: Safety,
    /// It lasts at least so many lease times: shorter it would show nothing.
    pub least_ttls: f64,
    /// For people.
    pub about: &'static str,
}

const fn kept(group: &'static str, name: &'static str, about: &'static str) -> Mode {
    Mode {
        group,
        name,
        safety: Safety::Kept,
        least_ttls: 0.0,
        about,
    }
}

impl Mode {
    const fn ttls(mut self, least: f64) -> Self {
        self.least_ttls = least;
        self
    }

    const fn may_break(mut self) -> Self {
        self.safety = Safety::MayBreak;
        self
    }
}

/// Every mode.
pub const MODES: &[Mode] = &[
    kept(
        "kill",
        "kill-one",
        "kill -9 of any process, started again later",
    ),
    kept("kill", "kill-minority", "kill -9 of a minority of the core"),
    kept("kill", "kill-majority", "kill -9 of a majority of the core"),
    kept("kill", "kill-all", "kill -9 of everything"),
    kept("kill", "kill-leader", "kill -9 of the leader"),
    kept("kill", "kill-owner", "kill -9 of a pod that owns slices"),
    kept(
        "restart",
        "rolling-restart",
        "every process in turn is asked to end and started again",
    ),
    kept(
        "restart",
        "restart-pods",
        "every pod in turn is asked to end and started again",
    ),
    kept("pause", "pause-one", "SIGSTOP of any process"),
    kept("pause", "pause-leader", "SIGSTOP of the leader"),
    kept("pause", "pause-owner", "SIGSTOP of a pod that owns slices"),
    kept(
        "pause",
        "pause-owner-long",
        "the same, for longer than its lease lasts",
    )
    .ttls(2.0),
    kept(
        "pause",
        "pause-majority",
        "SIGSTOP of a majority of the core",
    ),
    kept(
        "pause",
        "pause-blink",
        "any process, stopped and let go on many times a second",
    ),
    kept(
        "cpu",
        "starve-leader",
        "a tenth of a processor for the leader",
    ),
    kept(
        "cpu",
        "starve-owner",
        "a tenth of a processor for a pod that owns slices",
    ),
    kept(
        "cpu",
        "starve-all",
        "a tenth of a processor for each process",
    ),
    kept(
        "partition",
        "halves",
        "half of everything from the other half",
    ),
    kept("partition", "random-halves", "the same, drawn by lot"),
    kept(
        "partition",
        "isolate-leader",
        "the leader from the core and the pods, not from clients",
    )
    .ttls(1.5),
    kept(
        "partition",
        "isolate-owner",
        "an owning pod from the core, not from clients and pods",
    )
    .ttls(2.0),
    kept("partition", "isolate-pod", "an owning pod from everything").ttls(1.5),
    kept(
        "partition",
        "pods-from-core",
        "all pods from all of the core",
    )
    .ttls(1.5),
    kept(
        "partition",
        "pods-from-pods",
        "each pod from the other pods",
    ),
    kept(
        "partition",
        "bridge",
        "the core in two halves that share one member",
    ),
    kept(
        "partition",
        "majorities-ring",
        "each of the core sees a majority, each another one",
    ),
    kept(
        "partition",
        "one-way-leader",
        "what the leader sends to the core and the pods is lost",
    )
    .ttls(1.5),
    kept(
        "partition",
        "one-way-owner",
        "what the core sends to an owning pod is lost",
    )
    .ttls(1.5),
    kept(
        "partition",
        "one-way-random",
        "half of all links, each in one direction",
    ),
    kept("partition", "clients-from-pods", "clients from all pods"),
    kept(
        "partition",
        "clients-from-core",
        "clients from all of the core",
    ),
    kept(
        "flap",
        "flap-core",
        "one of the core, cut off and back several times a second",
    ),
    kept(
        "flap",
        "flap-pod",
        "a pod from the core, cut off and back several times a second",
    ),
    kept("link", "slow-links", "50 ± 10 ms on every link"),
    kept("link", "slow-leader", "50 ± 10 ms on the leader's links"),
    kept("link", "lossy-links", "30 % of the packets are lost"),
    kept(
        "link",
        "duplicating-links",
        "30 % of the packets arrive twice, 10 % overtake others",
    ),
    kept("link", "narrow-links", "8 Mbit/s on every link"),
    kept("clock", "clock-within", "clocks at rates within the bound"),
    kept(
        "clock",
        "clock-within-isolated",
        "an owning pod slow and the leader fast, within the bound, and the pod cut off from the core",
    )
    .ttls(2.0),
    kept(
        "clock",
        "wall-jump",
        "wall clocks jump by up to an hour, there and back",
    ),
    kept(
        "clock",
        "wall-strobe",
        "a wall clock jumps to and fro many times a second",
    ),
    kept(
        "clock-beyond",
        "clock-fast",
        "a core clock twice as fast as true time",
    )
    .may_break()
    .ttls(3.0),
    kept(
        "clock-beyond",
        "clock-slow",
        "an owning pod's clock half as fast as true time",
    )
    .may_break()
    .ttls(3.0),
    kept(
        "clock-beyond",
        "clock-slow-isolated",
        "an owning pod's clock half as fast as true time, and the pod cut off from the core",
    )
    .may_break()
    .ttls(4.0),
    kept(
        "clock-beyond",
        "clock-mixed",
        "every clock at a rate of its own, 0.5 to 2",
    )
    .may_break()
    .ttls(3.0),
    kept("disk", "disk-full", "no space is left on a core disk"),
    kept(
        "disk",
        "disk-full-leader",
        "no space is left on the leader's disk",
    ),
    kept("disk", "disk-hung", "writes to a core disk wait"),
    kept(
        "disk",
        "disk-hung-leader",
        "writes to the leader's disk wait",
    ),
    kept("disk", "disk-slow", "1 MB/s on a core disk"),
    kept(
        "disk",
        "disk-read-only",
        "a core disk falls back to read-only",
    ),
    kept(
        "fsync",
        "fsync-fails",
        "EIO from every fsync of one of the core",
    ),
    kept(
        "fsync",
        "fsync-slow-leader",
        "every fsync of the leader takes 200 ms to 5 s",
    ),
    kept(
        "fsync",
        "fsync-slow-all",
        "every fsync of the core takes 200 ms",
    ),
    kept(
        "power",
        "power-loss",
        "a minority of the core loses power, and what it had not synced",
    ),
    kept(
        "power",
        "power-loss-leader",
        "the leader loses power, and what it had not synced",
    ),
    kept(
        "power",
        "torn-tail",
        "one of the core dies in the middle of a write to its log",
    ),
    kept(
        "data-loss",
        "fsync-lies",
        "one of the core loses power, and what it had synced in vain",
    )
    .may_break(),
    kept(
        "data-loss",
        "lost-tail",
        "the end of a synced log is gone on one of the core",
    )
    .may_break(),
    kept(
        "data-loss",
        "bit-flip",
        "a bit of a synced log is turned round on one of the core",
    )
    .may_break(),
    kept(
        "leader",
        "transfer-leader",
        "leadership is handed on, again and again",
    ),
    kept(
        "membership",
        "change-members",
        "one of the core is removed and taken in again",
    ),
    kept("moves", "move-storm", "slices are moved as fast as it goes"),
    kept(
        "moves",
        "reshape-storm",
        "slices are split and merged as fast as it goes",
    ),
    kept(
        "moves",
        "drain-pod",
        "all slices are taken off a pod for a while",
    ),
    kept(
        "config",
        "change-ttl",
        "leases of new sessions last longer or shorter",
    ),
    kept(
        "config",
        "snapshot",
        "snapshots are written and logs cut, again and again",
    ),
    kept(
        "mode",
        "flip-mode",
        "strong mode is given up and taken up again",
    )
    .may_break(),
];

/// The groups, in the order of the list.
pub fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&'static str> = MODES.iter().map(|mode| mode.group).collect();
    groups.dedup();
    groups
}

/// The modes that a name stands for: a group's, or the one of that name. Empty: unknown.
pub fn find(name: &str) -> Vec<&'static Mode> {
    MODES
        .iter()
        .filter(|mode| mode.group == name || mode.name == name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_groups_stand_together() {
        let mut names: Vec<&str> = MODES.iter().map(|mode| mode.name).collect();
        let mut groups = groups();
        names.append(&mut groups.clone());
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let all = groups.len();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), all);
    }
}
