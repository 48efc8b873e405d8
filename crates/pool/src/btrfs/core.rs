//! The state of an open btrfs pool, and what can be asked of it: shared by calls and by what
//! runs in the background.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Mutex,
};

use types::{Error, Result, SnapshotId, VolumeId, error::ResultExt as _};

use super::{
    commits::Commits,
    dataset::{self, Copied, Note},
    groups::{self, Group},
    ioctl, locked,
    quota::Ledger,
    search,
};
use crate::no_dataset;

/// What a survey in the background needs too.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) name: types::PoolName,
    pub(super) volumes: PathBuf,
    pub(super) uuid: [u8; 16],
    pub(super) group: Group,
    /// With full quotas a group counts all that its members refer to, whoever wrote it.
    pub(super) mode: groups::Mode,
    pub(super) away: Vec<String>,
    pub(super) ledger: Ledger,
    pub(super) commits: Commits,
    /// One change at a time.
    pub(super) serial: Mutex<()>,
    /// Temporary snapshots that are no rubbish.
    pub(super) in_use: Mutex<BTreeSet<OsString>>,
}

impl Core {
    /// The directory of all datasets, opened; checks that the pool is mounted still.
    pub(super) fn root(&self) -> Result<File> {
        let gone = || Error::unavailable(format!("pool {} is not mounted", self.name));
        let root = File::open(&self.volumes).map_err(|_| gone())?;
        match ioctl::file_system(&root) {
            Ok(found) if found.uuid == self.uuid => Ok(root),
            _ => Err(gone()),
        }
    }

    pub(super) fn directory(&self, id: &VolumeId) -> PathBuf {
        self.volumes.join(id.as_str())
    }

    pub(super) fn dataset(&self, id: &VolumeId) -> Result<Dataset> {
        let directory = self.directory(id);
        if !directory.exists() {
            self.root()?;
            return Err(no_dataset(&self.name, id));
        }
        let note = Note::read(&directory)?;
        Ok(Dataset { directory, note })
    }

    pub(super) fn snapshot_directory(
        &self,
        id: &VolumeId,
        snapshot: &SnapshotId,
    ) -> Result<PathBuf> {
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
    pub(super) fn new_group(&self, root: &File, id: &VolumeId) -> Result<Group> {
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
    pub(super) fn copied(&self, from: &Dataset, since: u64) -> Result<Option<Copied>> {
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

    /// Makes what was done last, and what is charged known.
    pub(super) fn committed(&self, root: &File, what: impl FnOnce() -> String) -> Result<()> {
        self.commits
            .share(|| ioctl::commit(root).inspect(|()| self.wake_cleaner()))
            .during(what)
    }

    /// Makes what was done last, and quotas right.
    pub(super) fn commit(&self, root: &File, what: impl FnOnce() -> String) -> Result<()> {
        self.committed(root, what)?;
        match self.mode {
            groups::Mode::Full => groups::count_anew(root),
            _ => Ok(()),
        }
    }

    /// Has the kernel free the blocks of removed subvolumes now, not within half a minute.
    ///
    /// Its thread for that is woken by the one that commits, and that by a change of the label.
    fn wake_cleaner(&self) {
        let label = groups::sysfs(&self.uuid).join("label");
        let rewritten = fs::read(&label).and_then(|mut text| {
            // Without a line end a write of nothing would be none.
            if text.is_empty() {
                text.push(b'\n');
            }
            fs::write(&label, text)
        });
        if let Err(error) = rewritten {
            tracing::debug!(pool = %self.name, %error, "the kernel frees what was removed later");
        }
    }

    pub(super) fn is_in_use(&self, name: &OsStr) -> bool {
        locked(&self.in_use).contains(name)
    }

    /// What is charged to a group at this moment.
    pub(super) fn charged_now(&self, group: Group) -> Result<u64> {
        if let Some(bytes) = groups::charged_now(&self.uuid, group) {
            return Ok(bytes);
        }
        let groups = groups::groups(self.root()?)?;
        Ok(groups.bytes.get(&group).copied().unwrap_or(0))
    }

    /// How large the pool is and what it holds, in bytes of content.
    pub(super) fn space(&self) -> Result<Space> {
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
    pub(super) fn complaints(&self) -> Result<Vec<String>> {
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
    pub(super) fn purge_groups(&self, root: &File) -> Result<()> {
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
    pub(super) fn dying(&self, root: &File) -> Result<Vec<u64>> {
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

/// A dataset that is there.
pub(super) struct Dataset {
    pub(super) directory: PathBuf,
    pub(super) note: Note,
}

impl Dataset {
    pub(super) fn group(&self) -> Group {
        Group::new(1, self.note.group)
    }
}

/// How much room a pool has.
pub(super) struct Space {
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) copies: u32,
}

/// The bytes of a pool that datasets can't have: for the trees that no dataset is charged for
/// (checksums, extents), and so that removing things never fails for want of room.
fn reserve(size: u64) -> u64 {
    const LEAST: u64 = 48 << 20;
    const MOST: u64 = 16 << 30;
    (size / 20).clamp(LEAST, MOST)
}

/// What a sparse file of which `used` bytes are in use can still take up.
pub(super) fn below(path: &Path, used: u64) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let about = || format!("look at {}", path.display());
    let allocated = fs::metadata(path).during(about)?.blocks() * 512;
    let stat = rustix::fs::statvfs(path).during(about)?;
    Ok(stat.f_bavail * stat.f_frsize + allocated.saturating_sub(used))
}

/// What the ledger of all datasets needs to know of each.
pub(super) fn notes(volumes: &Path) -> Result<BTreeMap<VolumeId, Note>> {
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
