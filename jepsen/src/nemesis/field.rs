//! The hosts of a run, as faults see them: who is there, and who may be struck.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leasehold_faults::{Disk, Network, Processes, Shim, TrueTime};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::cluster::ClusterControl;
use crate::system::{Host, System};

/// Role of hosts that hold slices.
pub const POD: &str = "pod";
/// A question to the system takes at most this long.
const QUESTION: Duration = Duration::from_secs(3);
/// Between two questions, while nobody has the part: amid an election, say.
const AGAIN: Duration = Duration::from_millis(100);

/// The hosts of a run and everything that can be done to them.
pub struct Field<'a> {
    /// The links between hosts.
    pub network: Arc<Network>,
    /// One process a host.
    pub processes: Arc<Processes>,
    /// What bends the clocks and the `fsync` of hosts. Without one these faults are skipped.
    pub shims: BTreeMap<String, Arc<Shim>>,
    /// Why there are no shims.
    pub no_shims: Option<String>,
    /// The disks of hosts. Without one, faults of disks are skipped.
    pub disks: BTreeMap<String, Arc<Disk>>,
    /// The system under test: asked who leads and who owns.
    pub system: &'a dyn System,
    /// An operator's hand on it. Without one, faults of the group `cluster` are skipped.
    pub cluster: Option<&'a dyn ClusterControl>,
    /// The system's hosts. Those whose role is neither [`core`](Self::core) nor `pod` are spared.
    pub hosts: &'a [Host],
    /// The clients' hosts; their links are struck, nothing else.
    pub clients: &'a [String],
    /// Role of the hosts that replicate the system's state, and vote.
    pub core: &'a str,
    /// How long a lease lasts.
    pub ttl: Duration,
    /// How far a clock's rate may be off, e.g. 0.0005, without breaking what is assumed.
    pub rho: f64,
    /// The beginning of the run, in true time.
    pub origin: TrueTime,
    /// Told what happens, for the log.
    pub say: &'a (dyn Fn(&str) + Sync),
}

impl Field<'_> {
    fn of_role(&self, role: &str) -> Vec<String> {
        let hosts = self.hosts.iter().filter(|host| host.spec.role == role);
        hosts.map(|host| host.spec.name.clone()).collect()
    }

    /// Hosts that vote.
    pub fn core_hosts(&self) -> Vec<String> {
        self.of_role(self.core)
    }

    /// Hosts that hold slices.
    pub fn pods(&self) -> Vec<String> {
        if self.core == POD {
            Vec::new()
        } else {
            self.of_role(POD)
        }
    }

    /// Core and pods.
    pub fn servers(&self) -> Vec<String> {
        let mut hosts = self.core_hosts();
        hosts.append(&mut self.pods());
        hosts
    }

    /// The hosts that have this part now, as the system says, in random order; none if it does
    /// not say within three seconds.
    pub(crate) async fn who_is(&self, part: &str, rng: &mut StdRng) -> Vec<String> {
        let asked = tokio::time::timeout(QUESTION, self.system.who_is(part, self.hosts)).await;
        let mut hosts = asked.unwrap_or_default();
        hosts.retain(|host| self.hosts.iter().any(|known| known.spec.name == *host));
        hosts.shuffle(rng);
        hosts
    }

    /// The leader first, then the rest of the core in random order.
    pub(crate) async fn leader_first(&self, rng: &mut StdRng) -> Vec<String> {
        let leaders = self.who_is("leader", rng).await;
        first(leaders, self.core_hosts(), rng)
    }

    /// Pods that own slices first, then the others, each in random order.
    pub(crate) async fn owners_first(&self, rng: &mut StdRng) -> Vec<String> {
        let owners = self.who_is("owner", rng).await;
        first(owners, self.pods(), rng)
    }

    /// The host that leads, for faults that strike it and no other. Empty: it is not known.
    pub(crate) async fn leader(&self, rng: &mut StdRng) -> Vec<String> {
        self.known("leader", &self.core_hosts(), rng).await
    }

    /// The pods that own slices, in random order, for faults that strike these and no others.
    /// Empty: none is known.
    pub(crate) async fn owners(&self, rng: &mut StdRng) -> Vec<String> {
        self.known("owner", &self.pods(), rng).await
    }

    /// Those of `among` that have this part, asked for until there are some or three seconds
    /// have passed.
    async fn known(&self, part: &str, among: &[String], rng: &mut StdRng) -> Vec<String> {
        let until = Instant::now() + QUESTION;
        loop {
            let mut hosts = self.who_is(part, rng).await;
            hosts.retain(|host| among.contains(host));
            if !hosts.is_empty() || Instant::now() >= until {
                return hosts;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// How many hosts of the core can fail without its majority.
    pub(crate) fn minority(&self) -> usize {
        self.core_hosts().len().saturating_sub(1) / 2
    }
}

/// Those of `all` that stand in `preferred` first, in that order; the others behind, shuffled.
fn first(mut preferred: Vec<String>, mut all: Vec<String>, rng: &mut StdRng) -> Vec<String> {
    preferred.retain(|host| all.contains(host));
    all.retain(|host| !preferred.contains(host));
    all.shuffle(rng);
    preferred.append(&mut all);
    preferred
}
