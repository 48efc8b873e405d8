//! Volumes on this machine: the pools that are open, what is attached, who is over quota.
//!
//! It turns "this volume, for that user" into a directory or a device, and back. It takes
//! orders and reports: which volumes and snapshots there ought to be, their names, schedules
//! and limits are the engine's to decide and to record.
//!
//! Everything here blocks for as long as a disk does. Callers that must not hang use
//! [`deadline::run`].

mod block;
mod commands;
pub mod deadline;
mod diff;
mod pools;
mod probe;
mod watch;

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use pool::{Change, ChangeKind, Engine, Growth, Health, PoolSpec, PoolStatus, Source, Usage};
use serde::{Deserialize, Serialize};
use types::{
    Error, PoolName, Result, SnapshotId, VolumeId, VolumeName,
    volume::{Content, FileSystem, quota},
};

pub use crate::watch::Pressure;

/// What this machine must know of a volume to work with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: VolumeId,
    /// For messages, and for the device's path of a raw volume.
    pub name: VolumeName,
    pub pool: PoolName,
    pub content: Content,
    /// What is inside of an image; of no meaning for files.
    pub fs: FileSystem,
}

impl Volume {
    /// Whether it is an image, to be attached before it can be used.
    pub fn is_block(&self) -> bool {
        matches!(self.content, Content::Image { .. })
    }
    /// Whether the device itself is what users get.
    pub fn is_raw(&self) -> bool {
        self.is_block() && self.fs == FileSystem::Raw
    }
}

/// A volume, or a snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    volume: VolumeId,
    snapshot: Option<SnapshotId>,
}

/// Where the content of something attached is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory to bind.
    Directory(PathBuf),
    /// A block device to hand on.
    Device(PathBuf),
}

impl Place {
    /// The path, whichever it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Device(path) => path,
        }
    }
}

/// Something attached, and for whom.
#[derive(Debug)]
struct Attached {
    place: Place,
    volume: Volume,
    /// Ids of containers, or names of our own short work.
    owners: BTreeSet<String>,
}

/// All volumes of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Volumes(Arc<Inner>);

/// What all clones share.
pub struct Inner {
    pools_dir: PathBuf,
    mounts_dir: PathBuf,
    pools: pools::Table,
    attached: Mutex<HashMap<Key, Attached>>,
    /// One change of what is attached of one volume at a time.
    busy: Mutex<HashMap<VolumeId, Arc<Mutex<()>>>>,
    watch: watch::Watch,
}

impl std::ops::Deref for Volumes {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Volumes {
    /// `data_dir` is durable and has `pools/`; `run_dir` is emptied by a reboot and has
    /// `volumes/`. `report` is called from a thread of its own with what is under pressure.
    pub fn new(
        data_dir: &Path,
        run_dir: &Path,
        report: impl Fn(Pressure) + Send + Sync + 'static,
    ) -> Result<Self> {
        use types::error::ResultExt as _;
        let (pools_dir, mounts_dir) = (data_dir.join("pools"), run_dir.join("volumes"));
        for dir in [&pools_dir, &mounts_dir] {
            std::fs::create_dir_all(dir).during(|| format!("creating {}", dir.display()))?;
        }
        // What an earlier process froze and could not thaw holds its writers, which then cannot even
        // be killed: it goes on before anything is asked of them.
        let left = std::fs::read_dir(&mounts_dir)
            .during(|| format!("listing {}", mounts_dir.display()))?;
        for mount in left.flatten() {
            block::thaw(&mount.path());
        }
        let volumes = Self(Arc::new(Inner {
            pools_dir,
            mounts_dir,
            pools: pools::Table::default(),
            attached: Mutex::default(),
            busy: Mutex::default(),
            watch: watch::Watch::new(report),
        }));
        watch::spawn(&volumes.0)?;
        Ok(volumes)
    }

    /// Held while something of a volume is attached, detached or swapped.
    fn lock_of(&self, id: &VolumeId) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(id.clone()).or_default().clone()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Key, Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a volume, empty or as a copy of a volume (and snapshot) on the same pool. A block
    /// volume gets its file system. Idempotent.
    pub fn create(
        &self,
        volume: &Volume,
        origin: Option<(&VolumeId, Option<&SnapshotId>)>,
    ) -> Result<()> {
        let pool = self.pool(&volume.pool)?;
        let origin = origin.map(|(dataset, snapshot)| pool::Origin { dataset, snapshot });
        // A copy of a mounted block volume is taken of a file system at rest.
        let frozen = match &origin {
            Some(origin) if origin.snapshot.is_none() => self.freeze(&[origin.dataset])?,
            _ => block::Frozen::default(),
        };
        fault::step("volume.create.frozen")?;
        pool.create(&volume.id, volume.content, origin)?;
        drop(frozen);
        fault::step("volume.create.made")?;
        let Content::Image { bytes } = volume.content else {
            return Ok(());
        };
        pool.resize(&volume.id, bytes)?;
        fault::step("volume.create.sized")?;
        if volume.fs == FileSystem::Raw {
            return Ok(());
        }
        let image = pool.path(&volume.id)?;
        match origin {
            None => block::format_if_blank(volume, &image),
            // A copy may have been made larger than what it was made of.
            Some(_) => self.fill_device(volume),
        }
    }

    /// Removes a volume with its snapshots. `Conflict` while it is attached. Idempotent.
    pub fn remove(&self, volume: &Volume) -> Result<()> {
        let lock = self.lock_of(&volume.id);
        let _busy = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.must_be_idle(volume, "removing")?;
        self.detach_leftovers(volume)?;
        self.watch.forget(&volume.id);
        fault::step("volume.remove.detached")?;
        self.pool(&volume.pool)?.remove(&volume.id)
    }

    fn must_be_idle(&self, volume: &Volume, doing: &str) -> Result<()> {
        let table = self.table();
        let owners: Vec<&str> = table
            .iter()
            .filter(|(key, _)| key.volume == volume.id)
            .flat_map(|(_, attached)| attached.owners.iter().map(String::as_str))
            .collect();
        if owners.is_empty() {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "{doing} volume {}: it is in use by {}",
            volume.name,
            owners.join(", ")
        )))
    }

    /// Makes a volume's content (or a snapshot's, read-only) usable for `owner` and says where
    /// it is. The live content of a block volume has one container at a time. Idempotent.
    pub fn attach(
        &self,
        volume: &Volume,
        snapshot: Option<&SnapshotId>,
        owner: &str,
    ) -> Result<Place> {
        let lock = self.lock_of(&volume.id);
        let _busy = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Key {
            volume: volume.id.clone(),
            snapshot: snapshot.cloned(),
        };
        if let Some(attached) = self.table().get_mut(&key) {
            if volume.is_block() && snapshot.is_none() {
                one_at_a_time(volume, &attached.owners, owner)?;
            }
            attached.owners.insert(owner.to_owned());
            return Ok(attached.place.clone());
        }
        let place = self.make_available(volume, snapshot)?;
        self.table().insert(
            key,
            Attached {
                place: place.clone(),
                volume: volume.clone(),
                owners: BTreeSet::from([owner.to_owned()]),
            },
        );
        self.watch.wake();
        Ok(place)
    }

    fn make_available(&self, volume: &Volume, snapshot: Option<&SnapshotId>) -> Result<Place> {
        let pool = self.pool(&volume.pool)?;
        let path = match snapshot {
            None => pool.path(&volume.id)?,
            Some(snapshot) => pool.snapshot_path(&volume.id, snapshot)?,
        };
        if !volume.is_block() {
            return Ok(Place::Directory(path));
        }
        let target = self.mount_point(&volume.id, snapshot);
        let Content::Image { bytes } = volume.content else {
            return Ok(Place::Directory(path));
        };
        if snapshot.is_none() && block::size_of(&path)? < bytes {
            // A resize was recorded, and a crash cut it off.
            pool.resize(&volume.id, bytes)?;
        }
        block::attach(volume, &path, &target, snapshot.is_some())
    }

    fn mount_point(&self, id: &VolumeId, snapshot: Option<&SnapshotId>) -> PathBuf {
        self.mounts_dir.join(match snapshot {
            None => id.to_string(),
            Some(snapshot) => format!("{id}@{snapshot}"),
        })
    }

    /// Takes note that `owner`, which an earlier process of ours started, uses a volume.
    pub fn adopt(&self, volume: &Volume, snapshot: Option<&SnapshotId>, owner: &str) -> Result<()> {
        let place = if volume.is_raw() {
            let pool = self.pool(&volume.pool)?;
            let path = match snapshot {
                None => pool.path(&volume.id)?,
                Some(snapshot) => pool.snapshot_path(&volume.id, snapshot)?,
            };
            Place::Device(block::device_of(&path)?.unwrap_or(path))
        } else if volume.is_block() {
            Place::Directory(self.mount_point(&volume.id, snapshot))
        } else {
            let pool = self.pool(&volume.pool)?;
            Place::Directory(match snapshot {
                None => pool.path(&volume.id)?,
                Some(snapshot) => pool.snapshot_path(&volume.id, snapshot)?,
            })
        };
        let key = Key {
            volume: volume.id.clone(),
            snapshot: snapshot.cloned(),
        };
        let mut table = self.table();
        let attached = table.entry(key).or_insert_with(|| Attached {
            place,
            volume: volume.clone(),
            owners: BTreeSet::new(),
        });
        attached.owners.insert(owner.to_owned());
        drop(table);
        self.watch.wake();
        Ok(())
    }

    /// After all adoptions: what an earlier process attached for nobody who lives is detached,
    /// and what it froze and could not thaw goes on.
    pub fn settle(&self) -> Result<()> {
        use types::error::ResultExt as _;
        let live: Vec<PathBuf> = {
            let table = self.table();
            let mounted = table
                .iter()
                .filter(|(_, attached)| attached.volume.is_block());
            mounted
                .map(|(key, _)| self.mount_point(&key.volume, key.snapshot.as_ref()))
                .collect()
        };
        let dir = &self.mounts_dir;
        for entry in std::fs::read_dir(dir).during(|| format!("listing {}", dir.display()))? {
            let path = entry
                .during(|| format!("listing {}", dir.display()))?
                .path();
            if live.contains(&path) {
                block::thaw(&path);
            } else if let Err(error) = block::detach_mount(&path) {
                tracing::warn!(path = %path.display(), %error, "a volume that nobody uses is still attached; the next start of kraud tries again");
            }
        }
        Ok(())
    }

    /// Takes `owner`'s use of everything back; what nobody uses any more is detached.
    pub fn detach_all(&self, owner: &str) -> Result<()> {
        let mine: Vec<Key> = self
            .table()
            .iter()
            .filter(|(_, attached)| attached.owners.contains(owner))
            .map(|(key, _)| key.clone())
            .collect();
        let mut outcome = Ok(());
        for key in mine {
            let detached = self.detach(&key, owner);
            outcome = outcome.and(detached);
        }
        outcome
    }

    fn detach(&self, key: &Key, owner: &str) -> Result<()> {
        let lock = self.lock_of(&key.volume);
        let _busy = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.table();
        let Some(attached) = table.get_mut(key) else {
            return Ok(());
        };
        attached.owners.remove(owner);
        if !attached.owners.is_empty() {
            return Ok(());
        }
        let Some(attached) = table.remove(key) else {
            return Ok(());
        };
        drop(table);
        if !attached.volume.is_block() {
            return Ok(());
        }
        let target = self.mount_point(&key.volume, key.snapshot.as_ref());
        block::detach(&attached.place, &target)
    }

    /// Detaches what nobody here knows of: a crash may have left it.
    fn detach_leftovers(&self, volume: &Volume) -> Result<()> {
        if !volume.is_block() {
            return Ok(());
        }
        block::detach_mount(&self.mount_point(&volume.id, None))?;
        match self.pool(&volume.pool)?.path(&volume.id) {
            Ok(image) => block::detach_image(&image),
            Err(error) if error.kind == types::Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a snapshot of each, at one moment as near as can be. File systems in attached block
    /// volumes are at rest while it happens.
    pub fn snapshot(&self, wanted: &[(Volume, SnapshotId)]) -> Result<()> {
        let ids: Vec<&VolumeId> = wanted.iter().map(|(volume, _)| &volume.id).collect();
        let _frozen = self.freeze(&ids)?;
        fault::step("volume.snapshot.frozen")?;
        let mut by_pool: HashMap<&PoolName, Vec<(&VolumeId, &SnapshotId)>> = HashMap::new();
        for (volume, snapshot) in wanted {
            by_pool
                .entry(&volume.pool)
                .or_default()
                .push((&volume.id, snapshot));
        }
        for (at, (pool, wanted)) in by_pool.into_iter().enumerate() {
            if at > 0 {
                fault::step("volume.snapshot.half")?;
            }
            self.pool(pool)?.snapshot(&wanted)?;
        }
        fault::step("volume.snapshot.taken")
    }

    /// Freezes the file systems of those that are attached and mounted; the guard thaws them.
    fn freeze(&self, ids: &[&VolumeId]) -> Result<block::Frozen> {
        let mounts: Vec<PathBuf> = self
            .table()
            .iter()
            .filter(|(key, attached)| {
                key.snapshot.is_none()
                    && ids.contains(&&key.volume)
                    && attached.volume.is_block()
                    && !attached.volume.is_raw()
            })
            .map(|(_, attached)| attached.place.path().to_owned())
            .collect();
        block::Frozen::new(mounts)
    }

    /// Removes a snapshot. `Conflict` while somebody has it mounted. Idempotent.
    pub fn remove_snapshot(&self, volume: &Volume, snapshot: &SnapshotId) -> Result<()> {
        let lock = self.lock_of(&volume.id);
        let _busy = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Key {
            volume: volume.id.clone(),
            snapshot: Some(snapshot.clone()),
        };
        if let Some(attached) = self.table().get(&key) {
            let owners: Vec<&str> = attached.owners.iter().map(String::as_str).collect();
            return Err(Error::conflict(format!(
                "removing a snapshot of volume {}: it is mounted in {}",
                volume.name,
                owners.join(", ")
            )));
        }
        if volume.is_block() {
            block::detach_mount(&self.mount_point(&volume.id, Some(snapshot)))?;
        }
        fault::step("volume.remove_snapshot.detached")?;
        self.pool(&volume.pool)?
            .remove_snapshot(&volume.id, snapshot)
    }

    /// Makes the live content that of a snapshot. `Conflict` while the live content is in use.
    /// Idempotent.
    pub fn rollback(&self, volume: &Volume, snapshot: &SnapshotId) -> Result<()> {
        let lock = self.lock_of(&volume.id);
        let busy = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Key {
            volume: volume.id.clone(),
            snapshot: None,
        };
        if self.table().contains_key(&key) {
            self.must_be_idle(volume, "rolling back")?;
        }
        self.detach_leftovers(volume)?;
        let pool = self.pool(&volume.pool)?;
        fault::step("volume.rollback.detached")?;
        pool.rollback(&volume.id, snapshot)?;
        fault::step("volume.rollback.swapped")?;
        if let Content::Image { bytes } = volume.content {
            // The volume may have grown since the snapshot.
            pool.resize(&volume.id, bytes)?;
            drop(busy);
            fault::step("volume.rollback.sized")?;
            self.fill_device(volume)?;
        }
        Ok(())
    }

    /// Makes an image as large as the volume says, and its file system too, mounted or not.
    pub fn resize(&self, volume: &Volume) -> Result<()> {
        let Content::Image { bytes } = volume.content else {
            return Ok(());
        };
        let key = Key {
            volume: volume.id.clone(),
            snapshot: None,
        };
        let lock = self.lock_of(&volume.id);
        let busy = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self
            .table()
            .get(&key)
            .map(|attached| attached.place.clone());
        let pool = self.pool(&volume.pool)?;
        match place {
            // Whoever mounts it next finds it too small for its device, and grows it.
            None => {
                pool.resize(&volume.id, bytes)?;
                drop(busy);
                fault::step("volume.resize.sized")?;
                self.fill_device(volume)
            }
            Some(Place::Device(device)) => {
                pool.resize(&volume.id, bytes)?;
                block::refresh_size(&device)
            }
            Some(Place::Directory(mount)) => {
                block::can_grow_mounted(volume)?;
                pool.resize(&volume.id, bytes)?;
                block::grow(volume, &pool.path(&volume.id)?, &mount)
            }
        }
    }

    /// Has a file system that nobody uses fill its device, which attaching it does.
    fn fill_device(&self, volume: &Volume) -> Result<()> {
        if volume.is_raw() {
            return Ok(());
        }
        self.use_for(volume, None, "resize").map(drop)
    }

    /// Keeps a volume of files to its size. `droppable` says which of its snapshots can be
    /// dropped: then, where the pool counts what snapshots hold, there is a report when the
    /// volume comes near its size, or passes it and has a reserve.
    pub fn limit(
        &self,
        volume: &Volume,
        size: Option<u64>,
        droppable: quota::Droppable,
    ) -> Result<()> {
        // An image is as large as it is: a limit on what it pins would show up inside of it as
        // a broken disk.
        if volume.is_block() {
            return Ok(());
        }
        let pool = self.pool(&volume.pool)?;
        // ZFS limits the live dataset alone (refquota).
        let droppable = match pool.engine() {
            Engine::Btrfs => droppable,
            Engine::Zfs => quota::Droppable::None,
        };
        let held = match droppable {
            quota::Droppable::Safety => self.charged(volume)?.unwrap_or(0),
            quota::Droppable::Automatic | quota::Droppable::None => 0,
        };
        let limit = size.map(|size| quota::limit(size, droppable, held));
        let hard = limit.map(|limit| limit.hard);
        let set = match (pool.set_limit(&volume.id, hard), hard) {
            // It holds a little more than its size already, which ZFS does not let one say:
            // no more than that, then.
            (Err(error), Some(hard)) if error.kind == types::Kind::Conflict => {
                let held = self.charged(volume)?.unwrap_or(hard);
                pool.set_limit(&volume.id, Some(held.max(hard)))
            }
            (set, _) => set,
        };
        let report_above = limit.and_then(|limit| limit.report_above);
        self.watch.set(&volume.pool, &volume.id, report_above);
        set
    }

    /// The bytes that count against a volume's limit.
    pub fn charged(&self, volume: &Volume) -> Result<Option<u64>> {
        let all = self.pool(&volume.pool)?.charged()?;
        let own = all.into_iter().find(|(id, _)| *id == volume.id);
        Ok(own.map(|(_, bytes)| bytes))
    }

    /// The use of a volume. What a mounted file system has not written yet is not counted.
    pub fn usage(&self, volume: &Volume) -> Result<Usage> {
        self.pool(&volume.pool)?.usage(&volume.id)
    }

    /// What changed between two states of a volume. Files of a raw device are not known.
    pub fn diff(
        &self,
        volume: &Volume,
        from: &SnapshotId,
        to: Option<&SnapshotId>,
    ) -> Result<Vec<Change>> {
        if !volume.is_block() {
            return self.pool(&volume.pool)?.diff(&volume.id, from, to);
        }
        let old = self.use_for(volume, Some(from), "diff")?;
        let new = self.use_for(volume, to, "diff")?;
        diff::changes(old.path(), new.path())
    }

    /// A volume's or snapshot's directory for short work of our own; given back on drop. For a
    /// block volume that a container has, it is the container's own mount.
    pub fn use_for(
        &self,
        volume: &Volume,
        snapshot: Option<&SnapshotId>,
        purpose: &str,
    ) -> Result<User> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if volume.is_raw() {
            return Err(Error::invalid(format!(
                "volume {} is a raw device (fs=raw): kraud does not see files in it",
                volume.name
            )));
        }
        let owner = format!("{WORK}{purpose}-{number}");
        let place = self.attach(volume, snapshot, &owner)?;
        Ok(User {
            volumes: self.clone(),
            owner,
            place,
        })
    }

    /// Where a volume's content is, or would be once it is attached.
    pub fn path_of(&self, volume: &Volume) -> PathBuf {
        if volume.is_block() {
            return self.mount_point(&volume.id, None);
        }
        self.pool(&volume.pool)
            .and_then(|pool| pool.path(&volume.id))
            .unwrap_or_default()
    }

    /// Which of these volumes exist on their pools; pools that cannot be read count as having them.
    pub fn missing<'a>(&self, volumes: &'a [Volume]) -> Vec<&'a Volume> {
        volumes
            .iter()
            .filter(|volume| {
                self.pool(&volume.pool).is_ok_and(|pool| {
                    matches!(pool.path(&volume.id), Err(error) if error.kind == types::Kind::NotFound)
                })
            })
            .collect()
    }
}

/// How owners that are not containers begin.
const WORK: &str = "kraud-";

fn one_at_a_time(volume: &Volume, owners: &BTreeSet<String>, owner: &str) -> Result<()> {
    // Our own short work shares the mount with the container that has it.
    let other = owners
        .iter()
        .find(|other| *other != owner && !other.starts_with(WORK));
    match other {
        Some(other) if !owner.starts_with(WORK) => Err(Error::conflict(format!(
            "volume {} is a block volume and in use by container {}: one container at a time can have it (file volumes, classes nfs and gfs, can be shared)",
            volume.name,
            other.get(..12).unwrap_or(other)
        ))),
        _ => Ok(()),
    }
}

/// Short work of our own on a volume.
pub struct User {
    volumes: Volumes,
    owner: String,
    place: Place,
}

impl User {
    /// The directory.
    pub fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Err(error) = self.volumes.detach_all(&self.owner) {
            tracing::warn!(path = %self.place.path().display(), %error, "a volume could not be detached after work on it; the next use or start of kraud tries again");
        }
    }
}
