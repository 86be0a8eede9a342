//! What the lock protects, and a worker that does its work under the lock as etcd's documentation
//! shows it: lock, read, compute, write, unlock, with the lease kept alive beside.
//!
//! Now and then the worker stalls in the middle, keep-alive and all, for longer than the lease:
//! what a garbage collection, a page fault or a live migration does to a process. See M. Kleppmann,
//! "How to do distributed locking" (2016), and the Jepsen analysis of etcd 3.4.3 (2020).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use leasehold_jepsen::system::{Client, Completion, Invocation};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::etcd::{Gateway, TTL_S};

/// A list that anybody can read and replace as a whole. With a fence it refuses a token that is
/// lower than the highest it has seen.
#[derive(Clone)]
pub struct Resource {
    fenced: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    values: Vec<Value>,
    highest: u64,
}

/// The fence refused a token.
pub struct Refused {
    highest: u64,
}

impl Resource {
    pub fn new(fenced: bool) -> Self {
        Self {
            fenced,
            state: Arc::default(),
        }
    }

    fn admit(&self, state: &mut State, token: u64) -> Result<(), Refused> {
        if self.fenced && token < state.highest {
            return Err(Refused {
                highest: state.highest,
            });
        }
        state.highest = state.highest.max(token);
        Ok(())
    }

    /// Fence before read: the token is known to the resource before what it returns is used.
    fn read(&self, token: u64) -> Result<Vec<Value>, Refused> {
        let mut state = self.state.lock();
        self.admit(&mut state, token)?;
        Ok(state.values.clone())
    }

    fn replace(&self, token: u64, values: Vec<Value>) -> Result<(), Refused> {
        let mut state = self.state.lock();
        self.admit(&mut state, token)?;
        state.values = values;
        Ok(())
    }
}

/// One worker.
pub struct Worker {
    etcd: Arc<Gateway>,
    resource: Resource,
    /// Appends begun, to stall in every few.
    begun: u32,
}

impl Worker {
    pub fn new(etcd: Gateway, resource: Resource) -> Self {
        Self {
            etcd: Arc::new(etcd),
            resource,
            begun: 0,
        }
    }

    /// Appends under the lock. Nothing is written before the lock is had.
    fn append(&mut self, value: &Value, deadline: Instant) -> Completion {
        self.begun += 1;
        let left = || deadline.saturating_duration_since(Instant::now());
        let patience = || left().min(Duration::from_secs(1));
        let fail = |error: anyhow::Error| Completion::Fail(error.to_string());
        let lease = match self.etcd.grant(patience()) {
            Ok(lease) => lease,
            Err(error) => return fail(error),
        };
        let kept = KeepAlive::start(&self.etcd, &lease);
        let held = match self.etcd.lock("jepsen", &lease, left()) {
            Ok(held) => held,
            Err(error) => {
                drop(kept);
                let _ = self.etcd.revoke(&lease, patience());
                return fail(error);
            }
        };
        let stalls = self.begun.is_multiple_of(STALLS_EVERY);
        if stalls {
            kept.stalled.store(true, Ordering::Release);
        }
        let done = self.critical_section(value, held.token, stalls);
        drop(kept);
        // Whether or not etcd hears of it, the work is done; the lease ends by itself.
        let _ = self.etcd.unlock(&held, patience());
        let _ = self.etcd.revoke(&lease, patience());
        match done {
            Ok(()) => Completion::Ok {
                value: Value::Null,
                node: None,
                epoch: Some(held.token),
            },
            Err(Refused { highest }) => Completion::Fail(format!(
                "the resource refused token {}: it has seen {highest}",
                held.token
            )),
        }
    }

    /// The work takes time, as work does. The lock is what should keep others out meanwhile.
    fn critical_section(&self, value: &Value, token: u64, stalls: bool) -> Result<(), Refused> {
        let mut values = self.resource.read(token)?;
        std::thread::sleep(if stalls { STALL } else { WORK });
        values.push(value.clone());
        self.resource.replace(token, values)
    }
}

/// How long the work under the lock takes, and a stall: the scenario itself, nothing waits for it.
const WORK: Duration = Duration::from_millis(100);
const STALL: Duration = Duration::from_millis(TTL_S * 1_000 + 1_500);
const STALLS_EVERY: u32 = 4;

impl Client for Worker {
    fn invoke<'a>(&'a mut self, invocation: &'a Invocation) -> LocalBoxFuture<'a, Completion> {
        Box::pin(async move {
            match invocation.f.as_str() {
                "append" => self.append(&invocation.value, Instant::now() + invocation.deadline),
                _ => Completion::Ok {
                    value: json!(self.resource.state.lock().values),
                    node: None,
                    epoch: None,
                },
            }
        })
    }
}

/// Keeps a lease alive from a thread of its own until it is dropped.
struct KeepAlive {
    stop: Arc<AtomicBool>,
    /// The whole process stands still, so this thread too.
    stalled: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl KeepAlive {
    fn start(etcd: &Arc<Gateway>, lease: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stalled = Arc::new(AtomicBool::new(false));
        let (etcd, lease, stopped) = (Arc::clone(etcd), lease.to_owned(), Arc::clone(&stop));
        let stands_still = Arc::clone(&stalled);
        let period = Duration::from_millis(TTL_S * 1_000 / 4);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                if !stands_still.load(Ordering::Acquire) {
                    let _ = etcd.keep_alive(&lease, period);
                }
                std::thread::park_timeout(period);
            }
        });
        Self {
            stop,
            stalled,
            thread: Some(thread),
        }
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
