//! What all pages share: style, script, and a policy that lets nothing else in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leasehold_checkers::Verdict;
use sha2::{Digest, Sha256};

use crate::chart;
use crate::text::escape;

const STYLE: &str = concat!(include_str!("plot.css"), include_str!("page.css"));
const SCRIPT: &str = include_str!("page.js");

/// The content security policy of pages and plots: nothing from elsewhere, and of script and style
/// only the very texts that are built in. What a run's files say cannot run, even if it got through
/// unescaped.
pub(crate) fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}' 'sha256-{}'; img-src 'self'; form-action 'self'; base-uri 'none'",
        hash(SCRIPT),
        hash(STYLE),
        hash(chart::CSS)
    )
}

/// A whole page. `title` is escaped here, `body` is HTML.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title><style>{STYLE}</style></head><body>\
         <svg width=\"0\" height=\"0\" aria-hidden=\"true\">{}</svg>\n{body}\n\
         <script>{SCRIPT}</script></body></html>\n",
        policy(),
        escape(title),
        chart::PATTERNS
    )
}

/// The place where the script writes the time under the pointer.
pub(crate) const READOUT: &str = "<div id=\"at\" role=\"status\"></div>";

/// A verdict's class.
pub(crate) fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Unknown => "unknown",
        Verdict::Invalid => "invalid",
    }
}

/// A verdict as a sign and a word.
pub(crate) fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "✔ valid",
        Verdict::Unknown => "? unknown",
        Verdict::Invalid => "✘ invalid",
    }
}

/// A verdict as HTML.
pub(crate) fn verdict(verdict: Verdict) -> String {
    format!(
        "<span class=\"v {}\">{}</span>",
        verdict_class(verdict),
        verdict_words(verdict)
    )
}

/// One component of a relative address.
pub(crate) fn component(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'+' => {
                out.push(char::from(byte));
            }
            _ => crate::text::put!(out, "%{byte:02X}"),
        }
    }
    out
}
