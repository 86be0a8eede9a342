//! Logs: to standard error, for people on a terminal, one JSON object per line otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Begins to log; once per process. `level` is a level or directives, checked before.
pub fn start(level: &str, format: LogFormat) {
    // The Raft library tells of every step at "info", and as an error what is only a refusal.
    let quieter = match level {
        "info" | "warn" => format!("{level},openraft=warn,openraft::raft::api::management=off"),
        level => level.to_owned(),
    };
    let filter = EnvFilter::try_new(quieter).unwrap_or_else(|_| EnvFilter::new("info"));
    let on_terminal = std::io::stderr().is_terminal();
    let colour = on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let json = match format {
        LogFormat::Auto => !on_terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start in one process finds the first one's subscriber and leaves it.
    let _ = match json {
        true => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        false => builder.with_ansi(colour).try_init(),
    };
}
