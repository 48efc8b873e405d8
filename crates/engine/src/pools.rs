//! Storage pools of the node: recorded here, kept by the node.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use agent::volumes::{self as node, PoolSpec, PoolStatus};
use store::{Guard, Store, Txn};
use types::{
    Error, NodeId, PoolName, Result, Time,
    native::{self, PoolCreate, PoolEngine, PoolGrow, PoolSource},
    record::encode,
};

use crate::{
    Engine, Scope,
    record::{PoolRecord, key},
};

/// All pools in memory.
#[derive(Default)]
pub(crate) struct Table {
    index: RwLock<BTreeMap<PoolName, Arc<PoolRecord>>>,
    /// One change of the set of pools at a time.
    changing: tokio::sync::Mutex<()>,
    /// Held while snapshots are dropped for space.
    pub(crate) relieving: tokio::sync::Mutex<()>,
    /// When it was last said that nothing is left to drop on a pool.
    hopeless: std::sync::Mutex<BTreeMap<PoolName, std::time::Instant>>,
}

impl Table {
    pub(crate) async fn load(store: &dyn Store) -> Result<Self> {
        let prefix = format!("nodes/{}/pools/", NodeId::local().as_str());
        let mut index = BTreeMap::new();
        for entry in store.list(&prefix).await?.entries {
            let record: PoolRecord = types::record::decode(&entry.value)?;
            index.insert(record.spec.name.clone(), Arc::new(record));
        }
        Ok(Self {
            index: RwLock::new(index),
            changing: tokio::sync::Mutex::default(),
            relieving: tokio::sync::Mutex::default(),
            hopeless: std::sync::Mutex::default(),
        })
    }

    fn set(&self, record: PoolRecord) {
        self.index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.spec.name.clone(), Arc::new(record));
    }
    fn remove(&self, name: &PoolName) {
        self.index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }
    fn all(&self) -> Vec<Arc<PoolRecord>> {
        self.index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
    fn get(&self, name: &PoolName) -> Result<Arc<PoolRecord>> {
        self.index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
            .ok_or_else(|| {
                Error::not_found(format!("no such pool: {name} (kraud pool ls lists them)"))
            })
    }
    /// Whether it is time to say (again) that a full pool has nothing left to drop: it is
    /// reported every other second for as long as that lasts.
    pub(crate) fn say_hopeless(&self, name: &PoolName) -> bool {
        const AGAIN: std::time::Duration = std::time::Duration::from_secs(600);
        let mut said = self.hopeless.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.get(name).is_none_or(|at| at.elapsed() >= AGAIN);
        if due {
            said.insert(name.clone(), std::time::Instant::now());
        }
        due
    }
    /// Whether there is a pool of this name.
    pub(crate) fn has(&self, name: &PoolName) -> bool {
        self.get(name).is_ok()
    }
    /// The names of all pools.
    pub(crate) fn names(&self) -> Vec<PoolName> {
        self.all()
            .iter()
            .map(|record| record.spec.name.clone())
            .collect()
    }
    /// How a pool is kept.
    pub(crate) fn engine(&self, name: &PoolName) -> PoolEngine {
        self.get(name)
            .map_or(PoolEngine::Btrfs, |record| engine_name(record.spec.engine))
    }
}

impl Engine {
    /// Opens the pools on record; at the first start makes the default one. Trouble with a pool
    /// does not stop the rest.
    pub(crate) async fn open_pools(&self) {
        if self.pools.names().is_empty()
            && let Err(error) = self.make_default_pool().await
        {
            tracing::warn!(%error, "there is no storage pool, so volumes cannot be had: kraud doctor says what is missing; the next start of kraud tries again");
            return;
        }
        for record in self.pools.all() {
            let name = &record.spec.name;
            let opened = if record.made {
                self.agent.pool_open(&record.spec).await
            } else {
                self.finish_pool(&record).await.map(drop)
            };
            if let Err(error) = opened {
                tracing::error!(pool = %name, %error, "a pool could not be opened; its volumes are not available");
            }
        }
    }

    async fn make_default_pool(&self) -> Result<()> {
        let spec = self.agent.pool_default().await?;
        let record = PoolRecord {
            spec,
            created: Time::now(),
            made: false,
        };
        self.record_pool(&record).await?;
        if let Err(error) = self.finish_pool(&record).await {
            self.forget_pool(&record.spec.name).await?;
            return Err(error);
        }
        Ok(())
    }

    async fn record_pool(&self, record: &PoolRecord) -> Result<()> {
        let record_key = key::pool(&NodeId::local(), &record.spec.name);
        let txn = Txn::new()
            .when(Guard::Absent(record_key.clone()))
            .put(record_key, encode(record)?);
        self.store.commit(txn).await?;
        self.pools.set(record.clone());
        Ok(())
    }

    /// Has the node make a pool that is recorded, and records that it is there.
    async fn finish_pool(&self, record: &PoolRecord) -> Result<PoolStatus> {
        let status = self.agent.pool_create(&record.spec, true).await?;
        let record = PoolRecord {
            made: true,
            ..record.clone()
        };
        let record_key = key::pool(&NodeId::local(), &record.spec.name);
        self.store
            .commit(Txn::new().put(record_key, encode(&record)?))
            .await?;
        self.pools.set(record);
        Ok(status)
    }

    async fn forget_pool(&self, name: &PoolName) -> Result<()> {
        let record_key = key::pool(&NodeId::local(), name);
        self.store.commit(Txn::new().delete(record_key)).await?;
        self.pools.remove(name);
        Ok(())
    }

    /// Makes a pool.
    pub async fn pool_create(&self, scope: &Scope, request: PoolCreate) -> Result<native::Pool> {
        let _changing = self.pools.changing.lock().await;
        if self.pools.has(&request.name) {
            return Err(Error::conflict(format!(
                "pool {} exists already: choose another name",
                request.name
            )));
        }
        let spec = self.pool_spec(&request).await?;
        let record = PoolRecord {
            spec,
            created: Time::now(),
            made: false,
        };
        self.record_pool(&record).await?;
        if let Err(error) = self.finish_pool(&record).await {
            self.forget_pool(&request.name).await?;
            return Err(error);
        }
        self.pool_inspect(scope, request.name.as_str()).await
    }

    async fn pool_spec(&self, request: &PoolCreate) -> Result<PoolSpec> {
        let engine = match request.engine {
            PoolEngine::Btrfs => node::Engine::Btrfs,
            PoolEngine::Zfs => node::Engine::Zfs,
        };
        let source = match &request.source {
            PoolSource::File { size, path: None } if engine == node::Engine::Btrfs => {
                return self.agent.pool_in_file(&request.name, *size).await;
            }
            PoolSource::File { path: None, .. } => {
                return Err(Error::invalid(
                    "a zfs pool is made on devices (--device) or in an existing dataset (--directory)",
                ));
            }
            PoolSource::File {
                size,
                path: Some(path),
            } => node::Source::File {
                path: path.clone(),
                bytes: *size,
            },
            PoolSource::Devices { paths, mirror } => node::Source::Devices {
                paths: paths.clone(),
                mirror: *mirror,
            },
            PoolSource::Directory { path } => node::Source::Directory { path: path.clone() },
        };
        let absolute = match &source {
            node::Source::File { path, .. } | node::Source::Directory { path } => {
                path.is_absolute()
            }
            node::Source::Devices { paths, .. } => {
                !paths.is_empty() && paths.iter().all(|path| path.is_absolute())
            }
        };
        if !absolute {
            return Err(Error::invalid(
                "a pool needs absolute paths of what it lies on",
            ));
        }
        Ok(PoolSpec {
            name: request.name.clone(),
            engine,
            source,
        })
    }

    /// All pools by name.
    pub async fn pool_list(&self, _: &Scope) -> Result<Vec<native::Pool>> {
        let mut pools = Vec::new();
        for record in self.pools.all() {
            pools.push(self.pool_view(&record).await);
        }
        Ok(pools)
    }

    /// One pool.
    pub async fn pool_inspect(&self, _: &Scope, name: &str) -> Result<native::Pool> {
        let record = self.pools.get(&name.parse()?)?;
        Ok(self.pool_view(&record).await)
    }

    /// Makes a pool larger.
    pub async fn pool_grow(&self, _: &Scope, name: &str, by: PoolGrow) -> Result<native::Pool> {
        let _changing = self.pools.changing.lock().await;
        let record = self.pools.get(&name.parse()?)?;
        let growth = match by {
            PoolGrow::File { size } => node::Growth::Bytes(size),
            PoolGrow::Devices { paths } => node::Growth::Devices(paths),
            PoolGrow::Fill => node::Growth::Fill,
        };
        self.agent.pool_grow(&record.spec.name, &growth).await?;
        let mut record = (*record).clone();
        match (&mut record.spec.source, growth) {
            (node::Source::File { bytes, .. }, node::Growth::Bytes(now)) => *bytes = now,
            (node::Source::Devices { paths, .. }, node::Growth::Devices(more)) => {
                paths.extend(more);
            }
            _ => {}
        }
        let record_key = key::pool(&NodeId::local(), &record.spec.name);
        self.store
            .commit(Txn::new().put(record_key, encode(&record)?))
            .await?;
        self.pools.set(record.clone());
        Ok(self.pool_view(&record).await)
    }

    /// Removes a pool that has no volumes.
    pub async fn pool_remove(&self, _: &Scope, name: &str) -> Result<()> {
        let _changing = self.pools.changing.lock().await;
        let record = self.pools.get(&name.parse()?)?;
        let volumes: Vec<String> = self
            .volumes
            .all()
            .iter()
            .map(|volume| volume.record())
            .filter(|volume| volume.pool == record.spec.name)
            .map(|volume| volume.name.to_string())
            .collect();
        if !volumes.is_empty() {
            return Err(Error::conflict(format!(
                "pool {name} has volumes: {}; remove them first",
                volumes.join(", ")
            )));
        }
        let tenants: Vec<String> = self
            .identities
            .tenants()
            .iter()
            .filter(|tenant| {
                let disk = tenant.disk.as_ref();
                disk.is_some_and(|disk| disk.pool == record.spec.name)
            })
            .map(|tenant| tenant.name.to_string())
            .collect();
        if !tenants.is_empty() {
            return Err(Error::conflict(format!(
                "pool {name} has the files of containers of tenants: {}; remove them first (kraud tenant rm)",
                tenants.join(", ")
            )));
        }
        self.agent.pool_remove(&record.spec.name).await?;
        self.forget_pool(&record.spec.name).await
    }

    async fn pool_view(&self, record: &PoolRecord) -> native::Pool {
        let name = &record.spec.name;
        let (status, trouble) = match self.agent.pool_status(name).await {
            Ok(status) => {
                let (health, trouble) = health(&status.health);
                (Some((status, health)), trouble)
            }
            Err(error) => (None, Some(error.message)),
        };
        let volumes = self.volumes.all();
        let volumes = volumes.iter().map(|volume| volume.record());
        let (status, health) = status.unzip();
        native::Pool {
            name: name.clone(),
            engine: engine_name(record.spec.engine),
            node: NodeId::local().as_str().to_owned(),
            source: source_view(&record.spec.source),
            health: health.unwrap_or(native::Health::Faulted),
            status: trouble,
            total: status.as_ref().map_or(0, |status| status.total),
            used: status.as_ref().map_or(0, |status| status.used),
            free: status.as_ref().map_or(0, |status| status.free),
            copies: status.as_ref().map_or(1, |status| status.copies),
            redundancy: redundancy(status.as_ref().map_or(1, |status| status.copies)),
            devices: status
                .as_ref()
                .map(|status| status.devices.clone())
                .unwrap_or_default(),
            volumes: volumes.filter(|volume| volume.pool == *name).count(),
            root: status.map(|status| status.root).unwrap_or_default(),
        }
    }

    /// What an operator should know of the pools, for `docker info`.
    pub(crate) async fn pool_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let records = self.pools.all();
        if records.is_empty() {
            warnings.push(
                "WARNING: There is no storage pool: volumes cannot be had (kraud doctor)".into(),
            );
        }
        for record in records {
            let name = &record.spec.name;
            match self.agent.pool_status(name).await {
                Ok(status) => {
                    if let (health, Some(trouble)) = health(&status.health) {
                        warnings.push(format!(
                            "WARNING: Storage pool {name} is {}: {trouble}",
                            health.as_str()
                        ));
                    }
                }
                Err(error) => warnings.push(format!("WARNING: Storage pool {name}: {error}")),
            }
        }
        warnings
    }
}

/// What protects the data, in words.
pub(crate) fn redundancy(copies: u32) -> String {
    match copies {
        0 | 1 => "none (one node)".into(),
        copies => format!("mirror ({copies} copies, one node)"),
    }
}

/// A pool's health and what is wrong with it.
pub(crate) fn health(health: &node::Health) -> (native::Health, Option<String>) {
    match health {
        node::Health::Online => (native::Health::Online, None),
        node::Health::Degraded(why) => (native::Health::Degraded, Some(why.clone())),
        node::Health::Faulted(why) => (native::Health::Faulted, Some(why.clone())),
    }
}

fn engine_name(engine: node::Engine) -> PoolEngine {
    match engine {
        node::Engine::Btrfs => PoolEngine::Btrfs,
        node::Engine::Zfs => PoolEngine::Zfs,
    }
}

fn source_view(source: &node::Source) -> PoolSource {
    match source {
        node::Source::File { path, bytes } => PoolSource::File {
            size: *bytes,
            path: Some(path.clone()),
        },
        node::Source::Devices { paths, mirror } => PoolSource::Devices {
            paths: paths.clone(),
            mirror: *mirror,
        },
        node::Source::Directory { path } => PoolSource::Directory { path: path.clone() },
    }
}
