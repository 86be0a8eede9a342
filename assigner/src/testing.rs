//! Whole clusters inside a test process: real nodes on loopback ports, storage in memory.
//!
//! For the tests of applications that use Leasehold, and of Leasehold itself. A [`TestCluster`] is
//! started with any number of nodes; a test then creates targets, moves slices, kills nodes and
//! sessions, and stops the clock by which leases are judged. Nothing here waits for a time to pass:
//! [`TestCluster::wait_until`] waits for a condition.
//!
//! ```
//! # #[tokio::main] async fn main() {
//! use leasehold_assigner::testing::TestCluster;
//!
//! let cluster = TestCluster::start(1).await;
//! cluster.create_target("cart", 8).await;
//! cluster.wait_until("the target is there", |table| table.targets().count() == 1).await;
//! // Slicelets and Clerks connect to these.
//! assert_eq!(cluster.endpoints().len(), 1);
//! cluster.shutdown().await;
//! # }
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use leasehold_proto::command::{CloseProof, Command, PlanStep, Reply};
use leasehold_proto::table::LeaseTable;
use leasehold_proto::target::{Consistency, Hold, Mode, TargetChange, TargetConfig};
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::{SessionId, SliceKey, TargetName};
use leasehold_raft_store::MemoryStore;

use crate::clock::{Clock, ControlledClock};
use crate::node::{DataDir, Node, NodeConfig, PlannerConfig, Timers};

/// How long a condition is waited for before the test fails. Far more than it takes on a slow,
/// busy machine; a passing test never waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A cluster of Assigners in this process. Everything on it panics when it cannot do what it is
/// asked, because then the test has failed. Dropping it ends every node.
pub struct TestCluster {
    places: BTreeMap<u64, Place>,
    clock: ControlledClock,
    planner: PlannerConfig,
}

/// One node: what of it outlives its process.
struct Place {
    store: MemoryStore,
    listen: SocketAddr,
    node: Option<Node>,
}

impl TestCluster {
    /// Starts `nodes` nodes, numbered from 1, and waits until they have a leader.
    pub async fn start(nodes: u64) -> Self {
        Self::start_with(nodes, PlannerConfig::default()).await
    }

    /// Like [`Self::start`], with a planner of other settings.
    pub async fn start_with(nodes: u64, planner: PlannerConfig) -> Self {
        let clock = ControlledClock::default();
        let mut cluster = Self {
            places: BTreeMap::new(),
            clock,
            planner,
        };
        for id in 1..=nodes {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let place = Place {
                store: MemoryStore::new(),
                listen: any,
                node: None,
            };
            cluster.places.insert(id, place);
            cluster.restart(id).await;
        }
        let members = cluster
            .places
            .iter()
            .map(|(id, place)| (*id, place.listen.to_string()))
            .collect();
        cluster
            .node(1)
            .bootstrap(members)
            .await
            .expect("the nodes are empty");
        cluster.leader().await;
        cluster
    }

    fn config(&self, id: u64, place: &Place) -> NodeConfig {
        NodeConfig {
            timers: Timers::fast(),
            planner: self.planner.clone(),
            clock: Clock::Controlled(self.clock.clone()),
            ..NodeConfig::new(
                "test",
                id,
                DataDir::Memory(place.store.clone()),
                place.listen,
            )
        }
    }

    /// The addresses of all nodes, running or not, for Slicelets and Clerks.
    pub fn endpoints(&self) -> Vec<String> {
        self.places
            .values()
            .map(|place| format!("http://{}", place.listen))
            .collect()
    }

    /// A running node.
    pub fn node(&self, id: u64) -> &Node {
        self.places
            .get(&id)
            .and_then(|place| place.node.as_ref())
            .expect("the node runs")
    }

    fn running(&self) -> impl Iterator<Item = (u64, &Node)> {
        self.places
            .iter()
            .filter_map(|(id, place)| Some((*id, place.node.as_ref()?)))
    }

    /// The node that leads and has a complete table; waits for one.
    pub async fn leader(&self) -> u64 {
        self.wait_for("a leader that is ready", || {
            self.running()
                .find(|(_, node)| node.leads_and_is_ready())
                .map(|(id, _)| id)
        })
        .await
    }

    /// Ends a node without a word to anybody, and with it what its disk had not synced.
    pub async fn kill(&mut self, id: u64) {
        let place = self.places.get_mut(&id).expect("there is such a node");
        place.node.take().expect("the node runs").kill().await;
        place.store.crash();
    }

    /// Starts a killed node again on what its disk holds.
    pub async fn restart(&mut self, id: u64) {
        let place = self.places.get(&id).expect("there is such a node");
        assert!(place.node.is_none(), "node {id} runs already");
        let node = Node::start(self.config(id, place))
            .await
            .expect("the node starts");
        if let Some(place) = self.places.get_mut(&id) {
            place.listen = node.local_addr();
            place.node = Some(node);
        }
    }

    /// Kills the leader and waits for the next one; gives the killed node's number.
    pub async fn kill_leader(&mut self) -> u64 {
        let leader = self.leader().await;
        self.kill(leader).await;
        self.leader().await;
        leader
    }

    /// Creates a strong target of `slices` slices whose sessions live for a second.
    pub async fn create_target(&self, name: &str, slices: u32) {
        let config = TargetConfig {
            ttl: Duration::from_secs(1),
            ..TargetConfig::default()
        };
        self.create_target_with(name, slices, config).await;
    }

    /// Creates a target.
    pub async fn create_target_with(&self, name: &str, slices: u32, config: TargetConfig) {
        let command = Command::CreateTarget {
            target: target(name),
            config,
            initial_slices: slices,
        };
        self.propose(&command)
            .await
            .expect("the target can be created");
    }

    /// Deletes a target: its sessions end.
    pub async fn delete_target(&self, name: &str) {
        let command = Command::DeleteTarget {
            target: target(name),
            expected_version: None,
        };
        self.propose(&command)
            .await
            .expect("the target can be deleted");
    }

    /// Changes a target's configuration.
    pub async fn update(&self, name: &str, change: TargetChange) {
        let command = Command::UpdateTarget {
            target: target(name),
            expected_version: None,
            change,
        };
        self.propose(&command)
            .await
            .expect("the target can be changed");
    }

    /// No planned change of the target until [`Self::unhold`]; vacant slices are still granted.
    pub async fn hold(&self, name: &str) {
        let hold = Some(Some(Hold {
            reason: "a test".into(),
        }));
        self.update(
            name,
            TargetChange {
                hold,
                ..TargetChange::default()
            },
        )
        .await;
    }

    /// Ends a hold.
    pub async fn unhold(&self, name: &str) {
        self.update(
            name,
            TargetChange {
                hold: Some(None),
                ..TargetChange::default()
            },
        )
        .await;
    }

    /// Switches a target between strong and eventual.
    pub async fn set_consistency(&self, name: &str, consistency: Consistency) {
        self.update(
            name,
            TargetChange {
                consistency: Some(consistency),
                ..TargetChange::default()
            },
        )
        .await;
    }

    /// Begins to move the slice that holds `key` to another session (in an eventual target: moves
    /// it). The error says why the table refused; with a planner at work the slice may just have
    /// changed.
    pub async fn move_slice(
        &self,
        name: &str,
        key: SliceKey,
        to: SessionId,
    ) -> Result<(), Refusal> {
        let (config_version, step) = self
            .look(|table| {
                let state = table.target(&target(name)).expect("there is such a target");
                let (slice, assigned) = state.slice_of(key).expect("slices cover every key");
                let step = match (state.mode(), assigned.owner) {
                    (Mode::Eventual, from) => PlanStep::Reassign { slice, from, to },
                    (_, None) => PlanStep::Grant { slice, to },
                    (_, Some(from)) => PlanStep::BeginHandoff { slice, from, to },
                };
                (state.config_version(), step)
            })
            .await;
        let command = Command::ApplyPlan {
            target: target(name),
            config_version,
            steps: vec![step],
        };
        match self.propose(&command).await? {
            Reply::Plan(results) => results
                .into_iter()
                .find_map(Result::err)
                .map_or(Ok(()), |why| Err((&why).into())),
            other => panic!("a plan was answered with {other:?}"),
        }
    }

    /// Ends a session as a supervisor does that has seen the process end: at once, without waiting
    /// for its lease. Here the process may go on, and learns it only over its stream: what it
    /// serves until then it serves beside its successor, which no expiry allows. For an expiry
    /// stop the process's renewals, and let [`Self::advance_time`] end its lease.
    pub async fn reap_session(&self, name: &str, session: SessionId) {
        let command = Command::CloseSession {
            target: target(name),
            session,
            proof: CloseProof::Reaped,
        };
        self.propose(&command).await.expect("the session lives");
    }

    /// Stops the clock by which the Assigners judge leases: no session expires. The Slicelets'
    /// own clocks go on.
    pub fn pause_time(&self) {
        self.clock.pause();
    }

    /// Lets the clock go on.
    pub fn resume_time(&self) {
        self.clock.resume();
    }

    /// Moves the clock forward: sessions that are not answered meanwhile expire earlier than their
    /// holders know.
    pub fn advance_time(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Reads the leader's table.
    pub async fn look<T>(&self, look: impl FnOnce(&LeaseTable) -> T) -> T {
        let leader = self.leader().await;
        self.node(leader).look(look)
    }

    /// Waits until the leader's table fulfils a condition; `what` names it if the test fails.
    pub async fn wait_until(&self, what: &str, holds: impl Fn(&LeaseTable) -> bool) {
        self.wait_for(what, || {
            let leader = self.running().find(|(_, node)| node.leads_and_is_ready());
            leader.and_then(|(_, node)| node.look(&holds).then_some(()))
        })
        .await
    }

    async fn wait_for<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("waited {PATIENCE:?} in vain for: {what}"),
        }
    }

    /// Commits a command; goes on to the next leader when there is a change of leaders.
    async fn propose(&self, command: &Command) -> Result<Reply, Refusal> {
        loop {
            let leader = self.leader().await;
            match self.node(leader).propose(command).await {
                Err(Refusal::NotLeader { .. } | Refusal::Halted(_) | Refusal::Overload) => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                result => return result,
            }
        }
    }

    /// Ends every node in order.
    pub async fn shutdown(mut self) {
        for place in self.places.values_mut() {
            if let Some(node) = place.node.take() {
                node.shutdown().await;
            }
        }
    }
}

fn target(name: &str) -> TargetName {
    TargetName::new(name).expect("a target's name")
}
