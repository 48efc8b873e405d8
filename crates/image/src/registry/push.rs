//! Pushing: layers, configuration, manifest — in this order, so that a manifest never names
//! what is not there.
//!
//! Owns what is sent and what is spared; how one blob travels is `upload`'s matter.
//! Source: OCI distribution specification v1.1, "Push".

use std::{
    collections::{BTreeSet, HashMap},
    io::Read,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use types::{Digest, Error, Reference, Result};

use super::{
    auth::Credentials,
    client::{Client, Intent},
    connection::Connection,
    fault::Fault,
    manifest::{DOCKER_CONFIG, DOCKER_LAYER, Descriptor, Manifest},
    progress::{Counter, Progress, Report},
    upload::{Mount, Session},
};

/// Layers uploaded at the same time, as docker does by default.
const PARALLEL: usize = 5;
/// Repositories that a layer is looked for in.
const MOUNT_LIMIT: usize = 4;

/// A compressed form of a layer that some registry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBlob {
    /// The repository that had it, in full: `docker.io/library/busybox`.
    pub repository: String,
    /// The compressed layer.
    pub descriptor: Descriptor,
}

/// A layer to push.
#[derive(Debug, Clone)]
pub struct PushLayer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar, 0 if not known.
    pub size: u64,
    /// Compressed forms that need not be uploaded again, best first.
    pub known: Vec<KnownBlob>,
}

/// An image to push.
#[derive(Debug, Clone)]
pub struct PushImage {
    /// Where to; `latest` is implied.
    pub reference: Reference,
    /// The configuration, byte for byte.
    pub config: Bytes,
    /// Lowest first.
    pub layers: Vec<PushLayer>,
    /// The manifest that it came with and its media type: sent again unchanged when every
    /// layer that it names is at the registry, so that the image keeps its digest.
    pub original: Option<(String, Bytes)>,
}

/// Gives the content of layers.
pub trait PushSource: Send + Sync + 'static {
    /// The uncompressed tar of a layer. Blocking, as is reading it; a read fails when the
    /// content is not that of `diff_id`.
    fn open_layer(&self, diff_id: &Digest) -> Result<Box<dyn Read + Send>>;
}

/// What was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// With its tag.
    pub reference: Reference,
    /// The manifest as sent.
    pub descriptor: Descriptor,
    /// The manifest, byte for byte.
    pub bytes: Bytes,
    /// The layers as the registry has them, in the image's order.
    pub layers: Vec<Descriptor>,
}

impl Client {
    /// Pushes `images`, which all go to the repository of `repository`.
    ///
    /// Errors carry docker's texts; they belong into the progress stream once something was
    /// reported.
    pub async fn push(
        &self,
        repository: &Reference,
        images: Vec<PushImage>,
        credentials: &Credentials,
        source: Arc<dyn PushSource>,
        report: Report,
    ) -> Result<Vec<Pushed>> {
        report(headline(repository));
        let mounts = mount_sources(repository, &images);
        let work = async {
            let connection = self
                .connect(repository, credentials, Intent::Push { mounts: &mounts })
                .await?;
            let push = Push {
                connection: &connection,
                repository,
                source: &source,
                report: &report,
            };
            let mut placed = HashMap::new();
            let mut pushed = Vec::new();
            for image in &images {
                pushed.push(push.one(image, &mut placed).await?);
            }
            Ok::<_, Fault>(pushed)
        };
        work.await.map_err(|fault| fault.bare().into_error())
    }
}

/// The first message of a push, which comes even before that there is nothing to push.
pub fn headline(repository: &Reference) -> Progress {
    Progress::of(
        "",
        format!("The push refers to repository [{}]", repository.name()),
    )
}

/// Paths of the other repositories of the same registry that layers may be mounted from.
fn mount_sources(repository: &Reference, images: &[PushImage]) -> Vec<String> {
    let known = images
        .iter()
        .flat_map(|image| &image.layers)
        .flat_map(|layer| &layer.known);
    let paths: BTreeSet<String> = known
        .filter_map(|blob| neighbour(repository, blob))
        .collect();
    paths.into_iter().take(8).collect()
}

/// The path of the repository that `blob` is in, if that is another one of the same registry.
fn neighbour(repository: &Reference, blob: &KnownBlob) -> Option<String> {
    let path = blob
        .repository
        .strip_prefix(repository.domain())?
        .strip_prefix('/')?;
    (path != repository.path()).then(|| path.to_owned())
}

/// One push under way.
struct Push<'a> {
    connection: &'a Connection,
    repository: &'a Reference,
    source: &'a Arc<dyn PushSource>,
    report: &'a Report,
}

impl Push<'_> {
    /// Pushes one image; `placed` are the layers that are at the registry.
    async fn one(
        &self,
        image: &PushImage,
        placed: &mut HashMap<Digest, Descriptor>,
    ) -> Result<Pushed, Fault> {
        let mut todo: Vec<&PushLayer> = Vec::new();
        // Highest first, as docker shows them.
        for layer in image.layers.iter().rev() {
            if !placed.contains_key(&layer.diff_id)
                && todo.iter().all(|other| other.diff_id != layer.diff_id)
            {
                self.say(layer, "Preparing");
                todo.push(layer);
            }
        }
        todo.iter()
            .skip(PARALLEL)
            .for_each(|layer| self.say(layer, "Waiting"));
        // The futures are made first: a closure in the stream would be tied to one lifetime,
        // and the whole push could then not be moved to another thread.
        let mut work = Vec::with_capacity(todo.len());
        for layer in todo {
            work.push(async move {
                let placed = self.place(layer).await?;
                Ok::<_, Fault>((layer.diff_id.clone(), placed))
            });
        }
        let done: Vec<(Digest, Descriptor)> = stream::iter(work)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        placed.extend(done);

        let config = Descriptor::of(DOCKER_CONFIG, &image.config);
        self.connection.put_small(&config, &image.config).await?;
        let layers: Vec<Descriptor> = image
            .layers
            .iter()
            .filter_map(|layer| placed.get(&layer.diff_id).cloned())
            .collect();
        let (media_type, bytes) = document(image, config, &layers)?;
        self.tag(
            &image.reference.clone().or_latest(),
            media_type,
            bytes,
            layers,
        )
        .await
    }

    /// Writes the manifest under its tag.
    async fn tag(
        &self,
        reference: &Reference,
        media_type: String,
        bytes: Bytes,
        layers: Vec<Descriptor>,
    ) -> Result<Pushed, Fault> {
        let tag = reference
            .tag()
            .ok_or_else(|| Error::invalid("cannot push a digest reference"))?;
        let url = self.connection.url(&format!("manifests/{tag}"))?;
        let content_type = HeaderValue::from_str(&media_type)
            .map_err(|source| Error::wrap("pushing the manifest", source))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        self.connection
            .send(Method::PUT, &url, &headers, Some(bytes.clone()))
            .await?;
        let descriptor = Descriptor::of(&media_type, &bytes);
        let (digest, size) = (&descriptor.digest, descriptor.size);
        (self.report)(Progress::of(
            "",
            format!("{tag}: digest: {digest} size: {size}"),
        ));
        let aux = serde_json::json!({ "Tag": tag, "Digest": digest, "Size": size });
        (self.report)(Progress {
            aux: Some(aux),
            ..Progress::default()
        });
        Ok(Pushed {
            reference: reference.clone(),
            descriptor,
            bytes,
            layers,
        })
    }

    fn say(&self, layer: &PushLayer, status: impl Into<String>) {
        (self.report)(Progress::of(layer.diff_id.short(), status));
    }

    /// Sees to it that the registry has the layer.
    async fn place(&self, layer: &PushLayer) -> Result<Descriptor, Fault> {
        let here = self.repository.name();
        // What this repository had comes first, then what others may have had.
        let (own, others): (Vec<&KnownBlob>, Vec<&KnownBlob>) =
            layer.known.iter().partition(|blob| blob.repository == here);
        for blob in own {
            if self.connection.blob_size(&blob.descriptor.digest).await?
                == Some(blob.descriptor.size)
            {
                self.say(layer, "Layer already exists");
                return Ok(blob.descriptor.clone());
            }
        }
        let mut session = None;
        for blob in others.iter().take(MOUNT_LIMIT) {
            let Some(from) = neighbour(self.repository, blob) else {
                continue;
            };
            if let Some(unused) = session.take() {
                self.connection.cancel(unused).await;
            }
            match self.connection.mount(&blob.descriptor.digest, &from).await {
                Ok(Mount::Done) => {
                    self.say(layer, format!("Mounted from {from}"));
                    return Ok(blob.descriptor.clone());
                }
                Ok(Mount::Refused(opened)) => session = Some(opened),
                // Mounting only spares work.
                Err(fault) => tracing::debug!(?fault, from, "mounting a layer"),
            }
        }
        for blob in others.iter().take(MOUNT_LIMIT) {
            if self.connection.blob_size(&blob.descriptor.digest).await?
                == Some(blob.descriptor.size)
            {
                if let Some(unused) = session.take() {
                    self.connection.cancel(unused).await;
                }
                self.say(layer, "Layer already exists");
                return Ok(blob.descriptor.clone());
            }
        }
        self.upload(layer, session).await
    }

    /// Uploads the layer, from its beginning again when that fails on the way.
    async fn upload(
        &self,
        layer: &PushLayer,
        mut session: Option<Session>,
    ) -> Result<Descriptor, Fault> {
        let id = layer.diff_id.short();
        let mut failures = 0;
        loop {
            let counter = Counter::new(self.report, id, "Pushing", layer.size);
            let fault = match self.attempt(layer, session.take(), counter).await {
                Ok(descriptor) => {
                    self.say(layer, "Pushed");
                    return Ok(descriptor);
                }
                Err(fault) => fault,
            };
            failures += 1;
            let patience = self.connection.patience;
            if !fault.may_pass() || failures >= patience.attempts {
                return Err(fault);
            }
            let pause = patience.pause(failures);
            if pause.as_secs() > 0 {
                self.say(layer, format!("Retrying in {} seconds", pause.as_secs()));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        layer: &PushLayer,
        session: Option<Session>,
        counter: Counter,
    ) -> Result<Descriptor, Fault> {
        let session = match session {
            Some(opened) => opened,
            None => self.connection.open_upload().await?,
        };
        let (source, diff_id) = (self.source.clone(), layer.diff_id.clone());
        let opened = tokio::task::spawn_blocking(move || source.open_layer(&diff_id)).await;
        let tar = opened
            .map_err(|source| Error::wrap(format!("opening layer {}", layer.diff_id), source))??;
        let (digest, size) = self.connection.put_stream(session, tar, counter).await?;
        Ok(Descriptor::new(DOCKER_LAYER, digest, size))
    }
}

/// The manifest to send: the original where it still fits, else a docker one, or an OCI one
/// when a layer is in a form that docker's manifests have no name for.
fn document(
    image: &PushImage,
    config: Descriptor,
    layers: &[Descriptor],
) -> Result<(String, Bytes), Fault> {
    if let Some((media_type, bytes)) = &image.original {
        let original: Option<Manifest> = serde_json::from_slice(bytes).ok();
        let fits = original.is_some_and(|one| {
            one.config.digest == config.digest
                && one
                    .layers
                    .iter()
                    .map(|layer| &layer.digest)
                    .eq(layers.iter().map(|layer| &layer.digest))
        });
        if fits {
            return Ok((media_type.clone(), bytes.clone()));
        }
    }
    let manifest = Manifest::for_layers(config, layers);
    Ok((manifest.media_type.clone(), manifest.to_bytes()?.into()))
}
