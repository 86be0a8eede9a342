//! The application: operations on keys, under guard and fence.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_client::state::StateMap;
use leasehold_client::{Guard, Slicelet, WriteError};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use super::clock::true_now_ns;
use super::hold_log::HoldLog;
use super::operation::{Decision, decide, lock_ttl};
use crate::register::{Put, RegisterClient};
use crate::rpc::do_request::What;
use crate::rpc::{DoReply, Fence, Outcome, PutRequest, Stored};

/// Longest key.
const KEY_BYTES: usize = 128;
/// Keys kept in memory; beyond it those that nobody uses are forgotten and read again.
const KEYS: usize = 1 << 14;

/// Keys that begin so live in memory only, and go with their slice when it moves.
pub(crate) const IN_MEMORY: &str = "mem-";

/// What is known of one key while it is owned.
#[derive(Default)]
struct Entry {
    known: Option<Known>,
}

struct Known {
    fence: Fence,
    stored: Stored,
    /// Until when a lock that is held is not given to another.
    lock_until: Option<Instant>,
}

type Slot = Arc<tokio::sync::Mutex<Entry>>;

/// One target's application in one pod.
pub(super) struct App {
    slicelet: Arc<Slicelet>,
    /// As JSON.
    memory: StateMap<String>,
    store: RegisterClient,
    unfenced: bool,
    log: Option<Arc<HoldLog>>,
    keys: Mutex<HashMap<String, Slot>>,
    attempts: AtomicU64,
}

impl App {
    pub(super) fn new(
        slicelet: Arc<Slicelet>,
        memory: StateMap<String>,
        store: RegisterClient,
        unfenced: bool,
        log: Option<Arc<HoldLog>>,
    ) -> Self {
        Self {
            slicelet,
            memory,
            store,
            unfenced,
            log,
            keys: Mutex::default(),
            attempts: AtomicU64::new(1),
        }
    }

    pub(super) fn slicelet(&self) -> &Slicelet {
        &self.slicelet
    }

    /// The Slicelet, if nobody else has it.
    pub(super) fn into_slicelet(self) -> Option<Slicelet> {
        Arc::into_inner(self.slicelet)
    }

    /// The process is about to end, and waits for destinations for so long.
    pub(super) fn hurry(&self, patience: Duration) {
        if let Some(log) = &self.log {
            log.hurry(patience);
        }
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// The pod does not own the key, or no longer does: the status says which, in the words of
    /// Leasehold's redirects.
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        key: String,
        what: What,
        linger: Duration,
    ) -> Result<DoReply, Status> {
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(Status::invalid_argument("the key is empty or too long"));
        }
        if linger.is_zero() {
            return self.guarded(&key, what, linger).await;
        }
        // As with many applications, a client that hangs up does not stop what it asked for.
        let app = Arc::clone(self);
        let task = tokio::spawn(async move { app.guarded(&key, what, linger).await });
        task.await
            .unwrap_or_else(|error| Err(Status::unknown(error.to_string())))
    }

    async fn guarded(&self, key: &str, what: What, linger: Duration) -> Result<DoReply, Status> {
        let guard = self.slicelet.guard_or_wait(key.as_bytes()).await?;
        tokio::time::sleep(linger).await;
        let reply = match key.starts_with(IN_MEMORY) {
            true => self.in_memory(&guard, key, &what)?,
            false => self.under(&guard, key, &what).await,
        };
        // The answer, whatever it is, rests on having owned the key all the time.
        let asked_ns = true_now_ns();
        guard.verify()?;
        if let Some(log) = &self.log {
            let token = guard.fencing_token().as_u64();
            log.verified(guard.slice(), token, asked_ns);
        }
        Ok(reply)
    }

    /// What the map refuses has not happened.
    fn in_memory(&self, guard: &Guard, key: &str, what: &What) -> Result<DoReply, WriteError> {
        let stored = |value: Option<&String>| Stored {
            value: value.map_or("null", String::as_str).to_owned(),
            version: None,
        };
        let decided = match what {
            What::Read(_) => {
                let read = |value: Option<&String>| decide(what, &stored(value), true);
                self.memory.with(guard, key.as_bytes(), read)
            }
            _ => self.memory.update(guard, key.as_bytes(), |value| {
                let decided = decide(what, &stored(value.as_ref()), true);
                if let Ok(Decision::Write(to, _)) = &decided {
                    *value = Some(to.to_string());
                }
                decided
            })?,
        };
        let (outcome, value, why) = match decided {
            Ok(Decision::Answer(answer) | Decision::Write(_, answer)) => {
                (Outcome::Ok, answer.to_string(), String::new())
            }
            Ok(Decision::Refuse(why)) | Err(why) => (Outcome::Failed, String::new(), why),
        };
        Ok(DoReply {
            outcome: outcome.into(),
            value,
            token: guard.fencing_token().as_u64(),
            why,
            ..DoReply::default()
        })
    }

    async fn under(&self, guard: &Guard, key: &str, what: &What) -> DoReply {
        let token = guard.fencing_token().as_u64();
        let slot = self.slot(key);
        let mut entry = slot.lock().await;
        let reply = |outcome: Outcome, why: String| DoReply {
            outcome: outcome.into(),
            token,
            why,
            ..DoReply::default()
        };
        if let Err(why) = self.load(&mut entry, key, token).await {
            return reply(Outcome::Failed, why);
        }
        let Some(known) = entry.known.take() else {
            return reply(Outcome::Failed, "nothing is known of the key".into());
        };
        let lapsed = known.lock_until.is_none_or(|until| Instant::now() >= until);
        match decide(what, &known.stored, lapsed) {
            Err(why) | Ok(Decision::Refuse(why)) => {
                entry.known = Some(known);
                reply(Outcome::Failed, why)
            }
            Ok(Decision::Answer(value)) => {
                let version = known.stored.version;
                entry.known = Some(known);
                DoReply {
                    value: value.to_string(),
                    version,
                    ..reply(Outcome::Ok, String::new())
                }
            }
            Ok(Decision::Write(value, answer)) => {
                // Until the store has answered nothing is known: a request that is given up here
                // must not leave the old value behind.
                match self.put(&known, key, token, value.to_string()).await {
                    Put::Written(version) => {
                        entry.known = Some(Known {
                            fence: known.fence,
                            stored: Stored {
                                value: value.to_string(),
                                version: Some(version),
                            },
                            lock_until: lock_until(what),
                        });
                        DoReply {
                            value: answer.to_string(),
                            version: Some(version),
                            ..reply(Outcome::Ok, String::new())
                        }
                    }
                    Put::FencedOff(fence) => reply(Outcome::Failed, fenced_off(fence)),
                    Put::Unknown(why) => reply(Outcome::Unknown, why),
                }
            }
        }
    }

    /// Fences and reads, unless the value is known from this very tenure.
    ///
    /// The attempt in the fence rises each time, so that a write of this pod whose answer was lost
    /// cannot land behind the read.
    async fn load(&self, entry: &mut Entry, key: &str, token: u64) -> Result<(), String> {
        if let Some(known) = &entry.known
            && known.fence.token == token
        {
            return Ok(());
        }
        entry.known = None;
        let fence = Fence {
            token,
            attempt: self.attempts.fetch_add(1, Ordering::Relaxed),
        };
        let sent = (!self.unfenced).then_some(fence);
        match self.store.clone().fence(key, sent).await {
            Ok(Ok(stored)) => {
                // How long a lock was held under another owner is not known: its time begins anew.
                let lock_until = lock_ttl(&stored).map(|ttl| Instant::now() + ttl);
                entry.known = Some(Known {
                    fence,
                    stored,
                    lock_until,
                });
                Ok(())
            }
            Ok(Err(fence)) => Err(fenced_off(fence)),
            Err(status) => Err(format!("the store: {}", status.message())),
        }
    }

    async fn put(&self, known: &Known, key: &str, token: u64, value: String) -> Put {
        let request = PutRequest {
            key: key.to_owned(),
            fence: (!self.unfenced).then_some(known.fence),
            token,
            value,
        };
        self.store.clone().put(request).await
    }

    fn slot(&self, key: &str) -> Slot {
        let mut keys = self.keys.lock();
        if keys.len() >= KEYS {
            keys.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(keys.entry(key.to_owned()).or_default())
    }
}

fn fenced_off(fence: Fence) -> String {
    format!("fenced off by {}.{}", fence.token, fence.attempt)
}

fn lock_until(what: &What) -> Option<Instant> {
    match what {
        What::Acquire(acquire) => {
            Some(Instant::now() + Duration::from_millis(acquire.ttl_ms.into()))
        }
        _ => None,
    }
}
