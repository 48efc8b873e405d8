//! Images as data: configurations, what a node unpacked, what shall be saved or pushed.
//!
//! The records of images and who points at them are the crate `catalog`'s; layers on disk
//! are the crate `image`'s.

mod config;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::config::{HistoryEntry, ImageConfig, Platform, RootFs};
use crate::{Digest, Reference};

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of its files' contents.
    pub size: u64,
}

/// A descriptor of the OCI image specification, as far as it is needed to fetch or send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The manifest an image came with: what a push can send again unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Media type of the manifest.
    pub media_type: String,
    /// The manifest, byte for byte.
    pub manifest: String,
    /// Its layers as they were compressed, lowest first, in the order of the image's layers.
    pub layers: Vec<Descriptor>,
}

/// An image whose layers are on a node, to be recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewImage {
    /// The configuration, byte for byte. Its `rootfs.diff_ids` are the layers.
    pub config: String,
    /// Lowest first.
    pub layers: Vec<LayerRef>,
    /// The image it was committed from.
    pub parent: Option<Digest>,
    /// References that shall point at it: tags, or digests for a pull.
    pub references: Vec<Reference>,
    pub source: Option<Source>,
    /// What an engine that sent it calls it.
    #[serde(default)]
    pub alias: Option<Digest>,
}

/// An image to write into an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveImage {
    /// SHA-256 of the configuration.
    pub id: Digest,
    /// The configuration, byte for byte.
    pub config: String,
    /// Lowest first.
    pub layers: Vec<Digest>,
    /// The tags that go with it.
    pub tags: BTreeSet<Reference>,
}

/// An image to push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushImage {
    /// Where to, with a tag.
    pub reference: Reference,
    /// The configuration, byte for byte.
    pub config: String,
    /// Lowest first.
    pub layers: Vec<PushLayer>,
    /// The manifest that it came with.
    pub source: Option<Source>,
}

/// A layer of an image to push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushLayer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Compressed forms that need not be uploaded again.
    pub known: Vec<KnownBlob>,
}

/// A compressed form of a layer that some registry has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBlob {
    /// The repository that had it, in full: `docker.io/library/busybox`.
    pub repository: String,
    /// The compressed layer.
    pub blob: Descriptor,
}

/// What a registry has after a push of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedImage {
    /// The image's id.
    pub id: Digest,
    /// The repository with the digest that it knows the image by.
    pub reference: Reference,
    /// `None` for a manifest that is not text, which no registry accepts.
    pub source: Option<Source>,
}

/// The chain ids of an image's layers (OCI image specification, "Layer ChainID"), lowest first.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(parent) => {
                Digest::from_sha256(Sha256::digest(format!("{parent} {diff_id}")).into())
            }
        });
    }
    chain
}
