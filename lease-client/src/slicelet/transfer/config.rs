//! What an application decides about transfers.

use std::time::Duration;

use leasehold_proto::limits;

use crate::pace::Speed;

/// What is done when the state of a slice cannot be brought over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnTransferFailure {
    /// The slice stays where it is, and its owner goes on serving. The planner tries again.
    #[default]
    Stay,
    /// The slice moves all the same, and begins empty: for state that is only a cache.
    GoCold,
}

/// How state is transferred; see [`SliceletBuilder::transfers`](crate::SliceletBuilder::transfers).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transfers {
    /// What is done when a transfer fails; stay unless set. Said to both ends, the source's counts
    /// once the slice is frozen.
    pub on_failure: OnTransferFailure,
    /// Slices that are sent at once, and taken in at once, in bulk; 4 unless set. Others wait, and
    /// their handoffs with them.
    pub most_at_once: usize,
    /// About how many bytes one frame has; 256 KiB unless set.
    pub frame_bytes: usize,
    /// Bytes that a source keeps until they are acknowledged, for each transfer; 8 MiB unless set.
    pub window_bytes: usize,
    /// How fast; as fast as requests stay quick unless set.
    pub speed: Speed,
    /// Keys that are compared at both ends before a surrender; 32 unless set, 0 for none.
    pub samples: usize,
    /// How long a frozen slice waits for its last change to be acknowledged, before the transfer
    /// has failed; 500 ms unless set. Requests wait as long; see
    /// [`SliceletBuilder::waiting`](crate::SliceletBuilder::waiting).
    pub finish_deadline: Duration,
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            on_failure: OnTransferFailure::Stay,
            most_at_once: 4,
            frame_bytes: 256 << 10,
            window_bytes: 8 << 20,
            speed: Speed::default(),
            samples: 32,
            finish_deadline: Duration::from_millis(500),
        }
    }
}

impl Transfers {
    /// The same within the bounds of the protocol.
    pub(super) fn within_limits(mut self) -> Self {
        self.most_at_once = self.most_at_once.clamp(1, limits::OPEN_HANDOFFS_PER_TARGET);
        self.frame_bytes = self.frame_bytes.clamp(1, limits::STATE_FRAME_BYTES);
        self.window_bytes = self.window_bytes.clamp(1, limits::STATE_WINDOW_BYTES);
        self.samples = self.samples.min(limits::STATE_SAMPLES);
        self
    }
}
