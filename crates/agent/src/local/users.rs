//! Containers with users of their own: what they reach lies where only their root can go, with
//! owners as they see them.
//!
//! ```text
//! <run>/users/<id>/root     the root file system
//! <run>/users/<id>/shm      /dev/shm, where it is shared
//! <run>/users/<id>/dev      nodes of raw volumes
//! <run>/users/<id>/<n>      sources of mounts, until the container runs and has its own
//! ```

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use runtime::bundle::{BundleMount, MountKind};
use rustix::{
    fs::{CWD, FileType, Mode},
    mount::{MountFlags, UnmountFlags, unmount},
};
use types::{ContainerId, Result, container::DeviceMapping, error::ResultExt as _};
use userns::UserNamespace;

use super::LocalAgent;
use crate::plan::{Plan, Share};

/// What is not needed any more once the container runs.
const LASTING: [&str; 2] = ["root", "shm"];

impl LocalAgent {
    pub(super) fn users_dir(&self, id: &ContainerId) -> PathBuf {
        self.run_dir.join("users").join(id.as_str())
    }

    /// Where a container's root file system is mounted while it runs.
    pub(super) fn root_of(&self, plan: &Plan) -> PathBuf {
        match plan.ids() {
            Some(_) => self.users_dir(&plan.id).join("root"),
            None => self.paths_of(&plan.id).merged,
        }
    }

    /// The user namespace of a container, made if need be; `None` for the machine's own.
    pub(super) fn namespace_of(&self, plan: &Plan) -> Result<Option<Arc<UserNamespace>>> {
        let (Some(share), Some(ids)) = (&plan.share, plan.ids()) else {
            return Ok(None);
        };
        self.users.ensure(&share.name, ids).map(Some)
    }

    /// Makes the directory that only the container's root can go into.
    pub(super) fn prepare_users(&self, plan: &Plan) -> Result<()> {
        let Some(ids) = plan.ids() else {
            return Ok(());
        };
        self.clear_users(&plan.id, &[])?;
        let dir = self.users_dir(&plan.id);
        let doing = || format!("creating {}", dir.display());
        fs::create_dir_all(dir.join("root")).during(doing)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).during(doing)?;
        chown(&dir, Some(ids.first), Some(ids.first)).during(doing)
    }

    /// Binds the sources of mounts to where the container's root reaches them, with owners as
    /// it sees them.
    pub(super) fn map_sources<'a>(
        &self,
        plan: &Plan,
        namespace: &UserNamespace,
        sources: impl Iterator<Item = &'a mut PathBuf>,
    ) -> Result<()> {
        let dir = self.users_dir(&plan.id);
        for (index, source) in sources.enumerate() {
            // What kraud made for it lies there already.
            if source.starts_with(&dir) {
                continue;
            }
            let target = dir.join(index.to_string());
            let is_dir = fs::metadata(&*source)
                .during(|| format!("looking at {}", source.display()))?
                .is_dir();
            let made = match is_dir {
                true => fs::create_dir(&target),
                false => fs::File::create_new(&target).map(drop),
            };
            made.during(|| format!("creating {}", target.display()))?;
            namespace.mount(source, &target)?;
            *source = target;
        }
        Ok(())
    }

    /// Raw volumes as nodes that the container's root owns, to be bound into it: it cannot make
    /// any, and may not open the machine's.
    pub(super) fn map_devices(
        &self,
        plan: &Plan,
        devices: &[DeviceMapping],
    ) -> Result<Vec<BundleMount>> {
        let Some(ids) = plan.ids().filter(|_| !devices.is_empty()) else {
            return Ok(Vec::new());
        };
        let dir = self.users_dir(&plan.id).join("dev");
        let doing = || format!("making device nodes in {}", dir.display());
        fs::create_dir(&dir).during(doing)?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        // Run directories are often on a file system without devices.
        rustix::mount::mount("dev", &dir, "tmpfs", flags, Some(c"size=64k,mode=755"))
            .during(doing)?;
        let mut mounts = Vec::new();
        for (index, device) in devices.iter().enumerate() {
            let facts = fs::metadata(&device.path_on_host)
                .during(|| format!("looking at {}", device.path_on_host))?;
            let node = dir.join(index.to_string());
            let mode = Mode::from_raw_mode(0o660);
            rustix::fs::mknodat(CWD, &node, FileType::BlockDevice, mode, facts.rdev())
                .during(doing)?;
            chown(&node, Some(ids.first), Some(ids.first)).during(doing)?;
            mounts.push(BundleMount {
                target: device.path_in_container.clone().into(),
                read_only: !device.cgroup_permissions.contains('w'),
                kind: MountKind::Bind {
                    source: node,
                    recursive: false,
                    propagation: String::new(),
                    recursive_read_only: false,
                },
            });
        }
        Ok(mounts)
    }

    /// Once a container runs it has its mounts; what they were made from goes.
    pub(super) fn settle_users(&self, plan: &Plan) -> Result<()> {
        match plan.ids() {
            Some(_) => self.clear_users(&plan.id, &LASTING),
            None => Ok(()),
        }
    }

    /// Unmounts and removes what lies in a container's directory but `kept`; without `kept` the
    /// directory, too. It need not exist.
    pub(super) fn clear_users(&self, id: &ContainerId, kept: &[&str]) -> Result<()> {
        let dir = self.users_dir(id);
        let doing = || format!("removing {}", dir.display());
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.during(doing)?,
        };
        for entry in entries {
            let entry = entry.during(doing)?;
            if kept.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            remove_mounted(&entry.path()).during(doing)?;
        }
        match kept {
            [] => fs::remove_dir(&dir).during(doing),
            _ => Ok(()),
        }
    }

    /// The end of a share: its user namespace goes.
    pub(super) fn remove_users(&self, share: &Share) -> Result<()> {
        self.users.remove(&share.name)
    }
}

/// Removes a mount point, or a directory of mount points of one level.
fn remove_mounted(path: &Path) -> std::io::Result<()> {
    while unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    if !path.symlink_metadata()?.is_dir() {
        return fs::remove_file(path);
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        while unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
        fs::remove_dir(&path)?;
    }
    fs::remove_dir(path)
}
