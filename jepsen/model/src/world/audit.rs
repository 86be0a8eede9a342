//! What must hold in every state: the invariants of the protocol.

use std::collections::BTreeSet;

use leasehold_proto::command::Command;
use leasehold_proto::holder::{Part, Verdict};
use leasehold_proto::table::{Event, Outcome};
use leasehold_proto::target::Consistency;
use leasehold_proto::{Epoch, Mode, SessionId, Slice, SliceKey};

use super::{World, keys, target};

/// What was seen to happen in one step, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u32);

macro_rules! sights {
    ($($name:ident: $text:literal,)*) => {
        sights!(@number 0; $($name: $text,)*);

        /// What each is called.
        pub const SIGHTS: &[(Seen, &str)] = &[$((Seen::$name, $text),)*];
    };
    (@number $bit:expr; $name:ident: $text:literal, $($rest:tt)*) => {
        impl Seen {
            #[doc = $text]
            pub const $name: Seen = Seen(1 << $bit);
        }
        sights!(@number $bit + 1; $($rest)*);
    };
    (@number $bit:expr;) => {};
}

sights! {
    ACCEPTED_DIRECTLY: "a destination owns by the direct surrender",
    SURRENDER_TOO_EARLY_OR_LATE: "a surrender arrives for a handoff that the view does not show, or again",
    NOT_MINE: "a process is asked about a session that it does not hold",
    COMPLETED_BY_WORD: "a handoff completed by a word",
    COMPLETED_BY_EXPIRY: "a handoff completed by the expiry of its source",
    COMPLETED_VACANT: "a handoff completed to a closed destination: vacant",
    CANCELLED: "a handoff cancelled by the source's word",
    EXPIRY_DECIDED: "an expiry decided by the first leader",
    NEW_LEADER_WAITED: "an expiry decided by a new leader, which waited D",
    EXPIRED: "a session expired",
    EXPIRY_REFUSED: "an expiry of another term refused",
    TAIL_INHERITED: "a new leader inherited a proposal",
    ANSWER_OF_A_DEPOSED_LEADER: "an answer left after its leader was deposed",
    GHOST_MADE: "a session became a ghost",
    ARMED: "an arming ended: the target is strong",
    SPLIT: "a slice split",
    MERGED: "slices merged",
    COPIED: "replicas changed",
    REROUTED: "a Clerk followed a hint",
    ONLY_TIME_HELPS: "a live session must expire because its renewals were lost",
}

impl Seen {
    /// Adds another.
    pub fn mark(&mut self, other: Seen) {
        self.0 |= other.0;
    }

    /// Whether `other` is among them.
    pub fn has(self, other: Seen) -> bool {
        self.0 & other.0 != 0
    }
}

/// What was owned, for the invariants that look back.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The largest epoch at which each key was owned, and by whom.
    pub top: [Option<(Epoch, SessionId)>; 2],
    /// The same, counting only what was owned in strong mode.
    pub strong: [Option<Epoch>; 2],
    /// Epochs of cancelled handoffs, with the key.
    pub cancelled: BTreeSet<(usize, Epoch)>,
}

impl World {
    fn mode(&self) -> Mode {
        self.state().map_or(Mode::Strong, |state| state.mode())
    }

    /// Looks at every process: who passes a check, and may it?
    pub(super) fn inspect(&mut self) {
        let mut passing: [Option<SessionId>; 2] = [None; 2];
        for at in 0..self.hosts.len() {
            for k in 0..keys(&self.bounds).len() {
                let key = keys(&self.bounds)[k];
                let host = &self.hosts[at];
                let (Verdict::Owned(epoch), Some(session)) =
                    (host.holder.check(key, host.clock()), host.holder.session())
                else {
                    continue;
                };
                let owner = host
                    .holder
                    .local()
                    .iter()
                    .any(|local| local.slice.contains(key) && local.part == Part::Owner);
                if owner {
                    self.audit_epoch(k, epoch, session);
                }
                if self.mode() == Mode::Strong {
                    self.audit_strong(k, key, epoch, session, &mut passing);
                }
            }
            self.audit_roles(at);
        }
    }

    /// A token has one session; a cancelled epoch has none.
    fn audit_epoch(&mut self, k: usize, epoch: Epoch, session: SessionId) {
        if self.ledger.cancelled.contains(&(k, epoch)) {
            self.fail(|| format!("a cancelled handoff took effect: {session} owns at {epoch}"));
        }
        match self.ledger.top[k] {
            Some((top, user)) if top == epoch && user != session => {
                self.fail(|| {
                    format!("a token was used twice: {session} owns at {epoch}, as {user} did")
                });
            }
            Some((top, _)) if top >= epoch => {}
            _ => self.ledger.edit().top[k] = Some((epoch, session)),
        }
    }

    fn audit_strong(
        &mut self,
        k: usize,
        key: SliceKey,
        epoch: Epoch,
        session: SessionId,
        passing: &mut [Option<SessionId>; 2],
    ) {
        if let Some(other) = passing[k].replace(session) {
            self.fail(|| format!("two owners: {other} and {session} both pass a check of {key}"));
        }
        // Stronger: the table knows whoever may pass, so that none can be given a slice beside it.
        let known = self
            .state()
            .and_then(|state| state.slice_of(key))
            .is_some_and(|(_, a)| {
                a.owner.is_some_and(|owner| owner.session == session)
                    || a.handoff
                        .is_some_and(|h| h.to == session && h.epoch == epoch)
            });
        if !known {
            self.fail(|| format!("unknown owner: {session} passes a check of {key} at {epoch}, and the table does not know"));
        }
        match self.ledger.strong[k] {
            Some(top) if epoch < top => {
                self.fail(|| format!("an epoch fell: {key} from {top} to {epoch} ({session})"));
            }
            Some(top) if epoch == top => {}
            _ => self.ledger.edit().strong[k] = Some(epoch),
        }
    }

    /// One role per session and slice: the parts of a Slicelet are in order and share no key.
    fn audit_roles(&mut self, at: usize) {
        let apart =
            |pair: &[leasehold_proto::holder::Local]| pair[0].slice.last() < pair[1].slice.first();
        let local = self.hosts[at].holder.local();
        if !local.windows(2).all(apart) {
            self.fail(|| format!("Slicelet {at} has two parts in one slice"));
        }
    }

    /// What a committed entry did to handoffs, and whether the table is still in order.
    pub(super) fn audit_commit(&mut self, command: &Command, outcome: &Outcome) {
        for event in &outcome.events {
            let Event::HandoffEnded {
                handoff, completed, ..
            } = event
            else {
                continue;
            };
            let was = self.state().and_then(|state| state.handoff(*handoff));
            let Some((slice, _, handoff)) = was else {
                continue;
            };
            let cancels = matches!(
                command,
                Command::CancelHandoff { .. } | Command::AskCancel { .. }
            );
            self.seen.mark(match command {
                _ if cancels => Seen::CANCELLED,
                Command::ExpireSession { .. } if *completed => Seen::COMPLETED_BY_EXPIRY,
                _ if handoff.to_closed => Seen::COMPLETED_VACANT,
                _ => Seen::COMPLETED_BY_WORD,
            });
            if cancels {
                self.ban(slice, handoff.epoch);
            }
        }
        self.audit_events(command, outcome);
    }

    fn audit_events(&mut self, command: &Command, outcome: &Outcome) {
        let strong = self.mode() == Mode::Strong;
        for event in &outcome.events {
            match event {
                Event::SessionClosed(_) if matches!(command, Command::ExpireSession { .. }) => {
                    self.seen.mark(Seen::EXPIRED);
                    if !strong {
                        self.seen.mark(Seen::GHOST_MADE);
                    }
                }
                _ => {}
            }
        }
    }

    /// The epoch of a cancelled handoff is never used: not before, not later.
    fn ban(&mut self, slice: Slice, epoch: Epoch) {
        for (k, key) in keys(&self.bounds).iter().enumerate() {
            if slice.contains(*key) {
                self.ledger.edit().cancelled.insert((k, epoch));
                if let Some((top, user)) = self.ledger.top[k]
                    && top == epoch
                {
                    self.fail(|| {
                        format!("a cancelled handoff had taken effect: {user} owned at {epoch}")
                    });
                }
            }
        }
    }

    /// The table itself: no owner beside itself, no copies in strong mode.
    pub(super) fn audit_table(&mut self, before: Mode) {
        let mode = self.mode();
        if matches!(before, Mode::Arming(_)) && mode == Mode::Strong {
            self.seen.mark(Seen::ARMED);
        }
        let bad = self
            .state()
            .into_iter()
            .flat_map(|state| state.slices())
            .any(|(_, a)| {
                let owner = a.owner.map(|owner| owner.session);
                let twice = owner.is_some_and(|id| a.replicas.contains(&id))
                    || (owner.is_some() && a.handoff.map(|h| h.to) == owner);
                twice || (mode == Mode::Strong && !a.replicas.is_empty())
            });
        if bad {
            self.fail(|| {
                "the table gives a session two roles in one slice, or copies in strong mode".into()
            });
        }
    }

    /// What liveness wants to be reached: every slice served by its live owner, no handoff open,
    /// the wanted mode reached.
    pub fn settled(&self) -> bool {
        let Some(state) = self.state() else {
            return false;
        };
        let wanted = match state.config().consistency {
            Consistency::Strong => Mode::Strong,
            Consistency::Eventual => Mode::Eventual,
        };
        let served = |key: SliceKey| {
            let Some((_, assigned)) = state.slice_of(key) else {
                return false;
            };
            let (Some(owner), None) = (assigned.owner, assigned.handoff) else {
                return false;
            };
            self.hosts.iter().any(|host| {
                host.holder.session() == Some(owner.session)
                    && host.holder.check(key, host.clock()) == Verdict::Owned(owner.epoch)
            })
        };
        // Who may not register any more can own nothing: a bound of the world, not of the protocol.
        if self.nobody_is_left() {
            return true;
        }
        state.mode() == wanted && keys(&self.bounds).iter().all(|key| served(*key))
    }

    /// Whether no session is live and, unless something else goes wrong, none ever will be.
    fn nobody_is_left(&self) -> bool {
        let live = self
            .state()
            .is_some_and(|state| state.live_sessions().next().is_some());
        !live && self.registrations_left == 0 && !self.hosts.iter().any(|host| host.fresh)
    }

    /// Whether nothing worth looking at can happen any more: nobody can own anything.
    pub(super) fn is_over(&self) -> bool {
        let most = &self.left;
        let more = most.crashes + most.faults + most.closes;
        more == 0 && self.mode() == Mode::Strong && self.nobody_is_left()
    }

    /// A Clerk gets the view of a node.
    pub(super) fn route(&mut self, node: usize) {
        let Some(router) = self.router.clone() else {
            return;
        };
        let state = self.nodes[node].table.target(&target());
        if let Some(update) = state.and_then(|state| state.update_since(router.generation())) {
            let mut next = router.clone();
            // A gap is no failure: a full view follows.
            let _ = next.edit().update(update);
            self.router_moves(router, next);
        }
    }

    /// A Clerk learns from a pod where its slices went.
    pub(super) fn hint(&mut self, host: usize) {
        let Some(router) = self.router.clone() else {
            return;
        };
        let gone = self.hosts[host]
            .holder
            .local()
            .iter()
            .find_map(|local| match &local.part {
                Part::Gone(moved) => Some((**moved).clone()),
                _ => None,
            });
        if let Some(moved) = gone {
            let mut next = router.clone();
            if next.edit().learn(moved) {
                self.seen.mark(Seen::REROUTED);
            }
            self.router_moves(router, next);
        }
    }

    /// A Router never points backwards.
    fn router_moves(
        &mut self,
        before: crate::part::Part<leasehold_proto::router::Router>,
        after: crate::part::Part<leasehold_proto::router::Router>,
    ) {
        if after.generation() < before.generation() {
            self.fail(|| "a Router went back to an older view".into());
        }
        for key in keys(&self.bounds) {
            let (was, is) = (before.epoch(*key), after.epoch(*key));
            if is.is_some() && is < was {
                self.fail(|| format!("a Router points backwards: {key} from {was:?} to {is:?}"));
            }
            let table = after.table();
            let led = table
                .lookup(*key)
                .and_then(|route| table.pod(route.pod))
                .map(|(id, _)| *id);
            let hint = after
                .hints()
                .find(|hint| hint.slice.contains(*key))
                .map(|hint| hint.session);
            let owner = after
                .view()
                .and_then(|view| view.get(*key).1.owner)
                .map(|lease| lease.session);
            if led != hint.or(owner) {
                self.fail(|| format!("a Router leads {key} to {led:?}, not {hint:?} or {owner:?}"));
            }
        }
        self.router = Some(after);
    }
}
