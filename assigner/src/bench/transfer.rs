//! State that moves with its slice: how long nobody serves the slice, how fast the bytes go, and
//! what that costs the requests of the pods. Two pods share this process and the machine's cores.

mod pods;
mod users;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use leasehold_client::OwnershipEvent;
use leasehold_figures::{Goal, Report, quantile};
use leasehold_proto::target::Consistency;
use leasehold_proto::{Slice, SliceKey};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::demo::world::TARGET;
use crate::harness::PATIENCE;
use crate::harness::assigners::Assigners;
use crate::harness::control::Control;
use crate::harness::procs::Ports;
use pods::{Moments, Pod};
use users::Users;

/// Moves of the small slice.
const MOVES: usize = 300;
/// Values of the small slice: 1 MiB.
const SMALL: (usize, usize) = (1024, 1 << 10);
/// Values of the large slice: 1 GiB.
const LARGE: (usize, usize) = (16 << 10, 64 << 10);
/// Moves of the large slice without load, and of each kind with it.
const LARGE_MOVES: usize = 3;
/// How long the pods' own requests are watched before state moves.
const BEFORE: Duration = Duration::from_secs(10);

/// Two pods under one Assigner. The target has two slices: the lower half moves, the upper half
/// stays where the planner has put it.
struct Bench {
    control: Control,
    assigners: Assigners,
    pods: Vec<Pod>,
    moments: Moments,
}

pub async fn run(dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let plain = tokio::task::spawn_blocking(plain_tcp_mb_per_s).await??;
    report.figure("plain_tcp_mb_per_s", plain, "MB/s", Goal::None);

    let mut bench = Bench::start(dir).await?;
    bench.fill(SMALL).await?;
    let pauses = bench.pauses_under_writes(MOVES, 0).await?;
    report.maybe(
        "pause_ms_p99_1mb",
        quantile(&pauses, 0.99),
        "ms",
        Goal::AtMost(15.0),
        "nothing moved",
    );
    bench.fill(LARGE).await?;
    let mut speeds = Vec::new();
    for _ in 0..LARGE_MOVES {
        let (_, seconds) = bench.move_it().await?;
        speeds.push((LARGE.0 * LARGE.1) as f64 / 1e6 / seconds);
    }
    let pauses = bench.pauses_under_writes(2 * LARGE_MOVES, LARGE.0).await?;
    report.maybe(
        "pause_ms_1gb",
        pauses.iter().copied().reduce(f64::max),
        "ms",
        Goal::AtMost(50.0),
        "nothing moved",
    );
    report.maybe(
        "transfer_mb_per_s",
        quantile(&speeds, 0.5),
        "MB/s",
        Goal::AtLeast(800.0),
        "nothing moved",
    );
    let ratio = bench.cost_for_requests(report).await?;
    report.figure(
        "user_p99_ratio_during_transfer",
        ratio,
        "1",
        Goal::AtMost(1.5),
    );
    bench.stop().await
}

impl Bench {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let mut ports = Ports::default();
        let ttl = Duration::from_secs(3);
        let mut assigners = Assigners::plan(dir, 1, ttl, &mut ports)?;
        let control = assigners.start_all().await?;
        control
            .create_target(TARGET, Consistency::Strong, ttl, 2)
            .await?;
        let (moments, mut pods) = (Moments::default(), Vec::new());
        for _ in 0..2 {
            pods.push(Pod::start(&assigners.endpoints(), &mut ports, &moments).await?);
        }
        let bench = Self {
            control,
            assigners,
            pods,
            moments,
        };
        bench.settled().await?;
        // From now on only what is asked for moves.
        bench.control.hold(TARGET, true).await?;
        bench.settled().await?;
        Ok(bench)
    }

    async fn settled(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let rows = self.control.slices(TARGET).await?;
            if rows.iter().all(|row| row.owner.is_some() && !row.moving) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "the target does not settle");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The slice that moves, and the number of its pod.
    async fn moving(&self) -> anyhow::Result<(Slice, usize)> {
        let rows = self.control.slices(TARGET).await?;
        let row = rows.first().context("the target has no slices")?;
        let (owner, _) = row.owner.as_ref().context("the slice is vacant")?;
        let sessions = self
            .pods
            .iter()
            .map(Pod::session)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let at = sessions.iter().position(|session| session == owner);
        Ok((row.slice, at.context("the owner is none of ours")?))
    }

    /// Replaces what the slice has by so many values of so many bytes.
    async fn fill(&self, (values, bytes): (usize, usize)) -> anyhow::Result<()> {
        let (slice, at) = self.moving().await?;
        for number in 0..values {
            let key = key_in(slice, number);
            let guard = self.pods[at].slicelet.guard_slice_key(key)?;
            let value = vec![number as u8; bytes];
            self.pods[at]
                .map
                .insert(&guard, &key.as_u64().to_be_bytes(), value)?;
            if number % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Moves the slice to the other pod: how long nobody served it in milliseconds, and the whole
    /// in seconds, from the request to the first guard that the destination could give.
    async fn move_it(&self) -> anyhow::Result<(f64, f64)> {
        let (slice, at) = self.moving().await?;
        let to = self.pods[1 - at].session()?;
        self.moments.lock().clear();
        let begun = Instant::now();
        let before = self.pods[1 - at].slicelet.stats().handoffs_in;
        self.control.move_slice(TARGET, slice, to).await?;
        while self.pods[1 - at].slicelet.stats().handoffs_in == before {
            ensure!(begun.elapsed() < PATIENCE, "{slice} does not move");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        self.settled().await?;
        let (mut frozen_ns, mut begun_ns) = (None, None);
        for moment in self.moments.lock().iter() {
            match moment {
                OwnershipEvent::Frozen {
                    slice: of, at_ns, ..
                } if *of == slice => {
                    frozen_ns = Some(*at_ns);
                }
                OwnershipEvent::Begin {
                    slice: of, at_ns, ..
                } if *of == slice => {
                    begun_ns = Some(*at_ns);
                }
                _ => {}
            }
        }
        let from = frozen_ns.context("no freeze was noted")?;
        let until = begun_ns.context("no beginning was noted")?;
        ensure!(from <= until, "the moments of two moves are mixed up");
        Ok(((until - from) as f64 / 1e6, seconds))
    }

    /// Moves to and fro while a megabyte of values, from number `first` on, is written over and
    /// over.
    async fn pauses_under_writes(&self, moves: usize, first: usize) -> anyhow::Result<Vec<f64>> {
        let (slice, _) = self.moving().await?;
        let writing = Arc::new(AtomicBool::new(true));
        let writer = self.writer(slice, first, &writing);
        let mut pauses = Vec::new();
        for _ in 0..moves {
            pauses.push(self.move_it().await?.0);
        }
        writing.store(false, Ordering::Relaxed);
        ensure!(writer.await? > 0, "nothing was written meanwhile");
        Ok(pauses)
    }

    /// Writes about ten thousand values a second, wherever the slice is.
    fn writer(&self, slice: Slice, first: usize, writing: &Arc<AtomicBool>) -> JoinHandle<u64> {
        let pods = self
            .pods
            .iter()
            .map(|pod| (Arc::clone(&pod.slicelet), pod.map.clone()));
        let (pods, writing) = (pods.collect::<Vec<_>>(), Arc::clone(writing));
        tokio::spawn(async move {
            let mut written = 0;
            let mut pace = tokio::time::interval(Duration::from_millis(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
            while writing.load(Ordering::Relaxed) {
                pace.tick().await;
                for number in 0..10 {
                    let key = key_in(slice, first + (written as usize + number) % SMALL.0);
                    let bytes = key.as_u64().to_be_bytes();
                    for (slicelet, map) in &pods {
                        if let Ok(guard) = slicelet.guard_slice_key(key) {
                            let value = vec![number as u8; SMALL.1];
                            written += u64::from(map.insert(&guard, &bytes, value).is_ok());
                        }
                    }
                }
            }
            written
        })
    }

    /// The p99 of requests to the pods while a gigabyte moves, as a multiple of what it was before.
    /// All of some moves together.
    async fn cost_for_requests(&mut self, report: &mut Report) -> anyhow::Result<f64> {
        let (mut quiet, mut loaded, mut speeds) = (Vec::new(), Vec::new(), Vec::new());
        let p99 = |took: &[f64]| quantile(took, 0.99).context("no request was answered");
        for _ in 0..LARGE_MOVES {
            let before = self.requests(tokio::time::sleep(BEFORE)).await?.1;
            let (moved, during) = self.requests(self.move_it()).await?;
            let (_, seconds) = moved?;
            eprintln!(
                "requests took {:.2} ms (p99), and {:.2} ms in the {seconds:.1} s of a move",
                p99(&before)?,
                p99(&during)?
            );
            speeds.push((LARGE.0 * LARGE.1) as f64 / 1e6 / seconds);
            quiet.extend(before);
            loaded.extend(during);
        }
        report.maybe(
            "transfer_mb_per_s_beside_requests",
            quantile(&speeds, 0.5),
            "MB/s",
            Goal::None,
            "nothing moved",
        );
        let (quiet, loaded) = (p99(&quiet)?, p99(&loaded)?);
        report.figure("user_p99_ms_before", quiet, "ms", Goal::None);
        report.figure("user_p99_ms_during_transfer", loaded, "ms", Goal::None);
        Ok(loaded / quiet)
    }

    /// Requests at a steady rate for keys that stay, until `until` ends: what came of it, and how
    /// long each took, in milliseconds, from the moment when it was due.
    async fn requests<T>(&self, until: impl Future<Output = T>) -> anyhow::Result<(T, Vec<f64>)> {
        let rows = self.control.slices(TARGET).await?;
        let stays = rows.last().context("the target has no slices")?;
        let sessions = self
            .pods
            .iter()
            .map(Pod::session)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let owner = stays.owner.as_ref();
        let at = sessions
            .iter()
            .position(|session| owner.is_some_and(|(owner, _)| owner == session))
            .context("nobody of ours owns the slice that stays")?;
        let users = Users::start(self.pods[at].address(), stays.slice)?;
        let result = until.await;
        Ok((result, users.stop().await?))
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        for pod in self.pods {
            pod.stop().await?;
        }
        self.assigners.stop_all().await
    }
}

/// A key of the slice, spread over it.
fn key_in(slice: Slice, number: usize) -> SliceKey {
    let (first, last) = (slice.first().as_u64(), slice.last().as_u64());
    SliceKey::from_u64(first + (last - first) / (1 << 15) * number as u64)
}

/// What one TCP connection on loopback brings over, in megabytes per second: the measure beside
/// which a transfer is to be seen.
fn plain_tcp_mb_per_s() -> anyhow::Result<f64> {
    const BYTES: usize = 2 << 30;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut from = TcpStream::connect(listener.local_addr()?)?;
    let (mut to, _) = listener.accept()?;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let chunk = vec![7; 256 << 10];
        for _ in 0..BYTES / chunk.len() {
            from.write_all(&chunk)?;
        }
        Ok(())
    });
    let mut buffer = vec![0; 256 << 10];
    let begun = Instant::now();
    let mut got = 0;
    while got < BYTES {
        match to.read(&mut buffer)? {
            0 => anyhow::bail!("the stream ended early"),
            some => got += some,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    match sender.join() {
        Ok(sent) => sent?,
        Err(_) => anyhow::bail!("the sender panicked"),
    }
    Ok(got as f64 / 1e6 / seconds)
}
