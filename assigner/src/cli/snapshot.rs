//! `leasehold snapshot`.
//!
//! JSON: `save` and `inspect` print `{"file", "bytes", "applied_term", "applied_index",
//! "incarnation"}`, `restore` `{"done", "data_dir", "targets", "incarnation", "wait_for_ttl_ms"}`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use leasehold_assigner::SnapshotFile;
use leasehold_assigner::restore::{CannotRestore, RestorePlan, restore};
use leasehold_proto::PodAddress;
use leasehold_proto::id::Incarnation;
use leasehold_proto::wire::listing::{SnapshotEnd, SnapshotPart};
use leasehold_proto::wire::pb;
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::time::timeout;
use tonic::Streaming;

use super::Global;
use super::client::Client;
use super::error::Failure;
use super::output::{Done, Report, emit};
use super::table::pairs;
use super::target::ms;
use crate::config::{parse_duration, show_duration};

const RESTORE_HELP: &str = "\
A restored cluster must not meet the old one. The old one may have granted leases, and given out
fencing tokens, that the snapshot does not know. So:

  1. Stop every Assigner of the old cluster for good, and say so with --old-cluster-stopped. If one
     goes on, two owners are possible, and nothing here can notice.
  2. Give an incarnation larger than any that was ever used: tokens of the new cluster are then larger
     than all of the old. `leasehold snapshot inspect` shows the snapshot's; the old cluster may have
     been restored since, so look into your records. An Assigner that meets a client which has seen a
     higher one stops granting and says so.
  3. Restore into an empty directory, with a new cluster name, and start `leasehold serve` on it with
     the same name, number and address, without members and without --bootstrap.
  4. Nothing is granted until every lease of the old cluster must have run out: the largest ttl of the
     snapshot, or --max-ttl if a target had a larger one since. All sessions are closed and all slices
     vacant; Slicelets register again by themselves.
     Give --max-ttl whenever the ttl of a target was raised after the snapshot was saved.
  5. A target that was made eventual after the snapshot was saved is strong again. Its processes of
     the old cluster may still serve, for as long as they live, because in eventual mode they need no
     lease: stop them all before the new cluster grants.
  6. Add further Assigners with `leasehold member add`, each with an empty directory. Do not restore the
     snapshot a second time.

Example:
  leasehold snapshot restore cart.snap --incarnation 2 --old-cluster-stopped \\
      --cluster prod-2 --node-id 1 --advertise 10.0.0.1:7400 --data-dir /var/lib/leasehold";

/// Verbs of `leasehold snapshot`.
#[derive(Subcommand)]
pub enum Verb {
    /// Save the replicated state into a file
    #[command(
        after_help = "The file appears whole or not at all; its checksum is verified before."
    )]
    Save {
        /// The file to write
        file: PathBuf,
        /// Overwrite it if it exists
        #[arg(long)]
        force: bool,
    },
    /// Check a saved file, and show what it is of
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Begin a new cluster from a saved file
    #[command(after_help = RESTORE_HELP)]
    Restore(Restore),
}

/// Arguments of `restore`.
#[derive(Args)]
pub struct Restore {
    /// The file
    file: PathBuf,
    /// Data directory of the new cluster's first Assigner: empty or missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the new cluster; not the old one's
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Number of its first Assigner
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
    /// Where others will reach it: HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    advertise: PodAddress,
    /// Larger than any incarnation ever used
    #[arg(long, value_name = "N", value_parser = incarnation)]
    incarnation: Incarnation,
    /// Largest ttl that a target of the old cluster had; needed if a ttl was raised since the snapshot
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_ttl: Option<Duration>,
    /// Your word that no Assigner of the old cluster runs or will run again
    #[arg(long)]
    old_cluster_stopped: bool,
}

fn incarnation(text: &str) -> Result<Incarnation, String> {
    let number = text.parse().ok().and_then(Incarnation::new);
    number.ok_or_else(|| {
        format!(
            "not a number from 1 to {}",
            leasehold_proto::limits::INCARNATION_MAX
        )
    })
}

impl Verb {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Verb::Save { file, force } => save(global, &file, force).await,
            Verb::Inspect { file } => {
                let snapshot = read(&file)?;
                let bytes = std::fs::metadata(&file)
                    .map_err(|error| cannot("read", &file, &error))?
                    .len();
                emit(global, &Saved::new(&file, bytes, &snapshot))
            }
            Verb::Restore(wish) => wish.run(global),
        }
    }
}

fn cannot(verb: &str, file: &Path, error: &std::io::Error) -> Failure {
    Failure::negative(format!("cannot {verb} {}: {error}", file.display()))
}

fn read(file: &Path) -> Result<SnapshotFile, Failure> {
    let opened = File::open(file).map_err(|error| cannot("read", file, &error))?;
    SnapshotFile::read(BufReader::new(opened))
        .map_err(|error| Failure::negative(format!("{}: {error}", file.display())))
}

async fn save(global: &Global, file: &Path, force: bool) -> Result<(), Failure> {
    if file.exists() && !force {
        return Err(Failure::usage(format!(
            "{} exists already; name another file, or overwrite it with --force",
            file.display()
        )));
    }
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut temporary = NamedTempFile::new_in(directory)
        .map_err(|error| cannot("write into", directory, &error))?;
    let mut parts = Client::new(global)
        .change(pb::SaveSnapshotRequest {}, async |grpc, r| {
            grpc.save_snapshot(r).await
        })
        .await?;
    let end = receive(global, &mut parts, temporary.as_file_mut()).await?;
    let snapshot = read(temporary.path())?;
    if (snapshot.applied, snapshot.incarnation) != (end.applied, end.incarnation) {
        return Err(Failure::unavailable(
            "the snapshot is not what the Assigner says that it sent; nothing was written",
        ));
    }
    let failed = |error: &std::io::Error| cannot("write", file, error);
    temporary
        .as_file()
        .sync_all()
        .map_err(|error| failed(&error))?;
    match force {
        true => temporary
            .persist(file)
            .map_err(|error| failed(&error.error))?,
        false => temporary
            .persist_noclobber(file)
            .map_err(|error| failed(&error.error))?,
    };
    // The new name is on disk only when the directory is.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failed(&error))?;
    emit(global, &Saved::new(file, end.total_bytes, &snapshot))
}

/// Writes the chunks of a stream, and compares them with what its end says.
async fn receive(
    global: &Global,
    parts: &mut Streaming<pb::SaveSnapshotReply>,
    file: &mut File,
) -> Result<SnapshotEnd, Failure> {
    let broken = |why: String| {
        Failure::unavailable(format!(
            "the snapshot did not arrive whole ({why}); nothing was written, try again"
        ))
    };
    let (mut out, mut bytes, mut crc) = (BufWriter::new(file), 0u64, 0u32);
    loop {
        let part = match timeout(global.timeout, parts.message()).await {
            Err(_) => {
                return Err(broken(format!(
                    "nothing came for {}",
                    show_duration(global.timeout)
                )));
            }
            Ok(Err(status)) => return Err(broken(status.message().chars().take(200).collect())),
            Ok(Ok(None)) => return Err(broken("the stream ended early".into())),
            Ok(Ok(Some(part))) => {
                SnapshotPart::try_from(part).map_err(|error| Failure::unreadable(&error))?
            }
        };
        match part {
            SnapshotPart::Chunk(chunk) => {
                crc = crc32c::crc32c_append(crc, &chunk);
                bytes += chunk.len() as u64;
                out.write_all(&chunk).map_err(|error| {
                    Failure::negative(format!("cannot write the snapshot: {error}"))
                })?;
            }
            SnapshotPart::End(end) if (end.total_bytes, end.crc32c) == (bytes, crc) => {
                out.flush().map_err(|error| {
                    Failure::negative(format!("cannot write the snapshot: {error}"))
                })?;
                return Ok(end);
            }
            SnapshotPart::End(_) => return Err(broken("its checksum does not match".into())),
        }
    }
}

impl Restore {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let snapshot = read(&self.file)?;
        if !self.old_cluster_stopped {
            return Err(Failure::usage(
                "if an Assigner of the old cluster still runs, two owners are possible; stop all of them for good, and \
                 say so with --old-cluster-stopped (see `leasehold snapshot restore --help`)",
            ));
        }
        let plan = RestorePlan {
            incarnation: self.incarnation,
            max_ttl: self.max_ttl.unwrap_or_default(),
            cluster: self.cluster.clone(),
            node_id: self.node_id,
            advertise: self.advertise.to_string(),
        };
        let restored = restore(&snapshot, &self.data_dir, &plan).map_err(|error| match error {
            CannotRestore::Rejected(rejection) => Failure::usage(rejection.to_string()),
            error => Failure::negative(error.to_string()),
        })?;
        let data_dir = self.data_dir.display().to_string();
        let done = format!(
            "{} targets restored into {data_dir}; start it with\n  leasehold serve --cluster {} --node-id {} --advertise \
             {} --data-dir {data_dir}\nNothing is granted until leases of {} must have run out.",
            restored.targets,
            self.cluster,
            self.node_id,
            self.advertise,
            show_duration(restored.wait_for_ttl)
        );
        let facts = Done::new(done)
            .with("data_dir", data_dir)
            .with("targets", restored.targets);
        let facts = facts
            .with("incarnation", self.incarnation.get())
            .with("wait_for_ttl_ms", ms(restored.wait_for_ttl));
        emit(global, &facts)
    }
}

/// An intact snapshot file.
#[derive(Serialize)]
pub struct Saved {
    /// Where it is.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Term of the newest entry in it.
    pub applied_term: u64,
    /// Index of the newest entry in it.
    pub applied_index: u64,
    /// Which life of the replicated state it is of.
    pub incarnation: u16,
}

impl Saved {
    fn new(file: &Path, bytes: u64, snapshot: &SnapshotFile) -> Self {
        Self {
            file: file.display().to_string(),
            bytes,
            applied_term: snapshot.applied.term,
            applied_index: snapshot.applied.index,
            incarnation: snapshot.incarnation.get(),
        }
    }
}

impl Report for Saved {
    fn human(&self) -> String {
        pairs(&[
            ("file", self.file.clone()),
            ("bytes", format!("{}, intact", self.bytes)),
            (
                "newest entry",
                format!("{} of term {}", self.applied_index, self.applied_term),
            ),
            (
                "incarnation",
                format!("{}; restore with a larger one", self.incarnation),
            ),
        ])
    }
}
