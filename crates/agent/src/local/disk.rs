//! What containers write, where it counts against the limit of those they share it with.
//!
//! Their writable layers and logs lie in a dataset of a pool, `<dataset>/<id>/`, and
//! `<data>/containers/<id>/disk` leads there. A dataset with a limit has an end for bytes and,
//! as metadata count too, for files.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use types::{
    ContainerId, Error, Result, VolumeId, error::ResultExt as _, volume::quota::Droppable,
};
use volume::Volume;

use super::{LocalAgent, remove_tree};
use crate::plan::{Plan, Share, ShareDisk};

/// The name of the link in a container's directory.
pub(super) const LINK: &str = "disk";

/// Datasets that are known to be there.
#[derive(Default)]
pub(super) struct Disks(Mutex<HashSet<VolumeId>>);

impl Disks {
    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<VolumeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalAgent {
    /// The dataset of a share, made if need be.
    fn ensure_disk(&self, disk: &ShareDisk) -> Result<PathBuf> {
        let volume = &disk.volume;
        // Held while one is made and looked through: of two that come at once one waits.
        let mut known = self.disks.known();
        if known.contains(&volume.id) {
            return Ok(self.volumes.path_of(volume));
        }
        self.volumes.create(volume, None)?;
        self.volumes
            .limit(volume, Some(disk.bytes), Droppable::None)?;
        let path = self.volumes.path_of(volume);
        self.drop_strangers(volume, &path);
        known.insert(volume.id.clone());
        Ok(path)
    }

    /// Files of containers that are gone: their removal may have been cut off while the pool was.
    fn drop_strangers(&self, volume: &Volume, dataset: &Path) {
        let entries = fs::read_dir(dataset).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let id = path.file_name().and_then(|name| name.to_str());
            let Some(id) = id.and_then(|name| name.parse::<ContainerId>().ok()) else {
                continue;
            };
            if self.container_dir(&id).exists() {
                continue;
            }
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(volume = %volume.name, %error, "files of a removed container stay; the next start of kraud tries again");
            }
        }
    }

    /// Makes the place of a container's files and the link to it. Does nothing where it has none
    /// of its own.
    pub(super) fn prepare_disk(&self, plan: &Plan) -> Result<()> {
        let Some(disk) = plan.share.as_ref().and_then(|share| share.disk.as_ref()) else {
            return Ok(());
        };
        let own = self.container_dir(&plan.id);
        let link = own.join(LINK);
        if link.is_symlink() || own.join("upper").exists() {
            return Ok(()); // Made by an earlier kraud, or before.
        }
        let place = self.ensure_disk(disk)?.join(plan.id.as_str());
        let making =
            |error: io::Error| self.full(disk, &format!("creating {}", place.display()), error);
        // First: what has no directory of its own is a stranger's in the dataset.
        fs::create_dir_all(&own).during(|| format!("creating {}", own.display()))?;
        fs::create_dir_all(&place).map_err(making)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o710)).map_err(making)?;
        std::os::unix::fs::symlink(&place, &link).during(|| format!("creating {}", link.display()))
    }

    /// An error with words for a disk that is full.
    fn full(&self, disk: &ShareDisk, doing: &str, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull => Error::forbidden(format!(
                "{doing}: the disk quota of {} bytes is used up by what containers wrote and by their logs; remove some (docker rm)",
                disk.bytes
            )),
            _ => Error::wrap(doing, error),
        }
    }

    /// Removes what a container has on its disk; it need not have any.
    pub(super) fn remove_from_disk(&self, id: &ContainerId) -> Result<()> {
        let link = self.container_dir(id).join(LINK);
        match fs::read_link(&link) {
            // The link comes to nothing while the pool is not there: then the next use of the
            // dataset removes it.
            Ok(place) => remove_tree(&place),
            Err(_) => Ok(()),
        }
    }

    /// Sets the limit of a share's dataset, if it has been made.
    pub(super) fn limit_disk(&self, share: &Share) -> Result<()> {
        let Some(disk) = &share.disk else {
            return Ok(());
        };
        if !self
            .volumes
            .missing(std::slice::from_ref(&disk.volume))
            .is_empty()
        {
            return Ok(());
        }
        self.volumes
            .limit(&disk.volume, Some(disk.bytes), Droppable::None)
    }

    /// Bytes on a share's dataset; `None` before there is one, or while its pool is away.
    pub(super) fn disk_use(&self, share: &Share) -> Option<u64> {
        let disk = share.disk.as_ref()?;
        self.volumes.charged(&disk.volume).ok().flatten()
    }

    /// Removes the dataset of a share with all that is left in it.
    pub(super) fn remove_disk(&self, share: &Share) -> Result<()> {
        let Some(disk) = &share.disk else {
            return Ok(());
        };
        self.disks.known().remove(&disk.volume.id);
        self.volumes.remove(&disk.volume)
    }
}
