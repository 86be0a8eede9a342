//! A small deterministic world around the machines: abstract Raft, three Assigner nodes, a few
//! Slicelet processes with clocks of their own, Routers, and messages that are lost, delayed,
//! doubled and reordered. Everything follows from one seed.
//!
//! Raft is a committed log with leaders by term. A deposed leader does not know it: it goes on
//! collecting renewals, but its quorum rounds fail and its proposals are refused. A new leader may
//! inherit any prefix of the old one's uncommitted tail, and applies the log with delay.

mod adversity;
mod check;
mod heal;
mod host;
mod raft;
mod rng;

use leasehold_proto::command::{Command, PlanStep, Registered};
use leasehold_proto::limits::TTL_MIN;
use leasehold_proto::message::{Moved, Ready, ReadyAnswer, Renew, Renewed};
use leasehold_proto::router::Router;
use leasehold_proto::table::TargetState;
use leasehold_proto::target::{Consistency, TargetChange, TargetConfig};
use leasehold_proto::{ClockTime, Mode, SessionId, Slice, SliceKey, Squid, TargetName, ViewUpdate};
use std::collections::BTreeMap;
use std::time::Duration;

use adversity::Adversity;
pub use adversity::Stats;
use check::Checker;
use host::Host;
use raft::{Node, Raft};
use rng::Rng;

/// Events of one schedule before it is healed.
pub const STEPS: u64 = 300;
pub const TTL: Duration = TTL_MIN;
/// Every key that is looked at; slices are cut only there, so that these stand for all.
pub const KEYS: usize = 8;

pub fn key(i: usize) -> SliceKey {
    SliceKey::from_u64((i as u64) << 61)
}

/// The one target of a world.
pub fn target() -> TargetName {
    static NAME: std::sync::OnceLock<TargetName> = std::sync::OnceLock::new();
    NAME.get_or_init(|| TargetName::new("cart").expect("a label"))
        .clone()
}

/// A process's clock: runs at 7, 8 or 9 eighths of true time, the bounds of its class.
pub struct Clock {
    local: u64,
    rate: u64,
}

impl Clock {
    fn new(rng: &mut Rng) -> Self {
        Self {
            local: 1_000_000_000 + rng.below(1_000_000_000),
            rate: *rng.pick(&[7, 8, 9]),
        }
    }

    pub fn now(&self) -> ClockTime {
        ClockTime::from_nanos(self.local)
    }

    /// Eighths of nanoseconds of true time until this clock shows `at`.
    fn until(&self, at: ClockTime) -> u64 {
        at.as_nanos().saturating_sub(self.local).div_ceil(self.rate)
    }
}

/// A message under way. Whoever is named by an index is reached at that address, whatever
/// process lives there by then.
#[derive(Clone, Debug)]
pub enum Message {
    Register {
        host: usize,
        squid: Squid,
        node: usize,
    },
    Registered {
        host: usize,
        squid: Squid,
        reply: Registered,
    },
    Renew {
        host: usize,
        node: usize,
        renew: Renew,
        t0: ClockTime,
    },
    Renewed {
        host: usize,
        renewed: Renewed,
        t0: ClockTime,
    },
    Closed {
        host: usize,
        session: SessionId,
    },
    Pushed {
        host: usize,
        session: SessionId,
        update: ViewUpdate,
    },
    Close {
        session: SessionId,
    },
    Ready {
        host: usize,
        ready: Ready,
    },
    Answer {
        host: usize,
        answer: ReadyAnswer,
    },
    Route {
        router: usize,
        update: ViewUpdate,
    },
    Hint {
        router: usize,
        moved: Moved,
    },
}

impl Message {
    fn touches(&self, cut: impl Fn(usize) -> bool) -> bool {
        match self {
            Message::Register { host, .. }
            | Message::Registered { host, .. }
            | Message::Renew { host, .. }
            | Message::Renewed { host, .. }
            | Message::Closed { host, .. }
            | Message::Pushed { host, .. } => cut(*host),
            _ => false,
        }
    }
}

pub struct World {
    rng: Rng,
    pub adversity: Adversity,
    raft: Raft,
    nodes: Vec<Node>,
    hosts: Vec<Host>,
    routers: Vec<Router>,
    messages: Vec<Message>,
    home: BTreeMap<SessionId, usize>,
    check: Checker,
    stats: Stats,
    trace: Option<Vec<String>>,
    benign: bool,
    /// True time since nothing goes wrong, in eighths of nanoseconds.
    healing: u64,
    /// Whether a session whose process lives may expire now.
    expiry_allowed: bool,
}

/// Runs one schedule; the error tells what was broken.
pub fn run(seed: u64, steps: u64) -> Result<Stats, String> {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
        world.inspect();
        if world.check.failure.is_some() {
            break;
        }
    }
    if world.check.failure.is_none() {
        world.heal();
    }
    match world.check.failure.take() {
        None => Ok(Stats {
            steps,
            ..world.stats
        }),
        Some(failure) => {
            let trace = world.trace.take().unwrap_or_default().join("\n");
            Err(format!(
                "{trace}\nseed {seed}, {steps} steps, {:?}: {failure}",
                world.adversity
            ))
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let adversity = Adversity::draw(&mut rng);
        let consistency = if adversity.flips > 0 && rng.chance(50) {
            Consistency::Eventual
        } else {
            Consistency::Strong
        };
        let nodes = (0..3).map(|_| Node::new(&mut rng)).collect();
        let hosts = (0..adversity.hosts)
            .map(|index| Host::new(index, &mut rng))
            .collect();
        let mut world = Self {
            rng,
            raft: Raft::new(),
            nodes,
            hosts,
            routers: vec![Router::new(), Router::new()],
            messages: Vec::new(),
            home: BTreeMap::new(),
            check: Checker::new(),
            stats: Stats::default(),
            trace: std::env::var_os("LEASEHOLD_TRACE").map(|_| Vec::new()),
            benign: false,
            healing: 0,
            expiry_allowed: true,
            adversity,
        };
        world.win(0);
        let create = world.create(consistency);
        world.propose(create);
        world.pump();
        world
    }

    fn create(&self, consistency: Consistency) -> Command {
        let config = TargetConfig {
            consistency,
            ttl: TTL,
            ..TargetConfig::default()
        };
        Command::CreateTarget {
            target: target(),
            config,
            initial_slices: self.adversity.slices,
        }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }

    fn send(&mut self, message: Message) {
        if self.messages.len() >= 48 && !self.benign {
            let lost = self.rng.index(self.messages.len());
            self.messages.remove(lost);
        }
        self.messages.push(message);
    }

    fn advance(&mut self, eighths: u64) {
        let clocks = self.nodes.iter_mut().map(|node| &mut node.clock);
        for clock in clocks.chain(self.hosts.iter_mut().map(|host| &mut host.clock)) {
            clock.local += eighths * clock.rate;
            if self.adversity.wander && eighths > 0 {
                clock.rate = *self.rng.pick(&[7, 8, 9]);
            }
        }
    }

    /// One event, chosen at random.
    fn step(&mut self) {
        match self.rng.below(100) {
            0..30 => self.deliver_any(),
            30..42 => {
                self.pump_some();
            }
            42..54 => self.wake_next(),
            54..59 => {
                let most = if self.rng.chance(10) {
                    TTL.as_nanos() as u64 / 4
                } else {
                    TTL.as_nanos() as u64 / 80
                };
                let eighths = self.rng.below(most);
                self.advance(eighths);
            }
            59..72 => self.work_any(),
            72..76 => self.push_any(),
            _ => self.adverse_step(),
        }
    }

    fn adverse_step(&mut self) {
        let a = &self.adversity;
        let weights = [
            a.plans,
            a.loss / 2,
            a.loss / 2,
            a.cuts,
            a.elections,
            a.crashes,
            a.flips,
            a.deletes,
            a.restores,
            2,
            1,
        ];
        let total: u64 = weights.iter().sum();
        let mut at = self.rng.below(total);
        let chosen = weights.iter().position(|weight| {
            let here = at < *weight;
            at = at.wrapping_sub(*weight);
            here
        });
        match chosen {
            Some(0) => self.plan_any(),
            Some(1) => self.lose_any(),
            Some(2) => self.double_any(),
            Some(3) => self.cut_any(),
            Some(4) => self.elect_any(),
            Some(5) => self.crash_any(),
            Some(6) => self.flip(),
            Some(7) if self.rng.chance(20) => self.propose(Command::DeleteTarget {
                target: target(),
                expected_version: None,
            }),
            Some(8) if self.rng.chance(20) => self.back_up_or_restore(),
            Some(9) => self.operate(),
            _ => {}
        }
    }

    fn lose_any(&mut self) {
        if !self.messages.is_empty() {
            let lost = self.rng.index(self.messages.len());
            self.messages.remove(lost);
        }
    }

    fn double_any(&mut self) {
        if !self.messages.is_empty() {
            let doubled = self.messages[self.rng.index(self.messages.len())].clone();
            self.send(doubled);
        }
    }

    /// The oldest message often, any other sometimes.
    fn deliver_any(&mut self) {
        let reachable = |message: &Message| !message.touches(|host| self.hosts[host].cut);
        let ready: Vec<usize> = (0..self.messages.len())
            .filter(|at| reachable(&self.messages[*at]))
            .collect();
        if ready.is_empty() {
            return;
        }
        let at = if self.rng.chance(60) {
            ready[0]
        } else {
            *self.rng.pick(&ready)
        };
        let message = self.messages.remove(at);
        self.deliver(message);
    }

    fn deliver(&mut self, message: Message) {
        self.note(|| format!("deliver {message:?}"));
        match message {
            Message::Register { squid, node, .. } => self.take_registration(node, squid),
            Message::Renew {
                host,
                node,
                renew,
                t0,
            } => self.take_renewal(node, host, renew, t0),
            Message::Close { session } => self.propose(Command::CloseSession {
                target: target(),
                session,
                proof: leasehold_proto::command::CloseProof::OwnWord,
            }),
            Message::Route { router, update } => self.route(router, update),
            Message::Hint { router, moved } => {
                self.routers[router].learn(moved);
            }
            for_host => self.deliver_to_host(for_host),
        }
    }

    /// Advances time to the next instant at which some machine wants to be woken, and wakes it; or
    /// lets one sleep through.
    fn wake_next(&mut self) {
        let hosts = self
            .hosts
            .iter()
            .enumerate()
            .filter_map(|(i, host)| Some((host.clock.until(host.wake_at?), i)));
        let nodes = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(i, node)| Some((node.clock.until(node.wake_at()?), i + 100)));
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
        if who >= 100 {
            self.wake_node(who - 100)
        } else {
            self.wake_host(who)
        }
    }

    fn work_any(&mut self) {
        let busy = |host: &Host| !host.preparing.is_empty() || !host.draining.is_empty();
        let some = self.rng.index(self.hosts.len());
        let host = self.hosts.iter().position(busy).unwrap_or(some);
        if self.rng.chance(15) {
            self.wake_host(host);
        } else {
            self.work(host);
        }
    }

    fn push_any(&mut self) {
        let node = self.rng.index(self.nodes.len());
        let Some(state) = self.nodes[node].table.target(&target()) else {
            return;
        };
        let at = self.rng.index(self.hosts.len() + self.routers.len());
        if at < self.hosts.len() {
            let known = self.hosts[at].holder.view().map(|view| view.generation);
            if let (Some(session), Some(update)) =
                (self.hosts[at].holder.session(), state.update_since(known))
            {
                self.send(Message::Pushed {
                    host: at,
                    session,
                    update,
                });
            }
        } else if let Some(update) =
            state.update_since(self.routers[at - self.hosts.len()].generation())
        {
            self.send(Message::Route {
                router: at - self.hosts.len(),
                update,
            });
        }
    }

    fn cut_any(&mut self) {
        let host = self.rng.index(self.hosts.len());
        self.hosts[host].cut = !self.hosts[host].cut;
        self.note(|| format!("host {host} cut: toggled"));
    }

    fn flip(&mut self) {
        let Some(state) = self.check.master.target(&target()) else {
            return;
        };
        let consistency = Some(match state.config().consistency {
            Consistency::Strong => Consistency::Eventual,
            Consistency::Eventual => Consistency::Strong,
        });
        let change = TargetChange {
            consistency,
            ..TargetChange::default()
        };
        self.propose(Command::UpdateTarget {
            target: target(),
            expected_version: None,
            change,
        });
    }

    /// The operator: proofs of death, ghosts forgotten, targets created again, cancellations asked.
    fn operate(&mut self) {
        let (dice, consistency) = (
            self.rng.below(5),
            *self.rng.pick(&[Consistency::Strong, Consistency::Eventual]),
        );
        let create = self.create(consistency);
        let alive = |squid: &Squid| {
            self.hosts
                .iter()
                .any(|host| host.alive && host.squid == *squid)
        };
        let Some(state) = self.check.master.target(&target()) else {
            return self.propose(create);
        };
        let version = state.config_version();
        let dead: Vec<SessionId> = state
            .sessions()
            .filter(|session| !alive(&session.squid))
            .map(|session| session.id)
            .collect();
        let registering = self
            .messages
            .iter()
            .any(|message| matches!(message, Message::Registered { .. }));
        let nothing_unknown = self.hosts.iter().all(|host| {
            host.holder
                .session()
                .is_none_or(|id| state.live_sessions().any(|session| session.id == id))
        });
        let handoffs: Vec<_> = state.handoffs().map(|(_, _, handoff)| handoff.id).collect();
        match dice {
            4 => {
                let ttl = Some(if version.is_multiple_of(2) {
                    TTL
                } else {
                    TTL * 2
                });
                let change = TargetChange {
                    ttl,
                    ..TargetChange::default()
                };
                self.propose(Command::UpdateTarget {
                    target: target(),
                    expected_version: None,
                    change,
                });
            }
            0 if nothing_unknown && !registering => self.propose_now(forget(None)),
            1 if !dead.is_empty() => {
                let session = *self.rng.pick(&dead);
                let proof = leasehold_proto::command::CloseProof::Reaped;
                self.propose(Command::CloseSession {
                    target: target(),
                    session,
                    proof,
                });
            }
            _ if !handoffs.is_empty() => {
                let handoff = *self.rng.pick(&handoffs);
                self.propose(Command::AskCancel {
                    target: target(),
                    handoff,
                });
            }
            _ => {}
        }
    }

    /// A planner without sense: any step that the leader's table makes look possible.
    fn plan_any(&mut self) {
        let Some(node) = self.raft.leader else { return };
        let Some(state) = self.nodes[node].table.target(&target()) else {
            return;
        };
        let version = state.config_version();
        let count = 1 + self.rng.below(2);
        let steps: Vec<PlanStep> = (0..count)
            .filter_map(|_| random_step(&mut self.rng, state))
            .collect();
        self.propose(Command::ApplyPlan {
            target: target(),
            config_version: version,
            steps,
        });
    }
}

fn forget(session: Option<SessionId>) -> Command {
    Command::ForgetGhost {
        target: target(),
        session,
        reason: String::new(),
    }
}

fn random_step(rng: &mut Rng, state: &TargetState) -> Option<PlanStep> {
    let slices: Vec<(Slice, _)> = state.slices().collect();
    let sessions: Vec<SessionId> = state.live_sessions().map(|session| session.id).collect();
    if sessions.is_empty() {
        return None;
    }
    let at = rng.index(slices.len());
    let (slice, assigned) = slices[at];
    let to = *rng.pick(&sessions);
    let Some(owner) = assigned.owner else {
        return Some(PlanStep::Grant { slice, to });
    };
    Some(match rng.below(10) {
        0..5 if state.mode() != Mode::Eventual || rng.chance(30) => PlanStep::BeginHandoff {
            slice,
            from: owner,
            to,
        },
        5 => PlanStep::Split {
            slice,
            owner: Some(owner),
            at: key(rng.index(KEYS)),
        },
        6 | 7 => PlanStep::Merge {
            left: slice,
            right: slices[(at + 1) % slices.len()].0,
            owner: owner.session,
        },
        8 => PlanStep::SetReplicas {
            slice,
            owner,
            replicas: sessions
                .into_iter()
                .filter(|id| *id != owner.session)
                .collect(),
        },
        _ => PlanStep::Reassign {
            slice,
            from: Some(owner),
            to,
        },
    })
}
