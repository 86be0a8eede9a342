//! Slicelets and Clerks against whole clusters: planned moves without a failed request, drain,
//! leaders and holders that die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use leasehold_assigner::testing::TestCluster;
use leasehold_client::{Clerk, Guard, GuardError, Slicelet};
use leasehold_proto::target::TargetConfig;
use tonic::transport::server::TcpIncoming;

use crate::support::{PATIENCE, settled, table_owned, target};

pub const TARGET: &str = "cart";
/// A request that finds no owner for so long has failed.
const CALL_DEADLINE: Duration = Duration::from_secs(20);

/// A pod: a Slicelet, and a server that carries its peer service.
struct Pod {
    slicelet: Slicelet,
    address: String,
    _server: Server,
}

/// Serves until it is dropped.
struct Server(tokio::task::JoinHandle<()>);

impl Pod {
    async fn start(cluster: &TestCluster) -> Pod {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let slicelet = Slicelet::builder(TARGET)
            .endpoints(cluster.endpoints())
            .advertise(&address)
            .start()
            .unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(slicelet.peer_service().into_server())
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let _server = Server(tokio::spawn(async move { drop(server.await) }));
        slicelet.ready(PATIENCE).await.unwrap();
        Pod {
            slicelet,
            address,
            _server,
        }
    }
}

impl AsRef<Slicelet> for Pod {
    fn as_ref(&self) -> &Slicelet {
        &self.slicelet
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A cluster with a target, pods that share its slices, and a client that asks all the time.
struct World {
    cluster: TestCluster,
    pods: Arc<Pods<Pod>>,
}

/// The pods that run, by address.
pub type Pods<P> = parking_lot::RwLock<BTreeMap<String, Arc<P>>>;

impl World {
    async fn start(nodes: u64, pods: usize, slices: u32) -> World {
        let cluster = TestCluster::start(nodes).await;
        // Slicelets judge by their own clocks; the Assigners' stands, so that a busy machine
        // expires nobody.
        cluster.pause_time();
        let config = TargetConfig {
            ttl: Duration::from_secs(5),
            ..TargetConfig::default()
        };
        cluster.create_target_with(TARGET, slices, config).await;
        let world = World {
            cluster,
            pods: Arc::default(),
        };
        for _ in 0..pods {
            world.add_pod().await;
        }
        world.wait_even(pods, slices).await;
        world
    }

    async fn add_pod(&self) -> Arc<Pod> {
        let pod = Arc::new(Pod::start(&self.cluster).await);
        self.pods
            .write()
            .insert(pod.address.clone(), Arc::clone(&pod));
        pod
    }

    async fn wait_even(&self, pods: usize, slices: u32) {
        let (least, most) = (slices as usize / pods, (slices as usize).div_ceil(pods));
        self.cluster
            .wait_until("every pod has its share", |table| {
                let Some(state) = table.target(&target(TARGET)) else {
                    return false;
                };
                let serving = state.live_sessions().filter(|session| !session.draining);
                let counts: Vec<usize> =
                    serving.map(|session| state.owned_by(session.id)).collect();
                settled(table, TARGET)
                    && counts.len() == pods
                    && counts.iter().all(|count| (least..=most).contains(count))
            })
            .await;
    }

    /// Sends requests until told to stop.
    async fn load(&self) -> Load {
        let (clerk, pods) = (Arc::new(clerk(&self.cluster).await), Arc::clone(&self.pods));
        Load::start(move |number| {
            let (clerk, pods) = (Arc::clone(&clerk), Arc::clone(&pods));
            async move { request(&clerk, &pods, &number.to_be_bytes()).await }
        })
    }
}

pub async fn clerk(cluster: &TestCluster) -> Clerk {
    let clerk = Clerk::builder(TARGET)
        .endpoints(cluster.endpoints())
        .connect_lazy()
        .unwrap();
    clerk.ready(PATIENCE).await.unwrap();
    clerk
}

/// Requests that are sent one after another.
pub struct Load {
    served: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    /// Makes requests, which are told their number, until it is stopped.
    pub fn start<F: Future<Output = Result<(), String>> + Send + 'static>(
        request: impl Fn(u64) -> F + Send + 'static,
    ) -> Load {
        let (served, stop) = (Arc::default(), Arc::default());
        let (counted, stopped) = (Arc::clone(&served), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut failed = Vec::new();
            for number in 0_u64.. {
                if AtomicBool::load(&stopped, Ordering::Acquire) {
                    break;
                }
                match request(number).await {
                    Ok(()) => drop(AtomicU64::fetch_add(&counted, 1, Ordering::AcqRel)),
                    // Once is enough of what fails again and again.
                    Err(why) if failed.last() == Some(&why) => {}
                    Err(why) => failed.push(why),
                }
                tokio::task::yield_now().await;
            }
            failed
        });
        Load { served, stop, task }
    }

    /// Returns when so many more requests have been served.
    pub async fn more(&self, count: u64) {
        let until = self.served.load(Ordering::Acquire) + count;
        let waiting = async {
            while self.served.load(Ordering::Acquire) < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("requests are served");
    }

    /// Ends the load; what failed.
    pub async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap()
    }
}

/// A guard of the pod that owns the key, as a server with the library's layer comes by it: it waits
/// for slices that change hands, follows a hint at once, and asks the map again after an owner that
/// is none.
pub async fn guarded<P: AsRef<Slicelet>>(
    clerk: &Clerk,
    pods: &Pods<P>,
    key: &[u8],
) -> Result<(Arc<P>, Guard), String> {
    let mut last = "no route".to_owned();
    let deadline = tokio::time::Instant::now() + CALL_DEADLINE;
    while tokio::time::Instant::now() < deadline {
        let pod = clerk
            .route(key)
            .and_then(|route| pods.read().get(route.address.as_str()).cloned());
        let Some(pod) = pod else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        match (*pod).as_ref().guard_or_wait(key).await {
            Ok(guard) => return Ok((pod, guard)),
            Err(refused @ (GuardError::Moved(_) | GuardError::NotOwner { .. })) => {
                let redirect = refused.redirect();
                last = refused.to_string();
                if !clerk.learn(&redirect) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Err(refused) => return Err(refused.to_string()),
        }
    }
    Err(last)
}

/// One request that changes nothing.
async fn request(clerk: &Clerk, pods: &Pods<Pod>, key: &[u8]) -> Result<(), String> {
    let (_, guard) = guarded(clerk, pods, key).await?;
    guard.verify().map_err(|lost| lost.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_move_to_a_new_pod_without_a_failed_request() {
    let world = World::start(3, 2, 12).await;
    let load = world.load().await;
    load.more(100).await;
    world.add_pod().await;
    world.wait_even(3, 12).await;
    load.more(100).await;
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_drains_without_a_failed_request() {
    let world = World::start(1, 3, 12).await;
    let load = world.load().await;
    load.more(100).await;
    let leaving = world.pods.read().values().next().cloned().unwrap();
    leaving.slicelet.drain(PATIENCE).await.unwrap();
    assert!(leaving.slicelet.owned().is_empty());
    world.wait_even(2, 12).await;
    load.more(100).await;
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_leader_fails_no_request_and_moves_no_slice() {
    let mut world = World::start(3, 2, 8).await;
    let load = world.load().await;
    load.more(100).await;
    let before = world.cluster.look(sessions).await;
    world.cluster.kill_leader().await;
    load.more(100).await;
    // A slice can be moved again: the new leader has heard the sessions.
    world.add_pod().await;
    world.wait_even(3, 8).await;
    let after = world.cluster.look(sessions).await;
    assert!(
        before.iter().all(|session| after.contains(session)),
        "{before:?} {after:?}"
    );
    assert_eq!(load.stop().await, Vec::<String>::new());
}

fn sessions(table: &leasehold_proto::table::LeaseTable) -> Vec<leasehold_proto::SessionId> {
    table
        .target(&target(TARGET))
        .unwrap()
        .live_sessions()
        .map(|session| session.id)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_pods_slices_are_served_by_the_others_after_its_lease() {
    let world = World::start(1, 3, 9).await;
    let dead = {
        let mut pods = world.pods.write();
        pods.pop_first().unwrap().1
    };
    let session = dead.slicelet.session().unwrap();
    drop(dead);
    world.cluster.resume_time();
    world
        .cluster
        .wait_until("the dead one is succeeded", |table| {
            table_owned(table, TARGET, session) == 0 && settled(table, TARGET)
        })
        .await;
    let load = world.load().await;
    load.more(200).await;
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_closes_leaves_at_once() {
    let world = World::start(1, 2, 6).await;
    let (_, leaving) = world.pods.write().pop_first().unwrap();
    let session = leaving.slicelet.session().unwrap();
    // The load of no client is left on it.
    let leaving = Arc::into_inner(leaving).unwrap();
    leaving.slicelet.drain(PATIENCE).await.unwrap();
    leaving.slicelet.close().await.unwrap();
    assert!(!world.cluster.look(sessions).await.contains(&session));
    world.wait_even(1, 6).await;
}
