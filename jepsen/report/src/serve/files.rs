//! Files of runs, and nothing else.

use std::path::{Component, Path, PathBuf};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio_util::io::ReaderStream;

/// The file or directory that `parts` name below `store`, which has no symbolic links in it.
///
/// `None` unless every part is an ordinary name (not `..`, no separator, not hidden) and what it
/// leads to, all symbolic links followed, lies below `store`.
pub(super) fn resolve(store: &Path, parts: &[&str]) -> Option<PathBuf> {
    let mut path = store.to_owned();
    for part in parts {
        let mut components = Path::new(part).components();
        let ordinary = matches!(
            (components.next(), components.next()),
            (Some(Component::Normal(name)), None) if name == *part
        );
        if !ordinary || part.starts_with('.') || part.contains(['\0', '\\']) {
            return None;
        }
        path.push(part);
    }
    let real = path.canonicalize().ok()?;
    (real.starts_with(store) && real != store).then_some(real)
}

/// Sends the file, or says that there is none.
pub(super) async fn send(store: &Path, parts: &[&str]) -> Response {
    let Some(path) = resolve(store, parts) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(file) = tokio::fs::File::open(&path).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let length = match file.metadata().await {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let kind = kind(parts.last().copied().unwrap_or_default());
    // The file may still grow: what was promised is sent, no more.
    let body = Body::from_stream(ReaderStream::new(tokio::io::AsyncReadExt::take(
        file, length,
    )));
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    (headers, body).into_response()
}

/// Only what the report itself writes is shown as more than text.
fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("jsonl" | "edn" | "txt" | "log" | "toml") => "text/plain; charset=utf-8",
        _ if matches!(name, "stdout" | "stderr" | "LOG") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
