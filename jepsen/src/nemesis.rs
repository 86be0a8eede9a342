//! What is done to a running system: faults by name, drawn from a seed, carried out, seen to have
//! taken effect, and undone.
//!
//! [`Schedule::from_seed`] draws what strikes when. [`run`] carries it out on a [`Field`], the
//! hosts of a run, and returns a [`Fault`] for each attempt: installed, skipped with the reason,
//! or indeterminate. Whatever it did it has undone when it returns, or says so by a fault without
//! an end.

pub mod catalogue;
mod claims;
mod cluster;
mod field;
pub mod schedule;
mod strike;
#[cfg(test)]
mod tests;

mod attack;

use anyhow::{Result, ensure};
use futures::future::join_all;
use leasehold_checkers::run::Fault;
use tokio::sync::watch;
use tokio::time::Instant;

use strike::Stage;

pub use catalogue::{MODES, Mode, Safety};
pub use cluster::ClusterControl;
pub use field::Field;
pub use schedule::{Schedule, Strike, Timing};

/// The names of all groups; each stands for all its modes.
pub fn names() -> Vec<&'static str> {
    catalogue::groups()
}

/// Whether every promise must hold under the faults of these names. Else a run may be invalid,
/// and its validity says nothing about what rests on the broken assumption.
pub fn keeps_promises(names: &[impl AsRef<str>]) -> bool {
    names
        .iter()
        .flat_map(|name| catalogue::find(name.as_ref()))
        .all(|mode| mode.safety == Safety::Kept)
}

/// What came of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Attacked {
    /// What was attempted, in order of its beginning.
    pub faults: Vec<Fault>,
    /// What is still wrong with a host, though each fault was undone: then the run cannot be
    /// judged by how it recovered.
    pub not_healed: Option<String>,
}

/// Carries out a schedule, and undoes everything when it is through or when `until` ends,
/// whichever is first.
///
/// Runs on a thread inside a network that no fault strikes, with a runtime whose time is enabled.
pub async fn run(
    schedule: &Schedule,
    field: &Field<'_>,
    until: impl Future<Output = ()>,
) -> Attacked {
    let (end, stop) = watch::channel(false);
    let stage = Stage {
        field,
        claims: Default::default(),
        overlay: Default::default(),
        broken: Default::default(),
        begun: Instant::now(),
        stop,
    };
    let strikes = schedule
        .strikes
        .iter()
        .map(|strike| stage.carry_out(strike));
    let mut strikes = std::pin::pin!(join_all(strikes));
    let faults = tokio::select! {
        faults = &mut strikes => faults,
        () = until => {
            // `stage` holds a receiver: this cannot fail.
            let _ = end.send(true);
            strikes.await
        }
    };
    let mut faults: Vec<Fault> = faults.into_iter().flatten().collect();
    faults.sort_by_key(|fault| fault.from_ns);
    Attacked {
        faults,
        not_healed: check_healed(field).err().map(|error| format!("{error:#}")),
    }
}

/// Looks whether every host is as it was.
fn check_healed(field: &Field<'_>) -> Result<()> {
    ensure!(field.network.is_whole(), "a link is still struck");
    for (host, shim) in &field.shims {
        ensure!(shim.rate() == 1.0, "the clocks of `{host}` are still wrong");
    }
    for (host, disk) in &field.disks {
        ensure!(!disk.is_frozen(), "the disk of `{host}` is still frozen");
        ensure!(disk.is_writable(), "the disk of `{host}` takes no writes");
    }
    for host in field.processes.hosts() {
        ensure!(
            !field.processes.is_paused(&host),
            "`{host}` is still stopped"
        );
        if !field.processes.is_alive(&host) {
            // It ended by itself, which the list of unexpected ends tells; the run goes on.
            field.processes.restart(&host)?;
        }
    }
    Ok(())
}
