//! One scripted test for each rule of the protocol that is marked ◆: named after the rule, with the
//! counter-example that the rule forbids. `tests/mutants.rs` shows that each fails without its rule.

mod arming;
mod clock;
mod handoff;
mod script;
mod sessions;
mod transfer;
