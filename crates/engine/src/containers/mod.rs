//! Containers: their table in memory, and one file per group of operations.
//!
//! Locking: `Container::op` is held by whatever changes a container's life (start, removal,
//! the handling of an exit); it is never held while waiting for a container to end. The
//! observed state is a watch channel, so that anybody can wait for a change of it.

mod archive;
mod commit;
mod create;
mod io;
mod links;
mod list;
mod merge;
mod monitor;
mod mounts;
mod plan;
mod remove;
mod run;
mod stats;
mod stop;
mod support;
mod update;
mod validate;
mod wait;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use store::{Guard, Store, Txn};
use tokio::sync::watch;
use types::{
    ContainerId, ContainerName, Error, Kind, Namespace, Result, container::EndpointSettings,
    state::Status,
};

pub(crate) use self::writer::StateWriter;
pub use self::{stats::StatsStream, wait::Waiter};
use crate::{
    Engine, Scope,
    record::{ContainerRecord, ObservedRecord, key},
    view::{ContainerView, Files},
};

/// One container in memory.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) namespace: Namespace,
    record: RwLock<Arc<ContainerRecord>>,
    pub(crate) observed: watch::Sender<ObservedRecord>,
    /// See the module's head.
    pub(crate) op: tokio::sync::Mutex<()>,
    /// True once it is gone for good.
    pub(crate) removed: watch::Sender<bool>,
    /// The restart policy's current pause.
    pub(crate) backoff: Mutex<std::time::Duration>,
    /// The running health check.
    pub(crate) health: Mutex<Option<tokio::task::AbortHandle>>,
    /// Attaches that came before the start: the process waits for the first of them.
    pub(crate) early_attaches: std::sync::atomic::AtomicUsize,
    /// Counts starts; tells early attaches that one is under way.
    pub(crate) starting: watch::Sender<u64>,
    /// A `docker restart` is under way: its stop must not remove an AutoRemove container.
    pub(crate) restarting: std::sync::atomic::AtomicBool,
}

impl Container {
    fn new(record: ContainerRecord, observed: ObservedRecord) -> Self {
        Self {
            id: record.id.clone(),
            namespace: record.namespace.clone(),
            record: RwLock::new(Arc::new(record)),
            observed: watch::Sender::new(observed),
            op: tokio::sync::Mutex::default(),
            removed: watch::Sender::new(false),
            backoff: Mutex::default(),
            health: Mutex::default(),
            early_attaches: std::sync::atomic::AtomicUsize::new(0),
            starting: watch::Sender::new(0),
            restarting: std::sync::atomic::AtomicBool::new(false),
        }
    }

    pub(crate) fn record(&self) -> Arc<ContainerRecord> {
        self.record
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
    pub(crate) fn status(&self) -> Status {
        self.observed.borrow().state.status
    }
    pub(crate) fn is_running(&self) -> bool {
        self.observed.borrow().state.is_running()
    }
    pub(crate) fn set_record(&self, record: ContainerRecord) {
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
    }
}

/// All containers of all namespaces.
#[derive(Default)]
pub(crate) struct Table(RwLock<Index>);

#[derive(Default)]
struct Index {
    by_id: HashMap<ContainerId, Arc<Container>>,
    by_name: HashMap<(Namespace, ContainerName), ContainerId>,
    /// Whether there ever was a container with links: most hosts have none, and need not look.
    any_links: bool,
}

fn has_links(container: &Container) -> bool {
    let record = container.record();
    record
        .host
        .links
        .as_ref()
        .is_some_and(|links| !links.is_empty())
}

impl Table {
    /// All containers that the store knows.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self> {
        let mut specs = Vec::new();
        let mut states = BTreeMap::new();
        for entry in store.list("ns/").await?.entries {
            let parts: Vec<&str> = entry.key.split('/').collect();
            match parts.as_slice() {
                [_, _, "containers", _, "spec"] => {
                    specs.push(types::record::decode::<ContainerRecord>(&entry.value)?)
                }
                [_, _, "containers", id, "state"] => {
                    states.insert(
                        (*id).to_owned(),
                        types::record::decode::<ObservedRecord>(&entry.value)?,
                    );
                }
                _ => {}
            }
        }
        let table = Self::default();
        for spec in specs {
            let observed = states.remove(spec.id.as_str()).unwrap_or_default();
            table.insert(Arc::new(Container::new(spec, observed)));
        }
        Ok(table)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, container: Arc<Container>) {
        let mut index = self.write();
        index.by_name.insert(
            (container.namespace.clone(), container.record().name.clone()),
            container.id.clone(),
        );
        index.any_links |= has_links(&container);
        index.by_id.insert(container.id.clone(), container);
    }

    fn forget(&self, container: &Container) {
        let mut index = self.write();
        let name = (container.namespace.clone(), container.record().name.clone());
        if index.by_name.get(&name) == Some(&container.id) {
            index.by_name.remove(&name);
        }
        index.by_id.remove(&container.id);
    }

    /// The holder of a name.
    pub(crate) fn holder(
        &self,
        namespace: &Namespace,
        name: &ContainerName,
    ) -> Option<ContainerId> {
        self.read()
            .by_name
            .get(&(namespace.clone(), name.clone()))
            .cloned()
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.read().by_id.get(id).cloned()
    }

    /// All containers of a namespace, in no order.
    pub(crate) fn of(&self, namespace: &Namespace) -> Vec<Arc<Container>> {
        self.read()
            .by_id
            .values()
            .filter(|container| container.namespace == *namespace)
            .cloned()
            .collect()
    }

    /// Those containers of a namespace that have legacy links.
    fn with_links(&self, namespace: &Namespace) -> Vec<Arc<Container>> {
        let index = self.read();
        if !index.any_links {
            return Vec::new();
        }
        index
            .by_id
            .values()
            .filter(|container| container.namespace == *namespace && has_links(container))
            .cloned()
            .collect()
    }

    /// All containers.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    /// By full id, name, or unambiguous prefix of an id, in docker's order.
    pub(crate) fn find(&self, scope: &Scope, wanted: &str) -> Result<Arc<Container>> {
        let index = self.read();
        let visible = |container: &&Arc<Container>| container.namespace == scope.namespace;
        if let Some(container) = wanted
            .parse()
            .ok()
            .and_then(|id: ContainerId| index.by_id.get(&id))
            .filter(visible)
        {
            return Ok(container.clone());
        }
        if let Ok(name) = wanted.parse::<ContainerName>()
            && let Some(container) = index
                .by_name
                .get(&(scope.namespace.clone(), name))
                .and_then(|id| index.by_id.get(id))
        {
            return Ok(container.clone());
        }
        if let Some((parent, alias)) = wanted.trim_start_matches('/').split_once('/')
            && let Ok(parent) = parent.parse::<ContainerName>()
            && let Some(container) = index
                .by_name
                .get(&(scope.namespace.clone(), parent))
                .and_then(|id| index.by_id.get(id))
                .and_then(|parent| links::target(&parent.record(), alias)?.parse().ok())
                .and_then(|id: ContainerId| index.by_id.get(&id))
        {
            return Ok(container.clone());
        }
        let is_prefix = !wanted.is_empty() && wanted.bytes().all(|b| b.is_ascii_hexdigit());
        let mut found = index
            .by_id
            .values()
            .filter(visible)
            .filter(|c| is_prefix && c.id.as_str().starts_with(wanted));
        match (found.next(), found.next()) {
            (Some(container), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "Multiple IDs found with provided prefix: {wanted}"
            ))),
            _ => Err(Error::not_found(format!("No such container: {wanted}"))),
        }
    }
}

/// Whether `text` names a signal.
pub(crate) fn check_signal(text: &str) -> Result<()> {
    stop::parse_signal(text).map(drop)
}

/// docker's words for a name that is taken.
fn name_conflict(name: &ContainerName, holder: &str) -> Error {
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    ))
}

impl Engine {
    /// The container that a caller means.
    pub(crate) fn container(&self, scope: &Scope, name: &str) -> Result<Arc<Container>> {
        self.containers.find(scope, name)
    }

    /// Changes the observed state, writes it down and wakes whoever waits for it.
    pub(crate) fn observe(&self, container: &Container, change: impl FnOnce(&mut ObservedRecord)) {
        container.observed.send_modify(change);
        self.writer.write(
            key::state(&container.namespace, &container.id),
            &*container.observed.borrow(),
        );
    }

    /// Changes the desired state, durably.
    pub(crate) async fn desire(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<()> {
        let before = container.record();
        let mut record = (*before).clone();
        change(&mut record);
        let spec = key::spec(&container.namespace, &container.id);
        let value = types::record::encode(&record)?;
        self.store
            .commit(
                Txn::new()
                    .when(Guard::Present(spec.clone()))
                    .put(spec, value),
            )
            .await?;
        container.set_record(record);
        Ok(())
    }

    /// Tells listeners that `action` happened to a container, with docker's attributes.
    pub(crate) fn container_event(
        &self,
        container: &Container,
        action: impl Into<String>,
        facts: &[(&str, String)],
    ) {
        let record = container.record();
        let mut attributes = record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.to_string());
        attributes.extend(
            facts
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        self.events.publish(
            &container.namespace,
            "container",
            action,
            container.id.as_str(),
            attributes,
        );
    }

    /// Renames a container; its old name is free at once.
    pub async fn container_rename(&self, scope: &Scope, name: &str, new: &str) -> Result<()> {
        if new.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let container = self.container(scope, name)?;
        let new: ContainerName = new.parse()?;
        let _op = container.op.lock().await;
        let before = container.record();
        if before.name == new {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        let mut record = (*before).clone();
        record.name = new.clone();
        let new_key = key::name(&container.namespace, &new);
        let txn = Txn::new()
            .when(Guard::Absent(new_key.clone()))
            .delete(key::name(&container.namespace, &before.name))
            .put(new_key, container.id.as_str().to_owned())
            .put(
                key::spec(&container.namespace, &container.id),
                types::record::encode(&record)?,
            );
        match self.store.commit(txn).await {
            Ok(_) => {}
            Err(store::Error::Conflict { .. }) => {
                let holder = self.containers.holder(&container.namespace, &new);
                return Err(name_conflict(
                    &new,
                    holder.as_ref().map_or("", ContainerId::as_str),
                ));
            }
            Err(error) => return Err(error.into()),
        }
        self.containers.forget(&container);
        container.set_record(record);
        self.containers.insert(container.clone());
        let endpoints = container.observed.borrow().endpoints.clone();
        self.publish_names(&container.namespace, endpoints.into_keys().collect())
            .await;
        self.container_event(
            &container,
            "rename",
            &[("oldName", format!("/{}", before.name))],
        );
        Ok(())
    }

    /// A container as it is now; `size` also counts bytes.
    pub async fn container_inspect(
        &self,
        scope: &Scope,
        name: &str,
        size: bool,
    ) -> Result<ContainerView> {
        let container = self.container(scope, name)?;
        self.view(&container, size).await
    }

    pub(crate) async fn view(&self, container: &Container, size: bool) -> Result<ContainerView> {
        let record = container.record();
        let observed = container.observed.borrow().clone();
        let (size_rw, size_root) = if size {
            let written = self.agent.size_rw(&container.id).await?;
            let image = self.image_size(&container.namespace, &record.image).await;
            (Some(written), Some(written + image))
        } else {
            (None, None)
        };
        let paths = self.agent.paths(&container.id).await?;
        let lower: Vec<String> = record
            .layers
            .iter()
            .rev()
            .map(|layer| {
                paths
                    .layers
                    .join(layer.hex())
                    .join("tree")
                    .display()
                    .to_string()
            })
            .collect();
        let mut ports: BTreeMap<_, _> = BTreeMap::new();
        if observed.state.is_running() {
            for port in record
                .config
                .exposed_ports
                .iter()
                .flatten()
                .filter_map(|(port, _)| port.parse().ok())
            {
                ports.insert(port, None);
            }
            ports.extend(
                observed
                    .ports
                    .into_iter()
                    .map(|(port, bindings)| (port, Some(bindings))),
            );
        }
        Ok(ContainerView {
            endpoints: self.endpoints_of(&record, &observed.endpoints),
            state: observed.state,
            ports,
            sandbox_key: observed.sandbox_key,
            files: Files {
                log: paths.log,
                resolv_conf: paths.resolv_conf,
                hosts: paths.hosts,
                hostname: paths.hostname,
                lower: lower.join(":"),
                upper: paths.upper,
                work: paths.work,
                merged: paths.merged,
            },
            exec_ids: self.execs.of(&container.id),
            size_rw,
            size_root,
            link_names: self.link_names(container),
            record: self.with_shown_links(&record).map_or(record, Arc::new),
        })
    }

    /// The endpoints to show: those in use, else those asked for.
    fn endpoints_of(
        &self,
        record: &ContainerRecord,
        in_use: &BTreeMap<String, EndpointSettings>,
    ) -> BTreeMap<String, EndpointSettings> {
        let mut shown = record.endpoints.clone();
        shown.extend(
            in_use
                .iter()
                .map(|(name, endpoint)| (name.clone(), endpoint.clone())),
        );
        shown
    }

    /// Fails with docker's words unless the container runs.
    pub(crate) fn must_run(&self, container: &Container) -> Result<()> {
        match container.status() {
            Status::Running => Ok(()),
            Status::Paused => Err(Error::conflict(format!(
                "Container {} is paused, unpause the container before exec",
                container.id
            ))),
            Status::Restarting => Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            ))),
            _ => Err(Error::new(
                Kind::Conflict,
                format!("container {} is not running", container.id),
            )),
        }
    }
}
