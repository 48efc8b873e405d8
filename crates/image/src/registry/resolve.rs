//! From a reference to a verified manifest.
//!
//! Owns reading manifests, tags and small blobs, and `docker manifest`'s view of them.
//! Source: OCI distribution specification v1.1, "Pulling manifests", "Listing tags".

use std::collections::BTreeSet;

use bytes::Bytes;
use reqwest::{
    Method, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LINK},
};
use serde::Serialize;
use types::{Digest, Error, Reference, Result};

use super::{
    auth::Credentials,
    client::{Client, Intent},
    connection::{Connection, read_bounded},
    fault::Fault,
    manifest::{self, ACCEPT as ACCEPTED, ConfigFacts, Descriptor, Document, Manifest},
    platform::Platform,
};

/// What a manifest may weigh (the limit that registries set too).
const MANIFEST_LIMIT: usize = 4 << 20;
/// What an image's configuration may weigh.
pub(crate) const CONFIG_LIMIT: u64 = 8 << 20;
/// How many tags are listed at most, and in how many pages.
const TAG_LIMIT: usize = 10_000;
const PAGE_LIMIT: usize = 1_000;
/// How deep indexes may be nested.
const DEPTH_LIMIT: usize = 4;

/// A document as the registry has it, digest verified.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
    pub(crate) document: Document,
}

/// What a reference stands for on one platform.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What the reference itself points at: an index or a manifest.
    pub target: Descriptor,
    /// The image's manifest.
    pub descriptor: Descriptor,
    /// The image's manifest, byte for byte.
    pub bytes: Bytes,
    /// The image's manifest, read.
    pub manifest: Manifest,
}

/// The answer of `GET /distribution/{name}/json`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspection {
    /// What the reference points at.
    pub descriptor: Descriptor,
    /// What it runs on.
    pub platforms: Vec<Platform>,
}

impl Client {
    /// The manifest that `reference` (`latest` implied) stands for on `platform`, or on this
    /// machine's.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        credentials: &Credentials,
    ) -> Result<Resolved> {
        let reference = reference.clone().or_latest();
        let work = async {
            let connection = self.connect(&reference, credentials, Intent::Pull).await?;
            let fetched = connection.manifest(&reference).await?;
            connection
                .select(
                    &reference,
                    fetched,
                    &platform.cloned().unwrap_or_else(Platform::host),
                )
                .await
        };
        work.await
            .map_err(|fault| fault.into_pull_error(&reference))
    }

    /// What `reference` points at and the platforms it serves.
    pub async fn inspect(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Inspection> {
        let reference = reference.clone().or_latest();
        let work = async {
            let connection = self.connect(&reference, credentials, Intent::Pull).await?;
            let fetched = connection.manifest(&reference).await?;
            let platforms = match &fetched.document {
                Document::Index(index) => index
                    .manifests
                    .iter()
                    .filter_map(|entry| entry.platform.clone())
                    .collect(),
                Document::Image(manifest) => {
                    let config = connection.small_blob(&manifest.config).await?;
                    vec![ConfigFacts::parse(&reference.familiar(), &config)?.platform]
                }
            };
            Ok::<_, Fault>(Inspection {
                descriptor: fetched.descriptor,
                platforms,
            })
        };
        work.await.map_err(Fault::into_error)
    }
}

impl Connection {
    /// The document that `reference` points at.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<Fetched, Fault> {
        let name = reference.familiar();
        if let Some(digest) = reference.digest() {
            return self.manifest_at(&name, digest.as_str(), Some(digest)).await;
        }
        let tag = reference.tag().unwrap_or("latest");
        let url = self.url(&format!("manifests/{tag}"))?;
        // HEAD first, then GET by digest: a tag that moves in between cannot mix two images,
        // and registries that count pulls do not count a HEAD.
        match self.get(Method::HEAD, &url, &accept()).await {
            Ok(answer) => match digest_of(answer.headers()) {
                Some(digest) => {
                    self.manifest_at(&name, digest.as_str(), Some(&digest))
                        .await
                }
                None => self.manifest_at(&name, tag, None).await,
            },
            // A HEAD has no body to say what is wrong; the GET has.
            Err(Fault::Api { .. } | Fault::Status(..)) => self.manifest_at(&name, tag, None).await,
            Err(other) => Err(other),
        }
    }

    async fn manifest_at(
        &self,
        name: &str,
        at: &str,
        expected: Option<&Digest>,
    ) -> Result<Fetched, Fault> {
        let url = self.url(&format!("manifests/{at}"))?;
        let answer = self.get(Method::GET, &url, &accept()).await?;
        let stated = digest_of(answer.headers());
        let content_type = text_of(answer.headers(), CONTENT_TYPE.as_str())
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let bytes = Bytes::from(read_bounded(answer, MANIFEST_LIMIT, &url).await?);
        let digest = Digest::of(&bytes);
        if let Some(wanted) = expected
            .or(stated.as_ref())
            .filter(|wanted| **wanted != digest)
        {
            return Err(
                Error::system(format!("manifest verification failed for digest {wanted}")).into(),
            );
        }
        let (media_type, document) = manifest::parse(name, &content_type, &bytes)?;
        Ok(Fetched {
            descriptor: Descriptor::new(&media_type, digest, bytes.len() as u64),
            bytes,
            document,
        })
    }

    /// The image of `fetched` that `platform` runs.
    pub(crate) async fn select(
        &self,
        reference: &Reference,
        fetched: Fetched,
        platform: &Platform,
    ) -> Result<Resolved, Fault> {
        let name = reference.familiar();
        let target = fetched.descriptor.clone();
        let mut current = fetched;
        for _ in 0..DEPTH_LIMIT {
            let index = match current.document {
                Document::Image(manifest) => {
                    manifest::check_config_type(&name, &manifest.config.media_type)?;
                    return Ok(Resolved {
                        target,
                        descriptor: current.descriptor,
                        bytes: current.bytes,
                        manifest: *manifest,
                    });
                }
                Document::Index(index) => index,
            };
            let chosen = index.select(platform)?.digest.clone();
            current = self
                .manifest_at(&name, chosen.as_str(), Some(&chosen))
                .await?;
        }
        Err(Error::invalid(format!(
            "{name}: image indexes nested more than {DEPTH_LIMIT} deep"
        ))
        .into())
    }

    /// A blob that fits in memory, verified.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, Fault> {
        let Descriptor { digest, size, .. } = descriptor;
        if *size > CONFIG_LIMIT {
            return Err(Error::invalid(format!(
                "image configuration {digest} is larger than {CONFIG_LIMIT} bytes"
            ))
            .into());
        }
        let url = self.url(&format!("blobs/{digest}"))?;
        let mut failures = 0;
        loop {
            let answer = self.get(Method::GET, &url, &HeaderMap::new()).await?;
            match read_bounded(answer, CONFIG_LIMIT as usize, &url).await {
                Ok(bytes) if Digest::of(&bytes) == *digest => return Ok(bytes.into()),
                Ok(_) => {
                    return Err(Error::system(format!(
                        "image config verification failed for digest {digest}"
                    ))
                    .into());
                }
                Err(fault) if fault.may_pass() && failures + 1 < self.patience.attempts => {
                    failures += 1
                }
                Err(fault) => return Err(fault),
            }
            tokio::time::sleep(self.patience.pause(failures)).await;
        }
    }

    /// All tags of the repository.
    pub(crate) async fn tags(&self) -> Result<BTreeSet<String>, Fault> {
        #[derive(serde::Deserialize)]
        struct Page {
            // `null` for a repository without tags.
            tags: Option<Vec<String>>,
        }
        let mut all = BTreeSet::new();
        let mut next = Some(self.url("tags/list")?);
        for _ in 0..PAGE_LIMIT {
            let Some(url) = next.take() else { break };
            let answer = self.get(Method::GET, &url, &HeaderMap::new()).await?;
            next = next_page(&url, answer.headers());
            let body = read_bounded(answer, MANIFEST_LIMIT, &url).await?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|source| Error::system(format!("invalid answer of {url}: {source}")))?;
            all.extend(page.tags.unwrap_or_default());
            if all.len() > TAG_LIMIT {
                return Err(Error::invalid(format!(
                    "{} has more than {TAG_LIMIT} tags",
                    self.path
                ))
                .into());
            }
        }
        Ok(all)
    }
}

fn accept() -> HeaderMap {
    let mut headers = HeaderMap::new();
    // One header each: registries exist that read no lists.
    ACCEPTED.iter().for_each(|one| {
        headers.append(ACCEPT, HeaderValue::from_static(one));
    });
    headers
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    text_of(headers, "docker-content-digest").parse().ok()
}

/// The URL of `Link: <url>; rel="next"`, if it stays with the same registry.
fn next_page(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let link = text_of(headers, LINK.as_str());
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let next = url.join(target).ok()?;
    (parameters.contains("next") && next.origin() == url.origin()).then_some(next)
}
