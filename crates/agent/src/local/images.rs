//! Images on this machine: the layer store, the registries, and who holds what.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use image::{
    Ingested, LayerGuard, LayerStore,
    push::{Assembly, Lists, Spaces, assemble},
    registry::{self, Client, Options, PullKeeper, Report},
};
use tokio::sync::mpsc;
use tokio_util::io::SyncIoBridge;
use types::{
    Digest, Error, Reference, Result,
    image::{LayerRef, NewImage, Platform, PushedImage, SaveImage},
    native::PushReceived,
};

use super::{archive::packed, blocking};
use crate::{
    images::{
        Credentials, HoldId, Inspection, LoadError, LoadProgress, MadeLayer, NodeImages, Progress,
        PullEvent, PullRequest, Pulling, PushRequest, PushSources, SweepId, Unpacked,
    },
    io::Reader,
};

/// The images of this machine. Cheap to clone.
#[derive(Clone)]
pub struct LocalImages(Arc<Inner>);

struct Inner {
    layers: Arc<LayerStore>,
    lists: Lists,
    spaces: Arc<Spaces>,
    registries: Client,
    holds: Mutex<HashMap<HoldId, Vec<LayerGuard>>>,
    /// The sweep that has begun. Locked while it removes, so that no other begins then.
    sweep: Mutex<Option<SweepId>>,
}

impl std::fmt::Debug for LocalImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalImages")
            .field("layers", &self.0.layers)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalImages {
    /// Opens the layers under `data_dir`. `insecure_registries` are `host[:port]` that may be
    /// spoken to without TLS.
    pub async fn open(data_dir: &Path, insecure_registries: &[String]) -> Result<Self> {
        let data_dir = data_dir.to_owned();
        // Connections are made on first use.
        let registries = Client::new(Options {
            insecure: insecure_registries.to_vec(),
            user_agent: format!("kraud/{}", env!("CARGO_PKG_VERSION")),
            ..Options::default()
        })?;
        let spaces = Arc::new(Spaces::new(&data_dir));
        let layers = blocking(move || LayerStore::open(&data_dir)).await?;
        Ok(Self(Arc::new(Inner {
            lists: Lists::new(layers.clone()),
            layers,
            spaces,
            registries,
            holds: Mutex::default(),
            sweep: Mutex::default(),
        })))
    }

    /// The layers.
    pub fn layers(&self) -> &Arc<LayerStore> {
        &self.0.layers
    }

    fn hold(&self, guards: Vec<LayerGuard>) -> HoldId {
        let hold = HoldId::random();
        lock(&self.0.holds).insert(hold.clone(), guards);
        hold
    }

    /// Holds a layer that was just made.
    pub(super) fn made(&self, layer: Ingested) -> MadeLayer {
        MadeLayer {
            layer: LayerRef {
                diff_id: layer.meta.diff_id,
                size: layer.meta.size,
            },
            fresh: !layer.existed,
            hold: self.hold(vec![layer.guard]),
        }
    }

    /// Guards of all of `layers`; `None` when one is missing.
    async fn pin(&self, layers: Vec<Digest>) -> Result<Option<Vec<LayerGuard>>> {
        let store = self.layers().clone();
        blocking(move || Ok(layers.iter().map(|layer| store.pin(layer)).collect())).await
    }
}

/// Adds to a pull's hold and tells of its images.
struct Keeper {
    images: LocalImages,
    hold: HoldId,
    events: mpsc::UnboundedSender<PullEvent>,
}

impl PullKeeper for Keeper {
    fn hold(&self, guards: Vec<LayerGuard>) {
        // Released already: the pull is given up, and the guards go.
        if let Some(held) = lock(&self.images.0.holds).get_mut(&self.hold) {
            held.extend(guards);
        }
    }

    fn keep(&self, image: NewImage) -> Result<()> {
        self.events
            .send(PullEvent::Image(Box::new(image)))
            .map_err(|_| Error::unavailable("nobody waits for the pull any more"))
    }
}

#[async_trait::async_trait]
impl NodeImages for LocalImages {
    async fn platform(&self) -> Result<Platform> {
        Ok(Platform::host())
    }

    async fn layers_hold(&self, layers: &[Digest]) -> Result<Option<HoldId>> {
        let guards = self.pin(layers.to_vec()).await?;
        Ok(guards.map(|guards| self.hold(guards)))
    }

    async fn layers_release(&self, hold: &HoldId) -> Result<()> {
        let released = lock(&self.0.holds).remove(hold);
        drop(released);
        Ok(())
    }

    async fn layers_charge(&self, wanted: &[Digest]) -> Result<u64> {
        let (layers, wanted) = (self.layers().clone(), wanted.to_vec());
        blocking(move || {
            let charge = |layer| match layers.meta(layer) {
                Err(error) if error.kind == types::Kind::NotFound => Ok(0),
                other => other.map(|meta| meta.charge),
            };
            wanted.iter().map(charge).sum()
        })
        .await
    }

    async fn layers_list(&self) -> Result<Vec<Digest>> {
        let layers = self.layers().clone();
        let all = blocking(move || layers.list()).await?;
        Ok(all.into_iter().map(|meta| meta.diff_id).collect())
    }

    async fn sweep_begin(&self) -> Result<SweepId> {
        let images = self.clone();
        blocking(move || {
            let mut current = lock(&images.0.sweep);
            let sweep = SweepId::random();
            images.layers().begin_sweep();
            *current = Some(sweep.clone());
            Ok(sweep)
        })
        .await
    }

    async fn sweep(&self, sweep: &SweepId, unneeded: &[Digest]) -> Result<u64> {
        let (images, sweep, unneeded) = (self.clone(), sweep.clone(), unneeded.to_vec());
        blocking(move || {
            let mut current = lock(&images.0.sweep);
            if current.as_ref() != Some(&sweep) {
                return Err(Error::conflict(
                    "removing layers: another removal has begun meanwhile",
                ));
            }
            let freed = unneeded
                .iter()
                .map(|layer| images.layers().sweep(layer))
                .sum();
            *current = None;
            freed
        })
        .await
    }

    async fn layer_import(&self, tar: Reader, allowance: image::Allowance) -> Result<MadeLayer> {
        let (layers, tar) = (self.layers().clone(), SyncIoBridge::new(tar));
        let layer = blocking(move || layers.ingest_for(&allowance, tar, None)).await?;
        Ok(self.made(layer))
    }

    async fn push_prefixes(&self, bases: &[Digest]) -> Result<Vec<u8>> {
        let (images, bases) = (self.clone(), bases.to_vec());
        blocking(move || {
            let mut prefixes = Vec::new();
            for base in &bases {
                let list = images.0.lists.of(base)?;
                prefixes.extend(list.prefixes().flat_map(|prefix| prefix.0));
            }
            Ok(prefixes)
        })
        .await
    }

    async fn push_missing(&self, space: &str, own: &[Digest], hashes: &[u8]) -> Result<Vec<u8>> {
        let hashes = chunk::Hash::many(hashes)
            .ok_or_else(|| Error::invalid("invalid request: it ends within a hash"))?;
        let (images, space, own) = (self.clone(), space.to_owned(), own.to_vec());
        blocking(move || {
            let space = images.0.spaces.of(&space)?;
            let all = &images.0.lists;
            let (mut listed, mut unlisted) = (Vec::new(), Vec::new());
            for layer in own {
                match all.starts(&layer) {
                    Some(starts) => listed.push((layer, starts)),
                    None => unlisted.push(layer),
                }
            }
            // What was pulled or loaded. Whoever asks has to send what is in there; the next one
            // has not.
            all.soon(unlisted);
            let missing = |hash: &chunk::Hash| {
                let mut listed = listed.iter();
                !space.has(hash) && !listed.any(|(layer, starts)| all.has(layer, starts, hash))
            };
            Ok(hashes.iter().map(|hash| missing(hash).into()).collect())
        })
        .await
    }

    async fn push_receive(
        &self,
        space: &str,
        session: &str,
        chunks: Reader,
        limit: u64,
    ) -> Result<PushReceived> {
        let (images, space) = (self.clone(), space.to_owned());
        let (session, chunks) = (session.to_owned(), SyncIoBridge::new(chunks));
        blocking(move || {
            let space = images.0.spaces.of(&space)?;
            let chunks = image::push::decompress(chunks)
                .map_err(|error| Error::wrap("receiving chunks", error))?;
            let received = space.receive(&session, chunks, limit)?;
            Ok(PushReceived {
                chunks: received.chunks,
                bytes: received.bytes,
            })
        })
        .await
    }

    async fn push_layer(
        &self,
        from: &PushSources,
        diff_id: &Digest,
        recipe: Reader,
        allowance: image::Allowance,
    ) -> Result<MadeLayer> {
        let (images, from, diff_id) = (self.clone(), from.clone(), diff_id.clone());
        let recipe = SyncIoBridge::new(recipe);
        let layer = blocking(move || {
            let assembly = Assembly {
                lists: &images.0.lists,
                space: images.0.spaces.of(&from.space)?,
                bases: &from.bases,
                own: &from.own,
            };
            assemble(&assembly, recipe, &diff_id, &allowance)
        })
        .await?;
        Ok(self.made(layer))
    }

    async fn push_done(&self, space: &str, session: &str, layers: &[Digest]) -> Result<()> {
        let (images, name) = (self.clone(), space.to_owned());
        let space = blocking(move || images.0.spaces.of(&name)).await?;
        let session = session.to_owned();
        space.count_no_more(&session);
        // Listed before what was sent goes: others may have been told that it is there. Nobody
        // waits for it.
        self.0.lists.then(layers.to_vec(), move |lists| {
            space.drop_done(&session, lists)
        });
        Ok(())
    }

    async fn push_forget(&self, space: &str) -> Result<()> {
        let (spaces, space) = (self.0.spaces.clone(), space.to_owned());
        blocking(move || spaces.remove(&space)).await
    }

    async fn push_expire(&self) -> Result<()> {
        let spaces = self.0.spaces.clone();
        blocking(move || {
            spaces.drop_old();
            Ok(())
        })
        .await
    }

    async fn images_load(
        &self,
        archive: Reader,
        allowance: image::Allowance,
        platform: Option<Platform>,
        progress: mpsc::Sender<LoadProgress>,
    ) -> Result<Unpacked, LoadError> {
        let (layers, archive) = (self.layers().clone(), SyncIoBridge::new(archive));
        let tell = move |object: &str, done: u64| {
            let _ = progress.try_send(LoadProgress {
                object: object.to_owned(),
                done,
            });
        };
        let loading = move || {
            image::load(
                &layers,
                allowance,
                archive,
                platform.as_ref(),
                Arc::new(tell),
            )
        };
        match tokio::task::spawn_blocking(loading).await {
            Ok(Ok(loaded)) => Ok(Unpacked {
                images: loaded.images,
                fresh: loaded.fresh.into_iter().collect(),
                hold: self.hold(loaded.guards),
            }),
            Ok(Err(failed)) => Err(LoadError {
                error: failed.error,
                fresh: failed.fresh.into_iter().collect(),
            }),
            Err(source) => Err(LoadError {
                error: Error::wrap("loading images", source),
                fresh: Vec::new(),
            }),
        }
    }

    async fn images_save(&self, images: &[SaveImage]) -> Result<Reader> {
        let wanted = images.iter().flat_map(|image| image.layers.clone());
        let guards = self.pin(wanted.collect()).await?.ok_or_else(|| {
            Error::not_found("layers of an image are missing on this node: load or pull it again")
        })?;
        let (layers, images) = (self.layers().clone(), images.to_vec());
        Ok(packed(move |to| {
            let saved = image::save(&layers, &images, to);
            drop(guards);
            saved
        }))
    }

    async fn images_pull(&self, request: PullRequest) -> Result<Pulling> {
        let PullRequest {
            reference,
            platform,
            all_tags,
            credentials,
            known,
        } = request;
        let platform = (!platform.is_empty()).then(|| platform.parse());
        let request = registry::PullRequest {
            reference,
            platform: platform.transpose()?,
            all_tags,
            credentials,
        };
        let hold = self.hold(Vec::new());
        let (sender, events) = mpsc::unbounded_channel();
        let keeper = Arc::new(Keeper {
            images: self.clone(),
            hold: hold.clone(),
            events: sender.clone(),
        });
        let report: Report = {
            let sender = sender.clone();
            Arc::new(move |progress| drop(sender.send(PullEvent::Progress(progress))))
        };
        let images = self.clone();
        tokio::spawn(async move {
            let registries = &images.0.registries;
            let pull = registries.pull_into(images.layers(), &request, known, keeper, report);
            tokio::select! {
                done = pull => drop(sender.send(PullEvent::Done(done))),
                () = sender.closed() => {}
            }
        });
        Ok(Pulling { hold, events })
    }

    async fn images_push(
        &self,
        request: PushRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> Result<Vec<PushedImage>> {
        let PushRequest {
            repository,
            images,
            credentials,
        } = request;
        let report: Report = Arc::new(move |one| drop(progress.send(one)));
        self.0
            .registries
            .push_from(self.layers(), &repository, &images, &credentials, report)
            .await
    }

    async fn registry_inspect(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Inspection> {
        self.0.registries.inspect(reference, credentials).await
    }

    async fn registry_check(
        &self,
        credentials: &Credentials,
        server: &str,
    ) -> Result<(String, String)> {
        self.0.registries.check(credentials, server).await
    }
}
