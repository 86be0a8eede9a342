//! The gRPC services of a node, on one listener: peers, sessions, watches, administration, health.

mod admin;
mod connection;
pub(crate) mod feed;
mod sessions;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::limits;
use leasehold_proto::wire::pb::admin_server::AdminServer;
use leasehold_proto::wire::pb::sessions_server::SessionsServer;
use leasehold_proto::wire::pb::watch_server::WatchServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::shared::Shared;

/// Flow-control window of a connection. The default makes the HTTP/2 library close a connection
/// on which many small frames wait to be read.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Flow-control window of one stream.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// How often an idle connection is asked for a sign of life.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(5);
/// How long it may take to give one.
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(3);

/// Serves until `stop`; then connections are told to go and end. At `cut` they are cut.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    stop: CancellationToken,
    cut: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let health_task = tokio::spawn(report_health(Arc::clone(&shared), reporter, stop.clone()));
    let connections = connection::accept(listener, shared.config.limits.connections, cut);
    let sessions = SessionsServer::new(sessions::SessionsService::new(Arc::clone(&shared)))
        .max_decoding_message_size(limits::MESSAGE_BYTES);
    let watch = WatchServer::new(watch::WatchService::new(Arc::clone(&shared)))
        .max_decoding_message_size(64 << 10);
    let admin = AdminServer::new(admin::AdminService::new(Arc::clone(&shared)))
        .max_decoding_message_size(limits::MESSAGE_BYTES);
    let served = Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_PERIOD))
        .http2_keepalive_timeout(Some(KEEPALIVE_PATIENCE))
        .max_concurrent_streams(shared.config.limits.streams_per_connection)
        .add_service(shared.raft.grpc_service())
        .add_service(sessions)
        .add_service(watch)
        .add_service(admin)
        .add_service(health)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await;
    health_task.abort();
    served
}

/// SERVING while a leader is known: for the whole, and for sessions.
async fn report_health(shared: Arc<Shared>, reporter: HealthReporter, stop: CancellationToken) {
    let mut leadership = shared.raft.leadership();
    loop {
        let known = leadership.borrow_and_update().leader.is_some();
        let status = if known {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        reporter.set_service_status("", status).await;
        reporter
            .set_service_status("leasehold.v1.Sessions", status)
            .await;
        tokio::select! {
            () = stop.cancelled() => break,
            changed = leadership.changed() => if changed.is_err() { break },
        }
    }
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    reporter
        .set_service_status("leasehold.v1.Sessions", ServingStatus::NotServing)
        .await;
}
