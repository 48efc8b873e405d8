//! Taking snapshots of datasets, several at once too, and what a rollback does with the content
//! that it replaces.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::RenameFlags;
use types::{Error, Result, SnapshotId, VolumeId, error::ResultExt as _};

use super::{
    core::{Core, Dataset},
    dataset::{self, LIVE, Note, RUBBISH},
    groups::Group,
    ioctl::{self, Subvolume},
    locked,
};
use fault::point;

/// A list of snapshots that were all taken and are being named.
const BATCH: &str = "new-batch";

/// Takes a snapshot of a dataset's live subvolume, on the disk when it returns.
pub(super) fn take_snapshot(directory: &Path, note: &Note, name: &OsStr) -> Result<()> {
    let live = dataset::open(&directory.join(LIVE))?;
    copy_subvolume(directory, note, &live, name)
}

fn copy_subvolume(directory: &Path, note: &Note, source: &File, name: &OsStr) -> Result<()> {
    ioctl::snapshot_create(
        dataset::open(directory)?,
        name,
        source,
        Some(Group::new(1, note.group).0),
        true,
    )
    .during(|| format!("take a snapshot in {}", directory.display()))
}

impl Core {
    /// Takes snapshots of several: all bear names of rubbish until a list of them is on the
    /// disk, and are then renamed, again after a crash if need be.
    pub(super) fn snapshot_batch(
        &self,
        root: &File,
        wanted: &[(&VolumeId, Dataset, &SnapshotId)],
    ) -> Result<()> {
        let volumes = &self.volumes;
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
    pub(super) fn finish_batch(&self, root: &File) -> Result<()> {
        let list = self.volumes.join(BATCH);
        let text = match fs::read(&list) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::wrap(format!("read {}", list.display()), error)),
        };
        // A list that is cut off was not announced: then its snapshots are rubbish.
        let moves: Vec<(PathBuf, PathBuf)> = serde_json::from_slice(&text).unwrap_or_default();
        for (staged, name) in &moves {
            let staged = self.volumes.join(staged);
            let name = self.volumes.join(name);
            if staged.exists() {
                fs::rename(staged, &name).during(|| format!("name {}", name.display()))?;
                point("btrfs.snapshot.half");
            }
        }
        fs::remove_file(&list).during(|| format!("remove {}", list.display()))?;
        ioctl::commit(root).during(|| "name the snapshots")
    }
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

fn undo_snapshot(path: &Path) {
    if let (Some(directory), Some(name)) = (path.parent(), path.file_name())
        && let Err(error) = dataset::destroy(directory, name)
    {
        tracing::warn!(%error, "a snapshot of a failed batch stays until the next sweep");
    }
}

/// Exchanges the subvolume `name` with a snapshot of it that has the same content, if there is
/// one, as there is when a rollback is made that can be undone.
///
/// What is removed then is the snapshot. That is a matter of a few blocks, while to remove the
/// first owner of a large tree the kernel rewrites the references of all of it, and every other
/// call waits for seconds when it commits.
///
/// Nobody may have a file of it open for writing: the kernel looks at a subvolume's read-only
/// flag when a file is opened, not when it is written.
pub(super) fn keep_as_snapshot(directory: &Path, note: &Note, name: &OsStr) -> Result<()> {
    let old = dataset::open(&directory.join(name))?;
    let about = || format!("look at the subvolumes in {}", directory.display());
    let info = ioctl::subvolume_info(&old).during(about)?;
    // Subvolumes in it are not in its snapshots.
    if !dataset::nested(&old, info.id)?.is_empty() || twin(directory, &info)?.is_none() {
        return Ok(());
    }
    ioctl::subvolume_freeze(&old).during(|| "make a subvolume read-only")?;
    point("btrfs.rollback.frozen");
    // A subvolume that was written to is not a changed one until its pages are written out, and
    // nothing writes out those of one subvolume alone but a snapshot of it.
    let flushed: OsString = format!("{RUBBISH}flushed").into();
    dataset::destroy(directory, &flushed)?;
    copy_subvolume(directory, note, &old, &flushed)?;
    dataset::destroy(directory, &flushed)?;
    point("btrfs.rollback.flushed");
    let info = ioctl::subvolume_info(&old).during(about)?;
    let Some(twin) = twin(directory, &info)? else {
        return Ok(());
    };
    let parent = dataset::open(directory)?;
    rustix::fs::renameat_with(&parent, name, &parent, &*twin, RenameFlags::EXCHANGE)
        .during(|| format!("exchange two subvolumes in {}", directory.display()))?;
    point("btrfs.rollback.kept");
    Ok(())
}

/// The name of a snapshot in `directory` that was taken after the last change of a subvolume
/// that is on the disk.
fn twin(directory: &Path, of: &Subvolume) -> Result<Option<OsString>> {
    // A change within one tick of the clock after an earlier one need not be noted.
    const TICK: Duration = Duration::from_millis(10);
    for snapshot in dataset::snapshots(directory)? {
        let name = dataset::snapshot_name(&snapshot);
        let copy = ioctl::subvolume_info(dataset::open(&directory.join(&name))?)
            .during(|| format!("look at the subvolumes in {}", directory.display()))?;
        if copy.parent == of.uuid
            && copy.created.0 >= of.changed.0
            && copy.created.1 >= of.changed.1 + TICK
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// A snapshot that is removed again when this is dropped.
pub(super) struct Temporary<'a> {
    pub(super) core: &'a Core,
    pub(super) directory: &'a Path,
    pub(super) name: &'a OsStr,
}

impl Temporary<'_> {
    pub(super) fn take(&self, note: &Note) -> Result<()> {
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
