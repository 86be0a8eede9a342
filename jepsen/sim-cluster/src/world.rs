//! One world: machines, their network, their faults, from one seed; first a safety phase, then a
//! liveness phase.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use leasehold_proto::Slice;
use leasehold_raft_store::{MemoryStore, RaftConfig, seed_timers};
use turmoil::Sim;

use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::event::{NodeId, What};
use crate::faults::{Faults, LATENCY_MS};
use crate::lead;
use crate::net;
use crate::node::{self, Order, Phase, Place};
use crate::observer::Observer;
pub use crate::observer::Violation;
use crate::pod::{self, Pod};
use crate::post::Post;
use crate::random::Random;

/// Pods.
const PODS: u64 = 3;
/// Machines that are no members at first.
const SPARES: u64 = 2;
/// How long a cluster may take to form, and to agree after all faults are gone.
const PATIENCE_MS: u64 = 60_000;
/// Proposals that must be acknowledged after all faults are gone.
const FRESH: usize = 5;
/// How often an operator asks again for what is not done.
const ASK_EVERY_MS: u64 = 1000;
/// Looks at the disks: every so many milliseconds.
const LOOK_EVERY_MS: u64 = 50;

/// What kind of run it is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of the safety phase in simulated milliseconds.
    pub faults_for_ms: u64,
    /// Simulated milliseconds per step. Network and disks act between steps.
    pub step_ms: u64,
    /// Print every event.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faults_for_ms: 30_000,
            step_ms: 2,
            trace: false,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Of which world.
    pub seed: u64,
    /// The broken rule, why, and when in simulated milliseconds.
    pub violation: Option<(String, String, u64)>,
    /// Simulated time in milliseconds.
    pub simulated_ms: u64,
    /// Events seen.
    pub events: u64,
    /// Hash over all of them: equal for equal runs.
    pub hash: u64,
    /// Rare states.
    pub coverage: Coverage,
    /// The last events, if a rule was broken.
    pub tail: Vec<String>,
}

/// What the faults act upon.
pub(crate) struct World {
    pub(crate) observer: Observer,
    pub(crate) voters: usize,
    places: BTreeMap<NodeId, Arc<Place>>,
    pods: BTreeMap<u64, Arc<Pod>>,
    owners: Vec<Vec<(String, u64)>>,
    spares: BTreeSet<NodeId>,
    retired: BTreeSet<NodeId>,
}

impl World {
    pub(crate) fn place(&self, node: NodeId) -> &Place {
        &self.places[&node]
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.places.values()
    }

    pub(crate) fn pods(&self) -> &BTreeMap<u64, Arc<Pod>> {
        &self.pods
    }

    /// Nodes and pods.
    pub(crate) fn machines(&self) -> Vec<u64> {
        self.places
            .keys()
            .chain(self.pods.keys())
            .copied()
            .collect()
    }

    /// Looks who serves which key, and tells what has changed.
    fn look_at_owners(&mut self, now_ms: u64) {
        let slices = Slice::even(lead::SLICES as usize);
        for (key, slice) in slices.into_iter().enumerate() {
            let serving = |pod: &Arc<Pod>| {
                let token = pod.serves(slice.first(), now_ms * 1_000_000)?;
                Some((pod.name.clone(), token))
            };
            let owners: Vec<_> = self.pods.values().filter_map(serving).collect();
            let before = std::mem::replace(&mut self.owners[key], owners.clone());
            if before != owners {
                self.observer.see(0, What::Owners { key, owners });
            }
        }
    }

    fn every_key_is_served(&self) -> bool {
        self.owners.iter().all(|owners| owners.len() == 1)
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.places.keys().copied().collect()
    }

    /// Machines that run.
    pub(crate) fn running(&self, down: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let runs = |id: &NodeId| !down.contains(id) && self.places[id].running.lock().is_some();
        self.ids().into_iter().filter(runs).collect()
    }

    /// Who leads the newest term of those that say they lead.
    pub(crate) fn leader(&self) -> Option<(NodeId, u64)> {
        self.places()
            .filter_map(|place| Some((place.id, place.leads()?)))
            .max_by_key(|(_, term)| *term)
    }

    pub(crate) fn is_spare(&self, node: NodeId) -> bool {
        self.spares.contains(&node)
    }

    /// A number is used once in the life of a cluster.
    pub(crate) fn use_spare(&mut self, node: NodeId) {
        self.spares.remove(&node);
    }

    pub(crate) fn is_retired(&self, node: NodeId) -> bool {
        self.retired.contains(&node)
    }

    pub(crate) fn fault(&self, node: NodeId, what: String) {
        self.observer.see(node, What::Fault(what));
    }

    pub(crate) fn set_sync_ms(&self, node: NodeId, most_ms: u64, random: &mut Random) {
        let takes = random.millis(most_ms / 2, most_ms);
        self.places[&node].store.sync_takes(takes);
    }
}

/// A world that runs.
struct Run<'a> {
    sim: Sim<'a>,
    world: World,
    faults: Faults,
    phase: Arc<AtomicU8>,
    options: Options,
    now_ms: u64,
    looked_ms: u64,
}

/// Runs the world of `seed` to its end or to the first broken rule.
pub fn run(seed: u64, options: Options) -> Report {
    seed_timers(seed);
    let mut run = Run::new(seed, options);
    if let Err(why) = run.whole() {
        run.world.observer.fail("liveness", why);
    }
    let observer = &run.world.observer;
    let violation = observer.violation();
    let (events, hash) = observer.fingerprint();
    Report {
        seed,
        tail: match violation {
            Some(_) => observer.tail(),
            None => Vec::new(),
        },
        violation: violation.map(|v| (v.invariant.to_owned(), v.why, v.at_ms)),
        simulated_ms: run.now_ms,
        events,
        hash,
        coverage: observer.coverage(),
    }
}

fn config(seed: u64, node: NodeId, random: &mut Random) -> RaftConfig {
    let mut config = RaftConfig::new("sim", node, net::address(node));
    if seed.is_multiple_of(2) {
        (config.heartbeat_ms, config.election_ms) = (50, (150, 300));
    }
    config.snapshot_every_entries = random.between(15, 80);
    config.keep_entries = random.between(0, 20);
    config
}

fn start_pods(sim: &mut Sim<'_>, seed: u64, nodes: u64, post: &Post) -> BTreeMap<u64, Arc<Pod>> {
    let mut pods = BTreeMap::new();
    for id in net::FIRST_POD..net::FIRST_POD + PODS {
        let pod = Arc::new(Pod {
            name: net::host(id),
            seed: seed ^ (id << 32),
            clock: Clock::some(&mut Random::of(seed, id)),
            post: post.clone(),
            nodes: (1..=nodes).map(net::host).collect(),
            holder: parking_lot::Mutex::new(None),
            lives: std::sync::atomic::AtomicU64::new(0),
        });
        let software = Arc::clone(&pod);
        sim.host(net::host(id), move || pod::run(Arc::clone(&software)));
        pods.insert(id, pod);
    }
    pods
}

impl<'a> Run<'a> {
    fn new(seed: u64, options: Options) -> Self {
        let mut random = Random::of(seed, 0);
        let voters = if random.chance(0.6) { 3 } else { 5 };
        let mut sim = turmoil::Builder::new()
            .epoch(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
            .simulation_duration(Duration::from_secs(24 * 3600))
            .tick_duration(Duration::from_millis(options.step_ms))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(LATENCY_MS))
            .tcp_capacity(65_536)
            .enable_random_order()
            .rng_seed(random.between(0, u64::MAX))
            .build();
        let observer = Observer::new(options.trace);
        let phase = Arc::new(AtomicU8::new(Phase::Forming as u8));
        let post = Post::default();
        let pods = start_pods(&mut sim, seed, voters + SPARES, &post);
        let mut places = BTreeMap::new();
        for id in 1..=voters + SPARES {
            let store = MemoryStore::with_identity(random.bytes());
            store.sync_takes(random.millis(1, 6));
            let config = config(seed, id, &mut random);
            let (observer, phase) = (observer.clone(), Arc::clone(&phase));
            let post = post.clone();
            let place = Place::new(id, seed, config, store, observer, phase, post);
            let software = Arc::clone(&place);
            sim.host(net::host(id), move || node::run(Arc::clone(&software)));
            places.insert(id, place);
        }
        let world = World {
            observer,
            voters: voters as usize,
            places,
            pods,
            owners: vec![Vec::new(); lead::SLICES as usize],
            spares: (voters + 1..=voters + SPARES).collect(),
            retired: BTreeSet::new(),
        };
        Self {
            sim,
            world,
            faults: Faults::new(seed),
            phase,
            options,
            now_ms: 0,
            looked_ms: 0,
        }
    }

    /// The whole life of a world. The error says what never came about.
    fn whole(&mut self) -> Result<(), String> {
        self.until("every machine runs", |run| {
            run.world.places().all(|place| place.node().is_some())
        })?;
        let members = (1..=self.world.voters as u64)
            .map(|id| (id, net::address(id)))
            .collect();
        self.world.place(1).order(Order::Bootstrap(members));
        self.until("the cluster is formed", |run| run.world.leader().is_some())?;
        self.phase.store(Phase::Working as u8, Ordering::SeqCst);
        let until = self.now_ms + self.options.faults_for_ms;
        while self.now_ms < until && self.goes_on() {
            self.faults
                .step(&mut self.sim, &mut self.world, self.now_ms);
            self.retire_removed();
            self.step()?;
        }
        self.heal()
    }

    fn goes_on(&self) -> bool {
        self.world.observer.violation().is_none()
    }

    fn step(&mut self) -> Result<(), String> {
        self.world.observer.set_now(self.now_ms);
        let stepped = self.sim.step();
        stepped.map_err(|error| format!("a machine ended: {error}"))?;
        self.now_ms += self.options.step_ms;
        self.world.look_at_owners(self.now_ms);
        if self.now_ms >= self.looked_ms + LOOK_EVERY_MS {
            self.looked_ms = self.now_ms;
            self.look_at_disks();
        }
        Ok(())
    }

    fn look_at_disks(&self) {
        for place in self.world.places() {
            match place.store.contents() {
                Ok(contents) => self.world.observer.see(place.id, What::Disk(contents)),
                Err(error) => {
                    let why = format!("the disk of node {} cannot be read: {error}", place.id);
                    self.world.observer.fail("log matching", why);
                }
            }
        }
    }

    /// Steps until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        let patience = self.now_ms + PATIENCE_MS;
        while !holds(self) {
            if !self.goes_on() {
                return Ok(());
            }
            if self.now_ms > patience {
                return Err(format!("{PATIENCE_MS} ms were not enough until {what}"));
            }
            self.faults
                .tend(&mut self.sim, &mut self.world, self.now_ms);
            self.step()?;
        }
        Ok(())
    }

    /// A machine whose number was taken out is switched off for good, once the leader has said so.
    fn retire_removed(&mut self) {
        let Some(members) = self.members() else {
            return;
        };
        let gone: Vec<NodeId> = self
            .world
            .ids()
            .into_iter()
            .filter(|id| !members.contains(id) && !self.world.is_spare(*id))
            .filter(|id| self.was_member(*id))
            .collect();
        self.world.retired.extend(gone);
    }

    /// Has the machine ever belonged to the cluster, by its own disk?
    fn was_member(&self, node: NodeId) -> bool {
        let contents = self.world.place(node).store.contents();
        contents.is_ok_and(|contents| contents.applied.is_some())
    }

    /// Members as the leader of the newest term knows them, when it has heard a quorum lately.
    fn members(&self) -> Option<BTreeSet<NodeId>> {
        let (leader, _) = self.world.leader()?;
        let status = self.world.place(leader).node()?.status();
        if status.changing {
            return None;
        }
        Some(status.members.iter().map(|member| member.id).collect())
    }

    /// The liveness phase: without faults, all must come to agree.
    fn heal(&mut self) -> Result<(), String> {
        self.faults.heal(&mut self.sim, &mut self.world);
        self.world.fault(0, "all faults end".into());
        self.world.observer.see(0, What::Healed);
        let acknowledged = self.acknowledged() + FRESH as u64;
        self.until("proposals are acknowledged again", |run| {
            run.acknowledged() >= acknowledged
        })?;
        self.phase.store(Phase::Resting as u8, Ordering::SeqCst);
        self.until("every key is served by one pod", |run| {
            run.world.every_key_is_served()
        })?;
        self.until("every proposal has an outcome", |run| {
            run.world.observer.open() == 0
        })?;
        self.complete_change()?;
        self.until("there is one leader", |run| run.one_leader())?;
        self.until("every member has applied everything", |run| run.level())?;
        if self.goes_on() {
            self.settle();
        }
        if self.goes_on() {
            self.world.observer.count("healed and converged");
        }
        Ok(())
    }

    /// A leader that fell half-way through a change of members leaves two sets of voters; nobody
    /// goes on by itself. An operator asks again for something that is true already.
    fn complete_change(&mut self) -> Result<(), String> {
        let patience = self.now_ms + PATIENCE_MS;
        while self.goes_on() && self.members().is_none() {
            if self.now_ms > patience {
                return Err(format!(
                    "{PATIENCE_MS} ms were not enough until a change of members was completed"
                ));
            }
            if self.now_ms % ASK_EVERY_MS < self.options.step_ms
                && let Some((leader, _)) = self.world.leader()
                && let Some(node) = self.world.place(leader).node()
                && let Some(member) = node.status().members.iter().find(|member| member.voter)
            {
                self.world.observer.count("half-way change completed");
                self.world.place(leader).order(Order::Promote(member.id));
            }
            self.faults
                .tend(&mut self.sim, &mut self.world, self.now_ms);
            self.step()?;
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        let coverage = self.world.observer.coverage();
        let count = coverage.counts().get("proposal acknowledged");
        count.copied().unwrap_or_default()
    }

    fn one_leader(&self) -> bool {
        let Some(members) = self.members() else {
            return false;
        };
        let leading = members
            .iter()
            .filter(|id| self.world.place(**id).leads().is_some())
            .count();
        leading == 1
    }

    fn level(&self) -> bool {
        let Some(members) = self.members() else {
            return false;
        };
        let Some((leader, _)) = self.world.leader() else {
            return false;
        };
        let applied = |id: NodeId| self.world.place(id).replica.lock().applied;
        let last = self.world.place(leader).node().map(|n| n.status().last_log);
        let goal = applied(leader);
        goal.map(|at| at.index) == last.flatten() && members.iter().all(|id| applied(*id) == goal)
    }

    fn settle(&mut self) {
        let Some(members) = self.members() else {
            return;
        };
        for place in self.world.places() {
            let Some(node) = place.node() else { continue };
            let known = node.status().members.iter().map(|m| m.id).collect();
            if !members.contains(&place.id) {
                continue;
            }
            let (applied, state) = {
                let shown = place.replica.lock();
                (shown.applied.map_or(0, |at| at.index), shown.state)
            };
            let what = What::Settled {
                members: known,
                applied,
                state,
                is_member: true,
            };
            self.world.observer.see(place.id, what);
        }
        self.look_at_disks();
    }
}
