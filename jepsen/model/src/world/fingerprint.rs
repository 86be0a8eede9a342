//! The canonical form of a world: its machines by their own, the rest here.

use leasehold_proto::canonical::{Number, Visitor};

use leasehold_proto::message::Renewed;

use super::slicelet::Answer;
use super::{Host, Ledger, Node, Peer, World};
use crate::bounds::Bounds;
use crate::part::{Fingerprinter, Recorder};

impl World {
    /// The fingerprint of everything that decides the future of this world.
    pub fn fingerprint(&self, maker: &mut Fingerprinter) -> u128 {
        let bounds = &*self.bounds;
        let own = self.own_tokens();
        let mut parts: [&[u64]; 24] = [&[]; 24];
        let mut count = 0;
        let mut add = |tokens| {
            parts[count] = tokens;
            count += 1;
        };
        add(own.as_slice());
        add(table_tokens(&self.master, bounds));
        // Nodes are alike: which of them leads makes no difference.
        let leader = self.log.leader;
        let others = (0..self.nodes.len()).filter(|at| *at != leader);
        for at in std::iter::once(leader).chain(others) {
            let node = &self.nodes[at];
            add(node.tokens(|node| node_tokens(node, bounds)));
            // A follower's table is looked at only when it is elected with what it has.
            let matters = node.leading.is_some() || bounds.stale_tables;
            if matters && !node.table.is(&self.master) {
                add(table_tokens(&node.table, bounds));
            }
        }
        for host in &self.hosts {
            add(host.tokens(|host| host_tokens(host, bounds)));
        }
        if let Some(router) = &self.router {
            add(router.tokens(|router| {
                plain(bounds, |to| {
                    to.show(router);
                })
            }));
        }
        add(self.peers.tokens(|peers| peer_tokens(peers, bounds)));
        add(self.ledger.tokens(|ledger| ledger_tokens(ledger, bounds)));
        maker.of(parts[..count].iter().copied(), bounds.remember_all)
    }

    fn own_tokens(&self) -> [u64; 3] {
        let m = &self.left;
        let left = [
            m.handoffs,
            m.cancels,
            m.crashes,
            m.elections,
            m.faults,
            m.duplicates,
            m.splits,
            m.merges,
            m.flips,
            m.moves,
            m.copies,
            m.closes,
            m.reaped,
        ];
        // Four bits each: more than fifteen of a kind no small world allows.
        let left = left
            .iter()
            .fold(0u64, |packed, count| packed << 4 | u64::from(*count));
        let term = (Number::Term as u64 + 1) << 60 | self.log.term;
        [left, term, u64::from(self.registrations_left)]
    }
}

/// What has no clock.
fn plain(bounds: &Bounds, write: impl FnOnce(&mut Recorder)) -> Vec<u64> {
    let mut recorder = Recorder::new(0, 1, bounds);
    write(&mut recorder);
    recorder.finish()
}

fn table_tokens<'a>(
    table: &'a crate::part::Part<leasehold_proto::table::LeaseTable>,
    bounds: &Bounds,
) -> &'a [u64] {
    table.tokens(|table| {
        plain(bounds, |to| {
            to.show(table);
        })
    })
}

fn host_tokens(host: &Host, bounds: &Bounds) -> Vec<u64> {
    let mut to = Recorder::new(host.now, bounds.least_steps().0, bounds);
    to.show(&host.holder);
    // What process lives here is known by the session that it holds, or to be new.
    to.plain(u64::from(host.fresh));
    to.plain(host.renews.len() as u64);
    for (renew, age) in &host.renews {
        to.show(renew).plain(*age);
    }
    to.plain(host.replies.len() as u64);
    for (answer, age) in &host.replies {
        match answer {
            Answer::Renewed(renewed) => renewed_tokens(&mut to, host, renewed, bounds),
            Answer::Closed(session) => to.show(session),
        }
        .plain(*age);
    }
    to.plain(host.draining.len() as u64);
    for handoff in &host.draining {
        to.begin_remark(Number::Handoff, handoff.as_u64());
        to.show(handoff);
        to.end_remark();
    }
    to.show(host.closing.as_slice());
    to.finish()
}

/// A view that is not newer than what its receiver knows changes nothing there.
fn renewed_tokens<'a>(
    to: &'a mut Recorder,
    host: &Host,
    renewed: &Renewed,
    bounds: &Bounds,
) -> &'a mut Recorder {
    let known = host.holder.view().map(|view| view.generation);
    let stale = renewed
        .update
        .as_ref()
        .is_some_and(|update| Some(update.generation()) <= known);
    if stale && !bounds.remember_all {
        to.show(&Renewed {
            update: None,
            ..renewed.clone()
        })
    } else {
        to.show(renewed)
    }
}

fn node_tokens(node: &Node, bounds: &Bounds) -> Vec<u64> {
    let mut to = Recorder::new(node.now, bounds.least_steps().1, bounds);
    to.show(node.queue.as_slice());
    let Some(leading) = &node.leading else {
        to.plain(0);
        return to.finish();
    };
    to.plain(1);
    to.number(Number::Term, leading.term);
    to.plain(match leading.round {
        None => 0,
        Some((_, confirmed)) => 1 + u64::from(confirmed),
    });
    to.show(&leading.grantor);
    node.visit_pending(|renewal, _, known, age| {
        to.show(&renewal.session);
        to.number_in(Number::Seq, renewal.session.as_u64(), renewal.seq);
        to.show(&known).plain(age);
    });
    to.finish()
}

fn peer_tokens(peers: &[Peer], bounds: &Bounds) -> Vec<u64> {
    use leasehold_proto::message::ReadyAnswer;
    // In no order: any may be delivered next.
    let mut all: Vec<Vec<u64>> = peers
        .iter()
        .map(|peer| {
            plain(bounds, |to| {
                let (about, host) = match peer {
                    Peer::Ready(host, ready) => (Some(ready.handoff), host),
                    Peer::Answer(host, ReadyAnswer::Surrendered(s)) => (Some(s.handoff), host),
                    Peer::Answer(host, ReadyAnswer::Refused(id)) => (Some(*id), host),
                    Peer::Answer(host, ReadyAnswer::NotMine(_)) => (None, host),
                };
                // *Not mine* changes nothing where it arrives.
                let Some(about) = about else { return };
                to.begin_remark(Number::Handoff, about.as_u64());
                to.plain(*host as u64);
                match peer {
                    Peer::Ready(_, ready) => to.show(ready),
                    Peer::Answer(_, answer) => to.show(answer),
                };
                to.end_remark();
            })
        })
        .collect();
    all.sort_unstable();
    all.concat()
}

fn ledger_tokens(ledger: &Ledger, bounds: &Bounds) -> Vec<u64> {
    plain(bounds, |to| {
        for top in &ledger.top {
            to.plain(u64::from(top.is_some()));
            if let Some((epoch, session)) = top {
                // Who it was matters while somebody can still own at it.
                to.show(epoch)
                    .begin_remark(Number::Index, epoch.token().as_u64());
                to.show(session).end_remark();
            }
        }
        for (epoch, top) in ledger.strong.iter().zip(&ledger.top) {
            if *epoch != top.map(|(epoch, _)| epoch) {
                to.show(epoch);
            }
        }
        for (k, epoch) in &ledger.cancelled {
            to.begin_remark(Number::Index, epoch.token().as_u64());
            to.plain(*k as u64);
            to.show(epoch);
            to.end_remark();
        }
    })
}
