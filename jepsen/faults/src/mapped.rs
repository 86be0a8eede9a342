//! A file of zeros, mapped and shared with the processes that map it too.

use std::fs::OpenOptions;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Types for which any bytes are a value and which may be shared between processes.
///
/// # Safety
///
/// The type consists of atomics (or arrays and `repr(C)` structures of them) only.
pub(crate) unsafe trait Shareable {}

/// A `T` in a file. The file is removed when it is dropped.
pub(crate) struct Mapped<T: Shareable> {
    path: PathBuf,
    at: *const T,
    of: PhantomData<T>,
}

// SAFETY: `T` consists of atomics, which any thread may use.
unsafe impl<T: Shareable> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable> Sync for Mapped<T> {}

impl<T: Shareable> Mapped<T> {
    /// Makes the file, full of zeros; an older one is replaced.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let at = map(path, size_of::<T>())
            .with_context(|| format!("map a shared file at {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            at: at.cast(),
            of: PhantomData,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn map(path: &Path, bytes: usize) -> io::Result<*mut libc::c_void> {
    let _ = std::fs::remove_file(path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_len(bytes as u64)?;
    // SAFETY: a new mapping of a file that is long enough.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(at)
}

impl<T: Shareable> Deref for Mapped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped for as long as `self` lives, page-aligned, and any bytes are a `T`.
        unsafe { &*self.at }
    }
}

impl<T: Shareable> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `create` with this length, and not used after this.
        unsafe { libc::munmap(self.at.cast_mut().cast(), size_of::<T>()) };
        let _ = std::fs::remove_file(&self.path);
    }
}
