//! The world: abstract Raft, three Assigner nodes, a few Slicelet processes with clocks of their
//! own, applications in them, Routers, stores outside, and messages that are lost, delayed, doubled
//! and reordered. One thread; everything follows from one seed.

mod adversity;
mod application;
mod clock;
mod heal;
mod host;
mod memory;
mod message;
mod network;
mod node;
mod notice;
mod planner;
mod raft;
mod rng;
mod store;
mod transfer;

use leasehold_proto::limits::TTL_MIN;
use leasehold_proto::router::Router;
use leasehold_proto::target::Consistency;
use leasehold_proto::{PodAddress, SessionId, SliceKey, TargetName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::check::{Broken, Checker};
use crate::coverage::{Coverage, Seen};
use crate::options::{Fault, Options};
use adversity::Adversity;
use clock::{Clock, ticks};
pub use host::Host;
pub use memory::Value;
use message::Message;
use node::Node;
use raft::Raft;
use rng::Rng;
use store::Store;

/// The ttl of sessions, unless an operator doubles it.
pub const TTL: Duration = TTL_MIN;
/// Every key that is looked at; slices are cut only there, so that these stand for all.
pub const KEYS: usize = 8;
/// Assigner nodes.
const NODES: usize = 3;
/// Clerks' maps.
const ROUTERS: usize = 2;

/// The `i`-th key.
pub fn key(i: usize) -> SliceKey {
    SliceKey::from_u64((i as u64) << 61)
}

/// The one target of the world.
pub fn target() -> &'static TargetName {
    static NAME: std::sync::OnceLock<TargetName> = std::sync::OnceLock::new();
    NAME.get_or_init(|| TargetName::new("cart").expect("a label"))
}

fn addresses() -> &'static [PodAddress] {
    static ADDRESSES: std::sync::OnceLock<Vec<PodAddress>> = std::sync::OnceLock::new();
    ADDRESSES.get_or_init(|| {
        let address = |i| PodAddress::new(&format!("10.0.0.{i}:9000")).expect("an address");
        (1..=3).map(address).collect()
    })
}

pub struct World {
    rng: Rng,
    adversity: Adversity,
    raft: Raft,
    nodes: Vec<Node>,
    hosts: Vec<Host>,
    routers: Vec<Router>,
    messages: Vec<Message>,
    /// Frames of state that were sent lately, which the network may bring again.
    echoes: Vec<Message>,
    /// Which host a session was registered for.
    home: BTreeMap<SessionId, usize>,
    /// Keys that sessions have surrendered.
    surrendered: BTreeSet<(SessionId, usize)>,
    store: Store,
    next_operation: u64,
    /// Additions in memory, by key and number, that their clients do not know to have been made.
    unacknowledged: Vec<(usize, u64)>,
    /// Operations that were acknowledged.
    served: u64,
    check: Checker,
    coverage: Coverage,
    trace: Option<Vec<String>>,
    benign: bool,
    clocks_lie: bool,
    /// True time since nothing goes wrong, in ticks, and messages delivered since.
    healing: u64,
    delivered: u64,
    /// Whether a session whose process lives may expire now.
    expiry_allowed: bool,
}

/// What became of one schedule.
pub struct Played {
    pub coverage: Coverage,
    /// What was broken, and after which event.
    pub broken: Option<(Broken, u64)>,
    pub trace: Vec<String>,
}

/// Plays one schedule.
pub fn play(seed: u64, options: &Options, traced: bool) -> Played {
    let mut world = World::new(seed, options, traced);
    let mut last = 0;
    for number in options.numbers() {
        last = number;
        world.rng = Rng::of_event(seed, number);
        world.event();
        world.inspect();
        world.coverage.events += 1;
        if world.check.broken.is_some() {
            break;
        }
    }
    if world.check.broken.is_none() {
        world.rng = Rng::of_event(seed, u64::MAX - 1);
        world.heal();
    }
    world.coverage.schedules = 1;
    world.coverage.checks_passed = world.check.passed;
    Played {
        coverage: world.coverage,
        broken: world.check.broken.map(|broken| (broken, last)),
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    fn new(seed: u64, options: &Options, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let adversity = Adversity::draw(&mut rng, options);
        let flips = adversity.chance(Fault::Flips) > 0;
        let consistency = if rng.chance(50) && flips {
            Consistency::Eventual
        } else {
            Consistency::Strong
        };
        let nodes = (0..NODES)
            .map(|_| Node::new(&mut rng, options.clocks_lie))
            .collect();
        let hosts = addresses()
            .iter()
            .take(adversity.hosts)
            .map(|address| Host::new(address.clone(), &mut rng, options.clocks_lie))
            .collect();
        let mut world = Self {
            rng,
            raft: Raft::new(),
            nodes,
            hosts,
            routers: (0..ROUTERS).map(|_| Router::new()).collect(),
            messages: Vec::new(),
            echoes: Vec::new(),
            home: BTreeMap::new(),
            surrendered: BTreeSet::new(),
            store: Store::default(),
            next_operation: 0,
            unacknowledged: Vec::new(),
            served: 0,
            check: Checker::new(options.clocks_lie),
            coverage: Coverage::default(),
            trace: traced.then(Vec::new),
            benign: false,
            clocks_lie: options.clocks_lie,
            healing: 0,
            delivered: 0,
            expiry_allowed: true,
            adversity,
        };
        world.note(|| format!("schedule {seed}"));
        world.win(0);
        let create = world.create(consistency);
        world.propose(create);
        world.pump();
        world
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }

    fn advance(&mut self, ticks: u64) {
        self.coverage.simulated_us += ticks * clock::TICK_NS / 1_000;
        let wander = self.adversity.chance(Fault::Wander);
        for node in &mut self.nodes {
            node.clock.advance(ticks);
        }
        for host in &mut self.hosts {
            if !(host.asleep && crate::planted("clock_stops_in_suspend")) {
                host.clock.advance(ticks);
            }
        }
        if wander > 0 && ticks > 0 && self.rng.chance(wander) {
            let clocks = self.nodes.iter_mut().map(|node| &mut node.clock);
            for clock in clocks.chain(self.hosts.iter_mut().map(|host| &mut host.clock)) {
                clock.change_rate(&mut self.rng);
            }
        }
    }

    /// One event, chosen at random.
    fn event(&mut self) {
        if self.adversity.stateful && self.rng.chance(self.adversity.chance(Fault::Plans)) {
            self.reshape_what_has_come();
        }
        match self.rng.below(100) {
            0..32 => self.deliver_any(),
            32..46 => self.pump_some(),
            46..57 if !self.rng.chance(self.adversity.haste) => self.deliver_any(),
            46..54 => self.wake_next(),
            54..57 => {
                let most = if self.rng.chance(10) {
                    ticks(TTL) * 2
                } else {
                    ticks(TTL) / 20
                };
                let passes = self.rng.below(most);
                self.advance(passes);
            }
            57..68 => self.work_any(),
            68..78 => self.application_step(),
            78..82 => self.push_any(),
            _ if self.rng.chance(self.adversity.unrest) => self.adverse_event(),
            _ => self.deliver_any(),
        }
    }

    fn adverse_event(&mut self) {
        const KINDS: &[Fault] = &[
            Fault::Plans,
            Fault::Loss,
            Fault::Duplication,
            Fault::Cuts,
            Fault::Pauses,
            Fault::Elections,
            Fault::HostCrashes,
            Fault::NodeCrashes,
            Fault::Flips,
            Fault::Deletes,
            Fault::Restores,
            Fault::Operator,
            Fault::WallJumps,
        ];
        let weight = |fault: &Fault| self.adversity.weight(*fault);
        let total: u64 = KINDS.iter().map(weight).sum();
        let mut at = self.rng.below(total);
        let chosen = KINDS.iter().find(|fault| {
            let here = at < weight(fault);
            at = at.wrapping_sub(weight(fault));
            here
        });
        // One that is left out leaves everything else as it would have been drawn.
        let Some(fault) = chosen.filter(|fault| !self.adversity.left_out(**fault)) else {
            return;
        };
        match fault {
            Fault::Plans => self.plan_any(),
            Fault::Loss => self.lose_any(),
            Fault::Duplication => self.double_any(),
            Fault::Cuts => self.cut_any(),
            Fault::Pauses if self.rng.chance(60) => self.doze_any(),
            Fault::Pauses => self.doze_node(),
            Fault::Elections => self.elect_any(),
            Fault::HostCrashes => self.crash_any(),
            Fault::NodeCrashes => self.crash_node(),
            Fault::Flips => self.flip(),
            Fault::Deletes if self.rng.chance(20) => self.delete(),
            Fault::Restores if self.rng.chance(20) => self.back_up_or_restore(),
            Fault::Operator => self.operate(),
            Fault::WallJumps => {
                let at = self.rng.index(self.hosts.len());
                let by = TTL * (1 + self.rng.below(10) as u32);
                self.hosts[at].clock.set_wall_back(by);
                self.hosts[at].touched = true;
                self.note(|| format!("the wall clock of host {at} is set back by {by:?}"));
            }
            _ => {}
        }
    }

    /// Advances time to the next instant at which some machine wants to be woken, and wakes it; or
    /// lets one sleep through.
    fn wake_next(&mut self) {
        let hosts = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| host.runs());
        let hosts = hosts.filter_map(|(i, host)| Some((host.clock.until(host.wake_at?), i)));
        let nodes = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| !node.asleep);
        let nodes = nodes.filter_map(|(i, node)| {
            Some((node.clock.until(node.wake_at()?), i + self.hosts.len()))
        });
        let mut due: Vec<(u64, usize)> = hosts.chain(nodes).collect();
        due.sort_unstable();
        if due.is_empty() {
            return;
        }
        let at = if self.rng.chance(70) {
            0
        } else {
            self.rng.index(due.len())
        };
        let (wait, who) = due[at];
        self.advance(wait);
        match who.checked_sub(self.hosts.len()) {
            Some(node) => self.wake_node(node),
            None => self.wake_host(who),
        }
    }

    fn work_any(&mut self) {
        let busy =
            |host: &Host| host.runs() && !(host.preparing.is_empty() && host.draining.is_empty());
        let some = self.rng.index(self.hosts.len());
        let host = self.hosts.iter().position(busy).unwrap_or(some);
        if self.rng.chance(15) {
            self.wake_host(host);
        } else {
            self.work(host);
        }
    }

    /// Looks at every host that something happened to, or whose lease has run out since; at all of
    /// them when the truth has changed.
    fn inspect(&mut self) {
        let all = std::mem::take(&mut self.check.changed);
        for host in &mut self.hosts {
            let lapsed = host.holding.passes != 0
                && host
                    .holder
                    .deadline()
                    .is_none_or(|deadline| deadline <= host.clock.now());
            if all || host.touched || lapsed {
                host.touched = false;
                host.holding = if host.alive {
                    self.check.look_at(host)
                } else {
                    Default::default()
                };
            }
        }
        let holdings = self.hosts.iter().map(|host| host.holding);
        self.check.together(holdings, &mut self.coverage);
    }

    fn see(&mut self, what: Seen) {
        self.coverage.see(what);
    }
}
