//! Transfers: the bytes of a slice's state on their way from one Slicelet to another.
//!
//! Two pure machines, one at each end of a connection that may break: the [`Sender`] numbers
//! frames and keeps what was not acknowledged, up to a bound; the [`Receiver`] takes each frame
//! once and in order, or refuses it. Every frame bears the [`TransferTag`] and a checksum over tag,
//! number, mark and records. Both ends hash the checksums in a chain, so that the [`Digest`] of the
//! last frame covers every byte of every frame before it, and nothing large is hashed while the
//! slice is frozen. The source surrenders with that digest, after the destination has acknowledged
//! it: a surrender never outruns the state.

use std::collections::VecDeque;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::command::Digest;
use crate::id::{Epoch, HandoffId};
use crate::limits;
use crate::slice::Slice;
use crate::target::TargetName;

/// What every frame says of the state that it carries a part of.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct TransferTag {
    /// Of which target.
    pub target: TargetName,
    /// Of which slice.
    pub slice: Slice,
    /// At which epoch the source owns it, by the table.
    pub from_epoch: Epoch,
    /// At which the destination will own it, or does (eventual mode).
    pub to_epoch: Epoch,
    /// The handoff that it is for; `None` in eventual mode.
    pub handoff: Option<HandoffId>,
}

/// Where in the stream of a transfer a frame stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Mark {
    /// More is to come at once.
    More,
    /// With this frame the destination had everything for a moment: it may say *ready*.
    CaughtUp,
    /// The last change: the slice was frozen before it was read, nothing comes after it.
    Last,
}

/// A part of a slice's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<B> {
    /// What it is a part of.
    pub tag: TransferTag,
    /// From 1, without gaps.
    pub seq: u64,
    /// Where it stands.
    pub mark: Mark,
    /// Records of the application, at most [`limits::STATE_FRAME_BYTES`]; may be empty.
    pub records: B,
    /// Over all of the above.
    pub checksum: u64,
    /// Of the whole transfer up to and with this frame. Said of the last frame only.
    pub digest: Option<Digest>,
    /// Records of some keys as the source has them, for comparison: at most
    /// [`limits::STATE_SAMPLES`], each of at most [`limits::STATE_SAMPLE_BYTES`]. With the last
    /// frame only; the checksum does not cover them, since a wrong one can only fail the transfer.
    pub samples: Vec<Vec<u8>>,
    /// The source is about to end: its destination should not slow it down for requests. Not
    /// covered by the checksum either.
    pub urgent: bool,
}

/// Destination to source: everything up to and with `seq` was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Ack {
    /// The number of the newest frame.
    pub seq: u64,
    /// The destination's own digest after it.
    pub digest: Digest,
}

/// Why a frame or an acknowledgement is not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, thiserror::Error)]
pub enum Refusal {
    /// It is of another transfer of this slice, at older epochs.
    #[error("the frame is of an older transfer of the slice")]
    OldEpoch,
    /// It is of something else.
    #[error("the frame is of another transfer")]
    WrongTag,
    /// One between was lost.
    #[error("frame {found} came where {wanted} was to come")]
    Gap {
        /// Its number.
        found: u64,
        /// The number that was to come.
        wanted: u64,
    },
    /// It was taken in before.
    #[error("frame {0} has come already")]
    Duplicate(u64),
    /// It is larger than a frame may be.
    #[error("the frame has {0} bytes of records, more than a frame may have")]
    TooLarge(usize),
    /// Its bytes are not those that were sent.
    #[error("the checksum of frame {0} is wrong")]
    Checksum(u64),
    /// The ends do not have the same bytes.
    #[error("the digests of the two ends differ after frame {0}")]
    Digest(u64),
    /// The last frame has come, or there is no frame of this number.
    #[error("frame {0} is beyond the end")]
    BeyondEnd(u64),
}

impl Refusal {
    /// Whether a new connection that begins at the next frame can mend it; else only a transfer
    /// from the beginning.
    pub fn can_resume(self) -> bool {
        matches!(
            self,
            Refusal::Gap { .. } | Refusal::Duplicate(_) | Refusal::Checksum(_)
        )
    }
}

fn checksum(tag: &TransferTag, seq: u64, mark: Mark, records: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    let name = tag.target.as_str().as_bytes();
    hash.update(&(name.len() as u64).to_be_bytes());
    hash.update(name);
    let numbers = [
        tag.slice.first().as_u64(),
        tag.slice.last().as_u64(),
        tag.from_epoch.token().as_u64(),
        tag.to_epoch.token().as_u64(),
        tag.handoff.map_or(0, HandoffId::as_u64),
        seq,
        mark as u64,
    ];
    for number in numbers {
        hash.update(&number.to_be_bytes());
    }
    hash.update(records);
    hash.digest()
}

/// Whether a bug is planted that the digest would show as well.
fn careless() -> bool {
    #[cfg(leasehold_mutants)]
    if mutant!("state_digest_ignored")
        || mutant!("state_applied_twice")
        || mutant!("state_frame_dropped")
        || mutant!("state_of_older_epoch_accepted")
    {
        return true;
    }
    false
}

fn chained(before: Digest, checksum: u64) -> Digest {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&before.0);
    bytes[16..].copy_from_slice(&checksum.to_be_bytes());
    Digest(xxh3_128(&bytes).to_be_bytes())
}

/// A source's end. `B` is how it keeps bytes; a clone should be cheap.
#[derive(Clone, Debug)]
pub struct Sender<B> {
    tag: TransferTag,
    digest: Digest,
    next: u64,
    ended: bool,
    unacknowledged: VecDeque<(Frame<B>, Digest)>,
    window_bytes: usize,
    bytes: usize,
}

impl<B: AsRef<[u8]> + Clone> Sender<B> {
    /// A transfer of which nothing was sent. At most about `window_bytes` are kept unacknowledged.
    pub fn new(tag: TransferTag, window_bytes: usize) -> Self {
        Self {
            tag,
            digest: Digest::EMPTY,
            next: 1,
            ended: false,
            unacknowledged: VecDeque::new(),
            window_bytes,
            bytes: 0,
        }
    }

    /// What the transfer is of.
    pub fn tag(&self) -> &TransferTag {
        &self.tag
    }

    /// Whether anything was sent.
    pub fn begun(&self) -> bool {
        self.next > 1
    }

    /// Whether another frame may be sent before more is acknowledged.
    pub fn has_room(&self) -> bool {
        self.bytes < self.window_bytes
    }

    /// Whether the last frame was sent.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next frame, to be sent; samples and urgency are added by the caller. `None` after the last
    /// one, or if `records` are more than a frame may have.
    pub fn push(&mut self, mark: Mark, records: B) -> Option<Frame<B>> {
        let length = records.as_ref().len();
        if self.ended || length > limits::STATE_FRAME_BYTES {
            return None;
        }
        let checksum = checksum(&self.tag, self.next, mark, records.as_ref());
        self.digest = chained(self.digest, checksum);
        self.ended = mark == Mark::Last;
        let frame = Frame {
            tag: self.tag.clone(),
            seq: self.next,
            mark,
            records,
            checksum,
            digest: self.ended.then_some(self.digest),
            samples: Vec::new(),
            urgent: false,
        };
        self.next += 1;
        self.bytes += length;
        self.unacknowledged.push_back((frame.clone(), self.digest));
        Some(frame)
    }

    /// The destination has everything up to a frame. `Ok(Some)` when that was the last one: the
    /// digest to surrender with.
    ///
    /// # Errors
    /// A [`Refusal`] when it has other bytes than were sent, or speaks of a frame that was not: the
    /// transfer is worth nothing.
    pub fn acknowledge(&mut self, ack: Ack) -> Result<Option<Digest>, Refusal> {
        if ack.seq >= self.next {
            return Err(Refusal::BeyondEnd(ack.seq));
        }
        let mut kept = self.unacknowledged.iter();
        let newest = kept.find(|(frame, _)| frame.seq == ack.seq);
        if newest.is_some_and(|(_, digest)| *digest != ack.digest) && !careless() {
            return Err(Refusal::Digest(ack.seq));
        }
        self.forget(ack.seq);
        let all = self.ended && self.unacknowledged.is_empty();
        Ok(all.then_some(self.digest))
    }

    /// Drops what the destination has.
    fn forget(&mut self, have: u64) {
        let oldest_kept = self
            .unacknowledged
            .partition_point(|(frame, _)| frame.seq <= have);
        for (frame, _) in self.unacknowledged.drain(..oldest_kept) {
            self.bytes -= frame.records.as_ref().len();
        }
    }

    /// What a destination that has everything up to and with `have` lacks, to be sent again after
    /// a connection broke. `None` when it lacks more than is kept, or claims more than was sent:
    /// only a transfer from the beginning helps.
    pub fn resume(&mut self, have: u64) -> Option<Vec<Frame<B>>> {
        let oldest = self
            .unacknowledged
            .front()
            .map_or(self.next, |(frame, _)| frame.seq);
        if have >= self.next || have + 1 < oldest {
            return None;
        }
        self.forget(have);
        Some(
            self.unacknowledged
                .iter()
                .map(|(frame, _)| frame.clone())
                .collect(),
        )
    }
}

/// A destination's end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    tag: TransferTag,
    digest: Digest,
    have: u64,
    caught_up: bool,
    ended: bool,
}

impl Receiver {
    /// A transfer of which nothing has come.
    pub fn new(tag: TransferTag) -> Self {
        Self {
            tag,
            digest: Digest::EMPTY,
            have: 0,
            caught_up: false,
            ended: false,
        }
    }

    /// What the transfer is of.
    pub fn tag(&self) -> &TransferTag {
        &self.tag
    }

    /// Checks a frame. After `Ok` its records must be taken in, before [`Receiver::ack`] is said.
    ///
    /// # Errors
    /// A [`Refusal`]: its records must not be taken in.
    pub fn receive<B: AsRef<[u8]>>(&mut self, frame: &Frame<B>) -> Result<(), Refusal> {
        self.check_tag(&frame.tag)?;
        let records = frame.records.as_ref();
        if records.len() > limits::STATE_FRAME_BYTES {
            return Err(Refusal::TooLarge(records.len()));
        }
        if frame.seq <= self.have && !mutant!("state_applied_twice") {
            return Err(Refusal::Duplicate(frame.seq));
        }
        if self.ended {
            return Err(Refusal::BeyondEnd(frame.seq));
        }
        let wanted = self.have + 1;
        if frame.seq > wanted && !mutant!("state_frame_dropped") {
            let found = frame.seq;
            return Err(Refusal::Gap { found, wanted });
        }
        let checksum = checksum(&frame.tag, frame.seq, frame.mark, records);
        if checksum != frame.checksum {
            return Err(Refusal::Checksum(frame.seq));
        }
        let mut digest = chained(self.digest, checksum);
        let last = frame.mark == Mark::Last;
        if last && frame.digest != Some(digest) {
            if !careless() {
                return Err(Refusal::Digest(frame.seq));
            }
            digest = frame.digest.unwrap_or(digest);
        }
        self.have = self.have.max(frame.seq);
        self.digest = digest;
        self.caught_up |= frame.mark != Mark::More;
        self.ended = last;
        Ok(())
    }

    fn check_tag(&self, tag: &TransferTag) -> Result<(), Refusal> {
        if *tag == self.tag {
            return Ok(());
        }
        let same_place = tag.target == self.tag.target && tag.slice == self.tag.slice;
        if same_place && tag.to_epoch < self.tag.to_epoch {
            if mutant!("state_of_older_epoch_accepted") {
                return Ok(());
            }
            return Err(Refusal::OldEpoch);
        }
        Err(Refusal::WrongTag)
    }

    /// What to acknowledge now; also what a new connection is to go on from.
    pub fn ack(&self) -> Ack {
        Ack {
            seq: self.have,
            digest: self.digest,
        }
    }

    /// Whether it had everything once: the destination may say *ready*.
    pub fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// The digest of the whole, once the last frame was taken in.
    pub fn complete(&self) -> Option<Digest> {
        self.ended.then_some(self.digest)
    }
}

#[cfg(test)]
mod tests;
