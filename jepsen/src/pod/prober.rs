//! Asks the Slicelet all the time whether it would serve, and writes down when the answer changes.
//!
//! Every round it verifies the guards that it took the round before, gives them back and takes
//! new ones, one for each slice. So it sees both what a new request sees and what a request under
//! way sees. It holds no guard for longer than a round: a slice that is being handed over waits
//! for it as for any request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use leasehold_client::{Guard, Slicelet};

use super::clock::true_now_ns;
use super::hold_log::{HoldLog, Tenure};

/// Between two rounds.
const PERIOD: Duration = Duration::from_millis(1);
/// Rounds between two looks at the clocks.
const CLOCK_ROUNDS: u64 = 100;

/// The running thread.
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Prober {
    pub(super) fn start(slicelet: Arc<Slicelet>, log: Arc<HoldLog>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let body = move || {
            run_first();
            let mut probe = Probe {
                slicelet,
                log,
                held: Vec::new(),
            };
            let mut rounds = 0u64;
            while !told.load(Ordering::Relaxed) {
                if rounds.is_multiple_of(CLOCK_ROUNDS) {
                    probe.log.clocks();
                }
                rounds += 1;
                probe.round();
                std::thread::sleep(PERIOD);
            }
        };
        let thread = std::thread::Builder::new()
            .name("prober".into())
            .spawn(body)?;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // It can only have panicked, and then said so.
        let _ = self.thread.join();
    }
}

/// Lets this thread run before others where that is allowed: on a busy machine a round would
/// otherwise come late by many periods.
fn run_first() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one sched_param from the pointer given; 0 means this thread.
    unsafe {
        let _ = libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority);
    }
}

struct Probe {
    slicelet: Arc<Slicelet>,
    log: Arc<HoldLog>,
    held: Vec<Guard>,
}

fn tenure(guard: &Guard) -> Tenure {
    (guard.slice(), guard.fencing_token().as_u64())
}

impl Probe {
    fn round(&mut self) {
        let began = true_now_ns();
        let mut passed = BTreeMap::new();
        for guard in self.held.drain(..) {
            let asked = true_now_ns();
            if guard.verify().is_ok() {
                passed.insert(tenure(&guard), asked);
            }
        }
        for (slice, _, _) in self.slicelet.owned() {
            let asked = true_now_ns();
            if let Ok(guard) = self.slicelet.guard_slice_key(slice.first()) {
                passed.insert(tenure(&guard), asked);
                self.held.push(guard);
            }
        }
        let handoffs = self.slicelet.stats().handoffs_in;
        self.log.round(began, passed, handoffs);
    }
}
