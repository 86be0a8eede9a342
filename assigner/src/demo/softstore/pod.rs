//! A pod of the demo: answers from its cache, and from the backing store where that has nothing.
//!
//! A key that is not cached, or is written, has its turn alone: what is read from the store is
//! cached before the next write of the key begins. A write takes the key out of the cache before
//! it goes to the store, so that no cache, here or wherever the slice goes next, has an entry that
//! the store may have left behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use leasehold_client::{
    Guard, GuardError, Lost, OnTransferFailure, Slicelet, SliceletBuilder, Transfers,
};
use leasehold_proto::{KeyHash, SliceKey, TargetName};
use tokio::sync::{Mutex, MutexGuard};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::cache::{Entry, Place, SliceCache, StaysBehind};
use super::store::is_fenced;
use super::value::{MOST_BYTES, key_bytes};
use crate::demo::kv::backing_client::BackingClient;
use crate::demo::kv::softstore_server::{Softstore, SoftstoreServer};
use crate::demo::kv::{FindReply, FindRequest, KeepReply, KeepRequest, LoadRequest, SaveRequest};
use crate::demo::serving::{serve, serve_owned, server};

/// Keys that share a turn.
const TURNS: usize = 4_096;

/// Options of one pod.
#[derive(Debug, Clone, Args)]
pub struct PodArgs {
    /// Without Assigners the pod takes whatever it is asked for.
    #[arg(long, value_delimiter = ',')]
    assigner: Vec<String>,
    #[arg(long, requires = "assigner")]
    target: Option<TargetName>,
    #[arg(long)]
    listen: SocketAddr,
    /// The backing store.
    #[arg(long)]
    store: String,
    /// Most bytes that the cache takes.
    #[arg(long)]
    cache_bytes: u64,
    /// Slices leave without what is cached of them.
    #[arg(long)]
    cold: bool,
    /// How long a pod that is asked to stop waits for its last slice to move.
    #[arg(long, value_parser = humantime::parse_duration)]
    grace: Duration,
}

struct Service {
    slicelet: Option<Arc<Slicelet>>,
    cache: SliceCache,
    store: BackingClient<Channel>,
    turns: Vec<Mutex<()>>,
}

/// Serves until it is asked to stop (SIGTERM); then drains, closes its session and ends.
pub async fn run(args: PodArgs) -> anyhow::Result<()> {
    let cache = SliceCache::new(args.cache_bytes);
    let slicelet = args
        .target
        .as_ref()
        .map(|target| start(target, &args, &cache));
    let slicelet = slicelet.transpose()?.map(Arc::new);
    let store = Endpoint::from_shared(args.store)?.tcp_nodelay(true);
    let service = Service {
        slicelet: slicelet.clone(),
        cache,
        store: BackingClient::new(store.connect_lazy()),
        turns: (0..TURNS).map(|_| Mutex::default()).collect(),
    };
    let server = server().add_service(SoftstoreServer::new(service));
    let Some(slicelet) = slicelet else {
        return serve(server, args.listen).await;
    };
    let router = server.add_service(slicelet.peer_service().into_server());
    serve_owned(router, args.listen, slicelet, args.grace).await
}

fn start(target: &TargetName, args: &PodArgs, cache: &SliceCache) -> anyhow::Result<Slicelet> {
    let lend = |builder: SliceletBuilder| match args.cold {
        false => builder.state(cache.clone()),
        true => builder.state(StaysBehind(cache.clone())),
    };
    let mut transfers = Transfers::default();
    // It is only a cache.
    transfers.on_failure = OnTransferFailure::GoCold;
    let slicelet = lend(Slicelet::builder(target.as_str()))
        .transfers(transfers)
        .endpoints(&args.assigner)
        .advertise(args.listen.to_string())
        .app_version(env!("CARGO_PKG_VERSION"))
        .start()?;
    Ok(slicelet)
}

/// Why this pod may answer for a key.
enum Owned {
    /// It is the owner.
    Leased(Guard),
    /// Nobody asks.
    Fixed(SliceKey),
}

impl Owned {
    fn place(&self, key: u64) -> Place {
        let at = match self {
            Owned::Leased(guard) => guard.slice_key(),
            Owned::Fixed(at) => *at,
        };
        Place { at, key }
    }

    fn token(&self) -> u64 {
        match self {
            Owned::Leased(guard) => guard.fencing_token().as_u64(),
            Owned::Fixed(_) => 0,
        }
    }

    fn verify(&self) -> Result<(), Lost> {
        match self {
            Owned::Leased(guard) => guard.verify(),
            Owned::Fixed(_) => Ok(()),
        }
    }
}

impl Service {
    async fn own(&self, key: u64) -> Result<Owned, Status> {
        let key = key_bytes(key);
        match &self.slicelet {
            Some(slicelet) => Ok(Owned::Leased(slicelet.guard_or_wait(&key).await?)),
            None => Ok(Owned::Fixed(KeyHash::Xxh3.slice_key(&key))),
        }
    }

    async fn turn(&self, key: u64) -> MutexGuard<'_, ()> {
        self.turns[(key % TURNS as u64) as usize].lock().await
    }
}

/// Nothing was done, here or at the store.
fn refused(status: Status) -> Status {
    if is_fenced(&status) {
        GuardError::NotOwner { generation: None }.into()
    } else {
        status
    }
}

fn found(entry: &Entry, hit: bool) -> Response<FindReply> {
    Response::new(FindReply {
        version: entry.version,
        value: entry.value.to_vec(),
        hit,
    })
}

#[tonic::async_trait]
impl Softstore for Service {
    async fn find(&self, request: Request<FindRequest>) -> Result<Response<FindReply>, Status> {
        let key = request.into_inner().key;
        let owned = self.own(key).await?;
        let place = owned.place(key);
        if let Some(entry) = self.cache.get(place) {
            owned.verify()?;
            return Ok(found(&entry, true));
        }
        let _turn = self.turn(key).await;
        if let Some(entry) = self.cache.get(place) {
            owned.verify()?;
            return Ok(found(&entry, true));
        }
        let token = owned.token();
        let loaded = self.store.clone().load(LoadRequest { key, token }).await;
        let loaded = loaded.map_err(refused)?.into_inner();
        let entry = Entry {
            version: loaded.version,
            value: loaded.value.into(),
        };
        self.cache.put(place, entry.clone(), || owned.verify())?;
        owned.verify()?;
        Ok(found(&entry, false))
    }

    async fn keep(&self, request: Request<KeepRequest>) -> Result<Response<KeepReply>, Status> {
        let KeepRequest {
            key,
            version,
            value,
        } = request.into_inner();
        if value.len() > MOST_BYTES {
            return Err(Status::invalid_argument("the value is too long"));
        }
        let owned = self.own(key).await?;
        let place = owned.place(key);
        let _turn = self.turn(key).await;
        self.cache.forget(place, || owned.verify())?;
        let save = SaveRequest {
            key,
            token: owned.token(),
            version,
            value: value.clone(),
        };
        let saved = self.store.clone().save(save).await.map_err(refused)?;
        if saved.into_inner().saved {
            let value = value.into();
            self.cache
                .put(place, Entry { version, value }, || owned.verify())?;
        }
        owned.verify()?;
        Ok(Response::new(KeepReply {}))
    }
}
