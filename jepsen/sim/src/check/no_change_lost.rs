//! No writer overwrites a change that it has not seen.
//!
//! docs/PROTOCOL.md, "fencing outside". In a store that rejects old tokens this holds always,
//! whatever clocks and pauses do; in one that cannot be fenced it holds for writes whose guard was
//! given and verified within one strong period, with nothing between verify and effect.

use super::{Broken, Judged};

/// `base` is the version that the writer had seen, `version` the one that it overwrites.
pub fn invariant_no_change_is_overwritten_unseen(
    k: usize,
    writer: &str,
    base: u64,
    version: u64,
) -> Judged {
    if base == version {
        return Ok(());
    }
    Err(Broken {
        invariant: "no change is overwritten unseen",
        what: format!(
            "{writer} overwrites version {version} of key {k}, but had seen version {base}"
        ),
    })
}
