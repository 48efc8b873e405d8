//! What a save or a push consists of.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use types::{
    Digest, Error, Namespace, Reference, Result,
    image::{KnownBlob, PushImage, PushLayer, SaveImage},
};

use crate::{
    catalog::{Catalog, Index},
    record::Image,
};

impl Catalog {
    /// The images that `names` mean, in their order. A name without a tag stands for all tags
    /// of its repository, an id for the bare image.
    pub async fn to_save(&self, ns: &Namespace, names: &[String]) -> Result<Vec<SaveImage>> {
        if names.is_empty() {
            return Err(Error::invalid("no images given to save"));
        }
        let index = self.index(ns).await?;
        let mut chosen: Vec<SaveImage> = Vec::new();
        let mut add = |image: Arc<Image>, tag: Option<Reference>| match chosen
            .iter_mut()
            .find(|known| known.id == image.id)
        {
            Some(known) => known.tags.extend(tag),
            None => chosen.push(SaveImage {
                id: image.id.clone(),
                config: image.raw_config.clone(),
                layers: image.diff_ids(),
                tags: BTreeSet::from_iter(tag),
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

    /// The images to push to the repository of `repository`: one tag (`latest` is implied), or
    /// with `all_tags` every one that is here.
    pub async fn to_push(
        &self,
        ns: &Namespace,
        repository: &Reference,
        all_tags: bool,
    ) -> Result<Vec<PushImage>> {
        if repository.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let index = self.index(ns).await?;
        let known = known_blobs(&index);
        let image = |(reference, image): (Reference, Arc<Image>)| PushImage {
            reference,
            config: image.raw_config.clone(),
            layers: image
                .diff_ids()
                .into_iter()
                .map(|diff_id| PushLayer {
                    known: known.get(&diff_id).cloned().unwrap_or_default(),
                    diff_id,
                })
                .collect(),
            source: image.source.clone(),
        };
        let wanted = wanted(&index, repository, all_tags)?;
        Ok(wanted.into_iter().map(image).collect())
    }
}

/// The references to push and their images.
fn wanted(
    index: &Index,
    repository: &Reference,
    all_tags: bool,
) -> Result<Vec<(Reference, Arc<Image>)>> {
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
        .filter(|(reference, _)| all_tags || *reference == one)
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
                blob: blob.clone(),
            };
            let list = known.entry(layer.diff_id.clone()).or_default();
            if !list.contains(&blob) {
                list.push(blob);
            }
        }
    }
    known
}
