//! Sources that lie, are silent or die: a real destination against one that a test speaks for.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;
mod states;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::Fake;
use leasehold_client::proto::command::{Digest, PlanStep};
use leasehold_client::proto::message::{Ready, ReadyAnswer, Surrender};
use leasehold_client::proto::target::{Consistency, TargetConfig};
use leasehold_client::proto::transfer::{Ack, Frame, Mark, Sender, TransferTag};
use leasehold_client::proto::wire::pb::slicelet_peer_server::{SliceletPeer, SliceletPeerServer};
use leasehold_client::proto::wire::{PullBegin, PullRequest, pb};
use leasehold_client::proto::{HandoffId, SessionId, Slice, SliceKey};
use leasehold_client::{Stats, Transfers};
use pod::{LONG, Pod, until};
use states::{Between, Bulk};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

type Frames = Vec<Frame<bytes::Bytes>>;
type FrameSender = mpsc::Sender<Result<pb::StateFrame, Status>>;
type Script = Box<dyn FnOnce(&PullBegin) -> Frames + Send>;

/// A source whose every call is answered by the next script.
#[derive(Clone, Default)]
struct Source {
    scripts: Arc<Mutex<VecDeque<Script>>>,
    surrender: Arc<Mutex<Option<Digest>>>,
    /// What destinations said that they have.
    asked: Arc<Mutex<Vec<Option<Ack>>>>,
    /// Streams that stay open.
    open: Arc<Mutex<Vec<FrameSender>>>,
}

#[tonic::async_trait]
impl SliceletPeer for Source {
    type PullStateStream = ReceiverStream<Result<pb::StateFrame, Status>>;

    async fn pull_state(
        &self,
        request: Request<Streaming<pb::PullRequest>>,
    ) -> Result<Response<Self::PullStateStream>, Status> {
        let first = request.into_inner().message().await?.unwrap();
        let PullRequest::Begin(begin) = PullRequest::try_from(first).unwrap() else {
            panic!("the first message")
        };
        self.asked.lock().unwrap().push(begin.have);
        let script = self.scripts.lock().unwrap().pop_front();
        let Some(script) = script else {
            return Err(Status::unavailable("no more"));
        };
        let frames = script(&begin);
        let (sender, stream) = mpsc::channel(64);
        for frame in frames {
            sender.try_send(Ok(frame.into())).unwrap();
        }
        self.open.lock().unwrap().push(sender);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn take_over(
        &self,
        request: Request<pb::ReadyRequest>,
    ) -> Result<Response<pb::ReadyReply>, Status> {
        let Ready { handoff, from, to } = Ready::try_from(request.into_inner()).unwrap();
        let digest = *self.surrender.lock().unwrap();
        let digest = digest.ok_or_else(|| Status::unavailable("not yet"))?;
        let answer = ReadyAnswer::Surrendered(Surrender {
            handoff,
            from,
            to,
            digest,
        });
        Ok(Response::new((&answer).into()))
    }
}

/// Records `r1`, `r2` and the last `r3`, and the digest of the whole.
fn honest(tag: &TransferTag) -> (Frames, Digest) {
    let mut sender: Sender<bytes::Bytes> = Sender::new(tag.clone(), 1 << 20);
    let mut frames = vec![
        sender.push(Mark::More, "r1".into()).unwrap(),
        sender.push(Mark::CaughtUp, "r2".into()).unwrap(),
        sender.push(Mark::Last, "r3".into()).unwrap(),
    ];
    frames[0].samples.clear();
    let digest = frames[2].digest.unwrap();
    (frames, digest)
}

/// A real destination, with a lying source that owns everything.
struct World {
    fake: Fake,
    source: Source,
    from: SessionId,
    handoff: HandoffId,
    destination: Pod,
    state: Bulk,
}

impl Source {
    /// Serves, and owns everything.
    async fn start(fake: &Fake, scripts: Vec<Script>) -> (Source, SessionId) {
        fake.places(false);
        let (source, from) = Self::serve(fake, scripts).await;
        fake.grant("cart", Slice::ALL, from);
        (source, from)
    }

    async fn serve(fake: &Fake, scripts: Vec<Script>) -> (Source, SessionId) {
        let source = Source::default();
        source.scripts.lock().unwrap().extend(scripts);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder()
            .add_service(SliceletPeerServer::new(source.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(async move { server.await.unwrap() });
        let from = fake.register("cart", &address);
        (source, from)
    }
}

impl World {
    async fn start(scripts: Vec<Script>) -> World {
        let fake = Fake::start().await;
        fake.create("cart", 1, TargetConfig::default());
        let (source, from) = Source::start(&fake, scripts).await;
        let state = Bulk::keeping();
        let lent = state.clone();
        let destination = Pod::start_with(&fake, "cart", |builder| builder.state(lent)).await;
        destination.slicelet.ready(LONG).await.unwrap();
        let to = destination.slicelet.session().unwrap();
        until("the destination may receive", || {
            fake.hand_off("cart", SliceKey::MIN, to).is_ok()
        })
        .await;
        let handoff = fake.handoff("cart").unwrap().2.id;
        World {
            fake,
            source,
            from,
            handoff,
            destination,
            state,
        }
    }

    fn stats(&self) -> Stats {
        self.destination.slicelet.stats()
    }

    async fn complete(&self) {
        until("it is complete", || {
            self.stats().transfers_in_completed == 1
        })
        .await;
    }

    /// Surrenders, with the digest that an honest source would say or another.
    async fn surrender(&self, digest: Option<Digest>) {
        let (slice, lease, handoff) = self.fake.handoff("cart").unwrap();
        let tag = TransferTag {
            target: fake::target("cart"),
            slice,
            from_epoch: lease.epoch,
            to_epoch: handoff.epoch,
            handoff: Some(handoff.id),
        };
        let digest = digest.unwrap_or(honest(&tag).1);
        *self.source.surrender.lock().unwrap() = Some(digest);
        until("it is served", || {
            self.destination.slicelet.guard(b"alice").is_ok()
        })
        .await;
    }
}

fn all_honest() -> Script {
    Box::new(|begin| honest(&begin.tag).0)
}

/// One good frame, then one that was tampered with, then the rest over a new connection.
async fn refused_then_resumed(
    what: &str,
    tamper: impl Fn(&mut Frames) + Send + 'static,
    count: impl Fn(Stats) -> u64,
) {
    let lie: Script = Box::new(move |begin| {
        let mut frames = honest(&begin.tag).0;
        frames.truncate(2);
        tamper(&mut frames);
        frames
    });
    let rest: Script = Box::new(|begin| {
        let have = begin.have.map_or(0, |have| have.seq);
        honest(&begin.tag).0.split_off(have as usize)
    });
    let world = World::start(vec![lie, rest]).await;
    world.complete().await;
    assert_eq!(count(world.stats()), 1, "{what}");
    world.surrender(None).await;
    assert_eq!(world.state.kept(), b"r1r2r3", "{what}");
    assert_eq!(world.stats().arrivals_warm, 1, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_frame_is_refused_and_sent_again() {
    let tamper = |frames: &mut Frames| frames[1].records = "rX".into();
    refused_then_resumed("damage", tamper, |stats| stats.state_frame_damage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_an_older_epoch_is_refused() {
    let tamper = |frames: &mut Frames| frames[1].tag.to_epoch = frames[1].tag.from_epoch;
    refused_then_resumed("old epoch", tamper, |stats| stats.state_of_old_epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_another_handoff_or_target_is_refused() {
    let tamper = |frames: &mut Frames| frames[1].tag.handoff = Some(HandoffId::from_u64(77));
    refused_then_resumed("handoff", tamper, |stats| stats.state_of_wrong_tag).await;
    let tamper = |frames: &mut Frames| frames[1].tag.target = fake::target("user");
    refused_then_resumed("target", tamper, |stats| stats.state_of_wrong_tag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_came_before_is_not_taken_in_twice() {
    let tamper = |frames: &mut Frames| frames[1] = frames[0].clone();
    refused_then_resumed("duplicate", tamper, |stats| stats.state_frame_duplicates).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_refused() {
    let tamper = |frames: &mut Frames| {
        frames.remove(0);
    };
    refused_then_resumed("gap", tamper, |stats| stats.state_frame_gaps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_of_the_whole_begins_the_transfer_anew() {
    let lie: Script = Box::new(|begin| {
        let mut frames = honest(&begin.tag).0;
        frames[2].digest = Some(Digest::EMPTY);
        frames
    });
    let world = World::start(vec![lie, all_honest()]).await;
    world.complete().await;
    world.surrender(None).await;
    assert_eq!(world.state.kept(), b"r1r2r3");
    let stats = world.stats();
    assert_eq!(
        (stats.state_digests_differ, stats.transfers_in_begun_anew),
        (1, 1)
    );
    assert_eq!(world.source.asked.lock().unwrap()[1], None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lies_on_is_given_up_and_nothing_is_kept() {
    let lie = || -> Script {
        Box::new(|begin| {
            let mut frames = honest(&begin.tag).0;
            frames[2].digest = Some(Digest::EMPTY);
            frames
        })
    };
    let world = World::start((0..10).map(|_| lie()).collect()).await;
    until("it is given up", || world.stats().transfers_in_failed == 1).await;
    until("nothing is kept", || world.state.kept().is_empty()).await;
    assert!(world.destination.slicelet.guard(b"alice").is_err());
}

/// ◆ What was changed after it was sent is not in the digest of what was sent.
#[tokio::test(flavor = "multi_thread")]
async fn state_is_not_served_if_the_slice_was_surrendered_with_another() {
    surrendered_with_another().await;
}

async fn surrendered_with_another() {
    let world = World::start(vec![all_honest()]).await;
    world.complete().await;
    world.surrender(Some(Digest::EMPTY)).await;
    assert_eq!(world.state.kept(), b"");
    let stats = world.stats();
    assert_eq!((stats.arrivals_cold, stats.arrivals_warm), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_died_after_its_surrender_is_believed_through_the_view() {
    let world = World::start(vec![all_honest()]).await;
    world.complete().await;
    let (slice, lease, handoff) = world.fake.handoff("cart").unwrap();
    let tag = TransferTag {
        target: fake::target("cart"),
        slice,
        from_epoch: lease.epoch,
        to_epoch: handoff.epoch,
        handoff: Some(handoff.id),
    };
    let digest = honest(&tag).1;
    let fake = &world.fake;
    fake.surrendered("cart", world.handoff, world.from, digest);
    until("it is served", || {
        world.destination.slicelet.guard(b"alice").is_ok()
    })
    .await;
    assert_eq!(world.state.kept(), b"r1r2r3");
    assert_eq!(world.stats().arrivals_warm, 1);
}

/// ◆ That the handoff has ended proves nothing: the source may have gone on serving.
#[tokio::test(flavor = "multi_thread")]
async fn state_of_a_source_that_expired_is_not_served_however_complete() {
    let world = World::start(vec![all_honest()]).await;
    world.complete().await;
    world.fake.expire("cart", world.from);
    until("it is served", || {
        world.destination.slicelet.guard(b"alice").is_ok()
    })
    .await;
    assert_eq!(world.state.kept(), b"");
    assert_eq!(world.stats().arrivals_cold, 1);
}

/// ◆ What the former owner still has is not merged in by an owner that is the only one: a key that
/// was removed would be back.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_becomes_the_only_one_merges_nothing_more() {
    let fake = Fake::start().await;
    let config = TargetConfig {
        consistency: Consistency::Eventual,
        ..TargetConfig::default()
    };
    fake.create("cart", 1, config);
    let first: Script = Box::new(|begin| honest(&begin.tag).0.drain(..1).collect());
    let (source, _) = Source::start(&fake, vec![first]).await;
    let state = Bulk::keeping();
    let lent = state.clone();
    let owner = Pod::start_with(&fake, "cart", |builder| builder.state(lent)).await;
    owner.slicelet.ready(LONG).await.unwrap();
    let (slice, lease) = fake.owner("cart", SliceKey::MIN).unwrap();
    let to = owner.slicelet.session().unwrap();
    let from = Some(lease);
    let step = || PlanStep::Reassign { slice, from, to };
    until("it may receive", || fake.step("cart", step()).is_ok()).await;
    until("the first has come", || state.kept() == b"r1").await;
    fake.set_consistency("cart", Consistency::Strong);
    let armed = || matches!(owner.slicelet.mode(), Some(mode) if mode.checks_leases());
    until("it is not eventual", armed).await;
    let tag = TransferTag {
        target: fake::target("cart"),
        slice,
        from_epoch: lease.epoch,
        to_epoch: fake.owner("cart", SliceKey::MIN).unwrap().1.epoch,
        handoff: None,
    };
    let stream = source.open.lock().unwrap()[0].clone();
    let second = honest(&tag).0.remove(1);
    let _ = stream.send(Ok(second.into())).await;
    let ended = tokio::time::timeout(LONG, stream.closed()).await;
    assert!(ended.is_ok() && state.kept() == b"r1");
}

/// Who has the only place sends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_outlasts_the_wait_for_a_place_where_nothing_moves() {
    let fake = Fake::start().await;
    let config = TargetConfig {
        handoff_deadline: Duration::from_millis(500),
        ..TargetConfig::default()
    };
    fake.create("cart", 2, config);
    fake.places(false);
    let silent: Script = Box::new(|_| Vec::new());
    let (source, mute) = Source::serve(&fake, vec![silent]).await;
    let (first, second) = Slice::ALL.split(SliceKey::from_u64(1 << 63)).unwrap();
    fake.grant("cart", first, mute);
    let between: Arc<Between> = Arc::default();
    let start = async |bytes| {
        let mut transfers = Transfers::default();
        transfers.most_at_once = 1;
        let state = Bulk::new(&between, bytes);
        let pod = Pod::start_with(&fake, "cart", |builder| {
            builder.state(state).transfers(transfers)
        });
        let pod = pod.await;
        pod.slicelet.ready(LONG).await.unwrap();
        pod
    };
    let (owner, taker) = (start(1 << 20).await, start(0).await);
    fake.grant("cart", second, owner.slicelet.session().unwrap());
    until("it is served", || owner.slicelet.owned().len() == 1).await;
    let to = taker.slicelet.session().unwrap();
    let move_it = |slice: Slice| fake.hand_off("cart", slice.first(), to).is_ok();
    until("the first begins", || move_it(first)).await;
    until("it has the place", || {
        source.open.lock().unwrap().len() == 1
    })
    .await;
    until("the second begins", || move_it(second)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.expire("cart", mute);
    until("all is served", || taker.slicelet.owned().len() == 2).await;
    assert_eq!(taker.slicelet.stats().arrivals_warm, 1);
}

#[cfg(leasehold_mutants)]
#[test]
fn planted_mistakes_are_noticed() {
    for mutant in ["state_served_without_proof", "state_kept_after_loss"] {
        let how = "a slice that was surrendered with another digest than its state has";
        pod::noticed(mutant, how, surrendered_with_another);
    }
}
