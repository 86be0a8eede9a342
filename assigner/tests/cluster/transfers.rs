//! A slice that carries state, on a whole cluster: whoever ends half-way, the handoff ends as the
//! protocol says, and no acknowledged change is lost or made twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leasehold_assigner::testing::TestCluster;
use leasehold_client::proto::FencingToken;
use leasehold_client::state::StateMap;
use leasehold_client::{Clerk, Slicelet, Stats, Transfers};
use leasehold_proto::target::TargetConfig;
use leasehold_proto::view::{Assigned, Handoff, Lease};
use leasehold_proto::wire::admin::CancelHandoff;
use leasehold_proto::wire::pb;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::{SessionId, SliceKey};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;

use crate::clients::{Load, Pods, TARGET, clerk, guarded};
use crate::support::{PATIENCE, connect, leader_endpoint, target};

/// Keys that are counted up.
const KEYS: u64 = 16;
/// Keys with which the slice is filled, of so many bytes each.
const BALLAST: u64 = 4_000;
const BALLAST_BYTES: usize = 1_000;
/// How much has arrived when something happens.
const SOME_BYTES: u64 = 64 << 10;
/// A transfer of everything takes seconds: something can happen meanwhile.
const SLOW: u64 = 1 << 20;
/// A transfer of everything takes longer than any test: what happens meanwhile ends it.
const ENDLESS: u64 = 64 << 10;
/// No lease runs out, however slow the machine is.
const LONG_TTL: Duration = Duration::from_secs(60);
/// Renewed often enough to wait for it.
const SHORT_TTL: Duration = Duration::from_secs(5);

/// A pod in a runtime of its own, which ends with it.
struct Pod {
    slicelet: Slicelet,
    counts: StateMap<u64>,
    address: String,
    runtime: Mutex<Option<Runtime>>,
}

impl Pod {
    async fn start(cluster: &TestCluster, most_bytes_per_s: u64) -> Arc<Pod> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (counts, endpoints) = (StateMap::new(), cluster.endpoints());
        let state = counts.clone();
        let mut transfers = Transfers::default();
        transfers.speed.most_bytes_per_s = Some(most_bytes_per_s);
        transfers.frame_bytes = 16 << 10;
        let started = runtime.spawn(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let slicelet = Slicelet::builder(TARGET)
                .endpoints(endpoints)
                .advertise(&address)
                .state(state)
                .transfers(transfers)
                .start()
                .unwrap();
            let server = tonic::transport::Server::builder()
                .add_service(slicelet.peer_service().into_server())
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
            tokio::spawn(server);
            slicelet.ready(PATIENCE).await.unwrap();
            (slicelet, address)
        });
        let (slicelet, address) = started.await.unwrap();
        Arc::new(Pod {
            slicelet,
            counts,
            address,
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// Ends everything of it at once, without a word.
    fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    fn stats(&self) -> Stats {
        self.slicelet.stats()
    }

    fn session(&self) -> SessionId {
        self.slicelet.session().unwrap()
    }

    fn serves(&self) -> bool {
        self.slicelet.guard(&key(0)).is_ok()
    }

    fn fill(&self) {
        for number in 0..BALLAST {
            let guard = self.slicelet.guard(&ballast(number)).unwrap();
            let before = self.counts.insert(&guard, &ballast(number), number);
            assert_eq!(before.unwrap(), None);
        }
    }

    /// The value of a key that it must own.
    fn get(&self, key: &[u8]) -> Option<u64> {
        let guard = self.slicelet.guard(key).unwrap();
        let value = self.counts.get(&guard, key);
        guard.verify().unwrap();
        value
    }

    async fn renewed(&self) {
        // One renewal may have been under way before.
        let before = self.stats().renewals_answered;
        until("it is answered twice", || {
            self.stats().renewals_answered >= before + 2
        })
        .await;
    }
}

impl AsRef<Slicelet> for Pod {
    fn as_ref(&self) -> &Slicelet {
        &self.slicelet
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A runtime must not be dropped where a test waits.
        self.kill();
    }
}

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn ballast(number: u64) -> Vec<u8> {
    let mut key = vec![b'-'; BALLAST_BYTES];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

/// What a client was told of a key last.
#[derive(Clone, Copy)]
struct Told {
    count: u64,
    token: FencingToken,
}

/// A client that counts keys up, and watches that every answer follows from the one before.
#[derive(Default)]
struct Client {
    told: Mutex<BTreeMap<u64, Told>>,
    /// An owner has died: its successor may begin at nothing.
    cold: AtomicBool,
}

impl Client {
    async fn increment(&self, clerk: &Clerk, pods: &Pods<Pod>, number: u64) -> Result<(), String> {
        let key = key(number);
        let (pod, guard) = guarded(clerk, pods, &key).await?;
        let others: Vec<Arc<Pod>> = pods.read().values().cloned().collect();
        let also =
            |other: &Arc<Pod>| !Arc::ptr_eq(other, &pod) && other.slicelet.guard(&key).is_ok();
        // The owner's guard passes again below: both would have served at the same instant.
        let twice = others.iter().any(also);
        let count = pod.counts.update(&guard, &key, |count| {
            let count = count.get_or_insert(0);
            *count += 1;
            *count
        });
        let (count, token) = (count.map_err(|e| e.to_string())?, guard.fencing_token());
        guard.verify().map_err(|lost| lost.to_string())?;
        let before = self.told.lock().insert(number, Told { count, token });
        let (known, newest) = before.map_or((0, token), |told| (told.count, told.token));
        let cold = self.cold.load(Ordering::Acquire) && count == 1 && token > newest;
        if twice || token < newest || !(count == known + 1 || cold) {
            return Err(format!(
                "{known} at {newest}, then {count} at {token}; twice: {twice}"
            ));
        }
        Ok(())
    }
}

/// A slice on its way from one pod to another, while a client writes to it.
struct World {
    cluster: TestCluster,
    pods: Arc<Pods<Pod>>,
    source: Arc<Pod>,
    destination: Arc<Pod>,
    client: Arc<Client>,
    load: Load,
    owner: Lease,
    handoff: Handoff,
}

impl World {
    /// Some of the state has arrived.
    async fn half_way(ttl: Duration, most_bytes_per_s: u64) -> World {
        let cluster = TestCluster::start(3).await;
        cluster.pause_time();
        let config = TargetConfig {
            ttl,
            ..TargetConfig::default()
        };
        cluster.create_target_with(TARGET, 1, config).await;
        cluster.hold(TARGET).await;
        let source = Pod::start(&cluster, most_bytes_per_s).await;
        until("it is served", || source.serves()).await;
        source.fill();
        let destination = Pod::start(&cluster, most_bytes_per_s).await;
        let pods = [&source, &destination].map(|pod| (pod.address.clone(), Arc::clone(pod)));
        let pods = Arc::new(Pods::new(pods.into()));
        let (client, clerk) = (Arc::new(Client::default()), Arc::new(clerk(&cluster).await));
        let (lent, routes) = (Arc::clone(&client), Arc::clone(&pods));
        let load = Load::start(move |number| {
            let (client, clerk, pods) = (lent.clone(), clerk.clone(), routes.clone());
            async move { client.increment(&clerk, &pods, number % KEYS).await }
        });
        load.more(2 * KEYS).await;
        let to = destination.session();
        cluster.move_slice(TARGET, SliceKey::MIN, to).await.unwrap();
        until("some has arrived", || {
            destination.stats().state_bytes_in > SOME_BYTES
        })
        .await;
        let Assigned { owner, handoff, .. } = assigned(&cluster).await;
        World {
            cluster,
            pods,
            source,
            destination,
            client,
            load,
            owner: owner.unwrap(),
            handoff: handoff.expect("it is half-way"),
        }
    }

    /// Waits until the handoff has ended; who owns the slice then.
    async fn ended(&self) -> Lease {
        self.cluster
            .wait_until("the handoff has ended", |table| {
                let slice = table.target(&target(TARGET)).unwrap();
                slice.handoffs().next().is_none()
            })
            .await;
        assigned(&self.cluster).await.owner.unwrap()
    }

    fn is_half_way(&self) -> bool {
        self.source.serves() && self.destination.stats().transfers_in_completed == 0
    }

    /// The process of a pod ends.
    fn kill(&self, pod: &Pod) {
        self.pods.write().remove(&pod.address);
        pod.kill();
    }

    /// Lets the lease of a dead pod run out, and not the living one's.
    async fn outlast_lease(&self, living: &Pod) {
        for _ in 0..2 {
            living.renewed().await;
            self.cluster.advance_time(SHORT_TTL * 2 / 3);
        }
    }

    /// The handoff has been completed; the destination serves the slice, with its state or without.
    async fn finish_moved(self, warm: bool) {
        let (owner, destination) = (self.ended().await, Arc::clone(&self.destination));
        assert_eq!(
            (owner.session, owner.epoch),
            (destination.session(), self.handoff.epoch)
        );
        assert!(owner.epoch.token() > self.owner.epoch.token());
        until("it is served", || destination.serves()).await;
        let stats = destination.stats();
        let (warm_arrivals, cold_arrivals) = (u64::from(warm), u64::from(!warm));
        assert_eq!(
            (stats.arrivals_warm, stats.arrivals_cold),
            (warm_arrivals, cold_arrivals)
        );
        self.finish(&destination, warm).await;
    }

    /// Requests go on, none has failed, and the owner has all that they were told.
    async fn finish(self, owner: &Pod, with_ballast: bool) {
        self.load.more(2 * KEYS).await;
        assert_eq!(self.load.stop().await, Vec::<String>::new());
        for (number, told) in &*self.client.told.lock() {
            assert_eq!(owner.get(&key(*number)), Some(told.count), "{number}");
        }
        for number in 0..BALLAST {
            let value = owner.get(&ballast(number));
            assert_eq!(value, with_ballast.then_some(number));
        }
    }
}

async fn assigned(cluster: &TestCluster) -> Assigned {
    cluster
        .look(|table| {
            let state = table.target(&target(TARGET)).unwrap();
            state.slice_of(SliceKey::MIN).unwrap().1.clone()
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_half_way_costs_nothing() {
    let mut world = World::half_way(LONG_TTL, SLOW).await;
    let leader = world.cluster.leader().await;
    world.cluster.kill(leader).await;
    assert!(world.is_half_way());
    world.finish_moved(true).await;
}

/// ◆ The destination owns by the source's word; the Assigner hears of it when there is one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slice_is_served_warm_although_no_leader_lives_to_grant_it() {
    let mut world = World::half_way(LONG_TTL, SLOW).await;
    let leader = world.cluster.leader().await;
    let other = if leader == 1 { 2 } else { 1 };
    for node in [leader, other] {
        world.cluster.kill(node).await;
    }
    assert!(world.is_half_way());
    let destination = Arc::clone(&world.destination);
    until("it is served", || destination.serves()).await;
    assert_eq!(world.source.stats().handoffs_out, 1);
    world.load.more(2 * KEYS).await;
    world.cluster.restart(other).await;
    world.finish_moved(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slice_of_a_source_that_is_killed_half_way_begins_cold() {
    let world = World::half_way(SHORT_TTL, ENDLESS).await;
    let destination = Arc::clone(&world.destination);
    world.client.cold.store(true, Ordering::Release);
    world.kill(&world.source);
    world.outlast_lease(&destination).await;
    world.finish_moved(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_killed_half_way_costs_nothing() {
    let world = World::half_way(SHORT_TTL, ENDLESS).await;
    let source = Arc::clone(&world.source);
    world.kill(&world.destination);
    world.outlast_lease(&source).await;
    assert_eq!(world.ended().await, world.owner);
    world.finish(&source, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_cancelled_half_way_costs_nothing() {
    let world = World::half_way(LONG_TTL, ENDLESS).await;
    let source = Arc::clone(&world.source);
    let endpoint = leader_endpoint(&world.cluster).await;
    let request = CancelHandoff {
        target: target(TARGET),
        handoff: world.handoff.id,
        reason: None,
    };
    AdminClient::new(connect(&endpoint).await)
        .cancel_handoff(pb::CancelHandoffRequest::from(&request))
        .await
        .unwrap();
    assert_eq!(world.ended().await, world.owner);
    assert!(!world.destination.serves());
    world.finish(&source, true).await;
}
