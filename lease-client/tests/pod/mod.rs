//! A pod for tests: a Slicelet, and a server that carries its peer service.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test files"
)]

use std::time::Duration;

use leasehold_client::proto::target::TargetConfig;
use leasehold_client::{Slicelet, SliceletBuilder};
use tokio::task::AbortHandle;
use tonic::transport::server::TcpIncoming;

use crate::fake::Fake;

/// Longer than anything that a test waits for takes, also on a machine that is busy.
pub const LONG: Duration = Duration::from_secs(30);

pub struct Pod {
    pub slicelet: Slicelet,
    pub address: String,
    server: AbortHandle,
}

impl Pod {
    pub async fn start(fake: &Fake, target: &str) -> Pod {
        Self::start_with(fake, target, |builder| builder).await
    }

    pub async fn start_with(
        fake: &Fake,
        target: &str,
        with: impl FnOnce(SliceletBuilder) -> SliceletBuilder,
    ) -> Pod {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let builder = Slicelet::builder(target)
            .endpoints(fake.endpoints())
            .advertise(&address);
        let slicelet = with(builder).start().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(slicelet.peer_service().into_server())
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let server = tokio::spawn(async move { server.await.unwrap() }).abort_handle();
        Pod {
            slicelet,
            address,
            server,
        }
    }

    /// Nothing answers at its address any more.
    pub fn stop(&self) {
        self.server.abort();
    }
}

pub fn short_ttl() -> TargetConfig {
    TargetConfig {
        ttl: Duration::from_millis(600),
        ..TargetConfig::default()
    }
}

/// Requires that the rule fails with the planted mistake. Everything runs in one thread, since
/// mistakes are planted by thread.
#[cfg(leasehold_mutants)]
pub fn noticed<F: Future<Output = ()> + 'static>(mutant: &'static str, how: &str, rule: fn() -> F) {
    use leasehold_client::proto::mutants;
    let begun = std::time::Instant::now();
    let tried = std::thread::spawn(move || {
        mutants::plant(Some(mutant));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(rule());
    });
    let caught = tried.join().is_err();
    let seconds = begun.elapsed().as_secs_f64();
    mutants::record(mutant, "rules", caught, how, seconds);
    assert!(caught, "{mutant} is not noticed");
}

/// Waits for a condition, with a deadline that no healthy run comes near.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LONG, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}
