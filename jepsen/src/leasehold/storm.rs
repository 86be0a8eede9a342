//! A storm of moves: random slices to random pods, many at once, as fast as the Assigners take
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use leasehold_proto::SessionId;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::admin::{Admin, Slices};

/// Before the assignment is read again when there is nothing to move, or nobody answers.
const AGAIN: Duration = Duration::from_millis(25);

/// A storm that blows until it is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
}

impl Storm {
    /// Tells it to stop; moves under way end by themselves.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Moves that the Assigners agreed to.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Moves slices of `target`, at most `at_once` at a time, until told to stop. `at_once` slices
    /// on the way at any time; each goes to a live session that does not own it.
    pub async fn blow(&self, admin: &Admin, target: &str, at_once: usize, seed: u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        while !self.stop.load(Ordering::Relaxed) {
            let moved = match admin.slices(target).await {
                Ok(slices) => self.wave(admin, &slices, at_once, &mut random).await,
                Err(_) => 0,
            };
            if moved == 0 {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// One move for each slice that can be moved now.
    async fn wave(
        &self,
        admin: &Admin,
        slices: &Slices,
        at_once: usize,
        random: &mut SmallRng,
    ) -> u64 {
        let sessions: Vec<SessionId> = slices.pods.iter().map(|(session, _)| *session).collect();
        let mut wishes = super::operator::wishes(slices, &sessions, random);
        // A different end of the key space first each time.
        let turn = random.random_range(0..wishes.len().max(1));
        let turn = turn.min(wishes.len());
        wishes.rotate_left(turn);
        let mut under_way = FuturesUnordered::new();
        let mut moved = 0;
        for wish in wishes {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if under_way.len() >= at_once.max(1) {
                moved += under_way.next().await.unwrap_or(0);
            }
            under_way.push(async move {
                let asked = admin.ask(|mut client| {
                    let wish = wish.clone();
                    async move { client.move_slice(wish).await }
                });
                // Another may have moved it meanwhile: then there is nothing to do.
                u64::from(asked.await.is_ok())
            });
        }
        while let Some(done) = under_way.next().await {
            moved += done;
        }
        self.begun.fetch_add(moved, Ordering::Relaxed);
        moved
    }
}
