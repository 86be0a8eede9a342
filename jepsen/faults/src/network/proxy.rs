//! Hosts as loopback addresses behind proxies: for machines where no namespace can be had.
//!
//! Host `h` of run `r` is reached at `127.77.r.h`; its own process really listens at `127.78.r.h`.
//! The preloaded library makes the difference invisible: it moves what the process binds, gives
//! its connections its own source address, and writes down the ports that it listens on. On each
//! of these a proxy listens at the public address, and recognises the caller by its source.
//!
//! A cut holds bytes back and keeps connections open, as a cut does to TCP; new connections are
//! accepted (the kernel does that) and then hang.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::link::{Fate, Lane};
use super::links::Links;
use crate::mapped::Mapped;
use crate::shim::{self, layout};
use crate::true_now_ns;

/// How often new ports and changed rules are looked for.
const TICK: Duration = Duration::from_millis(5);
/// Pieces of a stream that wait for their time.
const PIECES: usize = 1_024;
const PIECE_BYTES: usize = 16 * 1024;

/// What all connections share.
struct Shared {
    run: u8,
    links: Arc<Links>,
    lanes: Mutex<Vec<Lane>>,
    /// A bit for each host that a thread of this process entered.
    entered: AtomicU64,
    ports: Mapped<layout::Ports>,
}

/// The running proxies. Dropping it closes all connections.
pub(crate) struct Proxies {
    shared: Arc<Shared>,
    /// Keeps other runs from taking the same addresses.
    _claim: StdListener,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: crate::stale::RunDir,
}

fn public(run: u8, host: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, run, host as u8 + 1)
}

fn private(run: u8, host: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 78, run, host as u8 + 1)
}

/// Takes a number that no other run on this machine has.
fn claim() -> Result<(u8, StdListener)> {
    let first = std::process::id() % 250;
    for step in 0..250 {
        let run = ((first + step) % 250 + 1) as u8;
        if let Ok(listener) = StdListener::bind((Ipv4Addr::new(127, 77, run, 254), 1_977)) {
            return Ok((run, listener));
        }
    }
    bail!("250 runs behind proxies are under way on this machine, or loopback does not work")
}

impl Proxies {
    pub(crate) fn start(hosts: usize, links: Arc<Links>, seed: u64) -> Result<Self> {
        // Without it no process could be told apart: an error now, not at the first process.
        shim::library()?;
        let (run, claim) = claim()?;
        let dir = crate::stale::RunDir::create("proxy")?;
        let shared = Arc::new(Shared {
            run,
            lanes: Mutex::new(
                (0..hosts * hosts)
                    .map(|place| Lane::new(seed.wrapping_add(place as u64)))
                    .collect(),
            ),
            links,
            entered: AtomicU64::new(0),
            ports: Mapped::create(&dir.path().join("ports"))?,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the proxies' runtime")?;
        let (stop, stopped) = oneshot::channel();
        let serving = shared.clone();
        let thread = std::thread::Builder::new()
            .name("proxies".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = watch_ports(serving) => {}
                        _ = stopped => {}
                    }
                });
            })
            .context("start the proxies")?;
        Ok(Self {
            shared,
            _claim: claim,
            stop: Some(stop),
            thread: Some(thread),
            _dir: dir,
        })
    }

    pub(crate) fn address(&self, host: usize) -> Ipv4Addr {
        public(self.shared.run, host)
    }

    /// Puts a process that is about to be started onto a host.
    pub(crate) fn place(&self, host: usize, command: &mut Command) -> Result<()> {
        command
            .env("LD_PRELOAD", shim::library()?)
            .env(layout::PORTS_ENV, self.shared.ports.path())
            .env(layout::ADDRESS_ENV, self.address(host).to_string());
        Ok(())
    }

    pub(crate) fn enter(&self, host: usize) {
        self.shared.entered.fetch_or(1 << host, Ordering::Relaxed);
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens a proxy for every port that a host's process begins to listen on.
async fn watch_ports(shared: Arc<Shared>) {
    let mut open: Vec<(usize, u16)> = Vec::new();
    loop {
        for host in 0..shared.links.hosts() {
            for slot in &shared.ports.rows[host] {
                let port = slot.load(Ordering::Relaxed);
                if port == 0 || open.contains(&(host, port)) {
                    continue;
                }
                // In use for the moment: it is tried again at the next tick.
                if let Ok(listener) = TcpListener::bind((public(shared.run, host), port)).await {
                    open.push((host, port));
                    tokio::spawn(listen(shared.clone(), listener, host, port));
                }
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn listen(shared: Arc<Shared>, listener: TcpListener, host: usize, port: u16) {
    loop {
        match listener.accept().await {
            Ok((stream, caller)) => {
                tokio::spawn(carry(shared.clone(), stream, caller, host, port));
            }
            // Out of descriptors, mostly: give others time to close theirs.
            Err(_) => tokio::time::sleep(TICK).await,
        }
    }
}

impl Shared {
    /// Which hosts a connection comes from.
    fn callers(&self, address: SocketAddr) -> Vec<usize> {
        if let IpAddr::V4(ip) = address.ip() {
            let octets = ip.octets();
            if octets[..3] == [127, 78, self.run] {
                return vec![(octets[3] as usize).saturating_sub(1)];
            }
        }
        let entered = self.entered.load(Ordering::Relaxed);
        (0..self.links.hosts())
            .filter(|host| entered & (1 << host) != 0)
            .collect()
    }

    fn is_cut(&self, places: &[usize]) -> bool {
        let rules = self.links.rules();
        places.iter().any(|place| rules[*place].cut)
    }

    /// Ends when none of these links is cut.
    async fn uncut(&self, places: &[usize]) {
        if !self.is_cut(places) {
            return;
        }
        places.iter().for_each(|place| self.links.dropped(*place));
        while self.is_cut(places) {
            tokio::time::sleep(TICK).await;
        }
    }

    /// When a piece that is sent now arrives.
    fn due_ns(&self, places: &[usize], bytes: usize) -> u64 {
        let now_ns = true_now_ns();
        let rules = self.links.rules();
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let due = places.iter().map(|place| {
            let mut rule = rules[*place].clone();
            rule.cut = false;
            match lanes[*place].send(&rule, now_ns, bytes) {
                Fate::Arrives { at_ns, .. } => at_ns,
                // The queue of a slow link is full; a stream waits instead of losing.
                Fate::Lost => now_ns + 400_000_000,
            }
        });
        due.max().unwrap_or(now_ns)
    }
}

async fn carry(shared: Arc<Shared>, stream: TcpStream, caller: SocketAddr, to: usize, port: u16) {
    let from: Vec<usize> = shared
        .callers(caller)
        .into_iter()
        .filter(|from| *from != to && *from < shared.links.hosts())
        .collect();
    let there: Vec<usize> = from.iter().map(|f| shared.links.place(*f, to)).collect();
    let back: Vec<usize> = from.iter().map(|f| shared.links.place(to, *f)).collect();
    shared.uncut(&there).await;
    let Ok(inner) = TcpStream::connect((private(shared.run, to), port)).await else {
        return;
    };
    for socket in [&stream, &inner] {
        // Failing costs only latency.
        let _ = socket.set_nodelay(true);
    }
    let (caller_read, caller_write) = stream.into_split();
    let (inner_read, inner_write) = inner.into_split();
    tokio::join!(
        pipe(&shared, caller_read, inner_write, &there),
        pipe(&shared, inner_read, caller_write, &back),
    );
}

/// Carries one direction until its end, which it passes on.
async fn pipe(shared: &Shared, from: OwnedReadHalf, to: OwnedWriteHalf, places: &[usize]) {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::join!(
        take_pieces(shared, from, sender, places),
        put_pieces(shared, to, receiver, places),
    );
}

async fn take_pieces(
    shared: &Shared,
    mut from: OwnedReadHalf,
    sender: mpsc::Sender<(u64, Vec<u8>)>,
    places: &[usize],
) {
    let mut buffer = vec![0u8; PIECE_BYTES];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        let due_ns = shared.due_ns(places, length);
        if sender
            .send((due_ns, buffer[..length].to_vec()))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn put_pieces(
    shared: &Shared,
    mut to: OwnedWriteHalf,
    mut receiver: mpsc::Receiver<(u64, Vec<u8>)>,
    places: &[usize],
) {
    while let Some((due_ns, piece)) = receiver.recv().await {
        let wait_ns = due_ns.saturating_sub(true_now_ns());
        if wait_ns > 0 {
            places.iter().for_each(|place| shared.links.delayed(*place));
            tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
        }
        shared.uncut(places).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
        places.iter().for_each(|place| shared.links.passed(*place));
    }
    // The news that a connection has ended crosses a cut no more than bytes do.
    shared.uncut(places).await;
    let _ = to.shutdown().await;
}
