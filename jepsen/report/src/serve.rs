//! Shows a directory of runs to a browser. Read-only: nothing under it is ever written.

mod archive;
mod files;
mod list;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{self, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Whole runs that are sent at one time.
const MAX_ARCHIVES: usize = 2;

/// What requests share.
#[derive(Debug)]
struct Shared {
    /// The directory of runs, without symbolic links.
    store: PathBuf,
    /// Whether only this machine may reach the server.
    loopback: bool,
    archives: Arc<Semaphore>,
}

/// Lists the runs under `store` (`store/NAME/TIME/`) at `http://listen/`, until it is dropped.
///
/// Read-only; give it a loopback address unless everybody may read the runs.
///
/// # Errors
///
/// `store` is no directory, or `listen` cannot be bound; nothing was served then.
pub async fn serve(store: PathBuf, listen: SocketAddr) -> anyhow::Result<()> {
    let app = router(&store, listen.ip().is_loopback())?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    axum::serve(listener, app).await.context("the server ended")
}

/// The server without a socket.
pub(crate) fn router(store: &Path, loopback: bool) -> anyhow::Result<Router> {
    let canonical = store.canonicalize();
    let store = canonical.with_context(|| format!("cannot read {}", store.display()))?;
    anyhow::ensure!(store.is_dir(), "{} is no directory", store.display());
    let archives = Arc::new(Semaphore::new(MAX_ARCHIVES));
    let shared = Arc::new(Shared {
        store,
        loopback,
        archives,
    });
    Ok(Router::new()
        .route("/", get(list_runs))
        .route("/run/{name}/{time}", get(to_index))
        .route("/run/{name}/{time}/", get(index))
        .route("/run/{name}/{time}/{*path}", get(file))
        .route("/tar/{name}/{time}", get(tar))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared))
}

/// Refuses requests that name another host, when the server is for this machine only: a page of
/// elsewhere, whose name was made to point here, cannot read runs. Adds the headers that keep what
/// a run's files say from doing anything.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let mut response = if shared.loopback && !host.is_some_and(is_this_machine) {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "this server answers to localhost only\n",
        )
            .into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let policy = crate::page::policy() + "; frame-ancestors 'none'";
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        header::HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    response
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

async fn list_runs(
    State(shared): State<Arc<Shared>>,
    Query(filter): Query<list::Filter>,
) -> Response {
    let listed = tokio::task::spawn_blocking(move || list::page(&shared.store, &filter)).await;
    match listed {
        Ok(page) => Html(page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn to_index(extract::Path((name, time)): extract::Path<(String, String)>) -> Redirect {
    let (name, time) = (crate::page::component(&name), crate::page::component(&time));
    Redirect::permanent(&format!("/run/{name}/{time}/"))
}

async fn index(
    State(shared): State<Arc<Shared>>,
    extract::Path((name, time)): extract::Path<(String, String)>,
) -> Response {
    let page = files::resolve(&shared.store, &[&name, &time, "index.html"]);
    let run = files::resolve(&shared.store, &[&name, &time]);
    match (page, run) {
        (None, Some(run)) if run.is_dir() => {
            let made =
                tokio::task::spawn_blocking(move || crate::index::without_report(&run)).await;
            made.map_or_else(
                |_| StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                |page| Html(page).into_response(),
            )
        }
        _ => files::send(&shared.store, &[&name, &time, "index.html"]).await,
    }
}

async fn file(
    State(shared): State<Arc<Shared>>,
    extract::Path((name, time, path)): extract::Path<(String, String, String)>,
) -> Response {
    let mut parts = vec![name.as_str(), time.as_str()];
    parts.extend(path.split('/'));
    files::send(&shared.store, &parts).await
}

async fn tar(
    State(shared): State<Arc<Shared>>,
    extract::Path((name, time)): extract::Path<(String, String)>,
) -> Response {
    let Ok(permit) = Arc::clone(&shared.archives).try_acquire_owned() else {
        return (
            StatusCode::TOO_MANY_REQUESTS,
            "other runs are being sent; try again\n",
        )
            .into_response();
    };
    match files::resolve(&shared.store, &[&name, &time]) {
        Some(dir) if dir.is_dir() => archive::send(dir, format!("{name}-{time}"), permit),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests;
