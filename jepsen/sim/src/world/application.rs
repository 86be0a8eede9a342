//! The application in each Slicelet: operations that take time, under guards.
//!
//! An operation begins with an ownership check, whose result is its guard. Any other event may come
//! between its steps, so that a process is paused, cut off or superseded in the middle of it. It
//! asks its guard again (`verify`) before its effect and before its reply. On fenced keys the owner
//! installs its token before the read that it serves from, and keeps the value in memory.

use leasehold_proto::holder::{Part, Verdict};
use leasehold_proto::{FencingToken, SessionId, Slice};

use super::memory::Memory;
use super::store::{Answer, Ask, StoreReply, StoreRequest, is_fenced};
use super::{KEYS, Message, World, key};
use crate::coverage::Seen;
use crate::options::Fault;
use crate::planted;

/// Operations of one process at a time.
const AT_ONCE: usize = 4;

/// What a process keeps of a fenced key while it owns it under one token.
#[derive(Clone, Copy, Debug)]
pub struct Cached {
    token: FencingToken,
    version: u64,
    /// Writes applied under the token.
    writes: u64,
}

/// One request of a client, and its guard.
#[derive(Clone, Debug)]
pub struct Operation {
    id: u64,
    write: bool,
    k: usize,
    session: SessionId,
    token: FencingToken,
    /// Given under a lapsed lease: only the store's fence decides.
    lapsed: bool,
    /// The guard: whether ownership was never interrupted since it was given.
    pub valid: bool,
    /// The strong period in which it was given, if in one.
    strong: Option<u64>,
    /// What a read must return at least.
    floor: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Entered,
    /// Waits for the fence; afterwards it reads.
    Fencing {
        load: u64,
    },
    Loading {
        load: u64,
    },
    Loaded,
    /// A read has its value.
    Took(u64),
    /// A write has seen this version, in memory or in the store that cannot be fenced.
    Seen {
        number: u64,
        base: u64,
    },
    /// Verified; the effect comes later.
    Cleared {
        number: u64,
        base: u64,
    },
    Sent {
        number: u64,
        base: u64,
    },
    Written(u64),
}

/// An application's state in one process.
#[derive(Default)]
pub struct Application {
    pub operations: Vec<Operation>,
    memory: [Option<Cached>; KEYS],
    /// Raised when memory is dropped: an earlier load must not bring it back.
    loads: [u64; KEYS],
    /// What is in no store, only here.
    pub kept: Memory,
}

impl Application {
    /// Whether a guard for a key of `slice` is in flight.
    pub fn guards(&self, slice: Slice) -> bool {
        let inside = |op: &Operation| op.valid && slice.contains(key(op.k));
        self.operations.iter().any(inside) || self.kept.guards(slice)
    }

    /// Guards of `slice` fail to verify from now on.
    pub fn cut_off(&mut self, slice: Slice) {
        self.kept.cut_off(|k, _| slice.contains(key(k)));
        for op in &mut self.operations {
            if slice.contains(key(op.k)) {
                op.valid = false;
            }
        }
    }

    /// Nobody waits for anything any more; what a lost write left in memory may be old.
    pub fn abandon(&mut self) {
        self.operations.clear();
        self.kept.abandon();
        for k in 0..KEYS {
            self.forget(k);
        }
    }

    fn forget(&mut self, k: usize) {
        self.memory[k] = None;
        self.loads[k] += 1;
    }

    fn usable(&self, op: &Operation) -> Option<Cached> {
        let kept = planted("memory_kept_across_tokens");
        self.memory[op.k].filter(|memory| memory.token == op.token || kept)
    }
}

impl World {
    /// Some process begins an operation, or gets on with one.
    pub(super) fn application_step(&mut self) {
        let at = self.rng.index(self.hosts.len());
        if !self.hosts[at].runs() {
            return;
        }
        if self.adversity.stateful && self.rng.chance(40) {
            return self.memory_step(at);
        }
        let busy = self.hosts[at].application.operations.len();
        if busy < AT_ONCE && (busy == 0 || self.rng.chance(30)) {
            self.begin_operation(at);
        } else {
            let index = self.rng.index(busy);
            self.continue_operation(at, index);
        }
    }

    fn begin_operation(&mut self, at: usize) {
        let host = &self.hosts[at];
        let Some(session) = host.holder.session() else {
            return;
        };
        let mut k = self.rng.index(KEYS);
        if host.holding.owns != 0 {
            while host.holding.owns >> k & 1 == 0 {
                k = (k + 1) % KEYS;
            }
        }
        let owns = host.holding.owns >> k & 1 == 1;
        let (epoch, lapsed) = match host.holder.check(key(k), host.clock.now()) {
            // A replica's token is its owner's: it serves copies, and nothing here asks for those.
            Verdict::Owned(epoch) if owns => (epoch, false),
            // What cannot be fenced is not touched under a lapsed lease.
            Verdict::Fenced(epoch) if is_fenced(k) => (epoch, true),
            _ => return,
        };
        let writing = host
            .application
            .operations
            .iter()
            .any(|op| op.k == k && op.write);
        let write = lapsed || self.rng.chance(60);
        if writing && (write || !is_fenced(k)) {
            return;
        }
        self.next_operation += 1;
        let op = Operation {
            id: self.next_operation,
            write: write || !is_fenced(k),
            k,
            session,
            token: epoch.token(),
            lapsed,
            valid: true,
            strong: self.check.strong_period().filter(|_| !lapsed),
            floor: self.check.reads.floor(k),
            stage: Stage::Entered,
        };
        self.note(|| format!("host {at}: begins {op:?}"));
        self.hosts[at].application.operations.push(op);
    }

    /// Something in flight gets on.
    pub(super) fn continue_any(&mut self, at: usize) {
        let application = &self.hosts[at].application;
        let (stored, kept) = (application.operations.len(), application.kept.busy());
        let index = self.rng.index((stored + kept).max(1));
        match index.checked_sub(stored) {
            None => self.continue_operation(at, index),
            Some(index) => self.continue_in_memory(at, index),
        }
    }

    pub(super) fn continue_operation(&mut self, at: usize, index: usize) {
        let Some(op) = self.hosts[at].application.operations.get(index).cloned() else {
            return;
        };
        match op.stage {
            Stage::Entered if !is_fenced(op.k) => {
                let base = self.store.version(op.k);
                self.hosts[at].application.operations[index].stage =
                    Stage::Seen { number: 0, base };
            }
            Stage::Entered => self.load(at, index, &op),
            Stage::Loaded => self.take_value(at, index, &op),
            Stage::Took(version) => {
                if self.verify(at, &op) {
                    self.reply_to_read(at, &op, version);
                }
                self.end(at, op.id);
            }
            Stage::Seen { number, base } => self.clear(at, index, &op, number, base),
            Stage::Cleared { number, base } => self.effect(at, index, &op, number, base),
            Stage::Sent { number, base } => self.send_again(at, &op, number, base),
            Stage::Written(version) => {
                if self.verify(at, &op) {
                    self.note(|| {
                        format!("host {at}: acknowledges version {version} of key {}", op.k)
                    });
                    self.check.reads.known(op.k, version);
                    self.served += 1;
                } else {
                    self.coverage.see(Seen::WriteAckUnverified);
                }
                self.end(at, op.id);
            }
            Stage::Fencing { .. } | Stage::Loading { .. } => {
                // A request or its answer may be lost: begin again.
                if self.rng.chance(20) {
                    self.hosts[at].application.operations[index].stage = Stage::Entered;
                }
            }
        }
    }

    /// ◆ Fence before read.
    fn load(&mut self, at: usize, index: usize, op: &Operation) {
        let application = &mut self.hosts[at].application;
        if application.usable(op).is_some() {
            application.operations[index].stage = Stage::Loaded;
            return;
        }
        let load = application.loads[op.k];
        if planted("fence_after_read") {
            application.operations[index].stage = Stage::Loading { load };
            self.ask(at, op, Ask::Read);
        } else {
            application.operations[index].stage = Stage::Fencing { load };
            self.ask(at, op, Ask::Fence);
        }
    }

    fn take_value(&mut self, at: usize, index: usize, op: &Operation) {
        let application = &mut self.hosts[at].application;
        let Some(memory) = application.usable(op) else {
            application.operations[index].stage = Stage::Entered;
            return;
        };
        application.operations[index].stage = if op.write {
            let (number, base) = (memory.writes + 1, memory.version);
            Stage::Seen { number, base }
        } else {
            Stage::Took(memory.version)
        };
    }

    fn verify(&mut self, at: usize, op: &Operation) -> bool {
        self.verify_guard(at, op.valid, op.lapsed)
    }

    /// Whether the owner may still act: ownership was never interrupted, and the lease runs.
    pub(super) fn verify_guard(&mut self, at: usize, valid: bool, lapsed: bool) -> bool {
        if planted("application_does_not_verify") || planted("verify_always_passes") {
            return true;
        }
        let host = &self.hosts[at];
        let now = host.clock.now();
        let runs = host
            .holder
            .deadline()
            .is_some_and(|deadline| now < deadline);
        let seen = match (valid, lapsed || runs) {
            (false, _) => Seen::VerifyRevoked,
            (true, false) => Seen::VerifyLapsed,
            (true, true) => Seen::GuardVerified,
        };
        self.coverage.see(seen);
        seen == Seen::GuardVerified
    }

    fn clear(&mut self, at: usize, index: usize, op: &Operation, number: u64, base: u64) {
        if is_fenced(op.k) || planted("application_does_not_verify") {
            if !self.verify(at, op) {
                return self.end(at, op.id);
            }
            if planted("reply_before_effect") {
                self.check.reads.known(op.k, base + 1);
            }
            self.hosts[at].application.operations[index].stage = Stage::Cleared { number, base };
        } else {
            // Nothing between verify and an effect that cannot be fenced.
            if self.verify(at, op) {
                self.coverage.see(Seen::UnfencedEffect);
                self.unfenced_effect(at, op, base);
            }
            self.end(at, op.id);
        }
    }

    fn effect(&mut self, at: usize, index: usize, op: &Operation, number: u64, base: u64) {
        if is_fenced(op.k) {
            self.hosts[at].application.operations[index].stage = Stage::Sent { number, base };
            if op.lapsed {
                self.coverage.see(Seen::FencedWrite);
            }
            self.ask(at, op, Ask::Write { number, base });
        } else {
            self.unfenced_effect(at, op, base);
            self.end(at, op.id);
        }
    }

    fn unfenced_effect(&mut self, at: usize, op: &Operation, base: u64) {
        self.note(|| format!("host {at}: effect on key {} over version {base}", op.k));
        self.served += 1;
        let judged = self.store.effect(op.k, "an owner", base);
        if op.strong.is_some() && op.strong == self.check.strong_period() {
            self.check.judge_timed(judged);
        }
    }

    /// No answer yet: ask again, or give up without knowing. What is in memory may then be old.
    fn send_again(&mut self, at: usize, op: &Operation, number: u64, base: u64) {
        if self.rng.chance(self.adversity.chance(Fault::Impatience)) {
            self.coverage.see(Seen::WriteUnknown);
            self.hosts[at].application.forget(op.k);
            self.end(at, op.id);
        } else if self.rng.chance(50) {
            let number = number + u64::from(planted("retry_as_a_new_write"));
            let operation = op.id
                + if planted("retry_as_a_new_write") {
                    1 << 40
                } else {
                    0
                };
            let again = Operation {
                id: operation,
                ..op.clone()
            };
            self.ask(at, &again, Ask::Write { number, base });
        }
    }

    fn ask(&mut self, at: usize, op: &Operation, ask: Ask) {
        let request = StoreRequest {
            operation: op.id,
            k: op.k,
            token: op.token,
            ask,
        };
        let process = self.hosts[at].squid.id;
        self.send(Message::ToStore {
            host: at,
            process,
            request,
        });
    }

    pub(super) fn store_takes(&mut self, host: usize, process: u128, request: StoreRequest) {
        let (answer, judged) = self.store.take(request);
        match (request.ask, answer) {
            (Ask::Write { .. }, Answer::Rejected { old_token: true }) => {
                self.coverage.see(Seen::OldTokenRejected)
            }
            (Ask::Fence, Answer::Rejected { old_token: true }) => {
                self.coverage.see(Seen::OldFenceRejected)
            }
            (_, Answer::Written { repeated: true, .. }) => self.coverage.see(Seen::WriteRepeated),
            _ => {}
        }
        self.note(|| format!("the store answers {answer:?}"));
        self.check.judge(judged);
        let reply = StoreReply {
            operation: request.operation,
            answer,
        };
        self.send(Message::FromStore {
            host,
            process,
            reply,
        });
    }

    pub(super) fn store_answered(&mut self, at: usize, process: u128, reply: StoreReply) {
        let host = &mut self.hosts[at];
        let of_reply = |op: &Operation| op.id == reply.operation;
        let index = host.application.operations.iter().position(of_reply);
        let Some(index) = index.filter(|_| host.squid.id == process) else {
            return;
        };
        let op = host.application.operations[index].clone();
        let late_fence = planted("fence_after_read");
        let next = match (op.stage, reply.answer) {
            (Stage::Fencing { .. }, Answer::Fenced) if late_fence => Stage::Entered,
            (Stage::Fencing { load }, Answer::Fenced) => {
                self.ask(at, &op, Ask::Read);
                Stage::Loading { load }
            }
            (Stage::Loading { load }, Answer::Value { version, writes }) => {
                self.remember(at, &op, load, version, writes);
                if late_fence {
                    self.ask(at, &op, Ask::Fence);
                    Stage::Fencing { load }
                } else {
                    Stage::Entered
                }
            }
            (Stage::Sent { number, .. }, Answer::Written { version, .. }) => {
                let memory = &mut self.hosts[at].application.memory[op.k];
                if let Some(memory) = memory.as_mut().filter(|memory| memory.token == op.token) {
                    (memory.version, memory.writes) = (version, number);
                }
                Stage::Written(version)
            }
            (Stage::Sent { .. } | Stage::Fencing { .. }, Answer::Rejected { .. }) => {
                self.hosts[at].application.forget(op.k);
                return self.end(at, op.id);
            }
            _ => return,
        };
        self.hosts[at].application.operations[index].stage = next;
    }

    fn remember(&mut self, at: usize, op: &Operation, load: u64, version: u64, writes: u64) {
        let application = &mut self.hosts[at].application;
        let newer = application.memory[op.k].is_none_or(|memory| memory.token < op.token);
        if load != application.loads[op.k] || !newer {
            return;
        }
        application.memory[op.k] = Some(Cached {
            token: op.token,
            version,
            writes,
        });
        if version > 0 && writes == 0 {
            self.coverage.see(Seen::ValueInherited);
        }
    }

    fn reply_to_read(&mut self, at: usize, op: &Operation, version: u64) {
        self.served += 1;
        if op.strong.is_none() || op.strong != self.check.strong_period() {
            return;
        }
        self.coverage.see(Seen::ReadFromMemory);
        self.note(|| {
            format!(
                "host {at}: a read of key {} returns version {version}",
                op.k
            )
        });
        let reader = op.session.to_string();
        let judged = self
            .check
            .reads
            .invariant_no_read_is_stale(op.k, &reader, op.floor, version);
        self.check.judge_timed(judged);
    }

    /// The guard is dropped.
    fn end(&mut self, at: usize, operation: u64) {
        self.hosts[at]
            .application
            .operations
            .retain(|op| op.id != operation);
    }

    /// Guards of what is no longer owned, or was owned by another session, fail from now on.
    pub(super) fn revoke_guards(&mut self, at: usize) {
        if planted("guards_outlive_the_surrender") {
            return;
        }
        let host = &mut self.hosts[at];
        if host.application.operations.is_empty() && host.application.kept.busy() == 0 {
            return;
        }
        let session = host.holder.session();
        let local = host.holder.local();
        let lost = |k: usize, of: SessionId| {
            let kept = local.iter().any(|local| {
                local.slice.contains(key(k))
                    && matches!(local.part, Part::Owner | Part::Frozen(_) | Part::Replica)
            });
            !kept || session != Some(of)
        };
        for op in &mut host.application.operations {
            op.valid &= !lost(op.k, op.session);
        }
        host.application.kept.cut_off(lost);
    }

    /// Whether `at` acknowledges one operation on key number `k`, its messages delivered at once.
    pub(super) fn serve(&mut self, at: usize, k: usize, write: bool) -> bool {
        let host = &self.hosts[at];
        let (Some(session), Verdict::Owned(epoch)) = (
            host.holder.session(),
            host.holder.check(key(k), host.clock.now()),
        ) else {
            return false;
        };
        self.next_operation += 1;
        let id = self.next_operation;
        self.hosts[at].application.operations.push(Operation {
            id,
            write: write || !is_fenced(k),
            k,
            session,
            token: epoch.token(),
            lapsed: false,
            valid: true,
            strong: self.check.strong_period(),
            floor: self.check.reads.floor(k),
            stage: Stage::Entered,
        });
        let served = self.served;
        for _ in 0..32 {
            if self.hosts[at].application.operations.is_empty() {
                break;
            }
            self.continue_operation(at, 0);
            while let Some(message) = self.messages.pop() {
                self.deliver(message);
            }
        }
        self.served > served
    }

    /// Everything in flight gets on.
    pub(super) fn finish_operations(&mut self, at: usize) {
        for index in (0..self.hosts[at].application.operations.len()).rev() {
            self.continue_operation(at, index);
        }
        self.finish_in_memory(at);
    }
}
