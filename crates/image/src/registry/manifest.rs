//! Manifests, indexes and descriptors: what they look like, which of them are taken.
//!
//! Owns the JSON forms and the choice of one manifest from an index; does no I/O.
//! Source: OCI image specification v1.1 (manifest.md, image-index.md, descriptor.md) and the
//! image manifest version 2, schema 2 of the distribution project.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{Digest, Error, Result};

use super::platform::Platform;

/// Docker's image manifest, schema 2.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// OCI's image manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's image index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The configuration of docker's images.
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The configuration of OCI images.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer of a docker image: a tar archive, gzip-compressed.
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What is asked for in `Accept`, best first. Schema 1 is listed so that a registry that has
/// nothing newer sends it and the refusal can say why.
pub(crate) const ACCEPT: [&str; 5] = [
    DOCKER_MANIFEST,
    DOCKER_LIST,
    OCI_MANIFEST,
    OCI_INDEX,
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Points to content by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
    /// Where else it can be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the manifest runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of `content`.
    pub(crate) fn of(media_type: &str, content: &[u8]) -> Self {
        Self::new(media_type, Digest::of(content), content.len() as u64)
    }
    /// A descriptor of content whose digest and size (bytes) are known.
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            size,
            digest,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

/// An image manifest of docker's or OCI's form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; OCI leaves it out at times.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image's configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// A docker schema 2 manifest, or an OCI one when a layer is compressed with zstd, which
    /// docker's has no name for.
    pub(crate) fn for_layers(mut config: Descriptor, layers: &[Descriptor]) -> Self {
        let oci = layers
            .iter()
            .any(|layer| layer.media_type.ends_with("+zstd"));
        config.media_type = if oci { OCI_CONFIG } else { DOCKER_CONFIG }.into();
        let layers = layers.iter().map(|layer| {
            let media_type = layer_type(&layer.media_type, oci);
            Descriptor::new(media_type, layer.digest.clone(), layer.size)
        });
        let media_type = if oci { OCI_MANIFEST } else { DOCKER_MANIFEST };
        Self {
            schema_version: 2,
            media_type: media_type.into(),
            config,
            layers: layers.collect(),
        }
    }

    /// The bytes that are pushed: indented by three spaces, as every docker client does, so
    /// that the same content gets the same digest.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"   ");
        self.serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, formatter,
        ))
        .map_err(|source| Error::wrap("writing the image manifest", source))?;
        Ok(bytes)
    }
}

/// The name of a layer's form in a manifest of docker's or OCI's kind.
fn layer_type(media_type: &str, oci: bool) -> &'static str {
    let plain = media_type.ends_with(".tar");
    match (oci, plain) {
        (true, _) if media_type.ends_with("+zstd") => "application/vnd.oci.image.layer.v1.tar+zstd",
        (true, true) => "application/vnd.oci.image.layer.v1.tar",
        (true, false) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (false, true) => "application/vnd.docker.image.rootfs.diff.tar",
        (false, false) => DOCKER_LAYER,
    }
}

/// A manifest list or OCI index.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Index {
    /// The manifests, one per platform.
    pub(crate) manifests: Vec<Descriptor>,
}

impl Index {
    /// The manifest that serves `wanted` best.
    pub(crate) fn select(&self, wanted: &Platform) -> Result<&Descriptor> {
        // An entry that names no platform fits every machine, but any that does is better.
        let rank = |entry: &Descriptor| match &entry.platform {
            Some(platform) => wanted.rank(platform),
            None if is_index_or_manifest(&entry.media_type) => Some(usize::MAX),
            None => None,
        };
        let ranked = self
            .manifests
            .iter()
            .filter_map(|entry| rank(entry).map(|rank| (rank, entry)));
        ranked
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
            .ok_or_else(|| {
                Error::not_found(format!(
                    "no matching manifest for {wanted} in the manifest list entries"
                ))
            })
    }
}

fn is_index_or_manifest(media_type: &str) -> bool {
    matches!(
        media_type,
        DOCKER_MANIFEST | DOCKER_LIST | OCI_MANIFEST | OCI_INDEX
    )
}

/// What a reference resolved to.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    /// One image.
    Image(Box<Manifest>),
    /// One image per platform.
    Index(Index),
}

/// Fields that decide what a document is, before it is read in full.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// Reads a document of `name`, served as `content_type`; gives its media type too.
pub(crate) fn parse(name: &str, content_type: &str, bytes: &[u8]) -> Result<(String, Document)> {
    let bad =
        |source: serde_json::Error| Error::invalid(format!("invalid manifest of {name}: {source}"));
    let probe: Probe = serde_json::from_slice(bytes).map_err(bad)?;
    if probe.schema_version == 1 || content_type.contains("docker.distribution.manifest.v1") {
        return Err(Error::not_implemented(format!(
            "{name} is only there in docker image manifest version 2, schema 1, which is not supported any more: push it again with a current docker to have it in schema 2 or OCI form"
        )));
    }
    // One document that can be read as an image and as an index means two things to two
    // readers (GHSA-mc8v-mgrf-8f4m).
    if probe.manifests.is_some() && (probe.layers.is_some() || probe.config.is_some()) {
        return Err(Error::invalid(format!(
            "invalid manifest of {name}: both an image and an index"
        )));
    }
    let stated = probe.media_type.unwrap_or_else(|| content_type.to_owned());
    let media_type = match stated.as_str() {
        known if is_index_or_manifest(known) => stated,
        "" | "application/json" | "text/plain" | "application/octet-stream"
            if probe.manifests.is_some() =>
        {
            OCI_INDEX.into()
        }
        "" | "application/json" | "text/plain" | "application/octet-stream" => OCI_MANIFEST.into(),
        other => {
            return Err(Error::invalid(format!(
                "unsupported manifest media type of {name}: {other}"
            )));
        }
    };
    let document = match media_type.as_str() {
        DOCKER_LIST | OCI_INDEX => Document::Index(serde_json::from_slice(bytes).map_err(bad)?),
        _ => Document::Image(Box::new(serde_json::from_slice(bytes).map_err(bad)?)),
    };
    Ok((media_type, document))
}

/// Refuses manifests that carry something else than a container image.
pub(crate) fn check_config_type(name: &str, media_type: &str) -> Result<()> {
    match media_type {
        // The last two come from old registries that label every blob so.
        DOCKER_CONFIG | OCI_CONFIG | "application/octet-stream" | "" => Ok(()),
        other => Err(Error::invalid(format!(
            "{name} is not a container image: unsupported media type {other}"
        ))),
    }
}

/// What of an image's configuration a pull has to know.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ConfigFacts {
    /// What the image runs on.
    #[serde(flatten)]
    pub(crate) platform: Platform,
    /// The layers' content.
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

/// The layers as the configuration names them.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    /// The digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "none_is_empty")]
    pub(crate) diff_ids: Vec<Digest>,
}

/// An image without layers may say `null`.
fn none_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Digest>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl ConfigFacts {
    /// Reads the configuration of `name`.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes)
            .map_err(|source| Error::invalid(format!("invalid configuration of {name}: {source}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(os: &str, architecture: &str, variant: &str) -> Descriptor {
        let content = format!("{os}{architecture}{variant}");
        Descriptor {
            platform: Some(Platform::new(os, architecture, variant)),
            ..Descriptor::of(OCI_MANIFEST, content.as_bytes())
        }
    }

    #[test]
    fn selection() {
        let index = Index {
            manifests: vec![
                entry("linux", "arm", "v6"),
                entry("linux", "arm", "v7"),
                entry("linux", "amd64", ""),
                entry("unknown", "unknown", ""),
            ],
        };
        let select = |text: &str| {
            index
                .select(&text.parse().unwrap())
                .map(|one| one.platform.clone().unwrap().to_string())
        };
        assert_eq!(select("linux/amd64").unwrap(), "linux/amd64");
        assert_eq!(select("linux/arm64").unwrap(), "linux/arm/v7");
        assert_eq!(select("linux/arm/v6").unwrap(), "linux/arm/v6");
        let error = select("linux/s390x").unwrap_err();
        assert_eq!(
            error.message,
            "no matching manifest for linux/s390x in the manifest list entries"
        );
    }

    #[test]
    fn refused() {
        let says = |text: &str, kind: &str| parse("x", kind, text.as_bytes()).unwrap_err().message;
        assert!(says(r#"{"schemaVersion":1}"#, "").contains("schema 1"));
        assert!(says(r#"{"manifests":[],"layers":[]}"#, OCI_INDEX).contains("both"));
        assert!(says(r#"{}"#, "text/html").contains("text/html"));
        assert!(says("[", "").contains("invalid manifest"));
        assert!(check_config_type("x", "application/vnd.cncf.helm.config.v1+json").is_err());
    }
}
