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
use types::{Error, Result, container::DeviceMapping, error::ResultExt as _};

use super::LocalAgent;
use crate::plan::{MountPlan, MountSource, Plan};

impl LocalAgent {
    /// The mounts of a plan with their sources on this machine, made where they must be.
    pub(super) fn bundle_mounts(&self, plan: &Plan) -> Result<Vec<BundleMount>> {
        let is_raw = |mount: &MountPlan| matches!(&mount.source, MountSource::Volume { volume, .. } if volume.is_raw());
        plan.mounts
            .iter()
            .filter(|mount| !is_raw(mount))
            .map(|mount| self.bundle_mount(plan, mount))
            .collect()
    }

    fn bundle_mount(&self, plan: &Plan, mount: &MountPlan) -> Result<BundleMount> {
        let kind = match &mount.source {
            MountSource::Tmpfs { options } => MountKind::Tmpfs {
                options: options.clone(),
            },
            MountSource::Bind { path, create } => bind_kind(mount, bind_source(path, *create)?),
            MountSource::Volume {
                volume,
                snapshot,
                subpath,
                ..
            } => {
                // Attached already, when the start began: this only says where.
                let place = self
                    .volumes
                    .attach(volume, snapshot.as_ref(), plan.id.as_str())?;
                bind_kind(mount, beneath(place.path(), subpath)?)
            }
        };
        Ok(BundleMount {
            target: mount.target.clone().into(),
            read_only: mount.read_only,
            kind,
        })
    }

    /// Raw volumes of a plan as devices: what a container gets instead of a mount.
    pub(super) fn raw_devices(&self, plan: &Plan) -> Result<Vec<DeviceMapping>> {
        let mut devices = Vec::new();
        for mount in &plan.mounts {
            let MountSource::Volume {
                volume, snapshot, ..
            } = &mount.source
            else {
                continue;
            };
            if !volume.is_raw() {
                continue;
            }
            let place = self
                .volumes
                .attach(volume, snapshot.as_ref(), plan.id.as_str())?;
            devices.push(DeviceMapping {
                path_on_host: place.path().display().to_string(),
                path_in_container: format!("/dev/volumes/{}", volume.name),
                cgroup_permissions: if mount.read_only { "r" } else { "rw" }.into(),
            });
        }
        Ok(devices)
    }

    /// The path that `docker cp` sees at a mount of a container that does not run; `None` for
    /// memory and devices. The volume stays attached as long as the guard lives.
    pub(super) fn source_at_rest(
        &self,
        mount: &MountPlan,
    ) -> Result<Option<(PathBuf, Option<volume::User>)>> {
        match &mount.source {
            MountSource::Tmpfs { .. } => Ok(None),
            MountSource::Bind { path, create } => Ok(Some((bind_source(path, *create)?, None))),
            MountSource::Volume { volume, .. } if volume.is_raw() => Ok(None),
            MountSource::Volume {
                volume,
                snapshot,
                subpath,
                ..
            } => {
                let used = self.volumes.use_for(volume, snapshot.as_ref(), "cp")?;
                let path = beneath(used.path(), subpath)?;
                Ok(Some((path, Some(used))))
            }
        }
    }
}

fn bind_kind(mount: &MountPlan, source: PathBuf) -> MountKind {
    MountKind::Bind {
        source,
        recursive: !mount.non_recursive,
        propagation: mount.propagation.clone(),
        recursive_read_only: false,
    }
}

fn bind_source(path: &Path, create: bool) -> Result<PathBuf> {
    if create && !path.exists() {
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
    Ok(path.to_owned())
}

/// A path in a volume that no link leads out of.
fn beneath(root: &Path, subpath: &str) -> Result<PathBuf> {
    if subpath.is_empty() {
        return Ok(root.to_owned());
    }
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
pub(super) fn mount_shm(dir: &Path, size: u64, owner: u32) -> Result<()> {
    unmount_shm(dir)?;
    fs::create_dir_all(dir).during(|| format!("creating {}", dir.display()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = std::ffi::CString::new(format!("mode=1777,size={size},uid={owner},gid={owner}"))
        .during(|| "mount options")?;
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
