//! What must hold after every event. Each invariant has a file of its own, which says where it
//! comes from.

mod cancelled_epoch_unused;
mod check_before_deadline;
mod epoch_never_falls;
mod hint_names_owner;
mod living_sessions_stay;
mod lookup_follows_map;
mod memory_survives_moves;
mod no_change_lost;
mod no_stale_read;
mod one_owner;
mod records_describe_table;
mod table_knows_owners;
mod token_has_one_session;
mod view_is_whole;

use leasehold_proto::command::Command;
use leasehold_proto::holder::{Part, Verdict};
use leasehold_proto::message::Moved;
use leasehold_proto::table::{LeaseTable, Outcome, TargetState};
use leasehold_proto::{ClockTime, Epoch, Mode, SessionId, Slice};

use crate::coverage::{Coverage, Seen};
use crate::world::{Host, KEYS, key, target};

/// A broken invariant: its name, and how it was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    pub invariant: &'static str,
    pub what: String,
}

pub type Judged = Result<(), Broken>;

/// What a host passes checks for, as of its last look.
#[derive(Clone, Copy, Default)]
pub struct Holding {
    pub session: Option<SessionId>,
    /// By key: a check passes.
    pub passes: u8,
    /// By key: it passes as owner, not as replica.
    pub owns: u8,
    pub epochs: [Option<Epoch>; KEYS],
}

/// The committed truth, and what the invariants remember.
pub struct Checker {
    /// The table of everything that is committed.
    pub master: LeaseTable,
    pub broken: Option<Broken>,
    /// Whether the truth has changed since every host was looked at.
    pub changed: bool,
    /// Clocks are beyond their bounds: what rests on them is not judged.
    clocks_lie: bool,
    /// Which period of strong promises this is; `None` while there is none.
    strong: Option<u64>,
    strong_periods: u64,
    /// Checks that passed and were judged.
    pub passed: u64,
    records: records_describe_table::Records,
    pub views: view_is_whole::Views,
    tokens: token_has_one_session::Tokens,
    cancelled: cancelled_epoch_unused::Cancelled,
    highest: epoch_never_falls::Highest,
    pub reads: no_stale_read::Reads,
    pub memories: memory_survives_moves::Memories,
}

pub fn keys_of(slice: Slice) -> impl Iterator<Item = usize> {
    (0..KEYS).filter(move |k| slice.contains(key(*k)))
}

impl Checker {
    pub fn new(clocks_lie: bool) -> Self {
        Self {
            clocks_lie,
            master: LeaseTable::new(),
            broken: None,
            changed: true,
            strong: None,
            strong_periods: 0,
            passed: 0,
            records: records_describe_table::Records::default(),
            views: view_is_whole::Views::default(),
            tokens: token_has_one_session::Tokens::default(),
            cancelled: cancelled_epoch_unused::Cancelled::default(),
            highest: epoch_never_falls::Highest::default(),
            reads: no_stale_read::Reads::default(),
            memories: memory_survives_moves::Memories::default(),
        }
    }

    /// Keeps the first that breaks.
    pub fn judge(&mut self, judged: Judged) {
        if let Err(broken) = judged {
            self.broken.get_or_insert(broken);
        }
    }

    /// What holds only as long as clocks keep their bounds.
    pub fn judge_timed(&mut self, judged: Judged) {
        if !self.clocks_lie {
            self.judge(judged);
        }
    }

    pub fn fail(&mut self, invariant: &'static str, what: String) {
        self.judge(Err(Broken { invariant, what }));
    }

    pub fn state(&self) -> Option<&TargetState> {
        self.master.target(target())
    }

    pub fn mode(&self) -> Mode {
        self.state().map_or(Mode::Strong, |state| state.mode())
    }

    /// Which uninterrupted period of strong promises this is, if it is one.
    pub fn strong_period(&self) -> Option<u64> {
        self.strong
    }

    pub fn committed(&mut self, command: &Command, outcome: &Outcome) {
        self.changed = true;
        self.follow_mode();
        let state = self.master.target(target());
        self.memories.committed(command, state);
        let judged = self
            .records
            .invariant_records_describe_the_table(outcome, &self.master);
        self.judge(judged);
        if let Some(state) = self.master.target(target()) {
            self.views.remember(state);
        }
    }

    fn follow_mode(&mut self) {
        match (self.mode(), self.strong) {
            (Mode::Strong, None) => {
                self.strong_periods += 1;
                self.strong = Some(self.strong_periods);
            }
            (Mode::Strong, Some(_)) => {}
            (Mode::Eventual | Mode::Arming(_), _) => self.strong = None,
        }
    }

    pub fn cancelled(&mut self, slice: Slice, epoch: Epoch) {
        let judged = self.cancelled.cancel(slice, epoch, &self.tokens);
        self.judge(judged);
    }

    pub fn restored(&mut self, backup: LeaseTable) {
        self.records.restored(&backup);
        self.memories.restored();
        self.master = backup;
        self.changed = true;
        self.strong = None;
        self.follow_mode();
    }

    /// At the end: everything that is compared only now and then.
    pub fn finish(&mut self) {
        let judged = self.records.compare(&self.master);
        self.judge(judged);
    }

    /// Looks at everything that a host passes checks for, and judges it.
    pub fn look_at(&mut self, host: &Host) -> Holding {
        let now = host.clock.now();
        let mut holding = Holding {
            session: host.holder.session(),
            ..Holding::default()
        };
        let Some(session) = holding.session else {
            return holding;
        };
        for k in 0..KEYS {
            let Verdict::Owned(epoch) = host.holder.check(key(k), now) else {
                continue;
            };
            holding.passes |= 1 << k;
            holding.epochs[k] = Some(epoch);
            self.passed += 1;
            if owns(host, k) {
                holding.owns |= 1 << k;
            }
            let judged =
                self.judge_pass(host, session, k, epoch, now, holding.owns & (1 << k) != 0);
            self.judge(judged);
        }
        holding
    }

    fn judge_pass(
        &mut self,
        host: &Host,
        session: SessionId,
        k: usize,
        epoch: Epoch,
        now: ClockTime,
        owner: bool,
    ) -> Judged {
        check_before_deadline::invariant_no_check_passes_after_the_deadline(host, session, now)?;
        if owner && !self.clocks_lie {
            self.cancelled
                .invariant_a_cancelled_epoch_is_never_used(session, k, epoch)?;
            self.tokens
                .invariant_a_token_has_one_session(session, k, epoch)?;
        }
        if self.mode() == Mode::Strong && !self.clocks_lie {
            table_knows_owners::invariant_the_table_knows_who_may_pass(
                &self.master,
                session,
                k,
                epoch,
            )?;
            self.highest
                .invariant_epochs_never_fall(session, k, epoch)?;
        }
        Ok(())
    }

    /// All hosts together, by what each was last seen to pass.
    pub fn together(&mut self, holdings: impl Iterator<Item = Holding>, coverage: &mut Coverage) {
        let judged = one_owner::invariant_one_owner_at_a_time(holdings);
        match self.mode() {
            Mode::Strong => {
                coverage.overlaps_of_lying_clocks += u64::from(self.clocks_lie && judged.is_err());
                self.judge_timed(judged);
            }
            Mode::Eventual if judged.is_err() => coverage.see(Seen::EventualOverlap),
            Mode::Eventual | Mode::Arming(_) => {}
        }
    }

    /// ◆ What a Clerk is told names who owns at that epoch, or nobody does yet.
    pub fn hint(&mut self, moved: &Moved) {
        let judged = hint_names_owner::invariant_a_hint_names_the_owner(moved, &self.tokens);
        self.judge(judged);
    }
}

fn owns(host: &Host, k: usize) -> bool {
    let here = host
        .holder
        .local()
        .iter()
        .find(|local| local.slice.contains(key(k)));
    here.is_some_and(|local| local.part == Part::Owner)
}

pub use living_sessions_stay::invariant_no_living_session_expires;
pub use lookup_follows_map::invariant_lookups_follow_the_map;
pub use no_change_lost::invariant_no_change_is_overwritten_unseen;
