//! Destinations that lie, go away or call again: a real source against one that a test speaks for.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;
mod states;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::Fake;
use leasehold_client::Transfers;
use leasehold_client::proto::command::Digest;
use leasehold_client::proto::message::Ready;
use leasehold_client::proto::target::TargetConfig;
use leasehold_client::proto::transfer::{Ack, Frame, Receiver, TransferTag};
use leasehold_client::proto::wire::pb::slicelet_peer_client::SliceletPeerClient;
use leasehold_client::proto::wire::{PullBegin, PullRequest, pb};
use leasehold_client::proto::{SessionId, Slice, SliceKey};
use pod::{Pod, until};
use states::{Between, Bulk};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

const FINISH_DEADLINE: Duration = Duration::from_secs(1);

/// A real source with an open handoff to a destination that a test speaks for.
struct Asking {
    fake: Fake,
    source: Pod,
    state: Bulk,
    begin: PullBegin,
    open_acks: Mutex<Vec<mpsc::Sender<pb::PullRequest>>>,
}

impl Asking {
    async fn start() -> Asking {
        let fake = Fake::start().await;
        fake.create("cart", 1, TargetConfig::default());
        let between: Arc<Between> = Arc::default();
        let state = Bulk::new(&between, 1 << 20);
        let lent = state.clone();
        let mut transfers = Transfers::default();
        transfers.frame_bytes = 64 << 10;
        transfers.finish_deadline = FINISH_DEADLINE;
        let source = Pod::start_with(&fake, "cart", |builder| {
            builder.state(lent).transfers(transfers)
        })
        .await;
        until("it is served", || source.slicelet.guard(b"alice").is_ok()).await;
        let to = fake.register("cart", "127.0.0.1:1");
        fake.hand_off("cart", SliceKey::MIN, to).unwrap();
        let (slice, lease, handoff) = fake.handoff("cart").unwrap();
        let begin = PullBegin {
            tag: TransferTag {
                target: fake::target("cart"),
                slice,
                from_epoch: lease.epoch,
                to_epoch: handoff.epoch,
                handoff: Some(handoff.id),
            },
            from: lease.session,
            to,
            have: None,
            waiting: false,
        };
        Asking {
            fake,
            source,
            state,
            begin,
            open_acks: Mutex::default(),
        }
    }

    /// Takes everything in and says ready. Acknowledges the last frame only if it `ends`.
    async fn take_over(&self, ends: bool) -> Streaming<pb::StateFrame> {
        let (acks, mut frames) = self.begin_well().await;
        let ready = Ready {
            handoff: self.begin.tag.handoff.unwrap(),
            from: self.begin.from,
            to: self.begin.to,
        };
        let mut said = Some(self.client().await);
        let mut receiver = Receiver::new(self.begin.tag.clone());
        loop {
            let frame = frames.message().await.unwrap().unwrap();
            let frame: Frame<bytes::Bytes> = frame.try_into().unwrap();
            receiver.receive(&frame).unwrap();
            if receiver.complete().is_none() || ends {
                let ack = PullRequest::Ack(receiver.ack());
                acks.send((&ack).into()).await.unwrap();
            }
            if receiver.complete().is_some() {
                self.open_acks.lock().unwrap().push(acks);
                return frames;
            }
            if receiver.caught_up()
                && let Some(mut client) = said.take()
            {
                let ready = pb::ReadyRequest::from(&ready);
                tokio::spawn(async move { drop(client.take_over(ready).await) });
            }
        }
    }

    async fn client(&self) -> SliceletPeerClient<tonic::transport::Channel> {
        SliceletPeerClient::connect(format!("http://{}", self.source.address))
            .await
            .unwrap()
    }

    async fn call(
        &self,
        requests: Vec<PullRequest>,
    ) -> Result<(mpsc::Sender<pb::PullRequest>, Streaming<pb::StateFrame>), Status> {
        let (sender, stream) = mpsc::channel(16);
        for request in &requests {
            sender.try_send(request.into()).unwrap();
        }
        let reply = self
            .client()
            .await
            .pull_state(ReceiverStream::new(stream))
            .await?;
        Ok((sender, reply.into_inner()))
    }

    async fn begin(
        &self,
        begin: PullBegin,
    ) -> Result<(mpsc::Sender<pb::PullRequest>, Streaming<pb::StateFrame>), Status> {
        self.call(vec![PullRequest::Begin(begin)]).await
    }

    /// Asks until the source knows the handoff.
    async fn begin_well(&self) -> (mpsc::Sender<pb::PullRequest>, Streaming<pb::StateFrame>) {
        loop {
            match self.begin(self.begin.clone()).await {
                Ok(call) => return call,
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_goes_to_the_destination_of_the_handoff_and_nobody_else() {
    let asking = Asking::start().await;
    drop(asking.begin_well().await);
    let exports = asking.state.exports();
    let half = Slice::ALL.split(SliceKey::from_u64(1 << 63)).unwrap().0;
    let wrong = |change: &dyn Fn(&mut PullBegin)| {
        let mut begin = asking.begin.clone();
        change(&mut begin);
        begin
    };
    let others = [
        wrong(&|begin| begin.tag.target = fake::target("user")),
        wrong(&|begin| begin.tag.slice = half),
        wrong(&|begin| begin.tag.from_epoch = begin.tag.to_epoch),
        wrong(&|begin| begin.tag.to_epoch = begin.tag.from_epoch),
        wrong(&|begin| begin.to = SessionId::from_u64(999)),
        wrong(&|begin| begin.to = begin.from),
    ];
    for begin in &others {
        let status = asking.begin(begin.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{begin:?}");
    }
    let stats = asking.source.slicelet.stats();
    assert_eq!(stats.state_of_wrong_tag, others.len() as u64);
    // As a new owner would ask in eventual mode, of whom the view shows nothing yet.
    let seizing = wrong(&|begin| begin.tag.handoff = None);
    let status = asking.begin(seizing).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let stranger = wrong(&|begin| begin.from = SessionId::from_u64(999));
    assert!(asking.begin(stranger).await.is_err());
    assert_eq!(asking.state.exports(), exports, "nothing was read for them");
    assert!(asking.source.slicelet.guard(b"alice").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_begin_is_refused() {
    let asking = Asking::start().await;
    let ack = Ack {
        seq: 1,
        digest: Digest::EMPTY,
    };
    let status = asking.call(vec![PullRequest::Ack(ack)]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_of_other_bytes_or_of_nothing_begin_the_transfer_anew() {
    let asking = Asking::start().await;
    for (n, seq) in [1, u64::MAX].into_iter().enumerate() {
        let (acks, mut frames) = asking.begin_well().await;
        frames.message().await.unwrap().unwrap();
        let before = asking.source.slicelet.stats();
        let ack = PullRequest::Ack(Ack {
            seq,
            digest: Digest([9; 16]),
        });
        acks.send((&ack).into()).await.unwrap();
        let end = loop {
            match frames.message().await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        let code = end.map(|status| status.code());
        assert!(matches!(code, None | Some(Code::Aborted)), "{n}: {code:?}");
        let stats = asking.source.slicelet.stats();
        let refused = stats.state_digests_differ + stats.state_frame_duplicates;
        let known = before.state_digests_differ + before.state_frame_duplicates;
        assert_eq!(refused, known + 1);
    }
    assert!(asking.source.slicelet.guard(b"alice").is_ok());
    assert!(asking.fake.has_open_handoff("cart"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_call_takes_the_place_of_an_older_one() {
    let asking = Asking::start().await;
    let (_acks, mut older) = asking.begin_well().await;
    let first = older.message().await.unwrap().unwrap();
    let (_acks, mut newer) = asking.begin_well().await;
    let again = newer.message().await.unwrap().unwrap();
    assert_eq!((first.seq, again.seq), (1, 1));
    while let Ok(Some(_)) = older.message().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_dies_with_everything_leaves_the_slice_vacant() {
    let asking = Asking::start().await;
    let (fake, slicelet) = (&asking.fake, &asking.source.slicelet);
    fake.places(false);
    drop(asking.take_over(true).await);
    // ◆ A surrender is never undone.
    until("it is surrendered", || !fake.has_open_handoff("cart")).await;
    assert!(slicelet.guard(b"alice").is_err());
    fake.expire("cart", asking.begin.to);
    until("nothing is kept", || asking.state.discards() > 0).await;
    assert!(fake.owner("cart", SliceKey::MIN).is_none() && slicelet.guard(b"alice").is_err());
    // It comes back, without its state.
    fake.grant("cart", Slice::ALL, slicelet.session().unwrap());
    until("it is served", || slicelet.guard(b"alice").is_ok()).await;
    let stats = slicelet.stats();
    assert_eq!((stats.transfers_out_completed, stats.arrivals_cold), (1, 2));
    until("its export has ended", || asking.state.open_exports() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_that_is_cancelled_at_its_last_frame_has_not_failed() {
    let asking = Asking::start().await;
    let _frames = asking.take_over(false).await;
    let slicelet = &asking.source.slicelet;
    assert!(slicelet.guard(b"alice").is_err(), "it is frozen");
    asking.fake.ask_cancel("cart");
    until("it is served", || slicelet.guard(b"alice").is_ok()).await;
    tokio::time::sleep(FINISH_DEADLINE * 2).await;
    assert_eq!(slicelet.stats().transfers_out_failed, 0);
    assert!(slicelet.guard(b"alice").is_ok());
}
