//! Two external stores, outside the reach of every lease: one that rejects old tokens, and one that
//! cannot be fenced.
//!
//! Even keys live in the fenced store. It is reached by messages, which are late, lost and
//! doubled; a writer numbers its writes under one token, and a write is applied only as the next
//! one, so that a repeated write is applied once. Odd keys live where an effect is immediate and
//! nothing is rejected.

use leasehold_proto::FencingToken;

use super::KEYS;
use crate::check::Judged;
use crate::check::invariant_no_change_is_overwritten_unseen;
use crate::planted;

/// Whether key number `k` lives in the fenced store.
pub fn is_fenced(k: usize) -> bool {
    k.is_multiple_of(2)
}

#[derive(Clone, Copy, Debug)]
pub struct StoreRequest {
    /// The operation that asks.
    pub operation: u64,
    pub k: usize,
    pub token: FencingToken,
    pub ask: Ask,
}

#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// From now on reject lower tokens.
    Fence,
    Read,
    /// The `number`-th write under this token, by one who has seen version `base`.
    Write {
        number: u64,
        base: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct StoreReply {
    pub operation: u64,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Fenced,
    /// The version, and how many writes were applied under the asker's token since it is the
    /// highest.
    Value {
        version: u64,
        writes: u64,
    },
    Written {
        version: u64,
        repeated: bool,
    },
    /// The token is old, or the number is not the next one.
    Rejected {
        old_token: bool,
    },
}

#[derive(Clone, Copy, Default)]
struct Cell {
    highest: Option<FencingToken>,
    version: u64,
    /// Writes applied under the highest token, and the operation of the last of them.
    writes: u64,
    last: u64,
}

#[derive(Default)]
pub struct Store([Cell; KEYS]);

impl Store {
    pub fn version(&self, k: usize) -> u64 {
        self.0[k].version
    }

    /// The store does what it is asked; the second value is what is to be thought of it.
    pub fn take(&mut self, request: StoreRequest) -> (Answer, Judged) {
        let StoreRequest { k, token, ask, .. } = request;
        let cell = &mut self.0[k];
        let open = planted("store_without_fence");
        let old_token = cell.highest.is_some_and(|highest| token < highest) && !open;
        let answer = match ask {
            Ask::Read => {
                let mine = cell.highest == Some(token);
                let writes = if mine { cell.writes } else { 0 };
                Answer::Value {
                    version: cell.version,
                    writes,
                }
            }
            Ask::Fence | Ask::Write { .. } if old_token => Answer::Rejected { old_token },
            Ask::Fence => {
                cell.raise(token);
                Answer::Fenced
            }
            Ask::Write { number, base } => {
                cell.raise(token);
                if number == cell.writes && cell.last == request.operation {
                    let version = cell.version;
                    return (
                        Answer::Written {
                            version,
                            repeated: true,
                        },
                        Ok(()),
                    );
                }
                if number != cell.writes + 1 && !open {
                    return (Answer::Rejected { old_token: false }, Ok(()));
                }
                let writer = format_args!("token {token}").to_string();
                let judged =
                    invariant_no_change_is_overwritten_unseen(k, &writer, base, cell.version);
                cell.version += 1;
                cell.writes += 1;
                cell.last = request.operation;
                let version = cell.version;
                return (
                    Answer::Written {
                        version,
                        repeated: false,
                    },
                    judged,
                );
            }
        };
        (answer, Ok(()))
    }

    /// An effect on what cannot be fenced.
    pub fn effect(&mut self, k: usize, writer: &str, base: u64) -> Judged {
        let judged = invariant_no_change_is_overwritten_unseen(k, writer, base, self.0[k].version);
        self.0[k].version += 1;
        judged
    }
}

impl Cell {
    fn raise(&mut self, token: FencingToken) {
        if self.highest != Some(token) {
            self.highest = Some(token);
            self.writes = 0;
        }
    }
}
