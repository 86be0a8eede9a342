//! Asking pods and the external store directly, past any map.

use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Request;

use super::LeaseholdClient;
use super::outcome::{nonsense, of_status, out_of_time};
use crate::rpc::ServesRequest;
use crate::system::{Completion, Invocation};

impl LeaseholdClient {
    /// `serve`: whether the pod that this worker watches owns the slice key now.
    pub(super) async fn serve(&mut self, invocation: &Invocation) -> Completion {
        let key = invocation.key.as_deref().unwrap_or_default();
        let Ok(slice_key) = u64::from_str_radix(key, 16) else {
            return nonsense("no slice key");
        };
        let count = self.pods.len().max(1);
        let Some((name, pod)) = self.pods.get_mut(self.worker % count) else {
            return nonsense("no pods");
        };
        let mut request = Request::new(ServesRequest { slice_key });
        request.set_timeout(invocation.deadline);
        match timeout(invocation.deadline, pod.serves(request)).await {
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                match reply.token {
                    Some(token) => Completion::Ok {
                        value: Value::Null,
                        node: Some(name.clone()),
                        epoch: Some(token),
                    },
                    None => Completion::Fail(reply.why_not),
                }
            }
            // Asking changes nothing: what is not known did not happen.
            Ok(Err(status)) => Completion::Fail(status.message().to_owned()),
            Err(_) => Completion::Fail("no answer in time".into()),
        }
    }

    /// `applied`: every write that the external store applied to the key, in order, each as
    /// `[token, seq, value]`.
    pub(super) async fn applied(&mut self, invocation: &Invocation) -> Completion {
        let key = invocation.key.as_deref().unwrap_or_default();
        match timeout(invocation.deadline, self.register.applied(key)).await {
            Ok(Ok(writes)) => {
                let write = |write: crate::rpc::AppliedWrite| {
                    let version = write.version.unwrap_or_default();
                    let value: Value = serde_json::from_str(&write.value).unwrap_or_default();
                    json!([version.token, version.seq, value])
                };
                Completion::Ok {
                    value: writes.into_iter().map(write).collect(),
                    node: Some("s1".into()),
                    epoch: None,
                }
            }
            Ok(Err(status)) => match of_status(&status) {
                // Reading changes nothing.
                Completion::Unknown(why) | Completion::Fail(why) => Completion::Fail(why),
                ok => ok,
            },
            Err(_) => out_of_time(false, invocation.deadline),
        }
    }
}
