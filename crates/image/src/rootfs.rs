//! Root file systems of containers: overlay mounts of layers.
//!
//! Blocking; call from a thread that may block.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
    },
};
use types::{Digest, Error, Result, error::ResultExt as _};

use crate::{fsutil::open_dir, layers::LayerStore};

/// docker's limit; the kernel's own is 500.
pub(crate) const MAX_LAYERS: usize = 125;
/// The kernel takes strings of one `fsconfig` call up to here.
const MAX_OPTION: usize = 255;
/// The kernel takes one page of options of `mount`.
const MAX_DATA: usize = 4095;

/// A root file system to mount.
#[derive(Debug, Clone)]
pub struct RootfsSpec {
    /// Lowest first; may be empty.
    pub layers: Vec<Digest>,
    /// Takes what is written. Must exist.
    pub upper: PathBuf,
    /// The overlay's own scratch directory, on the same file system as `upper`. Must exist.
    pub work: PathBuf,
    /// Where it is mounted. Must exist.
    pub target: PathBuf,
    /// Never synchronise to disk: for containers that are removed when they exit.
    pub volatile: bool,
}

/// The options that every root file system has.
///
/// No index and no metacopy, so that layers stay plain directories. Redirects are neither
/// made nor followed: what a container renames is a full copy that `commit` and `diff` see.
const OPTIONS: &[(&str, &str)] = &[
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
];

/// A path, or where that is too long a short name for the open directory.
struct Place {
    text: String,
    _open: Option<OwnedFd>,
}

impl Place {
    fn new(dir: &Path, longest: usize) -> io::Result<Self> {
        // A colon or comma would end the path, a backslash is an escape.
        match dir.to_str() {
            Some(text) if text.len() <= longest && !text.contains([':', ',', '\\']) => Ok(Self {
                text: text.to_owned(),
                _open: None,
            }),
            _ => {
                let fd = open_dir(dir)?;
                Ok(Self {
                    text: format!("/proc/self/fd/{}", fd.as_raw_fd()),
                    _open: Some(fd),
                })
            }
        }
    }
}

impl LayerStore {
    /// The directories under a root file system, highest first.
    pub(crate) fn lower_dirs(&self, layers: &[Digest]) -> Result<Vec<PathBuf>> {
        if layers.len() > MAX_LAYERS {
            return Err(Error::invalid(format!(
                "max depth exceeded: {} layers, the limit is {MAX_LAYERS}",
                layers.len()
            )));
        }
        if let Some(missing) = layers.iter().find(|layer| !self.contains(layer)) {
            return Err(Error::not_found(format!("layer {missing} does not exist")));
        }
        Ok(layers
            .iter()
            .rev()
            .map(|layer| self.tree(layer))
            .chain([self.base()])
            .collect())
    }

    /// Mounts a root file system.
    ///
    /// Beneath the image lies a layer of kraud's own with `/proc`, `/dev`, `/etc/hosts` and
    /// their like, so that mounting onto them changes nothing in `upper`.
    pub fn mount_rootfs(&self, spec: &RootfsSpec) -> Result<()> {
        let lowers = self.lower_dirs(&spec.layers)?;
        let mounting = || format!("mounting the root file system {}", spec.target.display());
        if spec.volatile {
            // The kernel leaves this mark to warn of lost writes; here they do not matter.
            let _ = std::fs::remove_dir_all(spec.work.join("work/incompat"));
        }
        match mount_by_parts(&lowers, spec) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {
                mount_at_once(&lowers, spec).during(mounting)
            }
            other => other.during(mounting),
        }
    }

    /// Unmounts what [`LayerStore::mount_rootfs`] mounted at `target`. Not mounted is fine.
    pub fn unmount_rootfs(&self, target: &Path) -> Result<()> {
        // Lazily: a process that still has a file open keeps its view, nobody new gets one.
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::wrap(
                format_args!("unmounting {}", target.display()),
                error,
            )),
        }
    }
}

fn plain(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

/// With the mount calls of Linux 5.2, each lower directory an option of its own (6.8).
fn mount_by_parts(lowers: &[PathBuf], spec: &RootfsSpec) -> Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set_dir = |option: &str, dir: &Path| {
        let place = Place::new(dir, MAX_OPTION).map_err(|error| plain(&error))?;
        fsconfig_set_string(context.as_fd(), option, place.text.as_str())
    };
    for lower in lowers {
        set_dir("lowerdir+", lower)?;
    }
    set_dir("upperdir", &spec.upper)?;
    set_dir("workdir", &spec.work)?;
    for (option, value) in OPTIONS {
        fsconfig_set_string(context.as_fd(), *option, *value)?;
    }
    if spec.volatile {
        rustix::mount::fsconfig_set_flag(context.as_fd(), "volatile")?;
    }
    fsconfig_create(context.as_fd())?;
    let mounted = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    move_mount(
        mounted.as_fd(),
        "",
        CWD,
        &spec.target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// With `mount(2)`: all options in one string.
fn mount_at_once(lowers: &[PathBuf], spec: &RootfsSpec) -> io::Result<()> {
    let whole: usize = lowers.iter().map(|lower| lower.as_os_str().len() + 1).sum();
    let rest = spec.upper.as_os_str().len() + spec.work.as_os_str().len() + 128;
    // Too long: every directory by the number of its open file.
    let longest = if whole + rest <= MAX_DATA {
        usize::MAX
    } else {
        0
    };
    let places = lowers
        .iter()
        .map(|lower| Place::new(lower, longest))
        .collect::<io::Result<Vec<_>>>()?;
    let (upper, work) = (
        Place::new(&spec.upper, longest)?,
        Place::new(&spec.work, longest)?,
    );
    let lower = places
        .iter()
        .map(|place| place.text.as_str())
        .collect::<Vec<_>>()
        .join(":");
    let mut data = format!(
        "lowerdir={lower},upperdir={},workdir={}",
        upper.text, work.text
    );
    for (option, value) in OPTIONS {
        data.push_str(&format!(",{option}={value}"));
    }
    if spec.volatile {
        data.push_str(",volatile");
    }
    if data.len() > MAX_DATA {
        return Err(io::Error::other(
            "the mount options do not fit: too many layers for this kernel",
        ));
    }
    let data = CString::new(data)?;
    Ok(mount(
        "overlay",
        spec.target.as_os_str().as_bytes(),
        "overlay",
        MountFlags::empty(),
        Some(data.as_c_str()),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Older kernels take all directories in one string of limited length.
    #[test]
    fn many_long_names_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let lowers: Vec<PathBuf> = (0..MAX_LAYERS + 1)
            .map(|index| make(format!("{}/with:colon/{index}", "long".repeat(30))))
            .collect();
        std::fs::write(lowers[0].join("highest"), "").unwrap();
        std::fs::write(lowers[MAX_LAYERS].join("lowest"), "").unwrap();
        let spec = RootfsSpec {
            layers: Vec::new(),
            upper: make("upper".into()),
            work: make("work".into()),
            target: make("target".into()),
            volatile: true,
        };
        let check = || {
            let there = ["highest", "lowest"].map(|name| spec.target.join(name).exists());
            unmount(&spec.target, UnmountFlags::DETACH).unwrap();
            there
        };
        mount_at_once(&lowers, &spec).unwrap();
        assert_eq!(check(), [true, true]);
        std::fs::remove_dir_all(spec.work.join("work/incompat")).unwrap();
        mount_by_parts(&lowers, &spec).unwrap();
        assert_eq!(check(), [true, true]);
    }
}
