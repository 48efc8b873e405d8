//! `kra push`: images that come as what is new in them.
//!
//! Whoever pushes uses chunks that lie in layers of its own images, and chunks that it has sent;
//! of all others it does not learn whether they are there. A layer that has been put together is
//! held for its namespace until an image has it, at most a day.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use agent::{Reader, images::PushSources};
use catalog::{Image, Index};
use types::{
    Digest, Error, Namespace, Result,
    image::{ImageConfig, LayerRef, NewImage},
    native::{
        PushBegin, PushCommit, PushImage, PushNeeds, PushPlan, PushReceived, PushedImage,
        PushedLayer,
    },
};

use crate::{Engine, Scope, library::Held};

/// How long a layer without an image is held.
const HELD: Duration = Duration::from_secs(24 * 3600);
/// Bytes that a namespace may have sent and not put into an image, where no quota says less.
const ROOM: u64 = 64 << 30;
/// Layers that a push is told of as bases, at the most: each costs a list of its chunks.
const BASES: usize = 16;

/// Layers that were pushed and that no image has yet.
#[derive(Default)]
pub(crate) struct Table(Mutex<Pushes>);

#[derive(Default)]
struct Pushes {
    brought: HashMap<(Namespace, Digest), Brought>,
    /// Pushes that a quota has refused, and when: what of them is still on its way goes, too.
    refused: HashMap<(Namespace, String), Instant>,
}

struct Brought {
    layer: LayerRef,
    held: Held,
    at: Instant,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Pushes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, ns: &Namespace, layer: &Digest) -> Option<LayerRef> {
        let table = self.lock();
        let found = table.brought.get(&(ns.clone(), layer.clone()))?;
        Some(found.layer.clone())
    }

    /// The layers that a namespace has pushed and not used.
    fn of(&self, ns: &Namespace) -> HashSet<Digest> {
        let table = self.lock();
        let own = table.brought.keys().filter(|(of, _)| of == ns);
        own.map(|(_, layer)| layer.clone()).collect()
    }

    /// Takes out what matches.
    fn take(&self, goes: impl Fn(&(Namespace, Digest), &Brought) -> bool) -> Vec<(Digest, Held)> {
        let mut table = self.lock();
        let gone = table.brought.extract_if(|key, brought| goes(key, brought));
        gone.map(|((_, layer), brought)| (layer, brought.held))
            .collect()
    }

    /// A layer is there; gives it back when its push has been refused meanwhile.
    fn put(&self, ns: &Namespace, session: &str, brought: Brought) -> Option<Brought> {
        let mut table = self.lock();
        if table
            .refused
            .contains_key(&(ns.clone(), session.to_owned()))
        {
            return Some(brought);
        }
        let key = (ns.clone(), brought.layer.diff_id.clone());
        table.brought.insert(key, brought);
        None
    }

    /// Of a namespace the latest few are remembered: names of pushes are what the sender says.
    fn refuse(&self, ns: &Namespace, session: &str) {
        const MOST: usize = 64;
        let mut table = self.lock();
        let refused = &mut table.refused;
        refused.insert((ns.clone(), session.to_owned()), Instant::now());
        let own = || refused.iter().filter(|((of, _), _)| of == ns);
        if own().count() > MOST {
            let oldest = own().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            oldest.and_then(|key| refused.remove(&key));
        }
    }

    fn is_refused(&self, ns: &Namespace, session: &str) -> bool {
        let key = (ns.clone(), session.to_owned());
        self.lock().refused.contains_key(&key)
    }

    fn forget_refused(&self) {
        let mut table = self.lock();
        table.refused.retain(|_, at| at.elapsed() < HELD);
    }
}

/// A push's name: made here, and part of file names.
fn session(text: &str) -> Result<&str> {
    let fine = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fine {
        Ok(text)
    } else {
        Err(Error::invalid(format!(
            "invalid session {text:?}: begin the push anew"
        )))
    }
}

fn refused() -> Error {
    Error::forbidden("another part of this push was more than there is room for")
}

/// Whether a quota was in the way.
fn is_too_much<T>(outcome: &Result<T>) -> bool {
    matches!(outcome, Err(error) if error.kind == types::Kind::Forbidden)
}

impl Engine {
    /// Begins a push.
    pub async fn push_begin(&self, scope: &Scope, wanted: &PushBegin) -> Result<PushPlan> {
        let ns = &scope.namespace;
        let index = self.catalog.index(ns).await?;
        let own = self.images.layers_of(ns).await?;
        let mut images = Vec::new();
        let mut needed: HashSet<&Digest> = HashSet::new();
        for image in &wanted.images {
            let known = known_image(&index, image);
            let missing: Vec<Digest> = image
                .layers
                .iter()
                .filter(|layer| {
                    known.is_none() && !own.contains(layer) && self.pushes.get(ns, layer).is_none()
                })
                .cloned()
                .collect();
            needed.extend(&image.layers);
            images.push(PushNeeds {
                known: known.is_some(),
                id: known.map(|image| image.id.clone()),
                missing,
            });
        }
        let mut bases = Vec::new();
        for (image, needs) in wanted.images.iter().zip(&images) {
            if needs.missing.is_empty() {
                continue;
            }
            // What the tag points at now, else the newest of the repository.
            let name = image.reference.name();
            let of_repository = index
                .references
                .iter()
                .filter(|(one, _)| one.name() == name);
            let newest = of_repository
                .filter_map(|(reference, id)| Some((reference, index.images.get(id)?)))
                .max_by_key(|(reference, image_there)| {
                    (**reference == image.reference, image_there.last_tagged)
                });
            let layers = newest.iter().flat_map(|(_, image)| &image.layers);
            for layer in layers.map(|layer| &layer.diff_id) {
                // One that stays as it is has little in common with one that changed.
                if !needed.contains(layer) && !bases.contains(layer) && bases.len() < BASES {
                    bases.push(layer.clone());
                }
            }
        }
        Ok(PushPlan {
            session: types::id::random_hex()[..32].to_owned(),
            images,
            bases,
        })
    }

    /// Fails unless all of these are layers of the namespace's images.
    async fn must_be_own(&self, ns: &Namespace, layers: &[Digest]) -> Result<HashSet<Digest>> {
        let own = self.images.layers_of(ns).await?;
        match layers.iter().find(|layer| !own.contains(layer)) {
            Some(missing) => Err(Error::conflict(format!(
                "layer {missing} is in no image any more: begin the push anew"
            ))),
            None => Ok(own),
        }
    }

    /// The starts of the hashes of the chunks of one's own layers.
    pub async fn push_prefixes(&self, scope: &Scope, bases: &[Digest]) -> Result<Vec<u8>> {
        self.must_be_own(&scope.namespace, bases).await?;
        self.images.node().push_prefixes(bases).await
    }

    /// Which chunks have to be sent.
    pub async fn push_missing(&self, scope: &Scope, hashes: &[u8]) -> Result<Vec<u8>> {
        let ns = &scope.namespace;
        let own: Vec<Digest> = self.images.layers_of(ns).await?.into_iter().collect();
        self.images
            .node()
            .push_missing(ns.as_str(), &own, hashes)
            .await
    }

    /// Takes chunks.
    pub async fn push_receive(
        &self,
        scope: &Scope,
        name: &str,
        chunks: Reader,
    ) -> Result<PushReceived> {
        let ns = &scope.namespace;
        let room = self.images.room(ns).await?.unwrap_or(ROOM);
        let (node, name) = (self.images.node(), session(name)?);
        if self.pushes.is_refused(ns, name) {
            return Err(refused());
        }
        let received = node.push_receive(ns.as_str(), name, chunks, room).await;
        if is_too_much(&received) {
            self.push_refused(ns, name).await?;
        }
        received
    }

    /// Puts a layer together.
    pub async fn push_layer(
        &self,
        scope: &Scope,
        name: &str,
        diff_id: &Digest,
        bases: Vec<Digest>,
        recipe: Reader,
    ) -> Result<PushedLayer> {
        let (ns, name) = (&scope.namespace, session(name)?);
        let mut own = self.must_be_own(ns, &bases).await?;
        own.retain(|layer| !bases.contains(layer));
        let sources = PushSources {
            space: ns.to_string(),
            bases,
            own: own.into_iter().collect(),
        };
        let brought = self.pushes.of(ns);
        let allowance = self.images.allowance_with(ns, brought).await?;
        let made = self
            .images
            .node()
            .push_layer(&sources, diff_id, recipe, allowance)
            .await;
        if is_too_much(&made) {
            self.push_refused(ns, name).await?;
        }
        let made = made?;
        let layer = made.layer.clone();
        let brought = Brought {
            layer: layer.clone(),
            held: self.images.held(made.hold),
            at: Instant::now(),
        };
        if let Some(gone) = self.pushes.put(ns, name, brought) {
            let diff_id = layer.diff_id.clone();
            self.drop_brought(vec![(diff_id, gone.held)]).await;
            return Err(refused());
        }
        Ok(PushedLayer {
            layer: layer.diff_id,
            size: layer.size,
        })
    }

    /// Records a pushed image, or tags one that is there.
    pub async fn push_commit(&self, scope: &Scope, wanted: PushCommit) -> Result<PushedImage> {
        let ns = &scope.namespace;
        let name = session(&wanted.session)?.to_owned();
        let PushCommit {
            reference,
            id,
            config,
            alias,
            ..
        } = wanted;
        let index = self.catalog.index(ns).await?;
        if let Some(known) = index.images.get(&id)
            && alias
                .as_ref()
                .is_none_or(|alias| known.aliases.contains(alias))
        {
            self.image_tag(scope, id.as_str(), &reference).await?;
            return Ok(PushedImage { id, reference });
        }
        let Some(config) = config else {
            return Err(Error::conflict(format!(
                "image {id} is not there any more: begin the push anew"
            )));
        };
        if Digest::of(config.as_bytes()) != id {
            return Err(Error::invalid(format!(
                "invalid image: its configuration is not {id}"
            )));
        }
        let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
        let layers = self.push_layers(ns, &id, &diff_ids, index).await?;
        let image = NewImage {
            config,
            layers,
            references: vec![reference.clone()],
            alias,
            ..NewImage::default()
        };
        let recorded = self.images.record_held(ns, image).await;
        if is_too_much(&recorded) {
            self.push_refused(ns, &name).await?;
        }
        let recorded = recorded?;
        self.pushed(ns, &name, &recorded.diff_ids()).await?;
        self.image_event(ns, "load", id.as_str(), &reference.familiar(), None);
        Ok(PushedImage { id, reference })
    }

    /// Layers that a namespace has, in images or of pushes.
    async fn push_layers(
        &self,
        ns: &Namespace,
        id: &Digest,
        diff_ids: &[Digest],
        index: Index,
    ) -> Result<Vec<LayerRef>> {
        let find = |index: &Index, diff_id: &Digest| {
            let mut known = index.images.values().flat_map(|image| &image.layers);
            let known = known.find(|layer| layer.diff_id == *diff_id).cloned();
            known.or_else(|| self.pushes.get(ns, diff_id))
        };
        let mut index = index;
        let mut layers = Vec::new();
        for diff_id in diff_ids {
            let mut layer = find(&index, diff_id);
            if layer.is_none() {
                // Another push has made an image of it just now, and then let go of it.
                index = self.catalog.index(ns).await?;
                layer = find(&index, diff_id);
            }
            layers.push(layer.ok_or_else(|| {
                Error::conflict(format!("layer {diff_id} of image {id} has not been pushed"))
            })?);
        }
        Ok(layers)
    }

    /// A quota is in the way of a push: what has come of it cannot become an image, and must not
    /// keep others of the tenant out for a day.
    async fn push_refused(&self, ns: &Namespace, name: &str) -> Result<()> {
        self.pushes.refuse(ns, name);
        let all = self.pushes.take(|(of, _), _| of == ns);
        self.drop_brought(all).await;
        self.images.node().push_done(ns.as_str(), name, &[]).await
    }

    /// An image has these layers now.
    async fn pushed(&self, ns: &Namespace, session: &str, layers: &[Digest]) -> Result<()> {
        let done = self
            .pushes
            .take(|(of, layer), _| of == ns && layers.contains(layer));
        let fresh: Vec<Digest> = done.iter().map(|(layer, _)| layer.clone()).collect();
        for (_, held) in done {
            held.release().await;
        }
        let node = self.images.node();
        node.push_done(ns.as_str(), session, &fresh).await
    }

    /// Drops what pushes that were interrupted have left; called now and then.
    pub(crate) async fn push_expire(&self) {
        self.pushes.forget_refused();
        let old = self.pushes.take(|_, brought| brought.at.elapsed() > HELD);
        self.drop_brought(old).await;
        if let Err(error) = self.images.node().push_expire().await {
            tracing::warn!(%error, "chunks of interrupted pushes stay");
        }
    }

    /// Drops all that a namespace has pushed and not used.
    pub(crate) async fn push_forget(&self, ns: &Namespace) -> Result<()> {
        let all = self.pushes.take(|(of, _), _| of == ns);
        self.drop_brought(all).await;
        self.images.node().push_forget(ns.as_str()).await
    }

    async fn drop_brought(&self, brought: Vec<(Digest, Held)>) {
        let mut layers = Vec::new();
        for (layer, held) in brought {
            held.release().await;
            layers.push(layer);
        }
        self.images.drop_unneeded(layers).await;
    }
}

/// An image that a namespace has, by its id or alias. An alias may be that of an index, which is the
/// same on all platforms: the layers tell them apart.
fn known_image<'a>(index: &'a Index, wanted: &PushImage) -> Option<&'a Arc<Image>> {
    let by_alias = |image: &&Arc<Image>| {
        image.aliases.contains(&wanted.id) && image.diff_ids() == wanted.layers
    };
    let by_id = index.images.get(&wanted.id);
    by_id.or_else(|| index.images.values().find(by_alias))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sessions() {
        assert!(session(&"0a".repeat(16)).is_ok());
        for bad in ["", "../x", &"0".repeat(33), &"/".repeat(32)] {
            assert!(session(bad).is_err());
        }
    }
}
