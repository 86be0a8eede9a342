//! Explores the machines that ship, exhaustively, in small worlds.

pub mod bounds;
pub mod part;
pub mod search;
pub mod world;
pub mod worlds;
