//! Where runs are kept: `STORE/NAME/TIME/`, with the links `STORE/current` (the run that began
//! last), `STORE/latest` and `STORE/NAME/latest` (the run that ended last).

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use leasehold_checkers::run::{Results, Test};
use serde::Serialize;

/// The directory of one run.
#[derive(Clone, Debug)]
pub struct RunDir {
    store: PathBuf,
    name: String,
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory of a run that begins now and points `current` at it.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn create(store: &Path, name: &str) -> anyhow::Result<Self> {
        let name = file_name(name);
        let of_name = store.join(&name);
        std::fs::create_dir_all(&of_name)
            .with_context(|| format!("making {}", of_name.display()))?;
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let time: String = time.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        // Two runs of one name may begin within one millisecond.
        let (time, path) = (0..100)
            .map(|n| match n {
                0 => time.clone(),
                n => format!("{time}-{n}"),
            })
            .map(|time| (time.clone(), of_name.join(time)))
            .find(|(_, path)| std::fs::create_dir(path).is_ok())
            .with_context(|| format!("making a run's directory in {}", of_name.display()))?;
        link(&store.join("current"), &Path::new(&name).join(&time))?;
        Ok(Self {
            store: store.to_owned(),
            name,
            path,
        })
    }

    /// A run that is there already, e.g. to judge it again.
    ///
    /// # Errors
    ///
    /// It is not the directory of a run.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let path = path
            .canonicalize()
            .with_context(|| format!("opening {}", path.display()))?;
        anyhow::ensure!(
            path.join("test.json").is_file(),
            "{} holds no test.json: not the directory of a run",
            path.display()
        );
        let of_name = path.parent().context("a run lies in STORE/NAME/TIME")?;
        let store = of_name.parent().context("a run lies in STORE/NAME/TIME")?;
        let name = of_name.file_name().context("a run lies in STORE/NAME")?;
        Ok(Self {
            store: store.to_owned(),
            name: name.to_string_lossy().into_owned(),
            path: path.clone(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Points `latest` at this run, which has ended.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn ended(&self) -> anyhow::Result<()> {
        let time = Path::new(self.path.file_name().context("a run has a time")?);
        link(
            &self.store.join("latest"),
            &Path::new(&self.name).join(time),
        )?;
        link(&self.store.join(&self.name).join("latest"), time)
    }

    /// What was run.
    ///
    /// # Errors
    ///
    /// `test.json` cannot be read or is of another form.
    pub fn test(&self) -> anyhow::Result<Test> {
        read_json(&self.file("test.json"))
    }
}

/// The newest finished run of this name, if there is one: what was run, and what came of it.
pub fn finished(store: &Path, name: &str) -> Option<(PathBuf, Test, Results)> {
    let path = store.join(file_name(name)).join("latest");
    let test = read_json(&path.join("test.json")).ok()?;
    let results = read_json(&path.join("results.json")).ok()?;
    Some((path, test, results))
}

/// Writes a value as JSON for people: whole or not at all.
///
/// # Errors
///
/// The file system refuses.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// Writes one JSON object a line: whole or not at all.
///
/// # Errors
///
/// The file system refuses.
pub fn write_lines<T: Serialize>(path: &Path, values: &[T]) -> anyhow::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("tmp");
    let write = || -> anyhow::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
        for value in values {
            serde_json::to_writer(&mut file, value)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        std::fs::rename(&temporary, path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Reads one JSON value.
///
/// # Errors
///
/// The file cannot be read or is of another form.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// Reads one JSON value a line. A last line without its end is what a crash leaves, and is left
/// out; a file that is not there holds no lines.
///
/// # Errors
///
/// The file cannot be read, or a whole line is of another form.
pub fn read_lines<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    Ok(leasehold_checkers::history::read_lines(path)?)
}

/// A name as one path component.
fn file_name(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '+' | '-' | '_' | ',' | '=' => c,
            _ => '_',
        })
        .collect();
    if name.is_empty() { "_".into() } else { name }
}

/// Makes or turns a symbolic link, at no moment absent.
fn link(at: &Path, to: &Path) -> anyhow::Result<()> {
    let temporary = at.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    std::os::unix::fs::symlink(to, &temporary)
        .and_then(|()| std::fs::rename(&temporary, at))
        .with_context(|| format!("linking {}", at.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn links_lead_to_the_run_that_began_last_and_the_one_that_ended_last() {
        let store = tempfile::tempdir().unwrap();
        let first = RunDir::create(store.path(), "register/kill").unwrap();
        std::fs::write(first.file("test.json"), "{}").unwrap();
        first.ended().unwrap();
        let second = RunDir::create(store.path(), "register/kill").unwrap();
        assert_ne!(first.path(), second.path());
        let read = |link: &str| store.path().join(link).canonicalize().unwrap();
        assert_eq!(read("latest"), first.path().canonicalize().unwrap());
        assert_eq!(read("register_kill/latest"), read("latest"));
        assert_eq!(read("current"), second.path().canonicalize().unwrap());
        let again = RunDir::open(&store.path().join("latest")).unwrap();
        assert_eq!(again.path(), read("latest"));
        assert!(RunDir::open(store.path()).is_err());
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_torn_middle_line_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "{\"a\":1}\n{\"a\"").unwrap();
        assert_eq!(read_lines::<Value>(&path).unwrap().len(), 1);
        std::fs::write(&path, "{\"a\":1}\n{\n{}\n").unwrap();
        assert!(read_lines::<Value>(&path).is_err());
        let none = dir.path().join("none");
        assert!(read_lines::<Value>(&none).unwrap().is_empty());
    }
}
