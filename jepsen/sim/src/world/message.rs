//! Messages under way.

use leasehold_proto::command::Registered;
use leasehold_proto::message::{Moved, Ready, ReadyAnswer, Renew, Renewed};
use leasehold_proto::{ClockTime, SessionId, Squid, ViewUpdate};

use super::store::{StoreReply, StoreRequest};
use super::transfer::Parcel;

/// A message under way. Whoever is named by an index is reached at that address, whatever
/// process lives there by then.
#[derive(Clone, Debug)]
pub enum Message {
    Register {
        host: usize,
        squid: Squid,
        node: usize,
    },
    Registered {
        host: usize,
        squid: Squid,
        reply: Registered,
    },
    Renew {
        host: usize,
        node: usize,
        renew: Renew,
        t0: ClockTime,
    },
    Renewed {
        host: usize,
        renewed: Renewed,
        t0: ClockTime,
    },
    Closed {
        host: usize,
        session: SessionId,
    },
    Pushed {
        host: usize,
        session: SessionId,
        update: ViewUpdate,
    },
    Close {
        session: SessionId,
    },
    Ready {
        from: usize,
        host: usize,
        ready: Ready,
    },
    Answer {
        from: usize,
        host: usize,
        answer: ReadyAnswer,
    },
    Route {
        router: usize,
        update: ViewUpdate,
    },
    Hint {
        router: usize,
        moved: Moved,
    },
    /// An application asks the store outside. `process` is the Squid's random number.
    ToStore {
        host: usize,
        process: u128,
        request: StoreRequest,
    },
    FromStore {
        host: usize,
        process: u128,
        reply: StoreReply,
    },
    /// Between the ends of a transfer of state.
    Parcel {
        from: usize,
        host: usize,
        attempt: u64,
        parcel: Parcel,
    },
}

/// Which of a host's links are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    pub to_assigner: bool,
    pub from_assigner: bool,
    pub peers: bool,
}

/// The link that a message needs.
pub enum Link {
    Up(usize),
    Down(usize),
    Between(usize, usize),
    Always,
}

impl Message {
    pub fn link(&self) -> Link {
        match self {
            Message::Register { host, .. } | Message::Renew { host, .. } => Link::Up(*host),
            Message::Registered { host, .. }
            | Message::Renewed { host, .. }
            | Message::Closed { host, .. }
            | Message::Pushed { host, .. } => Link::Down(*host),
            Message::Ready { from, host, .. }
            | Message::Answer { from, host, .. }
            | Message::Parcel { from, host, .. } => Link::Between(*from, *host),
            Message::Close { .. }
            | Message::Route { .. }
            | Message::Hint { .. }
            | Message::ToStore { .. }
            | Message::FromStore { .. } => Link::Always,
        }
    }

    /// The process that must be scheduled to take it: a host, or a node.
    pub fn taker(&self) -> (Option<usize>, Option<usize>) {
        match self {
            Message::Register { node, .. } | Message::Renew { node, .. } => (None, Some(*node)),
            Message::Registered { host, .. }
            | Message::Renewed { host, .. }
            | Message::Closed { host, .. }
            | Message::Pushed { host, .. }
            | Message::Ready { host, .. }
            | Message::Answer { host, .. }
            | Message::Parcel { host, .. }
            | Message::FromStore { host, .. } => (Some(*host), None),
            Message::Close { .. }
            | Message::Route { .. }
            | Message::Hint { .. }
            | Message::ToStore { .. } => (None, None),
        }
    }
}
