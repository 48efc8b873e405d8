//! Block volumes: an image or zvol, its loop device, the file system inside, its mount.
//!
//! What it does not do: count who uses what. Its caller does, and calls one volume's functions
//! one at a time.

use std::{
    fs::{self, File},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pool::loopdev;
use rustix::mount::{MountFlags, UnmountFlags};
use types::{Error, Result, error::ResultExt as _, volume::FileSystem};

use crate::{
    Place, Volume, commands,
    probe::{Holds, probe},
};

/// How long the kernel may take to let go of a file system after the last mount is gone: other
/// mount namespaces that are being taken apart hold it for a moment.
const LET_GO: Duration = Duration::from_secs(10);

/// The block device of an image: itself if it is one, else its loop device if it has one.
pub(crate) fn device_of(image: &Path) -> Result<Option<PathBuf>> {
    let meta = fs::metadata(image).during(|| format!("looking at {}", image.display()))?;
    if meta.file_type().is_block_device() {
        return Ok(Some(image.to_owned()));
    }
    loopdev::find(image)
}

/// Bytes of an image or block device.
pub(crate) fn size_of(image: &Path) -> Result<u64> {
    use std::io::Seek as _;
    let operation = || format!("looking at {}", image.display());
    let mut file = File::open(image).during(operation)?;
    file.seek(std::io::SeekFrom::End(0)).during(operation)
}

/// Attaches an image (a file or a block device), checks it, and mounts what is inside at
/// `target`. A raw volume is not mounted. On failure nothing stays attached.
pub(crate) fn attach(
    volume: &Volume,
    image: &Path,
    target: &Path,
    read_only: bool,
) -> Result<Place> {
    let device = match device_of(image)? {
        Some(device) => device,
        None => {
            let options = loopdev::Options {
                read_only,
                ..loopdev::Options::default()
            };
            loopdev::attach(image, options)?
        }
    };
    if volume.fs == FileSystem::Raw {
        return Ok(Place::Device(device));
    }
    let mounted = fault::step("volume.attach.device")
        .and_then(|()| mount(volume, &device, target, read_only));
    if mounted.is_err() {
        let _ = fs::remove_dir(target);
        give_back(&device)?;
    }
    mounted?;
    fault::step("volume.attach.mounted").inspect_err(|_| {
        let _ = detach_mount(target);
    })?;
    Ok(Place::Directory(target.to_owned()))
}

fn mount(volume: &Volume, device: &Path, target: &Path, read_only: bool) -> Result<()> {
    fs::create_dir_all(target).during(|| format!("creating {}", target.display()))?;
    if is_mounted(target)? {
        return Ok(());
    }
    let name = &volume.name;
    let held = probe(device)?;
    match (volume.fs, held) {
        (FileSystem::Ext4, Holds::Ext4 { clean, bytes }) if !read_only => {
            if !clean {
                check_ext4(volume, device)?;
            }
            if is_short(bytes, device)? {
                grow_at_rest(volume, device)?;
            }
        }
        (FileSystem::Ext4, Holds::Ext4 { .. }) | (FileSystem::Xfs, Holds::Xfs { .. }) => {}
        (wanted, held) => {
            return Err(Error::system(format!(
                "volume {name} should hold {wanted} but {}: nothing was changed; roll it back to a snapshot, or read it with fs=raw",
                describe(held)
            )));
        }
    }
    let options = match (volume.fs, read_only) {
        (FileSystem::Xfs, true) => c"nouuid,norecovery",
        // A clone has the same UUID as its origin.
        (FileSystem::Xfs, false) => c"nouuid,discard",
        (_, true) => c"noload",
        (_, false) => c"discard",
    };
    // What tenants make in a volume is nobody's device: not the daemon's either.
    let mut flags = MountFlags::NODEV;
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount(device, target, volume.fs.as_str(), flags, options).map_err(|error| {
        Error::system(format!(
            "mounting volume {name} ({}, {}): {error}; the kernel's log (dmesg) says more",
            volume.fs,
            device.display()
        ))
    })?;
    if let Holds::Xfs { bytes } = held
        && !read_only
        && is_short(bytes, device)?
    {
        grow(volume, device, target)?;
    }
    Ok(())
}

/// Whether a file system is smaller than its device by more than it leaves unused anyway.
fn is_short(bytes: u64, device: &Path) -> Result<bool> {
    const UNUSED: u64 = 16 << 20;
    let room = size_of(device)?.saturating_sub(bytes);
    Ok(room > UNUSED.min(bytes / 16))
}

/// Grows an ext4 that is not mounted to all of its device.
fn grow_at_rest(volume: &Volume, device: &Path) -> Result<()> {
    let path = device.to_string_lossy();
    // resize2fs demands a full check before it works on a file system at rest.
    let ended = commands::run("e2fsck", "e2fsprogs", &["-f", "-p", &path])?;
    if ended.code > 2 {
        return Err(Error::system(format!(
            "growing volume {}: e2fsck ended with code {}: {}",
            volume.name, ended.code, ended.output
        )));
    }
    commands::must(
        format_args!("growing the file system of volume {}", volume.name),
        "resize2fs",
        "e2fsprogs",
        &[&path],
    )
}

/// Whether a mounted file system can be grown by this process.
pub(crate) fn can_grow_mounted(volume: &Volume) -> Result<()> {
    /// ext4 demands it for a resize (fs/ext4/resize.c); xfs does not.
    const CAP_SYS_RESOURCE: u32 = 24;
    if volume.fs != FileSystem::Ext4 {
        return Ok(());
    }
    let status =
        fs::read_to_string("/proc/self/status").during(|| "reading the own capabilities")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    if effective >> CAP_SYS_RESOURCE & 1 == 1 {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "volume {} is mounted, and the kernel grows a mounted ext4 only for processes with CAP_SYS_RESOURCE, which kraud does not have here: stop the containers that use it and resize again (or use fs=xfs)",
        volume.name
    )))
}

fn describe(held: Holds) -> &'static str {
    match held {
        Holds::Nothing => "is blank",
        Holds::Ext4 { .. } => "holds ext4",
        Holds::Xfs { .. } => "holds xfs",
        Holds::Other => "holds something else",
    }
}

/// Replays the journal and mends what is safe to mend (e2fsck(8): code 1 means mended).
fn check_ext4(volume: &Volume, device: &Path) -> Result<()> {
    let path = device.to_string_lossy();
    let ended = commands::run("e2fsck", "e2fsprogs", &["-p", &path])?;
    match ended.code {
        0 => Ok(()),
        1 | 2 => {
            tracing::warn!(volume = %volume.name, report = ended.output, "the file system of a volume was not unmounted cleanly and was mended");
            Ok(())
        }
        code => Err(Error::system(format!(
            "the file system of volume {} is damaged (e2fsck ended with code {code}): {}; roll it back to a snapshot, or attach it with fs=raw and repair it by hand",
            volume.name, ended.output
        ))),
    }
}

/// Makes the file system of a new volume, unless there is one already.
pub(crate) fn format_if_blank(volume: &Volume, image: &Path) -> Result<()> {
    let path = image.to_string_lossy();
    let operation = format!("formatting volume {}", volume.name);
    match (volume.fs, probe(image)?) {
        (FileSystem::Raw, _)
        | (FileSystem::Ext4, Holds::Ext4 { .. })
        | (FileSystem::Xfs, Holds::Xfs { .. }) => return Ok(()),
        (_, Holds::Nothing) => {}
        (_, held) => {
            return Err(Error::conflict(format!(
                "{operation}: it {} already and is left alone",
                describe(held)
            )));
        }
    }
    // ext4's superblock is the last thing that mkfs writes: a cut-off formatting looks blank
    // and is done again.
    match volume.fs {
        FileSystem::Ext4 => commands::must(
            operation,
            "mkfs.ext4",
            "e2fsprogs",
            &[
                "-q",
                "-F",
                "-m",
                "0",
                "-E",
                "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
                &path,
            ],
        ),
        FileSystem::Xfs => commands::must(
            operation,
            "mkfs.xfs",
            "xfsprogs",
            &["-q", "-K", "-f", &path],
        ),
        FileSystem::Raw => Ok(()),
    }?;
    File::open(image)
        .and_then(|file| file.sync_all())
        .during(|| format!("writing out {}", image.display()))
}

/// Grows the file system at `mount` to all of its image.
pub(crate) fn grow(volume: &Volume, image: &Path, mount: &Path) -> Result<()> {
    let Some(device) = device_of(image)? else {
        return Err(Error::system(format!(
            "growing volume {}: its image is not attached",
            volume.name
        )));
    };
    refresh_size(&device)?;
    let operation = format!("growing the file system of volume {}", volume.name);
    match volume.fs {
        FileSystem::Ext4 => commands::must(
            operation,
            "resize2fs",
            "e2fsprogs",
            &[&device.to_string_lossy()],
        ),
        FileSystem::Xfs => {
            // The kernel does not recover a log that holds two growths (xfs_buf_map_verify: out
            // of range), and the superblock stays in the log for half a minute. A moment of rest
            // brings it into place: before, for a growth whose own was cut off, and after.
            let rest = || Frozen::new(vec![mount.to_owned()]).map(drop);
            rest()?;
            commands::must(
                operation,
                "xfs_growfs",
                "xfsprogs",
                &[&mount.to_string_lossy()],
            )?;
            rest()
        }
        FileSystem::Raw => Ok(()),
    }
}

/// Has a loop device look at the size of its file again.
pub(crate) fn refresh_size(device: &Path) -> Result<()> {
    const LOOP_MAJOR: u32 = 7;
    let meta = fs::metadata(device).during(|| format!("looking at {}", device.display()))?;
    if rustix::fs::major(meta.rdev()) == LOOP_MAJOR {
        loopdev::set_capacity(device)?;
    }
    Ok(())
}

/// The reverse of [`attach`].
pub(crate) fn detach(place: &Place, target: &Path) -> Result<()> {
    match place {
        Place::Device(device) => give_back(device),
        Place::Directory(_) => detach_mount(target),
    }
}

/// Unmounts what is at `target` and gives its device back. Nothing need be mounted.
pub(crate) fn detach_mount(target: &Path) -> Result<()> {
    let device = device_at(target)?;
    thaw(target);
    let begun = Instant::now();
    while is_mounted(target)? {
        match rustix::mount::unmount(target, UnmountFlags::empty()) {
            Ok(()) => {}
            Err(rustix::io::Errno::BUSY) if begun.elapsed() < LET_GO => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                return Err(Error::wrap(
                    format_args!("unmounting {}", target.display()),
                    error,
                ));
            }
        }
    }
    match fs::remove_dir(target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::wrap(
                format_args!("removing {}", target.display()),
                error,
            ));
        }
        _ => {}
    }
    match device {
        Some(device) => give_back(&device),
        None => Ok(()),
    }
}

/// Detaches an image that may still be attached.
pub(crate) fn detach_image(image: &Path) -> Result<()> {
    match device_of(image)? {
        Some(device) if device != image => give_back(&device),
        _ => Ok(()),
    }
}

/// Gives a loop device back once the kernel has let go of what was on it; other devices have
/// nothing to give back.
fn give_back(device: &Path) -> Result<()> {
    const LOOP_MAJOR: u32 = 7;
    let Ok(meta) = fs::metadata(device) else {
        return Ok(());
    };
    if rustix::fs::major(meta.rdev()) != LOOP_MAJOR {
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        match in_use(device) {
            false => return loopdev::detach(device),
            true if begun.elapsed() < LET_GO => std::thread::sleep(Duration::from_millis(5)),
            true => {
                return Err(Error::conflict(format!(
                    "{} is still in use: something has the volume's file system mounted or its device open",
                    device.display()
                )));
            }
        }
    }
}

/// Whether a file system on the device is alive: opening it for oneself fails then.
fn in_use(device: &Path) -> bool {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    matches!(
        rustix::fs::open(device, flags, Mode::empty()),
        Err(rustix::io::Errno::BUSY)
    )
}

/// Lines of the mount table: mount point and source.
fn mounts() -> Result<Vec<(PathBuf, PathBuf)>> {
    let text = fs::read_to_string("/proc/self/mountinfo").during(|| "reading the mount table")?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?;
            let source = right.split(' ').nth(1)?;
            Some((unescape(point), unescape(source)))
        })
        .collect())
}

/// The kernel writes blanks in paths as octal numbers.
fn unescape(text: &str) -> PathBuf {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
        .into()
}

fn is_mounted(target: &Path) -> Result<bool> {
    Ok(mounts()?.iter().any(|(point, _)| point == target))
}

fn device_at(target: &Path) -> Result<Option<PathBuf>> {
    let found = mounts()?.into_iter().rfind(|(point, _)| point == target);
    Ok(found.map(|(_, source)| source))
}

/// Ioctls of include/uapi/linux/fs.h.
const FIFREEZE: u64 = 0xC004_5877;
const FITHAW: u64 = 0xC004_5878;

fn freeze_ioctl(mount: &Path, request: u64) -> std::io::Result<()> {
    let file = File::open(mount)?;
    let mut level: i32 = 0;
    // SAFETY: both requests take a pointer to an int that lives for the length of the call.
    let result = unsafe { ioctl(file.as_raw_fd(), request, &raw mut level) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

unsafe extern "C" {
    fn ioctl(fd: i32, request: u64, argument: *mut i32) -> i32;
}

/// Lets a frozen file system go on; one that is not frozen, or not there, is left alone.
pub(crate) fn thaw(mount: &Path) {
    let _ = freeze_ioctl(mount, FITHAW);
}

/// File systems at rest, until dropped.
#[derive(Debug, Default)]
pub(crate) struct Frozen(Vec<PathBuf>);

impl Frozen {
    /// Writes everything out and holds writers. All or none.
    pub(crate) fn new(mounts: Vec<PathBuf>) -> Result<Self> {
        let mut frozen = Self::default();
        for mount in mounts {
            match freeze_ioctl(&mount, FIFREEZE) {
                Ok(()) => frozen.0.push(mount),
                Err(error) => {
                    return Err(Error::wrap(
                        format_args!("freezing the file system at {}", mount.display()),
                        error,
                    ));
                }
            }
        }
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for mount in &self.0 {
            if let Err(error) = freeze_ioctl(mount, FITHAW) {
                tracing::error!(mount = %mount.display(), %error, "a frozen file system could not be thawed: fsfreeze -u it");
            }
        }
    }
}
