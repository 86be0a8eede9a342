//! The worlds that are searched, smallest first.

use crate::bounds::{Bounds, Most, Rates};

const NOTHING: Most = Bounds::SMALLEST.most;

/// Every world, by name.
pub const WORLDS: &[Bounds] = &[
    Bounds {
        name: "handoff",
        about: "one planned handoff, every interleaving, with loss, delay and expiry",
        most: Most {
            handoffs: 1,
            ..NOTHING
        },
        ..Bounds::SMALLEST
    },
    Bounds {
        name: "cancel",
        about: "a handoff that somebody wants cancelled",
        most: Most {
            handoffs: 1,
            cancels: 1,
            ..NOTHING
        },
        ..Bounds::SMALLEST
    },
    Bounds {
        name: "crash",
        about: "a handoff and a crash of either party",
        most: Most {
            handoffs: 1,
            crashes: 1,
            ..NOTHING
        },
        ..Bounds::SMALLEST
    },
    Bounds {
        name: "clocks",
        about: "no handoff; clocks at both ends of their bound, and a change of leader",
        assigners: 2,
        ttl_ticks: 2,
        message_ticks: 2,
        rates: Rates::Tight,
        most: Most {
            elections: 1,
            ..NOTHING
        },
        live: false,
        ..Bounds::SMALLEST
    },
    Bounds {
        name: "main",
        about: "a handoff and one failure: of a Slicelet, or of the leader",
        assigners: 2,
        most: Most {
            handoffs: 1,
            faults: 1,
            ..NOTHING
        },
        ..Bounds::SMALLEST
    },
];
