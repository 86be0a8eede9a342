//! One arm of the demo: every process is started, the caches are filled, and one pod after the
//! other is restarted under load, while what clients and store see is written down.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::ValueEnum;
use leasehold_proto::target::Consistency;
use tokio::time::MissedTickBehavior;
use tonic::transport::{Channel, Endpoint};

use super::Plan;
use super::answers::{self, Answer};
use super::client::Status;
use crate::demo::fleet::{Fleet, Size};
use crate::demo::kv::backing_client::BackingClient;
use crate::demo::kv::{WorkReply, WorkRequest};
use crate::demo::status;
use crate::harness::control::Control;
use crate::harness::now_ns;
use crate::harness::procs::Ports;

/// Between two looks at clients and store.
const LOOK: Duration = Duration::from_millis(250);
/// Between two lines of progress.
const SAY: Duration = Duration::from_secs(2);
/// Longest that filling store and caches takes, on any machine.
const FILLED: Duration = Duration::from_secs(300);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Arm {
    /// One owner at a time; what is cached moves with its slice before ownership does.
    Strong,
    /// No lease check; ownership moves at once, and what is cached follows.
    Eventual,
    /// One owner at a time; slices begin empty.
    Cold,
    /// No Leasehold: a key is at the pod that its hash says, and that begins empty.
    Static,
}

impl Arm {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Arm::Strong => "strong, with transfer",
            Arm::Eventual => "eventual, with transfer",
            Arm::Cold => "strong, without transfer",
            Arm::Static => "static hashing",
        }
    }
}

/// What was seen of an arm. Times are on the host's lease clock.
pub struct Seen {
    pub arm: Arm,
    pub answers: Vec<Answer>,
    /// The store's counts, several times a second.
    pub work: Vec<(u64, WorkReply)>,
    /// When each pod was asked to stop, and when its successor served.
    pub restarts: Vec<(u64, u64)>,
    /// When the caches were filled and load was steady.
    pub begin_ns: u64,
    pub end_ns: u64,
}

impl Seen {
    /// From the first restart to the end of the last.
    pub fn restarting(&self) -> (u64, u64) {
        let first = self.restarts.first().map_or(self.end_ns, |first| first.0);
        let last = self.restarts.last().map_or(self.end_ns, |last| last.1);
        (first, last)
    }
}

/// Plays one arm in `dir`, an empty directory.
pub async fn play(arm: Arm, plan: &Plan, dir: &Path, begun: Instant) -> anyhow::Result<Seen> {
    let mut ports = Ports::default();
    let size = Size {
        assigners: if arm == Arm::Static {
            0
        } else {
            plan.assigners
        },
        pods: plan.pods,
        ttl: plan.ttl,
    };
    let mut fleet = Fleet::new(dir, size, &mut ports)?;
    let store = ports.next()?;
    let mut watch = Watch::new(arm, plan, dir, format!("http://{store}"), begun)?;
    watch.say("the store writes its values");
    fleet.start_other("store", &plan.store_words(dir, &store.to_string()))?;
    watch.store_answers(&mut fleet).await?;
    watch.say("Assigners and pods start");
    let control = start(arm, plan, &mut fleet, &watch.store_endpoint).await?;
    watch.say("clients fill the caches");
    for number in 0..plan.clients {
        let words = client_words(arm, plan, &fleet, &watch, number);
        fleet.start_other(&format!("client-{number}"), &words)?;
    }
    watch.filled(&mut fleet).await?;

    let begin_ns = now_ns();
    watch.phase("steady load");
    watch.during(tokio::time::sleep(plan.before)).await;
    let restarts = restart_all(plan, &mut fleet, &mut watch, control.as_ref()).await?;
    watch.phase("steady load");
    watch.during(tokio::time::sleep(plan.after)).await;
    let end_ns = now_ns();

    fleet.check_alive()?;
    fleet.finish().await?;
    let logs = (0..plan.clients).map(|number| answers::read(&log_file(dir, number)));
    Ok(Seen {
        arm,
        answers: logs.collect::<anyhow::Result<Vec<_>>>()?.concat(),
        work: watch.work,
        restarts,
        begin_ns,
        end_ns,
    })
}

async fn start(
    arm: Arm,
    plan: &Plan,
    fleet: &mut Fleet,
    store: &str,
) -> anyhow::Result<Option<Control>> {
    let words = plan.pod_words(store, arm == Arm::Cold);
    let mode = match arm {
        Arm::Static => {
            fleet.start_fixed(words).await?;
            return Ok(None);
        }
        Arm::Eventual => Consistency::Eventual,
        Arm::Strong | Arm::Cold => Consistency::Strong,
    };
    fleet.start(mode, plan.slices, words).await.map(Some)
}

/// Restarts one pod after the other. Returns when each began and ended.
async fn restart_all(
    plan: &Plan,
    fleet: &mut Fleet,
    watch: &mut Watch,
    control: Option<&Control>,
) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut restarts = Vec::new();
    for index in 0..fleet.pods.len() {
        let next = tokio::time::Instant::now() + plan.every;
        watch.phase(&format!("restart {} of {}", index + 1, fleet.pods.len()));
        let begin = now_ns();
        let restart = async {
            fleet.stop_pod(index).await?;
            fleet.start_pod(index)?;
            fleet.answers(index).await?;
            if let Some(control) = control {
                fleet.served(control).await?;
            }
            anyhow::Ok(now_ns())
        };
        let end = watch.during(restart).await?;
        restarts.push((begin, end));
        watch.during(tokio::time::sleep_until(next)).await;
        fleet.check_alive()?;
    }
    Ok(restarts)
}

/// The words with which a client is started.
fn client_words(arm: Arm, plan: &Plan, fleet: &Fleet, watch: &Watch, number: u16) -> Vec<String> {
    let mut words = plan.client_words(&watch.dir, &watch.store_endpoint, number);
    if arm == Arm::Static {
        let pods: Vec<String> = fleet
            .pods
            .iter()
            .map(|pod| pod.address.to_string())
            .collect();
        words.push(format!("--pods={}", pods.join(",")));
    } else {
        words.push(fleet.assigner_words());
        words.push(format!("--target={}", crate::demo::fleet::TARGET));
    }
    words
}

/// Where a client logs its answers.
pub fn log_file(dir: &Path, number: u16) -> PathBuf {
    dir.join(format!("client-{number}.answers"))
}

/// Where a client says how it fares.
pub fn status_file(dir: &Path, number: u16) -> PathBuf {
    dir.join(format!("client-{number}.status"))
}

/// Looks at clients and store, and tells.
struct Watch {
    arm: Arm,
    dir: PathBuf,
    clients: u16,
    store_endpoint: String,
    store: BackingClient<Channel>,
    work: Vec<(u64, WorkReply)>,
    phase: String,
    begun: Instant,
    said: (Instant, Status, WorkReply),
}

impl Watch {
    fn new(
        arm: Arm,
        plan: &Plan,
        dir: &Path,
        store_endpoint: String,
        begun: Instant,
    ) -> anyhow::Result<Self> {
        let store = Endpoint::from_shared(store_endpoint.clone())?.connect_lazy();
        Ok(Self {
            arm,
            dir: dir.to_owned(),
            clients: plan.clients,
            store_endpoint,
            store: BackingClient::new(store),
            work: Vec::new(),
            phase: String::new(),
            begun,
            said: (Instant::now(), Status::default(), WorkReply::default()),
        })
    }

    fn say(&self, what: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        println!("{at:6.1}s  {}: {what}", self.arm.title());
    }

    fn phase(&mut self, phase: &str) {
        phase.clone_into(&mut self.phase);
        self.say(phase);
    }

    async fn store_answers(&mut self, fleet: &mut Fleet) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.store.work(WorkRequest {}).await.is_err() {
            ensure!(
                begun.elapsed() < FILLED,
                "the store did not answer within {FILLED:?}"
            );
            fleet.check_alive()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn filled(&mut self, fleet: &mut Fleet) -> anyhow::Result<()> {
        let begun = Instant::now();
        let filled = |number| status::read::<Status>(&status_file(&self.dir, number)).filled;
        while !(0..self.clients).all(filled) {
            ensure!(
                begun.elapsed() < FILLED,
                "the caches were not filled within {FILLED:?}"
            );
            fleet.check_alive()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Goes on looking until `what` has ended.
    async fn during<T>(&mut self, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut what => return done,
                _ = looks.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        // A look that fails is one sample less.
        let Ok(Ok(work)) = tokio::time::timeout(LOOK, self.store.work(WorkRequest {})).await else {
            return;
        };
        let work = work.into_inner();
        self.work.push((now_ns(), work));
        let (since, before, loads) = &self.said;
        let passed = since.elapsed();
        if passed < SAY {
            return;
        }
        let statuses = (0..self.clients).map(|number| status_file(&self.dir, number));
        let mut now = Status::default();
        for status in statuses.map(|file| status::read::<Status>(&file)) {
            now.hits += status.hits;
            now.misses += status.misses;
            now.failed += status.failed;
            now.recent_ms_p99 = now.recent_ms_p99.max(status.recent_ms_p99);
        }
        let (hits, misses) = (now.hits - before.hits, now.misses - before.misses);
        if hits + misses == 0 {
            // While the caches are filled nothing is measured.
            self.said = (Instant::now(), now, work);
            return;
        }
        let reads = (hits + misses) as f64;
        let per_s = |count: u64| count as f64 / passed.as_secs_f64();
        self.say(&format!(
            "{}: {:.0} reads/s, {:.1} % from cache, {} failed, p99 {:.1} ms, store {:.0} reads/s",
            self.phase,
            per_s(hits + misses),
            hits as f64 / reads * 100.0,
            now.failed,
            now.recent_ms_p99,
            per_s(work.loads - loads.loads),
        ));
        self.said = (Instant::now(), now, work);
    }
}
