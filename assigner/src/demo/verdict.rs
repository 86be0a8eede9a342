//! What a client may conclude from an answer, knowing what was acknowledged to it before.
//!
//! Values move with their slices, but go with a pod that dies: a value that was acknowledged under
//! an older token and is gone is *lost*, which is counted. An answer under an
//! older token than an acknowledgement, or an older value under the same one, is *stale*: the work
//! of an owner that is none.

use std::collections::BTreeMap;

use super::requests::Ending;

/// What was acknowledged for one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// The value, rising.
    pub value: u64,
    /// The token of the owner that stored it.
    pub token: u64,
}

/// Acknowledgements by key number.
#[derive(Debug, Default)]
pub struct Knowledge {
    acked: BTreeMap<u32, Acked>,
}

impl Knowledge {
    /// What was acknowledged up to now: to be read *before* a request is sent.
    pub fn before(&self, key: u32) -> Acked {
        self.acked.get(&key).copied().unwrap_or_default()
    }

    /// A write was acknowledged. `before` was read when it was sent.
    pub fn wrote(&mut self, key: u32, before: Acked, value: u64, token: u64) -> Ending {
        let acked = self.acked.entry(key).or_default();
        if (token, value) > (acked.token, acked.value) {
            *acked = Acked { value, token };
        }
        if token < before.token {
            Ending::Stale
        } else {
            Ending::Ok
        }
    }

    /// A read was answered. `before` was read when it was sent.
    pub fn read(&mut self, key: u32, before: Acked, value: Option<u64>, token: u64) -> Ending {
        if token < before.token {
            return Ending::Stale;
        }
        if value.unwrap_or(0) >= before.value {
            return Ending::Ok;
        }
        if token == before.token {
            return Ending::Stale;
        }
        // Counted once: what was lost is not asked for again.
        let acked = self.acked.entry(key).or_default();
        if *acked != before {
            return Ending::Ok;
        }
        *acked = Acked {
            value: value.unwrap_or(0),
            token,
        };
        Ending::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cold_successor_loses_a_value_once_and_an_old_owner_is_stale() {
        let mut known = Knowledge::default();
        assert_eq!(known.wrote(1, known.before(1), 5, 10), Ending::Ok);
        assert_eq!(known.read(1, known.before(1), Some(5), 10), Ending::Ok);
        assert_eq!(known.read(1, known.before(1), Some(4), 10), Ending::Stale);
        assert_eq!(known.read(1, known.before(1), None, 11), Ending::Lost);
        assert_eq!(known.read(1, known.before(1), None, 11), Ending::Ok);
        assert_eq!(known.read(1, known.before(1), Some(5), 10), Ending::Stale);
        assert_eq!(known.wrote(1, known.before(1), 6, 10), Ending::Stale);
    }

    #[test]
    fn an_answer_is_judged_by_what_was_known_when_it_was_asked() {
        let mut known = Knowledge::default();
        let before = known.before(1);
        known.wrote(1, before, 5, 10);
        assert_eq!(known.read(1, before, None, 10), Ending::Ok);
    }
}
