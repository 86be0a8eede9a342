//! Locks that an application built on Leasehold gives out, and what is done under them.
//!
//! The lock's token is the version of the write that took it: it rises with every acquisition. A
//! client that holds a lock may be stopped for longer than the lock lasts, and no lock service can
//! do anything about that. Clients here do so now and then, on purpose; only the fence saves them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::outcome::{nonsense, out_of_time, versioned};
use super::{LeaseholdClient, STORE_CALL};
use crate::register::Put;
use crate::rpc::do_request::What;
use crate::rpc::{Acquire, Fence, PutRequest, Release, Version};
use crate::system::{Completion, Invocation};

/// A lock lasts as long as a session.
const LOCK_TTLS: u32 = 1;
/// One in so many times a client stops for longer than the lock lasts.
const ONE_STOP_IN: u32 = 12;
/// Between two tries to take a lock.
const AGAIN: Duration = Duration::from_millis(30);

fn fence(token: Version) -> Fence {
    Fence {
        token: token.token,
        attempt: token.seq,
    }
}

/// What a lock guards stands in the store under this key.
fn guarded(key: &str) -> String {
    format!("{key}/guarded")
}

impl LeaseholdClient {
    /// `acquire`: its token is the epoch of the answer.
    pub(super) async fn acquire(&mut self, invocation: &Invocation) -> Completion {
        let key = invocation.key.clone().unwrap_or_default();
        let ttl = self.ttl * LOCK_TTLS;
        let what = What::Acquire(Acquire {
            holder: format!("{}-{}", self.workload, self.worker),
            ttl_ms: u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX),
        });
        let completion = self.carry_out(invocation, what, invocation.deadline).await;
        let Completion::Ok { value, node, .. } = completion else {
            return completion;
        };
        let number = |at: usize| value["version"][at].as_u64().unwrap_or(0);
        let token = Version {
            token: number(0),
            seq: number(1),
        };
        self.locks.insert(key, token);
        Completion::Ok {
            value: Value::Null,
            node,
            epoch: Some(token.seq),
        }
    }

    /// `release` of the lock that this client took last.
    pub(super) async fn release(&mut self, invocation: &Invocation) -> Completion {
        let key = invocation.key.clone().unwrap_or_default();
        let Some(token) = self.locks.remove(&key) else {
            return Completion::Fail("this client holds no such lock".into());
        };
        let what = What::Release(Release { token: Some(token) });
        let completion = self.carry_out(invocation, what, invocation.deadline).await;
        match completion {
            Completion::Ok { node, .. } => Completion::Ok {
                value: Value::Null,
                node,
                epoch: Some(token.seq),
            },
            other => other,
        }
    }

    /// `act`: a write outside, under the lock's token.
    pub(super) async fn act_with_lock(&mut self, invocation: &Invocation) -> Completion {
        let key = invocation.key.clone().unwrap_or_default();
        let Some(token) = self.locks.get(&key).copied() else {
            return Completion::Fail("this client holds no such lock".into());
        };
        self.perhaps_stop().await;
        let request = PutRequest {
            key: guarded(&key),
            fence: Some(fence(token)),
            token: token.token,
            value: invocation.value.to_string(),
        };
        match self.register.put(request).await {
            Put::Written(_) => Completion::Ok {
                value: invocation.value.clone(),
                node: Some("s1".into()),
                epoch: Some(token.seq),
            },
            Put::FencedOff(fence) => {
                Completion::Fail(format!("fenced off by {}.{}", fence.token, fence.attempt))
            }
            Put::Unknown(why) => Completion::Unknown(why),
        }
    }

    /// `append` to, or `read` of, a list outside that is read, changed and written back while a
    /// lock is held: with the lock's token as a fence (`lock-external-set`), or in good faith
    /// (`lock-set`).
    pub(super) async fn locked_set(&mut self, invocation: &Invocation) -> Completion {
        match invocation.f.as_str() {
            "append" => self.append_under_lock(invocation).await,
            "read" => {
                let key = invocation.key.clone().unwrap_or_default();
                match timeout(
                    invocation.deadline,
                    self.register.fence(&guarded(&key), None),
                )
                .await
                {
                    Ok(Ok(Ok(stored))) => Completion::Ok {
                        value: versioned(list(&stored.value), stored.version),
                        node: Some("s1".into()),
                        epoch: None,
                    },
                    Ok(Ok(Err(_))) => nonsense("an unfenced read was fenced off"),
                    Ok(Err(status)) => Completion::Fail(status.message().to_owned()),
                    Err(_) => out_of_time(false, invocation.deadline),
                }
            }
            other => nonsense(other),
        }
    }

    async fn append_under_lock(&mut self, invocation: &Invocation) -> Completion {
        let key = invocation.key.clone().unwrap_or_default();
        let until = Instant::now() + invocation.deadline;
        let token = loop {
            let left = Invocation {
                deadline: until.saturating_duration_since(Instant::now()),
                ..invocation.clone()
            };
            match self.acquire(&left).await {
                Completion::Ok { .. } => match self.locks.get(&key) {
                    Some(token) => break *token,
                    None => return nonsense("a lock without a token"),
                },
                // Nothing was appended, whatever became of the lock.
                _ if Instant::now() + AGAIN >= until => {
                    return Completion::Fail("the lock was not to be had".into());
                }
                _ => sleep(AGAIN).await,
            }
        };
        let fence = (self.workload == "lock-external-set").then(|| fence(token));
        let stored = match self.register.fence(&guarded(&key), fence).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(_)) => return Completion::Fail("fenced off".into()),
            Err(status) => return Completion::Fail(status.message().to_owned()),
        };
        self.perhaps_stop().await;
        let mut elements = list(&stored.value);
        if let Some(elements) = elements.as_array_mut() {
            elements.push(invocation.value.clone());
        }
        let request = PutRequest {
            key: guarded(&key),
            fence,
            token: token.token,
            value: elements.to_string(),
        };
        let put = self.register.put(request).await;
        let release = Invocation {
            f: "release".into(),
            value: Value::Null,
            deadline: STORE_CALL,
            ..invocation.clone()
        };
        // Whether it is given back or runs out makes no difference to what was appended.
        let _ = self.release(&release).await;
        match put {
            Put::Written(version) => Completion::Ok {
                value: versioned(invocation.value.clone(), Some(version)),
                node: Some("s1".into()),
                epoch: Some(token.seq),
            },
            Put::FencedOff(_) => Completion::Fail("fenced off".into()),
            Put::Unknown(why) => Completion::Unknown(why),
        }
    }

    async fn perhaps_stop(&self) {
        if rand::random_range(0..ONE_STOP_IN) == 0 {
            sleep(self.ttl * LOCK_TTLS * 3 / 2).await;
        }
    }
}

/// A list as it is stored; empty where nothing is.
fn list(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Array(elements)) => Value::Array(elements),
        _ => json!([]),
    }
}
