//! `docker load`: docker archives and OCI layouts, in one pass over the stream.
//!
//! Layers are unpacked as they come, before it is known what they belong to; what nothing
//! refers to in the end is removed again. An archive that holds both forms (docker 25 and
//! later write such) is read as a docker archive.

mod docker;
mod oci;
pub(crate) mod spool;

use std::{collections::HashSet, sync::Arc};

use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;
use types::{Digest, Error, Namespace, Reference, Result};

use self::spool::Spool;
use crate::{
    config::Platform,
    store::{ImageStore, NewImage, Progress, blocking},
};

/// An image that a load brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// The references that now point at it; empty when the archive named none.
    pub references: Vec<Reference>,
}

impl ImageStore {
    /// Loads a docker archive or OCI layout, compressed or not. On failure nothing is left.
    ///
    /// Goes on to a clean end when the caller stops waiting.
    pub async fn load(
        &self,
        ns: &Namespace,
        archive: impl AsyncRead + Send + Unpin + 'static,
        platform: Option<Platform>,
        progress: Progress,
    ) -> Result<Vec<Loaded>> {
        let (images, ns) = (self.clone(), ns.clone());
        let whole = async move {
            let mut archive = SyncIoBridge::new(archive);
            let layers = images.layers().clone();
            let (spool, read) = blocking(move || {
                let mut spool = Spool::new(layers, progress);
                let read = spool.read(&mut archive);
                Ok((spool, read))
            })
            .await?;
            let candidates = spool.new_layers();
            let result = match read {
                Ok(()) => images.record_loaded(&ns, spool, platform).await,
                Err(error) => {
                    drop(spool);
                    Err(error)
                }
            };
            images.drop_unneeded(candidates).await;
            result
        };
        tokio::spawn(whole)
            .await
            .map_err(|source| Error::wrap("loading images", source))?
    }

    /// Records what the archive holds.
    async fn record_loaded(
        &self,
        ns: &Namespace,
        spool: Spool,
        platform: Option<Platform>,
    ) -> Result<Vec<Loaded>> {
        let spool = Arc::new(spool);
        let plan = {
            let spool = spool.clone();
            blocking(move || plan(&spool, platform.as_ref())).await?
        };
        let mut loaded = Vec::new();
        for image in plan {
            let references = image.references.clone();
            let id = self.create_image(ns, image).await?.id.clone();
            loaded.push(Loaded { id, references });
        }
        Ok(loaded)
    }

    /// Removes layers that a failed or finished operation left without a record.
    pub(crate) async fn drop_unneeded(&self, candidates: HashSet<Digest>) {
        if let Err(error) = self.sweep(candidates).await {
            tracing::warn!(%error, "layers that nothing needs stay until the next start");
        }
    }
}

/// The images in a spooled archive.
pub(crate) fn plan(spool: &Spool, platform: Option<&Platform>) -> Result<Vec<NewImage>> {
    if let Some(manifest) = spool.small("manifest.json")? {
        docker::plan(spool, &manifest, platform)
    } else if let Some(index) = spool.small("index.json")? {
        oci::plan(spool, &index, platform)
    } else {
        Err(Error::invalid(
            "invalid archive: does not contain a manifest.json",
        ))
    }
}

/// Fails unless an image for `image` serves somebody who asked for `wanted`.
fn check_platform(image: &Platform, wanted: Option<&Platform>) -> Result<()> {
    match wanted {
        Some(wanted) if !image.satisfies(wanted) => Err(Error::not_found(format!(
            "image was found but does not provide the specified platform ({}/{})",
            wanted.os, wanted.architecture
        ))),
        _ => Ok(()),
    }
}
