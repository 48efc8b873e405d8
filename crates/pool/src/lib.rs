//! Storage pools of this machine.
//!
//! A pool keeps *datasets*, one per volume: a tree of files or a disk image, with its
//! snapshots. [`Pool`] is the seam between volumes and engines; `btrfs` and `zfs` implement
//! it, and `conformance` says what any engine must do.
//!
//! What is not here: names that users give, schedules, who may mount what, and records. An
//! engine finds all that it needs on the pool itself, so that every call can be repeated
//! after a crash. Every call may block for as long as the disk does: callers run them on
//! threads of their own, with a deadline.

pub mod btrfs;
#[cfg(any(test, feature = "conformance"))]
#[allow(clippy::unwrap_used)] // its checks are tests
pub mod conformance;
pub mod loopdev;
mod probe;
pub mod zfs;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use types::{Error, PoolName, Result, SnapshotId, VolumeId, volume::Content};

/// How a pool is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    pub name: PoolName,
    pub engine: Engine,
    pub source: Source,
}

/// Which implementation keeps a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Btrfs,
    Zfs,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Btrfs => "btrfs",
            Self::Zfs => "zfs",
        })
    }
}

/// What a pool's bytes lie on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A sparse file of this size, over a loop device with direct I/O and discard.
    File { path: PathBuf, bytes: u64 },
    /// Whole devices (or files, for ZFS). Two with `mirror` keep every block twice.
    Devices { paths: Vec<PathBuf>, mirror: bool },
    /// A directory on a file system of the engine's kind that is mounted already.
    Directory { path: PathBuf },
}

/// Whether a pool can be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Online,
    /// It works, but a device is missing or failing; says which.
    Degraded(String),
    /// It can't be used; says why.
    Faulted(String),
}

/// How a pool is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    pub health: Health,
    /// Bytes that volumes can hold in all, after redundancy.
    pub total: u64,
    /// Bytes in use, and bytes that can still be written.
    pub used: u64,
    pub free: u64,
    /// How many copies there are of each block: 1, or 2 on a mirror.
    pub copies: u32,
    pub devices: Vec<PathBuf>,
    /// Where its datasets are.
    pub root: PathBuf,
}

/// A dataset as it is found on a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub id: VolumeId,
    pub content: Content,
    pub snapshots: Vec<SnapshotId>,
}

/// Where a dataset is filled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    pub dataset: &'a VolumeId,
    /// As it is now, without one.
    pub snapshot: Option<&'a SnapshotId>,
}

/// The use of a dataset, in bytes on the pool (one copy counted).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// What the live dataset refers to.
    pub live: u64,
    /// What only its snapshots hold: it would be free without them.
    pub snapshots: u64,
    /// The hard limit in force.
    pub limit: Option<u64>,
}

/// One difference between two states of a file dataset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// Relative to the dataset's root. Not UTF-8 bytes are replaced.
    pub path: String,
    pub kind: ChangeKind,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Changed,
    Removed,
}

/// A pool, opened. All methods block; all are idempotent unless they say otherwise, so that a
/// call that a crash cut off is simply made again. A call that fails leaves things as they were
/// or as rubbish that [`Pool::sweep`] removes.
pub trait Pool: Send + Sync + fmt::Debug + 'static {
    /// Which engine this is.
    fn engine(&self) -> Engine;
    /// How it is doing.
    fn status(&self) -> Result<PoolStatus>;
    /// All datasets. Rubbish of calls that were cut off is not among them.
    fn datasets(&self) -> Result<Vec<Found>>;
    /// Removes rubbish of calls that were cut off.
    fn sweep(&self) -> Result<()>;

    /// Makes an empty dataset, or a writable copy of `from` in no time (then `content` is that
    /// of the origin; an image may become larger). One that exists is left as it is. A copy is
    /// independent: its origin can be removed at any time afterwards.
    fn create(&self, id: &VolumeId, content: Content, from: Option<Origin<'_>>) -> Result<()>;
    /// Removes a dataset with all its snapshots.
    fn remove(&self, id: &VolumeId) -> Result<()>;
    /// The live content: a directory, or the image's file or block device.
    /// `NotFound` when there is none.
    fn path(&self, id: &VolumeId) -> Result<PathBuf>;
    /// The content of a snapshot, read-only: as [`Pool::path`].
    fn snapshot_path(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<PathBuf>;
    /// Takes one snapshot of each, as close together as the engine can (ZFS: at one moment).
    /// All or none. One that exists is left as it is.
    fn snapshot(&self, wanted: &[(&VolumeId, &SnapshotId)]) -> Result<()>;
    /// Removes a snapshot; its space is given back soon, not at once (see [`Pool::reclaim`]).
    fn remove_snapshot(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()>;
    /// Makes the live content that of the snapshot, in one step and in no time. All snapshots
    /// stay, newer ones too. What was live is gone unless a snapshot holds it. Nothing may be
    /// using the live content: it is another directory or device afterwards.
    fn rollback(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()>;
    /// Makes an image larger; file datasets have no size of their own. Never smaller.
    fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()>;
    /// Limits the bytes that the live dataset and what its snapshots pin may take together
    /// (ZFS: the live dataset alone, `refquota`). `None` lifts the limit.
    fn set_limit(&self, id: &VolumeId, bytes: Option<u64>) -> Result<()>;
    /// The use of one dataset, exact within 1 % once what was written is on the disk.
    fn usage(&self, id: &VolumeId) -> Result<Usage>;
    /// The bytes that count against [`Pool::set_limit`], for all datasets, at the cost of a few
    /// system calls: for looking often.
    fn charged(&self) -> Result<Vec<(VolumeId, u64)>>;
    /// Waits until the space of what was removed has been given back, at most about `patience`.
    fn reclaim(&self, patience: std::time::Duration) -> Result<()>;
    /// What changed from a snapshot to another or to the live dataset, sorted by path, in time
    /// proportional to the change. For file datasets only.
    fn diff(
        &self,
        id: &VolumeId,
        from: &SnapshotId,
        to: Option<&SnapshotId>,
    ) -> Result<Vec<Change>>;

    /// Takes up more room: a file of `bytes`, or one more device.
    fn grow(&self, by: &Growth) -> Result<()>;
    /// Unmounts or exports it and gives its loop devices back. Its data stays. Fails with
    /// `Conflict` while something uses it.
    fn close(&self) -> Result<()>;
    /// Closes it and removes all of its data. Refused with `Conflict` while it has datasets.
    fn destroy(&self) -> Result<()>;
}

/// How a pool grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// Its file becomes this large, in bytes.
    Bytes(u64),
    /// A device is added (ZFS with a mirror: two).
    Devices(Vec<PathBuf>),
    /// Its device has grown already: use all of it.
    Fill,
}

/// Makes a pool. `mount` is the directory where it shall be mounted, ours alone; it is made.
/// A device that holds anything is refused with `Conflict`: the error says how to wipe it.
pub fn create(spec: &PoolSpec, mount: &Path) -> Result<Arc<dyn Pool>> {
    Ok(match spec.engine {
        Engine::Btrfs => Arc::new(btrfs::BtrfsPool::create(spec, mount)?),
        Engine::Zfs => Arc::new(zfs::ZfsPool::create(spec, mount)?),
    })
}

/// Opens a pool that exists: mounts or imports it unless it still is, and takes over what an
/// earlier process of ours left. One with a missing device is opened degraded if it can be.
pub fn open(spec: &PoolSpec, mount: &Path) -> Result<Arc<dyn Pool>> {
    Ok(match spec.engine {
        Engine::Btrfs => Arc::new(btrfs::BtrfsPool::open(spec, mount)?),
        Engine::Zfs => Arc::new(zfs::ZfsPool::open(spec, mount)?),
    })
}

/// Something missing, in one form of words.
pub(crate) fn no_dataset(pool: &PoolName, id: &VolumeId) -> Error {
    Error::not_found(format!("pool {pool} has no dataset {id:?}"))
}
