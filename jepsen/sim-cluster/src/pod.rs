//! A simulated Slicelet process: the real Holder, with a clock that runs wrong within the bound, and
//! an application that takes a while to prepare and to drain a slice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::command::Digest;
use leasehold_proto::holder::{Action, Holder, HolderConfig, Input, OnNotReady, Output, Verdict};
use leasehold_proto::message::ReadyAnswer;
use leasehold_proto::target::OnLapse;
use leasehold_proto::{PodAddress, SessionId, SliceKey, Squid};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::post::{Letter, Mailbox, Post};
use crate::random::Random;

/// Pause before a registration is asked for again.
const REGISTER_EVERY: Duration = Duration::from_millis(300);
/// Longest sleep.
const IDLE: Duration = Duration::from_secs(1);

/// One pod: what of it outlives a crash, and what the world may look at.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) clock: Clock,
    pub(crate) post: Post,
    pub(crate) nodes: Vec<String>,
    /// The Holder of the process that runs now.
    pub(crate) holder: Mutex<Option<Holder>>,
    pub(crate) lives: std::sync::atomic::AtomicU64,
}

impl Pod {
    /// The token at which this pod would serve the key at a simulated time.
    pub(crate) fn serves(&self, key: SliceKey, true_ns: u64) -> Option<u64> {
        let holder = self.holder.lock();
        match holder.as_ref()?.check(key, self.clock.at_ns(true_ns)) {
            Verdict::Owned(epoch) => Some(epoch.token().as_u64()),
            _ => None,
        }
    }

    /// What is gone with the process.
    pub(crate) fn forget(&self) {
        *self.holder.lock() = None;
    }
}

/// A process while it runs.
struct Process {
    pod: Arc<Pod>,
    mailbox: Mailbox,
    random: Random,
    squid: Squid,
    /// What the application will have done later.
    later: mpsc::UnboundedSender<Input>,
    /// Which machine speaks for a session.
    homes: BTreeMap<SessionId, String>,
    wake_at: Instant,
    register_at: Instant,
}

/// Runs a pod until it is crashed.
pub(crate) async fn run(pod: Arc<Pod>) -> turmoil::Result {
    let life = 1 + pod.lives.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let mut random = Random::of(pod.seed, 0x9000_0000 + (life << 4));
    *pod.holder.lock() = Some(Holder::new(HolderConfig {
        on_lapse: OnLapse::Stop,
        handoff_deadline: Duration::from_secs(3),
        on_not_ready: match random.chance(0.5) {
            true => OnNotReady::Stay,
            false => OnNotReady::GoCold,
        },
        jitter_seed: random.between(0, u64::MAX),
    }));
    let (later, mut done) = mpsc::unbounded_channel();
    let mailbox = pod.post.open(pod.name.clone()).await?;
    let address = PodAddress::new(&format!("{}:{}", pod.name, crate::post::PORT))?;
    let mut process = Process {
        squid: Squid {
            address,
            id: u128::from_le_bytes(random.bytes()),
        },
        pod,
        mailbox: mailbox.clone(),
        random,
        later,
        homes: BTreeMap::new(),
        wake_at: Instant::now(),
        register_at: Instant::now(),
    };
    loop {
        let until = process.wake_at.min(process.register_at);
        tokio::select! {
            biased;
            Some(input) = done.recv() => process.give(input).await,
            letter = mailbox.receive() => {
                let (from, letter) = letter?;
                process.read(from, letter).await;
            }
            () = tokio::time::sleep_until(until) => process.wake().await,
        }
    }
}

impl Process {
    fn session(&self) -> Option<SessionId> {
        self.pod.holder.lock().as_ref().and_then(Holder::session)
    }

    async fn wake(&mut self) {
        self.give(Input::Wake).await;
        if Instant::now() < self.register_at {
            return;
        }
        self.register_at = Instant::now() + REGISTER_EVERY;
        if self.session().is_none() {
            self.to_all_nodes(Letter::Register(self.squid.clone()))
                .await;
        }
    }

    /// Whoever leads, or thinks so, may answer.
    async fn to_all_nodes(&self, letter: Letter) {
        for node in &self.pod.nodes {
            self.mailbox.send(node, letter.clone()).await;
        }
    }

    async fn read(&mut self, from: String, letter: Letter) {
        let input = match letter {
            Letter::Registered(id, reply) if id == self.squid.id => Input::Registered {
                session: reply.session,
                ttl: reply.ttl,
                not_before: reply.not_before,
            },
            Letter::Renewed(renewed) => Input::Renewed(renewed),
            Letter::Closed(session) => Input::Closed(session),
            Letter::Ready(ready) => {
                self.homes.insert(ready.to, from);
                Input::Ready(ready)
            }
            Letter::Answer(answer) => Input::ReadyAnswered(answer),
            _ => return,
        };
        self.give(input).await;
    }

    async fn give(&mut self, input: Input) {
        let now = self.pod.clock.now();
        let out = {
            let mut holder = self.pod.holder.lock();
            let Some(holder) = holder.as_mut() else {
                return;
            };
            holder.handle(now, input)
        };
        let Output {
            actions, wake_at, ..
        } = out;
        let sleep = wake_at.map_or(IDLE, |at| at.since(now).min(IDLE));
        self.wake_at = Instant::now() + sleep.max(Duration::from_millis(1));
        for action in actions {
            self.act(action).await;
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Renew(renew) => self.to_all_nodes(Letter::Renew(renew)).await,
            // Nothing waits for it here: the table closes no session by a lost word.
            Action::SayClosed(_) => {}
            Action::Register => {
                self.squid.id = u128::from_le_bytes(self.random.bytes());
                self.register_at = Instant::now();
            }
            Action::Prepare { handoff, .. } => self.after(150, Input::Prepared(handoff)),
            Action::Freeze { handoff, .. } => {
                self.after(100, Input::Drained(handoff, Digest::EMPTY));
            }
            Action::SendReady(ready, Some(address)) => {
                let host = address.as_str().split(':').next().unwrap_or_default();
                self.mailbox.send(host, Letter::Ready(ready)).await;
            }
            Action::SendReady(_, None) => {}
            Action::AnswerReady(ready, answer) => self.answer(ready.to, answer).await,
        }
    }

    async fn answer(&mut self, to: SessionId, answer: ReadyAnswer) {
        if let Some(host) = self.homes.get(&to) {
            self.mailbox.send(host, Letter::Answer(answer)).await;
        }
    }

    /// The application takes up to `most_ms` for it.
    fn after(&mut self, most_ms: u64, input: Input) {
        let (later, takes) = (self.later.clone(), self.random.millis(1, most_ms));
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            // Nobody listens any more once the process has ended.
            let _ = later.send(input);
        });
    }
}
