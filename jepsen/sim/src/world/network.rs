//! The network: one pool of messages, from which any may come next, or none.

use leasehold_proto::command::{CloseProof, Command};
use leasehold_proto::message::Moved;
use leasehold_proto::{Generation, SessionId, ViewUpdate};

use super::message::{Cut, Link, Message};
use super::{World, target};
use crate::check::invariant_lookups_follow_the_map;
use crate::coverage::Seen;
use crate::options::Fault;

impl World {
    pub(super) fn send(&mut self, message: Message) {
        if self.messages.len() >= self.adversity.messages && !self.benign {
            let lost = self.rng.index(self.messages.len());
            self.messages.remove(lost);
        }
        self.messages.push(message);
    }

    pub(super) fn lose_any(&mut self) {
        if !self.messages.is_empty() {
            let lost = self.rng.index(self.messages.len());
            let message = self.messages.remove(lost);
            self.note(|| format!("lost: {message:?}"));
        }
    }

    /// One under way, or a frame of state that may have arrived long ago.
    pub(super) fn double_any(&mut self) {
        if !self.echoes.is_empty() && self.rng.chance(50) {
            let echo = self.rng.index(self.echoes.len());
            let echo = self.echoes[echo].clone();
            self.send(echo);
        } else if !self.messages.is_empty() {
            let doubled = self.messages[self.rng.index(self.messages.len())].clone();
            self.send(doubled);
        }
    }

    pub(super) fn cut_any(&mut self) {
        let at = self.rng.index(self.hosts.len());
        let dice = self.rng.below(5);
        let heals = self.rng.chance(50);
        let cut = &mut self.hosts[at].cut;
        match dice {
            _ if heals => *cut = Cut::default(),
            0 | 1 => {
                cut.to_assigner = !cut.to_assigner;
                cut.from_assigner = cut.to_assigner;
            }
            2 => cut.to_assigner = !cut.to_assigner,
            3 => cut.from_assigner = !cut.from_assigner,
            _ => cut.peers = !cut.peers,
        }
        let cut = *cut;
        self.note(|| format!("host {at}: {cut:?}"));
    }

    fn deliverable(&self, message: &Message) -> bool {
        let through = match message.link() {
            Link::Up(host) => !self.hosts[host].cut.to_assigner,
            Link::Down(host) => !self.hosts[host].cut.from_assigner,
            Link::Between(a, b) => !self.hosts[a].cut.peers && !self.hosts[b].cut.peers,
            Link::Always => true,
        };
        let (host, node) = message.taker();
        through
            && host.is_none_or(|host| !self.hosts[host].asleep)
            && node.is_none_or(|node| !self.nodes[node].asleep)
    }

    /// The oldest message often, any other sometimes.
    pub(super) fn deliver_any(&mut self) {
        let reorder = self.adversity.chance(Fault::Reorder);
        let count = self.messages.len();
        if count == 0 {
            return;
        }
        let from = if self.rng.chance(reorder) {
            self.rng.index(count)
        } else {
            0
        };
        let next = (from..count)
            .chain(0..from)
            .find(|at| self.deliverable(&self.messages[*at]));
        if let Some(at) = next {
            let message = self.messages.remove(at);
            self.deliver(message);
        }
    }

    pub(super) fn deliver(&mut self, message: Message) {
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
                target: target().clone(),
                session,
                proof: CloseProof::OwnWord,
            }),
            Message::Route { router, update } => self.route(router, update),
            Message::Hint { router, moved } => self.hint(router, moved),
            Message::ToStore {
                host,
                process,
                request,
            } => self.store_takes(host, process, request),
            for_host => self.deliver_to_host(for_host),
        }
    }

    /// Some node pushes its view to a Slicelet or a Clerk.
    pub(super) fn push_any(&mut self) {
        let node = self.rng.index(self.nodes.len());
        let at = self.rng.index(self.hosts.len() + self.routers.len());
        let Some(state) = self.nodes[node].table.target(target()) else {
            return;
        };
        let known: Option<Generation>;
        let session: Option<SessionId>;
        if let Some(host) = self.hosts.get(at) {
            known = host.seen;
            session = host.holder.session();
        } else {
            known = self.routers[at - self.hosts.len()].generation();
            session = None;
        }
        let Some(update) = state.update_since(known) else {
            return;
        };
        match (at.checked_sub(self.hosts.len()), session) {
            (Some(router), _) => self.send(Message::Route { router, update }),
            (None, Some(session)) => self.send(Message::Pushed {
                host: at,
                session,
                update,
            }),
            (None, None) => {}
        }
    }

    /// Whom a process takes for the leader: any node that takes itself for one.
    pub(super) fn some_leader(&mut self) -> usize {
        if let Some(leader) = self.raft.leader
            && (self.benign || self.rng.chance(60))
        {
            return leader;
        }
        let leads = |node: &usize| self.nodes[*node].leading.is_some();
        let count = (0..self.nodes.len()).filter(leads).count();
        if count == 0 {
            return 0;
        }
        let nth = self.rng.index(count);
        let leads = |node: &usize| self.nodes[*node].leading.is_some();
        (0..self.nodes.len()).filter(leads).nth(nth).unwrap_or(0)
    }

    fn route(&mut self, at: usize, update: ViewUpdate) {
        let router = &mut self.routers[at];
        let before = router.generation();
        let hints = router.hints().count();
        // A gap is no failure: a full view follows.
        let updated = router.update(update);
        if updated.is_err() {
            self.coverage.see(Seen::GapRefused);
        }
        let newer = updated.unwrap_or(false);
        if router.hints().count() < hints {
            self.coverage.see(Seen::HintEnded);
        }
        let Some(view) = router.view().filter(|_| newer) else {
            return;
        };
        let judged = self
            .check
            .views
            .invariant_a_view_never_goes_back_and_is_whole(
                self.check.state(),
                before,
                view,
                "a Router",
            );
        self.check.judge(judged);
        self.check
            .judge(invariant_lookups_follow_the_map(&self.routers[at]));
    }

    fn hint(&mut self, at: usize, moved: Moved) {
        self.check.hint(&moved);
        let outranks = self.routers[at].learn(moved);
        self.see(if outranks {
            Seen::HintOutranked
        } else {
            Seen::HintIgnored
        });
        if outranks {
            self.check
                .judge(invariant_lookups_follow_the_map(&self.routers[at]));
        }
    }
}
