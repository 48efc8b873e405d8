//! The library: images' records and their layers, kept in step.
//!
//! The catalog knows which images there are; a node has the layers. Whatever brings layers
//! is recorded while the node holds them, and whatever leaves the records is swept from the
//! node afterwards. So a record never names layers that are gone, and a failure leaves
//! nothing behind.
//!
//! There is one node today. With more, each has a [`NodeImages`] of its own, and a layer is
//! looked for by asking them: no record says where it lies.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use agent::{
    NodeImages, Reader,
    images::{
        Allowance, Credentials, HoldId, Inspection, Known, LoadProgress, MadeLayer, Progress,
        PullEvent, PullRequest, Pulled, PushRequest, Unpacked, headline,
    },
};
use catalog::{Catalog, Image, InUse, PruneFilter, Removal, Removed, imported};
use tokio::sync::{Mutex, mpsc};
use types::{
    Config, Digest, Error, Namespace, Reference, Result,
    image::{NewImage, Platform},
};

/// Layers that somebody beyond the image records needs: containers.
#[async_trait::async_trait]
pub trait LayerPins: Send + Sync + 'static {
    /// The layers in use now.
    async fn pinned(&self) -> Result<HashSet<Digest>>;
}

/// How much of images a namespace may have.
pub trait ImageLimits: Send + Sync + 'static {
    /// Bytes that the layers of its images may count for; `None` for no limit.
    fn image_bytes(&self, ns: &Namespace) -> Option<u64>;
}

/// Takes a transfer's messages; called from any task, must not block.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// Takes what a load tells; called from any task, must not block.
pub type LoadReport = Arc<dyn Fn(LoadProgress) + Send + Sync>;

/// An image that a load brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// The references that now point at it; empty when the archive named none.
    pub references: Vec<Reference>,
}

/// Layers that the node holds. Released when dropped, at the latest.
pub struct Held {
    node: Arc<dyn NodeImages>,
    hold: Option<HoldId>,
}

impl Held {
    /// Lets go, and knows that the node has when this returns.
    pub async fn release(mut self) {
        if let Some(hold) = &self.hold {
            if let Err(error) = self.node.layers_release(hold).await {
                tracing::warn!(%error, "layers stay held on the node until its agent starts anew");
            }
            self.hold = None;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever waited was given up. Without a runtime the agent ends, too.
        if let (Some(hold), Ok(runtime)) = (self.hold.take(), tokio::runtime::Handle::try_current())
        {
            let node = self.node.clone();
            runtime.spawn(async move { node.layers_release(&hold).await });
        }
    }
}

/// See [`Library::room_for`].
type Counting = Option<tokio::sync::OwnedMutexGuard<()>>;

/// What is counted, in messages.
const IMAGES: &str = "bytes of layers of images";

/// The library. Cheap to clone.
#[derive(Clone)]
pub struct Library {
    catalog: Catalog,
    node: Arc<dyn NodeImages>,
    pins: Arc<OnceLock<Arc<dyn LayerPins>>>,
    limits: Arc<OnceLock<Arc<dyn ImageLimits>>>,
    /// Held from a look at what a limited namespace has until there is more.
    counting: Arc<Mutex<()>>,
    /// One sweep at a time.
    sweeping: Arc<Mutex<()>>,
}

impl Library {
    /// The images of `catalog`, with their layers on `node`.
    pub fn new(catalog: Catalog, node: Arc<dyn NodeImages>) -> Self {
        Self {
            catalog,
            node,
            pins: Arc::default(),
            limits: Arc::default(),
            counting: Arc::default(),
            sweeping: Arc::default(),
        }
    }

    /// The records.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Names who else needs layers; asked before any layer is removed. Only the first call counts.
    pub fn set_pins(&self, pins: Arc<dyn LayerPins>) {
        let _ = self.pins.set(pins);
    }

    /// Names who limits namespaces. Only the first call counts.
    pub fn set_limits(&self, limits: Arc<dyn ImageLimits>) {
        let _ = self.limits.set(limits);
    }

    fn limit(&self, ns: &Namespace) -> Option<u64> {
        self.limits.get()?.image_bytes(ns)
    }

    /// The layers of a namespace's images.
    pub(crate) async fn layers_of(&self, ns: &Namespace) -> Result<HashSet<Digest>> {
        let index = self.catalog.index(ns).await?;
        let layers = index.images.values().flat_map(|image| &image.layers);
        Ok(layers.map(|layer| layer.diff_id.clone()).collect())
    }

    async fn charge_of(&self, layers: &HashSet<Digest>) -> Result<u64> {
        let layers: Vec<Digest> = layers.iter().cloned().collect();
        self.node.layers_charge(&layers).await
    }

    /// The node that has the layers.
    pub(crate) fn node(&self) -> &dyn NodeImages {
        self.node.as_ref()
    }

    /// Bytes that a namespace may still bring; `None` for no limit.
    pub(crate) async fn room(&self, ns: &Namespace) -> Result<Option<u64>> {
        match self.limit(ns) {
            Some(limit) => Ok(Some(limit.saturating_sub(self.charge(ns).await?))),
            None => Ok(None),
        }
    }

    /// Bytes that a namespace's images count for, each layer once.
    pub async fn charge(&self, ns: &Namespace) -> Result<u64> {
        self.charge_of(&self.layers_of(ns).await?).await
    }

    /// Fails unless images, whose layers are on the node, are within the namespace's limit. Others
    /// of limited namespaces wait until the guard goes.
    async fn room_for(&self, ns: &Namespace, images: &[NewImage]) -> Result<Counting> {
        let Some(limit) = self.limit(ns) else {
            return Ok(None);
        };
        let counting = self.counting.clone().lock_owned().await;
        let mut layers = self.layers_of(ns).await?;
        let used = self.charge_of(&layers).await?;
        layers.extend(
            images
                .iter()
                .flat_map(|image| &image.layers)
                .map(|layer| layer.diff_id.clone()),
        );
        let then = self.charge_of(&layers).await?;
        crate::tenants::quota::fits(ns, IMAGES, limit, used, then.saturating_sub(used))?;
        Ok(Some(counting))
    }

    /// Records an image, if it is within the namespace's limit.
    async fn record(&self, ns: &Namespace, image: NewImage) -> Result<Arc<Image>> {
        let counting = self.room_for(ns, std::slice::from_ref(&image)).await?;
        let recorded = self.catalog.record(ns, image).await;
        drop(counting);
        recorded
    }

    pub(crate) fn held(&self, hold: HoldId) -> Held {
        Held {
            node: self.node.clone(),
            hold: Some(hold),
        }
    }

    /// The platform that a user means, what is left out being the node's; `None` for no text.
    pub async fn platform(&self, text: Option<&str>) -> Result<Option<Platform>> {
        match text {
            Some(text) if !text.is_empty() => {
                Platform::parse(text, &self.node.platform().await?).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Holds layers; `None` when one of them is not on the node.
    pub async fn hold(&self, layers: &[Digest]) -> Result<Option<Held>> {
        let hold = self.node.layers_hold(layers).await?;
        Ok(hold.map(|hold| self.held(hold)))
    }

    /// The layers that a namespace may use by digest alone, and how much it may bring. For a
    /// tenant the former are its own images': nobody gets at a layer, or learns that it is
    /// there, by naming it.
    async fn allowance(&self, ns: &Namespace) -> Result<Allowance> {
        self.allowance_with(ns, HashSet::new()).await
    }

    /// The same for somebody who has brought layers that no image has yet: they count.
    pub(crate) async fn allowance_with(
        &self,
        ns: &Namespace,
        brought: HashSet<Digest>,
    ) -> Result<Allowance> {
        if *ns == Namespace::default() {
            return Ok(Allowance::all());
        }
        let mut layers = self.layers_of(ns).await?;
        layers.extend(brought);
        let Some(limit) = self.limit(ns) else {
            return Ok(Allowance::of(layers));
        };
        let used = self.charge_of(&layers).await?;
        let refusal = format!(
            "the quota of {ns} is {limit} {IMAGES}: {used} are in use, and what comes is more than the rest"
        );
        Ok(Allowance::up_to(
            layers,
            limit.saturating_sub(used),
            refusal,
        ))
    }

    /// Loads a docker archive or OCI layout, compressed or not. On failure nothing is left.
    ///
    /// Goes on to a clean end when the caller stops waiting.
    pub async fn load(
        &self,
        ns: &Namespace,
        archive: Reader,
        platform: Option<Platform>,
        report: LoadReport,
    ) -> Result<Vec<Loaded>> {
        let (library, ns) = (self.clone(), ns.clone());
        let (sender, mut progress) = mpsc::channel(64);
        let whole = async move {
            let allowance = library.allowance(&ns).await?;
            match library
                .node
                .images_load(archive, allowance, platform, sender)
                .await
            {
                Ok(Unpacked {
                    images,
                    fresh,
                    hold,
                }) => {
                    let held = library.held(hold);
                    let loaded = library.record_loaded(&ns, images).await;
                    held.release().await;
                    library.drop_unneeded(fresh).await;
                    loaded
                }
                Err(failed) => {
                    library.drop_unneeded(failed.fresh).await;
                    Err(failed.error)
                }
            }
        };
        let whole = tokio::spawn(whole);
        // Ends when the node is done.
        while let Some(one) = progress.recv().await {
            report(one);
        }
        whole
            .await
            .map_err(|source| Error::wrap("loading images", source))?
    }

    async fn record_loaded(&self, ns: &Namespace, images: Vec<NewImage>) -> Result<Vec<Loaded>> {
        let counting = self.room_for(ns, &images).await?;
        let mut loaded = Vec::new();
        for image in images {
            let references = image.references.clone();
            let id = self.catalog.record(ns, image).await?.id.clone();
            loaded.push(Loaded { id, references });
        }
        drop(counting);
        Ok(loaded)
    }

    /// Makes an image of a root file system's tar (plain, gzip or zstd).
    ///
    /// Goes on to a clean end when the caller stops waiting.
    pub async fn import(
        &self,
        ns: &Namespace,
        tar: Reader,
        reference: Option<&Reference>,
        message: &str,
        config: Config,
        platform: Option<Platform>,
    ) -> Result<Arc<Image>> {
        let (library, ns) = (self.clone(), ns.clone());
        let (reference, message) = (reference.cloned(), message.to_owned());
        let whole = async move {
            let platform = match platform {
                Some(platform) => platform,
                None => library.node.platform().await?,
            };
            let allowance = library.allowance(&ns).await?;
            let made = library.node.layer_import(tar, allowance).await?;
            let layer = made.layer.clone();
            let image = imported(layer, reference.as_ref(), &message, config, platform);
            library.record_made(&ns, made, image).await
        };
        tokio::spawn(whole)
            .await
            .map_err(|source| Error::wrap("importing an image", source))?
    }

    /// Records an image whose uppermost layer was just made. The layers below are on the node
    /// or this fails.
    pub async fn record_made(
        &self,
        ns: &Namespace,
        made: MadeLayer,
        image: Result<NewImage>,
    ) -> Result<Arc<Image>> {
        let layer = made.layer.diff_id;
        let held = self.held(made.hold);
        let recorded = match image {
            Ok(image) => self.record_held(ns, image).await,
            Err(error) => Err(error),
        };
        held.release().await;
        if recorded.is_err() && made.fresh {
            self.drop_unneeded([layer]).await;
        }
        recorded
    }

    /// Records an image while all its layers are held.
    pub(crate) async fn record_held(&self, ns: &Namespace, image: NewImage) -> Result<Arc<Image>> {
        let layers: Vec<Digest> = image
            .layers
            .iter()
            .map(|layer| layer.diff_id.clone())
            .collect();
        let Some(held) = self.hold(&layers).await? else {
            return Err(Error::not_found(
                "a layer of the image is not on the node any more",
            ));
        };
        let recorded = self.record(ns, image).await;
        held.release().await;
        recorded
    }

    /// The archive of the images that `names` mean.
    pub async fn save(&self, ns: &Namespace, names: &[String]) -> Result<Reader> {
        let images = self.catalog.to_save(ns, names).await?;
        self.node.images_save(&images).await
    }

    /// Pulls. What `request` says is known is found out here. `report` hears docker's words;
    /// errors carry docker's texts.
    pub async fn pull(
        &self,
        ns: &Namespace,
        mut request: PullRequest,
        report: Report,
    ) -> Result<Vec<Pulled>> {
        let index = self.catalog.index(ns).await?;
        let repository = request.reference.name();
        request.known = Known {
            images: index.images.into_keys().collect(),
            references: index
                .references
                .into_iter()
                .filter(|(one, _)| one.name() == repository)
                .collect(),
            allowance: self.allowance(ns).await?,
        };
        let mut pulling = self.node.images_pull(request).await?;
        let held = self.held(pulling.hold);
        let mut done = Err(Error::unavailable("the node broke the pull off"));
        while let Some(event) = pulling.events.recv().await {
            match event {
                PullEvent::Progress(progress) => report(progress),
                PullEvent::Image(image) => {
                    if let Err(error) = self.record(ns, *image).await {
                        done = Err(error);
                        break;
                    }
                }
                PullEvent::Done(result) => {
                    done = result;
                    break;
                }
            }
        }
        drop(pulling.events);
        held.release().await;
        // The operator's next try finds the layers that came; a tenant may not use what no image
        // of its own has, so for it they would only take space that counts for nobody.
        if done.is_err() && *ns != Namespace::default() {
            self.collect_garbage().await?;
        }
        done
    }

    /// Pushes one tag or all of a repository, and records what the registry has then.
    pub async fn push(
        &self,
        ns: &Namespace,
        repository: &Reference,
        all_tags: bool,
        credentials: Credentials,
        report: Report,
    ) -> Result<()> {
        let images = match self.catalog.to_push(ns, repository, all_tags).await {
            Ok(images) => images,
            Err(error) => {
                // docker says where to before it says that there is nothing.
                if repository.digest().is_none() {
                    report(headline(repository));
                }
                return Err(error);
            }
        };
        let request = PushRequest {
            repository: repository.clone(),
            images,
            credentials,
        };
        let (sender, mut progress) = mpsc::unbounded_channel();
        let telling = async {
            while let Some(one) = progress.recv().await {
                report(one);
            }
        };
        let (pushed, ()) = tokio::join!(self.node.images_push(request, sender), telling);
        for image in pushed? {
            self.catalog.record_push(ns, image).await?;
        }
        Ok(())
    }

    /// What a registry has under a reference, without fetching it.
    pub async fn registry_inspect(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Inspection> {
        self.node.registry_inspect(reference, credentials).await
    }

    /// Checks credentials with a registry: docker's words for success, and an identity token.
    pub async fn registry_check(
        &self,
        credentials: &Credentials,
        server: &str,
    ) -> Result<(String, String)> {
        self.node.registry_check(credentials, server).await
    }

    /// Removes a reference or an image, as `docker rmi name` (`force`: `-f`; `prune_parents`:
    /// not `--no-prune`, that is parents without tags go too).
    pub async fn remove(
        &self,
        ns: &Namespace,
        name: &str,
        force: bool,
        prune_parents: bool,
        in_use: InUse<'_>,
    ) -> Result<Vec<Removal>> {
        let Removed { removals, layers } = self
            .catalog
            .remove(ns, name, force, prune_parents, in_use)
            .await?;
        self.sweep(layers).await?;
        Ok(removals)
    }

    /// Removes images that nobody uses; returns what went and the bytes freed.
    pub async fn prune(
        &self,
        ns: &Namespace,
        filter: &PruneFilter,
        in_use: InUse<'_>,
    ) -> Result<(Vec<Removal>, u64)> {
        let Removed { removals, layers } = self.catalog.prune(ns, filter, in_use).await?;
        let freed = self.sweep(layers).await?;
        Ok((removals, freed))
    }

    /// Removes layers that no image record of any namespace, no hold and no pin needs; returns
    /// the bytes freed. Call once after the start, when the pins are known.
    pub async fn collect_garbage(&self) -> Result<u64> {
        let all = self.node.layers_list().await?;
        self.sweep(all.into_iter().collect()).await
    }

    /// Removes layers that a failed or finished operation left without a record.
    pub(crate) async fn drop_unneeded(&self, candidates: impl IntoIterator<Item = Digest>) {
        if let Err(error) = self.sweep(candidates.into_iter().collect()).await {
            tracing::warn!(%error, "layers that nothing needs stay until the next start");
        }
    }

    /// Removes those of `candidates` that nobody needs; returns the bytes freed.
    async fn sweep(&self, mut candidates: HashSet<Digest>) -> Result<u64> {
        if candidates.is_empty() {
            return Ok(0);
        }
        let _one = self.sweeping.lock().await;
        // Begun before the records are read: what is recorded from now on was held by then.
        let sweep = self.node.sweep_begin().await?;
        for needed in self.catalog.needed_layers().await? {
            candidates.remove(&needed);
        }
        if let Some(pins) = self.pins.get() {
            for pinned in pins.pinned().await? {
                candidates.remove(&pinned);
            }
        }
        let unneeded: Vec<Digest> = candidates.into_iter().collect();
        self.node.sweep(&sweep, &unneeded).await
    }
}
