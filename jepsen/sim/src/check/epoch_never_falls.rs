//! In a strong target the epoch at which a key is owned never falls.
//!
//! docs/PROTOCOL.md, "fencing outside": a store that rejects lower tokens would reject the owner.

use leasehold_proto::{Epoch, SessionId};

use super::{Broken, Judged};
use crate::world::KEYS;

#[derive(Default)]
pub struct Highest([Option<Epoch>; KEYS]);

impl Highest {
    pub fn invariant_epochs_never_fall(
        &mut self,
        session: SessionId,
        k: usize,
        epoch: Epoch,
    ) -> Judged {
        if let Some(highest) = self.0[k].filter(|highest| epoch < *highest) {
            return Err(Broken {
                invariant: "epochs never fall",
                what: format!("key {k} fell from {highest} to {epoch} ({session})"),
            });
        }
        self.0[k] = Some(epoch);
        Ok(())
    }
}
