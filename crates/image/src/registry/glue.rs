//! The image store as the end of a pull and the beginning of a push.
//!
//! Owns what is recorded of a registry beside the image itself: the digest that a repository
//! knows it by, its manifest, and its layers' compressed forms, so that later pushes can spare
//! them. Locks and order of the records are the image store's.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use types::{Digest, Error, Namespace, Reference, Result, error::ResultExt as _};

use super::{
    Client, Credentials, Descriptor, KnownBlob, PullRequest, PullSink, Pulled, PulledImage,
    PushImage, PushLayer, PushSource, Pushed, Report, push::headline,
};
use crate::{
    layers::{LayerGuard, LayerStore},
    record::{self, Image, Source},
    store::{ImageStore, Index, NewImage, blocking},
};

/// What to push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The image; `latest` is implied unless `all_tags`.
    pub reference: Reference,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// Who asks.
    pub credentials: Credentials,
}

impl ImageStore {
    /// Pulls into the namespace. See [`Client::pull`] for what is reported and which errors
    /// come.
    pub async fn pull(
        &self,
        client: &Client,
        ns: &Namespace,
        request: &PullRequest,
        report: Report,
    ) -> Result<Vec<Pulled>> {
        let sink = Arc::new(StoreSink {
            images: self.clone(),
            ns: ns.clone(),
            guards: Mutex::default(),
        });
        client.pull(request, sink, report).await
    }

    /// Pushes from the namespace and records the digests that the registry knows the images
    /// by. See [`Client::push`] for what is reported and which errors come.
    pub async fn push(
        &self,
        client: &Client,
        ns: &Namespace,
        request: &PushRequest,
        report: Report,
    ) -> Result<Vec<Pushed>> {
        let repository = &request.reference;
        if repository.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let index = self.index(ns).await?;
        let wanted = match wanted(&index, request) {
            Ok(wanted) => wanted,
            Err(error) => {
                // docker says where to before it says that there is nothing.
                report(headline(repository));
                return Err(error);
            }
        };
        let known = known_blobs(&index);
        let mut guards = Vec::new();
        let mut images = Vec::new();
        for (reference, image) in &wanted {
            let (layers, held) = self.push_layers(image, &known).await?;
            guards.extend(held);
            images.push(push_image(reference, image, layers));
        }
        let source = Arc::new(StoreSource(self.layers().clone()));
        let pushed = client
            .push(repository, images, &request.credentials, source, report)
            .await?;
        for (done, (_, image)) in pushed.iter().zip(&wanted) {
            self.record_push(ns, image, done).await?;
        }
        Ok(pushed)
    }

    /// The layers of `image` for a push, and what keeps them.
    async fn push_layers(
        &self,
        image: &Image,
        known: &HashMap<Digest, Vec<KnownBlob>>,
    ) -> Result<(Vec<PushLayer>, Vec<LayerGuard>)> {
        let (store, diff_ids) = (self.layers().clone(), image.diff_ids());
        let held = move || {
            let hold = |diff_id: &Digest| {
                let guard = store.pin(diff_id);
                let guard = guard
                    .ok_or_else(|| Error::not_found(format!("layer {diff_id} does not exist")))?;
                Ok((store.meta(diff_id)?.tar_size, guard))
            };
            diff_ids.iter().map(hold).collect::<Result<Vec<_>>>()
        };
        let (mut layers, mut guards) = (Vec::new(), Vec::new());
        for (diff_id, (size, guard)) in image.diff_ids().into_iter().zip(blocking(held).await?) {
            let known = known.get(&diff_id).cloned().unwrap_or_default();
            layers.push(PushLayer {
                diff_id,
                size,
                known,
            });
            guards.push(guard);
        }
        Ok((layers, guards))
    }

    /// Remembers what the registry has now. An image that was removed meanwhile stays so.
    async fn record_push(&self, ns: &Namespace, image: &Image, pushed: &Pushed) -> Result<()> {
        match self.get(ns, &image.id).await {
            Err(error) if error.kind == types::Kind::NotFound => return Ok(()),
            other => other?,
        };
        let digest = pushed.descriptor.digest.clone();
        let new = NewImage {
            config: image.raw_config.clone(),
            references: vec![pushed.reference.with_digest(digest)],
            source: source(&pushed.descriptor, &pushed.bytes, &pushed.layers),
            ..NewImage::default()
        };
        self.create_image(ns, new).await.map(drop)
    }
}

/// The references to push and their images.
fn wanted(index: &Index, request: &PushRequest) -> Result<Vec<(Reference, Arc<Image>)>> {
    let repository = &request.reference;
    let here: Vec<&(Reference, Digest)> = index
        .references
        .iter()
        .filter(|(one, _)| one.name() == repository.name() && one.tag().is_some())
        .collect();
    if here.is_empty() {
        let name = repository.familiar_name();
        return Err(Error::not_found(format!(
            "An image does not exist locally with the tag: {name}"
        )));
    }
    let one = repository.clone().or_latest();
    let wanted = here
        .into_iter()
        .filter(|(reference, _)| request.all_tags || *reference == one)
        .filter_map(|(reference, id)| Some((reference.clone(), index.images.get(id)?.clone())))
        .collect::<Vec<_>>();
    if wanted.is_empty() {
        return Err(Error::not_found(format!(
            "tag does not exist: {}",
            one.familiar()
        )));
    }
    Ok(wanted)
}

fn push_image(reference: &Reference, image: &Image, layers: Vec<PushLayer>) -> PushImage {
    let original = image.source.as_ref().map(|source| {
        (
            source.media_type.clone(),
            Bytes::from(source.manifest.clone()),
        )
    });
    PushImage {
        reference: reference.clone(),
        config: image.raw_config.clone().into(),
        layers,
        original,
    }
}

/// The compressed forms of layers that some repository had, as the images' sources and their
/// digests in repositories tell.
fn known_blobs(index: &Index) -> HashMap<Digest, Vec<KnownBlob>> {
    let mut known: HashMap<Digest, Vec<KnownBlob>> = HashMap::new();
    for (reference, id) in &index.references {
        let Some(image) = index
            .images
            .get(id)
            .filter(|_| reference.digest().is_some())
        else {
            continue;
        };
        let Some(source) = image.source.as_ref() else {
            continue;
        };
        if source.layers.len() != image.layers.len() {
            continue;
        }
        for (layer, blob) in image.layers.iter().zip(&source.layers) {
            let blob = KnownBlob {
                repository: reference.name(),
                descriptor: Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size),
            };
            let list = known.entry(layer.diff_id.clone()).or_default();
            if !list.contains(&blob) {
                list.push(blob);
            }
        }
    }
    known
}

/// The record of a manifest; `None` for one that is not text, which no registry accepts.
fn source(descriptor: &Descriptor, manifest: &Bytes, layers: &[Descriptor]) -> Option<Source> {
    let layer = |one: &Descriptor| record::Descriptor {
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

/// The end of one pull: holds every layer until the image is recorded.
struct StoreSink {
    images: ImageStore,
    ns: Namespace,
    guards: Mutex<Vec<LayerGuard>>,
}

impl StoreSink {
    fn hold(&self, guards: impl IntoIterator<Item = LayerGuard>) {
        let mut held = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(guards);
    }

    /// Holds all of `diff_ids`; says whether all are there.
    async fn pin(&self, diff_ids: Vec<Digest>) -> Result<bool> {
        let layers = self.images.layers().clone();
        let guards = blocking(move || {
            let unique: HashSet<&Digest> = diff_ids.iter().collect();
            Ok(unique
                .into_iter()
                .map(|one| layers.pin(one))
                .collect::<Option<Vec<_>>>())
        });
        let guards = guards.await?;
        let all = guards.is_some();
        self.hold(guards.into_iter().flatten());
        Ok(all)
    }
}

#[async_trait::async_trait]
impl PullSink for StoreSink {
    async fn has_image(&self, id: &Digest) -> Result<bool> {
        match self.images.get(&self.ns, id).await {
            Ok(image) => self.pin(image.diff_ids()).await,
            Err(error) if error.kind == types::Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn has_layer(&self, diff_id: &Digest) -> Result<bool> {
        self.pin(vec![diff_id.clone()]).await
    }

    fn put_layer(&self, diff_id: &Digest, tar: &mut (dyn Read + Send)) -> Result<()> {
        let ingested = self.images.layers().ingest(tar, Some(diff_id))?;
        self.hold([ingested.guard]);
        Ok(())
    }

    async fn put_image(&self, image: PulledImage) -> Result<bool> {
        let PulledImage {
            reference,
            id,
            config,
            resolved,
            ..
        } = image;
        let config = String::from_utf8(config.to_vec())
            .during(|| format!("reading the configuration of {}", reference.familiar()))?;
        let pinned = reference.with_digest(resolved.target.digest.clone());
        // With a digest in the reference the tag beside it is not ours to move.
        let named = match reference.tag().filter(|_| reference.digest().is_none()) {
            Some(tag) => reference.with_tag(tag)?,
            None => pinned.clone(),
        };
        let before = self.images.index(&self.ns).await?;
        let before = before.references.into_iter().find(|(one, _)| *one == named);
        let new = NewImage {
            config,
            references: vec![named, pinned],
            source: source(
                &resolved.descriptor,
                &resolved.bytes,
                &resolved.manifest.layers,
            ),
            ..NewImage::default()
        };
        self.images.create_image(&self.ns, new).await?;
        Ok(before.is_none_or(|(_, image)| image != id))
    }
}

/// The beginning of a push.
struct StoreSource(Arc<LayerStore>);

impl PushSource for StoreSource {
    fn open_layer(&self, diff_id: &Digest) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.0.tar_stream(diff_id)?))
    }
}
