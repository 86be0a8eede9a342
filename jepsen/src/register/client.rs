//! How pods and clients talk to the store.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::rpc;
use crate::rpc::register_client::RegisterClient as Stub;

/// Connecting, and an answer to a ping: a cut connection is noticed within two of them.
const NOTICE: Duration = Duration::from_millis(500);

/// How a write ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Put {
    /// It was applied; the key's version now.
    Written(rpc::Version),
    /// It was refused for good.
    FencedOff(rpc::Fence),
    /// It may be applied yet; why that is not known.
    Unknown(String),
}

/// A connection to the store, made when it is first used and again when it broke.
#[derive(Clone, Debug)]
pub struct RegisterClient {
    stub: Stub<Channel>,
    deadline: Duration,
}

impl RegisterClient {
    /// `address` is `host:port`; no call takes longer than `deadline`.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(address: &str, deadline: Duration) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(NOTICE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(NOTICE)
            .keep_alive_timeout(NOTICE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Self {
            stub: Stub::new(channel),
            deadline,
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    /// Raises the key's fence and reads its value: `Ok(Err(fence))` when a later one is installed.
    ///
    /// # Errors
    /// The store did not answer. The fence may have been raised; no value was changed.
    pub async fn fence(
        &mut self,
        key: &str,
        fence: Option<rpc::Fence>,
    ) -> Result<Result<rpc::Stored, rpc::Fence>, Status> {
        use rpc::fence_reply::Answer;
        let key = key.to_owned();
        let request = self.request(rpc::FenceRequest { key, fence });
        match self.stub.fence(request).await?.into_inner().answer {
            Some(Answer::Stored(stored)) => Ok(Ok(stored)),
            Some(Answer::FencedOff(fence)) => Ok(Err(fence)),
            None => Err(Status::internal("the store's answer is empty")),
        }
    }

    /// Writes.
    pub async fn put(&mut self, message: rpc::PutRequest) -> Put {
        use rpc::put_reply::Answer;
        let request = self.request(message);
        match self.stub.put(request).await {
            Ok(reply) => match reply.into_inner().answer {
                Some(Answer::Written(version)) => Put::Written(version),
                Some(Answer::FencedOff(fence)) => Put::FencedOff(fence),
                None => Put::Unknown("the store's answer is empty".into()),
            },
            Err(status) => Put::Unknown(format!("the store: {}", status.message())),
        }
    }

    /// The writes of a key that were applied, in order.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn applied(&mut self, key: &str) -> Result<Vec<rpc::AppliedWrite>, Status> {
        let key = key.to_owned();
        let request = self.request(rpc::AppliedRequest { key });
        Ok(self.stub.applied(request).await?.into_inner().writes)
    }
}
