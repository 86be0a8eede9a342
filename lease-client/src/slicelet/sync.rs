//! The primitives of [`super::cell`]: the standard ones, or loom's when it explores interleavings.

#[cfg(leasehold_loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(leasehold_loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
