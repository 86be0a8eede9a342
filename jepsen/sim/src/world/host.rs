//! A Slicelet process: its Holder, its clock, and an application that prepares and drains slices.

use leasehold_proto::command::Digest;
use leasehold_proto::holder::{Action, Holder, HolderConfig, Input, OnNotReady, Output, Part};
use leasehold_proto::id::HandoffId;
use leasehold_proto::{ClockTime, Generation, PodAddress, SessionId, Squid, ViewUpdate};
use std::collections::{BTreeMap, BTreeSet};

use super::{Clock, Message, Rng, TTL, World};

pub struct Host {
    pub clock: Clock,
    pub holder: Holder,
    pub squid: Squid,
    pub alive: bool,
    /// Cut off from the Assigner; other Slicelets are reached.
    pub cut: bool,
    pub wake_at: Option<ClockTime>,
    pub preparing: BTreeSet<HandoffId>,
    pub draining: BTreeSet<HandoffId>,
    /// Until when each session may serve at most: from the `t0` of what was answered.
    pub may_serve: BTreeMap<SessionId, ClockTime>,
    pub seen: Option<Generation>,
}

fn holder(rng: &mut Rng) -> Holder {
    let on_not_ready = if rng.chance(70) {
        OnNotReady::Stay
    } else {
        OnNotReady::GoCold
    };
    let jitter_seed = rng.draw();
    Holder::new(HolderConfig {
        handoff_deadline: TTL * 2,
        on_not_ready,
        jitter_seed,
        ..HolderConfig::default()
    })
}

impl Host {
    pub fn new(index: usize, rng: &mut Rng) -> Self {
        let address = PodAddress::new(&format!("10.0.0.{}:9000", index + 1)).expect("an address");
        let clock = Clock::new(rng);
        Self {
            wake_at: Some(clock.now()),
            clock,
            holder: holder(rng),
            squid: Squid {
                address,
                id: u128::from(rng.draw()),
            },
            alive: true,
            cut: false,
            preparing: BTreeSet::new(),
            draining: BTreeSet::new(),
            may_serve: BTreeMap::new(),
            seen: None,
        }
    }
}

impl World {
    /// Kills a process, or starts it anew under the same address.
    pub(super) fn crash_any(&mut self) {
        let at = self.rng.index(self.hosts.len());
        if self.rng.chance(20) && self.hosts[at].alive {
            let session = self.hosts[at].holder.session();
            self.give(at, Input::Shutdown);
            if let Some(session) = session {
                self.send(Message::Close { session });
            }
        }
        self.restart(at);
        self.hosts[at].alive = self.rng.chance(70);
        self.note(|| format!("host {at} crashes"));
    }

    pub(super) fn restart(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.holder = holder(&mut self.rng);
        host.squid.id = u128::from(self.rng.draw());
        host.alive = true;
        host.preparing.clear();
        host.draining.clear();
        host.seen = None;
        host.wake_at = Some(host.clock.now());
    }

    pub(super) fn wake_host(&mut self, at: usize) {
        self.give(at, Input::Wake);
        let host = &mut self.hosts[at];
        if host.alive && host.holder.session().is_none() {
            host.wake_at = Some(host.clock.now() + TTL / 8);
            self.register(at);
        }
    }

    fn register(&mut self, host: usize) {
        let squid = self.hosts[host].squid.clone();
        let node = self.some_leader();
        self.send(Message::Register { host, squid, node });
    }

    /// Whom a process takes for the leader: any node that takes itself for one.
    fn some_leader(&mut self) -> usize {
        let leaders: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].leading.is_some())
            .collect();
        match self.raft.leader {
            Some(leader) if self.benign || self.rng.chance(60) => leader,
            _ => *self
                .rng
                .pick(if leaders.is_empty() { &[0] } else { &leaders }),
        }
    }

    /// The application gets on with something that it was asked for.
    pub(super) fn work(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if self.rng.chance(50)
            && let Some(handoff) = host.preparing.pop_first()
        {
            self.give(at, Input::Prepared(handoff));
        } else if let Some(handoff) = host.draining.pop_first() {
            self.give(at, Input::Drained(handoff, Digest::EMPTY));
        } else if self.rng.chance(20) {
            self.tell_a_router(at);
        }
    }

    fn tell_a_router(&mut self, at: usize) {
        let gone = self.hosts[at]
            .holder
            .local()
            .iter()
            .find_map(|local| match &local.part {
                Part::Gone(moved) => Some((**moved).clone()),
                _ => None,
            });
        if let Some(moved) = gone {
            let router = self.rng.index(self.routers.len());
            self.send(Message::Hint { router, moved });
        }
    }

    pub(super) fn deliver_to_host(&mut self, message: Message) {
        match message {
            // For a process that has died meanwhile.
            Message::Registered { host, squid, .. } if self.hosts[host].squid != squid => {}
            Message::Registered { host, reply, .. } => {
                let input = Input::Registered {
                    session: reply.session,
                    ttl: reply.ttl,
                    not_before: reply.not_before,
                };
                self.give(host, input);
            }
            Message::Renewed { host, renewed, t0 } => {
                let this = &mut self.hosts[host];
                if this.holder.session() == Some(renewed.session) {
                    let until = this.may_serve.entry(renewed.session).or_insert(t0);
                    *until = (*until).max(t0 + renewed.ttl);
                }
                self.give(host, Input::Renewed(renewed));
            }
            Message::Closed { host, session } => self.give(host, Input::Closed(session)),
            Message::Pushed {
                host,
                session,
                update,
            } => self.give(host, Input::Pushed(session, update)),
            Message::Ready { host, ready } => self.give(host, Input::Ready(ready)),
            Message::Answer { host, answer } => self.give(host, Input::ReadyAnswered(answer)),
            _ => {}
        }
    }

    pub(super) fn give(&mut self, at: usize, input: Input) {
        let host = &mut self.hosts[at];
        if !host.alive {
            return;
        }
        let direct = matches!(input, Input::ReadyAnswered(_));
        let before = host.holder.arriving().count();
        let now = host.clock.now();
        let out = host.holder.handle(now, input);
        if direct && host.holder.arriving().count() < before {
            self.stats.direct_accepts += 1;
        }
        self.host_says(at, now, out);
        self.check.view_of_host(&mut self.hosts[at]);
    }

    fn host_says(&mut self, at: usize, now: ClockTime, out: Output) {
        self.hosts[at].wake_at = out.wake_at.or(self.hosts[at]
            .wake_at
            .filter(|_| self.hosts[at].holder.session().is_none()));
        for action in out.actions {
            self.note(|| format!("host {at}: {action:?}"));
            match action {
                Action::Renew(renew) => {
                    let node = self.some_leader();
                    self.send(Message::Renew {
                        host: at,
                        node,
                        renew,
                        t0: now,
                    });
                }
                Action::SayClosed(session) => self.send(Message::Close { session }),
                Action::Register => {
                    self.hosts[at].wake_at = Some(now);
                    self.register(at);
                }
                Action::Prepare { handoff, .. } => {
                    self.hosts[at].preparing.insert(handoff);
                }
                Action::SendReady(ready, _) => {
                    if let Some(host) = self.home.get(&ready.from).copied() {
                        self.send(Message::Ready { host, ready });
                    }
                }
                Action::AnswerReady(ready, answer) => {
                    if let Some(host) = self.home.get(&ready.to).copied() {
                        self.send(Message::Answer { host, answer });
                    }
                }
                Action::Freeze { handoff, .. } => {
                    self.hosts[at].draining.insert(handoff);
                }
            }
        }
    }

    pub(super) fn route(&mut self, at: usize, update: ViewUpdate) {
        let before = self.routers[at].generation();
        // A gap is no failure: a full view follows.
        let _ = self.routers[at].update(update);
        self.check.view_of_router(&self.routers[at], before);
    }
}
