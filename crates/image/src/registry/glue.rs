//! The layer store as the end of a pull and the beginning of a push.
//!
//! Owns what is told of an image that came or went: its names, its manifest, and its layers'
//! compressed forms, so that later pushes can spare them. Recording that is the caller's.

use std::{
    collections::HashSet,
    io::Read,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use types::{
    Digest, Error, Reference, Result,
    error::ResultExt as _,
    image::{self, LayerRef, NewImage, PushedImage, Source},
};

use super::{
    Client, Credentials, Descriptor, KnownBlob, PullRequest, PullSink, Pulled, PulledImage,
    PushImage, PushLayer, PushSource, Pushed, Report,
};
use crate::{
    allowance::Allowance,
    blocking,
    layers::{LayerGuard, LayerStore, lock},
};

/// What is on record of the images that a pull may bring.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Images.
    pub images: HashSet<Digest>,
    /// What points at them.
    pub references: Vec<(Reference, Digest)>,
    /// Layers that need not be fetched where they are on the disk.
    pub allowance: Allowance,
}

/// Whoever records what a pull brings.
pub trait PullKeeper: Send + Sync + 'static {
    /// Keeps layers of an image to come.
    fn hold(&self, guards: Vec<LayerGuard>);
    /// The image is whole: all its layers were given to [`PullKeeper::hold`].
    fn keep(&self, image: NewImage) -> Result<()>;
}

impl Client {
    /// Pulls into a layer store. See [`Client::pull`] for what is reported and which errors
    /// come. Layers of a pull that fails stay, so that the next one need not bring them again;
    /// a sweep may take them.
    pub async fn pull_into(
        &self,
        layers: &Arc<LayerStore>,
        request: &PullRequest,
        known: Known,
        keeper: Arc<dyn PullKeeper>,
        report: Report,
    ) -> Result<Vec<Pulled>> {
        let sink = Arc::new(StoreSink {
            layers: layers.clone(),
            known,
            keeper,
            brought: Mutex::default(),
        });
        self.pull(request, sink, report).await
    }

    /// Pushes images out of a layer store, all to the repository of `repository`. See
    /// [`Client::push`] for what is reported and which errors come.
    pub async fn push_from(
        &self,
        layers: &Arc<LayerStore>,
        repository: &Reference,
        images: &[image::PushImage],
        credentials: &Credentials,
        report: Report,
    ) -> Result<Vec<PushedImage>> {
        let mut guards = Vec::new();
        let mut wanted = Vec::new();
        for image in images {
            let (layers, held): (Vec<_>, Vec<_>) =
                hold(layers, &image.layers).await?.into_iter().unzip();
            guards.extend(held);
            wanted.push(push_image(image, layers));
        }
        let source = Arc::new(StoreSource(layers.clone()));
        let pushed = self
            .push(repository, wanted, credentials, source, report)
            .await?;
        drop(guards);
        let done = pushed.iter().zip(images);
        Ok(done
            .map(|(done, image)| pushed_image(done, image))
            .collect())
    }
}

/// Layers for a push, and what keeps them.
async fn hold(
    layers: &Arc<LayerStore>,
    wanted: &[image::PushLayer],
) -> Result<Vec<(PushLayer, LayerGuard)>> {
    let (store, wanted) = (layers.clone(), wanted.to_vec());
    let hold = move |layer: image::PushLayer| {
        let missing = || Error::not_found(format!("layer {} does not exist", layer.diff_id));
        let guard = store.pin(&layer.diff_id).ok_or_else(missing)?;
        let known = layer.known.into_iter().map(|known| KnownBlob {
            repository: known.repository,
            descriptor: Descriptor::new(&known.blob.media_type, known.blob.digest, known.blob.size),
        });
        let layer = PushLayer {
            size: store.meta(&layer.diff_id)?.tar_size,
            known: known.collect(),
            diff_id: layer.diff_id,
        };
        Ok((layer, guard))
    };
    blocking(move || wanted.into_iter().map(hold).collect()).await
}

fn push_image(image: &image::PushImage, layers: Vec<PushLayer>) -> PushImage {
    let original = image.source.as_ref().map(|source| {
        (
            source.media_type.clone(),
            Bytes::from(source.manifest.clone()),
        )
    });
    PushImage {
        reference: image.reference.clone(),
        config: image.config.clone().into(),
        layers,
        original,
    }
}

fn pushed_image(done: &Pushed, image: &image::PushImage) -> PushedImage {
    let digest = done.descriptor.digest.clone();
    PushedImage {
        id: Digest::of(image.config.as_bytes()),
        reference: done.reference.with_digest(digest),
        source: source(&done.descriptor, &done.bytes, &done.layers),
    }
}

/// What is told of a manifest; `None` for one that is not text, which no registry accepts.
fn source(descriptor: &Descriptor, manifest: &Bytes, layers: &[Descriptor]) -> Option<Source> {
    let layer = |one: &Descriptor| image::Descriptor {
        media_type: one.media_type.clone(),
        digest: one.digest.clone(),
        size: one.size,
    };
    Some(Source {
        media_type: descriptor.media_type.clone(),
        manifest: String::from_utf8(manifest.to_vec()).ok()?,
        layers: layers.iter().map(layer).collect(),
    })
}

/// The end of one pull.
struct StoreSink {
    layers: Arc<LayerStore>,
    known: Known,
    keeper: Arc<dyn PullKeeper>,
    /// What this pull has fetched.
    brought: Mutex<HashSet<Digest>>,
}

impl StoreSink {
    /// Holds all of `diff_ids`; says whether all are there.
    async fn pin(&self, diff_ids: Vec<Digest>) -> Result<bool> {
        let layers = self.layers.clone();
        let guards = blocking(move || {
            let unique: HashSet<&Digest> = diff_ids.iter().collect();
            Ok(unique
                .into_iter()
                .map(|one| layers.pin(one))
                .collect::<Option<Vec<_>>>())
        });
        let guards = guards.await?;
        let all = guards.is_some();
        self.keeper.hold(guards.unwrap_or_default());
        Ok(all)
    }
}

#[async_trait::async_trait]
impl PullSink for StoreSink {
    async fn has_image(&self, id: &Digest, diff_ids: &[Digest]) -> Result<bool> {
        Ok(self.known.images.contains(id) && self.pin(diff_ids.to_vec()).await?)
    }

    async fn has_layer(&self, diff_id: &Digest) -> Result<bool> {
        let trusted = self.known.allowance.trusts(diff_id) || lock(&self.brought).contains(diff_id);
        Ok(trusted && self.pin(vec![diff_id.clone()]).await?)
    }

    fn put_layer(&self, diff_id: &Digest, tar: &mut (dyn Read + Send)) -> Result<()> {
        let allowance = &self.known.allowance;
        let ingested = self.layers.ingest_for(allowance, tar, Some(diff_id))?;
        lock(&self.brought).insert(diff_id.clone());
        self.keeper.hold(vec![ingested.guard]);
        Ok(())
    }

    async fn put_image(&self, image: PulledImage) -> Result<bool> {
        let PulledImage {
            reference,
            id,
            config,
            resolved,
            diff_ids,
        } = image;
        let config = String::from_utf8(config.to_vec())
            .during(|| format!("reading the configuration of {}", reference.familiar()))?;
        let pinned = reference.with_digest(resolved.target.digest.clone());
        // With a digest in the reference the tag beside it is not ours to move.
        let named = match reference.tag().filter(|_| reference.digest().is_none()) {
            Some(tag) => reference.with_tag(tag)?,
            None => pinned.clone(),
        };
        let before = self.known.references.iter().find(|(one, _)| *one == named);
        let moved = before.is_none_or(|(_, image)| *image != id);
        let layers = self.layers.clone();
        let size = move |diff_id: Digest| {
            let size = layers.meta(&diff_id)?.size;
            Ok(LayerRef { diff_id, size })
        };
        let layers = blocking(move || diff_ids.into_iter().map(size).collect()).await?;
        self.keeper.keep(NewImage {
            config,
            layers,
            references: vec![named, pinned],
            source: source(
                &resolved.descriptor,
                &resolved.bytes,
                &resolved.manifest.layers,
            ),
            ..NewImage::default()
        })?;
        Ok(moved)
    }
}

/// The beginning of a push.
struct StoreSource(Arc<LayerStore>);

impl PushSource for StoreSource {
    fn open_layer(&self, diff_id: &Digest) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.0.tar_stream(diff_id)?))
    }
}
