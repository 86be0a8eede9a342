//! The store's journal: one JSON line for each fence raised and each write applied, so that a
//! killed store comes back as it was. Written with one call a line and not synced: the machine
//! stays up, only the process dies.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state::State;
use crate::rpc::{Fence, PutRequest};

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    key: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put: Option<(u64, std::borrow::Cow<'a, str>)>,
}

/// The open journal.
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens the journal and brings `state` to where it ends. A last line without an end was never
    /// answered; it is cut off.
    pub(super) fn open(path: &Path, state: &mut State) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)?;
        let mut reader = BufReader::new(&file);
        let (mut whole, mut text) = (0u64, String::new());
        loop {
            text.clear();
            let length = reader.read_line(&mut text)?;
            if length == 0 || !text.ends_with('\n') {
                break;
            }
            replay(&text, state)?;
            whole += length as u64;
        }
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        Ok(Self { file })
    }

    pub(super) fn fence(&mut self, key: &str, fence: Fence) -> io::Result<()> {
        self.write(&Line {
            key: key.into(),
            fence: Some((fence.token, fence.attempt)),
            put: None,
        })
    }

    pub(super) fn put(&mut self, request: &PutRequest) -> io::Result<()> {
        self.write(&Line {
            key: request.key.as_str().into(),
            fence: request.fence.map(|fence| (fence.token, fence.attempt)),
            put: Some((request.token, request.value.as_str().into())),
        })
    }

    fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

fn replay(text: &str, state: &mut State) -> io::Result<()> {
    let line: Line<'_> = serde_json::from_str(text)?;
    let fence = line.fence.map(|(token, attempt)| Fence { token, attempt });
    let done = match line.put {
        Some((token, value)) => state
            .put(&PutRequest {
                key: line.key.into_owned(),
                fence,
                token,
                value: value.into_owned(),
            })
            .is_ok(),
        None => state.fence(&line.key, fence).is_ok(),
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::other("the journal contradicts itself"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_store_comes_back_as_it_was_and_forgets_the_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let fence = Fence {
            token: 7,
            attempt: 2,
        };
        let request = PutRequest {
            key: "k".into(),
            fence: Some(fence),
            token: 7,
            value: "\"a\\nb\"".into(),
        };
        {
            let mut state = State::default();
            let mut journal = Journal::open(&path, &mut state).unwrap();
            journal.fence("k", fence).unwrap();
            journal.put(&request).unwrap();
            journal.file.write_all(b"{\"key\":\"k\",\"pu").unwrap();
        }
        for _ in 0..2 {
            let mut state = State::default();
            Journal::open(&path, &mut state).unwrap();
            assert_eq!(state.applied("k").len(), 1);
            assert_eq!(state.applied("k")[0].value, "\"a\\nb\"");
            let lower = Fence {
                token: 7,
                attempt: 1,
            };
            assert!(state.fence("k", Some(lower)).is_err());
        }
    }
}
