//! Namespaces without root: the program runs itself again as the root of a user namespace of its
//! own, as `unshare --user --map-root-user --net --mount` would.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

/// Set in the environment of the second self.
const MARK: &str = "JEPSEN_ROOTLESS";

/// Whether this process is the second self.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Whether this user may make such namespaces here.
pub(crate) fn is_possible() -> Result<()> {
    let mut command = Command::new("true");
    unshare_before_exec(&mut command);
    let status = command
        .status()
        .context("make a user and network namespace")?;
    anyhow::ensure!(status.success(), "`true` failed inside a user namespace");
    Ok(())
}

/// Runs this program again with the same arguments, as root of its own user namespace, and ends
/// with its exit code.
pub(crate) fn run_again() -> Result<std::convert::Infallible> {
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(MARK, "1");
    unshare_before_exec(&mut command);
    // Ctrl-C reaches both; the second self cleans up, and the first waits for it.
    // SAFETY: ignoring a signal has no requirement.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    let status = command.status().context("run again without root")?;
    std::process::exit(status.code().unwrap_or(2));
}

fn unshare_before_exec(command: &mut Command) {
    // SAFETY: geteuid and getegid have no requirement.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // Made here: nothing may be allocated between fork and exec.
    let user_map = format!("0 {user} 1");
    let group_map = format!("0 {group} 1");
    // SAFETY: the closure makes system calls only, on what was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            let spaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS;
            if libc::unshare(spaces) != 0 {
                return Err(io::Error::last_os_error());
            }
            // A kernel older than 3.19 has no such file and needs none.
            let _ = write(c"/proc/self/setgroups", b"deny");
            write(c"/proc/self/uid_map", user_map.as_bytes())?;
            write(c"/proc/self/gid_map", group_map.as_bytes())
        });
    }
}

/// Writes a small file without allocating.
fn write(path: &std::ffi::CStr, text: &[u8]) -> io::Result<()> {
    // SAFETY: the path and the text are valid; the descriptor is closed here.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let written = libc::write(fd, text.as_ptr().cast(), text.len());
        let error = io::Error::last_os_error();
        libc::close(fd);
        if written == text.len() as isize {
            Ok(())
        } else {
            Err(error)
        }
    }
}
