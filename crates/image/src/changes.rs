//! What a container changed: `docker diff`, the size of the writable layer, and the layer
//! that `docker commit` makes of it.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::{fs::FileType, io::Errno};
use types::{Digest, Result, error::ResultExt as _};

use crate::{
    apply::OPAQUE_XATTR,
    fsutil::{
        deeper, is_whiteout, join, kind, lstat, names, open_child_dir, open_dir, open_in_root,
    },
    layers::{Ingested, LayerStore},
    pack::{Packer, Rules},
};

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

/// A path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute in the container.
    pub path: String,
    pub kind: ChangeKind,
}

/// Whether overlayfs hides what lower layers have in this directory.
pub(crate) fn is_opaque(dir: &OwnedFd) -> io::Result<bool> {
    let mut value = [0u8; 1];
    match rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value) {
        Ok(1) => Ok(value == *b"y"),
        Ok(_) | Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Compares an upper directory with the layers under it.
struct Comparison {
    lowers: Vec<OwnedFd>,
    changes: Vec<Change>,
    depth: usize,
}

impl Comparison {
    /// Whether lower layers show something at `path`, and if it is a directory its facts.
    fn below(&self, path: &[u8]) -> io::Result<Option<rustix::fs::Stat>> {
        for lower in &self.lowers {
            // A part that is a file here hides directories further down.
            match open_in_root(
                lower.as_fd(),
                crate::names::split_last(path).0,
                rustix::fs::OFlags::PATH,
            ) {
                Ok(parent) => match lstat(&parent, crate::names::split_last(path).1) {
                    Ok(Some(stat)) => return Ok(Some(stat).filter(|stat| !is_whiteout(stat))),
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
                    Err(error) => return Err(error),
                },
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn add(&mut self, path: &[u8], kind: ChangeKind) {
        self.changes.push(Change {
            path: format!("/{}", String::from_utf8_lossy(path)),
            kind,
        });
    }

    /// Walks `dir`, which is at `path`; returns whether anything in it changed.
    fn walk(&mut self, dir: &OwnedFd, path: &[u8]) -> io::Result<bool> {
        self.depth = deeper(self.depth)?;
        let mut any = false;
        for name in names(dir)? {
            let Some(stat) = lstat(dir, &name)? else {
                continue;
            };
            any |= self.entry(dir.as_fd(), &name, &join(path, &name), &stat)?;
        }
        self.depth -= 1;
        Ok(any)
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &rustix::fs::Stat,
    ) -> io::Result<bool> {
        if is_whiteout(stat) {
            self.add(path, ChangeKind::Deleted);
            return Ok(true);
        }
        let below = self.below(path)?;
        if kind(stat) != FileType::Directory {
            self.add(
                path,
                if below.is_some() {
                    ChangeKind::Modified
                } else {
                    ChangeKind::Added
                },
            );
            return Ok(true);
        }
        let inner = open_child_dir(dir, name)?;
        let was_dir = below
            .as_ref()
            .filter(|below| kind(below) == FileType::Directory);
        // Its own change, unless it is only the way to one further in.
        let changed = if is_opaque(&inner)? && below.is_some() {
            Some(ChangeKind::Deleted)
        } else {
            match (was_dir, &below) {
                (Some(was), _) if same_dir(was, stat) => None,
                (_, Some(_)) => Some(ChangeKind::Modified),
                (_, None) => Some(ChangeKind::Added),
            }
        };
        if let Some(kind) = changed {
            self.add(path, kind);
            self.walk(&inner, path)?;
            return Ok(true);
        }
        let at = self.changes.len();
        if !self.walk(&inner, path)? {
            return Ok(false);
        }
        let parent = Change {
            path: format!("/{}", String::from_utf8_lossy(path)),
            kind: ChangeKind::Modified,
        };
        self.changes.insert(at, parent);
        Ok(true)
    }
}

/// docker's test: mode, owner and time tell whether somebody changed the directory itself.
fn same_dir(a: &rustix::fs::Stat, b: &rustix::fs::Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid, a.st_mtime, a.st_mtime_nsec)
        == (b.st_mode, b.st_uid, b.st_gid, b.st_mtime, b.st_mtime_nsec)
}

impl LayerStore {
    /// What `upper` changes over `layers`, as `docker diff`, sorted.
    pub fn changes(&self, layers: &[Digest], upper: &Path) -> Result<Vec<Change>> {
        let comparing = || format!("comparing {} with its image", upper.display());
        let lowers = self
            .lower_dirs(layers)?
            .iter()
            .map(|dir| open_dir(dir))
            .collect::<io::Result<_>>()
            .during(comparing)?;
        let mut comparison = Comparison {
            lowers,
            changes: Vec::new(),
            depth: 0,
        };
        let top = open_dir(upper)
            .and_then(|dir| Ok(open_child_dir(dir, b".")?))
            .during(comparing)?;
        comparison.walk(&top, b"").during(comparing)?;
        comparison.changes.sort();
        Ok(comparison.changes)
    }

    /// Bytes of the files in `upper` (docker's `SizeRw`), each inode counted once.
    pub fn upper_size(&self, upper: &Path) -> Result<u64> {
        let measuring = || format!("measuring {}", upper.display());
        let top = open_dir(upper)
            .and_then(|dir| Ok(open_child_dir(dir, b".")?))
            .during(measuring)?;
        size_of(&top, &mut HashSet::new(), 0).during(measuring)
    }

    /// Makes a layer of what `upper` holds.
    pub fn commit_layer(self: &Arc<Self>, upper: &Path) -> Result<Ingested> {
        let committing = || format!("committing {}", upper.display());
        let top = open_dir(upper).during(committing)?;
        let (reader, writer) = io::pipe().during(committing)?;
        std::thread::scope(|scope| {
            let packer = std::thread::Builder::new()
                .name("layer-commit".into())
                .spawn_scoped(scope, move || {
                    let writer = io::BufWriter::with_capacity(256 * 1024, writer);
                    Packer::new(writer, Rules::layer())
                        .tree(top.as_fd(), b".", b"")?
                        .finish()
                });
            let packer = packer.during(committing)?;
            let ingested = self.ingest(reader, None);
            let packed = packer
                .join()
                .map_err(|_| types::Error::system("committing: the packing thread panicked"))?;
            // Its own failure says more than the cut-off tar that it causes.
            match (packed, ingested) {
                (Err(error), ingested)
                    if error.kind() != io::ErrorKind::BrokenPipe || ingested.is_ok() =>
                {
                    Err(error).during(committing)
                }
                (_, ingested) => ingested,
            }
        })
    }
}

fn size_of(dir: &OwnedFd, seen: &mut HashSet<(u64, u64)>, depth: usize) -> io::Result<u64> {
    let depth = deeper(depth)?;
    let mut total = 0;
    for name in names(dir)? {
        let Some(stat) = lstat(dir, &name)? else {
            continue;
        };
        match kind(&stat) {
            FileType::RegularFile
                if (stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino))) =>
            {
                total += u64::try_from(stat.st_size).unwrap_or(0);
            }
            FileType::Directory => match open_child_dir(dir, &name) {
                Ok(inner) => total += size_of(&inner, seen, depth)?,
                // A running container goes on removing things.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            },
            _ => {}
        }
    }
    Ok(total)
}
