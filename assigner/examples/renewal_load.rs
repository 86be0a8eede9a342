//! Renewals against three nodes in a process of their own: throughput, latency, processor time.
//!
//! `cargo run --release --example renewal_load -- [sessions] [connections] [seconds] [renewals per second, 0 = saturated]`
//! The environment variable `COLLECT_WINDOW_US` sets the shortest time between two quorum rounds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::StreamExt;
use leasehold_assigner::{DataDir, Node, NodeConfig};
use leasehold_proto::clock::ClockClass;
use leasehold_proto::target::{PodAddress, Squid, TargetConfig, TargetName};
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::wire::pb::sessions_client::SessionsClient;
use leasehold_proto::wire::{RegisterReply, RegisterRequest, admin, pb};
use leasehold_raft_store::MemoryStore;
use tonic::transport::{Channel, Endpoint};

const TARGET: &str = "load";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if arguments.first().is_some_and(|word| word == "serve") {
        return runtime.block_on(serve());
    }
    let number =
        |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let load = Load {
        sessions: number(0, 10_000)?,
        connections: number(1, 16)?,
        seconds: number(2, 10)?,
        rate: number(3, 0)?,
    };
    let mut server = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut leader = String::new();
    BufReader::new(server.stdout.take().context("its output")?).read_line(&mut leader)?;
    let ran = runtime.block_on(load.run(leader.trim(), server.id()));
    server.kill()?;
    server.wait()?;
    ran
}

async fn serve() -> anyhow::Result<()> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = NodeConfig::new("load", id, DataDir::Memory(MemoryStore::new()), any);
        if let Ok(window) = std::env::var("COLLECT_WINDOW_US") {
            config.grantor.collect_window = Duration::from_micros(window.parse()?);
        }
        nodes.push(Node::start(config).await?);
    }
    let members: BTreeMap<u64, String> = (1..)
        .zip(nodes.iter().map(|node| node.address().to_owned()))
        .collect();
    nodes[0].bootstrap(members).await?;
    let leader = loop {
        if let Some((_, address)) = nodes[0].status().leader {
            break address;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let config = TargetConfig {
        ttl: Duration::from_secs(30),
        ..TargetConfig::default()
    };
    let create = admin::CreateTarget {
        target: TargetName::new(TARGET)?,
        config,
        initial_slices: 1024,
        reason: None,
    };
    let mut client = AdminClient::connect(format!("http://{leader}")).await?;
    while client
        .create_target(pb::CreateTargetRequest::from(&create))
        .await
        .is_err()
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{leader}");
    std::io::stdout().flush()?;
    std::future::pending::<()>().await;
    Ok(())
}

struct Load {
    sessions: u64,
    connections: u64,
    seconds: u64,
    rate: u64,
}

#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    lost: AtomicU64,
    /// Answers to something that was not asked last; there must be none.
    strays: AtomicU64,
    measuring: AtomicBool,
    stop: AtomicBool,
}

impl Load {
    async fn run(&self, leader: &str, server: u32) -> anyhow::Result<()> {
        let seen = Arc::new(Seen::default());
        let mut tasks = Vec::new();
        for connection in 0..self.connections {
            let channel = Endpoint::from_shared(format!("http://{leader}"))?
                .initial_connection_window_size(16 << 20)
                .initial_stream_window_size(4 << 20)
                .tcp_nodelay(true)
                .connect()
                .await?;
            let count = self.sessions / self.connections;
            let sessions = register(channel.clone(), connection * count, count).await?;
            let period = (self.rate > 0)
                .then(|| Duration::from_secs_f64(self.sessions as f64 / self.rate as f64));
            tasks.push(tokio::spawn(drive(
                channel,
                sessions,
                period,
                Arc::clone(&seen),
            )));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (cpu, begun) = (cpu_seconds(server)?, Instant::now());
        seen.measuring.store(true, Ordering::Release);
        tokio::time::sleep(Duration::from_secs(self.seconds)).await;
        let (answered, took) = (
            seen.answered.load(Ordering::Acquire),
            begun.elapsed().as_secs_f64(),
        );
        let cpu = cpu_seconds(server)? - cpu;
        seen.stop.store(true, Ordering::Release);
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await??);
        }
        latencies.sort_unstable();
        let at = |share: f64| {
            latencies
                .get((latencies.len() as f64 * share) as usize)
                .map_or(0.0, |us| f64::from(*us) / 1e3)
        };
        println!(
            "renewals_per_s {:.0}\nserver_cpu_s_per_10k {:.3}\nlatency_ms_p50 {:.3}\nlatency_ms_p99 {:.3}\nlatency_ms_p999 {:.3}\nsessions_lost {}\nanswers_to_nothing {}",
            answered as f64 / took,
            cpu / (answered as f64 / 1e4),
            at(0.5),
            at(0.99),
            at(0.999),
            seen.lost.load(Ordering::Relaxed),
            seen.strays.load(Ordering::Relaxed),
        );
        Ok(())
    }
}

async fn register(channel: Channel, first: u64, count: u64) -> anyhow::Result<Vec<RegisterReply>> {
    let mut client = SessionsClient::new(channel);
    let mut found = Vec::new();
    for id in first..first + count {
        let request = RegisterRequest {
            target: TargetName::new(TARGET)?,
            squid: Squid {
                address: PodAddress::new(&format!("pod-{id}:9000"))?,
                id: u128::from(id),
            },
            clock: ClockClass::Raw,
            app_version: String::new(),
        };
        let reply = client.register(pb::RegisterRequest::from(&request)).await?;
        found.push(RegisterReply::try_from(reply.into_inner())?);
    }
    Ok(found)
}

/// One connection: every session has one renewal outstanding, or one per period.
async fn drive(
    channel: Channel,
    sessions: Vec<RegisterReply>,
    period: Option<Duration>,
    seen: Arc<Seen>,
) -> anyhow::Result<Vec<u32>> {
    use pb::slicelet_message::Message;
    let (to, messages) = tokio::sync::mpsc::channel::<pb::SliceletMessage>(1 << 16);
    let mut states: BTreeMap<u64, State> = BTreeMap::new();
    let message = |message| pb::SliceletMessage {
        message: Some(message),
    };
    for session in &sessions {
        let hello = pb::Hello {
            session: session.session.as_u64(),
            secret: Some(pb::SessionSecret::from(&session.secret)),
            target: TARGET.into(),
        };
        to.try_send(message(Message::Hello(hello)))?;
        states.insert(session.session.as_u64(), State::default());
    }
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut answers = SessionsClient::new(channel)
        .attach(stream)
        .await?
        .into_inner()
        .ready_chunks(1024);
    let renew = |session: u64, state: &mut State| {
        state.seq += 1;
        state.sent = Some(Instant::now());
        pb::Renew {
            session,
            seq: state.seq,
            known: state.known,
            ..pb::Renew::default()
        }
    };
    let ids: Vec<u64> = states.keys().copied().collect();
    if period.is_none() {
        for id in &ids {
            if let Some(state) = states.get_mut(id) {
                to.try_send(message(Message::Renew(renew(*id, state))))?;
            }
        }
    }
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let (begun, mut sent) = (Instant::now(), 0_u64);
    let mut latencies = Vec::new();
    while !seen.stop.load(Ordering::Acquire) {
        let chunk = tokio::select! {
            chunk = answers.next() => chunk.context("the stream has ended")?,
            _ = tick.tick() => Vec::new(),
        };
        if let Some(period) = period {
            let due =
                (begun.elapsed().as_secs_f64() / period.as_secs_f64() * ids.len() as f64) as u64;
            while sent < due {
                let id = ids[(sent % ids.len() as u64) as usize];
                if let Some(state) = states.get_mut(&id) {
                    to.try_send(message(Message::Renew(renew(id, state))))?;
                }
                sent += 1;
            }
        }
        for answer in chunk {
            match answer?.message {
                Some(pb::assigner_message::Message::Renewed(renewed)) => {
                    let Some(state) = states.get_mut(&renewed.session) else {
                        continue;
                    };
                    if renewed.seq != state.seq {
                        seen.strays.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    if !renewed.view_update.is_empty() {
                        state.known = known(&renewed.view_update);
                    }
                    if seen.measuring.load(Ordering::Relaxed) {
                        seen.answered.fetch_add(1, Ordering::Relaxed);
                        latencies.extend(state.sent.map(|sent| sent.elapsed().as_micros() as u32));
                    }
                    if period.is_none() {
                        to.try_send(message(Message::Renew(renew(renewed.session, state))))?;
                    }
                }
                Some(pb::assigner_message::Message::Pushed(pushed)) => {
                    if let Some(state) = states.get_mut(&pushed.session) {
                        state.known = known(&pushed.view_update);
                    }
                }
                other => {
                    seen.lost.fetch_add(1, Ordering::Relaxed);
                    eprintln!("{other:?}");
                }
            }
        }
    }
    Ok(latencies)
}

#[derive(Default)]
struct State {
    seq: u64,
    known: Option<pb::Generation>,
    sent: Option<Instant>,
}

/// The generation that an update leads to.
fn known(update: &[u8]) -> Option<pb::Generation> {
    use leasehold_proto::wire::decode_view_update;
    let update = decode_view_update(update).ok()?;
    Some((&update.generation()).into())
}

/// Processor time that a process has used.
fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = text
        .rsplit_once(") ")
        .context("a stat line")?
        .1
        .split(' ')
        .collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}
