//! The faults of a run: a schedule carried out beside the load, and undone at its end.

use std::sync::Arc;

use super::Plan;
use super::clock::Origin;
use super::place::Place;
use crate::store::RunDir;
use crate::system::System;

/// Hosts of this role get disks of their own.
pub const DISKS: &str = "assigner";

/// Faults under way.
pub struct Attack {}

impl Attack {
    /// Starts.
    ///
    /// # Errors
    ///
    /// .
    pub fn start(
        _plan: &Plan,
        _place: &Arc<Place>,
        _system: &Arc<dyn System>,
        _origin: Origin,
        _dir: &RunDir,
    ) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Faults in force now.
    pub fn active(&self) -> Vec<String> {
        Vec::new()
    }

    /// Ends, undoes everything.
    ///
    /// # Errors
    ///
    /// .
    pub fn end(self) -> anyhow::Result<()> {
        Ok(())
    }
}
