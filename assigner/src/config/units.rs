//! Durations as people write them: `3s`, `500ms`, `1m 30s`.

use std::time::Duration;

/// Reads a duration with its unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| {
        format!(
            "{:?} is not a duration; write it with its unit, such as 3s or 500ms",
            clip(text)
        )
    })
}

/// A duration as [`parse_duration`] reads it.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Enough of a value to recognise it in an error.
pub fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
