//! What a pool lies on, as the system sees it: devices, files, mounts.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use types::{Error, Result, error::ResultExt as _};

use super::command::{SHORT, run};
use crate::probe;

/// The ZFS file system in which a directory is.
pub(super) fn file_system_of(path: &Path) -> Result<String> {
    let path = path
        .canonicalize()
        .during(|| format!("look for the directory {}", path.display()))?;
    mounts()?
        .into_iter()
        .filter(|mount| path.starts_with(&mount.point))
        // Of mounts one over the other the last counts, and is taken.
        .max_by_key(|mount| mount.point.components().count())
        .filter(|mount| matches!(mount.kind.as_str(), "zfs" | "fuse.zfs"))
        .map(|mount| mount.source)
        .ok_or_else(|| Error::invalid(format!("{} is not on a ZFS file system", path.display())))
}

struct Mount {
    point: PathBuf,
    kind: String,
    source: String,
}

fn mounts() -> Result<Vec<Mount>> {
    let table = std::fs::read_to_string("/proc/thread-self/mounts")
        .during(|| "read the table of mounts")?;
    let plain = |text: &str| {
        text.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\134", "\\")
    };
    Ok(table
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some(Mount {
                source: plain(words.next()?),
                point: PathBuf::from(plain(words.next()?)),
                kind: words.next()?.to_owned(),
            })
        })
        .collect())
}

/// A daemon of ZFS that was killed leaves mounts that answer nobody and hide what comes next.
pub(super) fn clear_dead_mounts(mount: &Path) -> Result<()> {
    let is_dead = |found: &Mount| {
        found.kind == "fuse.zfs"
            && found.point.starts_with(mount)
            && std::fs::metadata(&found.point).is_err_and(|error| {
                error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error())
            })
    };
    // The outermost first: those below it can't be reached, and go with it.
    while let Some(found) = mounts()?.into_iter().find(is_dead) {
        rustix::mount::unmount(&found.point, rustix::mount::UnmountFlags::DETACH)
            .during(|| format!("unmount {}, which is dead", found.point.display()))?;
    }
    Ok(())
}

/// The devices as `zpool create` and `zpool add` take them.
pub(super) fn layout(paths: &[PathBuf], mirror: bool) -> Result<Vec<String>> {
    if paths.is_empty() || (mirror && !paths.len().is_multiple_of(2)) {
        let wanted = if mirror {
            "two, or an even number"
        } else {
            "one at least"
        };
        return Err(Error::invalid(format!(
            "{} device(s) given: {wanted} must be",
            paths.len()
        )));
    }
    let mut words = Vec::new();
    for (i, path) in paths.iter().enumerate() {
        if !path.is_absolute() {
            return Err(Error::invalid(format!(
                "{} is not an absolute path",
                path.display()
            )));
        }
        if mirror && i % 2 == 0 {
            words.push("mirror".to_owned());
        }
        words.push(path.to_string_lossy().into_owned());
    }
    Ok(words)
}

/// Takes a pool's data off a device that was its.
pub(super) fn wipe(path: &Path) -> Result<()> {
    let file = path
        .metadata()
        .during(|| format!("look at {}", path.display()))?;
    if file.is_file() {
        return File::options()
            .write(true)
            .open(path)
            .and_then(|opened| opened.set_len(0).and_then(|()| opened.set_len(file.len())))
            .during(|| format!("empty {}", path.display()));
    }
    run(
        "wipefs",
        &["--all", "--quiet", &path.to_string_lossy()],
        SHORT,
    )?;
    Ok(())
}

/// Refuses what holds anything, or is used.
pub(super) fn refuse_used(path: &Path) -> Result<()> {
    let file = path.metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::not_found(format!("there is no device {}", path.display()))
        }
        _ => Error::wrap(format!("look at {}", path.display()), error),
    })?;
    if file.file_type().is_block_device() {
        return probe::check_free_device(path);
    }
    if !file.is_file() {
        return Err(Error::invalid(format!(
            "{} is neither a block device nor a file",
            path.display()
        )));
    }
    let what = match probe::content(path)? {
        Some(what) => what,
        None if starts_with_zeros(path)? => return Ok(()),
        None => "data".into(),
    };
    Err(Error::conflict(format!(
        "{path} holds {what}: if it is not needed, remove it and make it anew with: truncate -s {bytes} {path}",
        path = path.display(),
        bytes = file.len()
    )))
}

fn starts_with_zeros(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(1 << 20).read_to_end(&mut head))
        .during(|| format!("read {}", path.display()))?;
    Ok(head.iter().all(|byte| *byte == 0))
}

pub(super) fn make_file(path: &Path, bytes: u64) -> Result<()> {
    let operation = || format!("make {} of {bytes} bytes", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).during(operation)?;
    }
    if path.exists() {
        refuse_used(path)?;
    }
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .and_then(|file| file.set_len(bytes))
        .during(operation)
}

pub(super) fn grow_file(path: &Path, bytes: u64) -> Result<()> {
    let operation = || format!("grow {} to {bytes} bytes", path.display());
    let file = File::options().write(true).open(path).during(operation)?;
    let now = file.metadata().during(operation)?.len();
    if bytes < now {
        return Err(Error::invalid(format!(
            "{} has {now} bytes already: a pool never becomes smaller",
            path.display()
        )));
    }
    file.set_len(bytes).during(operation)
}
