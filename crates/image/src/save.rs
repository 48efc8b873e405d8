//! `docker save`: an archive that is an OCI image layout and a docker archive in one, as
//! docker 25 and later write it. The same images give the same bytes.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write},
    sync::Arc,
};

use serde_json::{Value, json};
use types::{
    Digest, Reference, Result,
    error::ResultExt as _,
    image::{SaveImage, chain_ids},
};

use crate::{
    layers::{LayerMeta, LayerStore},
    tar::{Header, Kind, Writer},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A file below `blobs/sha256`.
enum Blob {
    Bytes(Vec<u8>),
    Layer(LayerMeta),
}

/// Everything of the archive but the layers' content.
#[derive(Default)]
struct Contents {
    blobs: BTreeMap<String, Blob>,
    index: Vec<Value>,
    manifest: Vec<Value>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).during(|| "encoding a manifest")
}

impl Contents {
    fn add(&mut self, layers: &LayerStore, image: &SaveImage) -> Result<()> {
        let tags = &image.tags;
        let metas = image
            .layers
            .iter()
            .map(|diff_id| layers.meta(diff_id))
            .collect::<Result<Vec<_>>>()?;
        let descriptors: Vec<Value> = metas
            .iter()
            .map(|meta| json!({"mediaType": LAYER, "digest": meta.diff_id, "size": meta.tar_size}))
            .collect();
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": image.id, "size": image.config.len()},
            "layers": descriptors,
        }))?;
        let digest = Digest::of(&manifest);
        let entry = json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len()});
        if tags.is_empty() {
            self.index.push(entry.clone());
        }
        for tag in tags {
            let mut entry = entry.clone();
            entry["annotations"] = json!({
                "io.containerd.image.name": tag.to_string(),
                "org.opencontainers.image.ref.name": tag.tag(),
            });
            self.index.push(entry);
            if let (Some(top), Some(tag_name)) = (chain_ids(&image.layers).pop(), tag.tag()) {
                self.repositories
                    .entry(tag.familiar_name())
                    .or_default()
                    .insert(tag_name.to_owned(), top.hex().to_owned());
            }
        }
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let sources: BTreeMap<&str, &Value> = metas
            .iter()
            .map(|meta| meta.diff_id.as_str())
            .zip(&descriptors)
            .collect();
        let repo_tags: Option<Vec<String>> =
            (!tags.is_empty()).then(|| tags.iter().map(Reference::familiar).collect());
        self.manifest.push(json!({
            "Config": path(&image.id),
            "RepoTags": repo_tags,
            "Layers": metas.iter().map(|meta| path(&meta.diff_id)).collect::<Vec<_>>(),
            "LayerSources": sources,
        }));
        self.blobs.insert(
            path(&image.id),
            Blob::Bytes(image.config.clone().into_bytes()),
        );
        self.blobs.insert(path(&digest), Blob::Bytes(manifest));
        for meta in metas {
            self.blobs.insert(path(&meta.diff_id), Blob::Layer(meta));
        }
        Ok(())
    }
}

/// Writes images as an archive that is a docker archive and an OCI layout in one. Blocking.
pub fn save(layers: &Arc<LayerStore>, images: &[SaveImage], to: impl Write) -> Result<()> {
    // Nothing goes while it is read.
    let guards: Vec<_> = images
        .iter()
        .flat_map(|one| &one.layers)
        .map(|diff_id| layers.pin(diff_id))
        .collect();
    let mut contents = Contents::default();
    for one in images {
        contents.add(layers, one)?;
    }
    let mut tar = Writer::new(io::BufWriter::with_capacity(256 * 1024, to));
    let saving = || "saving images";
    for dir in ["blobs/", "blobs/sha256/"] {
        tar.begin(&Header::plain(dir, Kind::Directory, 0o755, 0))
            .during(saving)?;
    }
    for (path, blob) in &contents.blobs {
        match blob {
            Blob::Bytes(bytes) => file(&mut tar, path, bytes).during(saving)?,
            Blob::Layer(meta) => layer(&mut tar, path, layers, meta)?,
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": contents.index});
    file(&mut tar, "index.json", &to_bytes(&index)?).during(saving)?;
    file(
        &mut tar,
        "manifest.json",
        &to_bytes(&Value::Array(contents.manifest))?,
    )
    .during(saving)?;
    file(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).during(saving)?;
    if !contents.repositories.is_empty() {
        file(
            &mut tar,
            "repositories",
            &to_bytes(&json!(contents.repositories))?,
        )
        .during(saving)?;
    }
    tar.finish().during(saving)?;
    drop(guards);
    Ok(())
}

fn file<W: Write>(tar: &mut Writer<W>, path: &str, content: &[u8]) -> io::Result<()> {
    tar.begin(&Header::plain(
        path,
        Kind::File,
        0o644,
        content.len() as u64,
    ))?;
    tar.content(content)
}

fn layer<W: Write>(
    tar: &mut Writer<W>,
    path: &str,
    layers: &Arc<LayerStore>,
    meta: &LayerMeta,
) -> Result<()> {
    let saving = || format!("saving layer {}", meta.diff_id);
    tar.begin(&Header::plain(path, Kind::File, 0o644, meta.tar_size))
        .during(saving)?;
    let mut stream = layers.tar_stream(&meta.diff_id)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = stream.read(&mut buffer).during(saving)?;
        if count == 0 {
            return Ok(());
        }
        tar.content(&buffer[..count]).during(saving)?;
    }
}
