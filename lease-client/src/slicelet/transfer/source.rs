//! The source's end of one transfer: exports the slice while it is served, follows its changes,
//! and sends the last one when it is frozen.
//!
//! Its destination may lose the connection and come again; what it has not acknowledged is kept,
//! up to a bound, and beyond that bound nothing is read from the application. In eventual mode the
//! slice is not served any more when its state is asked for: it is sent as it is, to the end.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use leasehold_proto::transfer::{Ack, Frame, Mark, Refusal as FrameRefusal, Sender, TransferTag};
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{PullBegin, PullRequest, pb};
use leasehold_proto::{limits, mutant};
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::super::driver::Event;
use super::super::order::{Before, Turn};
use super::chase::{Chase, Chased};
use super::{Common, SAY_PROGRESS, Which};
use crate::state::{Exported, StateExport};

/// How often a slice is looked at for changes once the destination has all of it.
const LOOK_FOR_CHANGES: Duration = Duration::from_millis(3);
/// Frames on their way into a connection that takes them more slowly.
const FRAMES_AHEAD: usize = 2;

type Frames = mpsc::Sender<Result<pb::StateFrame, Status>>;
/// What a destination is answered with.
pub(crate) type FrameSource = mpsc::Receiver<Result<pb::StateFrame, Status>>;

/// A destination's call, as the service hands it to the driver.
pub(crate) struct Pull {
    pub(crate) begin: PullBegin,
    pub(crate) line: Box<Line>,
}

/// The two directions of one call.
pub(crate) struct Line {
    pub(crate) acks: Streaming<pb::PullRequest>,
    pub(crate) reply: oneshot::Sender<Result<FrameSource, Status>>,
}

impl Line {
    /// This Slicelet keeps no state.
    pub(crate) fn refuse_stateless(self) {
        self.refuse(Status::unimplemented("there is no state to send here"));
    }

    pub(super) fn refuse(self, status: Status) {
        // A destination that has gone away asks again.
        let _ = self.reply.send(Err(status));
    }
}

enum Command {
    /// The destination has called, and has this much.
    Connect(Box<Line>, Option<Ack>),
    /// The slice is frozen and no guard is in flight: nothing changes any more.
    Finish,
}

/// What a task has not heard yet: of the calls only the newest counts.
#[derive(Default)]
pub(super) struct Commands {
    call: Mutex<Option<(Box<Line>, Option<Ack>)>>,
    finish: AtomicBool,
    told: Notify,
}

impl Commands {
    fn call(&self) -> MutexGuard<'_, Option<(Box<Line>, Option<Ack>)>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The destination has called, and has this much.
    pub(super) fn connect(&self, line: Box<Line>, have: Option<Ack>) {
        let older = self.call().replace((line, have));
        if let Some((line, _)) = older {
            line.refuse(Refusal::Superseded.into());
        }
        self.told.notify_one();
    }

    /// The slice is frozen and no guard is in flight: nothing changes any more.
    pub(super) fn finish(&self) {
        self.finish.store(true, Ordering::Release);
        self.told.notify_one();
    }

    async fn next(&self) -> Command {
        loop {
            if let Some((line, have)) = self.call().take() {
                return Command::Connect(line, have);
            }
            if self.finish.swap(false, Ordering::Acquire) {
                return Command::Finish;
            }
            self.told.notified().await;
        }
    }
}

/// Begins to send, at once to the end if the slice is not served here any more.
pub(super) fn start(
    common: Common,
    which: Which,
    tag: TransferTag,
    before: Before,
    turn: Turn,
) -> (Arc<Commands>, AbortHandle) {
    let commands: Arc<Commands> = Arc::default();
    let heard = Arc::clone(&commands);
    let task = tokio::spawn(async move {
        // Until the task is ended from outside.
        let _turn = turn;
        before.ended().await;
        let now = Instant::now();
        let source = Source {
            chase: Chase::new(
                now,
                common.config.finish_deadline,
                common.config.frame_bytes,
            ),
            sender: Sender::new(tag.clone(), common.config.window_bytes),
            export: common.state.export(tag.slice),
            common,
            which,
            tag,
            commands: heard,
            connection: None,
            again: VecDeque::new(),
            stage: match which {
                Which::Handoff(_) => Stage::Bulk,
                Which::Kept(_) => Stage::Finishing,
            },
            said_progress: now,
            paced: None,
        };
        source.run().await;
    });
    (commands, task.abort_handle())
}

/// How far the export is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The destination lacks a large part.
    Bulk,
    /// It had all of it, and follows; the slice is looked at again then.
    Following(Instant),
    /// The slice is frozen.
    Finishing,
    /// The last frame was made.
    Finished,
    /// It cannot be completed.
    Failed,
}

struct Connection {
    acks: Streaming<pb::PullRequest>,
    frames: Frames,
    place: Place,
}

/// One of the places for transfers in bulk.
enum Place {
    Wanted(Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>),
    Held { _permit: OwnedSemaphorePermit },
    NotNeeded,
}

struct Source {
    common: Common,
    which: Which,
    tag: TransferTag,
    commands: Arc<Commands>,
    sender: Sender<Bytes>,
    export: Box<dyn StateExport>,
    connection: Option<Connection>,
    /// Frames that a destination lacks after its connection broke.
    again: VecDeque<Frame<Bytes>>,
    stage: Stage,
    chase: Chase,
    said_progress: Instant,
    /// Others go first until then.
    paced: Option<Instant>,
}

/// What comes next.
enum Next {
    Command(Command),
    Ack(Result<Ack, ()>),
    Place(OwnedSemaphorePermit),
    Room(Result<OwnedPermit<Result<pb::StateFrame, Status>>, ()>),
    StillWaiting,
}

impl Source {
    async fn run(mut self) {
        loop {
            match self.next().await {
                Next::Command(Command::Connect(line, have)) => self.connect(line, have),
                Next::Command(Command::Finish) => {
                    if matches!(self.stage, Stage::Bulk | Stage::Following(_)) {
                        self.stage = Stage::Finishing;
                        self.paced = None;
                        self.leave_place();
                    }
                }
                Next::Ack(Ok(ack)) => self.acknowledged(ack),
                Next::Ack(Err(())) | Next::Room(Err(())) => self.connection = None,
                Next::Place(permit) => {
                    if let Some(connection) = &mut self.connection {
                        connection.place = Place::Held { _permit: permit };
                    }
                }
                Next::Room(Ok(permit)) => self.send(permit),
                Next::StillWaiting => {
                    self.common.tell(Event::Progress(self.which));
                    self.said_progress = Instant::now();
                }
            }
        }
    }

    /// Waits for whatever comes first.
    async fn next(&mut self) -> Next {
        let wanted = self.wants_to_send();
        let Some(connection) = &mut self.connection else {
            return Next::Command(self.commands.next().await);
        };
        let Connection {
            acks,
            frames,
            place,
        } = connection;
        let frames = frames.clone();
        let moved = self.common.moved();
        let said = self.said_progress;
        let room = async {
            match wanted {
                // A timer takes a millisecond even if its time has come.
                Some(at) if at <= Instant::now() => {}
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
            frames.reserve_owned().await.map_err(|_| ())
        };
        let waiting = matches!(place, Place::Wanted(_));
        let place = async {
            match place {
                Place::Wanted(permit) => permit.await,
                _ => std::future::pending().await,
            }
        };
        // While it waits for a place its handoff lives as long as the others move on.
        let others = async {
            if !waiting {
                return std::future::pending().await;
            }
            tokio::time::sleep_until(said + SAY_PROGRESS).await;
            while self.common.moved() == moved {
                tokio::time::sleep(SAY_PROGRESS).await;
            }
        };
        tokio::select! {
            biased;
            command = self.commands.next() => Next::Command(command),
            ack = acknowledgement(acks) => Next::Ack(ack),
            permit = place => Next::Place(permit),
            permit = room => Next::Room(permit),
            () = others => Next::StillWaiting,
        }
    }

    /// When there may be something to send; `None` when first something else must happen.
    fn wants_to_send(&self) -> Option<Instant> {
        let connection = self.connection.as_ref()?;
        if matches!(connection.place, Place::Wanted(_)) {
            return None;
        }
        let due = match self.stage {
            _ if !self.again.is_empty() => Instant::now(),
            Stage::Finished | Stage::Failed => return None,
            _ if !self.sender.has_room() => return None,
            Stage::Following(at) => at,
            Stage::Bulk | Stage::Finishing => Instant::now(),
        };
        Some(self.paced.map_or(due, |paced| paced.max(due)))
    }

    /// A newer call takes the place of an older one.
    fn connect(&mut self, line: Box<Line>, have: Option<Ack>) {
        if let Some(old) = self.connection.take() {
            let _ = old.frames.try_send(Err(Refusal::Superseded.into()));
        }
        if self.stage == Stage::Failed {
            line.refuse(Refusal::Rejected("the state cannot be sent".to_owned()).into());
            return;
        }
        if let Err(refused) = self.resume(have) {
            self.count(refused);
            self.begin_anew();
            if have.is_some() {
                line.refuse(Refusal::Conflict("begin anew".to_owned()).into());
                return;
            }
        }
        let (frames, source) = mpsc::channel(FRAMES_AHEAD);
        if line.reply.send(Ok(source)).is_err() {
            return;
        }
        let kept = matches!(self.which, Which::Kept(_));
        let place = match self.stage {
            Stage::Following(_) | Stage::Finished | Stage::Failed => Place::NotNeeded,
            Stage::Finishing if !kept => Place::NotNeeded,
            Stage::Bulk | Stage::Finishing => {
                let places = Arc::clone(&self.common.places_out);
                Place::Wanted(Box::pin(async move {
                    match places.acquire_owned().await {
                        Ok(permit) => permit,
                        // It is never closed.
                        Err(_) => std::future::pending().await,
                    }
                }))
            }
        };
        self.connection = Some(Connection {
            acks: line.acks,
            frames,
            place,
        });
    }

    /// Goes on behind what the destination has.
    fn resume(&mut self, have: Option<Ack>) -> Result<(), Option<FrameRefusal>> {
        self.again.clear();
        let begun = self.sender.begun();
        match have {
            None if !begun => return Ok(()),
            None => return Err(None),
            Some(_) => self.common.shared.counters.transfers_out_resumed.add(1),
        }
        if let Some(have) = have {
            let last = self.sender.acknowledge(have).map_err(Some)?;
            if let Some(digest) = last {
                self.common.tell(Event::Finished(self.which, digest));
            }
            self.again = self.sender.resume(have.seq).ok_or(None)?.into();
        }
        Ok(())
    }

    /// From the first record, as if nothing had been sent.
    fn begin_anew(&mut self) {
        self.sender = Sender::new(self.tag.clone(), self.common.config.window_bytes);
        self.export = self.common.state.export(self.tag.slice);
        self.stage = match self.stage {
            Stage::Finishing | Stage::Finished => Stage::Finishing,
            _ => Stage::Bulk,
        };
    }

    fn count(&self, refused: Option<FrameRefusal>) {
        let counters = &self.common.shared.counters;
        match refused {
            Some(refused) => counters.refused_frame(refused),
            None => counters.transfers_out_begun_anew.add(1),
        }
    }

    fn acknowledged(&mut self, ack: Ack) {
        match self.sender.acknowledge(ack) {
            Ok(None) => {
                self.common.note_moved();
                let bulk = self.stage == Stage::Bulk || matches!(self.which, Which::Kept(_));
                if bulk && self.said_progress.elapsed() >= SAY_PROGRESS {
                    self.said_progress = Instant::now();
                    self.common.tell(Event::Progress(self.which));
                }
            }
            Ok(Some(digest)) => {
                self.common.shared.counters.transfers_out_completed.add(1);
                self.common.tell(Event::Finished(self.which, digest));
            }
            Err(refused) => {
                self.count(Some(refused));
                self.begin_anew();
                if let Some(connection) = self.connection.take() {
                    let anew = Refusal::Conflict("begin anew".to_owned());
                    let _ = connection.frames.try_send(Err(anew.into()));
                }
            }
        }
    }

    fn send(&mut self, permit: OwnedPermit<Result<pb::StateFrame, Status>>) {
        let frozen = matches!(self.stage, Stage::Finishing | Stage::Finished);
        let kept = matches!(self.which, Which::Kept(_));
        if (kept || !frozen)
            && let Some(wait) = self.common.throttle.wait()
        {
            self.paced = Some(Instant::now() + wait);
            return;
        }
        self.paced = None;
        let frame = self.again.pop_front().or_else(|| self.read());
        let Some(mut frame) = frame else { return };
        if frame.mark == Mark::Last {
            frame.samples = self.samples();
        }
        frame.urgent = self.common.throttle.is_urgent();
        let counters = &self.common.shared.counters;
        counters.state_bytes_out.add(frame.records.len() as u64);
        self.common.throttle.charge(frame.records.len());
        self.chase.sent(frame.records.len());
        permit.send(Ok(frame.into()));
    }

    /// The next frame; `None` when nothing has changed, or nothing can be sent any more.
    fn read(&mut self) -> Option<Frame<Bytes>> {
        let frozen = self.stage == Stage::Finishing;
        let most_bytes = self.common.config.frame_bytes;
        let frame_bytes = match frozen && matches!(self.which, Which::Handoff(_)) {
            true => most_bytes,
            false => self.common.throttle.frame_bytes(most_bytes),
        };
        let mut records = Vec::with_capacity(frame_bytes);
        let mut exported = Exported::CaughtUp;
        if !(frozen && mutant!("surrender_before_last_change")) {
            exported = self.export.read(frame_bytes, &mut records);
        }
        let following = matches!(self.stage, Stage::Following(_));
        let mark = match exported {
            Exported::More if !self.is_near() => Mark::More,
            Exported::CaughtUp if frozen => {
                self.stage = Stage::Finished;
                Mark::Last
            }
            Exported::More | Exported::CaughtUp => {
                self.stage = Stage::Following(Instant::now() + LOOK_FOR_CHANGES);
                self.leave_place();
                Mark::CaughtUp
            }
        };
        if following && records.is_empty() && mark == Mark::CaughtUp {
            return None;
        }
        records.shrink_to(records.len() * 2);
        let frame = self.sender.push(mark, records.into());
        if frame.is_none() {
            self.fail();
        }
        frame
    }

    /// Whether a slice that is written all the time is as good as sent. While it is not, and no
    /// less is left than before, transfers go faster.
    fn is_near(&mut self) -> bool {
        if self.stage != Stage::Bulk {
            return false;
        }
        let export = &self.export;
        let chased = self.chase.look(Instant::now(), || export.left_bytes());
        if chased == Some(Chased::FallsBehind) {
            self.common.throttle.falls_behind();
        }
        chased == Some(Chased::IsNear)
    }

    /// A record is larger than a frame may be: the state cannot move.
    fn fail(&mut self) {
        tracing::warn!(slice = %self.tag.slice, "a record is larger than {} bytes: the state cannot be sent", limits::STATE_FRAME_BYTES);
        self.stage = Stage::Failed;
        self.common.shared.counters.transfers_out_failed.add(1);
        self.common.tell(Event::TransferFailed(self.which));
        if let Some(connection) = self.connection.take() {
            let refusal = Refusal::Rejected("the state cannot be sent".to_owned());
            let _ = connection.frames.try_send(Err(refusal.into()));
        }
    }

    fn samples(&self) -> Vec<Vec<u8>> {
        let most = self.common.config.samples;
        if most == 0 {
            return Vec::new();
        }
        let seed = rand::random();
        let mut samples = self.common.state.sample(self.tag.slice, most, seed);
        samples.retain(|sample| sample.len() <= limits::STATE_SAMPLE_BYTES);
        samples.truncate(limits::STATE_SAMPLES);
        samples
    }

    fn leave_place(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.place = Place::NotNeeded;
        }
    }
}

/// The next acknowledgement; `Err` when the connection is of no more use.
async fn acknowledgement(acks: &mut Streaming<pb::PullRequest>) -> Result<Ack, ()> {
    let message = acks.message().await.map_err(|_| ())?.ok_or(())?;
    match PullRequest::try_from(message) {
        Ok(PullRequest::Ack(ack)) => Ok(ack),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use tonic::codec::Codec;

    use super::*;

    fn line() -> (Box<Line>, oneshot::Receiver<Result<FrameSource, Status>>) {
        let mut codec = tonic_prost::ProstCodec::<pb::PullRequest, pb::PullRequest>::default();
        let acks = Streaming::new_empty(codec.decoder(), tonic::body::Body::empty());
        let (reply, replied) = oneshot::channel();
        (Box::new(Line { acks, reply }), replied)
    }

    #[tokio::test]
    async fn of_calls_that_nobody_has_heard_yet_the_newest_is_kept() {
        let commands = Commands::default();
        let lines: Vec<_> = (0..3).map(|_| line()).collect();
        let mut replies = Vec::new();
        commands.finish();
        for (line, replied) in lines {
            commands.connect(line, None);
            replies.push(replied);
        }
        for replied in &mut replies[..2] {
            let refused = replied.try_recv().unwrap().unwrap_err();
            let refused = Refusal::from_status(&refused);
            assert!(matches!(refused, Some(Refusal::Superseded)));
        }
        assert!(replies[2].try_recv().is_err());
        assert!(matches!(commands.next().await, Command::Connect(..)));
        assert!(matches!(commands.next().await, Command::Finish));
    }
}
