//! Explores the machines that ship, exhaustively, in small worlds.
//!
//! Not a separate specification: [`world::World`] drives `LeaseTable`, `Grantor`, `Holder` and
//! `Router` themselves, in every order that its [`bounds::Bounds`] allow, with messages lost,
//! delayed, doubled and reordered, processes that crash and come back, leaders deposed, and clocks
//! at both ends of their bound. [`search::explore`] visits every state once; two states count as
//! one if only the names of their numbers differ (`leasehold_proto::canonical`).
//!
//! In every state the invariants of [`world::World`] must hold, and where a world is searched to
//! its end also this: from every state some *benign* course of events (nothing lost, no crash, no
//! election, and no expiry of a session whose process lives) leads to every slice being served by
//! its live owner with no handoff open. Allowing such an expiry would hide every trap.

pub mod bounds;
pub mod mutants;
pub mod part;
pub mod search;
pub mod world;
pub mod worlds;
