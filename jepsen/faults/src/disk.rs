//! A file system of its own for each host, on a loop device, and what goes wrong with disks.
//!
//! Where no file system can be mounted a host gets a plain directory, and these faults are
//! skipped; faults of `fsync` ([`crate::Shim`]) work on both.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::Effect;
use crate::network::check;
use crate::stale::RunDir;

/// A process that was killed lets go of its files within this.
const PATIENCE: Duration = Duration::from_secs(20);
const FILLER: &str = ".filler";
/// The throttle of the block layer, where control groups of version 1 are mounted.
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";

/// What a host's data stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// An ext4 file system of its own: all faults.
    Own,
    /// A directory beside others: no faults of the device.
    Directory,
}

/// A host's disk. Dropping it takes it away with all that is on it.
pub struct Disk {
    kind: DiskKind,
    why_not_own: Option<String>,
    point: PathBuf,
    image: PathBuf,
    /// Held while the file system is frozen; thawed through it, whatever the path says by then.
    frozen: Mutex<Option<File>>,
    _home: RunDir,
}

impl Disk {
    /// Makes a host's disk of this size (at least 32 MiB), with a file system of its own if that
    /// can be had.
    ///
    /// # Errors
    ///
    /// Not even a directory can be made.
    pub fn create(host: &str, size_bytes: u64) -> Result<Self> {
        let home = RunDir::create(&format!("disk-{host}"))?;
        let point = home.path().join("data");
        let image = home.path().join("image");
        fs::create_dir(&point).context("make a host's data directory")?;
        let made =
            make_image(&image, size_bytes.max(32 << 20)).and_then(|()| mount(&image, &point));
        let (kind, why_not_own) = match made {
            Ok(()) => (DiskKind::Own, None),
            Err(error) => {
                let _ = fs::remove_file(&image);
                (DiskKind::Directory, Some(format!("{error:#}")))
            }
        };
        Ok(Self {
            kind,
            why_not_own,
            point,
            image,
            frozen: Mutex::new(None),
            _home: home,
        })
    }

    /// What the data stands on.
    pub fn kind(&self) -> DiskKind {
        self.kind
    }

    /// Where the host keeps its data.
    pub fn dir(&self) -> &Path {
        &self.point
    }

    /// Why faults of the device are skipped; `None` if they are not.
    pub fn why_not(&self) -> Option<&str> {
        self.why_not_own.as_deref()
    }

    fn on_own(&self, strike: impl FnOnce() -> Result<Effect>) -> Result<Effect> {
        match &self.why_not_own {
            Some(why) => Ok(Effect::skipped(format!("no file system of its own: {why}"))),
            None => strike(),
        }
    }

    /// Takes all free space.
    ///
    /// # Errors
    ///
    /// The device fails.
    pub fn fill(&self) -> Result<Effect> {
        self.on_own(|| {
            let mut filler = File::create(self.point.join(FILLER)).context("fill a disk")?;
            // At first without writing anything. Refused, the rest does it.
            let free = free_bytes(&self.point)? as libc::off_t;
            // SAFETY: the descriptor is open.
            unsafe { libc::fallocate(filler.as_raw_fd(), 0, 0, free) };
            filler.seek(io::SeekFrom::End(0))?;
            // Space is promised generously before it is taken, so that the disk says that it is
            // full too early: what is promised is taken (`sync`), and the rest filled up again.
            loop {
                let taken = fill_up(&mut filler).context("fill a disk")?;
                let _ = filler.sync_all();
                if taken == 0 {
                    break;
                }
            }
            Ok(Effect::Done)
        })
    }

    /// Whether no space is left.
    pub fn is_full(&self) -> bool {
        free_bytes(&self.point).is_ok_and(|bytes| bytes < 1 << 16)
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Errors
    ///
    /// The device fails.
    pub fn drain(&self) -> Result<()> {
        match fs::remove_file(self.point.join(FILLER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("give back a disk's space")
            }
            _ => Ok(()),
        }
    }

    /// Lets the file system fall back to read-only, as ext4 does after an error of the device.
    /// Writing again needs the process to be dead, and [`Disk::remount`].
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn fail_to_read_only(&self) -> Result<Effect> {
        self.on_own(|| {
            // A plain remount is refused while files are open for writing; `abort` is what ext4
            // does to itself.
            run(Command::new("mount")
                .args(["-o", "remount,abort"])
                .arg(&self.point))?;
            // It shows at the next attempt to write.
            let _ = File::create(self.point.join(".probe")).and_then(|f| f.sync_all());
            ensure!(!self.is_writable(), "the file system still takes writes");
            Ok(Effect::Done)
        })
    }

    /// Whether a new file can be made, which is then removed.
    pub fn is_writable(&self) -> bool {
        let probe = self.point.join(".probe");
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&probe)
            .and_then(|file| file.sync_all());
        let _ = fs::remove_file(probe);
        written.is_ok()
    }

    /// Lets every write wait (`FIFREEZE`), until [`Disk::thaw`].
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn freeze(&self) -> Result<Effect> {
        const FIFREEZE: libc::Ioctl = 0xC004_5877;
        self.on_own(|| {
            let dir = File::open(&self.point).context("open a disk")?;
            // SAFETY: the argument is not used.
            check(unsafe { libc::ioctl(dir.as_raw_fd(), FIFREEZE, 0) }).context("freeze a disk")?;
            *self.frozen() = Some(dir);
            Ok(Effect::Done)
        })
    }

    /// Lets writes go on.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        const FITHAW: libc::Ioctl = 0xC004_5878;
        let Some(dir) = self.frozen().take() else {
            return Ok(());
        };
        // SAFETY: the argument is not used.
        check(unsafe { libc::ioctl(dir.as_raw_fd(), FITHAW, 0) }).context("thaw a disk")
    }

    /// Whether writes wait.
    pub fn is_frozen(&self) -> bool {
        self.frozen().is_some()
    }

    fn frozen(&self) -> std::sync::MutexGuard<'_, Option<File>> {
        self.frozen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Limits writing to this many bytes per second.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn slow_down(&self, bytes_per_s: u64) -> Result<Effect> {
        self.on_own(|| {
            if !Path::new(THROTTLE).exists() {
                return Ok(Effect::skipped(format!("there is no {THROTTLE}")));
            }
            self.throttle(bytes_per_s)?;
            Ok(Effect::Done)
        })
    }

    /// Takes the limit off.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn speed_up(&self) -> Result<()> {
        if self.kind == DiskKind::Own && Path::new(THROTTLE).exists() {
            self.throttle(0)?;
        }
        Ok(())
    }

    /// Whether writing is limited.
    pub fn is_slow(&self) -> bool {
        self.device().is_ok_and(|device| {
            fs::read_to_string(THROTTLE).is_ok_and(|all| {
                all.lines()
                    .any(|line| line.split(' ').next() == Some(&device))
            })
        })
    }

    /// The limit stands on the device, in the group that everything belongs to.
    fn throttle(&self, bytes_per_s: u64) -> Result<()> {
        let line = format!("{} {bytes_per_s}", self.device()?);
        fs::write(THROTTLE, line).context("limit a disk's speed")
    }

    fn device(&self) -> Result<String> {
        let device = fs::metadata(&self.point)?.dev();
        Ok(format!("{}:{}", libc::major(device), libc::minor(device)))
    }

    /// Takes the power away (`FS_IOC_SHUTDOWN` without flushing the journal): what was not synced
    /// is lost, and every access fails until the process is dead and [`Disk::remount`].
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn cut_power(&self) -> Result<Effect> {
        const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587D;
        const NO_LOG_FLUSH: u32 = 2;
        self.on_own(|| {
            let dir = File::open(&self.point).context("open a disk")?;
            let how = NO_LOG_FLUSH;
            // SAFETY: the argument is a valid u32.
            check(unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const how) })
                .context("take a disk's power away")?;
            Ok(Effect::Done)
        })
    }

    /// Mounts the disk anew, as after a power loss or an error. The process must be dead.
    ///
    /// # Errors
    ///
    /// A process still has files open on it 20 s later; the file system is broken.
    pub fn remount(&self) -> Result<()> {
        if self.kind == DiskKind::Directory {
            return Ok(());
        }
        let until = Instant::now() + PATIENCE;
        while let Err(error) = unmount(&self.point) {
            if Instant::now() >= until {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        mount(&self.image, &self.point)?;
        ensure!(
            self.is_writable(),
            "the disk takes no writes after it was mounted anew"
        );
        Ok(())
    }

    /// Undoes whatever was done to the disk: thawed, drained, at full speed; mounted anew if it
    /// takes no writes, for which the process must be dead.
    ///
    /// # Errors
    ///
    /// As the single steps.
    pub fn restore(&self) -> Result<()> {
        self.thaw()?;
        self.speed_up()?;
        self.drain()?;
        if !self.is_writable() {
            self.remount()?;
        }
        Ok(())
    }

    /// Ends the newest write-ahead log with the beginning of a record that was never finished, as
    /// a crash in the middle of a write leaves it. Nothing that was synced is lost. The process
    /// must be dead. Returns the file; `None`: there is no log.
    ///
    /// # Errors
    ///
    /// The device fails.
    pub fn tear_log(&self, seed: u64) -> Result<Option<PathBuf>> {
        let Some(path) = self.newest_log()? else {
            return Ok(None);
        };
        let mut log = OpenOptions::new().append(true).open(&path)?;
        // A header that promises more bytes than follow, and a checksum that fits none of them.
        let mut torn = [0u8; 23];
        for (index, byte) in torn.iter_mut().enumerate() {
            *byte = (seed >> (index % 8 * 8)) as u8 ^ (index as u8).wrapping_mul(37);
        }
        torn[4..7].copy_from_slice(&[0xFF, 0x01, 1]);
        log.write_all(&torn).context("tear a log")?;
        log.sync_all()?;
        Ok(Some(path))
    }

    /// Cuts this many bytes off the newest write-ahead log: what was synced is lost, which no
    /// protocol is expected to survive unnoticed on too many hosts. The process must be dead.
    /// Returns the file; `None`: there is no log.
    ///
    /// # Errors
    ///
    /// The device fails.
    pub fn truncate_log(&self, bytes: u64) -> Result<Option<PathBuf>> {
        let Some(path) = self.newest_log()? else {
            return Ok(None);
        };
        let log = OpenOptions::new().write(true).open(&path)?;
        let length = log.metadata()?.len();
        log.set_len(length.saturating_sub(bytes))
            .context("shorten a log")?;
        log.sync_all()?;
        Ok(Some(path))
    }

    /// Turns one bit of the newest write-ahead log round. The process must be dead. Returns
    /// the file; `None`: there is no log.
    ///
    /// # Errors
    ///
    /// The device fails.
    pub fn flip_bit(&self, seed: u64) -> Result<Option<PathBuf>> {
        let Some(path) = self.newest_log()? else {
            return Ok(None);
        };
        let mut bytes = fs::read(&path)?;
        let place = (seed % bytes.len() as u64) as usize;
        bytes[place] ^= 1 << (seed >> 61);
        fs::write(&path, bytes).context("turn a bit of a log round")?;
        Ok(Some(path))
    }

    /// The `*.log` file below the data directory that was written last and is not empty.
    fn newest_log(&self) -> Result<Option<PathBuf>> {
        let mut newest = None;
        let mut dirs = vec![self.point.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir)?.flatten() {
                let (path, meta) = (entry.path(), entry.metadata()?);
                if meta.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|e| e == "log") && meta.len() > 0 {
                    newest = newest.max(Some((meta.modified()?, path)));
                }
            }
        }
        Ok(newest.map(|(_, path)| path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.thaw();
        let _ = self.speed_up();
        if self.kind == DiskKind::Own {
            // Still in use: taken out of sight now, and away when its last user ends.
            if unmount(&self.point).is_err() {
                let _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
            }
        }
    }
}

/// Writes until there is no space, in large pieces and then in small ones. Returns the bytes.
fn fill_up(filler: &mut File) -> io::Result<usize> {
    let mut written = 0;
    for piece in [1 << 20, 4096] {
        let zeros = vec![0u8; piece];
        loop {
            match filler.write(&zeros) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(written)
}

fn make_image(image: &Path, size_bytes: u64) -> Result<()> {
    let file = File::create(image).context("make a disk image")?;
    file.set_len(size_bytes)?;
    // No blocks kept for root, whom processes may run as: full is full.
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0"])
        .arg(image))
    .context("make a file system; install e2fsprogs")
}

fn mount(image: &Path, point: &Path) -> Result<()> {
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(image)
        .arg(point))
}

/// Unmounts what is mounted there; its loop device goes with it.
pub(crate) fn unmount(point: &Path) -> Result<()> {
    run(Command::new("umount").arg(point))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn free_bytes(point: &Path) -> Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(point.as_os_str().as_bytes())?;
    // SAFETY: zeros are a valid statvfs, and the path is a valid C string.
    unsafe {
        let mut free: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &raw mut free))?;
        Ok(free.f_bavail * free.f_frsize)
    }
}
