//! What the native API speaks: the bodies of its requests and answers.
//!
//! JSON with `snake_case` names. Sizes are bytes, times RFC 3339 in UTC. Fields that have no
//! value are left out; readers ignore fields that they do not know. With the feature `schema`
//! every type can describe itself for the API's OpenAPI document.

mod identity;
mod pool;
mod push;
#[cfg(feature = "schema")]
mod schema;
mod snapshot;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    identity::{
        AuditEntry, AuditList, Authority, AuthorityRotate, Certificate, CertificateCreate, Quota,
        QuotaUse, Tenant, TenantCreate, TenantCreated, TenantList, Token, TokenCreate,
        TokenCreated, TokenList, Whoami,
    },
    pool::{Pool, PoolCreate, PoolEngine, PoolGrow, PoolList, PoolSource},
    push::{
        PushBases, PushBegin, PushCommit, PushImage, PushNeeds, PushPlan, PushReceived,
        PushedImage, PushedLayer,
    },
    snapshot::{
        Change, ChangeKind, ChangeList, Rollback, RollbackRequest, Snapshot, SnapshotCreate,
        SnapshotList, SnapshotOrigin, SnapshotRename,
    },
};
use crate::{
    ContainerId, Kind, PoolName, SnapshotName, Time, VolumeId, VolumeName,
    volume::{Class, FileSystem, schedule::Schedule},
};

/// Asks for all containers to be stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StopAll {}

/// How many containers were stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stopped {
    pub stopped: u64,
}

/// A failure, as the body of an answer whose status says it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Error {
    /// Names the operation, the object and, where one exists, the remedy.
    pub message: String,
    /// What sort of failure it is.
    pub kind: Kind,
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Self {
            message: error.message,
            kind: error.kind,
        }
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// The daemon's version.
    pub version: String,
    /// The native API's version: `1`.
    pub api: String,
}

/// A volume as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Volume {
    /// Unique in the namespace.
    pub name: VolumeName,
    /// For its whole life, whatever its name.
    pub id: VolumeId,
    /// The driver that docker's clients see: as it was asked for.
    pub driver: String,
    /// The promise about its data.
    pub class: Class,
    /// The pool that holds it.
    pub pool: PoolName,
    /// What keeps the pool: `btrfs` or `zfs`.
    pub engine: PoolEngine,
    /// The machine that holds it.
    pub node: String,
    /// Bytes that may be written; missing where only the pool is the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The file system inside of a block volume; missing for file volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs: Option<FileSystem>,
    /// Where it was asked to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    pub created: Time,
    pub labels: BTreeMap<String, String>,
    /// Options as they were given.
    pub options: BTreeMap<String, String>,
    /// What protects the data, in words: `none (one node)`, `mirror (2 copies, one node)`.
    pub redundancy: String,
    /// The automatic snapshots that are taken, and how many of each are kept.
    pub schedule: Schedule,
    /// When the next automatic snapshot is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_snapshot: Option<Time>,
    /// When the last snapshot of any kind was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot: Option<Time>,
    /// How many snapshots there are.
    pub snapshots: usize,
    /// Missing where it can't be found out now; `status` says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<VolumeUsage>,
    /// Containers that refer to it.
    pub attached_to: Vec<Attachment>,
    /// Whether it can be relied on.
    pub health: Health,
    /// What is wrong, in words, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// The bytes that a volume takes on its pool, one copy counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VolumeUsage {
    /// What the volume itself holds now.
    pub live: u64,
    /// What only its snapshots hold: it would be free without them.
    pub snapshots: u64,
    /// Both.
    pub total: u64,
    /// Where writing ends: the size, and above it a reserve that automatic snapshots may pin
    /// for a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// A container that refers to a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attachment {
    pub id: ContainerId,
    pub name: String,
    /// Whether it runs, and so really uses the volume.
    pub running: bool,
}

/// Whether something can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Online,
    /// It works, but something is missing or failing.
    Degraded,
    /// It cannot be used.
    Faulted,
}

impl Health {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Degraded => "degraded",
            Self::Faulted => "faulted",
        }
    }
}

/// `GET /volumes`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VolumeList {
    /// Sorted by name.
    pub volumes: Vec<Volume>,
}

/// Asks for a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeCreate {
    /// Without one a name is made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `nfs` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// `size`, `snapshots`, `fs`, `pool`, `zone`, `from`, `media`, `rpo`, as for docker.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Asks for another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeResize {
    /// Bytes; never fewer than now.
    pub size: u64,
}

/// Asks for an independent copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeClone {
    /// The name of the new volume.
    pub name: String,
    /// What to copy; without, the volume as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
}

/// A file of a volume or of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileEntry {
    /// Its name in its directory. Bytes that are not UTF-8 are replaced.
    pub name: String,
    pub kind: FileKind,
    /// Bytes of a file's content; of other kinds what the file system says.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Time,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Device,
    Fifo,
    Socket,
}

/// The header that says what an archive is of: a [`PathStat`] as JSON in base64.
pub const PATH_STAT: &str = "kr-path-stat";

/// What a path of a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PathStat {
    /// The last name of the path; `/` for the volume's root.
    pub name: String,
    pub kind: FileKind,
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    pub modified: Time,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// `GET /volumes/{name}/files`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileList {
    /// Of a directory its entries, sorted by name; of anything else the thing itself.
    pub files: Vec<FileEntry>,
}

/// What a file that is there shall become: parameter `file` of `PUT /volumes/{volume}/file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FilePut {
    /// From the volume's root.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the content, hexadecimal.
    pub hash: String,
    /// Whoever has it open, or mounted by itself, sees the new content. Otherwise a new file takes
    /// its place: nobody ever sees half of it.
    #[serde(default)]
    pub in_place: bool,
}

#[cfg(test)]
mod tests;
