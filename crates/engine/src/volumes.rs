//! Volumes. For now one class, `local`: a directory of the node.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use store::{Guard, Store, Txn};
use types::{Error, Filters, Namespace, Result, Time, VolumeName, record::encode};

use crate::{
    Engine, Scope,
    containers::Container,
    record::{VolumeRecord, key},
    request::VolumeCreate,
    view::{Pruned, VolumeUsage, VolumeView},
};

/// docker's mark of a volume that was made without a name.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// All volumes in memory.
#[derive(Default)]
pub(crate) struct Table {
    index: RwLock<HashMap<(Namespace, VolumeName), Arc<VolumeRecord>>>,
    /// Volumes that a create under way has found or made and not yet recorded a mount of.
    leased: Mutex<HashMap<(Namespace, VolumeName), usize>>,
}

impl Table {
    pub(crate) async fn load(store: &dyn Store) -> Result<Self> {
        let mut index = HashMap::new();
        for entry in store.list("ns/").await?.entries {
            let mut parts = entry.key.split('/').skip(1);
            if let (Some(namespace), Some("volumes"), Some(_), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            {
                let record: VolumeRecord = types::record::decode(&entry.value)?;
                index.insert((namespace.parse()?, record.name.clone()), Arc::new(record));
            }
        }
        Ok(Self {
            index: RwLock::new(index),
            leased: Mutex::default(),
        })
    }

    fn get(&self, namespace: &Namespace, name: &VolumeName) -> Option<Arc<VolumeRecord>> {
        self.index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(namespace.clone(), name.clone()))
            .cloned()
    }

    fn of(&self, namespace: &Namespace) -> Vec<Arc<VolumeRecord>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut volumes: Vec<_> = index
            .iter()
            .filter(|((ns, _), _)| ns == namespace)
            .map(|(_, record)| record.clone())
            .collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        volumes
    }
}

/// Keeps a volume from being removed while a container that will use it is being made. A
/// volume made for that container goes again unless the lease is kept.
pub(crate) struct Lease {
    engine: Engine,
    namespace: Namespace,
    name: VolumeName,
    made: bool,
}

impl Lease {
    /// The container exists; the volume stays.
    pub(crate) fn keep(mut self) {
        self.made = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let key = (self.namespace.clone(), self.name.clone());
        let mut leased = self
            .engine
            .volumes
            .leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = leased.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                leased.remove(&key);
            }
        }
        if self.made {
            let (engine, scope, name) = (self.engine.clone(), Scope { namespace: key.0 }, key.1);
            tokio::spawn(async move {
                if let Err(error) = engine.volume_remove(&scope, name.as_str(), false).await {
                    tracing::warn!(volume = %name, %error, "undoing the creation of a volume");
                }
            });
        }
    }
}

impl Engine {
    /// Creates a volume; one that exists with the same driver is given back as it is.
    pub async fn volume_create(&self, scope: &Scope, request: VolumeCreate) -> Result<VolumeView> {
        let (record, lease) = self.volume_ensure(scope, request).await?;
        lease.keep();
        Ok(self.volume_view(&record))
    }

    /// Finds or makes a volume.
    pub(crate) async fn volume_ensure(
        &self,
        scope: &Scope,
        request: VolumeCreate,
    ) -> Result<(Arc<VolumeRecord>, Lease)> {
        let VolumeCreate {
            name,
            driver,
            options,
            mut labels,
        } = request;
        let driver = if driver.is_empty() {
            "local".to_owned()
        } else {
            driver
        };
        if driver != "local" {
            return Err(Error::not_found(format!(
                "error looking up volume plugin {driver}: plugin \"{driver}\" not found: this kraud has the volume driver local"
            )));
        }
        if let Some(option) = options.keys().next() {
            return Err(Error::invalid(format!(
                "invalid option {option:?} for volume driver local: this kraud keeps local volumes as plain directories and knows no options for them"
            )));
        }
        let anonymous = name.as_ref().is_none_or(String::is_empty);
        let name: VolumeName = match name.filter(|name| !name.is_empty()) {
            Some(name) => name.parse()?,
            None => types::id::random_hex().parse()?,
        };
        if anonymous {
            labels.insert(ANONYMOUS_LABEL.into(), String::new());
        }
        let mut lease = self.lease(scope, &name);
        if let Some(existing) = self.volumes.get(&scope.namespace, &name) {
            return Ok((existing, lease));
        }
        self.agent.volume_create(&name).await?;
        let record = VolumeRecord {
            name: name.clone(),
            driver,
            created: Time::now(),
            labels,
            options,
            anonymous,
        };
        let key = key::volume(&scope.namespace, &name);
        match self
            .store
            .commit(
                Txn::new()
                    .when(Guard::Absent(key.clone()))
                    .put(key, encode(&record)?),
            )
            .await
        {
            Ok(_) => {}
            // Two creates of one name at once: both get the volume.
            Err(store::Error::Conflict { .. }) => {
                if let Some(existing) = self.volumes.get(&scope.namespace, &name) {
                    return Ok((existing, lease));
                }
            }
            Err(error) => return Err(error.into()),
        }
        let record = Arc::new(record);
        self.volumes
            .index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((scope.namespace.clone(), name.clone()), record.clone());
        lease.made = true;
        self.volume_event(&scope.namespace, "create", &record, &[]);
        Ok((record, lease))
    }

    fn lease(&self, scope: &Scope, name: &VolumeName) -> Lease {
        let key = (scope.namespace.clone(), name.clone());
        *self
            .volumes
            .leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default() += 1;
        Lease {
            engine: self.clone(),
            namespace: scope.namespace.clone(),
            name: name.clone(),
            made: false,
        }
    }

    pub(crate) fn volume_event(
        &self,
        namespace: &Namespace,
        action: &str,
        record: &VolumeRecord,
        facts: &[(&str, String)],
    ) {
        let mut attributes: BTreeMap<String, String> = facts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        attributes.insert("driver".into(), record.driver.clone());
        self.events.publish(
            namespace,
            "volume",
            action,
            record.name.as_str(),
            attributes,
        );
    }

    fn volume_view(&self, record: &Arc<VolumeRecord>) -> VolumeView {
        VolumeView {
            mountpoint: self.agent.volume_path(&record.name),
            record: record.clone(),
            usage: None,
        }
    }

    fn volume_named(&self, scope: &Scope, name: &str) -> Result<Arc<VolumeRecord>> {
        name.parse()
            .ok()
            .and_then(|name| self.volumes.get(&scope.namespace, &name))
            .ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    /// A volume.
    pub fn volume_inspect(&self, scope: &Scope, name: &str) -> Result<VolumeView> {
        Ok(self.volume_view(&self.volume_named(scope, name)?))
    }

    /// Volumes of the namespace by name.
    pub fn volume_list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<VolumeView>> {
        filters.only(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let passes = |record: &Arc<VolumeRecord>| {
            filters.any("name", |part| record.name.as_str().contains(part))
                && filters.any("driver", |driver| record.driver == driver)
                && filters.labels("label", |label| {
                    record.labels.get(label).map(String::as_str)
                })
                && dangling.is_none_or(|dangling| {
                    dangling == self.volume_users(&scope.namespace, &record.name).is_empty()
                })
        };
        Ok(self
            .volumes
            .of(&scope.namespace)
            .iter()
            .filter(|record| passes(record))
            .map(|record| self.volume_view(record))
            .collect())
    }

    /// Ids of the containers that refer to a volume.
    fn volume_users(&self, namespace: &Namespace, name: &VolumeName) -> Vec<String> {
        self.containers
            .of(namespace)
            .iter()
            .filter(|container| {
                container
                    .record()
                    .mounts
                    .iter()
                    .any(|mount| mount.volume.as_ref() == Some(name))
            })
            .map(|container| container.id.to_string())
            .collect()
    }

    /// Removes a volume that nobody uses.
    pub async fn volume_remove(&self, scope: &Scope, name: &str, force: bool) -> Result<()> {
        let record = match self.volume_named(scope, name) {
            Err(_) if force => return Ok(()),
            other => other?,
        };
        let users = self.volume_users(&scope.namespace, &record.name);
        let leased = self
            .volumes
            .leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&(scope.namespace.clone(), record.name.clone()));
        if !users.is_empty() || leased {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        let record_key = key::volume(&scope.namespace, &record.name);
        self.store.commit(Txn::new().delete(record_key)).await?;
        self.volume_forget(&scope.namespace, &record.name).await;
        Ok(())
    }

    /// Whether a volume was made without a name and no other container refers to it.
    pub(crate) fn is_only_user(&self, container: &Container, name: &VolumeName) -> bool {
        let anonymous = self
            .volumes
            .get(&container.namespace, name)
            .is_some_and(|record| record.anonymous);
        let users = self.volume_users(&container.namespace, name);
        anonymous && users.iter().all(|user| user == container.id.as_str())
    }

    /// Removes what is left of a volume whose record is gone.
    pub(crate) async fn volume_forget(&self, namespace: &Namespace, name: &VolumeName) {
        let key = (namespace.clone(), name.clone());
        let record = self
            .volumes
            .index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        if let Err(error) = self.agent.volume_remove(name).await {
            tracing::warn!(volume = %name, %error, "the files of a removed volume are still there; the next start of kraud removes them");
        }
        if let Some(record) = record {
            self.volume_event(namespace, "destroy", &record, &[]);
        }
    }

    /// Removes unused volumes: those without a name, with the filter `all=true` any.
    pub async fn volume_prune(&self, scope: &Scope, filters: &Filters) -> Result<Pruned> {
        filters.only(&["all", "label", "label!"])?;
        let all = filters.boolean("all")?.unwrap_or(false);
        let mut pruned = Pruned::default();
        for record in self.volumes.of(&scope.namespace) {
            let wanted = (all || record.anonymous)
                && crate::system::labels_pass(filters, |label| {
                    record.labels.get(label).map(String::as_str)
                })
                && self.volume_users(&scope.namespace, &record.name).is_empty();
            if !wanted {
                continue;
            }
            let size = self.agent.volume_size(&record.name).await.unwrap_or(0);
            match self.volume_remove(scope, record.name.as_str(), false).await {
                Ok(()) => {
                    pruned.deleted.push(record.name.to_string());
                    pruned.space_reclaimed += size;
                }
                Err(error) => tracing::warn!(volume = %record.name, %error, "pruning a volume"),
            }
        }
        self.prune_event(scope, "volume", pruned.space_reclaimed);
        Ok(pruned)
    }

    /// All volumes with their use, for `docker system df`.
    pub(crate) async fn volumes_with_usage(&self, scope: &Scope) -> Vec<VolumeView> {
        let mut views = Vec::new();
        for record in self.volumes.of(&scope.namespace) {
            let size = self.agent.volume_size(&record.name).await.unwrap_or(0);
            let references = self.volume_users(&scope.namespace, &record.name).len();
            views.push(VolumeView {
                usage: Some(VolumeUsage { references, size }),
                ..self.volume_view(&record)
            });
        }
        views
    }

    /// Names of the volumes that exist, for the agent to tell its own from leftovers.
    pub(crate) fn volume_names(&self) -> Vec<VolumeName> {
        self.volumes
            .index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .map(|(_, name)| name.clone())
            .collect()
    }
}
