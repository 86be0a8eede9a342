//! One network namespace, held by a file descriptor and without a name: when the process and all
//! that it started have gone, the kernel removes it and every interface in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes a new, empty one. Needs `CAP_SYS_ADMIN`.
    pub(crate) fn create() -> Result<Self> {
        let made = std::thread::spawn(|| -> io::Result<File> {
            // SAFETY: unshare touches only this thread, which ends here.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net")
        });
        let file = made
            .join()
            .map_err(|_| anyhow!("the thread that makes a network namespace panicked"))?
            .context("make a network namespace")?;
        Ok(Self { file })
    }

    /// Where other programs of this user can open it while this process lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Moves the calling thread into it for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        enter(self.fd())
    }

    /// Runs a function inside, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter().context("enter a network namespace")?;
                work()
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("work inside a network namespace panicked")))
        })
    }
}

/// Moves the calling thread into the namespace of this descriptor. Safe between fork and exec.
pub(crate) fn enter(fd: RawFd) -> io::Result<()> {
    // SAFETY: setns changes only the calling thread; a bad descriptor is an error.
    match unsafe { libc::setns(fd, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Feeds lines to `ip -batch` in the namespace of the calling thread.
pub(crate) fn ip_batch(lines: &[String]) -> Result<()> {
    use std::io::Write;
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .context("start `ip`; install iproute2")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all((lines.join("\n") + "\n").as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`ip -batch` failed: {}", said.trim());
    }
    Ok(())
}
