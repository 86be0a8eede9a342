//! Slices move between two versions of an application that write their values differently.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;

use leasehold_client::proto::target::TargetConfig;
use leasehold_client::state::{StateMap, StateValue};

use fake::Fake;
use pod::{LONG, Pod};

const KEYS: u64 = 200;

/// Each version reads what the other one writes, which begins with the version.
#[derive(Clone)]
struct Count<const VERSION: u8>(u64);

impl<const VERSION: u8> StateValue for Count<VERSION> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.0.to_le_bytes());
        // What the newer one is newer by.
        out.extend_from_slice(&[0xaa; 4][..usize::from(VERSION - 1) * 4]);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, bytes) = bytes.split_first()?;
        let (count, rest) = bytes.split_first_chunk()?;
        let whole = rest.len() == usize::from(version.checked_sub(1)?) * 4;
        whole.then(|| Self(u64::from_le_bytes(*count)))
    }

    fn size_bytes(&self) -> usize {
        13
    }
}

struct Release<const VERSION: u8> {
    pod: Pod,
    counts: StateMap<Count<VERSION>>,
}

impl<const VERSION: u8> Release<VERSION> {
    async fn start(fake: &Fake) -> Self {
        let counts = StateMap::new();
        let state = counts.clone();
        let pod = Pod::start_with(fake, "cart", |builder| builder.state(state)).await;
        pod.slicelet.ready(LONG).await.unwrap();
        Self { pod, counts }
    }

    fn is_owner(&self) -> bool {
        self.pod.slicelet.guard(b"alice").is_ok()
    }

    /// Counts each key up and requires that none is behind.
    fn count_to(&self, expected: u64) {
        for n in 0..KEYS {
            let key = n.to_be_bytes();
            let guard = self.pod.slicelet.guard(&key).unwrap();
            let counted = self.counts.update(&guard, &key, |count| {
                let count = count.get_or_insert(Count(0));
                count.0 += 1;
                count.0
            });
            assert_eq!(counted.unwrap(), expected);
        }
    }

    async fn take(&self, fake: &Fake) {
        let to = self.pod.slicelet.session().unwrap();
        let at = self.pod.slicelet.slice_key(b"alice");
        let hand_off = || fake.hand_off("cart", at, to).is_ok();
        pod::until("the destination may receive", hand_off).await;
        pod::until("it is served", || self.is_owner()).await;
        pod::until("the handoff is completed", || {
            !fake.has_open_handoff("cart")
        })
        .await;
        let stats = self.pod.slicelet.stats();
        assert_eq!((stats.arrivals_warm, stats.state_samples_differ), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_and_its_rollback_keep_every_count() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let old = Release::<1>::start(&fake).await;
    pod::until("it is served", || old.is_owner()).await;
    old.count_to(1);
    let new = Release::<2>::start(&fake).await;
    new.take(&fake).await;
    new.count_to(2);
    old.take(&fake).await;
    old.count_to(3);
}
