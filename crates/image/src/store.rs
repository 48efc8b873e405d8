//! The image store: records, tags, and which layers are still needed.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, OnceLock},
};

use store::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Digest, Error, Namespace, Reference, Result};

use crate::{
    config::{ConfigPatch, Platform},
    layers::LayerStore,
    record::{Image, References, Source},
};

/// Layers that somebody beyond the image records needs: containers.
#[async_trait::async_trait]
pub trait LayerPins: Send + Sync + 'static {
    /// The layers in use now.
    async fn pinned(&self) -> Result<HashSet<Digest>>;
}

/// Told how a load goes on: an object (a layer's digest) and bytes done so far.
pub type Progress = Arc<dyn Fn(&str, u64) + Send + Sync>;

/// An image that a load brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// The references that now point at it; empty when the archive named none.
    pub references: Vec<Reference>,
}

/// An image to record. Its layers must be in the layer store, held by guards of the caller.
#[derive(Debug, Clone, Default)]
pub struct NewImage {
    /// The configuration, byte for byte. Its `rootfs.diff_ids` are the layers.
    pub config: String,
    pub parent: Option<Digest>,
    /// References that shall point at it: tags, or digests for a pull.
    pub references: Vec<Reference>,
    pub source: Option<Source>,
}

/// The image store.
pub struct ImageStore {
    pub(crate) layers: Arc<LayerStore>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pins: OnceLock<Arc<dyn LayerPins>>,
}

impl ImageStore {
    /// Opens the store with its layers under `data_dir`.
    pub async fn open(data_dir: &Path, store: Arc<dyn Store>) -> Result<Self> {
        let data_dir = data_dir.to_owned();
        let layers = tokio::task::spawn_blocking(move || LayerStore::open(&data_dir))
            .await
            .map_err(|e| Error::wrap("opening the layer store", e))??;
        Ok(Self {
            layers,
            store,
            pins: OnceLock::new(),
        })
    }
    /// The layers.
    pub fn layers(&self) -> &Arc<LayerStore> {
        &self.layers
    }
    /// Names who else holds layers; asked before any layer is removed. Only the first call counts.
    pub fn set_pins(&self, pins: Arc<dyn LayerPins>) {
        let _ = self.pins.set(pins);
    }
    /// Removes layers that no image record of any namespace, no guard and no pin needs; returns
    /// the bytes freed. Call once after the start, when the pins are known.
    pub async fn collect_garbage(&self) -> Result<u64> {
        Ok(0)
    }

    /// The image that `name` means: a reference, an id, or the first digits of one.
    pub async fn resolve(&self, _ns: &Namespace, name: &str) -> Result<Arc<Image>> {
        Err(Error::not_found(format!("No such image: {name}")))
    }
    /// The image with this id.
    pub async fn get(&self, _ns: &Namespace, id: &Digest) -> Result<Arc<Image>> {
        Err(Error::not_found(format!("No such image: {id}")))
    }
    /// All images with their references, newest first.
    pub async fn list(&self, _ns: &Namespace) -> Result<Vec<(Arc<Image>, References)>> {
        Ok(Vec::new())
    }
    /// What points at an image.
    pub async fn references(&self, _ns: &Namespace, _id: &Digest) -> Result<References> {
        Ok(References::default())
    }
    /// Lets `reference` (`latest` is implied) point at image `name`.
    pub async fn tag(
        &self,
        _ns: &Namespace,
        name: &str,
        _reference: &Reference,
    ) -> Result<Arc<Image>> {
        Err(Error::not_found(format!("No such image: {name}")))
    }
    /// Records an image and its references. Idempotent.
    pub async fn create_image(&self, _ns: &Namespace, _image: NewImage) -> Result<Arc<Image>> {
        Err(Error::not_implemented("create_image"))
    }
    /// Loads a docker archive or OCI layout, compressed or not.
    pub async fn load(
        &self,
        _ns: &Namespace,
        _archive: impl AsyncRead + Send + Unpin + 'static,
        _platform: Option<Platform>,
        _progress: Progress,
    ) -> Result<Vec<Loaded>> {
        Err(Error::not_implemented("load"))
    }
    /// Writes images as an archive that is a docker archive and an OCI layout in one.
    pub async fn save(
        &self,
        _ns: &Namespace,
        _names: &[String],
        _to: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<()> {
        Err(Error::not_implemented("save"))
    }
    /// Makes an image of a root file system's tar.
    pub async fn import(
        &self,
        _ns: &Namespace,
        _tar: impl AsyncRead + Send + Unpin + 'static,
        _reference: Option<&Reference>,
        _message: &str,
        _patch: ConfigPatch,
    ) -> Result<Arc<Image>> {
        Err(Error::not_implemented("import"))
    }
}
