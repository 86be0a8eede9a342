//! A Slicelet process: its Holder, its clock, and what is under way to and from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_proto::clock::ClockClass;
use leasehold_proto::command::{CloseProof, Command, Digest, Reply};
use leasehold_proto::holder::{Action, Holder, HolderConfig, Input, OnNotReady, Output};
use leasehold_proto::id::HandoffId;
use leasehold_proto::message::{ReadyAnswer, Renew, Renewed};
use leasehold_proto::target::SessionSecret;
use leasehold_proto::{ClockTime, PodAddress, SessionId, Squid};

use super::{Peer, Seen, World, target};
use crate::bounds::Bounds;

/// What the leader answers a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The lease is extended.
    Renewed(Renewed),
    /// The session is closed.
    Closed(SessionId),
}

impl Answer {
    /// To which session.
    pub fn session(&self) -> SessionId {
        match self {
            Answer::Renewed(renewed) => renewed.session,
            Answer::Closed(session) => *session,
        }
    }
}

/// A Slicelet process and its surroundings.
#[derive(Clone, Debug)]
pub struct Host {
    /// What its clock shows, in nanoseconds.
    pub now: u64,
    /// The machine that ships.
    pub holder: Holder,
    /// When its Holder wants to be woken.
    pub wake_at: Option<ClockTime>,
    /// Its number: the last byte of its address.
    pub index: usize,
    /// Whether its process has never had a session.
    pub fresh: bool,
    /// How many processes have lived here: the random part of the Squid.
    pub object: u64,
    /// Renewals under way, oldest first, each with its age in ticks.
    pub renews: Vec<(Renew, u64)>,
    /// Answers under way, oldest first, each with the age of what it answers.
    pub replies: Vec<(Answer, u64)>,
    /// Handoffs whose slice is frozen and not yet drained.
    pub draining: BTreeSet<HandoffId>,
    /// Its own words that a session serves nothing any more, under way.
    pub closing: Vec<SessionId>,
}

fn holder(bounds: &Bounds) -> Holder {
    Holder::new(HolderConfig {
        handoff_deadline: bounds.handoff_deadline(),
        on_not_ready: OnNotReady::Stay,
        ..HolderConfig::default()
    })
}

impl Host {
    /// The first process at this address, without a session.
    pub fn new(index: usize, bounds: &Bounds) -> Self {
        Self {
            now: (1_000 + 100 * index as u64) * 1_000_000_000,
            holder: holder(bounds),
            wake_at: None,
            index,
            fresh: true,
            object: 1,
            renews: Vec::new(),
            replies: Vec::new(),
            draining: BTreeSet::new(),
            closing: Vec::new(),
        }
    }

    /// The clock's reading.
    pub fn clock(&self) -> ClockTime {
        ClockTime::from_nanos(self.now)
    }

    fn squid(&self) -> Option<Squid> {
        let address = PodAddress::new(&format!("pod-{}:9000", self.index)).ok()?;
        Some(Squid {
            address,
            id: u128::from(self.object),
        })
    }

    /// A tick passes: loses what has been under way for `life` ticks; whether there was any.
    pub(super) fn lose_older_than(&mut self, life: u64) -> bool {
        let before = self.renews.len() + self.replies.len();
        self.renews.iter_mut().for_each(|(_, age)| *age += 1);
        self.replies.iter_mut().for_each(|(_, age)| *age += 1);
        self.renews.retain(|(_, age)| *age < life);
        self.replies.retain(|(_, age)| *age < life);
        before != self.renews.len() + self.replies.len()
    }
}

impl World {
    pub(super) fn wake_host(&mut self, at: usize) {
        self.give(at, Input::Wake);
    }

    /// Hands one input to the Holder and carries out what it says.
    pub(super) fn give(&mut self, at: usize, input: Input) {
        let host = self.hosts[at].edit();
        let arriving = host.holder.arriving().count();
        let surrendered = matches!(&input, Input::ReadyAnswered(ReadyAnswer::Surrendered(_)));
        let out = host.holder.handle(host.clock(), input);
        host.wake_at = out.wake_at;
        let accepted = host.holder.arriving().count() < arriving;
        if surrendered {
            self.seen.mark(if accepted {
                Seen::ACCEPTED_DIRECTLY
            } else {
                Seen::SURRENDER_TOO_EARLY_OR_LATE
            });
        }
        self.host_says(at, out);
    }

    fn host_says(&mut self, at: usize, out: Output) {
        for action in out.actions {
            self.note(|| format!("Slicelet {at}: {action:?}"));
            match action {
                Action::Renew(renew) => self.send_renewal(at, renew),
                Action::SayClosed(session) => self.say_closed(at, session),
                // The host may register at any later instant.
                Action::Register => {}
                // An application that takes its time is a *ready* that takes its time.
                Action::Prepare { handoff, .. } => self.give(at, Input::Prepared(handoff)),
                Action::SendReady(ready, _) => {
                    if let Some(host) = self.home(ready.from) {
                        self.send(Peer::Ready(host, ready));
                    }
                }
                Action::AnswerReady(ready, answer) => {
                    if let ReadyAnswer::NotMine(_) = answer {
                        self.seen.mark(Seen::NOT_MINE);
                    }
                    if let Some(host) = self.home(ready.to) {
                        self.send(Peer::Answer(host, answer));
                    }
                }
                Action::Freeze { handoff, .. } => {
                    self.hosts[at].edit().draining.insert(handoff);
                }
            }
        }
    }

    fn send(&mut self, message: Peer) {
        if !self.peers.contains(&message) {
            self.peers.edit().push(message);
        }
    }

    fn send_renewal(&mut self, at: usize, renew: Renew) {
        let slots = self.bounds.slots;
        let host = self.hosts[at].edit();
        if host.renews.len() >= slots {
            // A later transmission of the same session says all that an earlier one did.
            self.benign &= host.renews.remove(0).0.session == renew.session;
        }
        host.renews.push((renew, 0));
    }

    pub(super) fn send_reply(&mut self, at: usize, answer: Answer, age: u64) {
        let slots = self.bounds.slots;
        let host = self.hosts[at].edit();
        if host.replies.len() >= slots {
            self.benign &= host.replies.remove(0).0.session() == answer.session();
        }
        host.replies.push((answer, age));
    }

    /// The word matters to a ghost only: the table knows of no other closed session.
    fn say_closed(&mut self, at: usize, session: SessionId) {
        let known = self
            .state()
            .is_some_and(|state| state.session(session).is_some());
        if known {
            self.hosts[at].edit().closing.push(session);
        }
    }

    pub(super) fn deliver_reply(&mut self, at: usize, slot: usize, keep: bool) {
        let Some((answer, _)) = self.hosts[at].replies.get(slot).cloned() else {
            return;
        };
        if !keep {
            self.hosts[at].edit().replies.remove(slot);
        }
        match answer {
            Answer::Renewed(renewed) => self.give(at, Input::Renewed(renewed)),
            Answer::Closed(session) => self.give(at, Input::Closed(session)),
        }
    }

    pub(super) fn deliver_peer(&mut self, at: usize) {
        let Some(message) = self.peers.get(at).cloned() else {
            return;
        };
        self.note(|| format!("delivered: {message:?}"));
        match message {
            Peer::Ready(host, ready) => self.give(host, Input::Ready(ready)),
            Peer::Answer(host, answer) => self.give(host, Input::ReadyAnswered(answer)),
        }
    }

    pub(super) fn drained(&mut self, at: usize) {
        if let Some(handoff) = self.hosts[at].edit().draining.pop_first() {
            self.give(at, Input::Drained(handoff, Digest::EMPTY));
        }
    }

    /// The word of a host that a session serves nothing any more reaches the leader.
    pub(super) fn deliver_closing(&mut self, at: usize) {
        let session = self.hosts[at].edit().closing.remove(0);
        self.propose(Command::CloseSession {
            target: target(),
            session,
            proof: CloseProof::OwnWord,
        });
    }

    /// Registers the process, in one instant.
    pub(super) fn register(&mut self, at: usize) {
        let Some(squid) = self.hosts[at].squid() else {
            return;
        };
        let reply = self.commit(Command::RegisterSession {
            target: target(),
            squid,
            clock: ClockClass::Slewed,
            secret: SessionSecret::from_bytes([7; 16]),
            app_version: String::new(),
        });
        if let Some(Reply::Registered(registered)) = reply {
            Arc::make_mut(&mut self.homes).push((registered.session, at));
            if !std::mem::replace(&mut self.hosts[at].edit().fresh, false) {
                self.registrations_left = self.registrations_left.saturating_sub(1);
            }
            self.give(
                at,
                Input::Registered {
                    session: registered.session,
                    ttl: registered.ttl,
                    not_before: registered.not_before,
                },
            );
        }
    }

    /// The process is gone and another lives at its address. What it sent is still under way.
    pub(super) fn replace_process(&mut self, at: usize) {
        let fresh = holder(&self.bounds);
        let host = self.hosts[at].edit();
        host.holder = fresh;
        host.object += 1;
        host.fresh = true;
        host.wake_at = None;
        host.replies.clear();
        host.draining.clear();
    }

    /// The process ends in good order: it serves nothing any more and says so.
    pub(super) fn shut_down(&mut self, at: usize) {
        let session = self.hosts[at].holder.session();
        self.give(at, Input::Shutdown);
        if let Some(session) = session {
            self.hosts[at].edit().closing.push(session);
        }
        self.replace_process(at);
    }
}
