//! The demo's script: what happens when, and what is claimed of it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use leasehold_proto::SessionId;
use leasehold_proto::overlap::Violation;
use leasehold_proto::target::Consistency;

use super::OwnershipArgs;
use super::analysis::{self, Planned};
use super::ownership::History;
use super::requests::{self, Request};
use super::screen::Screen;
use super::world::{TARGET, World};
use crate::harness::control::{Control, SliceRow};
use crate::harness::{PATIENCE, now_ns};
use leasehold_figures::{Goal, Report};

/// Everything that the script learns while it runs; the rest is in the logs.
#[derive(Default)]
struct Notes {
    planned: Vec<Planned>,
    /// When a pod was killed, and the slices that it owned then.
    pod_kills: Vec<(u64, Vec<leasehold_proto::Slice>)>,
    sessions_lost: Option<usize>,
    leader_failover_ms: Option<f64>,
}

/// Runs the demo. Ends with 1 if a claim fails.
pub async fn run(args: OwnershipArgs) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new()
        .prefix("leasehold-demo-")
        .tempdir()?;
    let dir = match &args.keep {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot create {}", dir.display()))?;
            anyhow::ensure!(
                dir.read_dir()?.next().is_none(),
                "{} is not empty; name a fresh directory",
                dir.display()
            );
            dir.clone()
        }
        None => temporary.path().to_owned(),
    };
    let mut script = Script {
        world: World::new(&dir, &args.plan())?,
        control: Control::default(),
        screen: Screen::new(),
        notes: Notes::default(),
        args,
    };
    let outcome = tokio::select! {
        outcome = script.play() => outcome,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; every process of the demo was killed"),
    };
    script.screen.clear();
    outcome?;
    let Script {
        world, args, notes, ..
    } = script;
    let (requests, histories) = world.finish().await?;
    let mut report = Report::new("demo ownership", &dir);
    let violations = figures(&mut report, &args, &notes, &requests, &histories);
    println!("{}", report.table());
    for violation in violations.iter().take(5) {
        println!("{violation}");
    }
    if let Some(path) = &args.json {
        report
            .write(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(dir) = &args.keep {
        println!("data, logs and histories are in {}", dir.display());
    }
    let good = report.all_met();
    println!(
        "{}",
        if good {
            "every claim held"
        } else {
            "a claim FAILED"
        }
    );
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Script {
    world: World,
    control: Control,
    screen: Screen,
    notes: Notes,
    args: OwnershipArgs,
}

impl Script {
    async fn play(&mut self) -> anyhow::Result<()> {
        self.start().await?;
        let begin = now_ns();
        self.screen.phase("steady load");
        self.steady(self.args.duration / 4).await?;
        self.moves(self.args.duration * 3 / 4).await?;
        self.restarts().await?;
        let mut stretch = begin;
        for kill in 0..self.args.pod_kills {
            let killed_at = self
                .kill_pod(usize::from(kill) % self.world.pods.len())
                .await?;
            self.notes.planned.push(Planned {
                from_ns: stretch,
                to_ns: killed_at,
            });
            stretch = now_ns();
        }
        let leader_killed_at = self.kill_leader().await?;
        // No pod dies with the leader: what is served must go on being served.
        self.notes.planned.push(Planned {
            from_ns: stretch,
            to_ns: now_ns().max(leader_killed_at),
        });
        Ok(())
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        self.screen.phase("starting Assigners and pods");
        self.control = self.world.start(self.args.mode, self.args.slices).await?;
        self.screen.phase("starting clients");
        self.world.start_clients().await
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        self.world.check_alive()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.screen
            .draw(&self.world, &self.control, &self.args)
            .await;
        Ok(())
    }

    /// Waits until the running pods serve everything evenly, showing what goes on.
    async fn settle(&mut self, what: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.world.is_settled(&self.control).await? {
            if begun.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} in vain: {what}");
            }
            self.tick().await?;
        }
        Ok(())
    }

    async fn steady(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.tick().await?;
        }
        Ok(())
    }

    /// Swaps pairs of slices between pods, so that the counts stay even and every move is ours.
    async fn moves(&mut self, time: Duration) -> anyhow::Result<()> {
        self.screen.phase("moving slices");
        let end = Instant::now() + time;
        let mut turn = 0;
        while Instant::now() < end {
            let slices = self.control.slices(TARGET).await?;
            for (slice, to) in swap(&slices, turn) {
                self.control.move_slice(TARGET, slice, to).await?;
            }
            turn += 1;
            self.tick().await?;
        }
        self.settle("the last moves have ended").await
    }

    async fn restarts(&mut self) -> anyhow::Result<()> {
        for index in 0..self.world.pods.len() {
            self.screen.phase(&format!(
                "graceful restart of pod {} of {}",
                index + 1,
                self.world.pods.len()
            ));
            self.world.stop_pod(index).await?;
            self.world.start_pod(index)?;
            self.settle("the restarted pod has its share").await?;
        }
        Ok(())
    }

    async fn kill_pod(&mut self, index: usize) -> anyhow::Result<u64> {
        self.screen
            .phase(&format!("kill -9 of {}", self.world.pods[index].name));
        // Not just behind a move, whose words have renewed every lease: anywhere in the period.
        let phase = self.args.ttl * 5 / 6 + self.args.ttl * u32::from(rand::random::<u8>()) / 1_536;
        self.steady(phase).await?;
        let address = self.world.pods[index].address.to_string();
        let slices = self.control.slices(TARGET).await?;
        let owned = slices.iter().filter(|row| {
            row.owner
                .as_ref()
                .is_some_and(|(_, owner)| *owner == address)
        });
        let owned: Vec<_> = owned.map(|row| row.slice).collect();
        let at = self.world.kill_pod(index).await?;
        self.notes.pod_kills.push((at, owned));
        self.settle("the survivors own everything").await?;
        self.world.start_pod(index)?;
        self.settle("the pod is back").await?;
        Ok(at)
    }

    async fn kill_leader(&mut self) -> anyhow::Result<u64> {
        self.screen.phase("kill -9 of the leading Assigner");
        let before: Vec<SessionId> = self.control.sessions(TARGET).await?;
        let (index, at) = self.world.assigners.kill_leader(&self.control).await?;
        if self.world.assigners.len() > 1 {
            self.control.touch_until_committed(TARGET, PATIENCE).await?;
            self.notes.leader_failover_ms = Some((now_ns() - at) as f64 / 1e6);
        }
        self.world.assigners.start(index)?;
        // What the new leader has not expired two D after its election, it never will for this.
        let quiet = Instant::now() + self.args.ttl * 2 + Duration::from_secs(1);
        while Instant::now() < quiet {
            self.tick().await?;
        }
        let after = self.control.sessions(TARGET).await?;
        self.notes.sessions_lost = Some(
            before
                .iter()
                .filter(|session| !after.contains(session))
                .count(),
        );
        Ok(at)
    }
}

/// Two slices of different owners, each to go to the other's owner; another pair every turn.
fn swap(slices: &[SliceRow], turn: usize) -> Vec<(leasehold_proto::Slice, SessionId)> {
    let still: Vec<(&SliceRow, SessionId)> = slices
        .iter()
        .filter(|row| !row.moving)
        .filter_map(|row| Some((row, row.owner.as_ref()?.0)))
        .collect();
    let mut pairs = Vec::new();
    let mut used = std::collections::BTreeSet::new();
    for step in 0..still.len() {
        let at = (turn * 7 + step * 13) % still.len();
        let (row, owner) = still[at];
        let other = still.iter().enumerate().find(|(i, (_, o))| {
            *o != owner && *i != at && !used.contains(i) && (i + turn).is_multiple_of(3)
        });
        if let Some((i, (other, other_owner))) = other.filter(|_| !used.contains(&at)) {
            used.extend([at, i]);
            pairs.extend([(row.slice, *other_owner), (other.slice, owner)]);
        }
        if pairs.len() >= 4 {
            break;
        }
    }
    pairs
}

/// Everything that was seen, beside what is claimed. Returns the overlaps, to be told.
fn figures(
    report: &mut Report,
    args: &OwnershipArgs,
    notes: &Notes,
    requests: &[Request],
    histories: &[History],
) -> Vec<Violation> {
    // In eventual mode two pods may briefly disagree: reported, not claimed.
    let zero_if_strong = match args.mode {
        Consistency::Strong => Goal::AtMost(0.0),
        Consistency::Eventual => Goal::None,
    };
    let zero = Goal::AtMost(0.0);
    let counts = analysis::count(requests, &notes.planned);
    let violations = analysis::violations(histories);
    let number = |count: usize| count as f64;
    report.figure(
        "ownership_overlaps",
        number(violations.len()),
        "1",
        zero_if_strong,
    );
    report.figure(
        "requests_total",
        number(counts.total),
        "1",
        Goal::AtLeast(1.0),
    );
    report.figure(
        "failed_requests_planned",
        number(counts.failed_planned),
        "1",
        zero,
    );
    report.figure(
        "failed_requests_total",
        number(counts.failed_total),
        "1",
        Goal::None,
    );
    report.figure(
        "values_lost_planned",
        number(counts.lost_planned),
        "1",
        zero_if_strong,
    );
    report.figure(
        "values_lost_total",
        number(counts.lost_total),
        "1",
        Goal::None,
    );
    report.figure("stale_answers", number(counts.stale), "1", zero_if_strong);
    move_figures(report, notes, histories);
    failure_figures(report, args, notes, requests);
    violations
}

fn move_figures(report: &mut Report, notes: &Notes, histories: &[History]) {
    let moves = analysis::planned_moves(histories, &notes.planned);
    report.figure("planned_moves_total", moves as f64, "1", Goal::AtLeast(1.0));
    let gaps = analysis::planned_gaps_ms(histories, &notes.planned);
    let (p50, p99) = analysis::p50_p99(&gaps);
    let reason = "no slice was frozen: eventual mode moves at once";
    report.maybe("planned_gap_ms_p50", p50, "ms", Goal::None, reason);
    report.maybe("planned_gap_ms_p99", p99, "ms", Goal::AtMost(10.0), reason);
}

fn failure_figures(report: &mut Report, args: &OwnershipArgs, notes: &Notes, requests: &[Request]) {
    let ttl_ms = args.ttl.as_secs_f64() * 1e3;
    let kills = notes.pod_kills.iter();
    let served: Vec<Option<f64>> = kills
        .flat_map(|(at, slices)| requests::first_served_ms(requests, slices, *at))
        .collect();
    let failover: Vec<f64> = served.iter().flatten().copied().collect();
    let (p50, p99) = analysis::p50_p99(&failover);
    let reason = "no pod that owned a slice was killed";
    report.maybe(
        "pod_kill_failover_ms_p50",
        p50,
        "ms",
        Goal::AtMost(ttl_ms),
        reason,
    );
    report.maybe(
        "pod_kill_failover_ms_p99",
        p99,
        "ms",
        Goal::AtMost(ttl_ms + 300.0),
        reason,
    );
    let never = served.iter().filter(|served| served.is_none()).count();
    report.figure(
        "slices_never_served_again",
        never as f64,
        "1",
        Goal::AtMost(0.0),
    );
    let lost = notes.sessions_lost.map(|lost| lost as f64);
    let reason = "the leader was not killed";
    report.maybe(
        "sessions_lost_leader_kill",
        lost,
        "1",
        Goal::AtMost(0.0),
        reason,
    );
    let reason = "with one Assigner there is nobody to take over";
    let took = notes.leader_failover_ms;
    report.maybe(
        "leader_failover_ms",
        took,
        "ms",
        Goal::AtMost(1_500.0),
        reason,
    );
}
