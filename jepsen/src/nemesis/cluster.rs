//! What an operator can do to the system under test, as faults need it.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use leasehold_faults::Effect;

/// An operator's hand on the system under test. What a system cannot do it leaves as it is here:
/// skipped.
///
/// Every call ends by itself within about ten seconds, whatever state the system is in. An error
/// means that the operation may have taken effect, or may yet. Calls are made inside the network
/// that no fault strikes.
pub trait ClusterControl: Send + Sync {
    /// Hands leadership to this host, or, if none is named, to any other than the leader.
    fn transfer_leader<'a>(&'a self, to: Option<&'a str>) -> BoxFuture<'a, Result<Effect>> {
        let _ = to;
        unsupported()
    }

    /// The hosts that vote now.
    fn members(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    /// Takes a voting host out, as an operator would; its process may go on running.
    fn remove_member<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Effect>> {
        let _ = host;
        unsupported()
    }

    /// Takes a host that was removed in again. Called until it succeeds.
    fn add_member<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Effect>> {
        let _ = host;
        unsupported()
    }

    /// Begins to move about so many slices to other pods, chosen by `seed`. A storm is many such
    /// calls.
    fn move_slices(&self, count: usize, seed: u64) -> BoxFuture<'_, Result<Effect>> {
        let _ = (count, seed);
        unsupported()
    }

    /// Splits and merges about so many slices, chosen by `seed`.
    fn reshape_slices(&self, count: usize, seed: u64) -> BoxFuture<'_, Result<Effect>> {
        let _ = (count, seed);
        unsupported()
    }

    /// Takes all slices off a pod, for as long as it is drained.
    fn drain<'a>(&'a self, pod: &'a str) -> BoxFuture<'a, Result<Effect>> {
        let _ = pod;
        unsupported()
    }

    /// Lets a drained pod have slices again. Called until it succeeds.
    fn undrain<'a>(&'a self, pod: &'a str) -> BoxFuture<'a, Result<Effect>> {
        let _ = pod;
        unsupported()
    }

    /// Sets how long leases of new sessions last; `None`: as at the beginning of the run.
    fn set_ttl(&self, ttl: Option<Duration>) -> BoxFuture<'_, Result<Effect>> {
        let _ = ttl;
        unsupported()
    }

    /// Switches between strong (`true`) and eventual mode, and waits until the promise of strong
    /// mode holds.
    fn set_strong(&self, strong: bool) -> BoxFuture<'_, Result<Effect>> {
        let _ = strong;
        unsupported()
    }

    /// Makes a host write a snapshot and drop the log before it.
    fn snapshot<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Effect>> {
        let _ = host;
        unsupported()
    }
}

fn unsupported<'a>() -> BoxFuture<'a, Result<Effect>> {
    async { Ok(Effect::skipped("the system has no such operation")) }.boxed()
}
