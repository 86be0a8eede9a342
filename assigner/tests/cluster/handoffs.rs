//! Planned handoffs: begun, completed on either party's word, cancelled on the source's; drain.

use leasehold_assigner::testing::TestCluster;
use leasehold_proto::command::Digest;
use leasehold_proto::message::Word;
use leasehold_proto::view::{Handoff, View};
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{admin, pb};
use leasehold_proto::{Epoch, SliceKey};

use crate::support::{Pod, owned, pods, settled, table_owned, target};

/// Two pods of which the first owns everything and nothing else is planned.
async fn held_pair(cluster: &TestCluster) -> (Pod, Pod) {
    cluster.create_target("cart", 4).await;
    cluster.hold("cart").await;
    let mut source = pods(cluster, "cart", 1).await.remove(0);
    let session = source.session();
    source
        .until("everything is its own", |view| owned(view, session) == 4)
        .await;
    let endpoint = crate::support::leader_endpoint(cluster).await;
    let mut destination = Pod::start(&endpoint, "cart", 9002).await;
    destination.renew().await;
    (source, destination)
}

fn handoff(view: &View) -> Option<Handoff> {
    view.slices
        .iter()
        .find_map(|(_, assigned)| assigned.handoff)
}

fn epoch_at(view: &View, key: SliceKey) -> Option<Epoch> {
    view.get(key).1.owner.map(|owner| owner.epoch)
}

async fn begun(cluster: &TestCluster, source: &mut Pod, destination: &mut Pod) -> Handoff {
    cluster
        .move_slice("cart", SliceKey::MIN, destination.session())
        .await
        .unwrap();
    source
        .until("the handoff is shown", |view| handoff(view).is_some())
        .await;
    destination
        .until("the handoff is shown", |view| handoff(view).is_some())
        .await;
    source.view.as_ref().and_then(handoff).unwrap()
}

#[tokio::test]
async fn the_sources_word_completes_a_handoff_and_both_are_told_at_once() {
    let cluster = TestCluster::start(1).await;
    let (mut source, mut destination) = held_pair(&cluster).await;
    let before = epoch_at(source.view.as_ref().unwrap(), SliceKey::MIN).unwrap();
    let handoff = begun(&cluster, &mut source, &mut destination).await;
    assert_eq!(source.owned(), 4, "the source owns until it surrenders");
    source
        .say(vec![Word::Surrendered(handoff.id, Digest::EMPTY)], None)
        .await;
    // Nobody renews here: the change is pushed.
    while destination.owned() != 1 {
        destination.next().await.unwrap();
    }
    let after = epoch_at(destination.view.as_ref().unwrap(), SliceKey::MIN).unwrap();
    assert_eq!(after, handoff.epoch);
    assert!(after.token() > before.token());
    source
        .until("it is gone", |view| {
            view.get(SliceKey::MIN).1.handoff.is_none()
        })
        .await;
    assert_eq!(source.owned(), 3);
}

#[tokio::test]
async fn the_destinations_word_completes_a_handoff_too() {
    let cluster = TestCluster::start(1).await;
    let (mut source, mut destination) = held_pair(&cluster).await;
    let handoff = begun(&cluster, &mut source, &mut destination).await;
    destination
        .say(vec![Word::Accepted(handoff.id)], None)
        .await;
    destination
        .until("it owns", |view| {
            view.get(SliceKey::MIN).1.handoff.is_none()
        })
        .await;
    assert_eq!(destination.owned(), 1);
}

/// ◆ The merged slice keeps no proof of the state that a half came with.
#[tokio::test]
async fn slices_are_merged_only_when_their_owner_knows_that_they_have_come() {
    let cluster = TestCluster::start(1).await;
    let (mut source, mut destination) = held_pair(&cluster).await;
    let first = begun(&cluster, &mut source, &mut destination).await;
    destination.say(vec![Word::Accepted(first.id)], None).await;
    let to = destination.session();
    destination
        .until("it owns one slice", |view| owned(view, to) == 1)
        .await;
    let shown = source.view.as_ref().unwrap();
    let (second, _) = shown.slices.iter().nth(1).unwrap();
    cluster
        .move_slice("cart", second.first(), to)
        .await
        .unwrap();
    let opened = |view: &View| view.get(second.first()).1.handoff;
    for pod in [&mut source, &mut destination] {
        pod.until("the handoff is shown", |view| opened(view).is_some())
            .await;
    }
    let handoff = source.view.as_ref().and_then(opened).unwrap();
    source
        .say(vec![Word::Surrendered(handoff.id, Digest([1; 16]))], None)
        .await;
    // It is pushed the view, but has said nothing since.
    while destination.owned() != 2 {
        destination.next().await.unwrap();
    }
    let merge = admin::MergeSlices {
        target: target("cart"),
        slice_key: SliceKey::MIN,
        reason: None,
    };
    let merge = pb::MergeSlicesRequest::from(&merge);
    let mut client = AdminClient::new(source.channel.clone());
    let refused = client.merge_slices(merge.clone()).await.unwrap_err();
    assert!(
        matches!(Refusal::from_status(&refused), Some(Refusal::Conflict(_))),
        "{refused}"
    );
    destination.renew().await;
    client.merge_slices(merge).await.unwrap();
}

#[tokio::test]
async fn only_the_sources_refusal_cancels() {
    let cluster = TestCluster::start(1).await;
    let (mut source, mut destination) = held_pair(&cluster).await;
    let before = epoch_at(source.view.as_ref().unwrap(), SliceKey::MIN);
    let handoff = begun(&cluster, &mut source, &mut destination).await;
    // A word from one who has not that part means nothing.
    destination
        .renew_saying(
            vec![
                Word::Refused(handoff.id),
                Word::Surrendered(handoff.id, Digest::EMPTY),
            ],
            None,
        )
        .await;
    source
        .renew_saying(vec![Word::Accepted(handoff.id)], None)
        .await;
    cluster
        .wait_until("the handoff is still open", |table| !settled(table, "cart"))
        .await;
    source.say(vec![Word::Refused(handoff.id)], None).await;
    source.until("the handoff has ended", handoff_ended).await;
    assert_eq!(
        epoch_at(source.view.as_ref().unwrap(), SliceKey::MIN),
        before
    );
    assert_eq!(source.owned(), 4);
}

fn handoff_ended(view: &View) -> bool {
    handoff(view).is_none()
}

#[tokio::test]
async fn a_draining_session_is_emptied_and_given_nothing() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 6).await;
    let mut all = pods(&cluster, "cart", 3).await;
    serve_until(&cluster, &mut all, "all have slices", |counts| {
        counts.iter().all(|count| *count == 2)
    })
    .await;
    all[0].drain().await.unwrap();
    serve_until(&cluster, &mut all, "the first is empty", |counts| {
        counts[0] == 0
    })
    .await;
    let counts: Vec<usize> = all.iter().map(Pod::owned).collect();
    assert_eq!(counts.iter().sum::<usize>(), 6);
}

/// Lets pods renew and follow every handoff at once, until their counts are as wanted.
pub async fn serve_until(
    cluster: &TestCluster,
    pods: &mut [Pod],
    what: &str,
    wanted: impl Fn(&[usize]) -> bool,
) {
    let serving = async {
        loop {
            for pod in pods.iter_mut() {
                let session = pod.session();
                let surrendered = |(handoff, from): (Handoff, _)| {
                    (from == session).then_some(Word::Surrendered(handoff.id, Digest::EMPTY))
                };
                let open: Vec<_> = pod.view.iter().flat_map(open_handoffs).collect();
                pod.renew_saying(open.into_iter().filter_map(surrendered).collect(), None)
                    .await;
            }
            let counts: Vec<usize> = {
                let sessions: Vec<_> = pods.iter().map(Pod::session).collect();
                cluster
                    .look(|table| {
                        sessions
                            .iter()
                            .map(|id| table_owned(table, "cart", *id))
                            .collect()
                    })
                    .await
            };
            let settled = cluster.look(|table| settled(table, "cart")).await;
            if wanted(&counts) && settled {
                for pod in pods.iter_mut() {
                    pod.renew().await;
                }
                return;
            }
        }
    };
    let served = tokio::time::timeout(crate::support::PATIENCE, serving).await;
    assert!(served.is_ok(), "waited in vain for: {what}");
}

fn open_handoffs(view: &View) -> Vec<(Handoff, leasehold_proto::SessionId)> {
    let open = view
        .slices
        .iter()
        .filter_map(|(_, assigned)| Some((assigned.handoff?, assigned.owner?.session)));
    open.collect()
}
