//! A read of a strong target returns at least what was acknowledged, or returned by another read,
//! before it began: with one order of writes in the store this is linearizability of a register.
//!
//! Gibbons and Korach, "Testing shared memories" (SIAM J. Comput. 26, 1997): with the order of
//! writes known the check is one comparison.

use super::{Broken, Judged};
use crate::world::KEYS;

/// By key: the highest version that any client knows of.
#[derive(Default)]
pub struct Reads([u64; KEYS]);

impl Reads {
    /// What a read that begins now must return at least.
    pub fn floor(&self, k: usize) -> u64 {
        self.0[k]
    }

    /// A client learns that `version` exists.
    pub fn known(&mut self, k: usize, version: u64) {
        self.0[k] = self.0[k].max(version);
    }

    pub fn invariant_no_read_is_stale(
        &mut self,
        k: usize,
        reader: &str,
        floor: u64,
        version: u64,
    ) -> Judged {
        self.known(k, version);
        if version >= floor {
            return Ok(());
        }
        Err(Broken {
            invariant: "no read is stale",
            what: format!(
                "{reader} returns version {version} of key {k}, but {floor} was known when the read began"
            ),
        })
    }
}
