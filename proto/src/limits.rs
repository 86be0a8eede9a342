//! Every bound of the protocol, in one file. A request or record beyond one is refused with an
//! error that names it. Only what its sender repeats by itself (renewals, messages about handoffs)
//! is dropped instead.

use std::time::Duration;

/// Longest target name: one RFC 1123 label.
pub const TARGET_NAME_BYTES: usize = 63;
/// Longest `host:port` of a pod.
pub const POD_ADDRESS_BYTES: usize = 255;
/// Longest application version that a Slicelet may register.
pub const APP_VERSION_BYTES: usize = 128;
/// Longest free text of an operator (description, reason of a hold, audit note).
pub const TEXT_BYTES: usize = 512;

/// Targets of one Assigner.
pub const TARGETS: usize = 1_024;
/// Slices of one target.
pub const SLICES_PER_TARGET: usize = 1 << 20;
/// Slices that a new target may be cut into.
pub const INITIAL_SLICES: usize = 1 << 16;
/// Live sessions of one target.
pub const SESSIONS_PER_TARGET: usize = 32_768;
/// Ghosts kept by session; beyond it only an operator's word ends an arming.
pub const GHOSTS_PER_TARGET: usize = 1_024;
/// Replicas of one slice, its owner not counted.
pub const REPLICAS_PER_SLICE: usize = 16;
/// Steps in one plan.
pub const PLAN_STEPS: usize = 4_096;
/// Open handoffs of one target.
pub const OPEN_HANDOFFS_PER_TARGET: usize = 4_096;
/// Successors named in one expiry.
pub const SUCCESSORS: usize = 1 << 16;

/// Words in one renewal.
pub const WORDS_PER_RENEWAL: usize = OPEN_HANDOFFS_PER_TARGET;
/// Transmissions of renewals that a Holder remembers while unanswered.
pub const OUTSTANDING_RENEWALS: usize = 64;
/// Messages about handoffs that are not (yet) in the view, kept by a Holder.
pub const EARLY_HANDOFF_MESSAGES: usize = 1_024;
/// Renewals that a Grantor collects before it refuses more.
pub const PENDING_RENEWALS: usize = 1 << 17;
/// Hints that a Router keeps beside its map.
pub const ROUTER_HINTS: usize = 4_096;

/// Addresses that a view may carry, of sessions that it names and named before.
pub const PODS_PER_VIEW: usize = 8 * SESSIONS_PER_TARGET;
/// Slices in one load report.
pub const LOADS_PER_REPORT: usize = 4_096;
/// Most used keys named for one slice of a load report.
pub const HOT_KEYS_PER_SLICE: usize = 16;
/// Longest name that a Clerk gives itself.
pub const CLIENT_NAME_BYTES: usize = 128;
/// Slices, sessions or handoffs in one page of a listing.
pub const PAGE_ITEMS: usize = 4_096;
/// Longest application key of a lookup.
pub const KEY_BYTES: usize = 64 << 10;
/// Members of one cluster of Assigners.
pub const MEMBERS: usize = 64;
/// One chunk of a snapshot that is saved.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Records of one frame of a transfer, in bytes; a record that is larger than this cannot move.
pub const STATE_FRAME_BYTES: usize = 1 << 20;
/// State that a source keeps unacknowledged for one transfer, in bytes.
pub const STATE_WINDOW_BYTES: usize = 16 << 20;
/// Records that are compared at the end of a transfer.
pub const STATE_SAMPLES: usize = 64;
/// Longest record that is compared, so that all of them are 256 KiB at most; longer ones are not.
pub const STATE_SAMPLE_BYTES: usize = 4_096;
/// Largest redirect in the metadata of an answer, before base64.
pub const REDIRECT_BYTES: usize = 1_024;

/// Shortest time to live of a session.
pub const TTL_MIN: Duration = Duration::from_millis(200);
/// Longest time to live of a session.
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// Longest deadline of a handoff.
pub const HANDOFF_DEADLINE_MAX: Duration = Duration::from_secs(3_600);

/// Largest message on a session stream or of an ordinary request, in bytes.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// Largest full view, in bytes; bounds what a Clerk or Slicelet must accept at once.
pub const VIEW_BYTES: usize = 128 << 20;

/// Incarnations fit in 15 bits, so that a token fits a signed 64-bit column.
pub const INCARNATION_MAX: u16 = (1 << 15) - 1;
/// Log indexes fit in 48 bits: at a million commits per second, nine years.
pub const NUMBER_MAX: u64 = (1 << 48) - 1;
