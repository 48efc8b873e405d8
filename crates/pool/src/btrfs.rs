//! The btrfs engine.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use types::{Error, Result, SnapshotId, VolumeId, volume::Content};

use crate::{Change, Engine, Found, Growth, Origin, Pool, PoolSpec, PoolStatus, Usage};

/// A btrfs pool, opened.
#[derive(Debug)]
pub struct BtrfsPool {}

fn not_yet<T>() -> Result<T> {
    Err(Error::not_implemented("the btrfs engine is not there yet"))
}

impl BtrfsPool {
    pub fn create(_spec: &PoolSpec, _mount: &Path) -> Result<Self> {
        not_yet()
    }
    pub fn open(_spec: &PoolSpec, _mount: &Path) -> Result<Self> {
        not_yet()
    }
}

impl Pool for BtrfsPool {
    fn engine(&self) -> Engine {
        Engine::Btrfs
    }
    fn status(&self) -> Result<PoolStatus> {
        not_yet()
    }
    fn datasets(&self) -> Result<Vec<Found>> {
        not_yet()
    }
    fn sweep(&self) -> Result<()> {
        not_yet()
    }
    fn create(&self, _: &VolumeId, _: Content, _: Option<Origin<'_>>) -> Result<()> {
        not_yet()
    }
    fn remove(&self, _: &VolumeId) -> Result<()> {
        not_yet()
    }
    fn path(&self, _: &VolumeId) -> Result<PathBuf> {
        not_yet()
    }
    fn snapshot_path(&self, _: &VolumeId, _: &SnapshotId) -> Result<PathBuf> {
        not_yet()
    }
    fn snapshot(&self, _: &[(&VolumeId, &SnapshotId)]) -> Result<()> {
        not_yet()
    }
    fn remove_snapshot(&self, _: &VolumeId, _: &SnapshotId) -> Result<()> {
        not_yet()
    }
    fn rollback(&self, _: &VolumeId, _: &SnapshotId) -> Result<()> {
        not_yet()
    }
    fn resize(&self, _: &VolumeId, _: u64) -> Result<()> {
        not_yet()
    }
    fn set_limit(&self, _: &VolumeId, _: Option<u64>) -> Result<()> {
        not_yet()
    }
    fn usage(&self, _: &VolumeId) -> Result<Usage> {
        not_yet()
    }
    fn charged(&self) -> Result<Vec<(VolumeId, u64)>> {
        not_yet()
    }
    fn reclaim(&self, _: Duration) -> Result<()> {
        not_yet()
    }
    fn diff(&self, _: &VolumeId, _: &SnapshotId, _: Option<&SnapshotId>) -> Result<Vec<Change>> {
        not_yet()
    }
    fn grow(&self, _: &Growth) -> Result<()> {
        not_yet()
    }
    fn close(&self) -> Result<()> {
        not_yet()
    }
    fn destroy(&self) -> Result<()> {
        not_yet()
    }
}
