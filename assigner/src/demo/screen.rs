//! What a person sees while the demo runs: a few lines that are redrawn on a terminal, or a line
//! every two seconds in a log.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::OwnershipArgs;
use super::status;
use super::world::{TARGET, World};
use crate::harness::control::Control;

/// How a client fares, as it writes it several times a second.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not.
    pub failed: u64,
    /// 99th percentile of the last second, in milliseconds.
    pub recent_ms_p99: f64,
}

/// How many requests of this client were answered.
pub fn served(path: &Path) -> u64 {
    status::read::<Status>(path).answered
}

/// The display.
pub struct Screen {
    terminal: bool,
    begun: Instant,
    phase: String,
    drawn: Instant,
    lines: usize,
    last: (Instant, u64),
}

impl Screen {
    /// On standard output.
    pub fn new() -> Self {
        let now = Instant::now();
        let terminal = std::io::stdout().is_terminal();
        Self {
            terminal,
            begun: now,
            phase: String::new(),
            drawn: now,
            lines: 0,
            last: (now, 0),
        }
    }

    /// Names what happens from now on.
    pub fn phase(&mut self, phase: &str) {
        self.phase = phase.to_owned();
        if !self.terminal {
            println!("{:6.1}s  {phase}", self.begun.elapsed().as_secs_f64());
        }
    }

    /// Shows how things stand, if it is time to.
    pub async fn draw(&mut self, world: &World, control: &Control, args: &OwnershipArgs) {
        let every = if self.terminal {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(2)
        };
        if self.drawn.elapsed() < every {
            return;
        }
        self.drawn = Instant::now();
        let statuses: Vec<Status> = (0..args.clients)
            .map(|number| status::read(&world.status_file(number)))
            .collect();
        let answered: u64 = statuses.iter().map(|status| status.answered).sum();
        let failed: u64 = statuses.iter().map(|status| status.failed).sum();
        let p99 = statuses
            .iter()
            .map(|status| status.recent_ms_p99)
            .fold(0.0, f64::max);
        let (since, before) = std::mem::replace(&mut self.last, (Instant::now(), answered));
        let rate = answered.saturating_sub(before) as f64 / since.elapsed().as_secs_f64().max(1e-3);
        // While there is no leader any Assigner still tells what it knows.
        let owners =
            match tokio::time::timeout(Duration::from_millis(300), control.slices(TARGET)).await {
                Ok(Ok(slices)) => owners(world, &slices),
                _ => "no Assigner answers".to_owned(),
            };
        let head = format!(
            "{:6.1}s  {}",
            self.begun.elapsed().as_secs_f64(),
            self.phase
        );
        let load = format!("{rate:.0} requests/s, {failed} failed, p99 {p99:.1} ms");
        if self.terminal {
            self.clear();
            println!("{head}\n         {load}\n         {owners}");
            self.lines = 3;
        } else {
            println!("{head}: {load}; {owners}");
        }
        let _ = std::io::stdout().flush();
    }

    /// Takes the redrawn lines away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.lines) > 0 {
            print!("\x1b[3A\x1b[J");
        }
    }
}

fn owners(world: &World, slices: &[crate::harness::control::SliceRow]) -> String {
    let count = |address: &str| {
        let owns = |row: &&crate::harness::control::SliceRow| {
            row.owner
                .as_ref()
                .is_some_and(|(_, owner)| owner == address)
        };
        slices.iter().filter(owns).count()
    };
    let mut parts: Vec<String> = world
        .pods
        .iter()
        .map(|pod| {
            format!(
                "{} {}{}",
                pod.name,
                count(&pod.address.to_string()),
                if pod.proc.is_none() { " (down)" } else { "" }
            )
        })
        .collect();
    let vacant = slices.iter().filter(|row| row.owner.is_none()).count();
    if vacant > 0 {
        parts.push(format!("vacant {vacant}"));
    }
    format!("slices: {}", parts.join(", "))
}
