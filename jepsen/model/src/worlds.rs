//! The worlds that are searched, smallest first; and those in which planted bugs are looked for.

use crate::bounds::{Bounds, Most, Rates, Rounds};

const SMALL: Bounds = Bounds::SMALLEST;
const NOTHING: Most = SMALL.most;

/// Clocks at both ends of their bound: the lease ends when D does. Two ticks long, so that a
/// Slicelet can renew between.
const TIGHT: Bounds = Bounds {
    ttl_ticks: 2,
    message_ticks: 2,
    rates: Rates::Tight,
    live: false,
    ..SMALL
};

/// What a search for planted bugs keeps that the rules, where they hold, make idle.
const WARY: Bounds = Bounds {
    assigners: 2,
    remember_all: true,
    ..TIGHT
};

/// Every world of `check`, by name.
pub const WORLDS: &[Bounds] = &[
    Bounds {
        name: "election",
        about: "a change of leader while leases run out",
        assigners: 2,
        most: Most {
            elections: 1,
            ..NOTHING
        },
        ..TIGHT
    },
    Bounds {
        name: "handoff",
        about: "one planned handoff, with loss, delay and expiry",
        most: Most {
            handoffs: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "impatient",
        about: "a handoff whose source waits for one tick only",
        impatient: true,
        most: Most {
            handoffs: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "clerk",
        about: "a handoff that a Clerk follows by views and hints",
        clerk: true,
        live: false,
        most: Most {
            handoffs: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "cancel",
        about: "a handoff that somebody wants cancelled",
        most: Most {
            handoffs: 1,
            cancels: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "crash",
        about: "a handoff and a crash of either party, which comes back",
        most: Most {
            handoffs: 1,
            crashes: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "split",
        about: "a slice is split, its halves are handed off and merged",
        most: Most {
            handoffs: 1,
            splits: 1,
            merges: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "arming",
        about: "from eventual to strong while a slice moves and sessions expire",
        eventual: true,
        most: Most {
            flips: 1,
            moves: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "main",
        about: "a handoff and one failure: a crash of a Slicelet, or a change of leader",
        assigners: 2,
        most: Most {
            handoffs: 1,
            faults: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "proposals",
        about: "a handoff and a change of leader, with a proposal that may be inherited or outlive its term",
        assigners: 2,
        queue: 1,
        rounds: Rounds::OnArrival,
        cap: Some(2_000_000),
        most: Most {
            handoffs: 1,
            elections: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "three",
        about: "three Slicelets, a handoff, a crash, successors named at expiry",
        slicelets: 3,
        successors: true,
        cap: Some(2_000_000),
        most: Most {
            handoffs: 1,
            crashes: 1,
            cancels: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "failures",
        about: "two handoffs, two crashes, two elections, a duplicate, sessions that come back",
        assigners: 2,
        prompt: false,
        differences: true,
        registrations: 1,
        queue: 1,
        rounds: Rounds::OnArrival,
        stale_tables: true,
        cap: Some(2_000_000),
        most: Most {
            handoffs: 2,
            cancels: 1,
            crashes: 2,
            elections: 2,
            duplicates: 1,
            closes: 1,
            reaped: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "wandering",
        about: "clocks that change their rate at every tick, a handoff, a crash, an election",
        assigners: 2,
        ttl_ticks: 2,
        message_ticks: 3,
        rates: Rates::Wandering,
        live: false,
        cap: Some(2_000_000),
        most: Most {
            handoffs: 1,
            crashes: 1,
            elections: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "halves",
        about: "two slices, each handed off, with split, merge and a crash",
        slices: 2,
        cap: Some(2_000_000),
        most: Most {
            handoffs: 2,
            splits: 1,
            merges: 2,
            crashes: 1,
            ..NOTHING
        },
        ..SMALL
    },
    Bounds {
        name: "replicas",
        about: "copies in eventual mode, through arming to strong and back, with a crash",
        eventual: true,
        registrations: 1,
        cap: Some(2_000_000),
        most: Most {
            flips: 3,
            moves: 1,
            copies: 2,
            crashes: 1,
            handoffs: 1,
            ..NOTHING
        },
        ..SMALL
    },
];

/// Further worlds for planted bugs.
pub const TRAPS: &[Bounds] = &[
    Bounds {
        name: "late",
        about: "answers that arrive after the lease that they give",
        message_ticks: 3,
        ..TIGHT
    },
    Bounds {
        name: "drift",
        about: "a lease of so many ticks that a fast clock counts one too few",
        assigners: 2,
        ttl_ticks: 5,
        message_ticks: 1,
        most: Most {
            elections: 1,
            ..NOTHING
        },
        ..TIGHT
    },
    Bounds {
        name: "deposed",
        about: "a deposed leader that goes on, and one that begins too early",
        rounds: Rounds::OnArrival,
        most: Most {
            elections: 1,
            ..NOTHING
        },
        ..WARY
    },
    Bounds {
        name: "terms",
        about: "leadership lost and regained, with proposals that outlive a term",
        queue: 1,
        most: Most {
            elections: 2,
            ..NOTHING
        },
        ..WARY
    },
    Bounds {
        name: "back",
        about: "old views and messages of old handoffs, delivered late",
        most: Most {
            handoffs: 2,
            cancels: 1,
            ..NOTHING
        },
        assigners: 1,
        live: false,
        ..WARY
    },
    Bounds {
        name: "replace",
        about: "handoffs begun while another is open",
        assigners: 1,
        rates: Rates::Right,
        ttl_ticks: 1,
        message_ticks: 1,
        live: true,
        most: Most {
            handoffs: 2,
            ..NOTHING
        },
        ..WARY
    },
    Bounds {
        name: "again",
        about: "a slice handed to and fro, with every message of the past still under way",
        assigners: 1,
        most: Most {
            handoffs: 3,
            ..NOTHING
        },
        ..WARY
    },
    Bounds {
        name: "return",
        about: "a handoff whose parties crash and come back while words of old sessions are under way",
        registrations: 1,
        live: false,
        most: Most {
            handoffs: 1,
            crashes: 1,
            cancels: 1,
            ..NOTHING
        },
        remember_all: true,
        ..SMALL
    },
    Bounds {
        name: "flips",
        about: "arming twice",
        eventual: true,
        live: false,
        most: Most {
            flips: 3,
            moves: 1,
            ..NOTHING
        },
        ..SMALL
    },
];

/// The world of this name.
pub fn find(name: &str) -> Option<&'static Bounds> {
    WORLDS
        .iter()
        .chain(TRAPS)
        .find(|bounds| bounds.name == name)
}
