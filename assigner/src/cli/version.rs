//! `leasehold version`. JSON: `{"version": "0.1.0", "protocol": "leasehold.v1"}`.

use serde::Serialize;

use super::Global;
use super::error::Failure;
use super::output::{Report, emit};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    protocol: &'static str,
}

impl Report for Version {
    fn human(&self) -> String {
        format!("leasehold {} (protocol {})", self.version, self.protocol)
    }
}

pub fn run(global: &Global) -> Result<(), Failure> {
    emit(
        global,
        &Version {
            version: env!("CARGO_PKG_VERSION"),
            protocol: "leasehold.v1",
        },
    )
}
