//! What the tests share: a store in memory, and a library of one node.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent::local::images::LocalImages;
use catalog::{Catalog, Image};
use engine::library::{Library, Loaded};
use store::{Entry, Guard, LeaseId, Listing, Op, Revision, Store, Txn, Watch};
use tokio::io::AsyncReadExt as _;
use types::{
    Digest, Namespace, Result,
    image::{LayerRef, NewImage, Platform},
};

use crate::common::config;

/// A store in memory without watches and leases.
#[derive(Default)]
pub(crate) struct Memory(Mutex<(Revision, BTreeMap<String, Entry>)>);

#[async_trait::async_trait]
impl Store for Memory {
    async fn get(&self, key: &str) -> store::Result<Option<Entry>> {
        Ok(self.0.lock().unwrap().1.get(key).cloned())
    }
    async fn list(&self, prefix: &str) -> store::Result<Listing> {
        let state = self.0.lock().unwrap();
        let entries = state
            .1
            .values()
            .filter(|entry| entry.key.starts_with(prefix))
            .cloned()
            .collect();
        Ok(Listing {
            revision: state.0,
            entries,
        })
    }
    async fn commit(&self, txn: Txn) -> store::Result<Revision> {
        let mut state = self.0.lock().unwrap();
        for guard in &txn.guards {
            let (key, holds) = match guard {
                Guard::Absent(key) => (key, !state.1.contains_key(key)),
                Guard::Present(key) => (key, state.1.contains_key(key)),
                Guard::Unchanged(key, revision) => (
                    key,
                    state
                        .1
                        .get(key)
                        .is_some_and(|entry| entry.modified == *revision),
                ),
            };
            if !holds {
                return Err(store::Error::Conflict { key: key.clone() });
            }
        }
        state.0 += 1;
        let now = state.0;
        for op in txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let created = state.1.get(&key).map_or(now, |entry| entry.created);
                    state.1.insert(
                        key.clone(),
                        Entry {
                            key,
                            value,
                            created,
                            modified: now,
                            lease,
                        },
                    );
                }
                Op::Delete { key } => drop(state.1.remove(&key)),
                Op::DeletePrefix { prefix } => state.1.retain(|key, _| !key.starts_with(&prefix)),
            }
        }
        Ok(now)
    }
    async fn watch(&self, _prefix: &str, _after: Revision) -> store::Result<Watch> {
        Err(store::Error::Engine {
            operation: "watch".into(),
            reason: "not in this store".into(),
        })
    }
    async fn grant(&self, _ttl: Duration) -> store::Result<LeaseId> {
        Err(store::Error::Engine {
            operation: "grant".into(),
            reason: "not in this store".into(),
        })
    }
    async fn keep_alive(&self, lease: LeaseId) -> store::Result<()> {
        Err(store::Error::LeaseExpired(lease))
    }
    async fn revoke(&self, lease: LeaseId) -> store::Result<()> {
        Err(store::Error::LeaseExpired(lease))
    }
}

/// A library in a directory that goes away with it.
pub(crate) struct Images {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) node: LocalImages,
    pub(crate) catalog: Catalog,
    pub(crate) library: Library,
    pub(crate) ns: Namespace,
}

pub(crate) async fn images() -> Images {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(Arc::new(Memory::default()));
    let node = LocalImages::open(dir.path(), &[]).await.unwrap();
    Images {
        dir,
        library: Library::new(catalog.clone(), Arc::new(node.clone())),
        node,
        catalog,
        ns: Namespace::default(),
    }
}

impl Images {
    pub(crate) fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path().join("layers"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "base")
            .collect();
        names.sort();
        names
    }
    /// Records an image whose layers are there.
    pub(crate) async fn record(&self, ns: &Namespace, mut new: NewImage) -> Arc<Image> {
        let config = types::image::ImageConfig::parse(&new.config).unwrap();
        let layer = |diff_id: Digest| LayerRef {
            size: self.node.layers().meta(&diff_id).unwrap().size,
            diff_id,
        };
        new.layers = config.rootfs.diff_ids.into_iter().map(layer).collect();
        self.catalog.record(ns, new).await.unwrap()
    }
    /// Makes an image of these layers.
    pub(crate) async fn image(
        &self,
        layers: &[&[u8]],
        extra: &str,
        tags: &[&str],
        parent: Option<Digest>,
    ) -> Digest {
        let ids: Vec<Digest> = layers.iter().map(|tar| Digest::of(tar)).collect();
        let mut guards = Vec::new();
        for (tar, id) in layers.iter().zip(&ids) {
            guards.push(self.node.layers().ingest(*tar, Some(id)).unwrap());
        }
        let new = NewImage {
            config: config(&ids, extra),
            parent,
            references: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            ..NewImage::default()
        };
        self.record(&self.ns, new).await.id.clone()
    }
    /// Loads from memory.
    pub(crate) async fn load(&self, archive: &[u8]) -> Result<Vec<Loaded>> {
        self.load_for(archive, None).await
    }
    pub(crate) async fn load_for(
        &self,
        archive: &[u8],
        platform: Option<Platform>,
    ) -> Result<Vec<Loaded>> {
        let archive = Box::pin(std::io::Cursor::new(archive.to_vec()));
        self.library
            .load(&self.ns, archive, platform, Arc::new(drop))
            .await
    }
    /// Saves into memory.
    pub(crate) async fn save(&self, names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut archive = self.library.save(&self.ns, &names).await.unwrap();
        let mut saved = Vec::new();
        archive.read_to_end(&mut saved).await.unwrap();
        saved
    }
}
