//! What the harness says while it runs: to the terminal and into `harness.log`.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use parking_lot::Mutex;

use leasehold_faults::TrueTime;

/// Where messages go.
pub struct Notes {
    origin: TrueTime,
    quiet: bool,
    file: Mutex<File>,
}

impl Notes {
    /// Into this file, and to standard error unless `quiet`.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn create(path: &Path, origin: TrueTime, quiet: bool) -> std::io::Result<Self> {
        Ok(Self {
            origin,
            quiet,
            file: Mutex::new(File::create(path)?),
        })
    }

    /// Says something.
    pub fn say(&self, what: &str) {
        let line = format!("{:8.3} {what}\n", self.origin.elapsed_ns() as f64 / 1e9);
        // A message that cannot be written is no reason to end a run whose history is whole.
        let _ = self.file.lock().write_all(line.as_bytes());
        if !self.quiet {
            // Not by `eprint!`, which panics when nobody reads any more: the run goes on.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }
}
