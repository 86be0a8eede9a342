//! The demos' applications as generated from `assigner/proto/demo.proto`.
#![allow(missing_docs, clippy::all, clippy::unwrap_used)]

include!("gen/leasehold.demo.v1.rs");
