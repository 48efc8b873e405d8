//! Storage pools, for the operator.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Health;
use crate::PoolName;

/// Which implementation keeps a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PoolEngine {
    Btrfs,
    Zfs,
}

impl PoolEngine {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::Zfs => "zfs",
        }
    }
}

impl fmt::Display for PoolEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a pool's bytes lie on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum PoolSource {
    /// A sparse file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Without: in kraud's data directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
    },
    /// Whole devices, or files for ZFS.
    Devices {
        paths: Vec<PathBuf>,
        /// Every block is kept twice.
        #[serde(default)]
        mirror: bool,
    },
    /// A directory on a file system of the engine's kind that is mounted already.
    Directory { path: PathBuf },
}

/// A storage pool of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pool {
    /// Unique on the node.
    pub name: PoolName,
    pub engine: PoolEngine,
    pub node: String,
    pub source: PoolSource,
    pub health: Health,
    /// What is wrong, in words, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Bytes that volumes can hold in all, after redundancy; 0 while it cannot be opened, as
    /// are the next two.
    pub total: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that can still be written.
    pub free: u64,
    /// How many copies there are of each block.
    pub copies: u32,
    /// What protects the data, in words: `none (one node)`, `mirror (2 copies, one node)`.
    pub redundancy: String,
    pub devices: Vec<PathBuf>,
    /// How many volumes are on it.
    pub volumes: usize,
    /// Where it is mounted; empty while it is not.
    pub root: PathBuf,
}

/// `GET /pools`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoolList {
    /// Sorted by name.
    pub pools: Vec<Pool>,
}

/// Asks for a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolCreate {
    pub name: PoolName,
    pub engine: PoolEngine,
    pub source: PoolSource,
}

/// Asks for a larger pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum PoolGrow {
    /// Its file becomes this large.
    File {
        /// Bytes.
        size: u64,
    },
    /// Devices are added; a mirror of ZFS takes two at once.
    Devices { paths: Vec<PathBuf> },
    /// Its devices have grown already: use all of them.
    Fill,
}
