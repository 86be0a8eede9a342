//! Files of JSON lines: one value a line, lines of bounded length.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A longer line is refused: no run writes one, so the file is something else or damaged.
pub const MAX_LINE_BYTES: u64 = 4 << 20;

/// Why a file of JSON lines could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {cause}", .path.display(), match .line { 0 => String::new(), line => format!(", line {line}") })]
pub struct LineError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong with it.
    pub cause: String,
}

impl LineError {
    fn new(path: &Path, line: usize, cause: impl ToString) -> Self {
        Self {
            path: path.to_owned(),
            line,
            cause: cause.to_string(),
        }
    }
}

/// Reads a file of JSON lines.
///
/// A last line that was cut off (no newline at its end, and no value) is left out: that is how a
/// killed writer leaves a file. Anything else that is not as it should be is an error, which names
/// the file, the line and the cause; the caller gives up on the run.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, LineError> {
    let file = File::open(path).map_err(|error| LineError::new(path, 0, error))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut values = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut reader)
            .take(MAX_LINE_BYTES + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| LineError::new(path, number, error))?;
        if read == 0 {
            break;
        }
        if read as u64 > MAX_LINE_BYTES {
            let cause = format!("longer than {MAX_LINE_BYTES} bytes");
            return Err(LineError::new(path, number, cause));
        }
        let whole = line.last() == Some(&b'\n');
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(value) => values.push(value),
            Err(error) if !whole && error.is_eof() => break,
            Err(error) => return Err(LineError::new(path, number, error)),
        }
    }
    Ok(values)
}

/// Writes a file of JSON lines.
///
/// Fails when the file cannot be written or a value has no JSON form or is too long to be read
/// back; what is in the file then is of no use.
pub fn write_lines<'a, T: Serialize + 'a>(
    path: &Path,
    values: impl IntoIterator<Item = &'a T>,
) -> Result<(), LineError> {
    let file = File::create(path).map_err(|error| LineError::new(path, 0, error))?;
    let mut writer = BufWriter::new(file);
    for (at, value) in values.into_iter().enumerate() {
        let mut line =
            serde_json::to_vec(value).map_err(|error| LineError::new(path, at + 1, error))?;
        line.push(b'\n');
        if line.len() as u64 > MAX_LINE_BYTES {
            let cause = format!("longer than {MAX_LINE_BYTES} bytes");
            return Err(LineError::new(path, at + 1, cause));
        }
        writer
            .write_all(&line)
            .map_err(|error| LineError::new(path, at + 1, error))?;
    }
    writer
        .flush()
        .map_err(|error| LineError::new(path, 0, error))
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Op};
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    const GOOD: &str = r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"read","key":"a"}"#;

    #[test]
    fn what_is_written_is_read_back() {
        let (_dir, path) = file("");
        let op: Op = serde_json::from_str(GOOD).unwrap();
        write_lines(&path, [&op, &op]).unwrap();
        assert_eq!(read_lines::<Op>(&path).unwrap(), [op.clone(), op]);
    }

    #[test]
    fn a_cut_last_line_is_left_out_and_only_that() {
        let (_dir, path) = file(&format!("{GOOD}\n{}", &GOOD[..30]));
        let ops = read_lines::<Op>(&path).unwrap();
        assert_eq!(ops.len(), 1);
        assert_eq!(ops[0].kind, Kind::Invoke);

        let (_dir, path) = file(&format!("{}\n{GOOD}\n", &GOOD[..30]));
        let error = read_lines::<Op>(&path).unwrap_err();
        assert_eq!(error.line, 1);
        assert!(error.to_string().contains("history.jsonl, line 1: "));
    }

    #[test]
    fn a_whole_last_line_without_newline_counts() {
        let (_dir, path) = file(GOOD);
        assert_eq!(read_lines::<Op>(&path).unwrap().len(), 1);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let (_dir, path) = file(&" ".repeat(MAX_LINE_BYTES as usize + 2));
        let error = read_lines::<Op>(&path).unwrap_err();
        assert!(error.cause.contains("longer than"), "{error}");
    }

    #[test]
    fn a_wrong_field_is_named() {
        let (_dir, path) = file(&format!("{GOOD}\n{}\n", GOOD.replace("invoke", "begin")));
        let error = read_lines::<Op>(&path).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("begin"),
            "{error}"
        );
    }
}
