//! An operator who moves slices, several at once, and counts those that have arrived.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use leasehold_proto::{SessionId, Slice};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::demo::fleet::TARGET;
use crate::harness::PATIENCE;
use crate::harness::control::{Control, SliceRow};

/// Between two looks at what has arrived.
const LOOK: Duration = Duration::from_millis(10);

/// Slices on their way by the operator's word.
pub struct Mover {
    random: SmallRng,
    at_once: usize,
    /// Where each is to go.
    moving: BTreeMap<Slice, SessionId>,
    /// How many have arrived.
    pub arrived: u64,
    last_arrived: Instant,
}

impl Mover {
    /// Moves up to so many slices at once.
    pub fn new(random: SmallRng, at_once: usize) -> Self {
        Self {
            random,
            at_once,
            moving: BTreeMap::new(),
            arrived: 0,
            last_arrived: Instant::now(),
        }
    }

    /// Counts what has arrived, and orders as many moves as are missing, up to `most` in all.
    pub async fn step(&mut self, control: &Control, most: u64) -> anyhow::Result<()> {
        let slices = control.slices(TARGET).await?;
        self.count(&slices);
        let left = most.saturating_sub(self.arrived + self.moving.len() as u64);
        let missing = left.min(self.at_once.saturating_sub(self.moving.len()) as u64);
        for _ in 0..missing {
            if let Some((slice, to)) = self.draw(&slices) {
                self.moving.insert(slice, to);
                control.move_slice(TARGET, slice, to).await?;
            }
        }
        ensure!(
            self.last_arrived.elapsed() < PATIENCE,
            "no slice has arrived for {PATIENCE:?}"
        );
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// Whether everything that was ordered has arrived, or was turned down.
    pub fn is_idle(&self) -> bool {
        self.moving.is_empty()
    }

    fn count(&mut self, slices: &[SliceRow]) {
        for row in slices.iter().filter(|row| !row.moving) {
            // Not at its destination: it was turned down, and may be drawn again.
            if let Some(to) = self.moving.remove(&row.slice)
                && row.owner.as_ref().is_some_and(|(owner, _)| *owner == to)
            {
                self.arrived += 1;
                self.last_arrived = Instant::now();
            }
        }
    }

    fn draw(&mut self, slices: &[SliceRow]) -> Option<(Slice, SessionId)> {
        let mut any = |most: usize| self.random.random_range(0..most.max(1));
        let (row, other) = (any(slices.len()), any(slices.len()));
        let (row, other) = (slices.get(row)?, slices.get(other)?);
        let (owner, to) = (row.owner.as_ref()?.0, other.owner.as_ref()?.0);
        let free = !row.moving && !self.moving.contains_key(&row.slice);
        (free && owner != to).then_some((row.slice, to))
    }
}
