//! Explores the machines that ship, exhaustively, in small worlds.
