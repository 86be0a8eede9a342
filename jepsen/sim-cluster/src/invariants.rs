//! What must hold at every event. One rule per file; each file says where the rule comes from.

mod confirm_linearizable;
mod convergence;
mod durability;
mod election_safety;
mod log_matching;
mod monotone_apply;
mod node_stays_up;
mod single_owner;
mod state_machine_safety;
mod term_binding;
mod vote_durability;

use crate::event::Event;

/// A rule over the events of one run.
pub trait Invariant: Send {
    /// Its name, as reports show it.
    fn name(&self) -> &'static str;

    /// Takes note of an event. The error says in words how the rule is broken.
    fn see(&mut self, event: &Event) -> Result<(), String>;
}

/// Every rule, as before the first event.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<election_safety::ElectionSafety>::default(),
        Box::<log_matching::LogMatching>::default(),
        Box::<state_machine_safety::StateMachineSafety>::default(),
        Box::<durability::Durability>::default(),
        Box::<term_binding::TermBinding>::default(),
        Box::<confirm_linearizable::ConfirmLinearizable>::default(),
        Box::<monotone_apply::MonotoneApply>::default(),
        Box::<vote_durability::VoteDurability>::default(),
        Box::<node_stays_up::NodeStaysUp>::default(),
        Box::<single_owner::SingleOwner>::default(),
        Box::<convergence::Convergence>::default(),
    ]
}
