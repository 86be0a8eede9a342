//! Waiting for something to come about, with a sign of life.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::Failure;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often to say so where standard error is no terminal.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What one look found.
pub enum Look<T> {
    /// It has come about.
    Done(T),
    /// Not yet; how far it is.
    NotYet(String),
    /// Not yet; how far it is, and what is slow, which is said when the time is over.
    Slow(String, String),
}

/// The line that shows how far it is: rewritten on a terminal, written every few seconds elsewhere.
struct Line {
    on_terminal: bool,
    said: Instant,
    shown: bool,
    /// What it says, and what is slow.
    progress: String,
    slow: String,
}

impl Line {
    fn new() -> Self {
        Self {
            on_terminal: std::io::stderr().is_terminal(),
            said: Instant::now(),
            shown: false,
            progress: "nothing was seen yet".to_owned(),
            slow: String::new(),
        }
    }

    // A sign of life that cannot be written is none that anybody misses.
    fn show(&mut self) {
        if self.on_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", self.progress);
            self.shown = true;
        } else if self.said.elapsed() >= SAY_EVERY {
            let _ = writeln!(std::io::stderr(), "{}", self.progress);
            self.said = Instant::now();
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn failure(&self, ended: &str) -> Failure {
        let Self { progress, slow, .. } = self;
        Failure::unavailable(format!("{ended}: {progress}{slow}; it goes on meanwhile"))
    }
}

/// Looks until it has come about; an error after `patience`, and when the user interrupts. What is
/// waited for goes on in both cases. Progress goes to standard error.
pub async fn until<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<Look<T>, Failure>,
) -> Result<T, Failure> {
    let (deadline, mut line) = (Instant::now() + patience, Line::new());
    let looking = async {
        loop {
            (line.progress, line.slow) = match look().await? {
                Look::Done(found) => return Ok(Some(found)),
                Look::NotYet(progress) => (progress, String::new()),
                Look::Slow(progress, slow) if slow.is_empty() => (progress, slow),
                Look::Slow(progress, slow) => (progress, format!("; {slow}")),
            };
            if Instant::now() >= deadline {
                return Ok(None);
            }
            line.show();
            sleep(LOOK_EVERY).await;
        }
    };
    let looked = tokio::select! {
        looked = looking => Some(looked),
        _ = tokio::signal::ctrl_c() => None,
    };
    line.clear();
    match looked {
        Some(Ok(Some(found))) => Ok(found),
        Some(Ok(None)) => {
            let patience = crate::config::show_duration(patience);
            Err(line.failure(&format!("not done after {patience}")))
        }
        Some(Err(failure)) => Err(failure),
        None => Err(line.failure("interrupted")),
    }
}
