//! The data directory: whose it is, which format it has, and what it refuses.
//!
//! `IDENTITY` is a line-based text file, so that an operator can read it; `db/` is the database,
//! `snapshots/` the newest snapshot. `IDENTITY` says `state = creating` until everything stands.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rocks::Rocks;
use super::snapshot::{SnapshotFiles, Snapshots};
use crate::{NodeId, StartError};

/// The format this program writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

const IDENTITY: &str = "IDENTITY";
const MAGIC: &str = "leasehold replica";

/// A directory, opened for its owner.
pub(crate) struct Directory {
    pub(crate) db: Rocks,
    pub(crate) snapshots: Snapshots,
    pub(crate) disk: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    format: u32,
    cluster: String,
    node: NodeId,
    disk: [u8; 16],
    ready: bool,
}

impl Identity {
    fn print(&self) -> String {
        let disk: String = self.disk.iter().map(|b| format!("{b:02x}")).collect();
        let state = if self.ready { "ready" } else { "creating" };
        let body = format!(
            "{MAGIC}\nformat = {}\ncluster = {}\nnode = {}\ndisk = {disk}\nstate = {state}\n",
            self.format, self.cluster, self.node
        );
        format!("{body}checksum = {:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    fn parse(text: &str) -> Result<Self, Parse> {
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(Parse::Foreign);
        }
        let mut field = |name: &'static str| {
            let line = lines.next().and_then(|l| l.split_once(" = "));
            line.filter(|(n, _)| *n == name)
                .map(|(_, v)| v.to_owned())
                .ok_or(Parse::Corrupt)
        };
        // First, so that a newer format may have other fields.
        let format = field("format")?.parse().map_err(|_| Parse::Corrupt)?;
        if format > FORMAT {
            return Err(Parse::Newer(format));
        }
        let cluster = field("cluster")?;
        let node = field("node")?.parse().map_err(|_| Parse::Corrupt)?;
        let disk = parse_disk(&field("disk")?).ok_or(Parse::Corrupt)?;
        let ready = match field("state")?.as_str() {
            "ready" => true,
            "creating" => false,
            _ => return Err(Parse::Corrupt),
        };
        let this = Self {
            format,
            cluster,
            node,
            disk,
            ready,
        };
        if this.print() == text {
            Ok(this)
        } else {
            Err(Parse::Corrupt)
        }
    }
}

fn parse_disk(text: &str) -> Option<[u8; 16]> {
    u128::from_str_radix(text, 16)
        .ok()
        .filter(|_| text.len() == 32)
        .map(u128::to_be_bytes)
}

#[derive(Debug)]
enum Parse {
    Foreign,
    Corrupt,
    Newer(u32),
}

const ADVICE: &str = "nothing was changed; give this node an empty directory or its own one";

fn foreign(path: &Path, found: String) -> StartError {
    StartError::Foreign {
        path: path.to_owned(),
        found,
        advice: ADVICE,
    }
}

fn corrupt(path: &Path, found: impl Into<String>) -> StartError {
    StartError::Corrupt {
        path: path.to_owned(),
        found: found.into(),
    }
}

/// Read who owns `path`; none if nobody does yet, that is if it is empty or does not exist.
fn identity(path: &Path) -> Result<Option<Identity>, StartError> {
    let text = match fs::read_to_string(path.join(IDENTITY)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return match first_file(path)? {
                None => Ok(None),
                Some(name) => Err(foreign(
                    path,
                    format!("not a replica's directory, but holds {name:?}"),
                )),
            };
        }
        Err(e) if e.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(e) => return Err(e.into()),
    };
    match Identity::parse(&text) {
        Ok(identity) => Ok(Some(identity)),
        Err(Parse::Newer(found)) => Err(StartError::Newer {
            path: path.to_owned(),
            found,
            known: FORMAT,
        }),
        Err(Parse::Foreign) => Err(foreign(
            path,
            format!("{IDENTITY} was not written by this program"),
        )),
        Err(Parse::Corrupt) => Err(corrupt(path, format!("{IDENTITY} is damaged"))),
    }
}

/// Any entry of the directory but what an interrupted creation leaves and what file systems put
/// there themselves.
fn first_file(path: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "lost+found" && name != format!("{IDENTITY}.part") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn write_identity(path: &Path, identity: &Identity) -> io::Result<()> {
    let part = path.join(format!("{IDENTITY}.part"));
    let mut file = File::create(&part)?;
    file.write_all(identity.print().as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path.join(IDENTITY))?;
    File::open(path)?.sync_all()
}

fn open_db(path: &Path, create: bool) -> Result<Rocks, StartError> {
    Rocks::open(&path.join("db"), create).map_err(|error| {
        let text = error.to_string();
        // The library has no kind of its own for this.
        if text.contains("lock hold by current process") || text.contains("While lock file") {
            return StartError::Locked {
                path: path.to_owned(),
            };
        }
        corrupt(path, format!("the database does not open: {text}"))
    })
}

/// Open `path` for node `node` of `cluster`, creating it if it is empty or missing.
pub(crate) fn open(path: &Path, cluster: &str, node: NodeId) -> Result<Directory, StartError> {
    let identity = match identity(path)? {
        Some(identity) => identity,
        None => begin(path, cluster, node)?,
    };
    if identity.cluster != cluster || identity.node != node {
        let found = format!(
            "belongs to node {} of cluster {:?}",
            identity.node, identity.cluster
        );
        return Err(foreign(path, found));
    }
    let db = open_db(path, !identity.ready)?;
    let directory = finish_opening(path, db, identity.disk)?;
    if !identity.ready {
        complete(path, &identity)?;
    }
    Ok(directory)
}

/// Claim an empty or missing directory.
fn begin(path: &Path, cluster: &str, node: NodeId) -> Result<Identity, StartError> {
    fs::create_dir_all(path)?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    let disk = rand::random();
    let identity = Identity {
        format: FORMAT,
        cluster: cluster.to_owned(),
        node,
        disk,
        ready: false,
    };
    write_identity(path, &identity)?;
    Ok(identity)
}

fn complete(path: &Path, identity: &Identity) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    write_identity(
        path,
        &Identity {
            ready: true,
            ..identity.clone()
        },
    )
}

fn finish_opening(path: &Path, db: Rocks, disk: [u8; 16]) -> Result<Directory, StartError> {
    let files = SnapshotFiles::open(&path.join("snapshots"))?;
    Ok(Directory {
        db,
        snapshots: Snapshots::Files(Arc::new(files)),
        disk,
    })
}

/// A directory that is being filled: a node refuses it until [`complete`](Self::complete).
pub(crate) struct Creating {
    path: PathBuf,
    identity: Identity,
    pub(crate) db: Rocks,
}

impl Creating {
    /// Claim `path`, which must be empty or missing.
    pub(crate) fn begin(path: &Path, cluster: &str, node: NodeId) -> Result<Self, StartError> {
        if let Some(found) = identity(path)? {
            return Err(foreign(
                path,
                format!(
                    "belongs to node {} of cluster {:?}",
                    found.node, found.cluster
                ),
            ));
        }
        let identity = begin(path, cluster, node)?;
        let db = open_db(path, true)?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            db,
        })
    }

    /// Identity of the new directory.
    pub(crate) fn disk(&self) -> [u8; 16] {
        self.identity.disk
    }

    /// Everything is written and synced.
    pub(crate) fn complete(self) -> Result<(), StartError> {
        drop(self.db);
        Ok(complete(&self.path, &self.identity)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path, cluster: &str, node: NodeId) -> StartError {
        match open(path, cluster, node) {
            Ok(_) => panic!("the directory was accepted"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_directory_opens_for_its_owner_only() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("data");
        let first = open(&path, "c", 1).expect("created").disk;
        assert_eq!(open(&path, "c", 1).expect("reopened").disk, first);
        for (cluster, node) in [("d", 1), ("c", 2)] {
            let error = refused(&path, cluster, node).to_string();
            assert!(
                error.contains("belongs to node 1 of cluster \"c\""),
                "{error}"
            );
        }
    }

    #[test]
    fn two_cannot_open_it_at_once() {
        let root = tempfile::tempdir().expect("a directory");
        let held = open(root.path(), "c", 1).expect("created");
        assert!(matches!(
            refused(root.path(), "c", 1),
            StartError::Locked { .. }
        ));
        drop(held);
        open(root.path(), "c", 1).expect("free again");
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("photo.jpg"), b"x").expect("a write");
        let error = refused(root.path(), "c", 1);
        assert!(error.to_string().contains("photo.jpg"), "{error}");
        fs::write(root.path().join(IDENTITY), b"some other program\n").expect("a write");
        assert!(matches!(
            refused(root.path(), "c", 1),
            StartError::Foreign { .. }
        ));
        assert_eq!(fs::read_dir(root.path()).expect("a listing").count(), 2);
    }

    #[test]
    fn damage_and_newer_formats_are_named() {
        let root = tempfile::tempdir().expect("a directory");
        drop(open(root.path(), "c", 1).expect("created"));
        let file = root.path().join(IDENTITY);
        let good = fs::read_to_string(&file).expect("a read");
        for (from, to) in [
            ("node = 1", "node = 7"),
            ("ready", "rotten"),
            ("checksum", "check"),
        ] {
            fs::write(&file, good.replace(from, to)).expect("a write");
            let error = refused(root.path(), "c", 1);
            assert!(
                matches!(error, StartError::Corrupt { .. }),
                "{from}: {error}"
            );
        }
        fs::write(&file, [0xff, 0xfe]).expect("a write");
        refused(root.path(), "c", 1);
        fs::write(&file, good.replace("format = 1", "format = 9")).expect("a write");
        let error = refused(root.path(), "c", 1);
        assert!(
            matches!(
                error,
                StartError::Newer {
                    found: 9,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );

        fs::write(&file, &good).expect("a write");
        fs::remove_file(root.path().join("db/CURRENT")).expect("a removal");
        let error = refused(root.path(), "c", 1);
        assert!(matches!(error, StartError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn an_interrupted_creation_is_taken_up_again() {
        let root = tempfile::tempdir().expect("a directory");
        let claimed = begin(root.path(), "c", 1).expect("claimed");
        drop(open_db(root.path(), true).expect("half created"));
        assert_eq!(
            open(root.path(), "c", 1).expect("taken up").disk,
            claimed.disk
        );
    }
}
