//! The records: images, tags, and which layers they need.
//!
//! Records live in the cluster's store under `ns/<namespace>/images/` and
//! `ns/<namespace>/tags/`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use store::{Entry, Guard, Revision, Store, Txn};
use types::{
    Digest, Error, Namespace, Reference, Result, Time,
    image::{ImageConfig, NewImage, PushedImage},
    record,
};

use crate::record::{Image, ImageRecord, References, TagRecord};

/// Parsed images by their key, with the revision they were read at.
type Cache = Arc<Mutex<HashMap<String, (Revision, Arc<Image>)>>>;

/// Aliases that are kept of an image.
const ALIASES: usize = 16;

/// The images of all namespaces, as the cluster's store has them. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    pub(crate) store: Arc<dyn Store>,
    cache: Cache,
}

/// All images and references of a namespace at one time.
pub struct Index {
    pub images: HashMap<Digest, Arc<Image>>,
    pub references: Vec<(Reference, Digest)>,
}

impl Index {
    /// What points at `id`.
    pub fn references_of(&self, id: &Digest) -> References {
        let mut found = References::default();
        for (reference, _) in self.references.iter().filter(|(_, image)| image == id) {
            let list = if reference.digest().is_some() {
                &mut found.digests
            } else {
                &mut found.tags
            };
            list.push(reference.clone());
        }
        found
    }

    /// The image that `name` means: a reference first, then an id or its first digits.
    pub fn resolve(&self, name: &str) -> Result<Arc<Image>> {
        if let Ok(id) = name.parse::<Digest>() {
            return self
                .images
                .get(&id)
                .cloned()
                .ok_or_else(|| Error::not_found(format!("No such image: {name}")));
        }
        let is_id = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let reference = if is_id {
            None
        } else {
            Some(name.parse::<Reference>()?.or_latest())
        };
        if let Some(reference) = &reference {
            // A digest says it exactly; the tag beside it may have moved on.
            let wanted = match reference.digest() {
                Some(digest) => reference.with_digest(digest.clone()),
                None => reference.clone(),
            };
            if let Some((_, id)) = self.references.iter().find(|(known, _)| *known == wanted)
                && let Some(image) = self.images.get(id)
            {
                return Ok(image.clone());
            }
        }
        let shown = reference.map_or_else(|| name.to_owned(), |reference| reference.familiar());
        let missing = || Error::not_found(format!("No such image: {shown}"));
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut matching = self
            .images
            .iter()
            .filter(|(id, _)| id.hex().starts_with(digits));
        match (matching.next(), matching.next()) {
            (Some((_, image)), None) => Ok(image.clone()),
            // docker, too, takes an ambiguous prefix for none.
            _ => Err(missing()),
        }
    }
}

pub(crate) fn image_key(ns: &Namespace, id: &Digest) -> String {
    format!("ns/{ns}/images/{}", id.hex())
}

pub(crate) fn tag_key(ns: &Namespace, reference: &Reference) -> String {
    format!("ns/{ns}/tags/{reference}")
}

impl Catalog {
    /// The images in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            cache: Arc::default(),
        }
    }

    fn image_of(&self, entry: &Entry) -> Result<Arc<Image>> {
        let cached = |cache: &Cache| {
            let cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache
                .get(&entry.key)
                .filter(|(revision, _)| *revision == entry.modified)
                .map(|(_, image)| image.clone())
        };
        if let Some(image) = cached(&self.cache) {
            return Ok(image);
        }
        let ImageRecord {
            config: raw_config,
            layers,
            parent,
            last_tagged,
            source,
            aliases,
        } = record::decode(&entry.value)?;
        let id = Digest::of(raw_config.as_bytes());
        let config = ImageConfig::parse(&raw_config)?;
        let image = Arc::new(Image {
            id,
            raw_config,
            config,
            layers,
            parent,
            last_tagged,
            source,
            aliases,
        });
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(entry.key.clone(), (entry.modified, image.clone()));
        Ok(image)
    }

    /// Everything in the namespace.
    pub async fn index(&self, ns: &Namespace) -> Result<Index> {
        // Tags first: an image is recorded with its tags at once, so each tag's image is found.
        let tags = self.store.list(&format!("ns/{ns}/tags/")).await?;
        let images = self.store.list(&format!("ns/{ns}/images/")).await?;
        let skip = format!("ns/{ns}/tags/").len();
        let mut references = Vec::with_capacity(tags.entries.len());
        for entry in &tags.entries {
            references.push((
                entry.key[skip..].parse::<Reference>()?,
                record::decode::<TagRecord>(&entry.value)?.image,
            ));
        }
        references.sort();
        let mut by_id = HashMap::with_capacity(images.entries.len());
        for entry in &images.entries {
            let image = self.image_of(entry)?;
            by_id.insert(image.id.clone(), image);
        }
        self.forget_removed(ns, &by_id);
        Ok(Index {
            images: by_id,
            references,
        })
    }

    /// Drops cached images of the namespace that are gone.
    fn forget_removed(&self, ns: &Namespace, images: &HashMap<Digest, Arc<Image>>) {
        let prefix = format!("ns/{ns}/images/");
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|key, (_, image)| !key.starts_with(&prefix) || images.contains_key(&image.id));
    }

    /// The image that `name` means: a reference, an id, or the first digits of one.
    pub async fn resolve(&self, ns: &Namespace, name: &str) -> Result<Arc<Image>> {
        self.index(ns).await?.resolve(name)
    }

    /// The image with this id.
    pub async fn get(&self, ns: &Namespace, id: &Digest) -> Result<Arc<Image>> {
        match self.store.get(&image_key(ns, id)).await? {
            Some(entry) => self.image_of(&entry),
            None => Err(Error::not_found(format!("No such image: {id}"))),
        }
    }

    /// All images with their references, newest first.
    pub async fn list(&self, ns: &Namespace) -> Result<Vec<(Arc<Image>, References)>> {
        let index = self.index(ns).await?;
        let mut all: Vec<_> = index
            .images
            .values()
            .map(|image| (image.clone(), index.references_of(&image.id)))
            .collect();
        all.sort_by(|(a, _), (b, _)| {
            b.config
                .created
                .cmp(&a.config.created)
                .then_with(|| a.id.cmp(&b.id))
        });
        Ok(all)
    }

    /// What points at an image.
    pub async fn references(&self, ns: &Namespace, id: &Digest) -> Result<References> {
        Ok(self.index(ns).await?.references_of(id))
    }

    /// Lets `reference` (`latest` is implied) point at image `name`.
    pub async fn tag(
        &self,
        ns: &Namespace,
        name: &str,
        reference: &Reference,
    ) -> Result<Arc<Image>> {
        let reference = reference.clone().or_latest();
        if reference.digest().is_some() {
            return Err(Error::invalid(
                "refusing to create a tag with a digest reference",
            ));
        }
        if reference.familiar_name() == "sha256" {
            return Err(Error::invalid(
                "refusing to create an ambiguous tag using digest algorithm as name",
            ));
        }
        let image = self.resolve(ns, name).await?;
        self.point(ns, &image, &[reference]).await?;
        self.get(ns, &image.id).await
    }

    /// Writes references to an image that exists, as long as it does.
    async fn point(&self, ns: &Namespace, image: &Image, references: &[Reference]) -> Result<()> {
        let record = ImageRecord {
            config: image.raw_config.clone(),
            layers: image.layers.clone(),
            parent: image.parent.clone(),
            last_tagged: Time::now(),
            source: image.source.clone(),
            aliases: image.aliases.clone(),
        };
        let mut txn = self
            .put_references(ns, &image.id, references)?
            .when(Guard::Present(image_key(ns, &image.id)));
        txn = txn.put(image_key(ns, &image.id), record::encode(&record)?);
        match self.store.commit(txn).await {
            Err(store::Error::Conflict { .. }) => {
                Err(Error::not_found(format!("No such image: {}", image.id)))
            }
            other => Ok(other.map(drop)?),
        }
    }

    fn put_references(&self, ns: &Namespace, id: &Digest, references: &[Reference]) -> Result<Txn> {
        references.iter().try_fold(Txn::new(), |txn, reference| {
            let value = record::encode(&TagRecord { image: id.clone() })?;
            Ok(txn.put(tag_key(ns, &reference.clone().or_latest()), value))
        })
    }

    /// Records an image and its references. Idempotent. The caller keeps the layers on their
    /// node until this returns.
    ///
    /// Fails when the configuration is bad or its layers are not those of the image.
    pub async fn record(&self, ns: &Namespace, image: NewImage) -> Result<Arc<Image>> {
        let config = ImageConfig::parse(&image.config)?;
        let id = Digest::of(image.config.as_bytes());
        let given = image.layers.iter().map(|layer| &layer.diff_id);
        if !given.eq(&config.rootfs.diff_ids) {
            return Err(Error::invalid(format!(
                "the layers of image {id} are not those of its configuration"
            )));
        }
        let key = image_key(ns, &id);
        let before = match self.store.get(&key).await? {
            Some(entry) => Some(record::decode::<ImageRecord>(&entry.value)?),
            None => None,
        };
        let tagged = image
            .references
            .iter()
            .any(|reference| reference.digest().is_none());
        let (parent, last_tagged, source, mut aliases) = before
            .map(|record| {
                (
                    record.parent,
                    record.last_tagged,
                    record.source,
                    record.aliases,
                )
            })
            .unwrap_or_default();
        if let Some(alias) = image.alias.filter(|alias| *alias != id) {
            aliases.retain(|one| *one != alias);
            aliases.push(alias);
            aliases.drain(..aliases.len().saturating_sub(ALIASES));
        }
        let record = ImageRecord {
            config: image.config,
            layers: image.layers,
            parent: image.parent.or(parent),
            last_tagged: if tagged { Time::now() } else { last_tagged },
            source: image.source.or(source),
            aliases,
        };
        let txn = self
            .put_references(ns, &id, &image.references)?
            .put(key, record::encode(&record)?);
        self.store.commit(txn).await?;
        self.get(ns, &id).await
    }

    /// Remembers what a registry has now. An image that was removed meanwhile stays so.
    pub async fn record_push(&self, ns: &Namespace, pushed: PushedImage) -> Result<()> {
        let key = image_key(ns, &pushed.id);
        // Again when the record was changed between look and write.
        loop {
            let Some(entry) = self.store.get(&key).await? else {
                return Ok(());
            };
            let mut record = record::decode::<ImageRecord>(&entry.value)?;
            record.source = pushed.source.clone().or(record.source);
            let txn = self
                .put_references(ns, &pushed.id, std::slice::from_ref(&pushed.reference))?
                .when(Guard::Unchanged(key.clone(), entry.modified))
                .put(key.clone(), record::encode(&record)?);
            match self.store.commit(txn).await {
                Err(store::Error::Conflict { .. }) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// The layers that the images of all namespaces need.
    pub async fn needed_layers(&self) -> Result<HashSet<Digest>> {
        let mut needed = HashSet::new();
        for entry in self.store.list("ns/").await?.entries {
            let is_image = entry.key.split('/').nth(2) == Some("images");
            if is_image {
                let record = record::decode::<ImageRecord>(&entry.value)?;
                needed.extend(record.layers.into_iter().map(|layer| layer.diff_id));
            }
        }
        Ok(needed)
    }
}
