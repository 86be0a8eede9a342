//! Whole simulated clusters around the real Raft.
