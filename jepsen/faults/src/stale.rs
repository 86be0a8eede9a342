//! Names that tell whose a thing is, and the removal of what dead runs left behind.

use std::fs;
use std::path::Path;

const PREFIX: &str = "leasehold-run-";

/// The name under which this process keeps what could outlive it: its process id and the moment
/// at which it was started, so that a reused process id is not mistaken for it.
pub fn run_name() -> String {
    let pid = std::process::id();
    format!("{PREFIX}{pid}-{}", started(pid).unwrap_or(0))
}

/// When a process was started, in clock ticks since boot; `None` if there is no such process.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may hold anything; fields count from behind it.
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// A directory of this run for small files, removed when dropped.
pub(crate) struct RunDir(std::path::PathBuf);

impl RunDir {
    /// Makes `TMP/RUN/NAME.N`, with a number that makes it new.
    pub(crate) fn create(name: &str) -> anyhow::Result<Self> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir()
            .join(run_name())
            .join(format!("{name}.{number}"));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        if let Some(run) = self.0.parent() {
            // Only the last one finds it empty.
            let _ = fs::remove_dir(run);
        }
    }
}

/// Whether the run of this name has ended. A name of another form is nobody's run.
fn is_dead(name: &str) -> bool {
    let Some((pid, ticks)) = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    match (pid.parse::<u32>(), ticks.parse::<u64>()) {
        (Ok(pid), Ok(ticks)) => started(pid) != Some(ticks),
        _ => false,
    }
}

/// Removes mounts, control groups and directories of runs that are no more. Call once at start.
/// Returns what it removed, for the log. What cannot be removed is left for the next time.
pub fn remove_stale() -> Vec<String> {
    let mut removed = unmount_stale();
    for root in crate::process::cgroup_roots() {
        remove_dirs(&root, &mut removed, |path| {
            for inner in subdirectories(path) {
                let _ = fs::remove_dir(inner);
            }
            fs::remove_dir(path)
        });
    }
    remove_dirs(&std::env::temp_dir(), &mut removed, |path| {
        fs::remove_dir_all(path)
    });
    removed
}

/// Unmounts what stands below a directory named after a dead run.
fn unmount_stale() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut removed = Vec::new();
    for point in mounts.lines().filter_map(|l| l.split_whitespace().nth(1)) {
        if Path::new(point)
            .components()
            .any(|part| part.as_os_str().to_str().is_some_and(is_dead))
            && crate::disk::unmount(Path::new(point)).is_ok()
        {
            removed.push(point.to_owned());
        }
    }
    removed
}

fn subdirectories(path: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_dirs(
    root: &Path,
    removed: &mut Vec<String>,
    remove: impl Fn(&Path) -> std::io::Result<()>,
) {
    for path in subdirectories(root) {
        let dead = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_dead);
        if dead && remove(&path).is_ok() {
            removed.push(path.display().to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_run_is_alive_and_an_impossible_one_is_dead() {
        assert!(!is_dead(&run_name()));
        assert!(is_dead("leasehold-run-4194399-7"));
        assert!(is_dead(&format!("leasehold-run-{}-1", std::process::id())));
    }

    #[test]
    fn a_name_of_another_form_is_left_alone() {
        for name in ["leasehold-run-", "leasehold-run-x-y", "leasehold-dev-1-1"] {
            assert!(!is_dead(name), "{name}");
        }
    }
}
