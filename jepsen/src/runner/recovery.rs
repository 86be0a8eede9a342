//! The end of a run: everything heals, and then the system must work again within a bounded time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_checkers::{Finding, Outcome};

use super::interrupt;
use super::load::{Load, seat::SeatReport};
use super::notes::Notes;
use super::place::Place;
use crate::system::{Completion, Host, System};

/// The name under which recovery is judged.
pub const CHECKER: &str = "recovery";
/// How long one question whether the system is ready may take.
const ONE_QUESTION: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until the system says that it is ready. `Err` holds what it said last.
///
/// # Errors
///
/// The harness cannot ask, or was interrupted.
pub fn wait_ready(
    place: &Place,
    system: &Arc<dyn System>,
    patience: Duration,
) -> anyhow::Result<Result<Duration, String>> {
    let begun = Instant::now();
    place.in_control(async || {
        loop {
            let why = match ask(system.as_ref(), &place.hosts).await {
                Ok(()) => return Ok(Ok(begun.elapsed())),
                Err(why) => why,
            };
            anyhow::ensure!(!interrupt::came(), "interrupted");
            if begun.elapsed() >= patience {
                return Ok(Err(why));
            }
            if let Some(host) = place.ended() {
                return Ok(Err(format!("the process of {host} has ended; {why}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

async fn ask(system: &dyn System, hosts: &[Host]) -> Result<(), String> {
    match tokio::time::timeout(ONE_QUESTION, system.ready(hosts)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", ONE_QUESTION.as_secs())),
    }
}

/// Carries out the last operations of every workload, again until each succeeds or patience runs
/// out. The outcome is invalid if they do not: a system that does not come back is of no use.
///
/// # Errors
///
/// The history cannot be written, or the run was interrupted.
pub fn last_operations(
    load: &Arc<Load>,
    seats: &[SeatReport],
    patience: Duration,
    notes: &Notes,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::valid(CHECKER);
    for (index, part) in load.parts.iter().enumerate() {
        let worker = part.share.first;
        // The number after the last one that the worker used, so that none is used again.
        let process = seats
            .iter()
            .find(|seat| seat.worker == worker)
            .map_or(worker, |seat| seat.process);
        let last = Last {
            part: index,
            worker,
            process,
            until: Instant::now() + patience,
        };
        let begun = Instant::now();
        let load = Arc::clone(load);
        let thread = std::thread::Builder::new()
            .name("last operations".into())
            .spawn(move || last.run(&load))?;
        let failures = match thread.join() {
            Ok(result) => result?,
            Err(_) => anyhow::bail!("the thread of the last operations panicked"),
        };
        let name = &part.share.workload;
        match failures {
            Failures {
                last: None, tried, ..
            } => {
                let took = begun.elapsed().as_secs_f64();
                notes.say(&format!("{name}: last operations succeeded ({took:.1} s)"));
                outcome.count(&format!("{name} attempts"), tried);
            }
            Failures {
                last: Some(why),
                tried,
                hung,
            } => {
                let what = format!(
                    "{name}: after everything was healed, an operation had not succeeded within \
                     {} s and {tried} attempts: {why}",
                    patience.as_secs()
                );
                notes.say(&what);
                // A client that hangs says nothing about the system.
                match hung {
                    0 => outcome.invalid(Finding::new(what)),
                    _ => outcome.unknown(Finding::new(what)),
                }
            }
        }
    }
    Ok(outcome)
}

/// The last operations of one workload.
struct Last {
    part: usize,
    worker: u64,
    process: u64,
    until: Instant,
}

/// How they went: how many rounds, why the last of them failed if it did, and how many operations
/// had to be cut off.
struct Failures {
    last: Option<String>,
    tried: u64,
    hung: u64,
}

impl Last {
    fn run(self, load: &Load) -> anyhow::Result<Failures> {
        let part = &load.parts[self.part];
        load.seated(self.worker, self.process, async |mut seat| {
            let mut tried = 0;
            loop {
                tried += 1;
                let mut last = None;
                let operations = part.workload.lock().last();
                for invocation in operations {
                    if seat.connect(&part.share.workload).await.is_none() {
                        let refusals = seat.report().refusals;
                        last = Some(format!("no client: {}", refusals.join("; ")));
                        break;
                    }
                    let completion = seat.perform(&invocation).await?;
                    let number = 0;
                    part.workload.lock().ended(number, &invocation, &completion);
                    let key = invocation.key.as_deref().unwrap_or("-");
                    last = match completion {
                        Completion::Ok { .. } => continue,
                        Completion::Fail(why) => {
                            Some(format!("{} {key} failed: {why}", invocation.f))
                        }
                        Completion::Unknown(why) => {
                            Some(format!("{} {key} is unknown: {why}", invocation.f))
                        }
                    };
                    break;
                }
                anyhow::ensure!(!interrupt::came(), "interrupted");
                if last.is_none() || Instant::now() >= self.until {
                    let hung = seat.report().hung;
                    return Ok(Failures { last, tried, hung });
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }
}
