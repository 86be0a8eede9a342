//! Metrics and health over HTTP, for machines that watch this one.
//!
//! | Path | Answer |
//! | --- | --- |
//! | `/metrics` | OpenMetrics text |
//! | `/livez` | 200 while the process works; 503 or silence: restart it |
//! | `/readyz` | 200 while requests should be sent here; `?verbose` names each check |
//! | `/version` | JSON |
//!
//! Connections, their idle time, the size of a head and the time of a request are bounded. Nothing
//! here changes anything or tells a secret.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// How long a connection may take to say what it wants, also between two requests.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// Longest head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// How long an answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a failed accept: such errors (no file descriptor left) do not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is watched.
pub trait Watched: Send + Sync + 'static {
    /// Every metric as OpenMetrics text.
    fn metrics(&self) -> String;
    /// Why the process should be restarted, if it should.
    fn alive(&self) -> Result<(), String>;
    /// What must hold for requests to be sent here, each with why it does not.
    fn ready(&self) -> Vec<(&'static str, Result<(), String>)>;
}

/// A server that runs until it is stopped.
pub struct Server {
    local: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens, and answers from then on.
    pub async fn start(listen: SocketAddr, watched: Arc<dyn Watched>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let local = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, router(watched), stop.clone()));
        Ok(Self { local, stop, task })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Ends every connection after its present request.
    pub async fn stop(self) {
        self.stop.cancel();
        // The task ends by itself; if it has panicked there is nothing left to stop.
        let _ = self.task.await;
    }
}

fn router(watched: Arc<dyn Watched>) -> Router {
    Router::new()
        .route(
            "/",
            get(|| async { "/metrics\n/livez\n/readyz?verbose\n/version\n" }),
        )
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route(
            "/version",
            get(|| async { Json(serde_json::json!({ "version": env!("CARGO_PKG_VERSION") })) }),
        )
        .with_state(watched)
}

async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let incoming = async {
            // Waits for a place first: whoever is too many waits in the system's queue.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = incoming => match (place, accepted) {
                (Ok(place), Ok((stream, _))) => {
                    connections.spawn(converse(stream, router.clone(), place, stop.clone()));
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics and health");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                (Err(_), _) => break,
            },
        }
    }
    let _ = timeout(ANSWER_PATIENCE, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

async fn converse(
    stream: TcpStream,
    router: Router,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // What a client does wrong is its own affair.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Asks beside the event loop and for a limited time, so that a lock that is never released shows
/// as an error and not as silence.
async fn asked<T: Send + 'static>(
    watched: Arc<dyn Watched>,
    question: impl FnOnce(&dyn Watched) -> T + Send + 'static,
) -> Result<T, Response> {
    let failed = |why: &'static str| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    match timeout(
        ANSWER_PATIENCE,
        tokio::task::spawn_blocking(move || question(&*watched)),
    )
    .await
    {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(failed("the check failed\n")),
        Err(_) => Err(failed("no answer from the node in 5 s: it is wedged\n")),
    }
}

async fn metrics(State(watched): State<Arc<dyn Watched>>) -> Response {
    match asked(watched, |watched| watched.metrics()).await {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(response) => response,
    }
}

async fn livez(State(watched): State<Arc<dyn Watched>>) -> Response {
    match asked(watched, |watched| watched.alive()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        Ok(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
        Err(response) => response,
    }
}

async fn readyz(State(watched): State<Arc<dyn Watched>>, RawQuery(query): RawQuery) -> Response {
    let checks = match asked(watched, |watched| watched.ready()).await {
        Ok(checks) => checks,
        Err(response) => return response,
    };
    let failed = checks.iter().any(|(_, result)| result.is_err());
    let code = if failed {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let verbose = query.is_some_and(|query| {
        query
            .split('&')
            .any(|word| word == "verbose" || word.starts_with("verbose="))
    });
    let lines = checks
        .iter()
        .filter(|(_, result)| verbose || result.is_err())
        .map(|(name, result)| match result {
            Ok(()) => format!("[+] {name}: ok\n"),
            Err(why) => format!("[-] {name}: {why}\n"),
        });
    let last = if failed { "not ready\n" } else { "ok\n" };
    (code, lines.collect::<String>() + last).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Fake {
        leader: bool,
    }

    impl Watched for Fake {
        fn metrics(&self) -> String {
            "leasehold_up 1\n# EOF\n".into()
        }

        fn alive(&self) -> Result<(), String> {
            if self.leader {
                Ok(())
            } else {
                Err("the disk has failed".into())
            }
        }

        fn ready(&self) -> Vec<(&'static str, Result<(), String>)> {
            let leader = if self.leader {
                Ok(())
            } else {
                Err("no leader is known".to_owned())
            };
            vec![("replica", Ok(())), ("leader", leader)]
        }
    }

    async fn start(leader: bool) -> Server {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Server::start(loopback, Arc::new(Fake { leader }))
            .await
            .expect("listens")
    }

    async fn ask(server: &Server, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(server.local_addr())
            .await
            .expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        let code = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .expect("a status");
        (
            code,
            answer
                .split_once("\r\n\r\n")
                .map(|(_, body)| body.to_owned())
                .unwrap_or_default(),
        )
    }

    #[tokio::test]
    async fn a_healthy_node_says_so() {
        let server = start(true).await;
        assert_eq!(ask(&server, "/livez").await, (200, "ok\n".into()));
        assert_eq!(ask(&server, "/readyz").await, (200, "ok\n".into()));
        assert_eq!(
            ask(&server, "/readyz?verbose").await,
            (200, "[+] replica: ok\n[+] leader: ok\nok\n".into())
        );
        assert_eq!(ask(&server, "/metrics").await.1, "leasehold_up 1\n# EOF\n");
        assert!(ask(&server, "/version").await.1.contains("\"version\""));
        assert_eq!(ask(&server, "/nowhere").await.0, 404);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_names_the_check() {
        let server = start(false).await;
        assert_eq!(
            ask(&server, "/readyz").await,
            (503, "[-] leader: no leader is known\nnot ready\n".into())
        );
        assert_eq!(
            ask(&server, "/livez").await,
            (503, "the disk has failed\n".into())
        );
        server.stop().await;
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let server = start(true).await;
        let mut stream = TcpStream::connect(server.local_addr())
            .await
            .expect("connects");
        let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(4 * HEAD_BYTES));
        // The server may close before it has taken everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        server.stop().await;
    }
}
