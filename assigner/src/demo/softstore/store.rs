//! What stands behind the caches: values of one length in one file, read and written in place, with
//! the work counted. It outlives pods, not machines: nothing is synced.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use parking_lot::Mutex;
use tonic::{Code, Request, Response, Status};

use super::value::value;
use crate::demo::kv::backing_server::{Backing, BackingServer};
use crate::demo::kv::{LoadReply, LoadRequest, SaveReply, SaveRequest, WorkReply, WorkRequest};
use crate::demo::serving::{serve, server};

/// In front of each value in the file.
const VERSION_BYTES: usize = 8;

/// Options of the backing store.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    file: PathBuf,
    /// How many keys there are.
    #[arg(long)]
    keys: u64,
    #[arg(long)]
    value_bytes: usize,
    /// What a read or a write takes beside the disk's own time.
    #[arg(long, value_parser = humantime::parse_duration)]
    latency: Duration,
}

struct Store {
    records: Mutex<Records>,
    latency: Duration,
}

struct Records {
    file: File,
    value_bytes: usize,
    /// The highest token seen with each key. ◆ Reads raise it too: an owner that has read is never
    /// overtaken by a write of one before it.
    tokens: Vec<u64>,
    work: WorkReply,
}

/// Serves until it is asked to stop (SIGTERM).
pub async fn run(args: StoreArgs) -> anyhow::Result<()> {
    let records =
        Records::create(&args).with_context(|| format!("cannot create {}", args.file.display()))?;
    let store = Store {
        records: Mutex::new(records),
        latency: args.latency,
    };
    let router = server().add_service(BackingServer::new(store));
    serve(router, args.listen).await
}

/// Whether the store refused because a later owner had been there: nothing was done.
pub fn is_fenced(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
}

impl Records {
    /// Writes version 0 of every key.
    fn create(args: &StoreArgs) -> std::io::Result<Self> {
        let create = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&args.file)?;
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, create);
        for key in 0..args.keys {
            writer.write_all(&0u64.to_le_bytes())?;
            writer.write_all(&value(key, 0, args.value_bytes))?;
        }
        Ok(Self {
            file: writer.into_inner()?,
            value_bytes: args.value_bytes,
            tokens: vec![0; args.keys as usize],
            work: WorkReply::default(),
        })
    }

    fn fence(&mut self, key: u64, token: u64) -> Result<(), Status> {
        let highest = usize::try_from(key)
            .ok()
            .and_then(|key| self.tokens.get_mut(key))
            .ok_or_else(|| Status::invalid_argument("there is no such key"))?;
        if token < *highest {
            self.work.fenced += 1;
            return Err(Status::failed_precondition("a later owner was here"));
        }
        *highest = token;
        Ok(())
    }

    fn place(&self, key: u64) -> u64 {
        key * (VERSION_BYTES + self.value_bytes) as u64
    }

    fn load(&mut self, request: &LoadRequest) -> Result<LoadReply, Status> {
        self.fence(request.key, request.token)?;
        self.work.loads += 1;
        let mut version = [0; VERSION_BYTES];
        let mut value = vec![0; self.value_bytes];
        let at = self.place(request.key);
        self.file.read_exact_at(&mut version, at)?;
        self.file
            .read_exact_at(&mut value, at + VERSION_BYTES as u64)?;
        let version = u64::from_le_bytes(version);
        Ok(LoadReply { version, value })
    }

    fn save(&mut self, request: &SaveRequest) -> Result<SaveReply, Status> {
        self.fence(request.key, request.token)?;
        if request.value.len() != self.value_bytes {
            return Err(Status::invalid_argument("the value has another length"));
        }
        self.work.saves += 1;
        let at = self.place(request.key);
        let mut version = [0; VERSION_BYTES];
        self.file.read_exact_at(&mut version, at)?;
        let saved = u64::from_le_bytes(version) < request.version;
        if saved {
            let record = [&request.version.to_le_bytes(), &*request.value].concat();
            self.file.write_all_at(&record, at)?;
        }
        Ok(SaveReply { saved })
    }
}

#[tonic::async_trait]
impl Backing for Store {
    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<LoadReply>, Status> {
        let reply = self.records.lock().load(request.get_ref())?;
        tokio::time::sleep(self.latency).await;
        Ok(Response::new(reply))
    }

    async fn save(&self, request: Request<SaveRequest>) -> Result<Response<SaveReply>, Status> {
        let reply = self.records.lock().save(request.get_ref())?;
        tokio::time::sleep(self.latency).await;
        Ok(Response::new(reply))
    }

    async fn work(&self, _: Request<WorkRequest>) -> Result<Response<WorkReply>, Status> {
        Ok(Response::new(self.records.lock().work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_has_read_is_not_overtaken_by_a_write_of_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let args = StoreArgs {
            listen: ([127, 0, 0, 1], 0).into(),
            file: dir.path().join("values"),
            keys: 4,
            value_bytes: 10,
            latency: Duration::ZERO,
        };
        let mut records = Records::create(&args).unwrap();
        let save = |token, version| SaveRequest {
            key: 3,
            token,
            version,
            value: value(3, version, 10),
        };
        let load = |token| LoadRequest { key: 3, token };
        assert_eq!(records.load(&load(5)).unwrap().value, value(3, 0, 10));
        assert!(is_fenced(&records.save(&save(4, 1)).unwrap_err()));
        assert!(records.save(&save(6, 2)).unwrap().saved);
        assert!(!records.save(&save(6, 1)).unwrap().saved);
        assert!(is_fenced(&records.load(&load(5)).unwrap_err()));
        assert_eq!(records.load(&load(6)).unwrap().value, value(3, 2, 10));
        assert_eq!((records.work.loads, records.work.fenced), (2, 2));
        assert!(records.load(&LoadRequest { key: 4, token: 9 }).is_err());
    }
}
