//! `docker import`: an image of a root file system's tar.

use std::{collections::HashSet, sync::Arc};

use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;
use types::{Error, Namespace, Reference, Result, Time};

use crate::{
    config::{ConfigPatch, HistoryEntry, ImageConfig, Platform, RootFs},
    record::Image,
    store::{ImageStore, NewImage, blocking},
};

impl ImageStore {
    /// Makes an image of a root file system's tar (plain, gzip or zstd).
    ///
    /// Goes on to a clean end when the caller stops waiting.
    pub async fn import(
        &self,
        ns: &Namespace,
        tar: impl AsyncRead + Send + Unpin + 'static,
        reference: Option<&Reference>,
        message: &str,
        patch: ConfigPatch,
    ) -> Result<Arc<Image>> {
        let (images, ns) = (self.clone(), ns.clone());
        let (reference, message) = (reference.cloned(), message.to_owned());
        let whole = async move {
            let (tar, layers) = (SyncIoBridge::new(tar), images.layers().clone());
            let layer = blocking(move || layers.ingest(tar, None)).await?;
            let diff_id = layer.meta.diff_id.clone();
            let config = config(&message, patch, diff_id.clone());
            let references = reference.into_iter().map(Reference::or_latest).collect();
            let created = match config.to_text() {
                Ok(config) => {
                    images
                        .create_image(
                            &ns,
                            NewImage {
                                config,
                                references,
                                ..NewImage::default()
                            },
                        )
                        .await
                }
                Err(error) => Err(error),
            };
            drop(layer.guard);
            if created.is_err() && !layer.existed {
                images.drop_unneeded(HashSet::from([diff_id])).await;
            }
            created
        };
        tokio::spawn(whole)
            .await
            .map_err(|source| Error::wrap("importing an image", source))?
    }
}

/// The configuration of an imported image.
fn config(message: &str, patch: ConfigPatch, layer: types::Digest) -> ImageConfig {
    let Platform {
        os,
        architecture,
        variant,
    } = patch.platform.unwrap_or_else(Platform::host);
    let created = Some(Time::now());
    ImageConfig {
        architecture,
        variant,
        os,
        config: Some(patch.config),
        comment: message.to_owned(),
        created,
        history: vec![HistoryEntry {
            created,
            comment: message.to_owned(),
            ..HistoryEntry::default()
        }],
        rootfs: RootFs {
            diff_ids: vec![layer],
            ..RootFs::default()
        },
        ..ImageConfig::default()
    }
}
