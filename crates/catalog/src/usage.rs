//! What images take on disk.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use types::{Digest, Namespace, Result};

use crate::{
    catalog::Catalog,
    record::{Image, References},
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

impl ImageUsage {
    /// Bytes of the layers that only this image uses.
    pub fn unique_size(&self) -> u64 {
        self.size.saturating_sub(self.shared_size)
    }
}

/// The disk use of a namespace's images.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    pub images: Vec<ImageUsage>,
    /// Bytes of all their layers, each counted once.
    pub layers_size: u64,
}

impl Catalog {
    /// What the namespace's images take, newest first.
    pub async fn disk_usage(&self, ns: &Namespace) -> Result<DiskUsage> {
        let images = self.list(ns).await?;
        // In how many images each layer is, and its size.
        let mut layers: HashMap<&Digest, (usize, u64)> = HashMap::new();
        for (image, _) in &images {
            let distinct: HashSet<_> = image
                .layers
                .iter()
                .map(|layer| (&layer.diff_id, layer.size))
                .collect();
            for (diff_id, size) in distinct {
                let entry = layers.entry(diff_id).or_insert((0, size));
                entry.0 += 1;
            }
        }
        let layers_size = layers.values().map(|(_, size)| size).sum();
        let shared = |image: &Image| {
            image
                .layers
                .iter()
                .filter(|layer| {
                    layers
                        .get(&layer.diff_id)
                        .is_some_and(|(count, _)| *count > 1)
                })
                .map(|layer| layer.size)
                .sum()
        };
        let usage = images.iter().map(|(image, references)| ImageUsage {
            image: image.clone(),
            references: references.clone(),
            size: image.size(),
            shared_size: shared(image),
        });
        Ok(DiskUsage {
            images: usage.collect(),
            layers_size,
        })
    }
}
