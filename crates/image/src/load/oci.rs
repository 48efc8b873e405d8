//! OCI image layouts (OCI image specification v1.1, `image-layout.md`).

use std::collections::BTreeMap;

use serde::Deserialize;
use types::{
    Digest, Error, Reference, Result,
    image::{Descriptor, ImageConfig, NewImage, Platform, Source},
};

use super::{check_platform, spool::Spool, spooled};

/// Indexes in indexes are followed this deep.
const MAX_DEPTH: usize = 4;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// An index or a manifest: told apart by what they have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
    #[serde(default)]
    config: Option<Entry>,
    #[serde(default)]
    layers: Option<Vec<Entry>>,
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn parse(text: &[u8], what: &str) -> Result<Document> {
    serde_json::from_slice(text)
        .map_err(|source| Error::invalid(format!("invalid archive: {what}: {source}")))
}

/// Signatures, attestations: travel along but are no images.
fn is_attachment(entry: &Entry) -> bool {
    entry
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key("vnd.docker.reference.type"))
        || entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown")
}

/// The name that an entry of the top index gives its image.
fn reference(entry: &Entry) -> Result<Option<Reference>> {
    let Some(annotations) = &entry.annotations else {
        return Ok(None);
    };
    if let Some(name) = annotations.get("io.containerd.image.name") {
        return Ok(Some(name.parse::<Reference>()?.or_latest()));
    }
    // Often it is only a tag, which names nothing.
    let name = annotations
        .get("org.opencontainers.image.ref.name")
        .filter(|name| name.contains([':', '/']));
    Ok(name
        .and_then(|name| name.parse::<Reference>().ok())
        .map(Reference::or_latest))
}

/// The images of the layout; of each index the one for `platform`, or for this machine.
pub(super) fn plan(
    spool: &Spool,
    index: &[u8],
    platform: Option<&Platform>,
) -> Result<Vec<NewImage>> {
    let entries = parse(index, "index.json")?.manifests.unwrap_or_default();
    let mut images: Vec<NewImage> = Vec::new();
    for entry in entries.iter().filter(|entry| !is_attachment(entry)) {
        let manifest = choose(spool, entry, platform, 0)?;
        let mut image = image(spool, &manifest, platform)?;
        image.references = reference(entry)?.into_iter().collect();
        // docker writes one entry per tag.
        match images.iter_mut().find(|known| known.config == image.config) {
            Some(known) => known.references.append(&mut image.references),
            None => images.push(image),
        }
    }
    Ok(images)
}

/// The manifest that `entry` leads to.
fn choose(
    spool: &Spool,
    entry: &Entry,
    platform: Option<&Platform>,
    depth: usize,
) -> Result<Entry> {
    let path = blob_path(&entry.digest);
    let document = parse(spool.text(&path)?.as_bytes(), &path)?;
    let Some(entries) = document.manifests else {
        return Ok(Entry {
            media_type: document
                .media_type
                .unwrap_or_else(|| entry.media_type.clone()),
            ..entry.clone()
        });
    };
    if depth == MAX_DEPTH {
        return Err(Error::invalid(
            "invalid archive: indexes are nested too deep",
        ));
    }
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    // Layouts often hold only one platform of the index they quote.
    let mut there = entries
        .iter()
        .filter(|entry| !is_attachment(entry) && spool.has(&blob_path(&entry.digest)));
    let fits = |entry: &&Entry| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.satisfies(wanted))
    };
    let chosen = there
        .clone()
        .find(fits)
        .or_else(|| there.next().filter(|_| platform.is_none()));
    let missing = || {
        Error::not_found(format!(
            "no image for platform {}/{} in the archive",
            wanted.os, wanted.architecture
        ))
    };
    choose(spool, chosen.ok_or_else(missing)?, platform, depth + 1)
}

fn image(spool: &Spool, manifest: &Entry, platform: Option<&Platform>) -> Result<NewImage> {
    let path = blob_path(&manifest.digest);
    let text = spool.text(&path)?;
    let document = parse(text.as_bytes(), &path)?;
    let config_entry = document.config.ok_or_else(|| {
        Error::invalid(format!(
            "invalid archive: manifest {} has no config",
            manifest.digest
        ))
    })?;
    let config = spool.text(&blob_path(&config_entry.digest))?;
    let parsed = ImageConfig::parse(&config)?;
    check_platform(&parsed.platform(), platform)?;
    let layers = document.layers.unwrap_or_default();
    if layers.len() != parsed.rootfs.diff_ids.len() {
        return Err(Error::invalid(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            layers.len(),
            parsed.rootfs.diff_ids.len()
        )));
    }
    let mut found = Vec::with_capacity(layers.len());
    for (index, (layer, expected)) in layers.iter().zip(&parsed.rootfs.diff_ids).enumerate() {
        found.push(spooled(spool, index, &blob_path(&layer.digest), expected)?);
    }
    let layers = layers.into_iter().map(
        |Entry {
             media_type,
             digest,
             size,
             ..
         }| Descriptor {
            media_type,
            digest,
            size,
        },
    );
    let source = Source {
        media_type: manifest.media_type.clone(),
        manifest: text,
        layers: layers.collect(),
    };
    Ok(NewImage {
        config,
        layers: found,
        source: Some(source),
        ..NewImage::default()
    })
}
