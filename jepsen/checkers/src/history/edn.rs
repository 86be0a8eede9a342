//! EDN, for Knossos and Elle: strings, numbers, vectors, maps with keyword keys, keywords.

use std::io::{self, Write};

use serde_json::Value;

use super::{History, Kind, Op};

/// The EDN form of a JSON value. Names of fields become keywords where they can be, else strings.
pub fn to_edn(value: &Value) -> String {
    let mut text = String::new();
    edn(value, &mut text);
    text
}

fn edn(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("nil"),
        Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::String(plain) => string(plain, text),
        Value::Array(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    text.push(' ');
                }
                edn(value, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    text.push_str(", ");
                }
                if is_keyword(name) {
                    text.push(':');
                    text.push_str(name);
                } else {
                    string(name, text);
                }
                text.push(' ');
                edn(value, text);
            }
            text.push('}');
        }
    }
}

/// EDN knows these escapes, and `\uNNNN`; JSON's `\b` and `\f` it does not.
fn string(plain: &str, text: &mut String) {
    text.push('"');
    for c in plain.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", c as u32)),
            c => text.push(c),
        }
    }
    text.push('"');
}

fn is_keyword(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '?' | '!'))
}

/// Writes a history as Knossos and Elle read it, one map a line. A keyed operation has the value
/// `[key value]`, as `jepsen.independent` writes it; micro-operations of a `txn` have keywords,
/// and their keys are inside.
///
/// Fails when the output cannot be written.
pub fn write_edn(history: &History, output: &mut impl Write) -> io::Result<()> {
    for op in &history.0 {
        writeln!(output, "{}", line(op))?;
    }
    Ok(())
}

fn line(op: &Op) -> String {
    let kind = match op.kind {
        Kind::Invoke => ":invoke",
        Kind::Ok => ":ok",
        Kind::Fail => ":fail",
        Kind::Info => ":info",
    };
    let value = match (&op.key, &op.value) {
        (_, Value::Array(steps)) if op.f == "txn" => transaction(steps),
        (Some(key), value) => format!("[{} {}]", to_edn(&key.as_str().into()), to_edn(value)),
        (None, value) => to_edn(value),
    };
    let f = if is_keyword(&op.f) {
        format!(":{}", op.f)
    } else {
        to_edn(&op.f.as_str().into())
    };
    let mut text = format!(
        "{{:index {}, :time {}, :process {}, :type {kind}, :f {f}, :value {value}",
        op.index, op.time, op.process
    );
    for (name, field) in [("node", &op.node), ("error", &op.error)] {
        if let Some(field) = field {
            text.push_str(&format!(", :{name} {}", to_edn(&field.as_str().into())));
        }
    }
    if let Some(epoch) = op.epoch {
        text.push_str(&format!(", :epoch {epoch}"));
    }
    text.push('}');
    text
}

fn transaction(steps: &[Value]) -> String {
    let steps: Vec<String> = steps
        .iter()
        .map(|step| match step.as_array().map(Vec::as_slice) {
            Some([Value::String(f), key, value]) if is_keyword(f) => {
                format!("[:{f} {} {}]", to_edn(key), to_edn(value))
            }
            _ => to_edn(step),
        })
        .collect();
    format!("[{}]", steps.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_have_the_form_that_clojure_reads() {
        let value = json!({"a": [1, -2.5, null, true], "b c": "q\"\\\n\u{8}é"});
        assert_eq!(
            to_edn(&value),
            r#"{:a [1 -2.5 nil true], "b c" "q\"\\\n\u0008é"}"#
        );
    }

    #[test]
    fn operations_have_the_form_that_knossos_and_elle_read() {
        let lines = [
            json!({"index":0,"time":5,"process":1,"type":"invoke","f":"cas","key":"k","value":[1,2]}),
            json!({"index":1,"time":9,"process":1,"type":"info","f":"txn","key":"s","value":[["append","x",1],["r","y",null]],"error":"late","epoch":3}),
        ];
        let history = History(
            lines
                .map(|line| serde_json::from_value(line).unwrap())
                .to_vec(),
        );
        let mut text = Vec::new();
        write_edn(&history, &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "{:index 0, :time 5, :process 1, :type :invoke, :f :cas, :value [\"k\" [1 2]]}\n\
             {:index 1, :time 9, :process 1, :type :info, :f :txn, :value [[:append \"x\" 1] [:r \"y\" nil]], :error \"late\", :epoch 3}\n"
        );
    }
}
