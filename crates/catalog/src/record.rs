//! What an image is, as callers see it and as the store keeps it.

use serde::{Deserialize, Serialize};
use types::{
    Digest, Reference, Time,
    image::{ImageConfig, LayerRef, Source},
    record::Record,
};

/// The stored form of an image: `ns/<namespace>/images/<hex of id>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The configuration, byte for byte; the image's id is its SHA-256.
    pub config: String,
    /// Lowest first.
    pub layers: Vec<LayerRef>,
    /// The image it was committed from.
    pub parent: Option<Digest>,
    /// When a tag last came to point at it.
    #[serde(default)]
    pub last_tagged: Time,
    #[serde(default)]
    pub source: Option<Source>,
    /// What engines that sent it call it, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Digest>,
}

impl Record for ImageRecord {
    const NOUN: &'static str = "image";
}

/// The stored form of a tag: `ns/<namespace>/tags/<reference>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TagRecord {
    pub image: Digest,
}

impl Record for TagRecord {
    const NOUN: &'static str = "tag";
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// SHA-256 of the configuration.
    pub id: Digest,
    /// The configuration, byte for byte.
    pub raw_config: String,
    /// The configuration, understood.
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<LayerRef>,
    /// The image it was committed from.
    pub parent: Option<Digest>,
    /// When a tag last came to point at it.
    pub last_tagged: Time,
    /// What it was pulled or loaded with.
    pub source: Option<Source>,
    /// What engines that sent it call it: with containerd's image store that is the digest of a
    /// manifest or an index.
    pub aliases: Vec<Digest>,
}

impl Image {
    /// Bytes of all its layers' files.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
    /// The digests of its layers, lowest first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers
            .iter()
            .map(|layer| layer.diff_id.clone())
            .collect()
    }
}

/// The names that point at an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// With a tag, sorted.
    pub tags: Vec<Reference>,
    /// With a digest, sorted.
    pub digests: Vec<Reference>,
}

#[cfg(test)]
mod tests {
    use types::record::check_golden;

    use super::*;

    #[test]
    fn stored_forms_change_only_with_their_version() {
        check_golden::<ImageRecord>(&[include_bytes!("../golden/image.v1.json")]).unwrap();
        check_golden::<TagRecord>(&[include_bytes!("../golden/tag.v1.json")]).unwrap();
    }
}
