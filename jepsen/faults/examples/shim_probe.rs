//! Tells how time and `fsync` look from inside a process: for the tests of the preloaded library,
//! and for trying it by hand.
//!
//! Each argument is a question; the answer is a line `QUESTION TRUE_NS SHOWN_NS`: how long it took
//! truly, and as this process sees it.

#![allow(clippy::unwrap_used)] // Whatever fails here fails the test that runs it.

use std::io::Write;
use std::sync::{Condvar, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

use leasehold_faults::true_now_ns;

/// What each wait asks for.
const WAIT: Duration = Duration::from_millis(300);

fn main() {
    for question in std::env::args().skip(1) {
        let (true_ns, shown_ns) = answer(&question);
        println!("{question} {true_ns} {shown_ns}");
        std::io::stdout().flush().unwrap();
    }
}

/// Truly and as shown by `Instant`.
fn timed(work: impl FnOnce()) -> (u64, u64) {
    let (true_ns, shown) = (true_now_ns(), Instant::now());
    work();
    let shown_ns = shown.elapsed().as_nanos() as u64;
    (true_now_ns() - true_ns, shown_ns)
}

/// Truly and as shown by another clock, over a while.
fn clock(read: impl Fn() -> u64) -> (u64, u64) {
    let (true_ns, shown_ns) = (true_now_ns(), read());
    while true_now_ns() - true_ns < 100_000_000 {
        std::thread::yield_now();
    }
    let shown_ns = read() - shown_ns;
    (true_now_ns() - true_ns, shown_ns)
}

fn libc_clock(id: libc::clockid_t) -> u64 {
    // SAFETY: zeros are a timespec, which is valid for the call.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(id, &raw mut time);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

fn wall_ns() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn answer(question: &str) -> (u64, u64) {
    if let Some(dir) = question.strip_prefix("fsync:") {
        let mut file = std::fs::File::create(format!("{dir}/probe")).unwrap();
        file.write_all(b"probe").unwrap();
        let mut result = Ok(());
        let (true_ns, _) = timed(|| result = file.sync_all());
        // The error instead of the shown time.
        return (
            true_ns,
            result.err().and_then(|e| e.raw_os_error()).unwrap_or(0) as u64,
        );
    }
    match question {
        "instant" => timed(|| {
            clock(|| 0);
        }),
        "raw" => clock(|| libc_clock(libc::CLOCK_MONOTONIC_RAW)),
        "boottime" => clock(|| libc_clock(libc::CLOCK_BOOTTIME)),
        "wall" => clock(wall_ns),
        // Where the wall clock stands, truly and as shown.
        "wall-now" => (leasehold_faults::true_wall_ns(), wall_ns()),
        "sleep" => timed(|| std::thread::sleep(WAIT)),
        "long-sleep" => timed(|| std::thread::sleep(10 * WAIT)),
        "park" => timed(|| std::thread::park_timeout(WAIT)),
        "condvar" => timed(|| {
            let mutex = Mutex::new(());
            let condvar = Condvar::new();
            let guard = mutex.lock().unwrap();
            drop(condvar.wait_timeout_while(guard, WAIT, |()| true).unwrap());
        }),
        "channel" => timed(|| {
            let (_sender, receiver) = mpsc::channel::<()>();
            receiver.recv_timeout(WAIT).unwrap_err();
        }),
        "pthread-cond" => timed(pthread_cond),
        "poll" => timed(|| {
            // SAFETY: no descriptors, only time.
            unsafe { libc::poll(std::ptr::null_mut(), 0, WAIT.as_millis() as i32) };
        }),
        "tokio-sleep" => {
            let runtime = runtime();
            timed(|| runtime.block_on(async { tokio::time::sleep(WAIT).await }))
        }
        "tokio-timeout" => {
            let runtime = runtime();
            timed(|| {
                runtime.block_on(async {
                    tokio::time::timeout(WAIT, std::future::pending::<()>())
                        .await
                        .unwrap_err();
                });
            })
        }
        // Whether any clock ever goes back in a second and a half; then the shown time is 0.
        "monotonic" => (monotonic(), u64::from(true)),
        other => panic!("unknown question {other}"),
    }
}

/// As RocksDB waits: until a moment of the wall clock, again and again until it has come.
fn pthread_cond() {
    // SAFETY: zeros are an unused condition variable, mutex and time on Linux; all outlive the
    // calls.
    unsafe {
        let mut condvar: libc::pthread_cond_t = std::mem::zeroed();
        let mut mutex: libc::pthread_mutex_t = std::mem::zeroed();
        let until = wall_ns() + WAIT.as_nanos() as u64;
        let time = libc::timespec {
            tv_sec: (until / 1_000_000_000) as i64,
            tv_nsec: (until % 1_000_000_000) as i64,
        };
        libc::pthread_mutex_lock(&raw mut mutex);
        while libc::pthread_cond_timedwait(&raw mut condvar, &raw mut mutex, &raw const time)
            != libc::ETIMEDOUT
        {}
        libc::pthread_mutex_unlock(&raw mut mutex);
    }
}

/// By how much a clock went back at most, in nanoseconds, in 1.5 s on two threads.
fn monotonic() -> u64 {
    let watch = || {
        let begun = true_now_ns();
        let clocks = [
            libc::CLOCK_MONOTONIC,
            libc::CLOCK_MONOTONIC_RAW,
            libc::CLOCK_BOOTTIME,
        ];
        let mut last = clocks.map(libc_clock);
        let mut worst = 0;
        while true_now_ns() - begun < 1_500_000_000 {
            for (last, id) in last.iter_mut().zip(clocks) {
                let now = libc_clock(id);
                worst = worst.max(last.saturating_sub(now));
                *last = now;
            }
        }
        worst
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(watch), scope.spawn(watch)];
        threads
            .map(|t| t.join().unwrap())
            .into_iter()
            .max()
            .unwrap()
    })
}
