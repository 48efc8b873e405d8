//! The btrfs engine: a subvolume per dataset and snapshot, for disk images too, and quota
//! groups for limits. Driven by ioctls; only `mkfs.btrfs` and `blkid` are run, when a pool is
//! made or grows.
//!
//! On the pool: `volumes/<id>/live` is a dataset's content, `volumes/<id>/snap-<id>` its
//! snapshots, and names that begin with `new-` are rubbish (see `dataset`). All that changes
//! datasets goes one after the other: each change ends with a commit of the file system, and
//! those are one after the other anyway.

mod commits;
mod core;
mod dataset;
mod devices;
mod diff;
mod groups;
mod ioctl;
mod quota;
mod search;
mod snapshots;
mod usage;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use fault::point;
use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};
use types::{Error, Result, SnapshotId, VolumeId, error::ResultExt as _, volume::Content};

use self::{
    commits::Commits,
    core::{Core, below},
    dataset::{Kind, LIVE, Note, RUBBISH},
    groups::Group,
    quota::Ledger,
    snapshots::{Temporary, keep_as_snapshot, take_snapshot},
};
use crate::{
    Change, Engine, Found, Growth, Health, Origin, Pool, PoolSpec, PoolStatus, Source, Usage,
};

const VOLUMES: &str = "volumes";
const POOL_NOTE: &str = "trusted.kraud.pool";

/// What a pool notes about itself, as JSON in an extended attribute of `volumes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PoolNote {
    version: u32,
    /// P of its quota group 2/P.
    group: u64,
}

/// A btrfs pool, opened.
#[derive(Debug)]
pub struct BtrfsPool {
    /// Its `source` is what it is now, after it has grown.
    spec: RwLock<PoolSpec>,
    mount: PathBuf,
    core: Arc<Core>,
}

impl BtrfsPool {
    /// Makes a pool and opens it.
    pub fn create(spec: &PoolSpec, mount: &Path) -> Result<Self> {
        devices::format(spec)?;
        let pool = Self::start(spec, mount)?;
        // What a call that was cut off made is taken over, but never one that is in use.
        if !dataset::all(&pool.core.volumes)?.is_empty() {
            return Err(Error::conflict(format!(
                "a pool {} with volumes exists there already",
                spec.name
            )));
        }
        Ok(pool)
    }

    /// Opens a pool that exists.
    pub fn open(spec: &PoolSpec, mount: &Path) -> Result<Self> {
        Self::start(spec, mount)
    }

    fn start(spec: &PoolSpec, mount: &Path) -> Result<Self> {
        let mounted = devices::mount(spec, mount)?;
        let volumes = mounted.root.join(VOLUMES);
        let (group, mode) = prepare(spec, &mounted, &volumes)
            .map_err(|error| error.context(format!("open pool {}", spec.name)))?;
        let pool = Self {
            spec: RwLock::new(spec.clone()),
            mount: mount.to_owned(),
            core: Arc::new(Core {
                name: spec.name.clone(),
                volumes,
                uuid: mounted.uuid,
                group,
                mode,
                away: mounted.away,
                ledger: Ledger::default(),
                commits: Commits::default(),
                serial: Mutex::new(()),
                in_use: Mutex::default(),
            }),
        };
        pool.limit_pool()?;
        // Snapshots of several that a crash left half named: all or none.
        pool.core.finish_batch(&pool.core.root()?)?;
        Ok(pool)
    }

    /// One change at a time.
    fn lock(&self) -> MutexGuard<'_, ()> {
        locked(&self.core.serial)
    }

    fn spec(&self) -> PoolSpec {
        self.spec
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Limits all datasets together, so that a full pool has room left for what makes room.
    fn limit_pool(&self) -> Result<()> {
        // A directory shares its file system with others, who know nothing of this limit.
        let bytes = match self.spec().source {
            Source::Directory { .. } => None,
            _ => Some(self.core.space()?.total),
        };
        groups::limit(&self.core.root()?, self.core.group, bytes)
    }

    /// Makes the dataset in a directory of another name; only a rename is missing then.
    fn stage(
        &self,
        root: &File,
        staged: &Path,
        id: &VolumeId,
        content: Content,
        from: Option<Origin<'_>>,
    ) -> Result<()> {
        let group = self.core.new_group(root, id)?;
        fs::create_dir(staged).during(|| format!("make {}", staged.display()))?;
        point("btrfs.create.staged");
        let Some(origin) = from else {
            let kind = match content {
                Content::Files => Kind::Files,
                Content::Image { .. } => Kind::Image,
            };
            Note {
                version: 1,
                group: group.id(),
                kind,
                limit: None,
                copied: None,
            }
            .write(staged)?;
            return dataset::make_empty(staged, content, group.0);
        };
        let from = self.core.dataset(origin.dataset)?;
        let source = match origin.snapshot {
            Some(snapshot) => self.core.snapshot_directory(origin.dataset, snapshot)?,
            None => from.directory.join(LIVE),
        };
        let parent = dataset::open(staged)?;
        ioctl::snapshot_create(
            &parent,
            OsStr::new(LIVE),
            dataset::open(&source)?,
            Some(group.0),
            false,
        )
        .during(|| format!("copy {}", source.display()))?;
        let live = staged.join(LIVE);
        if let (Kind::Image, Content::Image { bytes }) = (from.note.kind, content) {
            dataset::grow_image(&live, bytes)?;
        }
        let since = ioctl::subvolume_info(dataset::open(&live)?)
            .during(|| format!("look at {}", live.display()))?
            .created
            .0;
        let copied = self.core.copied(&from, since)?;
        Note {
            version: 1,
            group: group.id(),
            kind: from.note.kind,
            limit: None,
            copied,
        }
        .write(staged)
    }
}

/// Makes what is missing in a mounted pool; gives its quota group and how quotas count.
fn prepare(
    spec: &PoolSpec,
    mounted: &devices::Mounted,
    volumes: &Path,
) -> Result<(Group, groups::Mode)> {
    if !volumes.exists() {
        fs::create_dir(volumes).during(|| format!("make {}", volumes.display()))?;
    }
    let root = dataset::open(volumes)?;
    let mode = groups::enable(&root)?;
    if mode == groups::Mode::Full && !matches!(spec.source, Source::Directory { .. }) {
        tracing::warn!(pool = %spec.name, "this pool has full quota groups: snapshots are slow");
    }
    point("btrfs.pool.quota");
    let note = xattr::get(volumes, POOL_NOTE)
        .during(|| format!("read the note of {}", volumes.display()))?;
    if let Some(text) = note {
        let note: PoolNote = serde_json::from_slice(&text)
            .during(|| format!("read the note of {}", volumes.display()))?;
        let group = Group::new(2, note.group);
        groups::create(&root, group, None)?;
        return Ok((group, mode));
    }
    let present = groups::groups(&root)?;
    let mut group = Group::new(2, name_number(spec.name.as_str()));
    while group.id() == 0 || present.bytes.contains_key(&group) {
        group = group.next();
    }
    groups::create(&root, group, None)?;
    let note = PoolNote {
        version: 1,
        group: group.id(),
    };
    let text = serde_json::to_vec(&note).during(|| "write a note")?;
    xattr::set(volumes, POOL_NOTE, &text)
        .during(|| format!("write the note of {}", volumes.display()))?;
    ioctl::commit(&root).during(|| format!("write {}", mounted.root.display()))?;
    Ok((group, mode))
}

/// Takes a lock under which a panic leaves nothing half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number for a name (FNV-1a): any will do.
fn name_number(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Pool for BtrfsPool {
    fn engine(&self) -> Engine {
        Engine::Btrfs
    }

    fn status(&self) -> Result<PoolStatus> {
        let space = self.core.space()?;
        let root = self.core.root()?;
        let devices = ioctl::devices(&root).during(|| "list the devices of the pool")?;
        let stat = rustix::fs::fstatvfs(&root).during(|| "look at the pool")?;
        // What btrfs says knows of room that is set aside for metadata already, and of others
        // who use the file system too.
        let mut free = space.total.saturating_sub(space.used);
        free = free.min(stat.f_bavail * stat.f_frsize);
        if let Source::File { path, .. } = &self.spec().source {
            // A sparse file can promise more than there is below it.
            free = free.min(below(path, space.used)?);
        }
        let complaints = self.core.complaints()?;
        let health = if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            Health::Faulted(
                "the file system went read-only after an error: see the kernel's log".into(),
            )
        } else if complaints.is_empty() {
            Health::Online
        } else {
            Health::Degraded(complaints.join("; "))
        };
        Ok(PoolStatus {
            health,
            total: space.total,
            used: space.used,
            free,
            copies: space.copies,
            devices: devices::present(&devices),
            root: self.core.volumes.clone(),
        })
    }

    fn datasets(&self) -> Result<Vec<Found>> {
        self.core.root()?;
        dataset::all(&self.core.volumes)?
            .into_iter()
            .map(|id| {
                let found = self.core.dataset(&id)?;
                Ok(Found {
                    content: dataset::content(&found.directory, found.note.kind)?,
                    snapshots: dataset::snapshots(&found.directory)?,
                    id,
                })
            })
            .collect()
    }

    fn sweep(&self) -> Result<()> {
        let _serial = self.lock();
        let root = self.core.root()?;
        self.core.finish_batch(&root)?;
        for name in dataset::names(&self.core.volumes)? {
            let path = self.core.volumes.join(&name);
            if dataset::is_rubbish(&name) {
                dataset::discard(&path)?;
            } else if path.join(LIVE).exists() {
                for inner in dataset::names(&path)? {
                    if dataset::is_rubbish(&inner) && !self.core.is_in_use(&inner) {
                        dataset::destroy(&path, &inner)?;
                    }
                }
            }
        }
        self.core.purge_groups(&root)?;
        self.core
            .commit(&root, || format!("sweep pool {}", self.core.name))
    }

    fn create(&self, id: &VolumeId, content: Content, from: Option<Origin<'_>>) -> Result<()> {
        let _serial = self.lock();
        let root = self.core.root()?;
        let directory = self.core.directory(id);
        if directory.exists() {
            return Ok(());
        }
        let staged = self.core.volumes.join(format!("{RUBBISH}{id}"));
        dataset::discard(&staged)?;
        if let Err(error) = self.stage(&root, &staged, id, content, from) {
            if let Err(error) = dataset::discard(&staged) {
                tracing::warn!(%error, "a dataset that could not be made stays until the next sweep");
            }
            return Err(error.context(format!("make dataset {id:?} in pool {}", self.core.name)));
        }
        point("btrfs.create.filled");
        fs::rename(&staged, &directory).during(|| format!("name {}", directory.display()))?;
        point("btrfs.create.named");
        self.core.commit(&root, || format!("write dataset {id:?}"))
    }

    fn remove(&self, id: &VolumeId) -> Result<()> {
        let _serial = self.lock();
        let root = self.core.root()?;
        let directory = self.core.directory(id);
        if !directory.exists() {
            return Ok(());
        }
        let group = self.core.dataset(id)?.group();
        let rubbish = self.core.volumes.join(format!("{RUBBISH}gone-{id}"));
        dataset::discard(&rubbish)?;
        fs::rename(&directory, &rubbish).during(|| format!("remove {}", directory.display()))?;
        point("btrfs.remove.renamed");
        // Clones may hold what it is charged for, far above any limit of its own.
        groups::limit(&root, group, None)?;
        dataset::discard(&rubbish)?;
        self.core.ledger.forget(id);
        self.core.commit(&root, || format!("remove dataset {id:?}"))
    }

    fn path(&self, id: &VolumeId) -> Result<PathBuf> {
        let found = self.core.dataset(id)?;
        Ok(dataset::content_path(
            found.directory.join(LIVE),
            found.note.kind,
        ))
    }

    fn snapshot_path(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<PathBuf> {
        let found = self.core.dataset(id)?;
        let path = self.core.snapshot_directory(id, snapshot)?;
        Ok(dataset::content_path(path, found.note.kind))
    }

    fn snapshot(&self, wanted: &[(&VolumeId, &SnapshotId)]) -> Result<()> {
        let _serial = self.lock();
        let root = self.core.root()?;
        self.core.finish_batch(&root)?;
        let mut missing = Vec::new();
        for (id, snapshot) in wanted {
            let found = self.core.dataset(id)?;
            let name = dataset::snapshot_name(snapshot);
            if !found.directory.join(name).exists() {
                missing.push((*id, found, *snapshot));
            }
        }
        match missing.as_slice() {
            [] => Ok(()),
            [(_, found, snapshot)] => {
                take_snapshot(
                    &found.directory,
                    &found.note,
                    &dataset::snapshot_name(snapshot),
                )?;
                point("btrfs.snapshot.taken");
                match self.core.mode {
                    groups::Mode::Full => groups::count_anew(&root),
                    _ => Ok(()),
                }
            }
            several => self.core.snapshot_batch(&root, several),
        }
    }

    fn remove_snapshot(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()> {
        let _serial = self.lock();
        let root = self.core.root()?;
        let directory = self.core.directory(id);
        if !directory.exists() {
            return Ok(());
        }
        dataset::destroy(&directory, &dataset::snapshot_name(snapshot))?;
        point("btrfs.remove_snapshot.gone");
        self.core
            .commit(&root, || format!("remove snapshot {snapshot:?}"))
    }

    fn rollback(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()> {
        let _serial = self.lock();
        let root = self.core.root()?;
        let found = self.core.dataset(id)?;
        let source = dataset::open(&self.core.snapshot_directory(id, snapshot)?)?;
        let name: OsString = format!("{RUBBISH}live").into();
        dataset::destroy(&found.directory, &name)?;
        let directory = dataset::open(&found.directory)?;
        ioctl::snapshot_create(&directory, &name, source, Some(found.group().0), false)
            .during(|| format!("copy snapshot {snapshot:?} of dataset {id:?}"))?;
        point("btrfs.rollback.prepared");
        rustix::fs::renameat_with(&directory, &*name, &directory, LIVE, RenameFlags::EXCHANGE)
            .during(|| format!("exchange the content of dataset {id:?}"))?;
        point("btrfs.rollback.exchanged");
        if let Err(error) = keep_as_snapshot(&found.directory, &found.note, &name) {
            tracing::debug!(%error, "the old content is removed instead of being kept");
        }
        dataset::destroy(&found.directory, &name)?;
        point("btrfs.rollback.removed");
        self.core.ledger.stale(id);
        self.core
            .commit(&root, || format!("roll dataset {id:?} back"))
    }

    fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()> {
        let _serial = self.lock();
        let root = self.core.root()?;
        let found = self.core.dataset(id)?;
        if found.note.kind == Kind::Files {
            return Ok(());
        }
        if let Content::Image { bytes: now } = dataset::content(&found.directory, Kind::Image)?
            && now > bytes
        {
            return Err(Error::invalid(format!(
                "dataset {id:?} can't shrink: it has {now} bytes"
            )));
        }
        if dataset::grow_image(&found.directory.join(LIVE), bytes)? {
            point("btrfs.resize.grown");
            self.core
                .commit(&root, || format!("write dataset {id:?}"))?;
        }
        Ok(())
    }

    fn set_limit(&self, id: &VolumeId, bytes: Option<u64>) -> Result<()> {
        {
            let _serial = self.lock();
            let root = self.core.root()?;
            let mut found = self.core.dataset(id)?;
            found.note.limit = bytes;
            found.note.write(&found.directory)?;
            point("btrfs.limit.noted");
            self.core.apply_limit(&root, id, &found)?;
            point("btrfs.limit.set");
            self.core
                .commit(&root, || format!("limit dataset {id:?}"))?;
        }
        self.core.clone().survey_where_needed()
    }

    fn usage(&self, id: &VolumeId) -> Result<Usage> {
        self.core.usage(id)
    }

    fn charged(&self) -> Result<Vec<(VolumeId, u64)>> {
        self.core.root()?;
        let charged = self.core.counted()?;
        self.core.clone().survey_where_needed()?;
        Ok(charged)
    }

    fn reclaim(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let root = self.core.root()?;
        // The cleaner begins after a commit.
        self.core
            .commit(&root, || format!("write pool {}", self.core.name))?;
        while !self.core.dying(&root)?.is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
            // It ends with one, too, and would wait for up to half a minute for it.
            self.core
                .commit(&root, || format!("write pool {}", self.core.name))?;
        }
        self.core
            .commit(&root, || format!("write pool {}", self.core.name))?;
        let _serial = self.lock();
        self.core.purge_groups(&root)
    }

    fn diff(
        &self,
        id: &VolumeId,
        from: &SnapshotId,
        to: Option<&SnapshotId>,
    ) -> Result<Vec<Change>> {
        let found = self.core.dataset(id)?;
        if found.note.kind == Kind::Image {
            return Err(Error::invalid(format!(
                "dataset {id:?} is a disk image: it has no files to compare"
            )));
        }
        let old = self.core.snapshot_directory(id, from)?;
        if let Some(to) = to {
            return diff::changes(&old, &self.core.snapshot_directory(id, to)?);
        }
        // Only what can't change can be compared.
        let name: OsString = format!("{RUBBISH}diff-{}", SnapshotId::random()).into();
        let directory = found.directory.clone();
        let temporary = Temporary {
            core: &self.core,
            directory: &directory,
            name: &name,
        };
        temporary.take(&found.note)?;
        diff::changes(&old, &directory.join(&name))
    }

    fn grow(&self, by: &Growth) -> Result<()> {
        let _serial = self.lock();
        let root = self.core.root()?;
        let mut spec = self.spec();
        match (by, &mut spec.source) {
            (Growth::Bytes(wanted), Source::File { path, bytes }) => {
                devices::grow_file(path, *wanted, &root)?;
                *bytes = *wanted;
            }
            (Growth::Devices(more), Source::Devices { paths, .. }) => {
                devices::add(more, &root)?;
                for path in more {
                    if !paths.contains(path) {
                        paths.push(path.clone());
                    }
                }
            }
            (Growth::Fill, Source::File { path, .. }) => {
                let bytes = fs::metadata(&*path)
                    .during(|| format!("look at {}", path.display()))?
                    .len();
                devices::grow_file(path, bytes, &root)?;
            }
            (Growth::Fill, Source::Devices { .. }) => devices::fill(&root)?,
            (_, source) => {
                return Err(Error::invalid(format!(
                    "pool {} can't grow in that way: it {}",
                    self.core.name,
                    match source {
                        Source::File { .. } => "lies in a file, which grows by bytes",
                        Source::Devices { .. } => "lies on devices: add some",
                        Source::Directory { .. } => "is a directory on another file system",
                    }
                )));
            }
        }
        self.core
            .commit(&root, || format!("let pool {} grow", self.core.name))?;
        *self.spec.write().unwrap_or_else(PoisonError::into_inner) = spec;
        self.limit_pool()
    }

    fn close(&self) -> Result<()> {
        let _serial = self.lock();
        self.core.ledger.stop();
        let closed = devices::unmount(&self.spec(), &self.mount);
        if closed.is_err() {
            self.core.ledger.resume();
        }
        closed
    }

    fn destroy(&self) -> Result<()> {
        // One that an interrupted call closed already has no datasets that could be found.
        if self.core.root().is_ok() {
            if !dataset::all(&self.core.volumes)?.is_empty() {
                return Err(Error::conflict(format!(
                    "pool {} has volumes: remove them first",
                    self.core.name
                )));
            }
            self.sweep()?;
            if let Source::Directory { .. } = self.spec().source {
                self.reclaim(Duration::from_secs(10))?;
                let root = self.core.root()?;
                fs::remove_dir(&self.core.volumes)
                    .during(|| format!("remove {}", self.core.volumes.display()))?;
                groups::remove(&root, self.core.group)?;
            }
        }
        self.close()?;
        devices::erase(&self.spec(), &self.mount)
    }
}
