//! What every script needs: a table with a log, sessions, Holders, and the way between them.

#![allow(dead_code, reason = "each test binary uses what it needs")]

use leasehold_proto::clock::ClockClass;
use leasehold_proto::command::{CloseProof, Command, Digest, EndWord, PlanStep, Registered, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::holder::{Action, Holder, HolderConfig, Input, Output};
use leasehold_proto::message::{Renew, Renewed};
use leasehold_proto::table::{LeaseTable, TargetState};
use leasehold_proto::target::{Consistency, SessionSecret, TargetChange, TargetConfig};
use leasehold_proto::view::{Handoff, ViewUpdate};
use leasehold_proto::{
    ClockTime, Generation, HandoffId, Lease, LogId, PodAddress, SessionId, Slice, SliceKey, Squid,
    TargetName,
};
use std::time::Duration;

pub const TTL: Duration = Duration::from_secs(3);
pub const KEY: SliceKey = SliceKey::MIN;

pub fn at(ms: u64) -> ClockTime {
    ClockTime::from_nanos(ms * 1_000_000)
}

pub fn cart() -> TargetName {
    TargetName::new("cart").expect("a label")
}

/// A table with one target, and the log that fills it.
#[derive(Clone)]
pub struct Script {
    pub table: LeaseTable,
    pub index: u64,
    pub term: u64,
}

impl Script {
    pub fn strong() -> Self {
        Self::with(Consistency::Strong, 1)
    }

    pub fn eventual() -> Self {
        Self::with(Consistency::Eventual, 1)
    }

    pub fn with(consistency: Consistency, initial_slices: u32) -> Self {
        let mut script = Self {
            table: LeaseTable::new(),
            index: 0,
            term: 1,
        };
        let config = TargetConfig {
            consistency,
            ttl: TTL,
            ..TargetConfig::default()
        };
        script.apply(Command::CreateTarget {
            target: cart(),
            config,
            initial_slices,
        });
        script
    }

    pub fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        self.table
            .apply(
                LogId {
                    term: self.term,
                    index: self.index,
                },
                command,
            )
            .reply
    }

    pub fn state(&self) -> &TargetState {
        self.table
            .target(&cart())
            .expect("created at the beginning")
    }

    pub fn register(&mut self, process: u8) -> Registered {
        let address = PodAddress::new(&format!("10.0.0.{process}:9000")).expect("an address");
        // A process that registers again is another Slicelet.
        let squid = Squid {
            address,
            id: u128::from(self.index),
        };
        let secret = SessionSecret::from_bytes([process; 16]);
        let clock = ClockClass::Slewed;
        match self.apply(Command::RegisterSession {
            target: cart(),
            squid,
            clock,
            secret,
            app_version: String::new(),
        }) {
            Reply::Registered(registered) => registered,
            other => panic!("not registered: {other:?}"),
        }
    }

    pub fn plan(&mut self, step: PlanStep) -> Result<(), Rejection> {
        let config_version = self.state().config_version();
        match self.apply(Command::ApplyPlan {
            target: cart(),
            config_version,
            steps: vec![step],
        }) {
            Reply::Plan(mut results) => results.remove(0),
            Reply::Rejected(rejection) => Err(rejection),
            other => panic!("no answer to a plan: {other:?}"),
        }
    }

    pub fn slice(&self, key: SliceKey) -> Slice {
        self.state().slice_of(key).expect("a cover").0
    }

    pub fn owner(&self, key: SliceKey) -> Option<Lease> {
        self.state().slice_of(key).expect("a cover").1.owner
    }

    pub fn handoff(&self, key: SliceKey) -> Option<Handoff> {
        self.state().slice_of(key).expect("a cover").1.handoff
    }

    pub fn grant(&mut self, to: SessionId) {
        let slice = self.slice(KEY);
        self.plan(PlanStep::Grant { slice, to })
            .expect("the slice is vacant");
    }

    pub fn begin(&mut self, to: SessionId) -> Handoff {
        let (slice, from) = (self.slice(KEY), self.owner(KEY).expect("owned"));
        self.plan(PlanStep::BeginHandoff { slice, from, to })
            .expect("nothing is open");
        self.handoff(KEY).expect("just begun")
    }

    pub fn expire(&mut self, session: SessionId, successors: Vec<(SliceKey, SessionId)>) -> Reply {
        let term = self.term;
        self.apply(Command::ExpireSession {
            target: cart(),
            session,
            term,
            successors,
        })
    }

    pub fn close(&mut self, session: SessionId) -> Reply {
        self.apply(Command::CloseSession {
            target: cart(),
            session,
            proof: CloseProof::OwnWord,
        })
    }

    pub fn complete(&mut self, handoff: HandoffId, word: EndWord) -> Reply {
        self.apply(Command::CompleteHandoff {
            target: cart(),
            handoff,
            word,
            digest: None,
        })
    }

    pub fn refused(&mut self, handoff: HandoffId, refused_by: SessionId) -> Reply {
        self.apply(Command::CancelHandoff {
            target: cart(),
            handoff,
            refused_by,
        })
    }

    pub fn ask_cancel(&mut self, handoff: HandoffId) -> Reply {
        self.apply(Command::AskCancel {
            target: cart(),
            handoff,
        })
    }

    pub fn want(&mut self, consistency: Consistency) -> Generation {
        let change = TargetChange {
            consistency: Some(consistency),
            ..TargetChange::default()
        };
        self.apply(Command::UpdateTarget {
            target: cart(),
            expected_version: None,
            change,
        });
        self.state().generation()
    }

    pub fn ack(&mut self, session: SessionId, arming: Generation) -> Reply {
        self.apply(Command::AckArming {
            target: cart(),
            session,
            arming,
        })
    }

    pub fn view(&self) -> ViewUpdate {
        ViewUpdate::Full(self.state().view())
    }

    /// A Holder of this session that was renewed at `now` with the present view.
    pub fn serve(&self, registered: &Registered, now: ClockTime) -> Holder {
        let mut holder = Holder::new(HolderConfig::default());
        let out = begin(&mut holder, registered, now);
        let renew = renewals(&out).pop().expect("a new session renews at once");
        self.answer(&mut holder, now, &renew);
        holder
    }

    pub fn answer(&self, holder: &mut Holder, now: ClockTime, renew: &Renew) -> Output {
        let update = self.state().update_since(renew.known);
        holder.handle(
            now,
            Input::Renewed(Renewed {
                session: renew.session,
                seq: renew.seq,
                ttl: TTL,
                update,
            }),
        )
    }

    pub fn push(&self, holder: &mut Holder, now: ClockTime) -> Output {
        let session = holder.session().expect("a session");
        holder.handle(now, Input::Pushed(session, self.view()))
    }
}

pub fn begin(holder: &mut Holder, registered: &Registered, now: ClockTime) -> Output {
    let Registered {
        session,
        ttl,
        not_before,
        ..
    } = registered.clone();
    holder.handle(
        now,
        Input::Registered {
            session,
            ttl,
            not_before,
        },
    )
}

pub fn renewals(out: &Output) -> Vec<Renew> {
    let renew = |action: &Action| match action {
        Action::Renew(renew) => Some(renew.clone()),
        _ => None,
    };
    out.actions.iter().filter_map(renew).collect()
}

/// Lets the Holder renew when it wants to next.
pub fn next_renewal(holder: &mut Holder, mut now: ClockTime) -> (ClockTime, Renew) {
    loop {
        let out = holder.handle(now, Input::Wake);
        if let Some(renew) = renewals(&out).pop() {
            return (now, renew);
        }
        now = out
            .wake_at
            .expect("a session renews for ever")
            .max(now + Duration::from_nanos(1));
    }
}

pub const DIGEST: Digest = Digest([9; 16]);
