//! State on its way from one process to another, beside the handoff: what a Slicelet's shell does
//! with the two machines of `leasehold_proto::transfer`.
//!
//! The destination begins, and begins again whenever it has heard nothing for a while, from where
//! it stands; the source reads what there is while it serves, then what has changed, and the last
//! change when the slice is frozen and no guard is in flight. ◆ It surrenders when the destination
//! has acknowledged that, or, as it was told, stays, or gives the state up.
//!
//! Frames may come doubled, late, or from an earlier attempt; acknowledgements, like the answers on
//! a connection, are taken only of the newest one.

use std::collections::VecDeque;

use leasehold_proto::command::Digest;
use leasehold_proto::holder::Input;
use leasehold_proto::id::HandoffId;
use leasehold_proto::transfer::{Ack, Frame, Mark, Receiver, Refusal, Sender, TransferTag};
use leasehold_proto::{Epoch, SessionId, Slice};

use super::memory::{Memory, Value};
use super::{KEYS, Message, World, key, target};
use crate::check::keys_of;
use crate::coverage::Seen;
use crate::options::Fault;
use crate::planted;

/// What a source keeps unacknowledged, in bytes: a few records.
const WINDOW: usize = 100;
/// Frames that may come again.
const ECHOES: usize = 8;
/// Records in one frame.
const RECORDS: usize = 2;

/// A source's end.
pub struct Export {
    sender: Sender<Vec<u8>>,
    /// Which attempt of the destination it answers.
    attempt: u64,
    to: usize,
    /// Keys that were not read yet, or have changed since.
    left: VecDeque<usize>,
}

/// A destination's end.
pub struct Import {
    pub receiver: Receiver,
    from: (usize, SessionId),
    to: SessionId,
    attempt: u64,
    values: [Value; KEYS],
    /// What `acknowledged_before_taken_in` has not taken in.
    late: Vec<u8>,
}

/// What goes between the two. `attempt` stands for the connection.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// Destination to source: go on after this, or begin.
    Begin {
        tag: TransferTag,
        sessions: (SessionId, SessionId),
        have: Option<Ack>,
    },
    /// What the source has of that is no more: begin anew.
    Anew(HandoffId),
    Frame(Frame<Vec<u8>>),
    Ack(HandoffId, Ack),
}

impl Export {
    /// A key was written: it is to be sent again, if it was read.
    pub fn changed(&mut self, k: usize) -> bool {
        let again = self.sender.tag().slice.contains(key(k)) && !self.left.contains(&k);
        if again {
            self.left.push_back(k);
        }
        again
    }
}

impl Import {
    pub fn is_of(&self, k: usize, epoch: Epoch) -> bool {
        let tag = self.receiver.tag();
        tag.to_epoch == epoch && tag.slice.contains(key(k))
    }

    /// ◆ Only what the source has surrendered with.
    pub fn may_be_served(&self, proof: Option<Digest>) -> bool {
        let complete = self.receiver.complete();
        if planted("state_served_without_proof") {
            return self.receiver.caught_up();
        }
        complete.is_some() && complete == proof
    }

    pub fn value(&self, k: usize) -> Value {
        self.values[k].clone()
    }

    fn take(&mut self, records: &[u8]) {
        for (k, value) in Value::read_all(records) {
            self.values[k] = value;
        }
    }

    fn begin_anew(&mut self) {
        self.receiver = Receiver::new(self.receiver.tag().clone());
        self.values = Default::default();
        self.late.clear();
    }
}

/// The keys of a slice, in an order of its own for every transfer.
fn keys_from(slice: Slice, first: usize) -> VecDeque<usize> {
    let mut keys: VecDeque<usize> = keys_of(slice).collect();
    keys.rotate_left(first % keys.len().max(1));
    keys
}

impl World {
    fn parcel(&mut self, from: usize, host: usize, attempt: u64, parcel: Parcel) {
        let is_frame = matches!(parcel, Parcel::Frame(_));
        let message = Message::Parcel {
            from,
            host,
            attempt,
            parcel,
        };
        if is_frame && self.adversity.chance(Fault::Duplication) > 0 {
            if self.echoes.len() >= ECHOES {
                self.echoes.remove(0);
            }
            self.echoes.push(message.clone());
        }
        self.send(message);
    }

    /// A destination prepares: it asks the source for the state.
    pub(super) fn pull(&mut self, at: usize, handoff: HandoffId, slice: Slice, to_epoch: Epoch) {
        let host = &mut self.hosts[at];
        let owner = host
            .holder
            .view()
            .and_then(|view| view.get(slice.first()).1.owner);
        let (Some(owner), Some(to)) = (owner, host.holder.session()) else {
            return;
        };
        let Some(source) = self.home.get(&owner.session) else {
            return;
        };
        let tag = TransferTag {
            target: target().clone(),
            slice,
            from_epoch: owner.epoch,
            to_epoch,
            handoff: Some(handoff),
        };
        let import = Import {
            receiver: Receiver::new(tag),
            from: (*source, owner.session),
            to,
            attempt: 0,
            values: Default::default(),
            late: Vec::new(),
        };
        host.application.kept.imports.insert(handoff, import);
        self.begin_again(at, handoff);
    }

    /// A new connection, which goes on where the last one ended.
    fn begin_again(&mut self, at: usize, handoff: HandoffId) {
        let Some(import) = self.hosts[at].application.kept.imports.get_mut(&handoff) else {
            return;
        };
        import.attempt += 1;
        let have = import.receiver.ack();
        let begin = Parcel::Begin {
            tag: import.receiver.tag().clone(),
            sessions: (import.from.1, import.to),
            have: (have.seq > 0).then_some(have),
        };
        let (source, attempt) = (import.from.0, import.attempt);
        self.parcel(at, source, attempt, begin);
    }

    pub(super) fn deliver_parcel(&mut self, from: usize, at: usize, attempt: u64, parcel: Parcel) {
        match parcel {
            Parcel::Begin {
                tag,
                sessions,
                have,
            } => self.source_asked(from, at, attempt, tag, sessions, have),
            Parcel::Ack(handoff, ack) => self.source_acknowledged(at, attempt, handoff, ack),
            Parcel::Frame(frame) => self.take_frame(at, frame),
            Parcel::Anew(handoff) => {
                let imports = &mut self.hosts[at].application.kept.imports;
                let import = imports.get_mut(&handoff);
                if let Some(import) = import.filter(|import| import.attempt == attempt) {
                    import.begin_anew();
                    self.begin_again(at, handoff);
                }
            }
        }
    }

    /// Whether this process is the source of just that, and may still go either way.
    fn is_source(&self, at: usize, tag: &TransferTag, sessions: (SessionId, SessionId)) -> bool {
        let holder = &self.hosts[at].holder;
        let (Some(view), Some(id)) = (holder.view(), tag.handoff) else {
            return false;
        };
        let (slice, assigned) = view.get(tag.slice.first());
        let open = assigned.handoff.filter(|open| open.id == id);
        let fits = open.is_some_and(|open| open.epoch == tag.to_epoch && open.to == sessions.1);
        let owner = assigned.owner.map(|owner| (owner.session, owner.epoch));
        fits && slice == tag.slice
            && owner == Some((sessions.0, tag.from_epoch))
            && holder.session() == Some(sessions.0)
            && holder.leaving().any(|leaving| leaving == id)
    }

    fn source_asked(
        &mut self,
        from: usize,
        at: usize,
        attempt: u64,
        tag: TransferTag,
        sessions: (SessionId, SessionId),
        have: Option<Ack>,
    ) {
        let Some(id) = tag.handoff.filter(|_| self.is_source(at, &tag, sessions)) else {
            return;
        };
        let first = self.rng.index(KEYS);
        // What moves empty shows nothing.
        let some = keys_from(tag.slice, first).front().copied();
        if let Some(k) = some.filter(|_| !self.benign && self.rng.chance(50)) {
            self.serve_from_memory(at, k);
        }
        let memory = &mut self.hosts[at].application.kept;
        let Some(have) = have else {
            if memory
                .exports
                .get(&id)
                .is_none_or(|old| old.attempt < attempt)
            {
                let export = Export {
                    left: keys_from(tag.slice, first),
                    sender: Sender::new(tag, WINDOW),
                    attempt,
                    to: from,
                };
                memory.exports.insert(id, export);
                self.pump_transfer(at, id);
            }
            return;
        };
        let Some(export) = memory.exports.get_mut(&id) else {
            self.coverage.see(Seen::TransferBegunAnew);
            return self.parcel(at, from, attempt, Parcel::Anew(id));
        };
        if export.attempt >= attempt {
            return;
        }
        export.attempt = attempt;
        let acknowledged = export.sender.acknowledge(have);
        match acknowledged.ok().zip(export.sender.resume(have.seq)) {
            None => {
                self.coverage.see(Seen::BytesDiffered);
                self.hosts[at].application.kept.exports.remove(&id);
                self.parcel(at, from, attempt, Parcel::Anew(id));
            }
            Some((done, frames)) => {
                self.coverage.see(Seen::TransferResumed);
                for frame in frames {
                    self.parcel(at, from, attempt, Parcel::Frame(frame));
                }
                self.transferred(at, id, done);
            }
        }
    }

    fn source_acknowledged(&mut self, at: usize, attempt: u64, id: HandoffId, ack: Ack) {
        let exports = &mut self.hosts[at].application.kept.exports;
        let Some(export) = exports.get_mut(&id).filter(|open| open.attempt == attempt) else {
            return;
        };
        match export.sender.acknowledge(ack) {
            Ok(done) => {
                self.give(at, Input::Progressing(id));
                self.transferred(at, id, done);
            }
            Err(_) => {
                let to = export.to;
                exports.remove(&id);
                self.coverage.see(Seen::BytesDiffered);
                self.parcel(at, to, attempt, Parcel::Anew(id));
            }
        }
    }

    /// The destination has everything, if it has.
    fn transferred(&mut self, at: usize, id: HandoffId, done: Option<Digest>) {
        if let Some(digest) = done {
            self.surrender(at, id, digest);
        }
    }

    /// Sends the next frame, if there is anything to send.
    pub(super) fn pump_transfer(&mut self, at: usize, id: HandoffId) {
        let host = &mut self.hosts[at];
        let drained = host.drained.contains(&id);
        let Memory { cells, exports, .. } = &mut host.application.kept;
        let Some(export) = exports.get_mut(&id).filter(|open| open.sender.has_room()) else {
            return;
        };
        let mut records = Vec::new();
        for _ in 0..RECORDS {
            if let Some(k) = export.left.pop_front() {
                cells[k].value.write(k, &mut records);
            }
        }
        let mark = match export.left.is_empty() {
            true if drained => Mark::Last,
            true => Mark::CaughtUp,
            false => Mark::More,
        };
        // When all is said and the slice is not frozen there is nothing to say.
        if records.is_empty() && !drained && export.sender.begun() {
            return;
        }
        let (to, attempt) = (export.to, export.attempt);
        if let Some(frame) = export.sender.push(mark, records) {
            self.parcel(at, to, attempt, Parcel::Frame(frame));
        }
    }

    /// The import that a frame is for is found by its slice: whatever comes over a connection is
    /// the Receiver's to refuse.
    fn take_frame(&mut self, at: usize, frame: Frame<Vec<u8>>) {
        let imports = &mut self.hosts[at].application.kept.imports;
        let slice = frame.tag.slice;
        let found = imports
            .iter_mut()
            .find(|(_, open)| open.receiver.tag().slice == slice);
        let Some((id, import)) = found else {
            return;
        };
        let (id, refused) = (*id, import.receiver.receive(&frame).err());
        match refused {
            None if planted("acknowledged_before_taken_in") => {
                let before = std::mem::replace(&mut import.late, frame.records);
                import.take(&before);
            }
            None => import.take(&frame.records),
            Some(Refusal::Digest(_)) => import.begin_anew(),
            Some(_) => {}
        }
        match refused {
            // Not each by itself.
            None if !self.benign && self.rng.chance(40) => {}
            None | Some(Refusal::Duplicate(_)) => self.acknowledge_frame(at, id),
            Some(Refusal::Gap { .. }) if self.rng.chance(50) => self.begin_again(at, id),
            Some(Refusal::Digest(_)) => self.begin_again(at, id),
            Some(_) => {}
        }
        if let Some(refusal) = refused {
            self.notice_refusal(refusal);
        }
    }

    fn acknowledge_frame(&mut self, at: usize, id: HandoffId) {
        let Some(import) = self.hosts[at].application.kept.imports.get(&id) else {
            return;
        };
        let (source, attempt, ack) = (import.from.0, import.attempt, import.receiver.ack());
        self.parcel(at, source, attempt, Parcel::Ack(id, ack));
    }

    fn notice_refusal(&mut self, refusal: Refusal) {
        self.coverage.see(match refusal {
            Refusal::Duplicate(_) => Seen::FrameDuplicate,
            Refusal::Gap { .. } => Seen::FrameGap,
            Refusal::OldEpoch => Seen::FrameOfOldEpoch,
            Refusal::Digest(_) => Seen::BytesDiffered,
            _ => return,
        });
    }

    /// Something gets on with the transfers of a process.
    pub(super) fn work_on_transfers(&mut self, at: usize) {
        let memory = &self.hosts[at].application.kept;
        let (out, into) = (memory.exports.len(), memory.imports.len());
        if out + into == 0 {
            return;
        }
        let nth = self.rng.index(out + into);
        let memory = &self.hosts[at].application.kept;
        match memory.exports.keys().nth(nth).copied() {
            Some(id)
                if self
                    .rng
                    .chance(2 * self.adversity.chance(Fault::Impatience)) =>
            {
                self.note(|| format!("host {at}: gives the transfer for {id} up"));
                self.hosts[at].application.kept.exports.remove(&id);
            }
            Some(id) => {
                for _ in 0..3 {
                    self.pump_transfer(at, id);
                }
            }
            None => {
                let id = memory.imports.keys().nth(nth - out).copied();
                if let Some(id) = id.filter(|_| self.rng.chance(30)) {
                    self.begin_again(at, id);
                }
            }
        }
    }

    /// Whether the destination may say that it is ready.
    pub(super) fn has_caught_up(&self, at: usize, id: HandoffId) -> bool {
        let import = self.hosts[at].application.kept.imports.get(&id);
        !self.adversity.stateful || import.is_some_and(|import| import.receiver.caught_up())
    }

    /// Everything is sent and asked for again, in a world in which nothing is lost any more.
    pub(super) fn finish_transfers(&mut self, at: usize, round: usize) {
        let memory = &self.hosts[at].application.kept;
        let exports: Vec<HandoffId> = memory.exports.keys().copied().collect();
        let imports: Vec<HandoffId> = memory.imports.keys().copied().collect();
        for id in exports {
            for _ in 0..KEYS {
                self.pump_transfer(at, id);
            }
        }
        for id in imports.into_iter().filter(|_| round.is_multiple_of(4)) {
            self.begin_again(at, id);
        }
    }

    /// Drops what belongs to handoffs that have ended.
    pub(super) fn end_transfers(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let holder = &host.holder;
        let leaving = |id: HandoffId| holder.leaving().any(|open| open == id);
        host.draining.retain(|id, _| leaving(*id));
        host.drained.retain(|id| leaving(*id));
        host.application.kept.exports.retain(|id, _| leaving(*id));
        let arriving = |id: HandoffId| holder.arriving().any(|(open, _, _)| open == id);
        host.application.kept.imports.retain(|id, _| arriving(*id));
    }

    /// The slice is frozen and no guard is in flight: the last change goes out. Waited for only as
    /// long as patience lasts.
    pub(super) fn finish_transfer(&mut self, at: usize, id: HandoffId) {
        let host = &mut self.hosts[at];
        host.drained.insert(id);
        let begun = host.application.kept.exports.contains_key(&id);
        if begun {
            self.pump_transfer(at, id);
        }
        let patience = match self.benign {
            true => 97,
            false => 75 - 2 * self.adversity.chance(Fault::Impatience),
        };
        if begun && self.rng.chance(patience) {
            return;
        }
        if self.hosts[at].goes_cold {
            self.coverage.see(Seen::WentColdAfterFreeze);
            return self.surrender(at, id, Digest::EMPTY);
        }
        // Who does not reach its destination often does not reach the Assigner.
        let cuts = !self.benign && self.adversity.chance(Fault::Cuts) > 0;
        let cut_off = cuts && self.rng.chance(70);
        let host = &mut self.hosts[at];
        host.cut.to_assigner |= cut_off;
        host.draining.remove(&id);
        self.coverage.see(Seen::WithdrawnAfterFreeze);
        self.note(|| format!("host {at}: withdraws {id}"));
        self.give(at, Input::Withdraw(id));
    }

    pub(super) fn surrender(&mut self, at: usize, id: HandoffId, digest: Digest) {
        let host = &mut self.hosts[at];
        host.draining.remove(&id);
        let open = host.holder.leaving().any(|open| open == id);
        let shown = host.holder.view().and_then(|view| {
            let mut slices = view.slices.iter();
            slices.find_map(|(slice, assigned)| {
                let open = assigned.handoff.filter(|open| open.id == id)?;
                Some((slice, open.epoch, open.to))
            })
        });
        let Some((slice, to_epoch, to)) = shown.filter(|_| open) else {
            return;
        };
        if let Some(session) = host.holder.session() {
            self.surrendered
                .extend(keys_of(slice).map(|k| (session, k)));
        }
        let may_go_cold = host.goes_cold || !self.adversity.stateful;
        let period = self.check.strong_period();
        let memories = &mut self.check.memories;
        let judged = memories.invariant_state_is_given_up_only_where_that_is_wanted(
            id,
            slice,
            to_epoch,
            digest,
            may_go_cold,
            period,
        );
        self.check.judge(judged);
        // The word of neither may reach the Assigner before the source expires.
        let silent = !self.benign && self.hosts[at].cut.to_assigner;
        if let Some(destination) = self.home.get(&to).filter(|_| silent && self.rng.chance(50)) {
            self.hosts[*destination].cut.to_assigner = true;
        }
        self.give(at, Input::Drained(id, digest));
    }
}
