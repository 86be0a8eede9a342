//! Operations on keys, through a Clerk.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Request;

use super::LeaseholdClient;
use super::outcome::{nonsense, of_error, of_reply, out_of_time};
use crate::rpc::do_request::What;
use crate::rpc::pod_client::PodClient;
use crate::rpc::{Add, Append, Cas, DoRequest, Read, Write};
use crate::system::{Completion, Invocation};

/// Most that a pod is asked to linger between proof and effect, where the workload is about that.
const LINGER_MS: u32 = 30;
/// How long one try of an addition may take before it is repeated. Shorter than a connection takes
/// to recover lost packets, so that repetitions meet their first try.
const TRY: Duration = Duration::from_millis(300);

impl LeaseholdClient {
    /// `read`, `write`, `cas`, `append`.
    pub(super) async fn keyed(&mut self, invocation: &Invocation) -> Completion {
        let value = &invocation.value;
        let what = match (invocation.f.as_str(), value.as_array().map(Vec::as_slice)) {
            ("read", _) => What::Read(Read {}),
            ("write", _) => What::Write(Write {
                value: value.to_string(),
            }),
            ("cas", Some([from, to])) => What::Cas(Cas {
                from: from.to_string(),
                to: to.to_string(),
            }),
            ("append", _) => match value.as_i64() {
                Some(element) => What::Append(Append { element }),
                None => return nonsense("appending what is no number"),
            },
            (other, _) => return nonsense(other),
        };
        let begins_empty = invocation.f == "read" && self.workload == "append";
        let completion = self.carry_out(invocation, what, invocation.deadline).await;
        match completion {
            // What is in memory alone has no version.
            Completion::Ok { value, node, epoch } if self.workload == "kv-memory" => {
                Completion::Ok {
                    value: value["value"].clone(),
                    node,
                    epoch,
                }
            }
            Completion::Ok { value, node, epoch } if begins_empty => Completion::Ok {
                value: or_else(value, json!([])),
                node,
                epoch,
            },
            other => other,
        }
    }

    /// `add` of `[n, id]`, repeated under the same id until it is answered; and reading a counter.
    pub(super) async fn add(&mut self, invocation: &Invocation) -> Completion {
        let argument = invocation.value.as_array().map(Vec::as_slice);
        let (amount, id) = match argument {
            Some([amount, id]) => (amount.as_i64(), id.as_str().map(str::to_owned)),
            _ => (invocation.value.as_i64(), Some(String::new())),
        };
        let (Some(amount), Some(id)) = (amount, id) else {
            return nonsense("adding what is no number");
        };
        let begun = Instant::now();
        let mut unknown = None;
        loop {
            let what = What::Add(Add {
                amount,
                idempotency_token: id.clone(),
            });
            let left = invocation.deadline.saturating_sub(begun.elapsed());
            let first = unknown.is_none();
            match self.carry_out(invocation, what, left.min(TRY)).await {
                Completion::Ok { value, node, epoch } => {
                    // Its version may be that of a later addition, if this is a repetition.
                    let value = value.get("value").cloned().unwrap_or_default();
                    return Completion::Ok { value, node, epoch };
                }
                Completion::Unknown(why) => unknown = Some(why),
                Completion::Fail(why) if first => return Completion::Fail(why),
                // The first try may have been applied all the same.
                Completion::Fail(_) => {}
            }
            if begun.elapsed() >= invocation.deadline {
                return Completion::Unknown(unknown.unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `read` of a counter.
    pub(super) async fn read_counter(&mut self, invocation: &Invocation) -> Completion {
        let what = What::Read(Read {});
        match self.carry_out(invocation, what, invocation.deadline).await {
            Completion::Ok { value, node, epoch } => {
                let counter = or_else(value, json!({ "value": 0, "applied": [] }));
                Completion::Ok {
                    value: counter["value"].clone(),
                    node,
                    epoch,
                }
            }
            other => other,
        }
    }

    /// Sends one operation to whoever owns the key.
    pub(super) async fn carry_out(
        &mut self,
        invocation: &Invocation,
        what: What,
        deadline: Duration,
    ) -> Completion {
        let Some(key) = invocation.key.clone() else {
            return nonsense("no key");
        };
        let message = DoRequest {
            key: key.clone(),
            linger_ms: self.linger_ms(),
            what: Some(what),
        };
        let begun = Instant::now();
        let under_way = Cell::new(false);
        let call = self.clerk.call(key.as_bytes(), |channel, _| {
            let mut request = Request::new(message.clone());
            request.set_timeout(deadline.saturating_sub(begun.elapsed()));
            let under_way = &under_way;
            async move {
                under_way.set(true);
                let answer = PodClient::new(channel).r#do(request).await;
                // Whether the answer leaves a doubt is the Clerk's to say.
                under_way.set(false);
                answer
            }
        });
        match timeout(deadline, call).await {
            Ok(Ok(reply)) => of_reply(&reply.into_inner()),
            Ok(Err(error)) => of_error(&error),
            Err(_) => out_of_time(under_way.get(), deadline),
        }
    }

    /// Mostly nothing; where fencing is what is tested, always something, so that a pause may fall
    /// between proof and effect.
    fn linger_ms(&self) -> u32 {
        match self.workload.as_str() {
            "fenced" => rand::random_range(LINGER_MS..=LINGER_MS * 2),
            "election" => rand::random_range(0..=LINGER_MS),
            _ if rand::random_range(0..8) == 0 => rand::random_range(0..=5),
            _ => 0,
        }
    }
}

/// What was never written reads as this.
fn or_else(mut versioned: Value, default: Value) -> Value {
    if let Some(value) = versioned.get_mut("value")
        && value.is_null()
    {
        *value = default;
    }
    versioned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_reads_as_empty() {
        let read = json!({ "value": null, "version": [0, 0] });
        assert_eq!(or_else(read, json!([]))["value"], json!([]));
        let read = json!({ "value": [1], "version": [5, 1] });
        assert_eq!(or_else(read.clone(), json!([])), read);
    }
}
