//! Sources of a container's mounts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use runtime::bundle::{BundleMount, MountKind};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    mount::{MountFlags, UnmountFlags},
};
use types::{Error, Result, error::ResultExt as _};

use super::LocalAgent;
use crate::{
    NodeAgent as _,
    plan::{MountPlan, MountSource, Plan},
};

impl LocalAgent {
    /// The mounts of a plan with their sources on this machine, made where they must be.
    pub(super) fn bundle_mounts(&self, plan: &Plan) -> Result<Vec<BundleMount>> {
        plan.mounts
            .iter()
            .map(|mount| self.bundle_mount(mount))
            .collect()
    }

    fn bundle_mount(&self, mount: &MountPlan) -> Result<BundleMount> {
        let kind = match self.mount_source(mount)? {
            None => match &mount.source {
                MountSource::Tmpfs { options } => MountKind::Tmpfs {
                    options: options.clone(),
                },
                _ => {
                    return Err(Error::system(format!(
                        "mount of {} has no source",
                        mount.target
                    )));
                }
            },
            Some(source) => MountKind::Bind {
                source,
                recursive: !mount.non_recursive,
                propagation: mount.propagation.clone(),
                recursive_read_only: false,
            },
        };
        Ok(BundleMount {
            target: mount.target.clone().into(),
            read_only: mount.read_only,
            kind,
        })
    }

    /// The path that is bound; `None` for memory.
    pub(super) fn mount_source(&self, mount: &MountPlan) -> Result<Option<PathBuf>> {
        match &mount.source {
            MountSource::Tmpfs { .. } => Ok(None),
            MountSource::Bind { path, create } => {
                if *create && !path.exists() {
                    fs::create_dir_all(path).map_err(|error| {
                        Error::wrap(
                            format_args!(
                                "error while creating mount source path '{}'",
                                path.display()
                            ),
                            error,
                        )
                    })?;
                }
                Ok(Some(path.clone()))
            }
            MountSource::Volume { name, subpath, .. } => {
                let root = self.volume_path(name);
                if subpath.is_empty() {
                    Ok(Some(root))
                } else {
                    beneath(&root, subpath).map(Some)
                }
            }
        }
    }
}

/// A path in a volume that no link leads out of.
fn beneath(root: &Path, subpath: &str) -> Result<PathBuf> {
    let operation = || format!("opening {subpath:?} in volume directory {}", root.display());
    let dir = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .during(operation)?;
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(
        &dir,
        subpath,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        flags,
    )
    .during(operation)?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
    fs::read_link(&link).during(operation)
}

/// Memory that several containers share as /dev/shm.
pub(super) fn mount_shm(dir: &Path, size: u64) -> Result<()> {
    unmount_shm(dir)?;
    fs::create_dir_all(dir).during(|| format!("creating {}", dir.display()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options =
        std::ffi::CString::new(format!("mode=1777,size={size}")).during(|| "mount options")?;
    rustix::mount::mount("shm", dir, "tmpfs", flags, options.as_c_str())
        .during(|| format!("mounting {}", dir.display()))
}

/// The reverse; neither the mount nor the directory need exist.
pub(super) fn unmount_shm(dir: &Path) -> Result<()> {
    while rustix::mount::unmount(dir, UnmountFlags::DETACH).is_ok() {}
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::wrap(
            format_args!("removing {}", dir.display()),
            error,
        )),
        _ => Ok(()),
    }
}
