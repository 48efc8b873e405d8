//! What a volume is: its class, its content, its options.
//!
//! Everything here is data and pure decisions. Sections 2 and 5 of the design say what the
//! classes promise.

pub mod options;
pub mod quota;
pub mod schedule;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A promise about a volume's data, named as docker's volume driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Files, highly available where two heads reach the pool. Also means docker's `local`.
    Nfs,
    /// Fast local block volume with cold copies.
    Lv2,
    /// Local block volume on a redundant pool, without a cold copy.
    Lv1,
    /// Coherent shared files.
    Gfs,
    /// Network block volume, nothing lost.
    Rbd,
}

impl Class {
    /// All classes, in the order in which they are explained.
    pub const ALL: [Self; 5] = [Self::Nfs, Self::Lv2, Self::Lv1, Self::Gfs, Self::Rbd];

    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nfs => "nfs",
            Self::Lv2 => "lv2",
            Self::Lv1 => "lv1",
            Self::Gfs => "gfs",
            Self::Rbd => "rbd",
        }
    }
    /// Whether it is a block device with a file system of its own: one pod at a time.
    pub fn is_block(self) -> bool {
        matches!(self, Self::Lv1 | Self::Lv2 | Self::Rbd)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = Error;
    /// A volume driver's name; `local` and the empty one mean the default class.
    fn from_str(text: &str) -> Result<Self> {
        if matches!(text, "" | "local") {
            return Ok(Self::Nfs);
        }
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| {
                Error::not_found(format!(
                    "error looking up volume plugin {text}: plugin \"{text}\" not found: the classes of kraud are nfs (also local), lv2, lv1, gfs and rbd"
                ))
            })
    }
}

/// The file system inside of a block volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    #[default]
    Ext4,
    Xfs,
    /// None: the device itself is handed to the container.
    Raw,
}

impl FileSystem {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FileSystem {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Ext4, Self::Xfs, Self::Raw]
            .into_iter()
            .find(|fs| fs.as_str() == text)
            .ok_or_else(|| Error::invalid("want ext4, xfs or raw"))
    }
}

/// What a dataset of a pool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// A tree of files.
    Files,
    /// A disk image of this many bytes, allocated as it is written.
    Image { bytes: u64 },
}
