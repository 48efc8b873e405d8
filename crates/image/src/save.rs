//! `docker save`: an archive that is an OCI image layout and a docker archive in one, as
//! docker 25 and later write it. The same images give the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio::io::AsyncWrite;
use tokio_util::io::SyncIoBridge;
use types::{Digest, Error, Namespace, Reference, Result, error::ResultExt as _};

use crate::{
    layers::{LayerMeta, LayerStore},
    record::Image,
    remove::chain_ids,
    store::{ImageStore, blocking},
    tar::{Header, Kind, Writer},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image to save and the tags that go with it.
struct Chosen {
    image: Arc<Image>,
    tags: BTreeSet<Reference>,
}

/// A file below `blobs/sha256`.
enum Blob {
    Bytes(Vec<u8>),
    Layer(LayerMeta),
}

impl ImageStore {
    /// Writes images as an archive that is a docker archive and an OCI layout in one. A name
    /// without a tag stands for all tags of its repository, an id for the bare image.
    pub async fn save(
        &self,
        ns: &Namespace,
        names: &[String],
        to: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<()> {
        let chosen = self.choose(ns, names).await?;
        let (to, layers) = (SyncIoBridge::new(to), self.layers.clone());
        blocking(move || write(&layers, &chosen, to)).await
    }

    /// What the names mean, in their order.
    async fn choose(&self, ns: &Namespace, names: &[String]) -> Result<Vec<Chosen>> {
        if names.is_empty() {
            return Err(Error::invalid("no images given to save"));
        }
        let index = self.index(ns).await?;
        let mut chosen: Vec<Chosen> = Vec::new();
        let mut add = |image: Arc<Image>, tag: Option<Reference>| match chosen
            .iter_mut()
            .find(|known| known.image.id == image.id)
        {
            Some(known) => known.tags.extend(tag),
            None => chosen.push(Chosen {
                image,
                tags: tag.into_iter().collect(),
            }),
        };
        for name in names {
            let reference = name.parse::<Reference>().ok();
            let bare = reference
                .as_ref()
                .filter(|reference| reference.tag().is_none() && reference.digest().is_none());
            let of_repository: Vec<_> = index
                .references
                .iter()
                .filter(|(known, _)| {
                    known.digest().is_none() && bare.is_some_and(|bare| bare.name() == known.name())
                })
                .filter_map(|(known, id)| Some((known.clone(), index.images.get(id)?.clone())))
                .collect();
            if !of_repository.is_empty() {
                of_repository
                    .into_iter()
                    .for_each(|(tag, image)| add(image, Some(tag)));
                continue;
            }
            let image = index.resolve(name)?;
            let by_tag = reference
                .filter(|reference| index.references.iter().any(|(known, _)| known == reference));
            add(
                image,
                by_tag.filter(|reference| reference.digest().is_none()),
            );
        }
        Ok(chosen)
    }
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
    fn add(&mut self, layers: &LayerStore, Chosen { image, tags }: &Chosen) -> Result<()> {
        let metas = image
            .layers
            .iter()
            .map(|layer| layers.meta(&layer.diff_id))
            .collect::<Result<Vec<_>>>()?;
        let descriptors: Vec<Value> = metas
            .iter()
            .map(|meta| json!({"mediaType": LAYER, "digest": meta.diff_id, "size": meta.tar_size}))
            .collect();
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": image.id, "size": image.raw_config.len()},
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
            if let (Some(top), Some(tag_name)) = (chain_ids(&image.diff_ids()).pop(), tag.tag()) {
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
            Blob::Bytes(image.raw_config.clone().into_bytes()),
        );
        self.blobs.insert(path(&digest), Blob::Bytes(manifest));
        for meta in metas {
            self.blobs.insert(path(&meta.diff_id), Blob::Layer(meta));
        }
        Ok(())
    }
}

fn write(layers: &Arc<LayerStore>, chosen: &[Chosen], to: impl Write) -> Result<()> {
    // Nothing goes while it is read.
    let guards: Vec<_> = chosen
        .iter()
        .flat_map(|one| &one.image.layers)
        .map(|layer| layers.pin(&layer.diff_id))
        .collect();
    let mut contents = Contents::default();
    for one in chosen {
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
