//! At no instant do two Slicelets of a strong target both pass an ownership check for one key.
//!
//! docs/PROTOCOL.md, "what is promised". A process that sleeps counts: it would pass if it asked.

use super::{Broken, Holding, Judged};
use crate::world::key;

pub fn invariant_one_owner_at_a_time(holdings: impl Iterator<Item = Holding>) -> Judged {
    let mut seen: u8 = 0;
    let mut before: [Option<Holding>; 8] = [None; 8];
    for (at, holding) in holdings.enumerate() {
        let both = seen & holding.passes;
        if both != 0 {
            let k = both.trailing_zeros();
            let other = before
                .iter()
                .flatten()
                .find(|other| other.passes >> k & 1 == 1);
            return Err(Broken {
                invariant: "one owner at a time",
                what: format!(
                    "{:?} and {:?} both pass a check of key {} ({})",
                    other.and_then(|other| other.session),
                    holding.session,
                    k,
                    key(k as usize)
                ),
            });
        }
        seen |= holding.passes;
        if let Some(place) = before.get_mut(at) {
            *place = Some(holding);
        }
    }
    Ok(())
}
