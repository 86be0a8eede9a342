//! How a process of a demo tells another how it fares: a small file, written whole or not at all.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Replaces what `path` says.
pub fn write(path: &Path, status: &impl Serialize) -> std::io::Result<()> {
    let temporary = path.with_extension("status-tmp");
    let bytes = serde_json::to_vec(status).map_err(std::io::Error::other)?;
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}

/// What `path` says; the default where it says nothing yet.
pub fn read<T: DeserializeOwned + Default>(path: &Path) -> T {
    let bytes = std::fs::read(path).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}
