//! What clients see of moves with state: nothing.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../examples/counter_server/rpc.rs"]
mod rpc;

mod fake;
mod pod;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fake::Fake;
use leasehold_client::layer::{HeldGuard, OwnershipLayer, RoutedChannel, set_key};
use leasehold_client::proto::target::TargetConfig;
use leasehold_client::state::StateMap;
use leasehold_client::{Clerk, Slicelet};
use pod::{LONG, until};
use rpc::{Count, Counter, CounterClient, CounterServer, Increment};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tower::Layer;

#[derive(Clone)]
struct Counts(StateMap<u64>);

#[tonic::async_trait]
impl Counter for Counts {
    async fn increment(&self, request: Request<Increment>) -> Result<Response<Count>, Status> {
        let guard = request.extensions().get::<HeldGuard>().cloned().unwrap();
        let key = request.into_inner().key;
        let value = self.0.update(&guard, &key, |count| {
            let count = count.get_or_insert(0);
            *count += 1;
            *count
        })?;
        let token = guard.fencing_token().as_u64();
        Ok(Response::new(Count { value, token }))
    }
}

async fn app(fake: &Fake) -> Arc<Slicelet> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let counts = StateMap::new();
    let slicelet = Slicelet::builder("cart")
        .endpoints(fake.endpoints())
        .advertise(listener.local_addr().unwrap().to_string())
        .state(counts.clone())
        .start()
        .unwrap();
    let slicelet = Arc::new(slicelet);
    let guarded =
        OwnershipLayer::new(Arc::clone(&slicelet)).layer(CounterServer::new(Counts(counts)));
    let server = tonic::transport::Server::builder()
        .add_service(slicelet.peer_service().into_server())
        .add_service(guarded)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::spawn(async move { server.await.unwrap() });
    slicelet.ready(LONG).await.unwrap();
    slicelet
}

/// Increments its own keys and requires that each count is the last one and one.
async fn client(clerk: Clerk, name: u8, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let mut client = CounterClient::new(RoutedChannel::new(clerk));
    let mut known = [0u64; 16];
    while !stop.load(Ordering::Relaxed) {
        for (n, known) in known.iter_mut().enumerate() {
            let key = [name, n as u8];
            let mut request = Request::new(Increment { key: key.to_vec() });
            set_key(&mut request, &key);
            let count = client.increment(request).await.unwrap().into_inner();
            *known += 1;
            assert_eq!(count.value, *known, "{key:?}");
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_and_no_increment_is_lost_or_doubled() {
    let fake = Fake::start().await;
    fake.create("cart", 8, TargetConfig::default());
    let apps = [app(&fake).await, app(&fake).await, app(&fake).await];
    until("all is owned", || {
        apps.iter().map(|app| app.owned().len()).sum::<usize>() == 8
    })
    .await;
    let clerk = Clerk::builder("cart")
        .endpoints(fake.endpoints())
        .connect_lazy()
        .unwrap();
    clerk.ready(LONG).await.unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let clients: Vec<_> = (0..6)
        .map(|name| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(client(clerk.clone(), name, stop, done))
        })
        .collect();
    for round in 0..100u8 {
        let key = clerk.slice_key(&[round % 6, round % 16]);
        let (_, owner) = fake.owner("cart", key).unwrap();
        let at = apps
            .iter()
            .position(|app| app.session() == Some(owner.session));
        let to = apps[(at.unwrap() + 1) % 3].session().unwrap();
        until("the handoff begins", || {
            fake.hand_off("cart", key, to).is_ok()
        })
        .await;
        until("the handoff ends", || !fake.has_open_handoff("cart")).await;
        let (_, now) = fake.owner("cart", key).unwrap();
        assert_eq!(now.session, to);
    }
    // And a pod leaves.
    apps[0].drain(LONG).await.unwrap();
    let before = done.load(Ordering::Relaxed);
    until("requests go on", || {
        done.load(Ordering::Relaxed) > before + 100
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let stats: Vec<_> = apps.iter().map(|app| app.stats()).collect();
    println!("{} increments; {stats:#?}", done.load(Ordering::Relaxed));
    let warm: u64 = stats.iter().map(|stats| stats.arrivals_warm).sum();
    assert!(warm >= 100, "{warm}");
}
