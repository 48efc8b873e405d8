//! Bodies of `/push`: images that come as what is new in them.
//!
//! A push begins with what the images are; the answer says which layers are missing and which of
//! the namespace's own layers are likely to have much of them, the bases. The starts of the
//! bases' chunks are fetched (`/push/prefixes`, six bytes each), others are asked for
//! (`/push/missing`), and those that are missing are sent (`/push/chunks`). A layer's recipe may
//! be sent (`/push/layers/{diff_id}`) while its chunks are still on their way. Then the image is
//! recorded (`/push/images`).

use serde::{Deserialize, Serialize};

use crate::{Digest, Reference};

/// Begins a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PushBegin {
    pub images: Vec<PushImage>,
}

/// An image to push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PushImage {
    /// The tag that it will have.
    pub reference: Reference,
    /// SHA-256 of its configuration, or what the engine that it comes from calls it.
    pub id: Digest,
    /// SHA-256 of its layers' uncompressed tars, the lowest first.
    pub layers: Vec<Digest>,
}

/// What a push has to bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushPlan {
    /// Names the push from here on.
    pub session: String,
    /// In the order of the request.
    pub images: Vec<PushNeeds>,
    /// The namespace's own layers that have something in common with what is missing, as far as
    /// one can guess.
    pub bases: Vec<Digest>,
}

/// What is missing of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushNeeds {
    /// It is there; it only has to be tagged.
    pub known: bool,
    /// Its id, when it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Digest>,
    /// Layers that must come.
    pub missing: Vec<Digest>,
}

/// Asks for the starts of the hashes of layers' chunks, one list after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PushBases {
    pub bases: Vec<Digest>,
}

/// What a request brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushReceived {
    pub chunks: u64,
    /// Bytes of the chunks.
    pub bytes: u64,
}

/// A layer that has been put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushedLayer {
    pub layer: Digest,
    /// Bytes of its files' contents.
    pub size: u64,
}

/// Records an image whose layers are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PushCommit {
    pub session: String,
    pub reference: Reference,
    /// SHA-256 of its configuration.
    pub id: Digest,
    /// What the engine that it comes from calls it, where that is not its id: then it is known by
    /// this, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Digest>,
    /// The configuration, byte for byte; not needed for an image that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// An image that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushedImage {
    pub id: Digest,
    pub reference: Reference,
}
