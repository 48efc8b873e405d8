//! What a btrfs pool lies on: making, finding, mounting, growing and leaving it.
//!
//! Datasets and quota begin above this: here a pool is a mounted file system.

use std::{
    ffi::{CString, OsString},
    fs::{self, File},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fault::point;
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags},
};
use types::{Error, PoolName, Result, error::ResultExt as _};

use super::ioctl;
use crate::{
    PoolSpec, Source, loopdev,
    probe::{self, BtrfsHead, btrfs_head},
};

/// mkfs.btrfs refuses less than 109 MiB, and a pool of so little is of no use.
const MIN_BYTES: u64 = 128 << 20;

/// The file system magic of btrfs that statfs gives.
const MAGIC: i64 = 0x9123_683e;

/// A mounted pool.
#[derive(Debug)]
pub(super) struct Mounted {
    /// The directory that datasets lie in.
    pub(super) root: PathBuf,
    pub(super) uuid: [u8; 16],
    /// Devices that are not used though they should be, and why.
    pub(super) away: Vec<String>,
}

/// The label that tells a pool of this name.
fn label(name: &PoolName) -> String {
    format!("kraud:{name}")
}

/// Formats what the pool shall lie on. What an earlier call that was cut off has formatted
/// already stays.
pub(super) fn format(spec: &PoolSpec) -> Result<()> {
    match &spec.source {
        Source::File { path, bytes } => format_file(&spec.name, path, *bytes),
        Source::Devices { paths, mirror } => format_devices(&spec.name, paths, *mirror),
        Source::Directory { path } => check_directory(path),
    }
}

fn format_file(name: &PoolName, path: &Path, bytes: u64) -> Result<()> {
    if bytes < MIN_BYTES {
        return Err(Error::invalid(format!(
            "a pool of {bytes} bytes is too small: at least {MIN_BYTES}"
        )));
    }
    if path.exists() {
        return check_ours(name, path);
    }
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    let staged = PathBuf::from(staged);
    let file = File::create(&staged).during(|| format!("make {}", staged.display()))?;
    // Where the pool's file lies on a btrfs itself it must not be copied on write; elsewhere
    // there is no such flag.
    if let Ok(flags) = rustix::fs::ioctl_getflags(&file) {
        let _ = rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::NOCOW);
    }
    file.set_len(bytes)
        .during(|| format!("make {} {bytes} bytes large", staged.display()))?;
    mkfs(name, std::slice::from_ref(&staged), "dup", "single")?;
    file.sync_all()
        .during(|| format!("write {}", staged.display()))?;
    point("btrfs.pool.formatted");
    fs::rename(&staged, path).during(|| format!("name {}", path.display()))?;
    sync_directory(path)?;
    point("btrfs.pool.named");
    Ok(())
}

fn format_devices(name: &PoolName, paths: &[PathBuf], mirror: bool) -> Result<()> {
    match (paths.len(), mirror) {
        (0, _) => return Err(Error::invalid("a pool needs a device")),
        (1, true) => return Err(Error::invalid("a mirror needs two devices")),
        _ => {}
    }
    let heads = paths
        .iter()
        .map(|path| match path.exists() {
            true => btrfs_head(path),
            false => Ok(None),
        })
        .collect::<Result<Vec<_>>>()?;
    let ours = |head: &Option<BtrfsHead>| head.as_ref().is_some_and(|h| h.label == label(name));
    if heads.iter().all(ours) {
        return Ok(());
    }
    for (path, head) in paths.iter().zip(&heads) {
        // A device of ours among others is what an interrupted mkfs left.
        match ours(head) {
            true => probe::check_unused_device(path)?,
            false => probe::check_free_device(path)?,
        }
    }
    let (data, metadata) = match (paths.len(), mirror) {
        (1, _) => ("single", "dup"),
        (_, false) => ("single", "raid1"),
        (_, true) => ("raid1", "raid1"),
    };
    mkfs(name, paths, metadata, data)?;
    point("btrfs.pool.formatted");
    Ok(())
}

/// Whether the file at the pool's path is the pool of this name; anything else is refused.
fn check_ours(name: &PoolName, path: &Path) -> Result<()> {
    match btrfs_head(path)? {
        Some(head) if head.label == label(name) => Ok(()),
        _ => Err(Error::conflict(format!(
            "{} exists and is not pool {name}: remove it or choose another path",
            path.display()
        ))),
    }
}

fn check_directory(path: &Path) -> Result<()> {
    let stat = rustix::fs::statfs(path).during(|| format!("look at {}", path.display()))?;
    #[allow(clippy::unnecessary_cast)] // its type differs between architectures
    if stat.f_type as i64 != MAGIC {
        return Err(Error::invalid(format!(
            "{} is not on a btrfs file system",
            path.display()
        )));
    }
    Ok(())
}

fn mkfs(name: &PoolName, paths: &[PathBuf], metadata: &str, data: &str) -> Result<()> {
    let output = Command::new("mkfs.btrfs")
        .args(["--quiet", "--nodiscard", "--force", "--label", &label(name)])
        .args(["--metadata", metadata, "--data", data, "--"])
        .args(paths)
        .output()
        .during(|| "run mkfs.btrfs (Debian: btrfs-progs)")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::system(format!(
        "make pool {name}: mkfs.btrfs: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

fn sync_directory(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .during(|| format!("write {}", parent.display()))
}

/// Mounts the pool unless it is mounted.
pub(super) fn mount(spec: &PoolSpec, mount: &Path) -> Result<Mounted> {
    match &spec.source {
        Source::Directory { path } => {
            check_directory(path)?;
            Ok(Mounted {
                root: path.clone(),
                uuid: mounted_uuid(path)?,
                away: Vec::new(),
            })
        }
        Source::File { path, .. } => mount_file(&spec.name, path, mount),
        Source::Devices { paths, mirror } => mount_devices(&spec.name, paths, *mirror, mount),
    }
}

fn mount_file(name: &PoolName, path: &Path, mount: &Path) -> Result<Mounted> {
    if !path.exists() {
        return Err(Error::not_found(format!(
            "the file of pool {name} is gone: {}",
            path.display()
        )));
    }
    let Some(head) = btrfs_head(path)? else {
        return Err(Error::unavailable(format!(
            "{} of pool {name} holds no btrfs",
            path.display()
        )));
    };
    let uuid = head.uuid;
    if !is_mounted(mount, uuid)? {
        let device = loopdev::attach(path, loopdev::Options::default())?;
        if let Err(error) = mount_btrfs(&device, mount, "discard=async") {
            let _ = loopdev::detach(&device);
            return Err(error);
        }
        // While another copy of it is mounted, the kernel gives this one an id for the time being.
        if mounted_uuid(mount)? != uuid {
            let _ = rustix::mount::unmount(mount, UnmountFlags::NOFOLLOW);
            let _ = loopdev::detach(&device);
            return Err(Error::conflict(format!(
                "pool {name} can't be opened: a copy of {} is in use",
                path.display()
            )));
        }
    }
    Ok(Mounted {
        root: mount.to_owned(),
        uuid,
        away: Vec::new(),
    })
}

/// The devices of a pool as they are found.
struct Survey {
    uuid: [u8; 16],
    good: Vec<PathBuf>,
    /// Those that must not be used, with the reason; the path where there is a device.
    bad: Vec<(PathBuf, String)>,
}

/// Looks which devices are there and hold the same state.
///
/// A device that was away while the pool was written holds old data, and where files are not
/// copied on write nothing else would tell: its generation is behind by two or more (every
/// degraded mount commits twice before anything else). One generation of difference is what a
/// crash between the two writes of a commit leaves; both then hold all that was acknowledged.
fn survey(name: &PoolName, paths: &[PathBuf]) -> Result<Survey> {
    let mut heads = Vec::new();
    let mut bad = Vec::new();
    for path in paths {
        match fs::metadata(path).map(|_| btrfs_head(path)) {
            Ok(Ok(Some(head))) if head.label == label(name) => heads.push((path.clone(), head)),
            Ok(Ok(_)) => bad.push((path.clone(), "it holds something else".to_owned())),
            Ok(Err(error)) => bad.push((path.clone(), error.message)),
            Err(error) => bad.push((path.clone(), error.to_string())),
        }
    }
    let Some((_, newest)) = heads
        .iter()
        .max_by_key(|(_, head)| head.generation)
        .cloned()
    else {
        return Err(Error::unavailable(format!(
            "no device of pool {name} is there: {}",
            bad.iter()
                .map(|(path, why)| format!("{}: {why}", path.display()))
                .collect::<Vec<_>>()
                .join("; ")
        )));
    };
    if (heads.len() as u64) < newest.devices {
        find_others(&mut heads, &newest, &mut bad);
    }
    let mut good = Vec::new();
    for (path, head) in heads {
        if head.uuid != newest.uuid {
            bad.push((path, "it belongs to another pool of the same name".into()));
        } else if head.generation + 2 <= newest.generation {
            bad.push((
                path,
                "it was away while the pool was written and holds old data".into(),
            ));
        } else {
            good.push(path);
        }
    }
    if bad.is_empty() && (good.len() as u64) < newest.devices {
        bad.push((PathBuf::from("a device"), "it is not there".into()));
    }
    Ok(Survey {
        uuid: newest.uuid,
        good,
        bad,
    })
}

/// Devices that bear another name now, and those that were added just before a crash.
fn find_others(
    heads: &mut Vec<(PathBuf, BtrfsHead)>,
    newest: &BtrfsHead,
    bad: &mut Vec<(PathBuf, String)>,
) {
    let real = |path: &Path| fs::canonicalize(path).ok();
    for (path, head) in probe::btrfs_devices(newest.uuid) {
        if !heads.iter().any(|(have, _)| real(have) == real(&path)) {
            heads.push((path, head));
        }
    }
    // Whatever is at the paths of those is nothing that is missed.
    if heads.len() as u64 >= newest.devices {
        bad.clear();
    }
}

fn mount_devices(
    name: &PoolName,
    paths: &[PathBuf],
    mirror: bool,
    mount: &Path,
) -> Result<Mounted> {
    let survey = survey(name, paths)?;
    let away: Vec<String> = survey
        .bad
        .iter()
        .map(|(path, why)| format!("{}: {why}", path.display()))
        .collect();
    let mounted = Mounted {
        root: mount.to_owned(),
        uuid: survey.uuid,
        away,
    };
    if is_mounted(mount, survey.uuid)? {
        return Ok(mounted);
    }
    if !mounted.away.is_empty() && !mirror {
        return Err(Error::unavailable(format!(
            "pool {name} can't be used without {}",
            mounted.away.join("; ")
        )));
    }
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/btrfs-control")
        .during(|| "open /dev/btrfs-control")?;
    for (path, _) in survey.bad.iter().filter(|(path, _)| path.exists()) {
        // The kernel would use it because it bears the pool's id.
        let _ = ioctl::device_forget(&control, path.as_os_str());
    }
    for path in &survey.good {
        ioctl::device_scan(&control, path.as_os_str())
            .during(|| format!("tell the kernel of {}", path.display()))?;
    }
    let first = &survey.good[0];
    if mounted.away.is_empty() {
        mount_btrfs(first, mount, "")?;
    } else {
        tracing::warn!(pool = %name, away = %mounted.away.join("; "), "the pool is opened degraded");
        mount_btrfs(first, mount, "degraded")?;
        advance_generation(mount)?;
    }
    Ok(mounted)
}

/// Two commits with a change each, see [`survey`].
fn advance_generation(mount: &Path) -> Result<()> {
    let root = File::open(mount).during(|| format!("open {}", mount.display()))?;
    for step in [b"1", b"2"] {
        xattr::set(mount, "trusted.kraud.degraded", step)
            .during(|| format!("mark {}", mount.display()))?;
        ioctl::commit(&root).during(|| format!("write {}", mount.display()))?;
    }
    Ok(())
}

fn mount_btrfs(device: &Path, mount: &Path, options: &str) -> Result<()> {
    fs::create_dir_all(mount).during(|| format!("make {}", mount.display()))?;
    let data =
        CString::new(options).map_err(|_| Error::system("mount options with a zero byte"))?;
    // What tenants make in a volume is nobody's device: not the daemon's either.
    let flags = MountFlags::NOATIME | MountFlags::NODEV;
    rustix::mount::mount(device, mount, "btrfs", flags, data.as_c_str()).during(|| {
        format!(
            "mount the btrfs on {} at {}",
            device.display(),
            mount.display()
        )
    })?;
    point("btrfs.pool.mounted");
    Ok(())
}

/// Whether the file system `uuid` is mounted at `mount`. Another one there is a `Conflict`.
fn is_mounted(mount: &Path, uuid: [u8; 16]) -> Result<bool> {
    if !is_mount_point(mount)? {
        return Ok(false);
    }
    match mounted_uuid(mount) {
        Ok(found) if found == uuid => Ok(true),
        _ => Err(Error::conflict(format!(
            "something else is mounted at {}",
            mount.display()
        ))),
    }
}

/// Whether something is mounted at `path`.
pub(super) fn is_mount_point(path: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    match statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(Error::wrap(format!("look at {}", path.display()), error)),
    }
}

/// The id of the btrfs that `path` is on.
pub(super) fn mounted_uuid(path: &Path) -> Result<[u8; 16]> {
    let directory = File::open(path).during(|| format!("open {}", path.display()))?;
    Ok(ioctl::file_system(&directory)
        .during(|| format!("look at the file system of {}", path.display()))?
        .uuid)
}

/// Unmounts the pool and gives its loop device back.
pub(super) fn unmount(spec: &PoolSpec, mount: &Path) -> Result<()> {
    if matches!(spec.source, Source::Directory { .. }) {
        return Ok(());
    }
    // A process that is just being started has copies of our open files for a moment.
    let deadline = Instant::now() + Duration::from_secs(1);
    while is_mount_point(mount)? {
        match rustix::mount::unmount(mount, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::BUSY) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::BUSY) => {
                return Err(Error::conflict(format!(
                    "pool {} is in use: {} can't be unmounted",
                    spec.name,
                    mount.display()
                )));
            }
            Err(error) => return Err(Error::wrap(format!("unmount {}", mount.display()), error)),
        }
    }
    match &spec.source {
        Source::File { path, .. } => match loopdev::find(path)? {
            Some(device) => loopdev::detach_when_idle(&device),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Removes what the pool lay on; devices lose the mark of the pool.
pub(super) fn erase(spec: &PoolSpec, mount: &Path) -> Result<()> {
    match &spec.source {
        Source::File { path, .. } => {
            remove_file(path)?;
            sync_directory(path)?;
        }
        Source::Devices { paths, .. } => {
            for path in paths.iter().filter(|path| path.exists()) {
                wipe(&spec.name, path)?;
            }
        }
        Source::Directory { .. } => return Ok(()),
    }
    match fs::remove_dir(mount) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::wrap(format!("remove {}", mount.display()), error)),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::wrap(format!("remove {}", path.display()), error)),
    }
}

/// Takes the superblocks of a device away if they are those of this pool.
fn wipe(name: &PoolName, path: &Path) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    if btrfs_head(path)?.is_none_or(|head| head.label != label(name)) {
        return Ok(());
    }
    let size = loopdev::device_size(path)?;
    let device = File::options()
        .write(true)
        .open(path)
        .during(|| format!("open {}", path.display()))?;
    // The copies of the superblock, the first last: it is what tells that there is a pool.
    for at in [256u64 << 30, 64 << 20, 64 << 10] {
        if at + 4096 <= size {
            device
                .write_all_at(&[0; 4096], at)
                .during(|| format!("wipe {}", path.display()))?;
        }
    }
    device
        .sync_all()
        .during(|| format!("wipe {}", path.display()))?;
    if let Ok(control) = File::options()
        .read(true)
        .write(true)
        .open("/dev/btrfs-control")
    {
        let _ = ioctl::device_forget(&control, path.as_os_str());
    }
    Ok(())
}

/// Lets a file pool's file become `bytes` large, and the file system with it.
pub(super) fn grow_file(path: &Path, bytes: u64, root: &File) -> Result<()> {
    let file = File::options()
        .write(true)
        .open(path)
        .during(|| format!("open {}", path.display()))?;
    let now = file
        .metadata()
        .during(|| format!("look at {}", path.display()))?
        .len();
    if bytes < now {
        return Err(Error::invalid(format!(
            "a pool can't shrink: it has {now} bytes"
        )));
    }
    file.set_len(bytes)
        .and_then(|()| file.sync_all())
        .during(|| format!("let {} grow to {bytes} bytes", path.display()))?;
    point("btrfs.grow.file");
    let device = loopdev::find(path)?
        .ok_or_else(|| Error::unavailable(format!("{} is not attached", path.display())))?;
    loopdev::set_capacity(&device)?;
    fill(root)
}

/// Lets the file system use all of its devices.
pub(super) fn fill(root: &File) -> Result<()> {
    for device in ioctl::devices(root).during(|| "list the devices of the pool")? {
        if device.path.as_os_str().is_empty() {
            continue;
        }
        ioctl::resize(root, &format!("{}:max", device.id))
            .during(|| format!("use all of {}", device.path.display()))?;
    }
    Ok(())
}

/// Adds devices; those that are part of it already are fine.
pub(super) fn add(paths: &[PathBuf], root: &File) -> Result<()> {
    let present = ioctl::devices(root).during(|| "list the devices of the pool")?;
    for path in paths {
        let real = fs::canonicalize(path).during(|| format!("find {}", path.display()))?;
        if present
            .iter()
            .any(|device| fs::canonicalize(&device.path).is_ok_and(|have| have == real))
        {
            continue;
        }
        probe::check_free_device(&real)?;
        ioctl::device_add(root, real.as_os_str())
            .during(|| format!("add {} to the pool", path.display()))?;
        point("btrfs.grow.device");
    }
    Ok(())
}

/// The paths of a file system's devices, those of missing ones left out.
pub(super) fn present(devices: &[ioctl::Device]) -> Vec<PathBuf> {
    devices
        .iter()
        .map(|device| OsString::from(device.path.as_os_str()))
        .filter(|path| !path.as_bytes().is_empty())
        .map(PathBuf::from)
        .collect()
}
