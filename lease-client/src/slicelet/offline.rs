//! A Slicelet that is driven by hand instead of by an Assigner: for benchmarks and tests.

use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::command::{Command, PlanStep, Registered, Reply};
use leasehold_proto::holder::{Action, Holder, HolderConfig, Input};
use leasehold_proto::message::Renewed;
use leasehold_proto::table::LeaseTable;
use leasehold_proto::target::{Mode, OnLapse, SessionSecret, TargetConfig};
use leasehold_proto::{
    ClockClass, KeyHash, LogId, PodAddress, SessionId, Squid, TargetName, ViewUpdate,
};
use tokio::sync::{mpsc, watch};

use super::handler::Arrival;
use super::publish::{Changes, Publisher, Wants};
use super::{OwnershipLog, Shared, Slicelet};
use crate::clock::Clock;

/// See the module's description. The table is the real one.
pub struct Offline {
    /// Checks see what was published last.
    pub slicelet: Arc<Slicelet>,
    holder: Holder,
    publisher: Publisher,
    table: LeaseTable,
    index: u64,
    target: TargetName,
    clock: Clock,
    ttl: Duration,
    seq: u64,
}

impl Offline {
    pub(crate) fn new(
        clock: Clock,
        config: TargetConfig,
        slices: u32,
        log: Option<OwnershipLog>,
    ) -> Option<Self> {
        let target = TargetName::new("bench").ok()?;
        let address = PodAddress::new("127.0.0.1:1").ok()?;
        let shared = Shared::new(clock.clone());
        let publisher = Publisher::new(Arc::clone(&shared), Arc::new(|| {}), log, Wants::default());
        let slicelet = Arc::new(Slicelet {
            shared,
            target: target.clone(),
            squid: Squid { address, id: 1 },
            requests: mpsc::channel(1).0,
            asked: mpsc::channel(1).0,
            stop: watch::channel(false).0,
            driver: None,
            most_waiting: 16,
            longest_wait: Duration::from_secs(30),
        });
        let (ttl, on_lapse) = (config.ttl, config.on_lapse);
        let holder = Holder::new(HolderConfig {
            on_lapse,
            ..HolderConfig::default()
        });
        let table = LeaseTable::new();
        let mut offline = Self {
            slicelet,
            holder,
            publisher,
            table,
            index: 0,
            target,
            clock,
            ttl,
            seq: 0,
        };
        let target = offline.target.clone();
        offline.apply(Command::CreateTarget {
            target,
            config,
            initial_slices: slices,
        });
        offline.publisher.configure(on_lapse, KeyHash::default());
        let session = offline.register()?;
        offline.grant_all(session);
        Some(offline)
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        self.table
            .apply(
                LogId {
                    term: 1,
                    index: self.index,
                },
                command,
            )
            .reply
    }

    fn register_in_table(&mut self, squid: Squid) -> Option<Registered> {
        let (target, secret) = (self.target.clone(), SessionSecret::from_bytes([0; 16]));
        let (clock, app_version) = (ClockClass::Raw, String::new());
        match self.apply(Command::RegisterSession {
            target,
            squid,
            clock,
            secret,
            app_version,
        }) {
            Reply::Registered(registered) => Some(registered),
            _ => None,
        }
    }

    /// Registers a session of this Slicelet.
    pub(crate) fn register(&mut self) -> Option<SessionId> {
        let Registered {
            session,
            ttl,
            not_before,
            ..
        } = self.register_in_table(self.slicelet.squid.clone())?;
        self.input(Input::Registered {
            session,
            ttl,
            not_before,
        });
        Some(session)
    }

    /// Grants every vacant slice to `to`, in the table only.
    pub(crate) fn grant_all(&mut self, to: SessionId) {
        let state = self.table.target(&self.target);
        let vacant = state
            .into_iter()
            .flat_map(|state| state.slices())
            .filter(|(_, assigned)| assigned.owner.is_none());
        let steps = vacant
            .map(|(slice, _)| PlanStep::Grant { slice, to })
            .collect();
        self.plan(steps);
    }

    /// Applies a plan, in the table only.
    pub(crate) fn plan(&mut self, steps: Vec<PlanStep>) -> Reply {
        let target = self.target.clone();
        let config_version = self
            .table
            .target(&target)
            .map_or(0, |state| state.config_version());
        self.apply(Command::ApplyPlan {
            target,
            config_version,
            steps,
        })
    }

    /// Renews: a transmission now, answered now, with the table's present view.
    pub(crate) fn renew(&mut self) -> Changes {
        // The Holder sends when it is due; time may stand still here.
        self.seq = self.seq.max(1);
        let out = self.holder.handle(self.clock.lease().for_t0(), Input::Wake);
        let sent = out.actions.iter().find_map(|action| match action {
            Action::Renew(renew) => Some(renew.seq),
            _ => None,
        });
        self.seq = sent.unwrap_or(self.seq);
        let known = self.holder.view().map(|view| view.generation);
        let update = self
            .table
            .target(&self.target)
            .and_then(|state| state.update_since(known));
        let Some(session) = self.holder.session() else {
            return Changes::default();
        };
        self.input(Input::Renewed(Renewed {
            session,
            seq: self.seq,
            ttl: self.ttl,
            update,
        }))
    }

    /// Gives the Holder an input and publishes.
    pub(crate) fn input(&mut self, input: Input) -> Changes {
        let output = self.holder.handle(self.clock.lease().for_t0(), input);
        for action in &output.actions {
            if let Action::Renew(renew) = action {
                self.seq = renew.seq;
            }
        }
        if output.changed {
            self.publisher
                .publish(&self.holder, false, &|_, _| Arrival::Cold)
        } else {
            Changes::default()
        }
    }

    /// The lease never runs out: for measuring the check itself over any time.
    pub(crate) fn swap(&self) {
        self.publisher.store_table();
    }

    /// The newest view with every slice of `slices` even ones given to some of `pods`.
    pub(crate) fn wide_view(&self, slices: usize, pods: usize) -> Option<ViewUpdate> {
        use leasehold_proto::{Assigned, Lease, Slice, SliceMap, View};
        let state = self.table.target(&self.target)?;
        let epoch = state.slices().next()?.1.owner?.epoch;
        let session = |n: usize| SessionId::from_u64(1 + (n % pods) as u64);
        let owner = |n| {
            Some(Lease {
                session: session(n),
                epoch,
            })
        };
        let assigned = |n| Assigned {
            owner: owner(n),
            ..Assigned::default()
        };
        let entries = Slice::even(slices)
            .into_iter()
            .enumerate()
            .map(|(n, slice)| (slice, assigned(n)));
        let address = |n: usize| PodAddress::new(&format!("10.0.0.1:{}", 1_000 + n)).ok();
        let pods = (0..pods)
            .filter_map(|n| Some((session(n), address(n)?)))
            .collect();
        let slices = SliceMap::new(entries.collect()).ok()?;
        Some(ViewUpdate::Full(View {
            generation: state.generation(),
            mode: Mode::Strong,
            slices,
            pods,
        }))
    }

    /// Settings of a session whose lease outlasts any measurement.
    pub(crate) fn long() -> TargetConfig {
        TargetConfig {
            ttl: Duration::from_secs(300),
            on_lapse: OnLapse::Stop,
            ..TargetConfig::default()
        }
    }
}

#[cfg(test)]
impl Offline {
    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Registers a session of another Slicelet.
    pub(crate) fn stranger(&mut self) -> Option<SessionId> {
        let address = PodAddress::new("127.0.0.1:2").ok()?;
        self.register_in_table(Squid { address, id: 2 })
            .map(|registered| registered.session)
    }

    /// Ends a session, in the table only.
    pub(crate) fn expire(&mut self, session: SessionId) {
        let (target, successors) = (self.target.clone(), Vec::new());
        self.apply(Command::ExpireSession {
            target,
            session,
            term: 1,
            successors,
        });
    }

    /// Asks the source to refuse, in the table only.
    /// The table hears that the source has refused.
    pub(crate) fn refused(&mut self, handoff: leasehold_proto::HandoffId, refused_by: SessionId) {
        let target = self.target.clone();
        self.apply(Command::CancelHandoff {
            target,
            handoff,
            refused_by,
        });
    }

    /// Who owns the first slice, by the table.
    pub(crate) fn owner_in_table(&self) -> Option<leasehold_proto::Lease> {
        let state = self.table.target(&self.target)?;
        state.slices().next()?.1.owner
    }

    pub(crate) fn ask_cancel(&mut self, handoff: leasehold_proto::HandoffId) {
        let target = self.target.clone();
        self.apply(Command::AskCancel { target, handoff });
    }

    /// Changes the target's configuration, in the table only.
    pub(crate) fn update(&mut self, change: leasehold_proto::target::TargetChange) {
        let target = self.target.clone();
        self.apply(Command::UpdateTarget {
            target,
            expected_version: None,
            change,
        });
    }
}
