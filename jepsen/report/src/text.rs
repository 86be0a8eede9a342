//! Text that comes from files, made safe for pages and plots; numbers for people.

/// Appends formatted text to a `String`, which cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($out, $($arg)*);
    }};
}
pub(crate) use put;

/// `text` for HTML and XML, in content and in quoted attributes.
///
/// Characters that XML 1.0 forbids, other controls, and those that turn the direction of writing
/// become U+FFFD: a name can neither break a plot nor make a line read as something else.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The first `chars` characters of `text`, with an ellipsis if there were more. Not escaped.
pub(crate) fn clip(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => {
            let mut short: String = text.chars().take(chars.saturating_sub(1)).collect();
            short.push('…');
            short
        }
    }
}

/// Clipped, then escaped.
pub(crate) fn safe(text: &str, chars: usize) -> String {
    escape(&clip(text, chars))
}

/// A point in time: seconds with three decimals.
pub(crate) fn seconds(ns: u64) -> String {
    format!("{:.3} s", ns as f64 / 1e9)
}

/// A length of time in the unit that suits it.
pub(crate) fn span(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.1} µs", n / 1e3),
        n if n < 1e9 => format!("{:.1} ms", n / 1e6),
        n if n < 120e9 => format!("{:.2} s", n / 1e9),
        n => format!("{:.1} min", n / 60e9),
    }
}

/// A count with its thousands apart.
pub(crate) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A tick of an axis without needless zeros.
pub(crate) fn tick(value: f64) -> String {
    let text = format!("{value:.9}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0" } else { text }.to_owned()
}

/// A JSON value as people write it, clipped, not escaped; nothing for `null`. One with the version
/// of its write is `value @epoch.number`.
pub(crate) fn value(value: &serde_json::Value, chars: usize) -> String {
    if let Some(versioned) = versioned(value) {
        return clip(&versioned, chars);
    }
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => clip(text, chars),
        other => clip(&other.to_string(), chars),
    }
}

/// `{"value": v, "version": [epoch, number]}`, if it is that.
fn versioned(both: &serde_json::Value) -> Option<String> {
    let both = both.as_object().filter(|fields| fields.len() == 2)?;
    let version = both
        .get("version")?
        .as_array()
        .filter(|parts| parts.len() == 2)?;
    let (epoch, number) = (version.first()?.as_u64()?, version.last()?.as_u64()?);
    let inner = value(both.get("value")?, 200);
    let apart = if inner.is_empty() { "" } else { " " };
    Some(format!("{inner}{apart}@{}.{number}", token(epoch)))
}

/// A fencing token for people: the incarnation of the target and the number in it, where the token
/// is so large that it must be made of both.
pub(crate) fn token(token: u64) -> String {
    match (token >> 48, token & ((1 << 48) - 1)) {
        (0, number) => number.to_string(),
        (incarnation, number) => format!("{incarnation}#{number}"),
    }
}

/// What a checker counted, not escaped: an object as its parts, lengths of time in their unit.
pub(crate) fn stat(name: &str, counted: &serde_json::Value) -> String {
    match counted {
        serde_json::Value::Object(parts) => {
            let parts: Vec<String> = parts
                .iter()
                .take(20)
                .map(|(name, part)| format!("{} {}", clip(name, 40), value(part, 60)))
                .collect();
            match parts.as_slice() {
                [] => format!("{}: none", clip(name, 60)),
                parts => format!("{}: {}", clip(name, 60), parts.join(", ")),
            }
        }
        serde_json::Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            let text = match number.abs() {
                n if (0.001..1e9).contains(&n) => tick((number * 1e3).round() / 1e3),
                _ => number.to_string(),
            };
            format!("{} {text}", clip(name, 60))
        }
        other => match (name.strip_suffix("_ns"), other.as_u64()) {
            (Some(name), Some(ns)) => format!("{} {}", clip(name, 60), span(ns)),
            _ => format!("{} {}", clip(name, 60), value(other, 60)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_inert() {
        assert_eq!(
            escape("<script>alert('x')&\"\u{0}\u{202e}"),
            "&lt;script&gt;alert(&#39;x&#39;)&amp;&quot;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("äöüß", 3), "äö…");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(tick(0.5), "0.5");
        assert_eq!(tick(-0.0), "0");
        assert_eq!(span(1_500_000), "1.5 ms");
        let versioned = serde_json::json!({"value": 5, "version": [(1u64 << 48) | 7, 12]});
        assert_eq!(value(&versioned, 40), "5 @1#7.12");
        assert_eq!(token(7), "7");
        assert_eq!(token((2 << 48) | 42), "2#42");
        assert_eq!(stat("gap_ms", &22.788_416.into()), "gap_ms 22.788");
        assert_eq!(stat("gap_ns", &2_000_000.into()), "gap 2.0 ms");
        assert_eq!(
            stat("ok", &serde_json::json!({"read": 2, "cas": 1})),
            "ok: cas 1, read 2"
        );
    }
}
