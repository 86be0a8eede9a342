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

/// Looks until it has come about; an error after `patience`. Progress goes to standard error:
/// one line that is rewritten on a terminal, a line every few seconds elsewhere.
pub async fn until<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<Look<T>, Failure>,
) -> Result<T, Failure> {
    let (deadline, on_terminal) = (Instant::now() + patience, std::io::stderr().is_terminal());
    let mut said = Instant::now();
    let mut shown = false;
    let finish = |shown: bool| {
        if shown {
            // A sign of life that cannot be written is none that anybody misses.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    };
    loop {
        let (progress, slow) = match look().await {
            Ok(Look::Done(found)) => {
                finish(shown);
                return Ok(found);
            }
            Ok(Look::NotYet(progress)) => (progress, String::new()),
            Ok(Look::Slow(progress, slow)) => (progress, format!("; {slow}")),
            Err(failure) => {
                finish(shown);
                return Err(failure);
            }
        };
        if Instant::now() >= deadline {
            finish(shown);
            let patience = crate::config::show_duration(patience);
            return Err(Failure::unavailable(format!(
                "not done after {patience}: {progress}{slow}; it goes on meanwhile"
            )));
        }
        if on_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{progress}");
            shown = true;
        } else if said.elapsed() >= SAY_EVERY {
            let _ = writeln!(std::io::stderr(), "{progress}");
            said = Instant::now();
        }
        sleep(LOOK_EVERY).await;
    }
}
