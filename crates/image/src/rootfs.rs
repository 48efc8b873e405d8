//! Root file systems of containers: overlay mounts of layers, and what a container changed.
//!
//! Blocking; call from a thread that may block.

use std::path::{Path, PathBuf};

use types::{Digest, Result};

use crate::layers::{Ingested, LayerStore};

/// A root file system to mount.
#[derive(Debug, Clone)]
pub struct RootfsSpec {
    /// Lowest first; may be empty.
    pub layers: Vec<Digest>,
    /// Takes what is written. Must exist.
    pub upper: PathBuf,
    /// The overlay's own scratch directory, on the same file system as `upper`. Must exist.
    pub work: PathBuf,
    /// Where it is mounted. Must exist.
    pub target: PathBuf,
    /// Never synchronise to disk: for containers that are removed when they exit.
    pub volatile: bool,
}

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

/// A path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute in the container.
    pub path: String,
    pub kind: ChangeKind,
}

impl LayerStore {
    /// Mounts a root file system.
    pub fn mount_rootfs(&self, spec: &RootfsSpec) -> Result<()> {
        Err(types::Error::not_implemented(format!(
            "mounting {}",
            spec.target.display()
        )))
    }
    /// Unmounts what [`LayerStore::mount_rootfs`] mounted at `target`. Not mounted is fine.
    pub fn unmount_rootfs(&self, target: &Path) -> Result<()> {
        Err(types::Error::not_implemented(format!(
            "unmounting {}",
            target.display()
        )))
    }
    /// What `upper` changes over `layers`, as `docker diff`, sorted.
    pub fn changes(&self, _layers: &[Digest], upper: &Path) -> Result<Vec<Change>> {
        Err(types::Error::not_implemented(format!(
            "changes of {}",
            upper.display()
        )))
    }
    /// Bytes of the files in `upper` (docker's `SizeRw`).
    pub fn upper_size(&self, upper: &Path) -> Result<u64> {
        Err(types::Error::not_implemented(format!(
            "size of {}",
            upper.display()
        )))
    }
    /// Makes a layer of what `upper` holds.
    pub fn commit_layer(&self, upper: &Path) -> Result<Ingested> {
        Err(types::Error::not_implemented(format!(
            "committing {}",
            upper.display()
        )))
    }
}
