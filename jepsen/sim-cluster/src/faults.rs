//! What goes wrong in a world, and when: drawn from its seed, each fault with its own end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use turmoil::Sim;

use crate::event::{NodeId, What};
use crate::net::host;
use crate::node::Order;
use crate::random::Random;
use crate::world::World;

/// A sync on a sound disk takes up to this long.
const SYNC_MS: u64 = 6;
/// A message on a sound link takes up to this long.
pub(crate) const LATENCY_MS: u64 = 8;

/// What is done to a link between two machines, seen from the one with the smaller number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Cut,
    CutForth,
    CutBack,
    Held,
    Lossy,
    Slow,
}

/// How a fault ends.
#[derive(Debug)]
enum End {
    Link(NodeId, NodeId),
    Start(NodeId),
    StartPod(u64),
    Sync(NodeId),
}

/// The faults of one world.
pub(crate) struct Faults {
    random: Random,
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// What ends when.
    ends: Vec<(u64, End)>,
    next_at_ms: u64,
    next_change_ms: u64,
    /// A leader was asked to hand over: to whom, and in which term.
    transfer: Option<(NodeId, u64)>,
    down: BTreeSet<NodeId>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::of(seed, 1);
        Self {
            next_at_ms: random.between(500, 2500),
            next_change_ms: random.between(1000, 6000),
            random,
            links: BTreeMap::new(),
            ends: Vec::new(),
            transfer: None,
            down: BTreeSet::new(),
        }
    }

    /// Lets end what ends now and begin what begins now.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, world: &mut World, now_ms: u64) {
        self.tend(sim, world, now_ms);
        self.watch_transfer(world);
        if now_ms >= self.next_at_ms {
            self.next_at_ms = now_ms + self.random.between(100, 2500);
            self.begin(sim, world, now_ms);
        }
        if now_ms >= self.next_change_ms {
            self.next_change_ms = now_ms + self.random.between(300, 2500);
            self.change_members(world);
        }
    }

    /// Ends every fault now.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>, world: &mut World) {
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(sim, world, end);
        }
    }

    /// Lets end what ends now, and restarts machines whose replica has ended by itself.
    pub(crate) fn tend(&mut self, sim: &mut Sim<'_>, world: &mut World, now_ms: u64) {
        self.end_due(sim, world, now_ms);
        let stopped: Vec<NodeId> = world
            .places()
            .filter(|place| place.stopped.load(Ordering::SeqCst))
            .map(|place| place.id)
            .collect();
        for node in stopped {
            let after = self.random.between(50, 800);
            self.crash(sim, world, node, now_ms + after);
        }
    }

    fn end_due(&mut self, sim: &mut Sim<'_>, world: &mut World, now_ms: u64) {
        let (due, later) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(at, _)| *at <= now_ms);
        self.ends = later;
        for (_, end) in due {
            self.end(sim, world, end);
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, world: &mut World, end: End) {
        match end {
            End::Link(a, b) => self.mend(sim, a, b),
            End::Start(node) => {
                if self.down.remove(&node) && !world.is_retired(node) {
                    world.set_sync_ms(node, SYNC_MS, &mut self.random);
                    sim.bounce(host(node));
                }
            }
            End::StartPod(pod) => {
                if self.down.remove(&pod) {
                    sim.bounce(host(pod));
                }
            }
            End::Sync(node) => world.set_sync_ms(node, SYNC_MS, &mut self.random),
        }
    }

    fn mend(&mut self, sim: &mut Sim<'_>, a: NodeId, b: NodeId) {
        let Some(link) = self.links.remove(&(a, b)) else {
            return;
        };
        let (a, b) = (host(a), host(b));
        match link {
            Link::Cut => sim.repair(a, b),
            Link::CutForth => sim.repair_oneway(a, b),
            Link::CutBack => sim.repair_oneway(b, a),
            Link::Held => sim.release(a, b),
            Link::Lossy => {
                sim.set_link_fail_rate(a.clone(), b.clone(), 0.0);
                sim.repair(a, b);
            }
            Link::Slow => {
                sim.set_link_max_message_latency(a, b, Duration::from_millis(LATENCY_MS));
            }
        }
    }

    /// Does something to one link, unless something is done to it already.
    fn disturb(&mut self, sim: &mut Sim<'_>, a: NodeId, b: NodeId, link: Link, until: u64) {
        let (low, high) = (a.min(b), a.max(b));
        if a == b || self.links.contains_key(&(low, high)) {
            return;
        }
        let link = match link {
            Link::CutForth if a > b => Link::CutBack,
            Link::CutBack if a > b => Link::CutForth,
            link => link,
        };
        self.links.insert((low, high), link);
        self.ends.push((until, End::Link(low, high)));
        let (l, h) = (host(low), host(high));
        match link {
            Link::Cut => sim.partition(l, h),
            Link::CutForth => sim.partition_oneway(l, h),
            Link::CutBack => sim.partition_oneway(h, l),
            Link::Held => sim.hold(l, h),
            Link::Lossy => sim.set_link_fail_rate(l, h, 0.02),
            Link::Slow => {
                let most = self.random.millis(50, 500);
                sim.set_link_max_message_latency(l, h, most);
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, world: &mut World, now_ms: u64) {
        let until = now_ms + self.random.between(100, 3000);
        match self.random.below(15) {
            12 | 13 => self.isolate_pod(sim, world, until),
            14 => self.crash_pod(sim, world, now_ms),
            0 | 1 => self.isolate(sim, world, Link::Cut, until, "partition"),
            2 => {
                let link = if self.random.chance(0.5) {
                    Link::CutForth
                } else {
                    Link::CutBack
                };
                self.isolate(sim, world, link, until, "one-way partition");
            }
            3 => self.halves(sim, world, until),
            4 => self.isolate(sim, world, Link::Held, until, "messages held and released"),
            5 => self.isolate(sim, world, Link::Lossy, until, "messages lost"),
            6 => self.isolate(sim, world, Link::Slow, until, "messages delayed"),
            7 => self.crash_some(sim, world, now_ms),
            8 => self.fail_syncs(world),
            9 => self.slow_syncs(world, until),
            10 => self.transfer(world),
            _ => {
                if let Some(node) = self.victim(world) {
                    world.place(node).order(Order::Snapshot);
                }
            }
        }
    }

    /// A running node: half of the time the one that leads.
    fn victim(&mut self, world: &World) -> Option<NodeId> {
        let running = world.running(&self.down);
        let leaders: Vec<NodeId> = running
            .iter()
            .copied()
            .filter(|node| world.place(*node).leads().is_some())
            .collect();
        if self.random.chance(0.5) && !leaders.is_empty() {
            return self.random.pick(&leaders).copied();
        }
        self.random.pick(&running).copied()
    }

    fn isolate(
        &mut self,
        sim: &mut Sim<'_>,
        world: &mut World,
        link: Link,
        until: u64,
        name: &'static str,
    ) {
        let Some(node) = self.victim(world) else {
            return;
        };
        world.fault(node, format!("{link:?} until {until}"));
        world.observer.count(name);
        for other in world.machines() {
            self.disturb(sim, node, other, link, until);
        }
    }

    /// The links of a pod: to all other machines, or to the nodes only, so that it goes on serving
    /// those who reach it while its renewals fail.
    fn isolate_pod(&mut self, sim: &mut Sim<'_>, world: &mut World, until: u64) {
        let pods: Vec<u64> = world.pods().keys().copied().collect();
        let Some(pod) = self.random.pick(&pods).copied() else {
            return;
        };
        let links = [
            Link::Cut,
            Link::CutForth,
            Link::CutBack,
            Link::Held,
            Link::Slow,
        ];
        let link = self.random.pick(&links).copied().unwrap_or(Link::Cut);
        world.fault(pod, format!("{link:?} until {until}"));
        world.observer.count("pod cut off");
        let others = match self.random.chance(0.5) {
            true => world.machines(),
            false => world.ids(),
        };
        for other in others {
            self.disturb(sim, pod, other, link, until);
        }
    }

    /// A pod's process ends without a word.
    fn crash_pod(&mut self, sim: &mut Sim<'_>, world: &mut World, now_ms: u64) {
        let up: Vec<u64> = world
            .pods()
            .keys()
            .copied()
            .filter(|pod| !self.down.contains(pod))
            .collect();
        let Some(id) = self.random.pick(&up).copied() else {
            return;
        };
        self.down.insert(id);
        world.fault(id, "crashed".into());
        world.observer.count("pod crashed");
        if let Some(pod) = world.pods().get(&id) {
            pod.forget();
        }
        sim.crash(host(id));
        let after = self.random.between(20, 4000);
        self.ends.push((now_ms + after, End::StartPod(id)));
    }

    fn halves(&mut self, sim: &mut Sim<'_>, world: &mut World, until: u64) {
        let ids = world.machines();
        let side: Vec<bool> = ids.iter().map(|_| self.random.chance(0.5)).collect();
        world.fault(0, format!("halves {side:?} until {until}"));
        world.observer.count("partition");
        for (i, a) in ids.iter().enumerate() {
            for (j, b) in ids.iter().enumerate().skip(i + 1) {
                if side[i] != side[j] {
                    self.disturb(sim, *a, *b, Link::Cut, until);
                }
            }
        }
    }

    /// One node, a few, or all of them lose power.
    fn crash_some(&mut self, sim: &mut Sim<'_>, world: &mut World, now_ms: u64) {
        let running = world.running(&self.down);
        let all = self.random.chance(0.2);
        let chosen: Vec<NodeId> = if all {
            world.observer.count("all nodes crashed at once");
            running
        } else {
            let first = self.victim(world);
            let more = self.random.chance(0.3);
            let second = more.then(|| self.victim(world)).flatten();
            first.into_iter().chain(second).collect()
        };
        for node in chosen {
            let start_at = now_ms + self.random.between(20, 2500);
            self.crash(sim, world, node, start_at);
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, world: &mut World, node: NodeId, start_at: u64) {
        if !self.down.insert(node) {
            return;
        }
        let place = world.place(node);
        let unsynced = place.store.unsynced_batches();
        let kept = match self.random.below(3) {
            0 => self.random.below(unsynced + 1),
            _ => 0,
        };
        place.store.crash_keeping(kept);
        place.store.fail_syncs(false);
        place.disk_fails.store(false, Ordering::SeqCst);
        place.forget();
        sim.crash(host(node));
        let lost = unsynced - kept;
        world.observer.see(node, What::Crashed { lost, kept });
        self.ends.push((start_at, End::Start(node)));
    }

    fn fail_syncs(&mut self, world: &mut World) {
        let Some(node) = self.victim(world) else {
            return;
        };
        world.fault(node, "syncs fail".into());
        let place = world.place(node);
        place.disk_fails.store(true, Ordering::SeqCst);
        place.store.fail_syncs(true);
    }

    fn slow_syncs(&mut self, world: &mut World, until: u64) {
        let Some(node) = self.victim(world) else {
            return;
        };
        let most = self.random.between(30, 900);
        world.fault(node, format!("syncs take up to {most} ms until {until}"));
        world.observer.count("slow syncs");
        world.set_sync_ms(node, most, &mut self.random);
        self.ends.push((until, End::Sync(node)));
    }

    fn transfer(&mut self, world: &mut World) {
        let Some((leader, term)) = world.leader() else {
            return;
        };
        let running = world.running(&self.down);
        let Some(to) = self.random.pick(&running).copied() else {
            return;
        };
        if to != leader {
            self.transfer = Some((to, term));
            world.place(leader).order(Order::Transfer(to));
        }
    }

    fn watch_transfer(&mut self, world: &World) {
        let Some((to, term)) = self.transfer else {
            return;
        };
        let Some((leader, now)) = world.leader() else {
            return;
        };
        if now > term {
            self.transfer = None;
            if leader == to && now == term + 1 {
                world.observer.count("leadership handed over");
            }
        }
    }

    /// One step towards other members: a spare machine learns, votes, and replaces somebody.
    fn change_members(&mut self, world: &mut World) {
        let Some((leader, _)) = world.leader() else {
            return;
        };
        let Some(node) = world.place(leader).node() else {
            return;
        };
        let members = node.status().members;
        let voters = members.iter().filter(|member| member.voter).count();
        if let Some(learner) = members.iter().find(|member| !member.voter) {
            world.place(leader).order(Order::Promote(learner.id));
            return;
        }
        if voters > world.voters {
            if let Some(member) = self.random.pick(&members) {
                world.place(leader).order(Order::Remove(member.id));
            }
            return;
        }
        let known = |id: &NodeId| members.iter().any(|member| member.id == *id);
        let spare = world
            .ids()
            .into_iter()
            .find(|id| !known(id) && world.is_spare(*id) && !self.down.contains(id));
        if let Some(spare) = spare {
            world.use_spare(spare);
            world.place(leader).order(Order::AddLearner(spare));
        }
    }
}
