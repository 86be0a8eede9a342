//! Shows a directory of runs to a browser.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Lists the runs under `store` (`store/NAME/TIME/`) at `http://listen/`, until it is dropped.
///
/// Read-only; give it a loopback address unless everybody may read the runs.
///
/// # Errors
///
/// `store` is no directory, or `listen` cannot be bound.
pub async fn serve(store: PathBuf, listen: SocketAddr) -> anyhow::Result<()> {
    let _ = (store, listen);
    anyhow::bail!("not yet")
}
