//! What can happen next, and how a person reads it.

use std::fmt;

use leasehold_proto::holder::{Action, Input};

use super::{Seen, World};

/// One thing that happens. Hosts, nodes, slots and so on are named by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time passes; the number is the kind of tick.
    Tick(usize),
    /// A timer of a Slicelet goes off.
    Wake(usize),
    /// A timer of an Assigner goes off.
    WakeNode(usize),
    /// A renewal arrives: host, slot, node, whether it arrives again later.
    Renewal(usize, usize, usize, bool),
    /// A renewal of a Slicelet is lost.
    Lose(usize),
    /// A quorum confirms a leader's term.
    Confirm(usize),
    /// A quorum round of a deposed leader fails.
    Fail(usize),
    /// The leader hears of the confirmation and answers.
    Answer(usize),
    /// Confirmation and answer in one instant.
    Round(usize),
    /// An answer arrives: host, slot, whether it arrives again later.
    Reply(usize, usize, bool),
    /// A node pushes its view to a host.
    Push(usize, usize),
    /// A message between Slicelets arrives.
    Peer(usize),
    /// The application has drained the frozen slice.
    Drained(usize),
    /// A host's word that its session serves nothing any more arrives.
    Closing(usize),
    /// A process registers.
    Register(usize),
    /// The first entry of the newest term is committed and applied.
    Ready(usize),
    /// The oldest proposal of the leader is committed and applied.
    Commit(usize),
    /// A vacant slice is given to a live session.
    Grant(usize, usize),
    /// A handoff begins: slice, to.
    Begin(usize, usize),
    /// Somebody wants the slice's handoff cancelled.
    AskCancel(usize),
    /// A slice is given to another at once: slice, to.
    Move(usize, usize),
    /// The replicas of a slice change.
    Copy(usize),
    /// A slice is cut.
    Split(usize),
    /// A slice and the next are joined.
    Merge(usize),
    /// The wanted consistency changes.
    Flip,
    /// An operator's word that a ghost's process is dead.
    Forget(usize),
    /// A supervisor's proof of death.
    Reaped(usize),
    /// A process dies and another starts in its place.
    Crash(usize),
    /// A process ends in good order and another starts in its place.
    Shutdown(usize),
    /// A node wins the next term: node, proposals inherited, whether its table is old.
    Elect(usize, usize, bool),
    /// A Clerk gets a view from a node.
    Route(usize),
    /// A Clerk learns from a host where slices went.
    Hint(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = |keep: bool| if keep { " (and will again)" } else { "" };
        match *self {
            Step::Tick(0) => write!(f, "a tick passes"),
            Step::Tick(_) => write!(f, "a tick passes, clocks at the other end of their bound"),
            Step::Wake(host) => write!(f, "Slicelet {host} is woken by its timer"),
            Step::WakeNode(node) => write!(f, "Assigner {node} is woken by its timer"),
            Step::Renewal(host, _, node, keep) => {
                let again = again(keep);
                write!(
                    f,
                    "a renewal of Slicelet {host} reaches Assigner {node}{again}"
                )
            }
            Step::Lose(host) => write!(f, "a renewal of Slicelet {host} is lost"),
            Step::Confirm(node) => write!(f, "a quorum confirms the term of Assigner {node}"),
            Step::Fail(node) => write!(f, "the quorum round of Assigner {node} fails"),
            Step::Answer(node) => write!(f, "Assigner {node} hears of the confirmation"),
            Step::Round(node) => write!(
                f,
                "a quorum confirms the term of Assigner {node}, which answers"
            ),
            Step::Reply(host, _, keep) => {
                write!(f, "an answer reaches Slicelet {host}{}", again(keep))
            }
            Step::Push(node, host) => {
                write!(f, "Assigner {node} pushes its view to Slicelet {host}")
            }
            Step::Peer(_) => write!(f, "a message between Slicelets arrives"),
            Step::Drained(host) => write!(f, "the frozen slice of Slicelet {host} is drained"),
            Step::Closing(host) => write!(
                f,
                "the Assigner hears that a session of Slicelet {host} serves nothing any more"
            ),
            Step::Register(host) => write!(f, "Slicelet {host} registers"),
            Step::Ready(node) => write!(f, "Assigner {node} applies the first entry of its term"),
            Step::Commit(node) => write!(f, "the oldest proposal of Assigner {node} is committed"),
            Step::Grant(slice, to) => {
                write!(f, "slice {slice}, vacant, is granted to live session {to}")
            }
            Step::Begin(slice, to) => {
                write!(f, "a handoff of slice {slice} to live session {to} begins")
            }
            Step::AskCancel(slice) => write!(f, "the handoff of slice {slice} is to be cancelled"),
            Step::Move(slice, to) => {
                write!(f, "slice {slice} is to move at once to live session {to}")
            }
            Step::Copy(slice) => write!(f, "the replicas of slice {slice} change"),
            Step::Split(slice) => write!(f, "slice {slice} is split"),
            Step::Merge(slice) => write!(f, "slice {slice} and the next are merged"),
            Step::Flip => write!(f, "an operator changes the wanted consistency"),
            Step::Forget(_) => write!(f, "an operator says that a ghost's process is dead"),
            Step::Reaped(_) => write!(f, "a supervisor says that a session's process is dead"),
            Step::Crash(host) => write!(
                f,
                "Slicelet {host} crashes; a new process starts in its place"
            ),
            Step::Shutdown(host) => write!(
                f,
                "Slicelet {host} ends in good order; a new process starts in its place"
            ),
            Step::Elect(node, keep, stale) => {
                write!(
                    f,
                    "Assigner {node} wins the next term, inheriting {keep} proposal(s)"
                )?;
                if stale {
                    write!(f, ", with an old table")?;
                }
                Ok(())
            }
            Step::Route(node) => write!(f, "a Clerk gets the view of Assigner {node}"),
            Step::Hint(host) => write!(f, "Slicelet {host} tells a Clerk where its slice went"),
        }
    }
}

impl World {
    /// Everything that can happen next. A step that changes nothing may be among them.
    pub fn steps(&self, out: &mut Vec<Step>) {
        out.clear();
        if self.is_over() {
            return;
        }
        if self.bounds.prompt
            && let Some(host) = self.hosts.iter().position(|host| !host.renews.is_empty())
        {
            self.fates_of_renewal(host, out);
            return;
        }
        out.extend((0..self.bounds.ticks().len()).map(Step::Tick));
        for host in 0..self.hosts.len() {
            self.steps_of_host(host, out);
        }
        for node in 0..self.nodes.len() {
            self.steps_of_node(node, out);
        }
        out.extend((0..self.peers.len()).map(Step::Peer));
        if let Some(leader) = self.ready_leader()
            && self.nodes[leader].queue.is_empty()
        {
            self.plans(out);
        }
        if self.left.elections + self.left.faults > 0 {
            for node in 0..self.nodes.len() {
                for keep in 0..=self.nodes[self.log.leader].queue.len() {
                    out.push(Step::Elect(node, keep, false));
                    if self.bounds.stale_tables && !self.nodes[node].table.is(&self.master) {
                        out.push(Step::Elect(node, keep, true));
                    }
                }
            }
        }
    }

    /// A renewal that was just sent arrives somewhere, or is lost.
    fn fates_of_renewal(&self, host: usize, out: &mut Vec<Step>) {
        for node in 0..self.nodes.len() {
            if self.listens(node) {
                out.push(Step::Renewal(host, 0, node, false));
            }
        }
        out.push(Step::Lose(host));
        let leader = self.log.leader;
        if self.ready_leader().is_none() && self.nodes[leader].leading.is_some() {
            out.push(Step::Ready(leader));
        }
    }

    /// Whether it is worth telling a node anything. A leader that is not ready keeps renewals until
    /// it is: they may as well arrive then.
    fn listens(&self, node: usize) -> bool {
        let leading = self.nodes[node].leading.as_ref();
        let ready = leading.is_some_and(|leading| leading.ready || self.bounds.remember_all);
        ready && self.room(node)
    }

    fn steps_of_host(&self, at: usize, out: &mut Vec<Step>) {
        let host = &self.hosts[at];
        if host.wake_at.is_some_and(|at| at <= host.clock()) {
            out.push(Step::Wake(at));
        }
        let again: &[bool] = if self.left.duplicates > 0 {
            &[false, true]
        } else {
            &[false]
        };
        for keep in again {
            for slot in 0..host.renews.len() {
                let nodes = (0..self.nodes.len()).filter(|node| self.listens(*node));
                out.extend(nodes.map(|node| Step::Renewal(at, slot, node, *keep)));
            }
            out.extend((0..host.replies.len()).map(|slot| Step::Reply(at, slot, *keep)));
        }
        for (node, there) in self.nodes.iter().enumerate() {
            let known = host.holder.view().map(|view| view.generation);
            let newer = || {
                there
                    .generation()
                    .is_some_and(|new| known.is_none_or(|known| known < new))
            };
            if there.leading.is_some() && host.holder.session().is_some() && newer() {
                out.push(Step::Push(node, at));
            }
        }
        if !host.draining.is_empty() {
            out.push(Step::Drained(at));
        }
        if !host.closing.is_empty() && self.ready_leader().is_some_and(|l| self.room(l)) {
            out.push(Step::Closing(at));
        }
        let may_register = host.fresh || self.registrations_left > 0;
        if host.holder.session().is_none() && may_register && self.ready_leader().is_some() {
            out.push(Step::Register(at));
        }
        if host.holder.session().is_some() {
            if self.left.crashes + self.left.faults > 0 {
                out.push(Step::Crash(at));
            }
            if self.left.closes > 0 {
                out.push(Step::Shutdown(at));
            }
        }
        if self.router.is_some() {
            out.push(Step::Hint(at));
        }
    }

    fn steps_of_node(&self, at: usize, out: &mut Vec<Step>) {
        let node = &self.nodes[at];
        let newest = at == self.log.leader;
        if newest && self.ready_leader().is_some() && !node.queue.is_empty() {
            out.push(Step::Commit(at));
        }
        let Some(leading) = &node.leading else { return };
        if self.room(at) && leading.wake_at.is_some_and(|due| due <= node.clock()) {
            out.push(Step::WakeNode(at));
        }
        if newest && !leading.ready {
            out.push(Step::Ready(at));
        }
        // Nobody can be elected in between: one instant is as good as two.
        let calm = self.bounds.assigners == 1;
        match leading.round {
            Some((_, false)) if newest && calm => out.push(Step::Round(at)),
            Some((_, false)) if newest => out.push(Step::Confirm(at)),
            Some((_, false)) => out.push(Step::Fail(at)),
            Some((_, true)) => out.push(Step::Answer(at)),
            _ => {}
        }
        if self.router.is_some() {
            out.push(Step::Route(at));
        }
    }

    /// The world after `step`.
    pub fn take(&self, step: Step) -> World {
        let mut next = self.clone();
        next.seen = Seen::default();
        next.benign = true;
        if let Some(notes) = &mut next.notes {
            notes.clear();
        }
        next.go(step);
        next.inspect();
        next
    }

    fn go(&mut self, step: Step) {
        match step {
            Step::Tick(kind) => self.pass_a_tick(kind),
            Step::Wake(host) => self.wake_host(host),
            Step::WakeNode(node) => {
                self.give_grantor(node, leasehold_proto::grantor::Input::Wake);
            }
            Step::Renewal(host, slot, node, keep) => {
                self.duplicate(keep);
                self.benign &= node == self.log.leader;
                self.deliver_renewal(host, slot, node, keep);
            }
            Step::Lose(host) => {
                self.benign = false;
                self.hosts[host].edit().renews.remove(0);
            }
            Step::Confirm(node) => self.confirm(node),
            Step::Fail(node) => self.fail_round(node),
            Step::Answer(node) => self.answer(node),
            Step::Round(node) => {
                self.confirm(node);
                self.answer(node);
            }
            Step::Reply(host, slot, keep) => {
                self.duplicate(keep);
                self.deliver_reply(host, slot, keep);
            }
            Step::Push(node, host) => self.push(node, host),
            Step::Peer(at) => self.deliver_peer(at),
            Step::Drained(host) => self.drained(host),
            Step::Closing(host) => self.deliver_closing(host),
            Step::Register(host) => self.register(host),
            Step::Ready(node) => self.become_ready(node),
            Step::Commit(node) => self.commit_next(node),
            Step::Crash(host) => {
                self.benign = false;
                spend(&mut self.left.crashes, &mut self.left.faults);
                self.replace_process(host);
            }
            Step::Shutdown(host) => {
                self.benign = false;
                self.left.closes -= 1;
                self.shut_down(host);
            }
            Step::Elect(node, keep, stale) => {
                self.benign = false;
                spend(&mut self.left.elections, &mut self.left.faults);
                self.elect(node, keep, stale);
            }
            Step::Route(node) => self.route(node),
            Step::Hint(host) => self.hint(host),
            plan => self.carry_out(plan),
        }
    }

    fn duplicate(&mut self, keep: bool) {
        if keep {
            self.left.duplicates -= 1;
            self.benign = false;
        }
    }

    fn push(&mut self, node: usize, host: usize) {
        let holder = &self.hosts[host].holder;
        let known = holder.view().map(|view| view.generation);
        let state = self.nodes[node].table.target(&super::target());
        let update = state.and_then(|state| state.update_since(known));
        if let (Some(session), Some(update)) = (holder.session(), update) {
            self.give(host, Input::Pushed(session, update));
        }
    }

    /// A tick after which a live session runs out is excused where only time could have helped: its
    /// last renewal was lost, and the next is not due before D.
    fn pass_a_tick(&mut self, kind: usize) {
        let before = self.hosts.clone();
        let pending: Vec<_> = before
            .iter()
            .filter_map(|host| host.holder.session())
            .filter(|id| self.nodes[self.log.leader].has_pending(*id))
            .collect();
        self.tick(kind);
        if self.benign || !self.bounds.live {
            return;
        }
        let Some(leader) = self.ready_leader() else {
            return;
        };
        for session in self.nodes[leader].would_expire() {
            let Some(host) = before.iter().find(|h| h.holder.session() == Some(session)) else {
                continue;
            };
            let woken = host.holder.clone().handle(host.clock(), Input::Wake);
            let due = |action: &Action| matches!(action, Action::Renew(_));
            let under_way = pending.contains(&session)
                || !host.renews.is_empty()
                || !host.replies.is_empty()
                || woken.actions.iter().any(due);
            if !under_way {
                self.seen.mark(Seen::ONLY_TIME_HELPS);
            }
        }
    }
}

/// One of the special kind, or of those that may be of either.
fn spend(special: &mut u8, either: &mut u8) {
    let from = if *special > 0 { special } else { either };
    *from = from.saturating_sub(1);
}
