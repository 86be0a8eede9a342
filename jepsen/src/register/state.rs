//! What the store holds. Pure; the same calls lead to the same state.

use std::collections::{HashMap, VecDeque};

use leasehold_proto::mutant;

use crate::rpc::{AppliedWrite, Fence, PutRequest, Stored, Version};

/// Keys that the store takes.
const KEYS: usize = 1 << 18;
/// Writes of one key that it remembers; a workload leaves a key long before.
const WRITES_PER_KEY: usize = 4_096;
/// Bytes of values remembered per key, beside the newest.
const REMEMBERED_BYTES: usize = 1 << 20;

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Refused {
    /// A later fence is installed.
    FencedOff(Fence),
    /// The store takes no more keys.
    Full,
}

#[derive(Default)]
struct Record {
    fence: (u64, u64),
    value: Option<String>,
    version: Version,
    applied: VecDeque<AppliedWrite>,
    applied_bytes: usize,
}

/// All keys.
#[derive(Default)]
pub(super) struct State {
    keys: HashMap<String, Record>,
}

fn rank(fence: Fence) -> (u64, u64) {
    (fence.token, fence.attempt)
}

impl State {
    /// The key's record, unless a later fence than `fence` is installed; then `fence` is.
    fn admitted(
        &mut self,
        key: &str,
        fence: Option<Fence>,
    ) -> Result<(&mut Record, bool), Refused> {
        if self.keys.len() >= KEYS && !self.keys.contains_key(key) {
            return Err(Refused::Full);
        }
        let record = self.keys.entry(key.to_owned()).or_default();
        let Some(wanted) = fence.map(rank) else {
            return Ok((record, false));
        };
        if wanted < record.fence && !mutant!("fence_ignored") {
            let (token, attempt) = record.fence;
            return Err(Refused::FencedOff(Fence { token, attempt }));
        }
        let raised = wanted > record.fence;
        record.fence = wanted;
        Ok((record, raised))
    }

    /// Raises the fence and reads. Also tells whether the fence is higher now.
    pub(super) fn fence(
        &mut self,
        key: &str,
        fence: Option<Fence>,
    ) -> Result<(Stored, bool), Refused> {
        let (record, raised) = self.admitted(key, fence)?;
        let value = record.value.clone().unwrap_or_else(|| "null".to_owned());
        let stored = Stored {
            value,
            version: Some(record.version),
        };
        Ok((stored, raised))
    }

    /// Writes, which raises the fence as well.
    pub(super) fn put(&mut self, request: &PutRequest) -> Result<Version, Refused> {
        let (record, _) = self.admitted(&request.key, request.fence)?;
        record.version = Version {
            token: request.token,
            seq: record.version.seq + 1,
        };
        record.applied_bytes += request.value.len();
        record.applied.push_back(AppliedWrite {
            version: Some(record.version),
            value: request.value.clone(),
        });
        while record.applied.len() > WRITES_PER_KEY || record.applied_bytes > REMEMBERED_BYTES {
            let Some(oldest) = record.applied.pop_front() else {
                break;
            };
            record.applied_bytes -= oldest.value.len();
        }
        record.value = Some(request.value.clone());
        Ok(record.version)
    }

    /// The writes of a key in the order in which they were applied.
    pub(super) fn applied(&self, key: &str) -> Vec<AppliedWrite> {
        let record = self.keys.get(key);
        record
            .map(|record| record.applied.iter().cloned().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(token: u64, attempt: u64) -> Option<Fence> {
        Some(Fence { token, attempt })
    }

    fn put(fence: Option<Fence>, value: &str) -> PutRequest {
        PutRequest {
            key: "k".into(),
            fence,
            token: fence.map_or(0, |fence| fence.token),
            value: value.into(),
        }
    }

    #[test]
    fn a_write_of_an_earlier_owner_is_refused_once_a_later_one_has_read() {
        let mut state = State::default();
        assert!(state.put(&put(fence(5, 1), "1")).is_ok());
        let (stored, raised) = state.fence("k", fence(7, 1)).unwrap();
        assert_eq!((stored.value.as_str(), raised), ("1", true));
        assert_eq!(
            state.put(&put(fence(5, 1), "2")),
            Err(Refused::FencedOff(Fence {
                token: 7,
                attempt: 1
            }))
        );
        assert_eq!(state.applied("k").len(), 1);
    }

    #[test]
    fn an_owner_that_begins_anew_shuts_out_its_own_late_writes() {
        let mut state = State::default();
        state.fence("k", fence(5, 1)).unwrap();
        state.fence("k", fence(5, 2)).unwrap();
        assert!(state.put(&put(fence(5, 1), "late")).is_err());
        assert!(state.put(&put(fence(5, 2), "1")).is_ok());
    }

    #[test]
    fn without_a_fence_everything_is_written_and_counted() {
        let mut state = State::default();
        state.fence("k", fence(9, 1)).unwrap();
        let unprotected = PutRequest {
            token: 3,
            ..put(None, "1")
        };
        let version = state.put(&unprotected).unwrap();
        assert_eq!((version.token, version.seq), (3, 1));
    }

    #[test]
    fn what_is_remembered_of_a_key_is_bounded() {
        let mut state = State::default();
        let long = "x".repeat(REMEMBERED_BYTES / 4);
        for _ in 0..10 {
            state.put(&put(None, &long)).unwrap();
        }
        let applied = state.applied("k");
        assert_eq!(applied.len(), 4);
        assert_eq!(applied.last().unwrap().version.unwrap().seq, 10);
    }
}
