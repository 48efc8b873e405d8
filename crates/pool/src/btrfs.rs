//! The btrfs engine: a subvolume per dataset and snapshot, for disk images too, and quota
//! groups for limits. Driven by ioctls; only `mkfs.btrfs` and `blkid` are run, when a pool is
//! made or grows.
//!
//! On the pool: `volumes/<id>/live` is a dataset's content, `volumes/<id>/snap-<id>` its
//! snapshots, and names that begin with `new-` are rubbish (see `dataset`). All that changes
//! datasets goes one after the other: each change ends with a commit of the file system, and
//! those are one after the other anyway.

mod dataset;
mod devices;
mod diff;
mod groups;
mod ioctl;
mod quota;
mod search;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};
use types::{Error, Result, SnapshotId, VolumeId, error::ResultExt as _, volume::Content};

use self::{
    dataset::{Copied, Kind, LIVE, Note, RUBBISH},
    groups::Group,
    quota::Ledger,
};
use crate::{
    Change, Engine, Found, Growth, Health, Origin, Pool, PoolSpec, PoolStatus, Source, Usage,
    fault::point, no_dataset,
};

const VOLUMES: &str = "volumes";
const POOL_NOTE: &str = "trusted.kraud.pool";
/// A list of snapshots that were all taken and are being named.
const BATCH: &str = "new-batch";

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

/// What a survey in the background needs too.
#[derive(Debug)]
struct Core {
    name: types::PoolName,
    volumes: PathBuf,
    uuid: [u8; 16],
    group: Group,
    /// With full quotas a group counts all that its members refer to, whoever wrote it.
    mode: groups::Mode,
    away: Vec<String>,
    ledger: Ledger,
    /// One change at a time.
    serial: Mutex<()>,
    /// Temporary snapshots that are no rubbish.
    in_use: Mutex<BTreeSet<OsString>>,
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
                serial: Mutex::new(()),
                in_use: Mutex::default(),
            }),
        };
        pool.limit_pool()?;
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

    /// Takes snapshots of several: all bear names of rubbish until a list of them is on the
    /// disk, and are then renamed, again after a crash if need be.
    fn snapshot_batch(
        &self,
        root: &File,
        wanted: &[(&VolumeId, Dataset, &SnapshotId)],
    ) -> Result<()> {
        let volumes = &self.core.volumes;
        let mut moves: Vec<(PathBuf, PathBuf)> = Vec::new();
        let undo = |moves: &[(PathBuf, PathBuf)]| {
            for (staged, _) in moves {
                undo_snapshot(&volumes.join(staged));
            }
        };
        for (id, dataset, snapshot) in wanted {
            let staged: OsString = format!("{RUBBISH}{snapshot}").into();
            let taken = dataset::destroy(&dataset.directory, &staged)
                .and_then(|()| take_snapshot(&dataset.directory, &dataset.note, &staged));
            if let Err(error) = taken {
                undo(&moves);
                return Err(error);
            }
            // The pool may be mounted elsewhere after a crash.
            let directory = Path::new(id.as_str());
            moves.push((
                directory.join(staged),
                directory.join(dataset::snapshot_name(snapshot)),
            ));
            point("btrfs.snapshot.staged");
        }
        let list = volumes.join(BATCH);
        let text = serde_json::to_vec(&moves).during(|| "list the snapshots")?;
        let written = write_file(&list, &text)
            .and_then(|()| ioctl::commit(root).during(|| "write the list of snapshots"));
        if let Err(error) = written {
            let _ = fs::remove_file(&list);
            undo(&moves);
            return Err(error);
        }
        point("btrfs.snapshot.announced");
        self.finish_batch(root)
    }

    /// Names the snapshots of a batch that is on the disk as a whole.
    fn finish_batch(&self, root: &File) -> Result<()> {
        let list = self.core.volumes.join(BATCH);
        let text = match fs::read(&list) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::wrap(format!("read {}", list.display()), error)),
        };
        // A list that is cut off was not announced: then its snapshots are rubbish.
        let moves: Vec<(PathBuf, PathBuf)> = serde_json::from_slice(&text).unwrap_or_default();
        for (staged, name) in &moves {
            let staged = self.core.volumes.join(staged);
            let name = self.core.volumes.join(name);
            if staged.exists() {
                fs::rename(staged, &name).during(|| format!("name {}", name.display()))?;
                point("btrfs.snapshot.half");
            }
        }
        fs::remove_file(&list).during(|| format!("remove {}", list.display()))?;
        ioctl::commit(root).during(|| "name the snapshots")
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

fn write_file(path: &Path, text: &[u8]) -> Result<()> {
    use std::io::Write as _;
    File::create(path)
        .and_then(|mut file| {
            file.write_all(text)?;
            file.sync_all()
        })
        .during(|| format!("write {}", path.display()))
}

/// Takes a snapshot of a dataset's live subvolume, on the disk when it returns.
fn take_snapshot(directory: &Path, note: &Note, name: &OsStr) -> Result<()> {
    let live = dataset::open(&directory.join(LIVE))?;
    ioctl::snapshot_create(
        dataset::open(directory)?,
        name,
        live,
        Some(Group::new(1, note.group).0),
        true,
    )
    .during(|| format!("take a snapshot in {}", directory.display()))
}

/// Exchanges the subvolume `name` with a snapshot of it that has the same content, if there is
/// one, as there is when a rollback is made that can be undone.
///
/// What is removed then is the snapshot. That is a matter of a few blocks, while to remove the
/// first owner of a large tree the kernel rewrites the references of all of it, and every other
/// call waits for seconds when it commits.
fn keep_as_snapshot(directory: &Path, name: &OsStr) -> Result<()> {
    // A change within one tick of the clock after an earlier one need not be noted.
    const TICK: Duration = Duration::from_millis(10);
    let old = dataset::open(&directory.join(name))?;
    let about = || format!("look at the subvolumes in {}", directory.display());
    let info = ioctl::subvolume_info(&old).during(about)?;
    // Subvolumes in it are not in its snapshots.
    if !dataset::nested(&old, info.id)?.is_empty() {
        return Ok(());
    }
    for snapshot in dataset::snapshots(directory)? {
        let snapshot = dataset::snapshot_name(&snapshot);
        let copy =
            ioctl::subvolume_info(dataset::open(&directory.join(&snapshot))?).during(about)?;
        if copy.parent != info.uuid
            || copy.created.0 < info.changed.0
            || copy.created.1 < info.changed.1 + TICK
        {
            continue;
        }
        ioctl::subvolume_freeze(&old).during(|| "make a subvolume read-only")?;
        point("btrfs.rollback.frozen");
        let parent = dataset::open(directory)?;
        rustix::fs::renameat_with(&parent, name, &parent, &*snapshot, RenameFlags::EXCHANGE)
            .during(|| format!("exchange two subvolumes in {}", directory.display()))?;
        point("btrfs.rollback.kept");
        return Ok(());
    }
    Ok(())
}

fn undo_snapshot(path: &Path) {
    if let (Some(directory), Some(name)) = (path.parent(), path.file_name())
        && let Err(error) = dataset::destroy(directory, name)
    {
        tracing::warn!(%error, "a snapshot of a failed batch stays until the next sweep");
    }
}

/// A dataset that is there.
struct Dataset {
    directory: PathBuf,
    note: Note,
}

impl Dataset {
    fn group(&self) -> Group {
        Group::new(1, self.note.group)
    }
}

/// A snapshot that is removed again when this is dropped.
struct Temporary<'a> {
    core: &'a Core,
    directory: &'a Path,
    name: &'a OsStr,
}

impl Temporary<'_> {
    fn take(&self, note: &Note) -> Result<()> {
        let _serial = locked(&self.core.serial);
        locked(&self.core.in_use).insert(self.name.to_owned());
        take_snapshot(self.directory, note, self.name)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _serial = locked(&self.core.serial);
        locked(&self.core.in_use).remove(self.name);
        // The dataset may have been removed meanwhile, and this with it.
        if self.directory.exists()
            && let Err(error) = dataset::destroy(self.directory, self.name)
        {
            tracing::warn!(%error, "a temporary snapshot stays until the next sweep");
        }
    }
}

/// How much room a pool has.
struct Space {
    total: u64,
    used: u64,
    copies: u32,
}

impl Core {
    /// The directory of all datasets, opened; checks that the pool is mounted still.
    fn root(&self) -> Result<File> {
        let gone = || Error::unavailable(format!("pool {} is not mounted", self.name));
        let root = File::open(&self.volumes).map_err(|_| gone())?;
        match ioctl::file_system(&root) {
            Ok(found) if found.uuid == self.uuid => Ok(root),
            _ => Err(gone()),
        }
    }

    fn directory(&self, id: &VolumeId) -> PathBuf {
        self.volumes.join(id.as_str())
    }

    fn dataset(&self, id: &VolumeId) -> Result<Dataset> {
        let directory = self.directory(id);
        if !directory.exists() {
            self.root()?;
            return Err(no_dataset(&self.name, id));
        }
        let note = Note::read(&directory)?;
        Ok(Dataset { directory, note })
    }

    fn snapshot_directory(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<PathBuf> {
        let path = self.directory(id).join(dataset::snapshot_name(snapshot));
        if path.exists() {
            Ok(path)
        } else {
            Err(Error::not_found(format!(
                "dataset {id:?} of pool {} has no snapshot {snapshot:?}",
                self.name
            )))
        }
    }

    /// A quota group 1/N for a new dataset, a member of the pool's.
    fn new_group(&self, root: &File, id: &VolumeId) -> Result<Group> {
        const DIGITS: usize = 12; // 48 bits
        let number = u64::from_str_radix(&id.as_str()[..DIGITS], 16)
            .during(|| format!("number dataset {id:?}"))?;
        let present = groups::groups(root)?;
        let mut group = Group::new(1, number);
        while group.id() == 0 || present.bytes.contains_key(&group) {
            group = group.next();
        }
        groups::create(root, group, Some(self.group))?;
        Ok(group)
    }

    /// What a clone of `from`, made by the transaction `since`, has to know of it.
    fn copied(&self, from: &Dataset, since: u64) -> Result<Option<Copied>> {
        if self.mode == groups::Mode::Full {
            return Ok(None);
        }
        // At most all that the origin is charged for and shares itself; a survey finds out.
        let (shared, mut groups) = match &from.note.copied {
            Some(copied) => (copied.shared, copied.from.clone()),
            None => (0, Vec::new()),
        };
        groups.push(from.note.group);
        Ok(Some(Copied {
            since,
            shared: shared + self.charged_now(from.group())?,
            from: groups,
        }))
    }

    /// Makes what was done last, and quotas right.
    fn commit(&self, root: &File, what: impl FnOnce() -> String) -> Result<()> {
        ioctl::commit(root).during(what)?;
        match self.mode {
            groups::Mode::Full => groups::count_anew(root),
            _ => Ok(()),
        }
    }

    fn is_in_use(&self, name: &OsStr) -> bool {
        locked(&self.in_use).contains(name)
    }

    /// What is charged to a group at this moment.
    fn charged_now(&self, group: Group) -> Result<u64> {
        if let Some(bytes) = groups::charged_now(&self.uuid, group) {
            return Ok(bytes);
        }
        let groups = groups::groups(self.root()?)?;
        Ok(groups.bytes.get(&group).copied().unwrap_or(0))
    }

    /// How large the pool is and what it holds, in bytes of content.
    fn space(&self) -> Result<Space> {
        const DATA: u64 = 1;
        const TWO_COPIES: u64 = 1 << 4 | 1 << 5 | 1 << 6; // RAID1, DUP, RAID10
        const GLOBAL_RESERVE: u64 = 1 << 49;
        let root = self.root()?;
        let about = || format!("look at the space of pool {}", self.name);
        let devices = ioctl::devices(&root).during(about)?;
        let spaces = ioctl::spaces(&root).during(about)?;
        let copies_of = |flags: u64| if flags & TWO_COPIES != 0 { 2 } else { 1 };
        let copies = spaces
            .iter()
            .filter(|space| space.flags & DATA != 0)
            .map(|space| copies_of(space.flags))
            .max()
            .unwrap_or(1);
        let written: u64 = spaces
            .iter()
            .filter(|space| space.flags & GLOBAL_RESERVE == 0)
            .map(|space| space.used * copies_of(space.flags))
            .sum();
        let sum: u64 = devices.iter().map(|device| device.bytes).sum();
        let largest = devices.iter().map(|d| d.bytes).max().unwrap_or(0);
        let size = match copies {
            1 => sum,
            // A block's two copies lie on two devices.
            _ => (sum / 2).min(sum - largest),
        };
        Ok(Space {
            total: size.saturating_sub(reserve(size)),
            used: written / copies,
            copies: copies as u32,
        })
    }

    /// Why the pool is not quite well, if it isn't.
    fn complaints(&self) -> Result<Vec<String>> {
        let root = self.root()?;
        let mut complaints = self.away.clone();
        for device in ioctl::devices(&root).during(|| format!("look at pool {}", self.name))? {
            let missing = groups::sysfs(&self.uuid).join(format!("devinfo/{}/missing", device.id));
            let missing = fs::read_to_string(missing).is_ok_and(|text| text.trim() == "1");
            let name = device.path.display();
            if missing && self.away.is_empty() {
                complaints.push(format!("device {} is missing", device.id));
            }
            let errors = ioctl::device_errors(&root, device.id).unwrap_or(0);
            if errors > 0 && !missing {
                complaints.push(format!("{name} had {errors} errors"));
            }
        }
        Ok(complaints)
    }

    /// Removes quota groups that nothing needs any more.
    fn purge_groups(&self, root: &File) -> Result<()> {
        let present = groups::groups(root)?;
        let mut subvolumes = BTreeSet::new();
        search::search(
            root,
            search::Range {
                tree: search::ROOT_TREE,
                from: (0, 0, 0),
                to: (u64::MAX, u32::MAX, u64::MAX),
                since: 0,
            },
            |item| {
                if item.kind == search::ROOT_ITEM {
                    subvolumes.insert(item.object);
                }
                ControlFlow::Continue(())
            },
        )
        .during(|| "list the subvolumes")?;
        let mut needed = BTreeSet::new();
        for id in dataset::all(&self.volumes)? {
            needed.insert(self.dataset(&id)?.group());
        }
        for name in dataset::names(&self.volumes)? {
            if let Ok(note) = Note::read(&self.volumes.join(name)) {
                needed.insert(Group::new(1, note.group));
            }
        }
        for group in present.members(self.group) {
            let mut left = 0;
            for member in present.members(group) {
                let empty = present.bytes.get(&member).copied().unwrap_or(0) == 0;
                let gone =
                    empty && !subvolumes.contains(&member.id()) && groups::remove(root, member)?;
                left += usize::from(!gone);
            }
            if left == 0 && !needed.contains(&group) {
                groups::remove(root, group)?;
            }
        }
        Ok(())
    }

    /// Subvolumes that were removed and are not taken apart yet.
    fn dying(&self, root: &File) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        let range = search::Range::object(
            search::ROOT_TREE,
            search::ORPHAN_OBJECT,
            search::ORPHAN_ITEM,
        );
        search::search(root, range, |item| {
            if item.kind == search::ORPHAN_ITEM {
                found.push(item.offset);
            }
            ControlFlow::Continue(())
        })
        .during(|| "list the removed subvolumes")?;
        Ok(found)
    }
}

/// The bytes of a pool that datasets can't have: for the trees that no dataset is charged for
/// (checksums, extents), and so that removing things never fails for want of room.
fn reserve(size: u64) -> u64 {
    const LEAST: u64 = 48 << 20;
    const MOST: u64 = 16 << 30;
    (size / 20).clamp(LEAST, MOST)
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
        self.finish_batch(&root)?;
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
        self.finish_batch(&root)?;
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
            several => self.snapshot_batch(&root, several),
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
        if let Err(error) = keep_as_snapshot(&found.directory, &name) {
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

/// What a sparse file of which `used` bytes are in use can still take up.
fn below(path: &Path, used: u64) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let about = || format!("look at {}", path.display());
    let allocated = fs::metadata(path).during(about)?.blocks() * 512;
    let stat = rustix::fs::statvfs(path).during(about)?;
    Ok(stat.f_bavail * stat.f_frsize + allocated.saturating_sub(used))
}

/// What the ledger of all datasets needs to know of each.
fn notes(volumes: &Path) -> Result<BTreeMap<VolumeId, Note>> {
    dataset::all(volumes)?
        .into_iter()
        // One may be removed at this moment.
        .filter_map(|id| match Note::read(&volumes.join(id.as_str())) {
            Ok(note) => Some(Ok((id, note))),
            Err(_) if !volumes.join(id.as_str()).exists() => None,
            Err(error) => Some(Err(error)),
        })
        .collect()
}
