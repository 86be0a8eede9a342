//! The attacked application's interface as generated from `jepsen/proto/jepsen.proto`.
#![allow(missing_docs, clippy::all, clippy::unwrap_used)]

include!("gen/leasehold.jepsen.v1.rs");
