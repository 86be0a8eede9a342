//! The software of one simulated machine: a replica, its gRPC server, clients that propose and
//! confirm there, and an operator who does what the world orders.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use leasehold_proto::TargetName;
use leasehold_proto::command::Command;
use leasehold_raft_store::{
    LogPosition, MemoryStore, ProposeError, RaftConfig, RaftNode, Role, Storage, serve_connections,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Clock;
use crate::event::{NodeId, Outcome, What};
use crate::lead;
use crate::machine::{self, Machine, Replica};
use crate::net::{self, SimDialer};
use crate::news::News;
use crate::observer::Observer;
use crate::post::Post;
use crate::random::Random;
use crate::workload;

/// A target's name.
pub(crate) fn target_name(text: &'static str) -> TargetName {
    // The names of this package are labels.
    TargetName::new(text).unwrap_or_else(|_| unreachable!("{text} is a label"))
}

/// Clients on each machine.
const CLIENTS: u64 = 3;
/// How long a client waits for the outcome of a proposal.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(2);

/// What an operator is ordered to do at a node.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Form a cluster.
    Bootstrap(BTreeMap<NodeId, String>),
    /// Let a node learn.
    AddLearner(NodeId),
    /// Let it vote.
    Promote(NodeId),
    /// Take it out.
    Remove(NodeId),
    /// Let it lead.
    Transfer(NodeId),
    /// Take a snapshot.
    Snapshot,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing yet.
    Forming = 0,
    /// Propose and confirm.
    Working = 1,
    /// Begin nothing more.
    Resting = 2,
}

/// One machine: what of it outlives a crash, and what the world may look at.
pub(crate) struct Place {
    pub(crate) id: NodeId,
    pub(crate) seed: u64,
    pub(crate) config: RaftConfig,
    pub(crate) store: MemoryStore,
    pub(crate) observer: Observer,
    pub(crate) replica: Replica,
    pub(crate) news: Arc<News>,
    /// By which leases are judged here.
    pub(crate) clock: Clock,
    pub(crate) post: Post,
    pub(crate) phase: Arc<AtomicU8>,
    /// The replica that runs now.
    pub(crate) running: Mutex<Option<RaftNode>>,
    /// Its disk was told to fail.
    pub(crate) disk_fails: AtomicBool,
    /// It has ended by itself.
    pub(crate) stopped: AtomicBool,
    orders: Mutex<VecDeque<Order>>,
    bell: Notify,
}

impl Place {
    pub(crate) fn new(
        id: NodeId,
        seed: u64,
        config: RaftConfig,
        store: MemoryStore,
        observer: Observer,
        phase: Arc<AtomicU8>,
        post: Post,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            seed,
            config: RaftConfig {
                dialer: Arc::new(SimDialer),
                ..config
            },
            store,
            observer,
            replica: Replica::default(),
            news: Arc::default(),
            clock: Clock::some(&mut Random::of(seed, 0x100 + id)),
            post,
            phase,
            running: Mutex::new(None),
            disk_fails: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            orders: Mutex::default(),
            bell: Notify::new(),
        })
    }

    /// Gives the operator there something to do.
    pub(crate) fn order(&self, order: Order) {
        self.orders.lock().push_back(order);
        self.bell.notify_one();
    }

    /// The replica that runs there now.
    pub(crate) fn node(&self) -> Option<RaftNode> {
        self.running.lock().clone()
    }

    /// The term that it says it leads.
    pub(crate) fn leads(&self) -> Option<u64> {
        self.node()?.leadership().borrow().leads()
    }

    /// What must be forgotten with the machine's memory.
    pub(crate) fn forget(&self) {
        *self.running.lock() = None;
        self.orders.lock().clear();
        self.stopped.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) == phase as u8
    }
}

/// Runs a machine until it is crashed.
pub(crate) async fn run(place: Arc<Place>) -> turmoil::Result {
    let observer = place.observer.clone();
    let life = observer.begins(place.id);
    let machine = Machine::new(
        place.id,
        Arc::clone(&place.replica),
        Arc::clone(&place.news),
        observer.clone(),
    );
    let storage = Storage::Memory(place.store.clone());
    let node = match RaftNode::start(place.config.clone(), storage, machine).await {
        Ok(node) => node,
        Err(error) => {
            // A disk that was told to fail may do so here already.
            if place.disk_fails.load(Ordering::SeqCst) {
                place.stopped.store(true, Ordering::SeqCst);
                observer.see(place.id, What::Stopped { disk_failed: true });
            } else {
                observer.see(place.id, What::NotStarted(error.to_string()));
            }
            return std::future::pending().await;
        }
    };
    let term = node.leadership().borrow().term;
    observer.see(place.id, What::Started { term });
    *place.running.lock() = Some(node.clone());
    for client in 0..CLIENTS {
        let random = Random::of(place.seed, (place.id << 40) | (life << 8) | client);
        tokio::spawn(work(Arc::clone(&place), node.clone(), random));
    }
    tokio::spawn(operate(Arc::clone(&place), node.clone()));
    tokio::spawn(watch(Arc::clone(&place), node.clone()));
    let mailbox = place.post.open(net::host(place.id)).await?;
    tokio::spawn(lead::supervise(Arc::clone(&place), node.clone(), mailbox));
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", net::PORT)).await?;
    let incoming = net::incoming(listener);
    let stop = std::future::pending();
    serve_connections(incoming, node.grpc_service(), stop).await?;
    Ok(())
}

/// Tells what the node says of its role.
async fn watch(place: Arc<Place>, node: RaftNode) {
    let mut leadership = node.leadership();
    let mut before = None;
    loop {
        let now = leadership.borrow_and_update().clone();
        if now.role == Role::Stopped {
            let disk_failed = place.disk_fails.load(Ordering::SeqCst);
            place.stopped.store(true, Ordering::SeqCst);
            place.observer.see(place.id, What::Stopped { disk_failed });
            return;
        }
        let shown = (now.term, now.leads().is_some());
        if before != Some(shown) {
            before = Some(shown);
            let (term, leads) = shown;
            place.observer.see(place.id, What::Role { term, leads });
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// One client: proposes and confirms at this node, mostly while it leads.
async fn work(place: Arc<Place>, node: RaftNode, mut random: Random) {
    let leadership = node.leadership();
    let mut terms: Vec<u64> = Vec::new();
    loop {
        tokio::time::sleep(random.millis(2, 50)).await;
        if !place.is(Phase::Working) {
            continue;
        }
        let leads = leadership.borrow().leads();
        if let Some(term) = leads
            && terms.last() != Some(&term)
        {
            terms.push(term);
        }
        if leads.is_none() && !random.chance(0.05) {
            continue;
        }
        if random.chance(0.3) {
            // What came of it is judged by the rules.
            let _ = confirm(&place, &node).await;
            continue;
        }
        // A decision may be older than the term in which it is proposed.
        let decided = if random.chance(0.1) {
            random.pick(&terms).copied()
        } else {
            leads
        };
        if leads.is_some() && random.chance(0.1) {
            tokio::time::sleep(random.millis(0, 1500)).await;
        }
        let in_term = decided.filter(|_| random.chance(0.6));
        let term = in_term.unwrap_or_else(|| leadership.borrow().term);
        let command = workload::next(&place.replica.lock().table, term, &mut random);
        if let Some(command) = command {
            propose(&place, &node, in_term, &command).await;
        }
    }
}

/// A question that may be given up by dropping the future that waits for the answer.
struct Asked<'a>(&'a Place, u64);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.observer.given_up(self.0.id, self.1);
    }
}

/// Asks for a confirmation, under the eyes of the rules.
pub(crate) async fn confirm(place: &Place, node: &RaftNode) -> Result<LogPosition, ProposeError> {
    let call = place.observer.number(place.id);
    let _asked = Asked(place, call);
    place.observer.see(place.id, What::ConfirmBegan { call });
    let confirmed = node.confirm().await;
    let what = match &confirmed {
        Ok(at) => What::Confirmed {
            call,
            at: *at,
            applied: place.replica.lock().applied.map_or(0, |at| at.index),
        },
        Err(_) => What::NotConfirmed { call },
    };
    place.observer.see(place.id, what);
    confirmed
}

/// Proposes a command, under the eyes of the rules. Gives the reply, if there is one.
pub(crate) async fn propose(
    place: &Place,
    node: &RaftNode,
    in_term: Option<u64>,
    command: &Command,
) -> Option<Bytes> {
    let serial = place.observer.number(place.id);
    let _asked = Asked(place, serial);
    place
        .observer
        .see(place.id, What::Proposed { serial, in_term });
    let bytes = machine::encode(serial, in_term, command);
    let mut answer = None;
    let outcome = match node.propose(bytes, in_term, PROPOSAL_PATIENCE).await {
        Ok((at, reply)) => {
            let hash = xxh3_64(&reply);
            answer = Some(reply);
            Outcome::Ok { at, reply: hash }
        }
        Err(ProposeError::TermChanged { .. }) => Outcome::Failed("term changed"),
        Err(ProposeError::NotLeader { .. }) => Outcome::Failed("not leader"),
        Err(error) if error.is_definite() => Outcome::Failed("refused"),
        Err(_) => Outcome::Indeterminate,
    };
    place
        .observer
        .see(place.id, What::Answered { serial, outcome });
    answer
}

/// Does what the world orders, one thing after the other.
async fn operate(place: Arc<Place>, node: RaftNode) {
    loop {
        let next = place.orders.lock().pop_front();
        let Some(order) = next else {
            place.bell.notified().await;
            continue;
        };
        let (done, counted) = match &order {
            Order::Bootstrap(members) => (node.bootstrap(members.clone()).await, "formed"),
            Order::AddLearner(id) => (
                node.add_learner(*id, &net::address(*id)).await,
                "learner added",
            ),
            Order::Promote(id) => (node.promote(*id).await, "learner promoted"),
            Order::Remove(id) => (node.remove(*id).await, "member removed"),
            Order::Transfer(to) => (node.transfer_leader(*to).await, "leadership asked to move"),
            Order::Snapshot => (node.snapshot_now().await, "snapshot ordered"),
        };
        let result = match &done {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        if done.is_ok() {
            place.observer.count(counted);
        }
        place
            .observer
            .see(place.id, What::Fault(format!("{order:?}: {result}")));
    }
}
