//! Three etcd servers as a system under test, and the few calls of its JSON gateway that a lock
//! needs.

use std::time::Duration;

use anyhow::Context;
use futures::future::{BoxFuture, LocalBoxFuture};
use leasehold_jepsen::system::{Client, Host, HostSpec, Launch, System};
use serde_json::{Value, json};

use crate::lock::{Resource, Worker};

/// A lease's time to live, in seconds; the published analysis used 2.
pub const TTL_S: u64 = 2;

/// etcd, from the system's packages, as it comes.
pub struct Etcd {
    /// What the lock protects; no fault strikes it.
    pub resource: Resource,
}

impl System for Etcd {
    fn hosts(&self) -> Vec<HostSpec> {
        let host = |number| HostSpec {
            name: format!("e{number}"),
            role: "server".into(),
        };
        (1..=3).map(host).collect()
    }

    fn core(&self) -> &str {
        "server"
    }

    fn launch(&self, host: &Host, all: &[Host]) -> anyhow::Result<Launch> {
        let cluster: Vec<String> = all
            .iter()
            .map(|peer| format!("{}=http://{}:2380", peer.spec.name, peer.ip))
            .collect();
        let flags = [
            ("--name", host.spec.name.clone()),
            (
                "--data-dir",
                host.data_dir.join("etcd").display().to_string(),
            ),
            ("--listen-peer-urls", format!("http://{}:2380", host.ip)),
            (
                "--initial-advertise-peer-urls",
                format!("http://{}:2380", host.ip),
            ),
            ("--listen-client-urls", format!("http://{}:2379", host.ip)),
            (
                "--advertise-client-urls",
                format!("http://{}:2379", host.ip),
            ),
            ("--initial-cluster", cluster.join(",")),
            ("--logger", "zap".into()),
        ];
        Ok(Launch {
            host: host.spec.name.clone(),
            program: "etcd".into(),
            args: flags
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value])
                .collect(),
            env: Vec::new(),
        })
    }

    fn ready<'a>(&'a self, all: &'a [Host]) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            // A lease is granted by a quorum: etcd is ready when each server can have one.
            for host in all {
                let etcd = Gateway::new(std::slice::from_ref(host));
                etcd.grant(Duration::from_secs(1))
                    .with_context(|| format!("{} grants no lease yet", host.spec.name))?;
            }
            Ok(())
        })
    }

    fn client<'a>(
        &'a self,
        _workload: &'a str,
        worker: usize,
        all: &'a [Host],
    ) -> LocalBoxFuture<'a, anyhow::Result<Box<dyn Client>>> {
        let mut hosts = all.to_vec();
        let first = worker % hosts.len().max(1);
        hosts.rotate_left(first);
        let worker = Worker::new(Gateway::new(&hosts), self.resource.clone());
        Box::pin(async move { Ok(Box::new(worker) as Box<dyn Client>) })
    }

    fn who_is<'a>(&'a self, part: &'a str, all: &'a [Host]) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            let leads = |host: &&Host| Gateway::new(std::slice::from_ref(host)).leads();
            match part {
                "leader" => all
                    .iter()
                    .filter(leads)
                    .map(|host| host.spec.name.clone())
                    .collect(),
                _ => Vec::new(),
            }
        })
    }
}

/// A lock that is held.
#[derive(Clone)]
pub struct Held {
    /// The key that stands for it.
    key: String,
    /// Revision at which the key was created: larger for every later holder.
    pub token: u64,
}

/// etcd's JSON gateway; the server that answered last is asked first. Blocking: every worker has a
/// thread of its own.
pub struct Gateway {
    servers: Vec<String>,
}

impl Gateway {
    pub fn new(hosts: &[Host]) -> Self {
        Self {
            servers: hosts
                .iter()
                .map(|host| format!("http://{}:2379", host.ip))
                .collect(),
        }
    }

    fn post(
        &self,
        server: &str,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> anyhow::Result<Value> {
        let config = ureq::Agent::config_builder().timeout_global(Some(patience));
        let agent: ureq::Agent = config.build().into();
        let mut answer = agent.post(format!("{server}{path}")).send_json(body)?;
        Ok(answer.body_mut().read_json()?)
    }

    /// Asks one server after another until one answers.
    fn ask(&self, path: &str, body: &Value, patience: Duration) -> anyhow::Result<Value> {
        let mut last = anyhow::anyhow!("no server is known");
        for server in &self.servers {
            match self.post(server, path, body, patience) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn leads(&self) -> bool {
        let status = self.ask(
            "/v3/maintenance/status",
            &json!({}),
            Duration::from_millis(500),
        );
        status.is_ok_and(|status| {
            let me = &status["header"]["member_id"];
            me.is_string() && *me == status["leader"]
        })
    }

    /// A fresh lease.
    pub fn grant(&self, patience: Duration) -> anyhow::Result<String> {
        let answer = self.ask("/v3/lease/grant", &json!({ "TTL": TTL_S }), patience)?;
        text(&answer["ID"]).context("etcd granted a lease without an id")
    }

    /// Keeps the lease for another ttl, if it still exists.
    pub fn keep_alive(&self, lease: &str, patience: Duration) -> anyhow::Result<()> {
        self.ask("/v3/lease/keepalive", &json!({ "ID": lease }), patience)
            .map(drop)
    }

    /// Waits until the lock is ours, for as long as the lease lives.
    pub fn lock(&self, name: &str, lease: &str, patience: Duration) -> anyhow::Result<Held> {
        let body = json!({ "name": base64(name.as_bytes()), "lease": lease });
        let answer = self.ask("/v3/lock/lock", &body, patience)?;
        let key = text(&answer["key"]).context("etcd gave a lock without a key")?;
        let revision = text(&answer["header"]["revision"]).context("etcd gave no revision")?;
        // The key was created before the lock was had; its own revision is the token.
        let body = json!({ "key": key });
        let found = self.ask("/v3/kv/range", &body, patience)?;
        let created = text(&found["kvs"][0]["create_revision"]);
        let token = created.unwrap_or(revision).parse()?;
        Ok(Held { key, token })
    }

    /// Gives the lock back.
    pub fn unlock(&self, held: &Held, patience: Duration) -> anyhow::Result<()> {
        self.ask("/v3/lock/unlock", &json!({ "key": held.key }), patience)
            .map(drop)
    }

    /// Ends the lease, and with it whatever hangs on it.
    pub fn revoke(&self, lease: &str, patience: Duration) -> anyhow::Result<()> {
        self.ask("/v3/lease/revoke", &json!({ "ID": lease }), patience)
            .map(drop)
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The gateway's form of bytes (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
