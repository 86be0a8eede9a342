//! A session spoken by hand, message by message: what a Slicelet's library does, without its
//! judgement, so that tests can also misbehave.

use std::time::Duration;

use leasehold_proto::clock::ClockClass;
use leasehold_proto::message::{Renew, Word};
use leasehold_proto::target::{PodAddress, Squid, TargetName};
use leasehold_proto::view::{View, ViewUpdate};
use leasehold_proto::wire::pb::sessions_client::SessionsClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{
    self, AssignerMessage, Hello, RegisterReply, RegisterRequest, SliceletMessage, pb,
};
use leasehold_proto::{Epoch, Generation, SessionId};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// How long a message is waited for before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn target(name: &str) -> TargetName {
    TargetName::new(name).unwrap()
}

pub async fn connect(endpoint: &str) -> Channel {
    Endpoint::from_shared(endpoint.to_owned())
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// A pod's side of one session.
pub struct Pod {
    pub target: TargetName,
    pub registered: RegisterReply,
    pub channel: Channel,
    pub view: Option<View>,
    /// Of what it says that it still merges it.
    pub merging: Option<Epoch>,
    to: mpsc::Sender<pb::SliceletMessage>,
    from: Streaming<pb::AssignerMessage>,
    seq: u64,
}

/// Registers a session; `port` tells the pods of a test apart.
pub async fn register(channel: &Channel, name: &str, port: u16) -> Result<RegisterReply, Status> {
    let request = RegisterRequest {
        target: target(name),
        squid: Squid {
            address: PodAddress::new(&format!("127.0.0.1:{port}")).unwrap(),
            id: u128::from(port),
        },
        clock: ClockClass::Raw,
        app_version: String::new(),
    };
    let reply = SessionsClient::new(channel.clone())
        .register(pb::RegisterRequest::from(&request))
        .await?;
    Ok(RegisterReply::try_from(reply.into_inner()).unwrap())
}

impl Pod {
    /// Registers and attaches at the node behind `endpoint`, which must lead.
    pub async fn start(endpoint: &str, name: &str, port: u16) -> Pod {
        let channel = connect(endpoint).await;
        let registered = register(&channel, name, port).await.unwrap();
        Pod::attach(channel, name, registered).await
    }

    pub async fn attach(channel: Channel, name: &str, registered: RegisterReply) -> Pod {
        let (to, messages) = mpsc::channel(64);
        let hello = Hello {
            session: registered.session,
            secret: registered.secret,
            target: target(name),
        };
        to.send((&SliceletMessage::Hello(hello)).into())
            .await
            .unwrap();
        let stream = SessionsClient::new(channel.clone())
            .attach(ReceiverStream::new(messages))
            .await
            .unwrap();
        Pod {
            target: target(name),
            registered,
            channel,
            view: None,
            merging: None,
            to,
            from: stream.into_inner(),
            seq: 0,
        }
    }

    pub fn session(&self) -> SessionId {
        self.registered.session
    }

    pub fn known(&self) -> Option<Generation> {
        self.view.as_ref().map(|view| view.generation)
    }

    pub async fn send(&mut self, message: SliceletMessage) {
        self.to.send((&message).into()).await.unwrap();
    }

    pub async fn send_raw(&mut self, message: pb::SliceletMessage) {
        self.to.send(message).await.unwrap();
    }

    pub async fn say(&mut self, words: Vec<Word>, armed: Option<Generation>) -> u64 {
        self.seq += 1;
        let renew = Renew {
            session: self.session(),
            seq: self.seq,
            known: self.known(),
            words,
            armed,
            merging: self.merging,
        };
        self.send(SliceletMessage::Renew(renew)).await;
        self.seq
    }

    /// The next message; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<AssignerMessage> {
        let message = tokio::time::timeout(PATIENCE, self.from.next())
            .await
            .expect("a message in time")?;
        let message = AssignerMessage::try_from(message.ok()?).unwrap();
        match &message {
            AssignerMessage::Renewed(renewed) => self.apply(renewed.update.clone()),
            AssignerMessage::Pushed { update, .. } => self.apply(Some(update.clone())),
            _ => {}
        }
        Some(message)
    }

    fn apply(&mut self, update: Option<ViewUpdate>) {
        if let Some(update) = update {
            View::advance(&mut self.view, update).unwrap();
        }
    }

    /// Renews once, and reads until that renewal is answered.
    pub async fn renew(&mut self) {
        self.renew_saying(Vec::new(), None).await;
    }

    pub async fn renew_saying(&mut self, words: Vec<Word>, armed: Option<Generation>) {
        let seq = self.say(words, armed).await;
        loop {
            match self.next().await {
                Some(AssignerMessage::Renewed(renewed)) if renewed.seq == seq => return,
                Some(AssignerMessage::Renewed(_) | AssignerMessage::Pushed { .. }) => {}
                other => panic!("{} was told {other:?}", self.session()),
            }
        }
    }

    /// Reads until the view fulfils a condition, renewing whenever nothing comes.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&View) -> bool) {
        let waiting = async {
            while !self.view.as_ref().is_some_and(&holds) {
                match tokio::time::timeout(Duration::from_millis(50), self.next()).await {
                    Err(_) => self.renew().await,
                    Ok(Some(AssignerMessage::Renewed(_) | AssignerMessage::Pushed { .. })) => {}
                    Ok(other) => panic!("{} was told {other:?}", self.session()),
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "waited in vain for: {what}");
    }

    /// How many slices the view gives this session.
    pub fn owned(&self) -> usize {
        self.view
            .as_ref()
            .map_or(0, |view| owned(view, self.session()))
    }

    pub async fn close(&self) -> Result<(), Refusal> {
        let request = wire::CloseRequest {
            target: self.target.clone(),
            session: self.session(),
            secret: self.registered.secret,
        };
        let closed = SessionsClient::new(self.channel.clone())
            .close(pb::CloseRequest::from(&request))
            .await;
        closed
            .map(|_| ())
            .map_err(|status| Refusal::from_status(&status).unwrap())
    }

    pub async fn drain(&self) -> Result<(), Refusal> {
        let request = wire::DrainRequest {
            target: self.target.clone(),
            session: self.session(),
            secret: self.registered.secret,
        };
        let drained = SessionsClient::new(self.channel.clone())
            .drain(pb::DrainRequest::from(&request))
            .await;
        drained
            .map(|_| ())
            .map_err(|status| Refusal::from_status(&status).unwrap())
    }
}

pub fn owned(view: &View, session: SessionId) -> usize {
    view.slices
        .iter()
        .filter(|(_, assigned)| assigned.owner.is_some_and(|owner| owner.session == session))
        .count()
}

/// The address of the node that leads.
pub async fn leader_endpoint(cluster: &leasehold_assigner::testing::TestCluster) -> String {
    let leader = cluster.leader().await;
    format!("http://{}", cluster.node(leader).local_addr())
}

/// Pods at the leader, each of which has said a first word, on ports from 9001. The leader's clock
/// is stopped, so that no slow machine lets a lease run out.
pub async fn pods(
    cluster: &leasehold_assigner::testing::TestCluster,
    name: &str,
    count: u16,
) -> Vec<Pod> {
    cluster.pause_time();
    let endpoint = leader_endpoint(cluster).await;
    let mut pods = Vec::new();
    for port in 1..=count {
        let mut pod = Pod::start(&endpoint, name, 9_000 + port).await;
        pod.renew().await;
        pods.push(pod);
    }
    pods
}

/// Whether every slice of the target has an owner and no handoff is open.
pub fn settled(table: &leasehold_proto::table::LeaseTable, name: &str) -> bool {
    table.target(&target(name)).is_some_and(|state| {
        state
            .slices()
            .all(|(_, assigned)| assigned.owner.is_some() && assigned.handoff.is_none())
    })
}

/// How many slices the table gives a session.
pub fn table_owned(
    table: &leasehold_proto::table::LeaseTable,
    name: &str,
    session: SessionId,
) -> usize {
    table
        .target(&target(name))
        .map_or(0, |state| state.owned_by(session))
}
