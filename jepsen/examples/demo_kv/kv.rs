//! Three Assigners and three pods of the demo as a system under test. Only its own client and the
//! start of its pods are new: Assigners are started, asked and moved about as the harness's own
//! system does it.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::{BoxFuture, LocalBoxFuture};
use leasehold_client::{Clerk, ErrorKind};
use leasehold_jepsen::leasehold::layout::{self, POD};
use leasehold_jepsen::leasehold::{Leasehold, Options, TARGET, admin, system};
use leasehold_jepsen::nemesis::ClusterControl;
use leasehold_jepsen::system::{Client, Completion, Host, HostSpec, Invocation, Launch, System};
use leasehold_proto::target::Consistency;
use serde_json::{Value, json};
use tonic::Request;

/// The application's interface, as a client of it has it.
#[path = "../../../assigner/src/demo/kv.rs"]
#[allow(missing_docs, clippy::all)]
mod api;

use api::kv_client::KvClient;
use api::{GetRequest, PutRequest};

/// Time to live of a pod's session.
pub const TTL: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);

/// See the file.
pub struct DemoKv {
    options: Options,
    leasehold: Leasehold,
}

impl DemoKv {
    /// With this program, or the one beside the directory of the examples.
    pub fn new(program: Option<PathBuf>) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let beside = here.parent().and_then(|examples| examples.parent());
        let program = program.or_else(|| beside.map(|target| target.join("leasehold")));
        let program = program.filter(|program| program.is_file());
        let Some(leasehold) = program else {
            anyhow::bail!(
                "there is no `leasehold` beside the examples: `cargo build -p leasehold-assigner`, with --release \
                 if the example has it, or name one with --leasehold"
            );
        };
        let options = Options {
            assigners: 3,
            spares: 0,
            pods: 3,
            mode: Consistency::Strong,
            ttl: TTL,
            slices: 16,
            unfenced: false,
            leasehold,
            harness: here,
        };
        Ok(Self {
            leasehold: system(options.clone()),
            options,
        })
    }
}

impl System for DemoKv {
    fn hosts(&self) -> Vec<HostSpec> {
        let of_demo = |host: &HostSpec| host.role != layout::SERVER;
        layout::hosts(&self.options)
            .into_iter()
            .filter(of_demo)
            .collect()
    }

    fn launch(&self, host: &Host, all: &[Host]) -> anyhow::Result<Launch> {
        if host.spec.role != POD {
            return layout::launch(&self.options, host, all);
        }
        let assigners: Vec<String> = layout::assigners(all)
            .into_iter()
            .map(|(_, at)| at)
            .collect();
        let log = host.log_dir.join(format!("ownership-{}", now_ns()));
        Ok(Launch {
            host: host.spec.name.clone(),
            program: self.options.leasehold.clone(),
            args: vec![
                "demo".into(),
                "pod".into(),
                format!("--assigner={}", assigners.join(",")),
                format!("--target={TARGET}"),
                format!("--listen={}", layout::pod_address(host)),
                format!("--ownership-log={}", log.display()),
                // At the end all of them stop at once: nobody is left to take the slices.
                "--drain=1s".into(),
            ],
            env: Vec::new(),
        })
    }

    fn ready<'a>(&'a self, all: &'a [Host]) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let admin = admin::Admin::new(&layout::assigners(all), PATIENCE)?;
            let config = admin::config(self.options.mode, self.options.ttl);
            admin
                .create_target(TARGET, &config, self.options.slices)
                .await?;
            let slices = admin.slices(TARGET).await?;
            let vacant = slices
                .slices
                .iter()
                .find(|info| info.assigned.owner.is_none());
            anyhow::ensure!(vacant.is_none(), "a slice is vacant");
            Ok(())
        })
    }

    fn client<'a>(
        &'a self,
        workload: &'a str,
        worker: usize,
        all: &'a [Host],
    ) -> LocalBoxFuture<'a, anyhow::Result<Box<dyn Client>>> {
        let addresses = layout::assigners(all);
        Box::pin(async move {
            let clerk = Clerk::builder(TARGET)
                .endpoints(addresses.iter().map(|(_, address)| address.as_str()))
                .client_name(format!("{workload}-{worker}"))
                .call_deadline(Duration::from_secs(60))
                .connect_lazy()?;
            Ok(Box::new(KvWorker { clerk }) as Box<dyn Client>)
        })
    }

    fn who_is<'a>(&'a self, part: &'a str, all: &'a [Host]) -> BoxFuture<'a, Vec<String>> {
        self.leasehold.who_is(part, all)
    }

    fn operator<'a>(&'a self, all: &'a [Host]) -> Option<Box<dyn ClusterControl + 'a>> {
        self.leasehold.operator(all)
    }

    fn storm<'a>(&'a self, all: &'a [Host], at_once: usize, seed: u64) -> BoxFuture<'a, ()> {
        self.leasehold.storm(all, at_once, seed)
    }
}

fn now_ns() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

struct KvWorker {
    clerk: Clerk,
}

impl KvWorker {
    async fn perform(&self, invocation: &Invocation) -> Completion {
        let Some(key) = invocation.key.as_deref().map(str::as_bytes) else {
            return Completion::Fail("no key".into());
        };
        let call = self.clerk.call(key, |channel, _| {
            let key = key.to_vec();
            async move {
                let mut kv = KvClient::new(channel);
                if invocation.f == "read" {
                    let reply = kv.get(Request::new(GetRequest { key })).await?.into_inner();
                    return Ok((json!(reply.value), reply.token));
                }
                let value = invocation.value.as_u64().unwrap_or_default();
                let put = PutRequest { key, value };
                let reply = kv.put(Request::new(put)).await?.into_inner();
                Ok((json!(value), reply.token))
            }
        });
        match tokio::time::timeout(invocation.deadline, call).await {
            Ok(Ok((value, token))) => ok(value, token),
            // The Clerk promises that nothing was done: that it keeps the promise is being tested.
            Ok(Err(error))
                if matches!(error.kind(), ErrorKind::NotOwner | ErrorKind::Unavailable) =>
            {
                Completion::Fail(error.to_string())
            }
            Ok(Err(error)) => Completion::Unknown(error.to_string()),
            Err(_) => Completion::Unknown("no answer in time".into()),
        }
    }
}

fn ok(value: Value, token: u64) -> Completion {
    Completion::Ok {
        value,
        node: None,
        epoch: Some(token),
    }
}

impl Client for KvWorker {
    fn invoke<'a>(&'a mut self, invocation: &'a Invocation) -> LocalBoxFuture<'a, Completion> {
        Box::pin(self.perform(invocation))
    }
}
