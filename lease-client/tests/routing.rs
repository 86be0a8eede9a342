//! Clerks, redirects and layers, over sockets.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../examples/counter_server/rpc.rs"]
mod rpc;

mod fake;
mod pod;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::Fake;
use leasehold_client::layer::{HeldGuard, OwnershipLayer, RoutedChannel, set_key};
use leasehold_client::proto::target::{Consistency, TargetConfig};
use leasehold_client::{Clerk, Slicelet};
use pod::{LONG, until};
use rpc::{Count, Counter, CounterClient, CounterServer, Increment};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tower::Layer;

#[derive(Clone, Default)]
struct Counters {
    values: Arc<Mutex<HashMap<Vec<u8>, u64>>>,
    entered: Arc<AtomicU64>,
    served: Arc<AtomicU64>,
    pause: Arc<Mutex<Duration>>,
}

#[tonic::async_trait]
impl Counter for Counters {
    async fn increment(&self, request: Request<Increment>) -> Result<Response<Count>, Status> {
        let guard = request.extensions().get::<HeldGuard>().cloned().unwrap();
        self.entered.fetch_add(1, Ordering::Relaxed);
        let pause = *self.pause.lock().unwrap();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut values = self.values.lock().unwrap();
        let value = values.entry(request.into_inner().key).or_default();
        *value += 1;
        Ok(Response::new(Count {
            value: *value,
            token: guard.fencing_token().as_u64(),
        }))
    }
}

struct App {
    slicelet: Arc<Slicelet>,
    stop: Arc<tokio::sync::Notify>,
    server: tokio::task::JoinHandle<()>,
    counters: Counters,
    address: String,
}

async fn app(fake: &Fake, target: &str) -> App {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let builder = Slicelet::builder(target)
        .endpoints(fake.endpoints())
        .advertise(&address);
    let slicelet = Arc::new(
        builder
            .drain_deadline(Duration::from_millis(200))
            .start()
            .unwrap(),
    );
    let counters = Counters::default();
    let stop = Arc::new(tokio::sync::Notify::new());
    let stopped = Arc::clone(&stop);
    let guarded =
        OwnershipLayer::new(Arc::clone(&slicelet)).layer(CounterServer::new(counters.clone()));
    let server = tonic::transport::Server::builder()
        .add_service(slicelet.peer_service().into_server())
        .add_service(guarded)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async move { stopped.notified().await },
        );
    let server = tokio::spawn(async move { server.await.unwrap() });
    App {
        slicelet,
        stop,
        server,
        counters,
        address,
    }
}

async fn clerk(fake: &Fake, target: &str) -> Clerk {
    let clerk = Clerk::builder(target)
        .endpoints(fake.endpoints())
        .connect_lazy()
        .unwrap();
    clerk.ready(LONG).await.unwrap();
    clerk
}

fn increment(key: &[u8]) -> Request<Increment> {
    let mut request = Request::new(Increment { key: key.to_vec() });
    set_key(&mut request, key);
    request
}

/// Two apps of which the first owns everything.
async fn two(fake: &Fake, target: &str, slices: u32) -> (App, App) {
    fake.create(target, slices, TargetConfig::default());
    let a = app(fake, target).await;
    until("the first owns everything", || {
        a.slicelet.owned().len() == slices as usize
    })
    .await;
    let b = app(fake, target).await;
    b.slicelet.ready(LONG).await.unwrap();
    (a, b)
}

async fn hand_off(fake: &Fake, target: &str, key: leasehold_client::proto::SliceKey, to: &App) {
    let session = to.slicelet.session().unwrap();
    until("the handoff begins", || {
        fake.hand_off(target, key, session).is_ok()
    })
    .await;
    until("the handoff ends", || !fake.has_open_handoff(target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clerk_knows_the_pod_of_every_key_and_keeps_its_map_without_an_assigner() {
    let fake = Fake::start().await;
    let (a, b) = two(&fake, "cart", 4).await;
    let clerk = clerk(&fake, "cart").await;
    let route = clerk.lookup(b"alice").unwrap();
    assert_eq!(clerk.address(&route).unwrap().as_str(), a.address);
    hand_off(&fake, "cart", route.slice_key(), &b).await;
    until("the clerk hears of it", || {
        clerk.address(&route).unwrap().as_str() == b.address
    })
    .await;
    assert_eq!(
        clerk.route(b"alice").unwrap().session,
        b.slicelet.session().unwrap()
    );
    fake.cut();
    assert!(clerk.lookup(b"alice").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_move_under_load_without_a_failed_request() {
    let fake = Fake::start().await;
    let (a, b) = two(&fake, "cart", 4).await;
    let clerk = clerk(&fake, "cart").await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..8u8)
        .map(|n| {
            let mut client = CounterClient::new(RoutedChannel::new(clerk.clone()));
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut last_token = 0;
                while !stop.load(Ordering::Relaxed) {
                    let count = client
                        .increment(increment(&[n]))
                        .await
                        .unwrap()
                        .into_inner();
                    assert!(count.token >= last_token, "a token fell");
                    last_token = count.token;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..12u8 {
        let key = clerk.slice_key(&[round % 8]);
        let (_, owner) = fake.owner("cart", key).unwrap();
        let to = if Some(owner.session) == a.slicelet.session() {
            &b
        } else {
            &a
        };
        hand_off(&fake, "cart", key, to).await;
        let before = done.load(Ordering::Relaxed);
        until("requests go on", || {
            done.load(Ordering::Relaxed) > before + 20
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(b.counters.served.load(Ordering::Relaxed) > 0);
    assert_eq!(a.slicelet.stats().drains_cut_off, 0);
    assert!(a.slicelet.stats().handoffs_out > 0 && b.slicelet.stats().handoffs_in > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_the_former_owner_is_told_where_the_slice_went() {
    let fake = Fake::start().await;
    let (a, b) = two(&fake, "cart", 1).await;
    let clerk = clerk(&fake, "cart").await;
    let key = clerk.slice_key(b"alice");
    let session = b.slicelet.session().unwrap();
    until("the handoff begins", || {
        fake.hand_off("cart", key, session).is_ok()
    })
    .await;
    until("it is there", || b.slicelet.guard(b"alice").is_ok()).await;
    // Asked directly, the former owner refuses and changes nothing.
    let channel = clerk.pool().get(&a.address).await.unwrap();
    let refused = CounterClient::new(channel)
        .increment(increment(b"alice"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(a.counters.served.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_under_a_lost_guard_is_not_sent() {
    let fake = Fake::start().await;
    let (a, b) = two(&fake, "cart", 1).await;
    let clerk = clerk(&fake, "cart").await;
    *a.counters.pause.lock().unwrap() = Duration::from_secs(2);
    let mut client = CounterClient::new(RoutedChannel::new(clerk.clone()));
    let slow = tokio::spawn(async move { client.increment(increment(b"alice")).await });
    until("the request is served", || {
        a.counters.entered.load(Ordering::Relaxed) == 1
    })
    .await;
    // The drain deadline is shorter than the request: it is cut off.
    hand_off(&fake, "cart", clerk.slice_key(b"alice"), &b).await;
    let outcome = slow.await.unwrap();
    assert_eq!(
        outcome.unwrap_err().code(),
        Code::Unknown,
        "it may have been executed"
    );
    assert_eq!(a.slicelet.stats().drains_cut_off, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_key_is_refused() {
    let fake = Fake::start().await;
    let (a, _b) = two(&fake, "cart", 1).await;
    let clerk = clerk(&fake, "cart").await;
    let request = || {
        Request::new(Increment {
            key: b"alice".to_vec(),
        })
    };
    let mut routed = CounterClient::new(RoutedChannel::new(clerk.clone()));
    assert_eq!(
        routed.increment(request()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let channel = clerk.pool().get(&a.address).await.unwrap();
    let mut direct = CounterClient::new(channel);
    assert_eq!(
        direct.increment(request()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_hands_everything_over_first() {
    let fake = Fake::start().await;
    let (a, b) = two(&fake, "cart", 8).await;
    let clerk = clerk(&fake, "cart").await;
    let mut client = CounterClient::new(RoutedChannel::new(clerk.clone()));
    client.increment(increment(b"alice")).await.unwrap();
    a.slicelet.drain(LONG).await.unwrap();
    assert!(a.slicelet.owned().is_empty());
    until("the other owns everything", || {
        b.slicelet.owned().len() == 8
    })
    .await;
    client.increment(increment(b"alice")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_under_load_fails_no_request() {
    let fake = Fake::start().await;
    let (a, b) = two(&fake, "cart", 8).await;
    let clerk = clerk(&fake, "cart").await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..8u8)
        .map(|n| {
            let mut client = CounterClient::new(RoutedChannel::new(clerk.clone()));
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.increment(increment(&[n])).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    until("requests are served", || done.load(Ordering::Relaxed) > 50).await;
    a.slicelet.drain(LONG).await.unwrap();
    a.stop.notify_one();
    a.server.await.unwrap();
    drop(a.slicelet);
    let before = done.load(Ordering::Relaxed);
    until("requests go on", || {
        done.load(Ordering::Relaxed) > before + 50
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(b.slicelet.owned().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eventual_target_is_served_while_no_assigner_answers() {
    let fake = Fake::start().await;
    let config = TargetConfig {
        consistency: Consistency::Eventual,
        ..pod::short_ttl()
    };
    fake.create("cart", 1, config);
    let a = app(&fake, "cart").await;
    until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    let guard = a.slicelet.guard(b"alice").unwrap();
    fake.absent(true);
    // More than three times the ttl.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(guard.verify().is_ok() && a.slicelet.guard(b"alice").is_ok());
}
