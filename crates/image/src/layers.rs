//! Layers on disk: unpacked trees by diff id, and their exact tars.
//!
//! Blocking; call from a thread that may block.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use types::{Digest, Error, Result};

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerMeta {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of its files' contents.
    pub size: u64,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
}

/// Keeps a layer from being collected while it lives.
#[derive(Debug)]
pub struct LayerGuard {}

/// What an ingest made or found.
#[derive(Debug)]
pub struct Ingested {
    pub meta: LayerMeta,
    /// Whether the layer was there already.
    pub existed: bool,
    /// Hold this until a record that refers to the layer is written.
    pub guard: LayerGuard,
}

/// The layer store: `<data>/layers`.
#[derive(Debug)]
pub struct LayerStore {}

/// The exact tar of a layer. Fails at its end when what was read is not the layer.
pub struct TarStream {}

impl Read for TarStream {
    fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(0)
    }
}

impl LayerStore {
    /// Opens the store under `data_dir`, removing what a crash left half done.
    pub fn open(data_dir: &Path) -> Result<Arc<Self>> {
        Err(Error::not_implemented(format!(
            "opening {}",
            data_dir.display()
        )))
    }
    /// Whether the layer is there.
    pub fn contains(&self, _diff_id: &Digest) -> bool {
        false
    }
    /// Holds a layer; `None` when it is not there.
    pub fn pin(&self, _diff_id: &Digest) -> Option<LayerGuard> {
        None
    }
    /// What is known of a layer.
    pub fn meta(&self, diff_id: &Digest) -> Result<LayerMeta> {
        Err(Error::not_implemented(diff_id.as_str()))
    }
    /// All layers.
    pub fn list(&self) -> Result<Vec<LayerMeta>> {
        Ok(Vec::new())
    }
    /// The directory with a layer's files.
    pub fn tree(&self, _diff_id: &Digest) -> PathBuf {
        PathBuf::new()
    }
    /// Unpacks a tar (plain, gzip or zstd, told apart by content). Fails, and leaves nothing
    /// behind, when the tar is bad or its digest is not `expected`. When `expected` is there
    /// already (or another thread brings it meanwhile), `tar` may be left unread.
    pub fn ingest(&self, _tar: impl Read + Send, _expected: Option<&Digest>) -> Result<Ingested> {
        Err(Error::not_implemented("ingest"))
    }
    /// The exact tar of a layer.
    pub fn tar_stream(&self, diff_id: &Digest) -> Result<TarStream> {
        Err(Error::not_implemented(diff_id.as_str()))
    }
}
