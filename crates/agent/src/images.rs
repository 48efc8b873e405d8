//! The seam for images: what a node does with layers.
//!
//! A node has layers and knows nothing of images beyond what it is told: which images there
//! are and which layers they need is on record elsewhere. So whatever brings layers answers
//! with a description of what it unpacked, and *holds* the layers until it hears that this is
//! recorded, or never will be. And a removal of layers asks in two steps, so that what came
//! between is spared:
//!
//! ```text
//! load, pull, import, commit --> NewImage, HoldId     sweep_begin --> SweepId
//!   (the caller records it)                             (the caller reads all records)
//! layers_release(HoldId)                              sweep(SweepId, layers nobody needs)
//! ```
//!
//! A hold ends with its release, or with the agent: one that starts anew holds nothing, and
//! refuses a sweep that began before.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use types::{
    Digest, Error, Reference, Result,
    image::{LayerRef, NewImage, Platform, PushImage, PushedImage, SaveImage},
    native::PushReceived,
};

use crate::io::Reader;
pub use image::Allowance;
pub use image::registry::{Credentials, Inspection, Known, Progress, Pulled, headline};

/// Keeps layers on a node from being removed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HoldId(String);

/// A removal of layers that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SweepId(String);

impl HoldId {
    pub(crate) fn random() -> Self {
        Self(types::id::random_hex())
    }
}

impl SweepId {
    pub(crate) fn random() -> Self {
        Self(types::id::random_hex())
    }
}

/// A layer that was made of a tar or of a container's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MadeLayer {
    pub layer: LayerRef,
    /// Whether it was not there before.
    pub fresh: bool,
    pub hold: HoldId,
}

/// What a load brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unpacked {
    /// To be recorded.
    pub images: Vec<NewImage>,
    /// Layers that were not there before: to be swept, once all is recorded and the hold is
    /// released, unless something needs them.
    pub fresh: Vec<Digest>,
    pub hold: HoldId,
}

/// Why a load came to nothing. Nothing is held.
#[derive(Debug, Clone)]
pub struct LoadError {
    pub error: Error,
    /// Layers that were not there before: to be swept unless something needs them.
    pub fresh: Vec<Digest>,
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadProgress {
    /// A layer's digest, or its name in the archive.
    pub object: String,
    /// Bytes of it done so far.
    pub done: u64,
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The image; `latest` is implied unless `all_tags`.
    pub reference: Reference,
    /// For which platform, as the user wrote it; the node's where empty.
    pub platform: String,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// Who asks.
    pub credentials: Credentials,
    /// What is on record already.
    pub known: Known,
}

/// A pull under way. Dropping `events` ends it.
#[derive(Debug)]
pub struct Pulling {
    /// Holds the layers of every image that the events tell of.
    pub hold: HoldId,
    /// What happens, in order; the last is [`PullEvent::Done`].
    pub events: mpsc::UnboundedReceiver<PullEvent>,
}

/// What a pull tells.
#[derive(Debug)]
pub enum PullEvent {
    /// For the user.
    Progress(Progress),
    /// An image is there whole, to be recorded before anything that follows is passed on.
    Image(Box<NewImage>),
    /// The end. Layers of a pull that failed stay until a sweep.
    Done(Result<Vec<Pulled>>),
}

/// What to push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    pub repository: Reference,
    /// All to that repository.
    pub images: Vec<PushImage>,
    pub credentials: Credentials,
}

/// What a pushed layer may be made of.
#[derive(Debug, Clone, Default)]
pub struct PushSources {
    /// What its sender has sent.
    pub space: String,
    /// Layers of the sender's own whose chunks the recipe numbers.
    pub bases: Vec<Digest>,
    /// All other layers of its own.
    pub own: Vec<Digest>,
}

/// What a node can do with images.
#[async_trait::async_trait]
pub trait NodeImages: Send + Sync + 'static {
    /// What the node itself runs.
    async fn platform(&self) -> Result<Platform>;

    /// Holds all of `layers`; `None` when one of them is not on the node.
    async fn layers_hold(&self, layers: &[Digest]) -> Result<Option<HoldId>>;
    /// What was held is recorded, or never will be. Idempotent.
    async fn layers_release(&self, hold: &HoldId) -> Result<()>;
    /// What layers count for together, bytes; those that are not there count nothing.
    async fn layers_charge(&self, layers: &[Digest]) -> Result<u64>;
    /// All layers of the node.
    async fn layers_list(&self) -> Result<Vec<Digest>>;
    /// Begins a removal: what is held now or from now on survives it.
    async fn sweep_begin(&self) -> Result<SweepId>;
    /// Removes those of `unneeded` that nobody has held since the sweep began; returns the
    /// bytes freed. Fails when another sweep has begun meanwhile.
    async fn sweep(&self, sweep: &SweepId, unneeded: &[Digest]) -> Result<u64>;

    /// Makes a layer of a tar (plain, gzip or zstd).
    async fn layer_import(&self, tar: Reader, allowance: Allowance) -> Result<MadeLayer>;
    /// Unpacks an archive of images. `progress` misses what its reader is too slow for.
    async fn images_load(
        &self,
        archive: Reader,
        allowance: Allowance,
        platform: Option<Platform>,
        progress: mpsc::Sender<LoadProgress>,
    ) -> Result<Unpacked, LoadError>;
    /// The starts of the hashes of the chunks of layers, one list after the other. What has not
    /// been listed is read for it.
    async fn push_prefixes(&self, bases: &[Digest]) -> Result<Vec<u8>>;
    /// Which chunks, by their hashes one after the other, neither lie in `own` layers nor in
    /// `space`: one byte each, 1 for missing.
    async fn push_missing(&self, space: &str, own: &[Digest], hashes: &[u8]) -> Result<Vec<u8>>;
    /// Takes chunks into `space`, where no more than `limit` bytes lie.
    async fn push_receive(
        &self,
        space: &str,
        session: &str,
        chunks: Reader,
        limit: u64,
    ) -> Result<PushReceived>;
    /// Makes a layer of a recipe while it comes.
    async fn push_layer(
        &self,
        from: &PushSources,
        diff_id: &Digest,
        recipe: Reader,
        allowance: Allowance,
    ) -> Result<MadeLayer>;
    /// A push is done: what it brought into `space` goes, and the chunks of its layers are listed.
    async fn push_done(&self, space: &str, session: &str, layers: &[Digest]) -> Result<()>;
    /// Removes a space with all that is in it.
    async fn push_forget(&self, space: &str) -> Result<()>;
    /// Removes what pushes that were interrupted a day ago or longer have left.
    async fn push_expire(&self) -> Result<()>;
    /// Writes images into an archive. Fails at once when a layer is not there.
    async fn images_save(&self, images: &[SaveImage]) -> Result<Reader>;
    /// Begins to pull.
    async fn images_pull(&self, request: PullRequest) -> Result<Pulling>;
    /// Pushes, and says what the registry has then.
    async fn images_push(
        &self,
        request: PushRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> Result<Vec<PushedImage>>;

    /// What a registry has under a reference.
    async fn registry_inspect(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Inspection>;
    /// Checks credentials with a registry: docker's words for success, and an identity token.
    async fn registry_check(
        &self,
        credentials: &Credentials,
        server: &str,
    ) -> Result<(String, String)>;
}
