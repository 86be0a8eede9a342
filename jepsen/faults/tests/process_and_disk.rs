//! Processes stop, starve, die and come back; disks fill up, hang, go read-only and lose what was
//! not synced. What this machine or user is not allowed says so and proves nothing.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_faults::{Disk, DiskKind, Effect, Kind, Network, ProcSpec, Processes};
use tempfile::TempDir;

struct Stage {
    processes: Processes,
    dir: TempDir,
}

fn stage() -> Option<Stage> {
    let network = match Network::create(Kind::Namespaces, &["a"], 1) {
        Ok(network) => Arc::new(network),
        Err(error) => {
            eprintln!("not tested: {error:#}");
            assert!(std::env::var_os("LEASEHOLD_MUST_TEST_NAMESPACES").is_none());
            return None;
        }
    };
    Some(Stage {
        processes: Processes::new(network).unwrap(),
        dir: TempDir::new().unwrap(),
    })
}

impl Stage {
    fn start(&self, script: &str) {
        self.processes
            .start(ProcSpec {
                host: "a".to_owned(),
                program: "/bin/sh".into(),
                args: vec!["-c".to_owned(), script.to_owned()],
                env: vec![("GREETING".to_owned(), "hello".to_owned())],
                log_dir: self.dir.path().join("a"),
                shim: None,
            })
            .unwrap();
    }
}

/// Waits until something is so, for long.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_process_is_gone_and_starts_again_as_before() {
    let Some(stage) = stage() else { return };
    stage.start("echo $GREETING; exec sleep 600");
    let log = stage.dir.path().join("a/stdout");
    until("the greeting", || {
        fs::read_to_string(&log).unwrap() == "hello\n"
    });
    assert!(stage.processes.kill("a").unwrap());
    assert!(!stage.processes.is_alive("a"));
    assert!(
        !stage.processes.kill("a").unwrap(),
        "nothing is left to kill"
    );
    stage.processes.restart("a").unwrap();
    until("the second greeting", || {
        fs::read_to_string(&log).unwrap() == "hello\nhello\n"
    });
    assert!(stage.processes.restart("a").is_err(), "it runs already");
    assert!(stage.processes.take_unexpected().is_empty());
}

#[test]
fn a_process_that_ends_by_itself_is_news_unless_it_may() {
    let Some(stage) = stage() else { return };
    stage.start("exit 3");
    until("its end", || !stage.processes.is_alive("a"));
    let unexpected = stage.processes.take_unexpected();
    assert_eq!(unexpected.len(), 1);
    assert_eq!(unexpected[0].1.code(), Some(3));
    stage.processes.allow_end("a", true);
    stage.processes.restart("a").unwrap();
    until("its end", || !stage.processes.is_alive("a"));
    assert!(stage.processes.take_unexpected().is_empty());
}

#[test]
fn a_process_that_will_not_end_is_killed() {
    let Some(stage) = stage() else { return };
    stage.start("trap '' TERM; echo ready; while true; do sleep 1; done");
    let log = stage.dir.path().join("a/stdout");
    until("the trap", || {
        fs::read_to_string(&log).unwrap() == "ready\n"
    });
    assert!(
        stage
            .processes
            .terminate("a", Duration::from_millis(100))
            .unwrap()
    );
    assert!(!stage.processes.is_alive("a"));
}

#[test]
fn a_stopped_process_does_nothing_until_it_goes_on() {
    let Some(stage) = stage() else { return };
    // Without children: a shell that waits for one to start is not stopped but blocked.
    stage.start("while true; do echo tick; done");
    let log = stage.dir.path().join("a/stdout");
    let ticks = || fs::read(&log).unwrap().len();
    until("a tick", || ticks() > 0);
    assert_eq!(stage.processes.pause("a").unwrap(), Effect::Done);
    assert!(stage.processes.is_paused("a") && stage.processes.is_alive("a"));
    let before = ticks();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ticks(), before);
    stage.processes.resume("a").unwrap();
    until("another tick", || ticks() > before);
    assert!(!stage.processes.is_paused("a"));
}

#[test]
fn a_starved_process_is_held_back_also_after_a_restart() {
    let Some(stage) = stage() else { return };
    stage.start("while true; do :; done");
    match stage.processes.starve("a", 0.1).unwrap() {
        Effect::Done => {}
        Effect::Skipped(why) => return eprintln!("not tested: {why}"),
    }
    until("being held back", || stage.processes.throttled("a") > 3);
    stage.processes.kill("a").unwrap();
    stage.processes.restart("a").unwrap();
    let before = stage.processes.throttled("a");
    until("being held back again", || {
        stage.processes.throttled("a") > before + 3
    });
    stage.processes.feed("a").unwrap();
}

#[test]
fn nothing_outlives_the_processes() {
    let Some(stage) = stage() else { return };
    stage.start("sleep 600 & exec sleep 600");
    let pid = stage.processes.pid("a").unwrap();
    drop(stage);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

fn disk() -> Option<Disk> {
    let disk = Disk::create("a", 64 << 20).unwrap();
    if disk.kind() == DiskKind::Directory {
        eprintln!("not tested: {}", disk.why_not().unwrap_or_default());
        assert!(std::env::var_os("LEASEHOLD_MUST_TEST_NAMESPACES").is_none());
        return None;
    }
    Some(disk)
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[test]
fn a_full_disk_takes_nothing_until_it_is_drained() {
    let Some(disk) = disk() else { return };
    assert_eq!(disk.fill().unwrap(), Effect::Done);
    assert!(disk.is_full());
    let error = write_synced(&disk.dir().join("x"), &[7; 1 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.restore().unwrap();
    assert!(!disk.is_full());
    write_synced(&disk.dir().join("x"), &[7; 1 << 20]).unwrap();
}

#[test]
fn power_loss_keeps_what_was_synced_and_loses_the_rest() {
    let Some(disk) = disk() else { return };
    let (kept, lost) = (disk.dir().join("kept"), disk.dir().join("lost"));
    write_synced(&kept, b"synced").unwrap();
    File::open(disk.dir()).unwrap().sync_all().unwrap();
    fs::write(&lost, b"not synced").unwrap();
    assert_eq!(disk.cut_power().unwrap(), Effect::Done);
    assert!(!disk.is_writable());
    assert!(write_synced(&kept, b"late").is_err());
    disk.remount().unwrap();
    assert_eq!(fs::read(&kept).unwrap(), b"synced");
    assert!(!lost.exists());
}

#[test]
fn a_disk_that_fell_back_to_read_only_writes_again_after_it_was_mounted_anew() {
    let Some(disk) = disk() else { return };
    let open = File::create(disk.dir().join("open")).unwrap();
    assert_eq!(disk.fail_to_read_only().unwrap(), Effect::Done);
    assert!(
        (&open)
            .write_all(b"x")
            .and_then(|()| open.sync_all())
            .is_err()
    );
    drop(open);
    disk.restore().unwrap();
    assert!(disk.is_writable());
}

#[test]
fn a_hung_disk_lets_writers_wait() {
    let Some(disk) = disk() else { return };
    assert_eq!(disk.freeze().unwrap(), Effect::Done);
    let path = disk.dir().join("late");
    let written = path.clone();
    let writer = std::thread::spawn(move || write_synced(&written, b"late").unwrap());
    std::thread::sleep(Duration::from_millis(100));
    assert!(!writer.is_finished());
    disk.thaw().unwrap();
    writer.join().unwrap();
    assert_eq!(fs::read(path).unwrap(), b"late");
}

#[test]
fn a_slow_disk_takes_its_time() {
    let Some(disk) = disk() else { return };
    match disk.slow_down(1 << 20).unwrap() {
        Effect::Done => {}
        Effect::Skipped(why) => return eprintln!("not tested: {why}"),
    }
    assert!(disk.is_slow());
    let begun = Instant::now();
    write_synced(&disk.dir().join("x"), &[7; 2 << 20]).unwrap();
    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    disk.restore().unwrap();
    assert!(!disk.is_slow());
}

#[test]
fn the_newest_log_is_torn_shortened_or_turned() {
    let disk = Disk::create("a", 64 << 20).unwrap();
    assert_eq!(disk.tear_log(1).unwrap(), None, "there is none yet");
    fs::create_dir(disk.dir().join("db")).unwrap();
    let log = disk.dir().join("db/000004.log");
    fs::write(&log, [0xAA; 100]).unwrap();
    assert_eq!(disk.tear_log(1).unwrap(), Some(log.clone()));
    let torn = fs::read(&log).unwrap();
    assert!(torn.len() > 100 && torn[..100] == [0xAA; 100]);
    disk.truncate_log(40).unwrap();
    assert_eq!(fs::read(&log).unwrap().len(), torn.len() - 40);
    let before = fs::read(&log).unwrap();
    disk.flip_bit(12_345).unwrap();
    let after = fs::read(&log).unwrap();
    let turned: u32 = before
        .iter()
        .zip(&after)
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    assert_eq!(turned, 1);
}
