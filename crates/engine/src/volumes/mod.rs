//! Volumes: creating, finding and removing them.
//!
//! A volume's record comes before its dataset and goes after it, with a phase that says what is
//! going on, so that whatever a crash cuts off is finished at the next start. A dataset that no
//! record knows is never removed: it is somebody's data.

mod classes;
mod details;
mod recover;
mod resize;
pub(crate) mod table;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use futures_util::StreamExt as _;
use store::{Guard, Txn};
use types::{
    Error, Filters, Kind, Namespace, NodeId, Result, Time, VolumeId, VolumeName,
    record::encode,
    volume::{Content, options},
};

pub(crate) use self::{
    details::must_be_ready,
    table::{Table, Volume},
};
use crate::{
    Engine, Scope,
    containers::Container,
    record::{OriginRecord, VolumePhase, VolumeRecord, key},
    request::VolumeCreate,
    tenants::policy,
    view::{Pruned, VolumeUsage, VolumeView},
};

/// docker's mark of a volume that was made without a name.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// Keeps a volume from being removed while a container that will use it is being made. A
/// volume made for that container goes again unless the lease is kept.
pub(crate) struct Lease {
    engine: Engine,
    volume: Arc<Volume>,
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
        let mut leased = self
            .engine
            .volumes
            .leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = leased.get_mut(&self.volume.id) {
            *count -= 1;
            if *count == 0 {
                leased.remove(&self.volume.id);
            }
        }
        drop(leased);
        if self.made {
            let (engine, volume) = (self.engine.clone(), self.volume.clone());
            tokio::spawn(async move {
                if let Err(error) = engine.remove_unused(&volume).await {
                    tracing::warn!(volume = %volume.record().name, %error, "undoing the creation of a volume");
                }
            });
        }
    }
}

impl Engine {
    /// Creates a volume; one that exists with the same class is given back as it is.
    pub async fn volume_create(&self, scope: &Scope, request: VolumeCreate) -> Result<VolumeView> {
        let (volume, lease) = self.volume_ensure(scope, request).await?;
        lease.keep();
        self.volume_view(&volume).await
    }

    /// Finds or makes a volume.
    pub(crate) async fn volume_ensure(
        &self,
        scope: &Scope,
        request: VolumeCreate,
    ) -> Result<(Arc<Volume>, Lease)> {
        let anonymous = request.name.as_ref().is_none_or(String::is_empty);
        let name: VolumeName = match request.name.as_ref().filter(|name| !name.is_empty()) {
            Some(name) => name.parse()?,
            None => types::id::random_hex().parse()?,
        };
        if let Some(existing) = self.volumes.named(&scope.namespace, &name) {
            same_class(&existing.record(), &request.driver)?;
            let lease = self.lease(&existing, false);
            // Somebody else may be making it right now.
            drop(existing.op.lock().await);
            return Ok((existing, lease));
        }
        let record = self.new_volume(scope, name, anonymous, request).await?;
        let _turn = self.room_for_volume(&record, record.bytes(), 0).await?;
        self.make_volume(record).await
    }

    /// Records a new volume and has it made.
    async fn make_volume(&self, record: VolumeRecord) -> Result<(Arc<Volume>, Lease)> {
        let (namespace, name) = (record.namespace.clone(), record.name.clone());
        let name_key = key::volume_name(&namespace, &name);
        let txn = Txn::new()
            .when(Guard::Absent(name_key.clone()))
            .put(name_key, record.id.as_str().to_owned())
            .put(key::volume(&namespace, &record.id), encode(&record)?);
        match self.store.commit(txn).await {
            Ok(_) => {}
            // Two creates of one name at once: both get the volume.
            Err(store::Error::Conflict { .. }) => {
                return self.other_volume(&namespace, &name).await;
            }
            Err(error) => return Err(error.into()),
        }
        let volume = self.volumes.insert(record);
        let op = volume.op.lock().await;
        let lease = self.lease(&volume, true);
        let created = match fault::step("engine.create.recorded") {
            Ok(()) => self.create_on_node(&volume).await,
            Err(error) => Err(error),
        };
        if let Err(error) = created {
            let mut lease = lease;
            lease.made = false;
            self.undo_creation(&volume).await;
            drop(op);
            return Err(error);
        }
        drop(op);
        self.volume_event(&volume.record(), "create", &[]);
        Ok((volume, lease))
    }

    /// Removes a volume whose creation failed. Its name is free at once, and recorded first is
    /// that it goes: else a start of kraud would make what its caller was told does not exist.
    async fn undo_creation(&self, volume: &Volume) {
        let record = volume.record();
        self.settle_record(&record).await;
        let undone = async {
            self.store.commit(removal(Txn::new(), &record)?).await?;
            self.forget_volume(volume).await
        };
        if let Err(error) = undone.await {
            tracing::warn!(volume = %record.name, %error, "undoing the creation of a volume; kraud tries again later");
        }
    }

    async fn other_volume(
        &self,
        namespace: &Namespace,
        name: &VolumeName,
    ) -> Result<(Arc<Volume>, Lease)> {
        // Recorded an instant ago: it enters the table in another.
        for _ in 0..100 {
            if let Some(other) = self.volumes.named(namespace, name) {
                let lease = self.lease(&other, false);
                drop(other.op.lock().await);
                return Ok((other, lease));
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Err(Error::conflict(format!(
            "volume {name} is being created by another call: try again"
        )))
    }

    /// Has the node make what is recorded; the caller holds `op`.
    async fn create_on_node(&self, volume: &Volume) -> Result<()> {
        let record = volume.record();
        let origin = match &record.phase {
            VolumePhase::Creating { origin } => origin.as_ref(),
            _ => None,
        };
        let origin = origin.map(|origin| agent::volumes::Origin {
            volume: origin.volume.clone(),
            snapshot: origin.snapshot.clone(),
        });
        self.agent
            .volume_create(&record.plan(), origin.as_ref())
            .await?;
        fault::step("engine.create.made")?;
        self.apply_limit(volume).await?;
        fault::step("engine.create.limited")?;
        let mut record = (*record).clone();
        record.phase = VolumePhase::Ready;
        // Written behind: a volume that is there and recorded as being created is taken up.
        self.writer
            .write(key::volume(&record.namespace, &record.id), &record);
        volume.set_record(record);
        Ok(())
    }

    /// What is to be recorded of a volume, if it can be had here.
    async fn new_volume(
        &self,
        scope: &Scope,
        name: VolumeName,
        anonymous: bool,
        request: VolumeCreate,
    ) -> Result<VolumeRecord> {
        policy::volume_options(scope, request.options.keys().map(String::as_str))?;
        let VolumeCreate {
            driver,
            options,
            mut labels,
            ..
        } = request;
        let spec = options::parse(&driver, &options)?;
        if anonymous {
            labels.insert(ANONYMOUS_LABEL.into(), String::new());
        }
        let origin = match &spec.from {
            None => None,
            Some(from) => {
                let source = self.volume_named(scope, from.volume.as_str())?;
                let snapshot = from.snapshot.as_ref();
                let snapshot = snapshot
                    .map(|name| source.snapshot(name.as_str()))
                    .transpose()?;
                Some((source, snapshot))
            }
        };
        let now = Time::now();
        let settled = self.settle_class(&spec, origin.as_ref()).await?;
        let phase = VolumePhase::Creating {
            origin: origin.map(|(source, snapshot)| OriginRecord {
                volume: source.id.clone(),
                snapshot: snapshot.map(|snapshot| snapshot.id.clone()),
            }),
        };
        Ok(VolumeRecord {
            id: VolumeId::random(),
            namespace: scope.namespace.clone(),
            name,
            driver: if driver.is_empty() {
                "local".to_owned()
            } else {
                driver
            },
            class: spec.class,
            created: now,
            labels,
            options,
            anonymous,
            node: NodeId::local(),
            pool: settled.pool,
            content: settled.content,
            fs: settled.fs,
            size: settled.size,
            zone: settled.zone,
            // A volume without a name lives as long as its container: nobody rolls it back.
            schedule: if anonymous && spec.schedule.is_none() {
                types::volume::schedule::Schedule::NONE
            } else {
                spec.schedule()
            },
            scheduled: now,
            phase,
            restart: Vec::new(),
        })
    }

    fn lease(&self, volume: &Arc<Volume>, made: bool) -> Lease {
        *self
            .volumes
            .leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(volume.id.clone())
            .or_default() += 1;
        Lease {
            engine: self.clone(),
            volume: volume.clone(),
            made,
        }
    }

    pub(crate) fn volume_event(
        &self,
        record: &VolumeRecord,
        action: &str,
        facts: &[(&str, String)],
    ) {
        let mut attributes: BTreeMap<String, String> = facts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        attributes.insert("driver".into(), record.driver.clone());
        self.events.publish(
            &record.namespace,
            "volume",
            action,
            record.name.as_str(),
            attributes,
        );
    }

    /// The volume that a caller means.
    pub(crate) fn volume_named(&self, scope: &Scope, name: &str) -> Result<Arc<Volume>> {
        name.parse()
            .ok()
            .and_then(|name| self.volumes.named(&scope.namespace, &name))
            .ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    /// Volumes of the namespace by name.
    pub async fn volume_list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<VolumeView>> {
        filters.only(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let passes = |volume: &Arc<Volume>| {
            let record = volume.record();
            filters.any("name", |part| record.name.as_str().contains(part))
                && filters.any("driver", |driver| {
                    record.driver == driver || record.class.as_str() == driver
                })
                && filters.labels("label", |label| {
                    record.labels.get(label).map(String::as_str)
                })
                && dangling.is_none_or(|dangling| dangling == self.users_of(&record).is_empty())
        };
        let mut volumes = self.volumes.of(&scope.namespace);
        volumes.retain(passes);
        self.volume_views(&volumes).await
    }

    /// The containers that refer to a volume.
    pub(crate) fn users_of(&self, record: &VolumeRecord) -> Vec<Arc<Container>> {
        let mut users = self.containers.of(&record.namespace);
        users.retain(|container| {
            let mut mounts = container.record().mounts.clone().into_iter();
            mounts.any(|mount| mount.volume.as_ref() == Some(&record.name))
        });
        users
    }

    /// Removes a volume that nobody uses.
    pub async fn volume_remove(&self, scope: &Scope, name: &str, force: bool) -> Result<()> {
        match self.volume_named(scope, name) {
            Err(_) if force => Ok(()),
            Err(error) => Err(error),
            Ok(volume) => self.remove_unused(&volume).await,
        }
    }

    async fn remove_unused(&self, volume: &Arc<Volume>) -> Result<()> {
        let _op = volume.op.lock().await;
        let record = volume.record();
        if record.phase == VolumePhase::Removing {
            return Ok(());
        }
        let users = self.users_of(&record);
        let leased = self
            .volumes
            .leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&volume.id);
        if !users.is_empty() || leased {
            let ids: Vec<&str> = users.iter().map(|user| user.id.as_str()).collect();
            return Err(Error::conflict(format!(
                "remove {}: volume is in use - [{}]",
                record.name,
                ids.join(", ")
            )));
        }
        self.settle_record(&record).await;
        self.store.commit(removal(Txn::new(), &record)?).await?;
        self.volume_gone(volume).await;
        Ok(())
    }

    /// A write of the record that is still queued must not come after one that is made now.
    async fn settle_record(&self, record: &VolumeRecord) {
        self.writer
            .forget(key::volume(&record.namespace, &record.id))
            .await;
    }

    /// Writes a changed record down and takes it for true. The caller holds `op`.
    pub(crate) async fn commit_volume(&self, volume: &Volume, record: VolumeRecord) -> Result<()> {
        self.settle_record(&record).await;
        let record_key = key::volume(&record.namespace, &record.id);
        let txn = Txn::new()
            .when(Guard::Present(record_key.clone()))
            .put(record_key, encode(&record)?);
        self.store.commit(txn).await?;
        volume.set_record(record);
        Ok(())
    }

    /// Whether a volume was made without a name and no other container refers to it.
    pub(crate) fn is_only_user(&self, container: &Container, name: &VolumeName) -> bool {
        let Some(volume) = self.volumes.named(&container.namespace, name) else {
            return false;
        };
        let record = volume.record();
        record.anonymous
            && self
                .users_of(&record)
                .iter()
                .all(|user| user.id == container.id)
    }

    /// Adds to a transaction that these volumes are to be removed; `volume_gone` follows.
    pub(crate) async fn volumes_to_remove(
        &self,
        namespace: &Namespace,
        names: &[VolumeName],
        mut txn: Txn,
    ) -> Result<(Txn, Vec<Arc<Volume>>)> {
        let mut volumes = Vec::new();
        for name in names {
            if let Some(volume) = self.volumes.named(namespace, name) {
                let record = volume.record();
                self.settle_record(&record).await;
                txn = removal(txn, &record)?;
                volumes.push(volume);
            }
        }
        Ok((txn, volumes))
    }

    /// Removes from the node what is recorded as being removed. When that fails `tidy_volumes`
    /// goes on with it.
    pub(crate) async fn volume_gone(&self, volume: &Volume) {
        let record = volume.record();
        self.volume_event(&record, "destroy", &[]);
        if let Err(error) = self.forget_volume(volume).await {
            tracing::warn!(volume = %record.name, %error, "a removed volume is still on its pool; kraud tries again later");
        }
    }

    pub(super) async fn forget_volume(&self, volume: &Volume) -> Result<()> {
        let before = volume.record();
        self.volumes.hide(volume);
        let mut record = (*before).clone();
        record.phase = VolumePhase::Removing;
        let volume_key = key::volume(&record.namespace, &record.id);
        self.writer.forget(volume_key.clone()).await;
        volume.set_record(record.clone());
        fault::step("engine.remove.recorded")?;
        match self.agent.volume_remove(&record.plan()).await {
            Err(error) if error.kind != Kind::NotFound => return Err(error),
            _ => {}
        }
        fault::step("engine.remove.gone")?;
        let txn = Txn::new()
            .delete(volume_key)
            .delete_prefix(key::snapshots(&record.namespace, &record.id));
        // A creation that failed still has its name.
        let name_key = key::volume_name(&record.namespace, &record.name);
        let holder = self.store.get(&name_key).await?;
        let txn = match holder {
            Some(entry) if entry.value == record.id.as_str().as_bytes() => txn.delete(name_key),
            _ => txn,
        };
        self.store.commit(txn).await?;
        self.volumes.forget(volume);
        fault::step("engine.remove.forgotten")
    }

    /// Removes unused volumes: those without a name, with the filter `all=true` any.
    pub async fn volume_prune(&self, scope: &Scope, filters: &Filters) -> Result<Pruned> {
        filters.only(&["all", "label", "label!"])?;
        let all = filters.boolean("all")?.unwrap_or(false);
        let mut pruned = Pruned::default();
        for volume in self.volumes.of(&scope.namespace) {
            let record = volume.record();
            let wanted = (all || record.anonymous)
                && crate::system::labels_pass(filters, |label| {
                    record.labels.get(label).map(String::as_str)
                })
                && self.users_of(&record).is_empty();
            if !wanted {
                continue;
            }
            let usage = self.agent.volume_usage(&record.plan()).await;
            let size = usage.map_or(0, |usage| usage.live + usage.snapshots);
            match self.remove_unused(&volume).await {
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
        let volumes = futures_util::stream::iter(self.volumes.of(&scope.namespace));
        let views = volumes.map(|volume| async move {
            let record = volume.record();
            let usage = self.agent.volume_usage(&record.plan()).await;
            let references = self.users_of(&record).len();
            let view = self.volume_view(&volume).await.ok()?;
            Some(VolumeView {
                usage: Some(VolumeUsage {
                    references,
                    size: usage.map_or(0, |usage| usage.live + usage.snapshots),
                }),
                ..view
            })
        });
        let views = views.buffered(MEASURED_AT_ONCE);
        views.filter_map(std::future::ready).collect().await
    }
}

/// Measuring waits for disks, and those who wait at once share what is waited for.
const MEASURED_AT_ONCE: usize = 32;

/// Adds to a transaction that a volume is to be removed and that its name is free.
fn removal(txn: Txn, record: &VolumeRecord) -> Result<Txn> {
    let mut record = record.clone();
    record.phase = VolumePhase::Removing;
    Ok(txn
        .delete(key::volume_name(&record.namespace, &record.name))
        .put(key::volume(&record.namespace, &record.id), encode(&record)?))
}

/// A create of a volume that exists must not ask for another class (docker's words).
fn same_class(record: &VolumeRecord, driver: &str) -> Result<()> {
    if driver.is_empty() || driver.parse().ok() == Some(record.class) {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "create {0}: conflict: volume name must be unique: volume {0} exists with driver {1}",
        record.name, record.driver
    )))
}

/// What a class and its options come to on this installation.
pub(crate) struct Settled {
    pub(crate) pool: types::PoolName,
    pub(crate) content: Content,
    pub(crate) fs: types::volume::FileSystem,
    pub(crate) size: Option<u64>,
    pub(crate) zone: String,
}
