//! What each mode does: once at its beginning, and, for some, again and again while it lasts.

mod clock;
mod disk;
mod links;
mod operator;
mod partition;
mod process;

use anyhow::Result;
use leasehold_faults::Effect;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::catalogue;
use super::strike::{Harm, Stage};

/// Begins a fault. What it has done so far stands in `harm`, also when it fails.
pub(super) async fn strike<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    match group(mode) {
        "kill" | "restart" | "pause" | "cpu" => process::strike(stage, mode, rng, harm).await,
        "partition" | "flap" => partition::strike(stage, mode, rng, harm).await,
        "link" => links::strike(stage, mode, rng, harm).await,
        "clock" | "clock-beyond" => clock::strike(stage, mode, rng, harm).await,
        "disk" | "fsync" | "power" | "data-loss" => disk::strike(stage, mode, rng, harm).await,
        _ => operator::strike(stage, mode, rng, harm).await,
    }
}

/// Repeats what must be repeated, until `until` or the end of all faults. Returns at once for
/// modes that act only once.
pub(super) async fn go_on<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
    until: Instant,
) {
    match mode {
        "rolling-restart" | "restart-pods" => process::roll(stage, harm, until).await,
        "pause-blink" => process::blink(stage, rng, harm, until).await,
        "starve-leader" | "starve-owner" | "starve-all" => {
            process::starve_more(stage, harm, until).await;
        }
        "flap-core" | "flap-pod" => partition::flap(stage, rng, harm, until).await,
        "wall-strobe" => clock::strobe(stage, rng, harm, until).await,
        "transfer-leader" | "move-storm" | "reshape-storm" | "snapshot" => {
            operator::repeat(stage, mode, rng, harm, until).await;
        }
        _ if matches!(group(mode), "disk" | "fsync") => {
            operator::nudge(stage, rng, until).await;
        }
        _ => {}
    }
}

fn group(mode: &str) -> &'static str {
    catalogue::find(mode).first().map_or("", |mode| mode.group)
}

/// `Ok(Effect::Skipped)` of this text.
fn skipped(why: &str) -> Result<Effect> {
    Ok(Effect::skipped(why))
}

/// Returns the reason from the function around it if there is nothing of this.
macro_rules! or_skip {
    ($found:expr) => {
        match $found {
            Ok(found) => found,
            Err(skipped) => return Ok(skipped),
        }
    };
}
use or_skip;
