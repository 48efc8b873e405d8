//! Snapshots.

use types::native::{Snapshot, SnapshotCreate, SnapshotList, SnapshotRename};

use crate::{Client, Result};

impl Client {
    /// A volume's snapshots, the oldest first.
    pub async fn snapshots(&self, volume: &str) -> Result<Vec<Snapshot>> {
        let list: SnapshotList = self.get(&["volumes", volume, "snapshots"], &[]).await?;
        Ok(list.snapshots)
    }

    /// Takes a snapshot of each volume, all at one moment.
    pub async fn snapshot_create(&self, wanted: &SnapshotCreate) -> Result<Vec<Snapshot>> {
        let list: SnapshotList = self.post(&["snapshots"], wanted).await?;
        Ok(list.snapshots)
    }

    /// Removes a snapshot.
    pub async fn snapshot_remove(&self, volume: &str, snapshot: &str) -> Result<()> {
        self.delete(&["volumes", volume, "snapshots", snapshot], &[])
            .await
    }

    /// Gives a snapshot another name.
    pub async fn snapshot_rename(&self, volume: &str, old: &str, new: &str) -> Result<Snapshot> {
        let wanted = SnapshotRename { name: new.into() };
        self.post(&["volumes", volume, "snapshots", old, "rename"], &wanted)
            .await
    }
}
