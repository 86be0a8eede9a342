//! A whole run as one file, made while it is sent.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Pieces that wait for the network.
const PIECES: usize = 8;
/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;

/// Sends the directory as `NAME.tar`. Symbolic links are sent as links, never followed. An error
/// on the way breaks the connection, so that half a run is never taken for a whole one.
pub(super) fn send(dir: PathBuf, name: String, permit: OwnedSemaphorePermit) -> Response {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-.+_".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let top = name.clone();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut writer = io::BufWriter::with_capacity(
            PIECE_BYTES,
            Pieces {
                sender: sender.clone(),
            },
        );
        let written = append(&mut writer, &dir, &top).and_then(|()| writer.flush());
        if let Err(error) = written {
            // Nobody listens any more when this fails too.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let pieces = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.tar\""),
        ),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Appends all that is in `dir` under the name `top`, in the order of names.
fn append(writer: &mut impl Write, dir: &Path, top: &str) -> io::Result<()> {
    let mut archive = tar::Builder::new(writer);
    let mut left = vec![(PathBuf::from(top), dir.to_owned())];
    while let Some((name, place)) = left.pop() {
        let metadata = fs::symlink_metadata(&place)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        if metadata.is_dir() {
            archive.append_dir(&name, &place)?;
            let mut entries = fs::read_dir(&place)?.collect::<io::Result<Vec<_>>>()?;
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            left.extend(entries.iter().map(|e| (name.join(e.file_name()), e.path())));
        } else if metadata.is_symlink() {
            archive.append_link(&mut header, &name, fs::read_link(&place)?)?;
        } else if metadata.is_file() {
            // Of a file that still grows, what was there when it was opened.
            let file = fs::File::open(&place)?;
            let size = file.metadata()?.len();
            header.set_size(size);
            let mut file = file.take(size);
            archive.append_data(&mut header, &name, &mut file)?;
            if file.limit() > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    archive.finish()
}

/// Hands what is written to the network, and waits when that is slow.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        match self.sender.blocking_send(Ok(piece)) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
