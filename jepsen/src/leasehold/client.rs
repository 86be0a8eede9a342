//! Clients of the workloads: they see Leasehold as an application's clients do.

mod direct;
mod keyed;
mod locks;
mod outcome;
mod store;
mod views;
mod watches;

use std::collections::HashMap;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use leasehold_client::Clerk;
use tonic::transport::{Channel, Endpoint};

use super::admin::Admin;
use super::{Options, TARGET, layout};
use crate::register::RegisterClient;
use crate::rpc::pod_client::PodClient;
use crate::system::{Client, Completion, Host, Invocation};

/// Connecting to a pod, or an answer of its to a ping.
const NOTICE: Duration = Duration::from_millis(500);
/// How long a call to the external store may take.
const STORE_CALL: Duration = Duration::from_millis(1_500);

/// One worker's client. It keeps what a client keeps: a map, connections, tokens of locks it holds.
pub struct LeaseholdClient {
    workload: String,
    worker: usize,
    ttl: Duration,
    clerk: Clerk,
    pods: Vec<(String, PodClient<Channel>)>,
    /// Where each pod is, by host.
    addresses: HashMap<String, String>,
    admin: Admin,
    register: RegisterClient,
    /// Tokens of locks held, by key.
    locks: HashMap<String, crate::rpc::Version>,
    watched: watches::Watched,
    /// Watches of the run's end, by Assigner.
    last_watched: HashMap<String, watches::Watched>,
    /// What they must come to have.
    final_generation: u64,
}

impl LeaseholdClient {
    /// Connects when it is first used. Belongs to the runtime in which it is made.
    ///
    /// # Errors
    /// A host is missing, or an address is none.
    pub fn new(
        options: &Options,
        workload: &str,
        worker: usize,
        all: &[Host],
    ) -> anyhow::Result<Self> {
        let assigners = layout::assigners(all);
        let clerk = Clerk::builder(TARGET)
            .endpoints(assigners.iter().map(|(_, address)| address.as_str()))
            .client_name(format!("{workload}-{worker}"))
            .call_deadline(Duration::from_secs(60))
            .connect_lazy()?;
        let pod = |host: &Host| -> anyhow::Result<_> {
            let channel = Endpoint::from_shared(format!("http://{}", layout::pod_address(host)))?
                .connect_timeout(NOTICE)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(NOTICE)
                .keep_alive_timeout(NOTICE)
                .connect_lazy();
            Ok((host.spec.name.clone(), PodClient::new(channel)))
        };
        Ok(Self {
            workload: workload.to_owned(),
            worker,
            ttl: options.ttl,
            clerk,
            pods: layout::of_role(all, layout::POD)
                .map(pod)
                .collect::<anyhow::Result<_>>()?,
            addresses: layout::of_role(all, layout::POD)
                .map(|host| (host.spec.name.clone(), layout::pod_address(host)))
                .collect(),
            admin: Admin::new(&assigners, Duration::ZERO)?,
            register: RegisterClient::new(&layout::register_address(all)?, STORE_CALL)?,
            locks: HashMap::new(),
            watched: watches::Watched::default(),
            last_watched: HashMap::new(),
            final_generation: 0,
        })
    }

    async fn perform(&mut self, invocation: &Invocation) -> Completion {
        let of_targets = invocation
            .key
            .as_deref()
            .is_some_and(|key| key.starts_with(STORE_PREFIX));
        match (self.workload.as_str(), invocation.f.as_str()) {
            (_, "serve") => self.serve(invocation).await,
            (_, "applied") => self.applied(invocation).await,
            (_, "wait") => wait(invocation).await,
            (_, "view") => match invocation.value["glance"].as_str() {
                Some(observer) => self.glance(observer, invocation).await,
                None => self.view(invocation).await,
            },
            (_, "watch") => self.watch(invocation).await,
            (_, "stir") => self.stir(invocation).await,
            (_, "generation") => self.generation(invocation).await,
            (_, "acquire") => self.acquire(invocation).await,
            (_, "release") => self.release(invocation).await,
            ("lock", "act") => self.act_with_lock(invocation).await,
            ("lock-set" | "lock-external-set", _) => self.locked_set(invocation).await,
            (_, _) if of_targets => self.configuration(invocation).await,
            (_, "add") => self.add(invocation).await,
            ("counter" | "counter-memory", "read") => self.read_counter(invocation).await,
            (_, _) => self.keyed(invocation).await,
        }
    }
}

/// `wait` for so many milliseconds: what is seen after it is seen after a bound.
async fn wait(invocation: &Invocation) -> Completion {
    let wait_ms = invocation.value.as_u64().unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(wait_ms).min(invocation.deadline)).await;
    Completion::Ok {
        value: invocation.value.clone(),
        node: None,
        epoch: None,
    }
}

/// Keys that are targets, whose configuration is the value.
pub const STORE_PREFIX: &str = "store-";

impl Client for LeaseholdClient {
    fn invoke<'a>(&'a mut self, invocation: &'a Invocation) -> LocalBoxFuture<'a, Completion> {
        Box::pin(self.perform(invocation))
    }
}
