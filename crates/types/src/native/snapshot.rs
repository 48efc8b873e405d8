//! Snapshots, rollbacks and differences.

use serde::{Deserialize, Serialize};

use super::Attachment;
use crate::{SnapshotId, SnapshotName, Time, VolumeName, volume::schedule::Period};

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// Unique within the volume.
    pub name: SnapshotName,
    pub id: SnapshotId,
    pub volume: VolumeName,
    pub created: Time,
    /// Why it was taken.
    pub origin: SnapshotOrigin,
    /// Of an automatic one: the part of the schedule that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// Names the call that took several volumes' snapshots at one moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Bytes that would be free without it, where the engine can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SnapshotOrigin {
    /// Somebody asked for it; kraud never drops it.
    User,
    /// A schedule; it goes when its time is over or its space is needed.
    Automatic,
    /// A rollback, of what it replaced.
    Safety,
}

impl SnapshotOrigin {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Automatic => "automatic",
            Self::Safety => "safety",
        }
    }
}

/// `GET /volumes/{name}/snapshots`, and the answer to taking some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SnapshotList {
    /// The oldest first; of several volumes, in the order in which they were named.
    pub snapshots: Vec<Snapshot>,
}

/// Asks for snapshots of volumes, all at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// One at least, each once.
    pub volumes: Vec<String>,
    /// The name of each; without one it is made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Asks for another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotRename {
    pub name: String,
}

/// Asks for a volume's content to become that of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    pub snapshot: String,
    /// Stop containers that use the volume and start them again afterwards. Without it they
    /// make the call fail.
    #[serde(default)]
    pub restart: bool,
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rollback {
    pub volume: VolumeName,
    /// What the volume holds now.
    pub snapshot: SnapshotName,
    /// What it held before: roll back to it to undo this.
    pub safety: SnapshotName,
    /// Containers that were stopped and started again, in the order of their starts.
    pub restarted: Vec<Attachment>,
}

/// One difference between two states of a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// Relative to the volume's root. Bytes that are not UTF-8 are replaced.
    pub path: String,
    pub kind: ChangeKind,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Changed,
    Removed,
}

/// `GET /volumes/{name}/diff`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChangeList {
    /// Sorted by path.
    pub changes: Vec<Change>,
}
