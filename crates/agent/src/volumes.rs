//! What a node does with pools and volumes.

use async_trait::async_trait;
pub use types::volume::quota::Droppable;
use types::{ContainerId, PoolName, Result, SnapshotId};
pub use volume::{
    Change, ChangeKind, Engine, Growth, Health, PoolSpec, PoolStatus, Pressure, Source, Usage,
    Volume,
};

use crate::{PathStat, Reader};

/// What a new volume is a copy of, on the same node and pool.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    pub volume: types::VolumeId,
    /// As it is now, without one.
    pub snapshot: Option<SnapshotId>,
}

/// A file in a volume.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileFacts {
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// As the kernel has it (stat(2)), type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: types::Time,
    /// For a link: what it says.
    pub link_target: String,
}

/// Pools and volumes of a node. What a call names must be recorded before; every call can be
/// repeated after a crash, and fails with `Unavailable` when a disk does not answer in time.
#[async_trait]
pub trait NodeVolumes: Send + Sync + 'static {
    /// How the node's first pool would be made.
    async fn pool_default(&self) -> Result<PoolSpec>;
    /// A pool in a sparse file among the node's data.
    async fn pool_in_file(&self, name: &PoolName, bytes: u64) -> Result<PoolSpec>;
    /// Makes a pool and opens it. `anew`: an earlier try may have left it half done.
    async fn pool_create(&self, spec: &PoolSpec, anew: bool) -> Result<PoolStatus>;
    /// Opens a pool that was made. When it fails the pool counts as faulted and is tried again
    /// whenever somebody asks how it is.
    async fn pool_open(&self, spec: &PoolSpec) -> Result<()>;
    /// How a pool is doing.
    async fn pool_status(&self, name: &PoolName) -> Result<PoolStatus>;
    /// Makes it larger.
    async fn pool_grow(&self, name: &PoolName, by: &Growth) -> Result<PoolStatus>;
    /// Removes it with its data; refused while it has volumes.
    async fn pool_remove(&self, name: &PoolName) -> Result<()>;

    /// Makes a volume: empty, with its file system, or as a copy.
    async fn volume_create(&self, volume: &Volume, origin: Option<&Origin>) -> Result<()>;
    /// Takes over the content of a volume that was a plain directory, and removes that.
    async fn volume_import(&self, volume: &Volume) -> Result<()>;
    /// Removes a volume with its snapshots.
    async fn volume_remove(&self, volume: &Volume) -> Result<()>;
    /// Makes a block volume as large as `volume` says.
    async fn volume_resize(&self, volume: &Volume) -> Result<()>;
    /// Keeps a volume of files to its size; `droppable` says which of its snapshots can be
    /// dropped for space, so that [`Pressure`] is worth a report.
    async fn volume_limit(
        &self,
        volume: &Volume,
        size: Option<u64>,
        droppable: Droppable,
    ) -> Result<()>;
    /// The bytes that count against its limit.
    async fn volume_charged(&self, volume: &Volume) -> Result<u64>;
    /// What it holds.
    async fn volume_usage(&self, volume: &Volume) -> Result<Usage>;
    /// Where the content of each is on the node, or would be once it is attached.
    async fn volume_paths(&self, volumes: &[Volume]) -> Result<Vec<std::path::PathBuf>>;
    /// Which of these are not there. A pool that is not available counts as having them.
    async fn volumes_missing(&self, volumes: &[Volume]) -> Result<Vec<types::VolumeId>>;

    /// Takes a snapshot of each at one moment, while the containers of `hold` stand still.
    async fn snapshots_take(
        &self,
        wanted: &[(Volume, SnapshotId)],
        hold: &[ContainerId],
    ) -> Result<()>;
    /// Removes a snapshot.
    async fn snapshot_remove(&self, volume: &Volume, snapshot: &SnapshotId) -> Result<()>;
    /// Makes the content that of a snapshot; nothing may be using it.
    async fn volume_rollback(&self, volume: &Volume, snapshot: &SnapshotId) -> Result<()>;
    /// What changed between a snapshot and another, or the live content.
    async fn volume_diff(
        &self,
        volume: &Volume,
        from: &SnapshotId,
        to: Option<&SnapshotId>,
    ) -> Result<Vec<Change>>;
    /// Waits a little until the space of what was removed is free.
    async fn pool_reclaim(&self, name: &PoolName) -> Result<()>;

    /// The files in a directory of a volume or snapshot, by name. A file gives itself.
    async fn volume_files(
        &self,
        volume: &Volume,
        snapshot: Option<&SnapshotId>,
        path: &str,
    ) -> Result<Vec<FileFacts>>;
    /// A path in a volume or snapshot as a tar.
    async fn volume_archive_get(
        &self,
        volume: &Volume,
        snapshot: Option<&SnapshotId>,
        path: &str,
    ) -> Result<(PathStat, Reader)>;
    /// Removes a path of a volume with all that is in it; it need not be there.
    async fn volume_file_remove(&self, volume: &Volume, path: &str) -> Result<()>;
    /// The starts of the hashes of a file's chunks.
    async fn volume_file_chunks(&self, volume: &Volume, path: &str) -> Result<Vec<u8>>;
    /// Changes a file, of a recipe that numbers its chunks.
    async fn volume_file_put(
        &self,
        volume: &Volume,
        put: &types::native::FilePut,
        recipe: Reader,
    ) -> Result<()>;
    /// Unpacks a tar into a directory of a volume.
    async fn volume_archive_put(&self, volume: &Volume, path: &str, tar: Reader) -> Result<()>;
}
