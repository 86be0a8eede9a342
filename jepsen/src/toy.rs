//! A register server in this process, and a workload for it: what the harness's own tests attack.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};
use leasehold_checkers::{Kind, Outcome};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::system::{Client, Completion, Host, HostSpec, Invocation, Launch, System, Witness};
use crate::workload::{Evidence, Workload};

/// How the register misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It does not.
    Correct,
    /// Acknowledges each seventh write and forgets it.
    LosesWrites,
    /// Answers nothing, and its client waits for ever.
    ClientHangs,
    /// Each fifth write is carried out and its connection cut before the answer.
    CutsConnections,
    /// As correct, but refuses everything from its hundredth request on.
    Dies,
}

/// The register, served on a thread of its own until the process ends.
pub struct Toy {
    address: SocketAddr,
    manner: Manner,
    hosts: Vec<HostSpec>,
    always_ready: bool,
    witness: Witness,
}

impl Toy {
    /// Serves a register that behaves so.
    pub fn serve(manner: Manner) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(accept(listener, manner));
        });
        Self {
            address,
            manner,
            hosts: Vec::new(),
            always_ready: false,
            witness: Witness::default(),
        }
    }

    /// No register at all.
    pub fn nowhere() -> Self {
        // The port is free again when the listener is dropped.
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            manner: Manner::Correct,
            hosts: Vec::new(),
            always_ready: false,
            witness: Witness::default(),
        }
    }

    /// No register, and nobody misses it.
    pub fn always_ready() -> Self {
        Self {
            always_ready: true,
            ..Self::nowhere()
        }
    }

    /// Tells this of who held what; else it is a system that tells nothing.
    pub fn telling(mut self, witness: Witness) -> Self {
        self.witness = witness;
        self
    }

    /// With processes beside it that do nothing; one called `short…` soon ends by itself.
    pub fn with_hosts(mut self, names: &[&str]) -> Self {
        self.hosts = names
            .iter()
            .map(|name| HostSpec {
                name: (*name).into(),
                role: "server".into(),
            })
            .collect();
        self
    }
}

struct Register {
    values: BTreeMap<String, Value>,
    requests: u64,
    writes: u64,
}

async fn accept(listener: StdListener, manner: Manner) {
    let listener = TcpListener::from_std(listener).unwrap();
    let register = Arc::new(Mutex::new(Register {
        values: BTreeMap::new(),
        requests: 0,
        writes: 0,
    }));
    while let Ok((stream, _)) = listener.accept().await {
        let register = Arc::clone(&register);
        tokio::spawn(async move { answer(stream, &register, manner).await });
    }
}

/// One request a line, `[key, value]`, `null` to read; one value a line back.
async fn answer(stream: TcpStream, register: &Mutex<Register>, manner: Manner) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await.ok()? {
        let (key, value): (String, Value) = serde_json::from_str(&line).ok()?;
        let answer = {
            let mut register = register.lock();
            register.requests += 1;
            if manner == Manner::Dies && register.requests >= 100 {
                return None;
            }
            if !value.is_null() {
                register.writes += 1;
                if manner != Manner::LosesWrites || !register.writes.is_multiple_of(7) {
                    register.values.insert(key.clone(), value.clone());
                }
                if manner == Manner::CutsConnections && register.writes.is_multiple_of(5) {
                    return None;
                }
            }
            register.values.get(&key).cloned().unwrap_or_default()
        };
        if manner != Manner::ClientHangs {
            write
                .write_all(format!("{answer}\n").as_bytes())
                .await
                .ok()?;
        }
    }
    Some(())
}

impl System for Toy {
    fn hosts(&self) -> Vec<HostSpec> {
        self.hosts.clone()
    }

    fn launch(&self, host: &Host, _all: &[Host]) -> anyhow::Result<Launch> {
        let seconds = if host.spec.name.starts_with("short") {
            "0.2"
        } else {
            "600"
        };
        Ok(Launch {
            host: host.spec.name.clone(),
            program: "/bin/sleep".into(),
            args: vec![seconds.into()],
            env: Vec::new(),
        })
    }

    fn ready<'a>(&'a self, _all: &'a [Host]) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            if !self.always_ready {
                TcpStream::connect(self.address).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn client<'a>(
        &'a self,
        _workload: &'a str,
        _worker: usize,
        _all: &'a [Host],
    ) -> LocalBoxFuture<'a, anyhow::Result<Box<dyn Client>>> {
        async move {
            let stream = TcpStream::connect(self.address).await?;
            Ok(Box::new(ToyClient {
                stream: BufReader::new(stream),
                manner: self.manner,
            }) as Box<dyn Client>)
        }
        .boxed_local()
    }

    fn who_is<'a>(&'a self, _part: &'a str, _all: &'a [Host]) -> BoxFuture<'a, Vec<String>> {
        async { Vec::new() }.boxed()
    }

    fn witness(&self, _all: &[Host], _origin_ns: u64) -> anyhow::Result<Witness> {
        Ok(self.witness.clone())
    }
}

struct ToyClient {
    stream: BufReader<TcpStream>,
    manner: Manner,
}

impl ToyClient {
    async fn ask(&mut self, invocation: &Invocation) -> anyhow::Result<Value> {
        let request = json!([invocation.key, invocation.value]);
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        let read = self.stream.read_line(&mut answer).await?;
        anyhow::ensure!(read > 0, "the connection ended");
        serde_json::from_str(&answer).context("an answer")
    }
}

impl Client for ToyClient {
    fn invoke<'a>(&'a mut self, invocation: &'a Invocation) -> LocalBoxFuture<'a, Completion> {
        async move {
            if self.manner == Manner::ClientHangs {
                return futures::future::pending().await;
            }
            match tokio::time::timeout(invocation.deadline, self.ask(invocation)).await {
                Ok(Ok(value)) => Completion::Ok {
                    // A write that was acknowledged wrote its own value, so one must believe.
                    value: match invocation.f.as_str() {
                        "write" => invocation.value.clone(),
                        _ => value,
                    },
                    node: None,
                    epoch: None,
                },
                Ok(Err(error)) => Completion::Unknown(format!("{error:#}")),
                Err(_) => Completion::Unknown("no answer in time".into()),
            }
        }
        .boxed_local()
    }
}

/// Each worker writes and reads a key of its own, so that what must be read is plain.
pub struct ToyWorkload {
    next: Vec<u64>,
}

impl ToyWorkload {
    /// With so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            next: vec![0; workers],
        }
    }

    fn invocation(f: &str, worker: usize, value: Value) -> Invocation {
        Invocation {
            f: f.into(),
            key: Some(format!("k{worker}")),
            value,
            deadline: Duration::from_millis(500),
        }
    }
}

impl Workload for ToyWorkload {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn workers(&self) -> usize {
        self.next.len()
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        let turn = &mut self.next[worker];
        *turn += 1;
        Some(match turn.is_multiple_of(2) {
            true => Self::invocation("read", worker, Value::Null),
            false => Self::invocation("write", worker, json!(*turn)),
        })
    }

    fn ended(&mut self, _worker: usize, _invocation: &Invocation, _completion: &Completion) {}

    fn last(&mut self) -> Vec<Invocation> {
        (0..self.next.len())
            .map(|worker| Self::invocation("read", worker, Value::Null))
            .collect()
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let mut outcome = Outcome::valid("toy");
        // Per key: the last value acknowledged, and those that may be there instead.
        let mut sure: BTreeMap<&str, &Value> = BTreeMap::new();
        let mut maybe: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for op in &evidence.history.0 {
            let key = op.key.as_deref().unwrap_or_default();
            match (op.kind, op.f.as_str()) {
                (Kind::Ok, "write") => drop(sure.insert(key, &op.value)),
                (Kind::Info, "write") => maybe.entry(key).or_default().push(&op.value),
                (Kind::Ok, "read") => {
                    let expected = sure.get(key).copied().unwrap_or(&Value::Null);
                    let other = maybe.get(key).is_some_and(|m| m.contains(&&op.value));
                    if op.value != *expected && !other {
                        let what = format!("{key} was read as {}, not {expected}", op.value);
                        outcome.invalid(leasehold_checkers::Finding::new(what).ops([op.index]));
                    }
                }
                _ => {}
            }
        }
        vec![outcome]
    }
}
