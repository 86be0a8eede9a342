//! The Assigners' own store, through any of them: a target's description is a register, its
//! version counts the writes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use leasehold_proto::target::{TargetChange, TargetConfig};
use leasehold_proto::wire::listing::OneTarget;
use leasehold_proto::wire::pb;
use leasehold_proto::wire::status::Refusal;
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Status;

use super::LeaseholdClient;
use super::outcome::{nonsense, of_status, out_of_time};
use crate::leasehold::admin::Node;
use crate::system::{Completion, Invocation};

/// Before another Assigner is asked who leads.
const AGAIN: Duration = Duration::from_millis(10);

/// What was asked of one Assigner, and whether anything can come of it elsewhere.
enum Answer<T> {
    Given(T),
    /// Certainly not done: try another.
    Elsewhere(Option<String>),
    Refused(Status),
}

/// Why no Assigner did it.
enum Failure {
    Refused(Status),
    NobodyLeads,
}

impl Failure {
    fn completion(&self) -> Completion {
        match self {
            Failure::Refused(status) => of_status(status),
            Failure::NobodyLeads => Completion::Fail("no Assigner leads".into()),
        }
    }

    fn is_no_such_target(&self) -> bool {
        let Failure::Refused(status) = self else {
            return false;
        };
        Refusal::from_status(status) == Some(Refusal::UnknownTarget)
    }
}

fn answer<T>(result: Result<tonic::Response<T>, Status>) -> Answer<T> {
    let status = match result {
        Ok(response) => return Answer::Given(response.into_inner()),
        Err(status) => status,
    };
    match Refusal::from_status(&status) {
        Some(Refusal::NotLeader { leader }) => {
            Answer::Elsewhere(leader.map(|address| address.as_str().to_owned()))
        }
        Some(Refusal::Halted(_) | Refusal::Overload) => Answer::Elsewhere(None),
        None if super::outcome::never_sent(&status) => Answer::Elsewhere(None),
        _ => Answer::Refused(status),
    }
}

impl LeaseholdClient {
    /// `read`, and `cas` of `[from, to]`.
    pub(super) async fn configuration(&self, invocation: &Invocation) -> Completion {
        let Some(target) = invocation.key.clone() else {
            return nonsense("no target");
        };
        // Each operation begins at another Assigner, whichever leads.
        let first = rand::random_range(0..self.admin.nodes().len());
        let sent = Cell::new(false);
        let performed = async {
            match (
                invocation.f.as_str(),
                invocation.value.as_array().map(Vec::as_slice),
            ) {
                ("read", _) => self.read_target(&target, first, invocation.deadline).await,
                ("cas", Some([from, to])) => {
                    self.cas_target(&target, first, (from, to), invocation.deadline, &sent)
                        .await
                }
                (other, _) => nonsense(other),
            }
        };
        match timeout(invocation.deadline, performed).await {
            Ok(completion) => completion,
            Err(_) => out_of_time(sent.get(), invocation.deadline),
        }
    }

    /// Asks from Assigner number `first` on until one answers.
    async fn somewhere<T, F>(
        &self,
        first: usize,
        deadline: Duration,
        call: impl Fn(Node) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let begun = Instant::now();
        let nodes = self.admin.nodes();
        let mut at = first;
        while begun.elapsed() < deadline {
            match answer(call(nodes[at % nodes.len()].clone()).await) {
                Answer::Given(reply) => return Ok(reply),
                Answer::Refused(status) => return Err(Failure::Refused(status)),
                Answer::Elsewhere(leader) => {
                    let named = |address| nodes.iter().position(|node| node.address == address);
                    at = leader.and_then(named).unwrap_or(at + 1);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        Err(Failure::NobodyLeads)
    }

    /// The value, its version, and who said so.
    async fn look(
        &self,
        target: &str,
        first: usize,
        deadline: Duration,
    ) -> Result<(Value, u64, String), Completion> {
        let request = pb::GetTargetRequest {
            target: target.to_owned(),
            linearizable: true,
        };
        let asked = self.somewhere(first, deadline, |node| {
            let request = request.clone();
            async move {
                let host = node.host.clone();
                let reply = node.client().get_target(request).await?;
                Ok(tonic::Response::new((reply.into_inner(), host)))
            }
        });
        let (reply, host) = match asked.await {
            Ok(found) => found,
            Err(failure) => {
                if failure.is_no_such_target() {
                    self.create(target, first, deadline).await;
                }
                // Reading changes nothing: what is not known did not happen.
                return Err(match failure.completion() {
                    Completion::Unknown(why) => Completion::Fail(why),
                    other => other,
                });
            }
        };
        let info = OneTarget::try_from(reply)
            .map_err(|error| Completion::Fail(error.to_string()))?
            .target;
        let value = serde_json::from_str(&info.config.description).unwrap_or(Value::Null);
        Ok((value, info.config_version, host))
    }

    async fn read_target(&self, target: &str, first: usize, deadline: Duration) -> Completion {
        match self.look(target, first, deadline).await {
            Ok((value, version, host)) => Completion::Ok {
                value: counted(value, version),
                node: Some(host),
                epoch: None,
            },
            Err(completion) => completion,
        }
    }

    async fn cas_target(
        &self,
        target: &str,
        first: usize,
        (from, to): (&Value, &Value),
        deadline: Duration,
        sent: &Cell<bool>,
    ) -> Completion {
        let (value, version, _) = match self.look(target, first, deadline).await {
            Ok(found) => found,
            Err(completion) => return completion,
        };
        if value != *from {
            return Completion::Fail(format!("the value is {value}"));
        }
        // Values are unique, so this version stands for this value.
        let change = TargetChange {
            description: Some(to.to_string()),
            ..TargetChange::default()
        };
        let request = pb::UpdateTargetRequest {
            target: target.to_owned(),
            expected_version: Some(version),
            change: Some((&change).into()),
            reason: None,
        };
        let updated = self.somewhere(first + 1, deadline, |node| {
            let request = request.clone();
            async move {
                let host = node.host.clone();
                sent.set(true);
                let done = node.client().update_target(request).await;
                // A doubt that the answer leaves is in the answer.
                sent.set(false);
                done.map(|_| tonic::Response::new(host))
            }
        });
        match updated.await {
            Ok(host) => Completion::Ok {
                value: counted(json!([from, to]), version + 1),
                node: Some(host),
                epoch: None,
            },
            Err(failure) => failure.completion(),
        }
    }

    /// A fresh key is a target that nobody has created yet.
    async fn create(&self, target: &str, first: usize, deadline: Duration) {
        let request = pb::CreateTargetRequest {
            target: target.to_owned(),
            config: Some((&TargetConfig::default()).into()),
            initial_slices: 1,
            reason: None,
        };
        let created = self.somewhere(first, deadline, |node| {
            let request = request.clone();
            async move { node.client().create_target(request).await }
        });
        // There is more than one who tries; the next operation finds out.
        let _ = timeout(deadline, created).await;
    }
}

/// Version 1 of a configuration is what it was created with.
fn counted(value: Value, version: u64) -> Value {
    match version.saturating_sub(1) {
        0 => json!({ "value": value, "version": [0, 0] }),
        writes => json!({ "value": value, "version": [1, writes] }),
    }
}
