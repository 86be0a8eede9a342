//! Pages and plots of a test run, and a small server that lists runs.
//!
//! [`write()`] makes the whole report of a run from the files in its directory and from nothing
//! else: the same files give the same bytes, so that an old run can be reported anew.
//! [`serve()`] shows a directory of such runs to a browser.

mod axis;
mod bands;
mod chart;
mod clash;
mod independent;
mod index;
mod moves;
mod page;
mod plot;
mod run;
pub mod serve;
mod summary;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod text;
mod timeline;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use bands::Bands;
use run::Run;

pub use serve::serve;

/// A plot: the name of its file and its drawing without style.
pub(crate) type Plot = (&'static str, String);

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
    let run = Run::read(dir);
    let clashes = clash::find(&run.holds);
    let bands = Bands::new(&run.faults, run.end_ns);
    let plots = plots(&run, &clashes, &bands);
    for (name, svg) in &plots {
        put_file(&dir.join(name), &chart::standalone(svg))?;
    }
    let summary = serde_json::to_string_pretty(&summary::Summary::of(&run))?;
    put_file(&dir.join(summary::FILE), &(summary + "\n"))?;
    put_file(&dir.join("timeline.html"), &timeline::page(&run, &bands))?;
    put_file(
        &dir.join("ownership.html"),
        &moves::draw(&run, &clashes, &bands),
    )?;
    let keys = independent::write(&run, &bands, dir)?;
    // Last, because it links to all that is there.
    let files = index::files(dir);
    let report = index::Report {
        run: &run,
        clashes: &clashes,
        bands: &bands,
        plots: &plots,
    };
    put_file(&dir.join("index.html"), &report.page(&keys, &files))
}

/// All plots of the run, in the order in which the page shows them.
fn plots(run: &Run, clashes: &[clash::Clash], bands: &Bands<'_>) -> Vec<Plot> {
    let axis = run.axis();
    let title = "Ownership: which pod could serve which slice, in true time";
    vec![
        ("faults.svg", plot::faults::draw(run, axis, bands)),
        (
            "ownership.svg",
            plot::ownership::draw(title, run, clashes, axis, bands),
        ),
        (
            "availability.svg",
            plot::availability::draw(run, axis, bands),
        ),
        ("rate.svg", plot::rate::draw(run, axis, bands)),
        ("latency-raw.svg", plot::latency::raw(run, axis, bands)),
        (
            "latency-quantiles.svg",
            plot::latency::quantiles(run, axis, bands),
        ),
        ("clock-skew.svg", plot::clock::draw(run, axis, bands)),
    ]
}

/// Writes a file whole or not at all: a reader never sees half a page.
pub(crate) fn put_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        fs::File::create(&new)?.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
