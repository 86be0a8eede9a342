//! A history for people: one aligned line an operation.

use std::io::{self, Write};

use super::{History, Kind};

/// Writes `history.txt`.
///
/// Fails when the output cannot be written.
pub fn write_text(history: &History, output: &mut impl Write) -> io::Result<()> {
    for op in &history.0 {
        let kind = match op.kind {
            Kind::Invoke => "invoke",
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info => "info",
        };
        write!(
            output,
            "{:>7} {:>5}.{:06} s  p{:<5} {kind:<6} {:<8} {:<10} {}",
            op.index,
            op.time / 1_000_000_000,
            op.time % 1_000_000_000 / 1_000,
            op.process,
            op.f,
            op.key.as_deref().unwrap_or("-"),
            op.value,
        )?;
        if let Some(node) = &op.node {
            write!(output, "  at {node}")?;
        }
        if let Some(epoch) = op.epoch {
            write!(output, "  epoch {epoch}")?;
        }
        if let Some(error) = &op.error {
            write!(output, "  ({error})")?;
        }
        writeln!(output)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_tells_when_who_what_and_why() {
        let op = json!({"index":12,"time":1_500_000_000u64,"process":3,"type":"info","f":"write","key":"k","value":7,"node":"p1","epoch":4,"error":"timed out"});
        let history = History(vec![serde_json::from_value(op).unwrap()]);
        let mut text = Vec::new();
        write_text(&history, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>().join(" "),
            "12 1.500000 s p3 info write k 7 at p1 epoch 4 (timed out)"
        );
    }
}
