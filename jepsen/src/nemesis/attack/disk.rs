//! Disks that are full, slow, hung or lie, and power that goes away.

use std::time::Duration;

use anyhow::{Result, ensure};
use leasehold_faults::{DiskKind, Effect, SyncFault};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::super::claims::Part;
use super::super::strike::{Harm, Remedy, Stage, blocking};
use super::{operator, or_skip, skipped};

/// What a slow disk writes in a second.
const SLOW_BYTES_PER_S: u64 = 1 << 20;
/// Lies are told for this long before the power goes.
const LYING: Duration = Duration::from_secs(2);

pub(super) async fn strike<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let field = stage.field;
    let at_leader = mode.ends_with("-leader");
    let mut candidates = field.core_hosts();
    candidates.shuffle(rng);
    if at_leader {
        candidates = field.leader(rng).await;
    }
    if candidates.is_empty() {
        return skipped("there is no core, or no leader is known");
    }
    let loses_data = matches!(mode, "fsync-lies" | "lost-tail" | "bit-flip");
    if loses_data {
        // One disk of a run is broken, and stays the one: what two have lost may be lost.
        let broken = stage
            .broken
            .lock()
            .get_or_insert(candidates[0].clone())
            .clone();
        candidates = vec![broken];
    }
    let count = match mode {
        "fsync-slow-all" => candidates.len(),
        "power-loss" => field.minority().max(1),
        _ => 1,
    };
    let mut parts = vec![Part::Process, Part::Disk];
    if loses_data || mode.starts_with("power-loss") || mode == "torn-tail" {
        // What is lost must be somewhere else: on a majority nothing is.
        let free = field
            .minority()
            .saturating_sub(stage.claims.count(Part::Data));
        if free < count {
            return skipped("data would be lost on too many hosts at once");
        }
        parts.push(Part::Data);
    }
    let hosts = stage.claim(harm, &candidates, count, &parts);
    if hosts.len() < count || hosts.is_empty() {
        return skipped("other faults have hold of too many hosts");
    }
    for host in &hosts {
        // Undone last: the process must live on a healthy disk.
        harm.remedies.push(Remedy::Start(host.clone()));
        field.processes.allow_end(host, true);
    }
    for host in &hosts {
        let effect = match mode {
            "fsync-fails" | "fsync-slow-leader" | "fsync-slow-all" => {
                bend_sync(stage, mode, host, rng, harm)?
            }
            "fsync-lies" => lie(stage, host, rng, harm).await?,
            "power-loss" | "power-loss-leader" => cut_power(stage, host, harm).await?,
            "torn-tail" | "lost-tail" | "bit-flip" => damage(stage, mode, host, rng, harm).await?,
            _ => strain(stage, mode, host, harm).await?,
        };
        if let Effect::Skipped(why) = effect {
            return Ok(Effect::Skipped(why));
        }
    }
    Ok(Effect::Done)
}

/// `fsync` fails or is late.
fn bend_sync<'a>(
    stage: &Stage<'a>,
    mode: &str,
    host: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let shim = or_skip!(stage.shim(host));
    let disk = or_skip!(stage.disk(host));
    let fault = match mode {
        "fsync-fails" => SyncFault::Fails,
        "fsync-slow-all" => SyncFault::Slow(Duration::from_millis(200)),
        _ => SyncFault::Slow(Duration::from_millis(rng.random_range(200..5_000))),
    };
    harm.detail = format!("{fault:?}");
    harm.remedies.push(Remedy::Sync(host.to_owned()));
    shim.set_sync_fault(disk.dir(), fault)?;
    harm.must_rise("no fsync was struck", || shim.syncs_struck());
    Ok(Effect::Done)
}

/// `fsync` lies for a while, and then the power goes.
async fn lie<'a>(
    stage: &Stage<'a>,
    host: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let shim = or_skip!(stage.shim(host));
    let disk = or_skip!(stage.disk(host));
    if let Some(why) = disk.why_not() {
        return skipped(why);
    }
    harm.remedies.push(Remedy::Sync(host.to_owned()));
    let before = shim.syncs_struck();
    shim.set_sync_fault(disk.dir(), SyncFault::Lies)?;
    operator::nudge(stage, rng, Instant::now() + LYING).await;
    stage.sleep_until(Instant::now() + LYING / 2).await;
    let lies = shim.syncs_struck() - before;
    let effect = cut_power(stage, host, harm).await?;
    shim.restore_sync();
    ensure!(lies > 0, "no fsync was struck");
    harm.detail = format!("{lies} lies");
    Ok(effect)
}

/// Power goes away and comes back at once; the process is dead until the end of the fault.
///
/// The process is stopped before. In a real power loss it would say nothing afterwards; here an
/// `fsync` under way while ext4 is shut down can return success for what is lost, as can one under
/// way while it falls back to read-only (seen on Linux 6.18: about one in ten times).
async fn cut_power(stage: &Stage<'_>, host: &str, harm: &mut Harm<'_>) -> Result<Effect> {
    let disk = or_skip!(stage.disk(host)).clone();
    harm.remedies.push(Remedy::Disk(host.to_owned()));
    let (processes, host) = (stage.field.processes.clone(), host.to_owned());
    blocking(move || {
        // None lives: then nothing is under way either.
        let _ = processes.pause(&host)?;
        let effect = disk.cut_power()?;
        if effect == Effect::Done {
            ensure!(!disk.is_writable(), "the disk takes writes without power");
            processes.kill(&host)?;
            disk.remount()?;
        }
        Ok(effect)
    })
    .await
}

/// The process is killed and its log damaged.
async fn damage(
    stage: &Stage<'_>,
    mode: &str,
    host: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'_>,
) -> Result<Effect> {
    let disk = or_skip!(stage.disk(host)).clone();
    let (processes, host) = (stage.field.processes.clone(), host.to_owned());
    let (mode, seed) = (mode.to_owned(), rng.random::<u64>());
    let damaged = blocking(move || {
        processes.kill(&host)?;
        match mode.as_str() {
            "torn-tail" => disk.tear_log(seed),
            "lost-tail" => disk.truncate_log(64 + seed % 4_000),
            _ => disk.flip_bit(seed),
        }
    })
    .await?;
    let Some(path) = damaged else {
        return skipped("there is no log, or it is empty");
    };
    harm.detail = path.file_name().unwrap_or_default().display().to_string();
    Ok(Effect::Done)
}

/// The disk is full, hung, slow or read-only.
async fn strain(stage: &Stage<'_>, mode: &str, host: &str, harm: &mut Harm<'_>) -> Result<Effect> {
    let disk = or_skip!(stage.disk(host)).clone();
    if disk.kind() == DiskKind::Directory {
        return skipped(disk.why_not().unwrap_or("a plain directory"));
    }
    harm.remedies.push(Remedy::Disk(host.to_owned()));
    let (processes, host) = (stage.field.processes.clone(), host.to_owned());
    let mode = mode.to_owned();
    blocking(move || {
        let (effect, struck) = match mode.as_str() {
            "disk-full" | "disk-full-leader" => (disk.fill()?, disk.is_full()),
            "disk-hung" | "disk-hung-leader" => (disk.freeze()?, disk.is_frozen()),
            "disk-slow" => (disk.slow_down(SLOW_BYTES_PER_S)?, disk.is_slow()),
            _ => {
                // Nothing may be under way: see `cut_power`.
                let _ = processes.pause(&host)?;
                let effect = disk.fail_to_read_only();
                processes.resume(&host)?;
                (effect?, !disk.is_writable())
            }
        };
        ensure!(effect != Effect::Done || struck, "the disk is as it was");
        Ok(effect)
    })
    .await
}
