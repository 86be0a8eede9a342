//! Planted protocol bugs, one for each rule whose absence breaks the promises; only compiled under
//! `--cfg leasehold_mutants`. A harness that catches none of them proves nothing.
//!
//! The machines ask `mutant!("name")` at the place of the rule. A test switches one on for its own
//! thread with [`plant`]; a process for itself with the environment variable `LEASEHOLD_MUTANT`.

use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Switches on one mutant, or none, in this thread.
pub fn plant(name: Option<&'static str>) {
    PLANTED.set(name);
}

/// Whether the mutant of this name is switched on.
pub fn active(name: &str) -> bool {
    static OF_PROCESS: OnceLock<Option<String>> = OnceLock::new();
    let of_process = || OF_PROCESS.get_or_init(|| std::env::var("LEASEHOLD_MUTANT").ok());
    match PLANTED.get() {
        Some(planted) => planted == name,
        None => of_process().as_deref() == Some(name),
    }
}

/// Notes for the table of all rings that `ring` noticed the mutant, or did not: one JSON line, to
/// the file that the environment variable `LEASEHOLD_MUTANT_RESULTS` names, if it names one.
///
/// # Panics
/// If that file cannot be written: a result that is lost must not pass for none.
pub fn record(mutant: &str, ring: &str, caught: bool, how: &str, seconds: f64) {
    use std::io::Write;
    let Some(path) = std::env::var_os("LEASEHOLD_MUTANT_RESULTS") else {
        return;
    };
    let how: String = how
        .chars()
        .take(160)
        .map(|c| {
            if c.is_control() || matches!(c, '"' | '\\') {
                ' '
            } else {
                c
            }
        })
        .collect();
    let line = format!(
        "{{\"mutant\":\"{mutant}\",\"ring\":\"{ring}\",\"caught\":{caught},\"how\":\"{how}\",\"seconds\":{seconds:.3}}}\n"
    );
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        panic!("cannot write {}: {error}", path.display());
    }
}
