//! The destination's end of one transfer: asks the source for the state of a slice that will come,
//! takes it in, and acknowledges; again after a broken connection, for as long as the handoff is
//! open. In eventual mode from whoever had the slice before, while it is served here already.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use leasehold_proto::command::Digest;
use leasehold_proto::transfer::{Frame, Receiver, Refusal as FrameRefusal};
use leasehold_proto::wire::pb::slicelet_peer_client::SliceletPeerClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{PullBegin, PullRequest, pb};
use leasehold_proto::{HandoffId, PodAddress, limits};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::super::driver::Event;
use super::super::order::{Before, Turn};
use super::{Common, OnTransferFailure, SAY_PROGRESS, discard};
use crate::channels;
use crate::state::Import;

/// Times that a transfer begins anew, or goes on behind a frame that was refused, before it is
/// given up. A broken connection alone is no reason.
const MOST_REFUSALS: u32 = 4;
/// How long a provider may be out of reach before its state is done without.
const MERGE_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How long a source may take to begin to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Acknowledgements on their way into the connection.
const ACKS_AHEAD: usize = 16;

/// See the module's description.
pub(super) struct Destination {
    common: Common,
    purpose: Purpose,
    begin: PullBegin,
    address: PodAddress,
    receiver: Receiver,
    complete: Arc<OnceLock<Digest>>,
    said_ready: bool,
    begun: bool,
    refusals: u32,
}

/// A connection and the two directions of the call on it.
struct Call {
    _client: SliceletPeerClient<Channel>,
    acks: mpsc::Sender<pb::PullRequest>,
    frames: Streaming<pb::StateFrame>,
}

/// What becomes of the state that is taken in.
pub(super) enum Purpose {
    /// It is served once the slice is surrendered.
    Replace(HandoffId),
    /// It is merged into what is served already, while the gate is open.
    Merge(Arc<Gate>),
}

/// What a merge takes in passes here, one frame at a time.
#[derive(Default)]
pub(super) struct Gate {
    closed: Mutex<bool>,
}

impl Gate {
    /// `None` if it is closed.
    fn pass<T>(&self, take_in: impl FnOnce() -> T) -> Option<T> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        (!*closed).then(take_in)
    }

    /// ◆ When this returns nothing more is taken in.
    pub(super) fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// How a connection ended.
enum End {
    /// All is here, and the source knows or will ask no more.
    Complete,
    /// It broke; what was taken in counts.
    Broken,
    /// A frame was refused, but what was taken in counts.
    Refused,
    /// What was taken in is worth nothing.
    Anew,
    /// The source has nothing to send.
    Nothing,
    /// The handoff is decided, or the source cannot send the state.
    Over,
}

impl Destination {
    pub(super) fn new(
        common: Common,
        purpose: Purpose,
        begin: PullBegin,
        address: PodAddress,
        complete: Arc<OnceLock<Digest>>,
    ) -> Self {
        Self {
            common,
            purpose,
            receiver: Receiver::new(begin.tag.clone()),
            begin,
            address,
            complete,
            said_ready: false,
            begun: false,
            refusals: 0,
        }
    }

    /// Ends when the state is complete, or will not come.
    pub(super) async fn run(mut self, before: Before, turn: Turn) {
        before.ended().await;
        self.common.shared.counters.transfers_in.add(1);
        // Nothing of an earlier time may be left.
        self.forget(&turn).await;
        let mut since = Instant::now();
        let mut turn = Some(turn);
        let mut pause = FIRST_PAUSE;
        while let Some(held) = turn.as_ref().cloned() {
            let before = self.receiver.ack().seq;
            let end = self.attempt(&mut turn).await;
            match end {
                End::Complete => return,
                End::Broken if self.receiver.ack().seq > before => {
                    (pause, since) = (FIRST_PAUSE, Instant::now());
                }
                End::Broken => {}
                End::Refused => self.refusals += 1,
                End::Anew => {
                    self.refusals += 1;
                    self.common.shared.counters.transfers_in_begun_anew.add(1);
                    self.forget(&held).await;
                    self.receiver = Receiver::new(self.begin.tag.clone());
                    self.begun = false;
                }
                End::Nothing => return self.say_ready(),
                End::Over => self.refusals = MOST_REFUSALS,
            }
            // The handoff, where there is one, says how long it is worth while.
            let merges = matches!(self.purpose, Purpose::Merge(_));
            let late = merges && since.elapsed() >= MERGE_PATIENCE;
            if self.refusals >= MOST_REFUSALS || late {
                return self.give_up(held).await;
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        // Complete, but the connection broke before the source was seen to know.
        while matches!(self.attempt(&mut turn).await, End::Broken) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The state will not come: the declared policy.
    async fn give_up(self, turn: Turn) {
        let counters = &self.common.shared.counters;
        counters.transfers_in_failed.add(1);
        tracing::info!(slice = %self.begin.tag.slice, "the state of a slice cannot be had from its owner");
        self.forget(&turn).await;
        if let Purpose::Replace(handoff) = self.purpose
            && self.common.config.on_failure == OnTransferFailure::GoCold
        {
            self.common.tell(Event::StateReady(handoff));
        }
    }

    /// What was taken in, unless it has become a part of what is served.
    async fn forget(&self, turn: &Turn) {
        if matches!(self.purpose, Purpose::Merge(_)) {
            return;
        }
        let slice = self.begin.tag.slice;
        discard(&self.common.state, slice, Some(turn.clone())).await;
    }

    fn say_ready(mut self) {
        self.ready();
    }

    fn ready(&mut self) {
        if let Purpose::Replace(handoff) = self.purpose
            && !std::mem::replace(&mut self.said_ready, true)
        {
            self.common.tell(Event::StateReady(handoff));
        }
    }

    /// One connection. Gives the turn back when the state is complete.
    async fn attempt(&mut self, turn: &mut Option<Turn>) -> End {
        let mut place = None;
        if !self.receiver.caught_up() {
            place = self.place().await;
        }
        match self.call(false).await {
            Ok(call) => self.take_in(call, place, turn).await,
            Err(end) => end,
        }
    }

    /// Waits for a place. Meanwhile the source is told that this one will come: those that have the
    /// places move on, or their handoffs end.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.common.places_in);
        let permit = places.acquire_owned();
        tokio::pin!(permit);
        loop {
            tokio::select! {
                permit = &mut permit => return permit.ok(),
                () = tokio::time::sleep(SAY_PROGRESS * 2) => {}
            }
            // What it answers is nothing to wait for.
            let _ = self.call(true).await;
        }
    }

    async fn call(&self, waiting: bool) -> Result<Call, End> {
        let have = self.begun.then(|| self.receiver.ack());
        let begin = PullBegin {
            have,
            waiting,
            ..self.begin.clone()
        };
        if have.is_some() && !waiting {
            self.common.shared.counters.transfers_in_resumed.add(1);
        }
        let (acks, requests) = mpsc::channel(ACKS_AHEAD);
        let called = async {
            let begin = pb::PullRequest::from(&PullRequest::Begin(begin));
            acks.send(begin).await.map_err(|_| End::Broken)?;
            let address = self.address.as_str();
            let channel = match waiting {
                true => self.common.pool.get(address).await,
                false => channels::connect_for_bulk(address).await,
            };
            let channel = channel.map_err(|error| {
                tracing::debug!(%error, "the source of a transfer cannot be reached");
                End::Broken
            })?;
            let mut client =
                SliceletPeerClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES);
            let reply = client.pull_state(ReceiverStream::new(requests)).await;
            let frames = reply.map_err(|status| meaning(&status))?.into_inner();
            Ok(Call {
                _client: client,
                acks,
                frames,
            })
        };
        let called = tokio::time::timeout(ANSWER_TIME, called).await;
        called.unwrap_or(Err(End::Broken))
    }

    async fn take_in(
        &mut self,
        mut call: Call,
        mut place: Option<OwnedSemaphorePermit>,
        turn: &mut Option<Turn>,
    ) -> End {
        loop {
            let message = match call.frames.message().await {
                Ok(Some(message)) => message,
                Ok(None) if self.receiver.complete().is_some() => return End::Complete,
                Ok(None) => return End::Broken,
                Err(status) => return meaning(&status),
            };
            let throttle = &self.common.throttle;
            while !self.receiver.caught_up()
                && let Some(wait) = throttle.wait()
            {
                tokio::time::sleep(wait).await;
            }
            throttle.charge(message.records.len());
            let urgent = message.urgent;
            if let Err(end) = self.frame(message) {
                return end;
            }
            if urgent {
                self.common.throttle.let_in();
            }
            if let Some(digest) = self.receiver.complete()
                && let Some(turn) = turn.take()
            {
                // ◆ Known here before the source can learn of it, and surrender.
                let _ = self.complete.set(digest);
                drop(turn);
                self.common.shared.counters.transfers_in_completed.add(1);
            }
            let ack = PullRequest::Ack(self.receiver.ack());
            if call.acks.send((&ack).into()).await.is_err() {
                return End::Broken;
            }
            if self.receiver.caught_up() {
                drop(place.take());
                self.ready();
            }
        }
    }

    /// Checks one frame and takes its records in.
    fn frame(&mut self, message: pb::StateFrame) -> Result<(), End> {
        let counters = &self.common.shared.counters;
        let frame: Frame<Bytes> = message.try_into().map_err(|error| {
            tracing::debug!(%error, "a frame of a transfer is not well-formed");
            counters.state_frame_damage.add(1);
            End::Refused
        })?;
        let slice = self.begin.tag.slice;
        self.receiver.receive(&frame).map_err(|refused| {
            tracing::debug!(%refused, %slice, "a frame of a transfer is refused");
            counters.refused_frame(refused);
            if refused.can_resume() || is_foreign(refused) {
                End::Refused
            } else {
                End::Anew
            }
        })?;
        self.begun = true;
        let import = |how| self.common.state.import(slice, &frame.records, how);
        let imported = match &self.purpose {
            Purpose::Replace(_) => import(Import::Replace),
            Purpose::Merge(gate) => gate.pass(|| import(Import::Merge)).ok_or(End::Over)?,
        };
        imported.map_err(|error| {
            tracing::warn!(%error, %slice, "the application cannot read its records");
            counters.state_bad_records.add(1);
            End::Anew
        })?;
        let differs = |sample: &Vec<u8>| !self.common.state.agrees(slice, sample);
        // What is served meanwhile may differ.
        let served = matches!(self.purpose, Purpose::Merge(_));
        if !served && frame.samples.iter().any(differs) {
            tracing::warn!(%slice, "a key that was compared differs at the two ends of a transfer");
            counters.state_samples_differ.add(1);
            return Err(End::Anew);
        }
        counters.state_bytes_in.add(frame.records.len() as u64);
        self.common.note_moved();
        Ok(())
    }
}

/// A frame of another transfer says nothing about what was taken in of this one.
fn is_foreign(refused: FrameRefusal) -> bool {
    matches!(refused, FrameRefusal::OldEpoch | FrameRefusal::WrongTag)
}

/// What the source's refusal, or the end of a connection, means.
fn meaning(status: &Status) -> End {
    tracing::debug!(%status, "a source has ended a transfer");
    match Refusal::from_status(status) {
        Some(Refusal::Conflict(_)) => End::Anew,
        Some(Refusal::Rejected(_)) => End::Over,
        _ if status.code() == Code::Unimplemented => End::Nothing,
        _ => End::Broken,
    }
}
