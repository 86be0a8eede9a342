//! The Clerk: a client's map of who serves what.

mod call;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use leasehold_proto::message::Moved;
use leasehold_proto::router::{self, RouteTable, Router};
use leasehold_proto::wire::Redirect;
use leasehold_proto::{
    Generation, KeyHash, PodAddress, SessionId, SliceKey, TargetName, ViewUpdate, limits,
};
use tokio::sync::{Notify, watch as watching};

use crate::channels::ChannelPool;
use crate::endpoints::Endpoints;
use crate::error::{Error, ErrorKind};

/// Pods whose failures are remembered.
const REMEMBERED_FAILURES: usize = 1_024;
/// How long a failed pod is avoided where there is another.
const AVOID_FAILED: Duration = Duration::from_secs(5);

/// Which of several pods serves a key of an eventual target. A strong target has one: the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReplicaChoice {
    /// Always the owner.
    #[default]
    Owner,
    /// Any, with equal chance.
    Any,
    /// The better of two drawn: one that has not failed lately.
    TwoChoices,
}

/// Where a key is served, by the map at the time of the lookup: a few numbers that stand for a
/// pod. See [`Clerk::address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    key: SliceKey,
    inner: router::Route,
    serial: u64,
}

impl Route {
    /// The key that was looked up.
    pub fn slice_key(&self) -> SliceKey {
        self.key
    }
}

/// Where a key is served, with the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// The key.
    pub key: SliceKey,
    /// The session that serves it.
    pub session: SessionId,
    /// Where that is.
    pub address: PodAddress,
    /// The map's generation.
    pub generation: Option<Generation>,
}

/// What lookups see.
struct Published {
    key_hash: KeyHash,
    serial: u64,
    table: Arc<RouteTable>,
}

struct Known {
    router: Router,
    key_hash: KeyHash,
    serial: u64,
}

struct Inner {
    target: TargetName,
    published: ArcSwap<Published>,
    known: Mutex<Known>,
    /// The serial of what is published.
    changed: watching::Sender<u64>,
    /// A pod knows more than the Assigner that is watched: watch another.
    lagging: Notify,
    pool: ChannelPool,
    choice: ReplicaChoice,
    call_deadline: Duration,
    failures: Mutex<HashMap<SessionId, Instant>>,
}

/// Makes a [`Clerk`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClerkBuilder {
    target: String,
    endpoints: Vec<String>,
    client_name: String,
    choice: ReplicaChoice,
    call_deadline: Duration,
}

impl ClerkBuilder {
    /// Assigners, as `host:port`; any of them will do.
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// What the operator sees as the watcher's name.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// Which of several pods serves a key of an eventual target; the owner unless set.
    pub fn replica_choice(mut self, choice: ReplicaChoice) -> Self {
        self.choice = choice;
        self
    }

    /// How long [`Clerk::call`] looks for a pod that serves the key; 10 s unless set.
    pub fn call_deadline(mut self, deadline: Duration) -> Self {
        self.call_deadline = deadline;
        self
    }

    /// Begins to watch in the background; see [`Clerk::ready`].
    ///
    /// Requires a Tokio runtime.
    ///
    /// # Errors
    /// `Invalid` when target, endpoints or name are not well-formed.
    pub fn connect_lazy(self) -> Result<Clerk, Error> {
        let target = TargetName::new(&self.target).map_err(Error::invalid)?;
        if self.client_name.len() > limits::CLIENT_NAME_BYTES {
            return Err(Error::invalid(format_args!(
                "the name is longer than {} bytes",
                limits::CLIENT_NAME_BYTES
            )));
        }
        let endpoints = Endpoints::new(self.endpoints, rand::random())?;
        let inner = Inner::new(target, self.choice, self.call_deadline);
        let task = tokio::spawn(watch::run(
            Arc::downgrade(&inner),
            endpoints,
            self.client_name,
        ));
        Ok(Clerk {
            inner,
            _watcher: Some(Arc::new(AbortOnDrop(task))),
        })
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A client's map of one target. Cheap to clone; clones share the map.
///
/// The map is kept for ever: while no Assigner answers, the last one serves.
#[derive(Clone)]
pub struct Clerk {
    inner: Arc<Inner>,
    _watcher: Option<Arc<AbortOnDrop>>,
}

impl Clerk {
    /// Begins to make a Clerk of `target`.
    pub fn builder(target: impl Into<String>) -> ClerkBuilder {
        ClerkBuilder {
            target: target.into(),
            endpoints: Vec::new(),
            client_name: String::new(),
            choice: ReplicaChoice::Owner,
            call_deadline: Duration::from_secs(10),
        }
    }

    /// Ends when a map is known.
    ///
    /// # Errors
    /// `Unavailable` after `deadline`.
    pub async fn ready(&self, deadline: Duration) -> Result<(), Error> {
        let mut changed = self.inner.changed.subscribe();
        match tokio::time::timeout(deadline, changed.wait_for(|serial| *serial > 0)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                format!("no map of {} within {deadline:?}", self.inner.target),
            )),
        }
    }

    /// Where `key` is served; `None` while nobody is known to serve it. Takes no lock, allocates
    /// nothing, makes no system call.
    #[inline]
    pub fn lookup(&self, key: &[u8]) -> Option<Route> {
        let published = self.inner.published.load();
        let key = published.key_hash.slice_key(key);
        let inner = published.table.lookup(key)?;
        Some(Route {
            key,
            inner,
            serial: published.serial,
        })
    }

    /// [`Clerk::lookup`] for a key that is hashed already.
    #[inline]
    pub fn lookup_slice_key(&self, key: SliceKey) -> Option<Route> {
        let published = self.inner.published.load();
        let inner = published.table.lookup(key)?;
        Some(Route {
            key,
            inner,
            serial: published.serial,
        })
    }

    /// The pod of a route: by the map that gave the route, or by a newer one.
    pub fn address(&self, route: &Route) -> Option<PodAddress> {
        let published = self.inner.published.load();
        let inner = if published.serial == route.serial {
            route.inner
        } else {
            published.table.lookup(route.key)?
        };
        published
            .table
            .pod(inner.pod)
            .map(|(_, address)| address.clone())
    }

    /// Where `key` is served, with the address, by the [`ReplicaChoice`].
    pub fn route(&self, key: &[u8]) -> Option<PodRoute> {
        self.route_slice_key(self.slice_key(key))
    }

    /// [`Clerk::route`] for a key that is hashed already.
    pub fn route_slice_key(&self, key: SliceKey) -> Option<PodRoute> {
        let published = self.inner.published.load();
        let table = &published.table;
        let route = table.lookup(key)?;
        let pod = match (self.inner.choice, table.replicas(route)) {
            (ReplicaChoice::Owner, _) | (_, []) => route.pod,
            (choice, replicas) => {
                let draw = || match rand::random_range(0..=replicas.len()) {
                    0 => route.pod,
                    n => replicas[n - 1],
                };
                let (first, second) = (draw(), draw());
                let failed = table
                    .pod(first)
                    .is_some_and(|(session, _)| self.failed_lately(*session));
                if choice == ReplicaChoice::TwoChoices && failed {
                    second
                } else {
                    first
                }
            }
        };
        let (session, address) = table.pod(pod)?.clone();
        Some(PodRoute {
            key,
            session,
            address,
            generation: table.generation(),
        })
    }

    /// The slice key of an application key, by the target's hash (known with the first map).
    pub fn slice_key(&self, key: &[u8]) -> SliceKey {
        self.inner.published.load().key_hash.slice_key(key)
    }

    /// The map's generation.
    pub fn generation(&self) -> Option<Generation> {
        self.inner.published.load().table.generation()
    }

    /// The whole map.
    pub fn table(&self) -> Arc<RouteTable> {
        Arc::clone(&self.inner.published.load().table)
    }

    /// The target.
    pub fn target(&self) -> &TargetName {
        &self.inner.target
    }

    /// Kept connections to pods.
    pub fn pool(&self) -> &ChannelPool {
        &self.inner.pool
    }

    /// Learns from a pod's answer where a slice went. Returns whether lookups may change.
    pub fn learn(&self, redirect: &Redirect) -> bool {
        match redirect {
            Redirect::Moved(moved) => self.inner.learn(moved.clone()),
            Redirect::NotOwner { .. } | Redirect::Unavailable(_) => false,
        }
    }

    /// Says that a pod did not answer, for [`ReplicaChoice::TwoChoices`].
    pub fn report_failure(&self, session: SessionId) {
        let mut failures = self
            .inner
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if failures.len() >= REMEMBERED_FAILURES {
            failures.retain(|_, at| now.duration_since(*at) < AVOID_FAILED);
        }
        if failures.len() < REMEMBERED_FAILURES {
            failures.insert(session, now);
        }
    }

    fn failed_lately(&self, session: SessionId) -> bool {
        let failures = self
            .inner
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failures
            .get(&session)
            .is_some_and(|at| at.elapsed() < AVOID_FAILED)
    }
}

impl std::fmt::Debug for Clerk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Clerk(of {} at {:?})",
            self.inner.target,
            self.generation()
        )
    }
}

impl Clerk {
    /// A Clerk that watches nothing; for benchmarks and tests.
    pub(crate) fn with_view(key_hash: KeyHash, view: ViewUpdate) -> Self {
        let target = TargetName::new("bench").unwrap_or_else(|_| std::process::abort());
        let inner = Inner::new(target, ReplicaChoice::Owner, Duration::ZERO);
        let _ = inner.update(key_hash, view);
        Self {
            inner,
            _watcher: None,
        }
    }
}

impl Inner {
    fn new(target: TargetName, choice: ReplicaChoice, call_deadline: Duration) -> Arc<Self> {
        let known = Known {
            router: Router::new(),
            key_hash: KeyHash::default(),
            serial: 0,
        };
        let published = Published {
            key_hash: known.key_hash,
            serial: 0,
            table: Arc::default(),
        };
        Arc::new(Self {
            target,
            published: ArcSwap::from_pointee(published),
            known: Mutex::new(known),
            changed: watching::Sender::new(0),
            lagging: Notify::new(),
            pool: ChannelPool::new(),
            choice,
            call_deadline,
            failures: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, moved: Moved) -> bool {
        let mut known = self.known();
        let learnt = known.router.learn(moved);
        if learnt {
            self.publish(&mut known);
        }
        learnt
    }

    /// Applies what an Assigner said; an error asks for a full view.
    fn update(
        &self,
        key_hash: KeyHash,
        update: ViewUpdate,
    ) -> Result<(), leasehold_proto::view::UpdateError> {
        let mut known = self.known();
        known.key_hash = key_hash;
        if known.router.update(update)? {
            self.publish(&mut known);
        }
        Ok(())
    }

    fn publish(&self, known: &mut Known) {
        known.serial += 1;
        let published = Published {
            key_hash: known.key_hash,
            serial: known.serial,
            table: known.router.table(),
        };
        self.published.store(Arc::new(published));
        self.changed.send_replace(known.serial);
    }
}
