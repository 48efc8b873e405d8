//! Pulling: a manifest, its configuration, and the layers that are not there yet.
//!
//! Owns order, parallelism and what is reported; where things are kept is the sink's matter.
//! Source: OCI distribution specification v1.1, "Pull".

use std::{collections::HashSet, io::Read, sync::Arc};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use types::{Digest, Error, Reference, Result, error::ResultExt as _};

use super::{
    auth::Credentials,
    blob::{self, Fed, TarReader},
    client::{Client, Intent},
    connection::Connection,
    fault::Fault,
    manifest::{ConfigFacts, Descriptor},
    platform::Platform,
    progress::{Progress, Report},
    resolve::Resolved,
};

/// Layers downloaded at the same time, as docker does by default.
const PARALLEL: usize = 3;

/// An image whose layers the sink has.
#[derive(Debug, Clone)]
pub struct PulledImage {
    /// The reference that was asked for: with a tag or a digest.
    pub reference: Reference,
    /// SHA-256 of the configuration: the image's id.
    pub id: Digest,
    /// The configuration, byte for byte.
    pub config: Bytes,
    /// Manifest and index.
    pub resolved: Resolved,
    /// The layers' content, lowest first, one for each layer of the manifest.
    pub diff_ids: Vec<Digest>,
}

/// Keeps what a pull brings. One sink serves one pull and can hold what must not be collected
/// before the image is recorded.
#[async_trait::async_trait]
pub trait PullSink: Send + Sync + 'static {
    /// Whether the image is there with all its layers (`diff_ids`), so that nothing has to be
    /// fetched.
    async fn has_image(&self, id: &Digest, diff_ids: &[Digest]) -> Result<bool>;
    /// Whether the layer is there; if so it must stay until the pull ends.
    async fn has_layer(&self, diff_id: &Digest) -> Result<bool>;
    /// Takes one layer: an uncompressed tar. Blocking. Must verify `diff_id` and keep nothing
    /// unless `tar` was read to its end without an error; may leave `tar` unread when the
    /// layer has meanwhile come from elsewhere.
    fn put_layer(&self, diff_id: &Digest, tar: &mut (dyn Read + Send)) -> Result<()>;
    /// Records the image under its reference; true when the reference meant another image, or
    /// nothing, before.
    async fn put_image(&self, image: PulledImage) -> Result<bool>;
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The image; `latest` is implied unless `all_tags`.
    pub reference: Reference,
    /// For which platform; this machine's if `None`.
    pub platform: Option<Platform>,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// Who asks.
    pub credentials: Credentials,
}

/// What a pull brought, one for each tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// With its tag or digest.
    pub reference: Reference,
    /// The image's id.
    pub id: Digest,
    /// What the reference points at in the registry.
    pub digest: Digest,
}

impl Client {
    /// Pulls into `sink`.
    ///
    /// Errors carry docker's texts; once `Pulling from` was reported they belong into the
    /// progress stream instead of the HTTP status.
    pub async fn pull(
        &self,
        request: &PullRequest,
        sink: Arc<dyn PullSink>,
        report: Report,
    ) -> Result<Vec<Pulled>> {
        let reference = if request.all_tags {
            request.reference.clone()
        } else {
            request.reference.clone().or_latest()
        };
        let work = async {
            let connection = self
                .connect(&reference, &request.credentials, Intent::Pull)
                .await?;
            let pull = Pull {
                connection: &connection,
                sink: &sink,
                report: &report,
                platform: request.platform.as_ref(),
            };
            let mut pulled = Vec::new();
            let mut moved = false;
            for one in wanted(&connection, &reference, request.all_tags).await? {
                let (image, changed) = pull.one(&one).await?;
                moved |= changed;
                pulled.push(image);
            }
            let verdict = if moved {
                "Downloaded newer image"
            } else {
                "Image is up to date"
            };
            report(Progress::of(
                "",
                format!("Status: {verdict} for {}", reference.familiar()),
            ));
            Ok::<_, Fault>(pulled)
        };
        work.await
            .map_err(|fault| fault.into_pull_error(&reference))
    }
}

/// The references to pull, one after the other.
async fn wanted(
    connection: &Connection,
    reference: &Reference,
    all_tags: bool,
) -> Result<Vec<Reference>, Fault> {
    if !all_tags {
        return Ok(vec![reference.clone()]);
    }
    let tags = connection.tags().await?;
    // Tags that our rules refuse could not be named afterwards.
    Ok(tags
        .iter()
        .filter_map(|tag| reference.with_tag(tag).ok())
        .collect())
}

/// One pull under way.
struct Pull<'a> {
    connection: &'a Connection,
    sink: &'a Arc<dyn PullSink>,
    report: &'a Report,
    platform: Option<&'a Platform>,
}

/// One layer to fetch.
struct Layer {
    diff_id: Digest,
    blob: Descriptor,
}

impl Pull<'_> {
    /// Pulls one reference; says whether it moved.
    async fn one(&self, reference: &Reference) -> Result<(Pulled, bool), Fault> {
        let fetched = self.connection.manifest(reference).await?;
        let at = reference
            .digest()
            .map(|digest| digest.as_str())
            .or(reference.tag())
            .unwrap_or_default();
        (self.report)(Progress::of(
            at,
            format!("Pulling from {}", reference.path()),
        ));
        let platform = self.platform.cloned().unwrap_or_else(Platform::host);
        let resolved = self
            .connection
            .select(reference, fetched, &platform)
            .await?;
        let id = resolved.manifest.config.digest.clone();
        let config = self
            .connection
            .small_blob(&resolved.manifest.config)
            .await?;
        let facts = ConfigFacts::parse(&reference.familiar(), &config)?;
        let diff_ids = facts.rootfs.diff_ids;
        if diff_ids.len() != resolved.manifest.layers.len() {
            let text = format!(
                "{}: layers from manifest don't match image configuration",
                reference.familiar()
            );
            return Err(Error::invalid(text).into());
        }
        if facts.platform.os == "windows" {
            return Err(Error::invalid(
                "image operating system \"windows\" cannot be used on this platform",
            )
            .into());
        }
        if !self.sink.has_image(&id, &diff_ids).await? {
            self.layers(&resolved.manifest.layers, &diff_ids).await?;
        }
        let digest = resolved.target.digest.clone();
        let moved = self
            .sink
            .put_image(PulledImage {
                reference: reference.clone(),
                id: id.clone(),
                config,
                resolved,
                diff_ids,
            })
            .await?;
        (self.report)(Progress::of("", format!("Digest: {digest}")));
        if self
            .platform
            .is_some_and(|wanted| wanted.rank(&facts.platform).is_none())
        {
            let text = format!(
                "WARNING: image with reference {} was found but its platform ({}) does not match the specified platform ({platform})",
                reference.familiar(),
                facts.platform
            );
            (self.report)(Progress::of("", text));
        }
        Ok((
            Pulled {
                reference: reference.clone(),
                id,
                digest,
            },
            moved,
        ))
    }

    /// Brings every layer that is not there.
    async fn layers(&self, blobs: &[Descriptor], diff_ids: &[Digest]) -> Result<(), Fault> {
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        for (blob, diff_id) in blobs.iter().zip(diff_ids) {
            if !seen.insert(diff_id) {
                continue;
            }
            let there = self.sink.has_layer(diff_id).await?;
            let status = if there {
                "Already exists"
            } else {
                "Pulling fs layer"
            };
            (self.report)(Progress::of(blob.digest.short(), status));
            if !there {
                missing.push(Layer {
                    diff_id: diff_id.clone(),
                    blob: blob.clone(),
                });
            }
        }
        missing
            .iter()
            .skip(PARALLEL)
            .for_each(|layer| (self.report)(Progress::of(layer.blob.digest.short(), "Waiting")));
        stream::iter(missing.into_iter().map(Ok))
            .map_ok(|layer| self.layer(layer))
            .try_buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    /// Brings one layer, unpacking it while it arrives.
    async fn layer(&self, layer: Layer) -> Result<(), Fault> {
        let Layer { diff_id, blob } = layer;
        let id = blob.digest.short().to_owned();
        let (feed, reader) = blob::bridge(&blob, &id, self.report);
        let verdict = reader.verdict();
        let sink = self.sink.clone();
        let keep = tokio::task::spawn_blocking(move || {
            let mut tar = TarReader::open(reader).during(|| format!("reading layer {diff_id}"))?;
            sink.put_layer(&diff_id, &mut tar)
        });
        let fed = feed.run(self.connection, &blob, &id, self.report).await;
        let kept = keep
            .await
            .map_err(|source| Error::wrap(format!("unpacking layer {}", blob.digest), source))?;
        match (fed, kept) {
            (Err(fault), _) => return Err(fault),
            (Ok(_), Err(error)) => return Err(verdict.error().unwrap_or(error).into()),
            (Ok(Fed::Complete | Fed::Unwanted), Ok(())) => {}
        }
        (self.report)(Progress::of(&id, "Pull complete"));
        Ok(())
    }
}
