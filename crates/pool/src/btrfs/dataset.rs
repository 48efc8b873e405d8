//! One dataset: a directory with the subvolume `live`, a read-only subvolume for each snapshot,
//! and a note about itself.
//!
//! Whatever is being made or taken apart bears a name that begins with `new-` until, or from
//! when, a single rename makes it count. All transactions of btrfs are committed in order, so
//! one commit at the end makes the steps before it last.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{fs::IFlags, io::Errno};
use serde::{Deserialize, Serialize};
use types::{Error, Result, SnapshotId, VolumeId, error::ResultExt as _, volume::Content};

use super::{
    ioctl,
    search::{self, ROOT_REF, ROOT_TREE, Range},
};

pub(super) const LIVE: &str = "live";
/// The file in a subvolume that holds a disk image.
pub(super) const IMAGE: &str = "image";
/// What names of rubbish begin with.
pub(super) const RUBBISH: &str = "new-";
const SNAPSHOT: &str = "snap-";
const NOTE: &str = "trusted.kraud.dataset";

/// What a dataset notes about itself, as JSON in an extended attribute of its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) version: u32,
    /// N of its quota group 1/N.
    pub(super) group: u64,
    pub(super) kind: Kind,
    /// The limit that was asked for, in bytes.
    pub(super) limit: Option<u64>,
    /// Where it was copied from, for a clone.
    pub(super) copied: Option<Copied>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Files,
    Image,
}

/// What a clone knows of its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copied {
    /// The transaction that made it: what is older is charged to another dataset.
    pub(super) since: u64,
    /// Bytes that it shares with other datasets and that are charged to them, at most.
    pub(super) shared: u64,
    /// The groups that those bytes are charged to: the origin's, its origin's...
    pub(super) from: Vec<u64>,
}

impl Note {
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let text = xattr::get(directory, NOTE)
            .during(|| format!("read the note of {}", directory.display()))?
            .ok_or_else(|| {
                Error::system(format!(
                    "{} is not a dataset: it has no note",
                    directory.display()
                ))
            })?;
        serde_json::from_slice(&text).during(|| format!("read the note of {}", directory.display()))
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).during(|| "write a note")?;
        xattr::set(directory, NOTE, &text)
            .during(|| format!("write the note of {}", directory.display()))
    }
}

/// The name of a snapshot's subvolume.
pub(super) fn snapshot_name(snapshot: &SnapshotId) -> OsString {
    format!("{SNAPSHOT}{snapshot}").into()
}

/// The snapshots in a dataset's directory, in the order of their ids.
pub(super) fn snapshots(directory: &Path) -> Result<Vec<SnapshotId>> {
    let mut found: Vec<SnapshotId> = names(directory)?
        .iter()
        .filter_map(|name| name.to_str()?.strip_prefix(SNAPSHOT)?.parse().ok())
        .collect();
    found.sort();
    Ok(found)
}

/// The datasets in the directory of all.
pub(super) fn all(volumes: &Path) -> Result<Vec<VolumeId>> {
    let mut found: Vec<VolumeId> = names(volumes)?
        .iter()
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    found.sort();
    Ok(found)
}

/// What a directory holds.
pub(super) fn names(directory: &Path) -> Result<Vec<OsString>> {
    let list = || -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    };
    list().during(|| format!("list {}", directory.display()))
}

/// Opens a directory for ioctls.
pub(super) fn open(directory: &Path) -> Result<File> {
    File::open(directory).during(|| format!("open {}", directory.display()))
}

/// What the content of a subvolume of this dataset is, as found on the pool.
pub(super) fn content(directory: &Path, kind: Kind) -> Result<Content> {
    match kind {
        Kind::Files => Ok(Content::Files),
        Kind::Image => {
            let image = directory.join(LIVE).join(IMAGE);
            let bytes = fs::metadata(&image)
                .during(|| format!("look at {}", image.display()))?
                .len();
            Ok(Content::Image { bytes })
        }
    }
}

/// The path of the content in a subvolume.
pub(super) fn content_path(subvolume: PathBuf, kind: Kind) -> PathBuf {
    match kind {
        Kind::Files => subvolume,
        Kind::Image => subvolume.join(IMAGE),
    }
}

/// Makes the empty live content in a fresh dataset directory.
pub(super) fn make_empty(directory: &Path, content: Content, group: u64) -> Result<()> {
    let parent = open(directory)?;
    ioctl::subvolume_create(&parent, OsStr::new(LIVE), Some(group))
        .during(|| format!("make a subvolume in {}", directory.display()))?;
    let Content::Image { bytes } = content else {
        return Ok(());
    };
    let live = directory.join(LIVE);
    let subvolume = open(&live)?;
    // Files inherit it; it has an effect only on those that are empty still.
    let flags = rustix::fs::ioctl_getflags(&subvolume)
        .during(|| format!("read the flags of {}", live.display()))?;
    rustix::fs::ioctl_setflags(&subvolume, flags | IFlags::NOCOW)
        .during(|| format!("set the flags of {}", live.display()))?;
    let image = live.join(IMAGE);
    let file = File::create_new(&image).during(|| format!("make {}", image.display()))?;
    file.set_len(bytes)
        .during(|| format!("make {} {bytes} bytes large", image.display()))
}

/// Lets an image become larger; true when it was smaller.
pub(super) fn grow_image(live: &Path, bytes: u64) -> Result<bool> {
    let image = live.join(IMAGE);
    let file = File::options()
        .write(true)
        .open(&image)
        .during(|| format!("open {}", image.display()))?;
    let now = file
        .metadata()
        .during(|| format!("look at {}", image.display()))?
        .len();
    if now >= bytes {
        return Ok(false);
    }
    file.set_len(bytes)
        .during(|| format!("let {} grow to {bytes} bytes", image.display()))?;
    Ok(true)
}

/// Removes the subvolume `name`, with those that somebody made inside of it. One that is not
/// there is fine.
pub(super) fn destroy(directory: &Path, name: &OsStr) -> Result<()> {
    let parent = open(directory)?;
    let path = directory.join(name);
    match ioctl::subvolume_destroy(&parent, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY) => {}
        Err(error) => return Err(Error::wrap(format!("remove {}", path.display()), error)),
    }
    let id = {
        let subvolume = open(&path)?;
        ioctl::subvolume_info(&subvolume)
            .during(|| format!("look at {}", path.display()))?
            .id
    };
    destroy_nested(&parent, id).map_err(|e| e.context(format!("remove {}", path.display())))?;
    ioctl::subvolume_destroy(&parent, name).during(|| format!("remove {}", path.display()))
}

/// The subvolumes inside of subvolume `id`.
pub(super) fn nested(any: &File, id: u64) -> Result<Vec<u64>> {
    let mut nested = Vec::new();
    search::search(any, Range::object(ROOT_TREE, id, ROOT_REF), |item| {
        nested.push(item.offset);
        ControlFlow::Continue(())
    })
    .during(|| format!("find the subvolumes in subvolume {id}"))?;
    Ok(nested)
}

/// Removes the subvolumes inside of subvolume `id`.
fn destroy_nested(any: &File, id: u64) -> Result<()> {
    for child in nested(any, id)? {
        destroy_nested(any, child)?;
        ioctl::subvolume_destroy_id(any, child)
            .during(|| format!("remove the nested subvolume {child}"))?;
    }
    Ok(())
}

/// Takes a dataset's directory apart, subvolumes and all.
pub(super) fn discard(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for name in names(directory)? {
        if name != LIVE {
            destroy(directory, &name)?;
        }
    }
    fault::point("btrfs.remove.snapshots");
    destroy(directory, OsStr::new(LIVE))?;
    fault::point("btrfs.remove.live");
    fs::remove_dir(directory).during(|| format!("remove {}", directory.display()))
}

/// Whether a name is rubbish of a call that was cut off.
pub(super) fn is_rubbish(name: &OsStr) -> bool {
    name.as_bytes().starts_with(RUBBISH.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_decode_forward() {
        // What version 1 writes must stay readable.
        let text = r#"{"version":1,"group":77,"kind":"image","limit":10,
            "copied":{"since":9,"shared":4096,"from":[3,4]}}"#;
        let note: Note = serde_json::from_str(text).unwrap();
        assert_eq!(note.group, 77);
        assert_eq!(note.kind, Kind::Image);
        assert_eq!(note.copied.unwrap().from, [3, 4]);
    }
}
