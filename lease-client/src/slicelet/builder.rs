//! How a Slicelet is made.

use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::wire::RegisterRequest;
use leasehold_proto::{PodAddress, Squid, TargetName, limits};
use tokio::sync::{Notify, mpsc, watch};

use super::driver::{Driver, DriverConfig, Sources};
use super::handler::{Callbacks, Handler, SliceHandler};
use super::link::LinkConfig;
use super::ownership::{OwnershipEvent, OwnershipLog};
use super::publish::{Publisher, Wants};
use super::transfer::{State, Transfers};
use super::{Shared, Slicelet};
use crate::channels::ChannelPool;
use crate::clock::{Clock, LeaseClock, SystemClock};
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::state::SliceState;

/// How long guards in flight are waited for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
/// How long a request waits for the longest handover that succeeds: the guards in flight, then the
/// last change of the state, and some time for messages.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Makes a [`Slicelet`].
#[must_use = "a builder does nothing until it is started"]
pub struct SliceletBuilder {
    target: String,
    endpoints: Vec<String>,
    advertise: String,
    app_version: String,
    handler: Option<Arc<dyn Handler>>,
    state: Option<Arc<dyn State>>,
    transfers: Transfers,
    log: Option<OwnershipLog>,
    clock: Clock,
    drain_deadline: Duration,
    accepts_fenced: bool,
    most_waiting: usize,
    longest_wait: Duration,
}

impl SliceletBuilder {
    pub(super) fn new(target: String) -> Self {
        Self {
            target,
            endpoints: Vec::new(),
            advertise: String::new(),
            app_version: String::new(),
            handler: None,
            state: None,
            transfers: Transfers::default(),
            log: None,
            clock: Clock::System(SystemClock::new()),
            drain_deadline: DRAIN_DEADLINE,
            accepts_fenced: false,
            most_waiting: 4_096,
            longest_wait: LONGEST_WAIT,
        }
    }

    /// Assigners, as `host:port`; any of them, the leader is found.
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// Where clients and other Slicelets reach this pod, as `host:port`. The server there must
    /// carry [`Slicelet::peer_service`].
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = address.into();
        self
    }

    /// The application's version, for the operator.
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.app_version = version.into();
        self
    }

    /// What is told when slices come and go. Without a handler a slice can be served the moment
    /// that it is owned.
    pub fn handler(mut self, handler: impl SliceHandler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// The state of slices in this process's memory: it goes with them when they move. Guards of a
    /// slice are given only when its state is here, or it begins empty.
    pub fn state(mut self, state: impl SliceState) -> Self {
        self.state = Some(Arc::new(state));
        self
    }

    /// How state is transferred.
    pub fn transfers(mut self, transfers: Transfers) -> Self {
        self.transfers = transfers;
        self
    }

    /// Called with each change of what could be served; see [`OwnershipEvent`].
    pub fn on_ownership(mut self, log: impl FnMut(OwnershipEvent) + Send + 'static) -> Self {
        self.log = Some(Box::new(log));
        self
    }

    /// Another clock than the system's; for tests.
    pub fn clock(mut self, clock: impl LeaseClock) -> Self {
        self.clock = Clock::Other(Arc::new(clock));
        self
    }

    /// How long the surrender of a slice waits for guards in flight before it cuts them off;
    /// 1 s unless set.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// Takes guards that are [fenced](crate::Guard::is_fenced) where the target says `serve_fenced`: after
    /// the lease has run out they are given on, and only the store's fence decides. Without this
    /// word of the application such a Slicelet stops like any other.
    pub fn accept_fenced(mut self) -> Self {
        self.accepts_fenced = true;
        self
    }

    /// How many requests may wait at once for slices that are being handed over, and how long
    /// each; 4096 and 2 s unless set. Less than [`drain_deadline`](SliceletBuilder::drain_deadline)
    /// and [`Transfers::finish_deadline`] together fails requests of handovers that succeed.
    pub fn waiting(mut self, most: usize, longest: Duration) -> Self {
        (self.most_waiting, self.longest_wait) = (most, longest);
        self
    }

    /// Starts the Slicelet. It registers by itself, as soon and as often as needed; see
    /// [`Slicelet::ready`].
    ///
    /// Requires a Tokio runtime.
    ///
    /// # Errors
    /// `Invalid` when target, endpoints, address or version are not well-formed.
    pub fn start(self) -> Result<Slicelet, Error> {
        let target = TargetName::new(&self.target).map_err(Error::invalid)?;
        let address = PodAddress::new(&self.advertise).map_err(Error::invalid)?;
        if self.app_version.len() > limits::APP_VERSION_BYTES {
            return Err(Error::invalid(format_args!(
                "the version is longer than {} bytes",
                limits::APP_VERSION_BYTES
            )));
        }
        let squid = Squid {
            address,
            id: rand::random(),
        };
        let endpoints = Endpoints::new(self.endpoints, rand::random())?;
        let clock = self.clock.lease().class();
        let register = RegisterRequest {
            target: target.clone(),
            squid: squid.clone(),
            clock,
            app_version: self.app_version,
        };
        let shared = Shared::new(self.clock);
        let drained = Arc::new(Notify::new());
        let notify = Arc::clone(&drained);
        let wants = Wants {
            acquire: self.handler.is_some(),
            state: self.state.is_some(),
        };
        let publisher = Publisher::new(
            Arc::clone(&shared),
            Arc::new(move || notify.notify_one()),
            self.log,
            wants,
        );
        let (requests, requests_source) = mpsc::channel(16);
        let (asked, asked_source) = mpsc::channel(limits::EARLY_HANDOFF_MESSAGES);
        let (stop, stop_source) = watch::channel(false);
        let config = DriverConfig {
            link: LinkConfig {
                register,
                endpoints,
                pool: ChannelPool::new(),
            },
            drain_deadline: self.drain_deadline,
            accepts_fenced: self.accepts_fenced,
            jitter_seed: rand::random(),
            callbacks: Callbacks::new(self.handler, self.state.clone()),
            state: self.state.map(|state| (state, self.transfers)),
        };
        let sources = Sources {
            requests: requests_source,
            asked: asked_source,
            drained,
            stop: stop_source,
        };
        let driver = Driver::spawn(Arc::clone(&shared), config, publisher, sources);
        Ok(Slicelet {
            shared,
            target,
            squid,
            requests,
            asked,
            stop,
            driver: Some(driver),
            most_waiting: self.most_waiting,
            longest_wait: self.longest_wait,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_longer_than_a_handover_takes() {
        let longest = DRAIN_DEADLINE + Transfers::default().finish_deadline;
        assert!(SliceletBuilder::new("cart".to_owned()).longest_wait > longest);
    }
}
