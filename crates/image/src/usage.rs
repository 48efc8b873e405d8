//! What images take on disk.

use std::sync::Arc;

use types::{Namespace, Result};

use crate::{
    record::{Image, References},
    store::ImageStore,
};

/// The disk use of one image.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    pub image: Arc<Image>,
    pub references: References,
    /// Bytes of its layers.
    pub size: u64,
    /// Bytes of those layers that other images use too.
    pub shared_size: u64,
}

/// The disk use of a namespace's images.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    pub images: Vec<ImageUsage>,
    /// Bytes of all their layers, each counted once.
    pub layers_size: u64,
}

impl ImageStore {
    /// What the namespace's images take.
    pub async fn disk_usage(&self, _ns: &Namespace) -> Result<DiskUsage> {
        Err(types::Error::not_implemented("disk usage"))
    }
}
