//! Docker archives: `manifest.json` (Docker image specification v1.2).

use serde::Deserialize;
use types::{
    Digest, Error, Reference, Result,
    image::{ImageConfig, NewImage, Platform},
};

use super::{check_platform, spool::Spool, spooled};

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

/// The images of the archive.
pub(super) fn plan(
    spool: &Spool,
    manifest: &[u8],
    platform: Option<&Platform>,
) -> Result<Vec<NewImage>> {
    let items: Vec<Item> = serde_json::from_slice(manifest)
        .map_err(|source| Error::invalid(format!("invalid archive: manifest.json: {source}")))?;
    items
        .iter()
        .map(|item| image(spool, item, platform))
        .collect()
}

fn image(spool: &Spool, item: &Item, platform: Option<&Platform>) -> Result<NewImage> {
    let config = spool.text(&item.config)?;
    let parsed = ImageConfig::parse(&config)?;
    check_platform(&parsed.platform(), platform)?;
    let layers = item.layers.as_deref().unwrap_or_default();
    if layers.len() != parsed.rootfs.diff_ids.len() {
        return Err(Error::invalid(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            layers.len(),
            parsed.rootfs.diff_ids.len()
        )));
    }
    let mut found = Vec::with_capacity(layers.len());
    for (index, (path, expected)) in layers.iter().zip(&parsed.rootfs.diff_ids).enumerate() {
        found.push(spooled(spool, index, path, expected)?);
    }
    let references = item
        .repo_tags
        .iter()
        .flatten()
        .map(|tag| tag.parse::<Reference>().map(Reference::or_latest));
    Ok(NewImage {
        config,
        layers: found,
        parent: item
            .parent
            .as_ref()
            .and_then(|parent| parent.parse::<Digest>().ok()),
        references: references.collect::<Result<_>>()?,
        ..NewImage::default()
    })
}
