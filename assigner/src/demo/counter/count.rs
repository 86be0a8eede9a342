//! A counter as it stands in a pod's memory, and what clients say of it.

use std::collections::BTreeMap;

use leasehold_client::state::StateValue;
use serde::{Deserialize, Serialize};

/// Most authors of one counter; each costs twelve bytes.
pub const MOST_AUTHORS: usize = 1_024;

/// The key of a counter.
pub fn key(number: usize) -> Vec<u8> {
    format!("counter-{number}").into_bytes()
}

/// A count, and the last turn of each author that is in it: with these an increment may be asked
/// for again, here or wherever the counter is then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub count: u64,
    turns: BTreeMap<u32, u64>,
}

impl Count {
    /// Counts an author's turn, once. False where there are too many authors: nothing was counted.
    pub fn add(&mut self, author: u32, turn: u64) -> bool {
        if self.turns.len() >= MOST_AUTHORS && !self.turns.contains_key(&author) {
            return false;
        }
        let last = self.turns.entry(author).or_insert(0);
        if turn > *last {
            *last = turn;
            self.count += 1;
        }
        true
    }
}

/// The count, then authors and their turns; little-endian.
impl StateValue for Count {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        for (author, turn) in &self.turns {
            out.extend_from_slice(&author.to_le_bytes());
            out.extend_from_slice(&turn.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (count, turns) = bytes.split_first_chunk()?;
        let (turns, rest) = turns.as_chunks::<12>();
        let turn = |bytes: &[u8; 12]| {
            let (author, turn) = bytes.split_first_chunk()?;
            let author = u32::from_le_bytes(*author);
            Some((author, u64::from_le_bytes(turn.try_into().ok()?)))
        };
        let whole = rest.is_empty() && turns.len() <= MOST_AUTHORS;
        whole.then_some(Self {
            count: u64::from_le_bytes(*count),
            turns: turns.iter().map(turn).collect::<Option<_>>()?,
        })
    }

    fn size_bytes(&self) -> usize {
        8 + 12 * self.turns.len()
    }
}

/// What a client has seen when it ends.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Acknowledged increments of each counter.
    pub acknowledged: Vec<u64>,
    /// Requests that were not answered; each was made again until it was.
    pub failed: u64,
    /// How long increments took, repetitions included: median, 99th percentile, longest.
    pub ms_p50: f64,
    pub ms_p99: f64,
    pub ms_max: f64,
}

/// What is wrong with the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Increments that were acknowledged and are not counted.
    pub lost: u64,
    /// Increments that are counted and were not acknowledged.
    pub doubled: u64,
}

/// Compares what was acknowledged of each counter with what it says.
pub fn compare(acknowledged: &[u64], counted: &[u64]) -> Wrong {
    let both = acknowledged.iter().zip(counted);
    both.fold(Wrong::default(), |wrong, (acknowledged, counted)| Wrong {
        lost: wrong.lost + acknowledged.saturating_sub(*counted),
        doubled: wrong.doubled + counted.saturating_sub(*acknowledged),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_increment_that_is_repeated_counts_once_also_after_a_move() {
        let mut count = Count::default();
        assert!(count.add(1, 1) && count.add(1, 1) && count.add(2, 1) && count.add(1, 2));
        let mut bytes = Vec::new();
        count.encode(&mut bytes);
        assert_eq!(bytes.len(), count.size_bytes());
        let mut moved = Count::decode(&bytes).unwrap();
        assert_eq!(moved, count);
        assert!(moved.add(1, 2) && moved.add(2, 2));
        assert_eq!(moved.count, 4);
        assert_eq!(Count::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Count::decode(&bytes[..7]), None);
    }

    #[test]
    fn authors_are_bounded() {
        let mut count = Count::default();
        assert!((0..MOST_AUTHORS as u32).all(|author| count.add(author, 1)));
        assert!(!count.add(u32::MAX, 1));
        assert!(count.add(0, 2));
    }

    #[test]
    fn losses_and_doubles_of_different_counters_do_not_cancel() {
        let wrong = compare(&[5, 5, 5], &[4, 7, 5]);
        assert_eq!(
            wrong,
            Wrong {
                lost: 1,
                doubled: 2
            }
        );
    }
}
