//! Asking Assigners: finds one that answers, follows the leader, knows when it may ask again.
//!
//! A question is asked of every endpoint until one answers. A change is sent again only where it is
//! certain that the first attempt had no effect: the connection was not made, or an Assigner said
//! that it does not lead. Otherwise its outcome is unknown, and is said to be.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use leasehold_proto::limits;
use leasehold_proto::wire::WireError;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::wire::status::Refusal;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::Global;
use super::error::Failure;

/// How long a single connection attempt may take while there are others to try.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before asking again who leads.
const ELECTION_PAUSE: Duration = Duration::from_millis(100);
/// Answers of "not I, but that one" that are followed at once, between two rounds.
const HOPS: usize = 4;

/// The stub that verbs call.
pub type Grpc = AdminClient<Channel>;

/// Where an Assigner answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("https://") {
            return Err("https is not supported yet; use http://HOST:PORT".into());
        }
        let address = text
            .strip_prefix("http://")
            .unwrap_or(text)
            .trim_end_matches('/');
        match leasehold_proto::PodAddress::new(address) {
            Ok(address) => Ok(Self(format!("http://{address}"))),
            Err(_) => Err("not http://HOST:PORT, such as http://127.0.0.1:7400".into()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks the Assigners of one cluster.
pub struct Client {
    endpoints: Vec<Endpoint>,
    timeout: Duration,
    reason: Option<String>,
    subject: Option<String>,
    connected: Option<(Endpoint, Grpc)>,
}

/// What became of one attempt.
enum Attempt<R> {
    Answered(R),
    /// Certainly without effect: ask elsewhere, at the leader if it is named.
    NotHere {
        why: String,
        leader: Option<Endpoint>,
    },
    /// Certainly without effect, and no other will say otherwise.
    Refused(Failure),
    /// The connection broke or the answer is not an Assigner's.
    Broken(Failure),
    /// Not answered in time.
    Late,
}

impl Client {
    /// A client of the endpoints that the user named.
    pub fn new(global: &Global) -> Self {
        Self {
            endpoints: global.endpoints.clone(),
            timeout: global.timeout,
            reason: global.reason.clone(),
            subject: None,
            connected: None,
        }
    }

    /// Names the target asked about, for errors.
    #[must_use]
    pub fn about(mut self, target: impl fmt::Display) -> Self {
        self.subject = Some(target.to_string());
        self
    }

    /// The operator's reason, for the audit.
    pub fn reason(&self) -> Option<String> {
        self.reason.clone()
    }

    /// The operator's reason where one must be given.
    pub fn required_reason(&self, why: &str) -> Result<String, Failure> {
        self.reason
            .clone()
            .ok_or_else(|| Failure::usage(format!("give --reason TEXT: {why}")))
    }

    /// Asks a question.
    pub async fn read<P: Clone, R, N: TryFrom<R, Error = WireError>>(
        &mut self,
        question: P,
        rpc: impl AsyncFn(&mut Grpc, Request<P>) -> Result<Response<R>, Status>,
    ) -> Result<N, Failure> {
        let answer = self.call(question, false, rpc).await?;
        N::try_from(answer).map_err(|error| Failure::unreadable(&error))
    }

    /// Makes a change; never makes it twice.
    pub async fn change<P: Clone, R>(
        &mut self,
        change: P,
        rpc: impl AsyncFn(&mut Grpc, Request<P>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        self.call(change, true, rpc).await
    }

    /// Asks until an Assigner answers or the time is over.
    async fn call<P: Clone, R>(
        &mut self,
        request: P,
        changes: bool,
        rpc: impl AsyncFn(&mut Grpc, Request<P>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut rounds = Round::new(self);
        loop {
            let Some(endpoint) = rounds.next() else {
                if !rounds.somebody_answered {
                    return Err(rounds.failure());
                }
                if Instant::now() + ELECTION_PAUSE >= deadline {
                    return Err(rounds.failure());
                }
                sleep(ELECTION_PAUSE).await;
                rounds.again(self);
                continue;
            };
            let until = match changes {
                true => deadline,
                false => rounds.share(deadline),
            };
            match self.attempt(&endpoint, until, request.clone(), &rpc).await {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Refused(failure) => return Err(failure),
                Attempt::NotHere { why, leader } => rounds.not_here(&endpoint, why, leader),
                Attempt::Broken(failure) if changes => {
                    return Err(unknown_outcome(&failure.to_string()));
                }
                Attempt::Broken(failure) => rounds.not_here(&endpoint, failure.to_string(), None),
                Attempt::Late if changes => return Err(unknown_outcome(&self.too_late(&endpoint))),
                Attempt::Late if rounds.ahead.is_empty() => {
                    return Err(Failure::unavailable(self.too_late(&endpoint)));
                }
                Attempt::Late => rounds.not_here(&endpoint, "no answer in time".into(), None),
            }
            self.connected = None;
        }
    }

    fn too_late(&self, endpoint: &Endpoint) -> String {
        let timeout = crate::config::show_duration(self.timeout);
        format!(
            "{endpoint} gave no answer within {timeout}; give more with --timeout, or ask another with --endpoints"
        )
    }

    async fn attempt<P, R>(
        &mut self,
        endpoint: &Endpoint,
        deadline: Instant,
        request: P,
        rpc: impl AsyncFn(&mut Grpc, Request<P>) -> Result<Response<R>, Status>,
    ) -> Attempt<R> {
        let mut grpc = match self.connected.take() {
            Some((known, grpc)) if known == *endpoint => grpc,
            _ => match connect(endpoint, deadline).await {
                Ok(grpc) => grpc,
                Err(why) => return Attempt::NotHere { why, leader: None },
            },
        };
        match timeout_at(deadline, rpc(&mut grpc, Request::new(request))).await {
            Err(_) => Attempt::Late,
            Ok(Ok(answer)) => {
                self.connected = Some((endpoint.clone(), grpc));
                Attempt::Answered(answer.into_inner())
            }
            Ok(Err(status)) => match Refusal::from_status(&status) {
                Some(Refusal::NotLeader { leader }) => Attempt::NotHere {
                    why: "it does not lead, and knows nobody who does".into(),
                    leader: leader.map(|address| Endpoint(format!("http://{address}"))),
                },
                Some(refusal) => {
                    Attempt::Refused(Failure::refused(&refusal, self.subject.as_deref()))
                }
                None => {
                    let failure = Failure::foreign(&status, &endpoint.0);
                    match status.code() {
                        // Said before anything is done.
                        Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => {
                            Attempt::Refused(failure)
                        }
                        _ => Attempt::Broken(failure),
                    }
                }
            },
        }
    }
}

/// Which endpoints are still to be asked, and what the others said.
struct Round {
    ahead: Vec<Endpoint>,
    said: Vec<(Endpoint, String)>,
    /// Who is said to lead.
    leader: Option<Endpoint>,
    hops: usize,
    somebody_answered: bool,
}

impl Round {
    fn new(client: &Client) -> Self {
        let mut round = Self {
            ahead: Vec::new(),
            said: Vec::new(),
            leader: None,
            hops: HOPS,
            somebody_answered: false,
        };
        round.again(client);
        round
    }

    fn again(&mut self, client: &Client) {
        self.ahead = client.endpoints.iter().rev().cloned().collect();
        if let Some((endpoint, _)) = &client.connected {
            self.ahead.retain(|other| other != endpoint);
            self.ahead.push(endpoint.clone());
        }
        (self.hops, self.somebody_answered, self.leader) = (HOPS, false, None);
        self.said.clear();
    }

    fn next(&mut self) -> Option<Endpoint> {
        self.ahead.pop()
    }

    /// Until when one of those still to be asked may take its time: a silent one leaves some to
    /// the others.
    fn share(&self, deadline: Instant) -> Instant {
        let left = deadline.saturating_duration_since(Instant::now());
        let others = u32::try_from(self.ahead.len()).unwrap_or(u32::MAX);
        Instant::now() + left / others.saturating_add(1)
    }

    fn not_here(&mut self, endpoint: &Endpoint, why: String, leader: Option<Endpoint>) {
        if let Some(leader) = leader {
            self.somebody_answered = true;
            self.leader = Some(leader.clone());
            if self.hops > 0 && leader != *endpoint {
                self.hops -= 1;
                self.ahead.retain(|other| *other != leader);
                self.ahead.push(leader);
                return;
            }
        }
        self.somebody_answered |= why.starts_with("it does not lead");
        self.said.push((endpoint.clone(), why));
    }

    fn failure(&self) -> Failure {
        let silent = self
            .leader
            .as_ref()
            .and_then(|leader| self.said.iter().find(|(endpoint, _)| endpoint == leader));
        if let Some((leader, why)) = silent {
            return Failure::unavailable(format!(
                "the leader is said to be at {leader}, but does not answer ({why}); ask again when \
                 another leads, or from where it can be reached"
            ));
        }
        if self.somebody_answered {
            return Failure::unavailable(
                "the Assigners have no leader at present; `leasehold status` shows who is up, a majority is needed",
            );
        }
        let said: Vec<String> = self
            .said
            .iter()
            .map(|(endpoint, why)| format!("{endpoint} ({why})"))
            .collect();
        Failure::unavailable(format!(
            "no Assigner answers at {}; start one with `leasehold dev`, or name it with --endpoints",
            said.join(", ")
        ))
    }
}

fn unknown_outcome(why: &str) -> Failure {
    Failure::unavailable(format!(
        "{why}; the change may or may not have taken effect: look at the present state before you repeat it"
    ))
}

/// Connects before anything is sent, so that a failure is certainly without effect.
async fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Grpc, String> {
    let builder = tonic::transport::Endpoint::from_shared(endpoint.0.clone())
        .map_err(|error| cause(&error))?;
    let until = deadline.min(Instant::now() + CONNECT_PATIENCE);
    match timeout_at(until, builder.tcp_nodelay(true).connect()).await {
        Err(_) => Err("no connection in time".into()),
        Ok(Err(error)) => Err(cause(&error)),
        // A page of a listing may be large; what it may hold is bounded where it is decoded.
        Ok(Ok(channel)) => {
            Ok(AdminClient::new(channel).max_decoding_message_size(limits::VIEW_BYTES))
        }
    }
}

/// The innermost cause, which is the one that an operator can do something about.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}
