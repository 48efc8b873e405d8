//! All volumes and snapshots in memory, as they are recorded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use store::{Guard, Store, Txn};
use types::{
    Error, Namespace, Result, SnapshotId, SnapshotName, Time, VolumeId, VolumeName,
    record::encode,
    volume::{
        quota::Droppable,
        schedule::{Automatic, age_order},
    },
};

use crate::record::{
    SnapshotOrigin, SnapshotPhase, SnapshotRecord, VolumePhase, VolumeRecord, key,
};

/// One volume in memory.
pub(crate) struct Volume {
    pub(crate) id: VolumeId,
    record: RwLock<Arc<VolumeRecord>>,
    snapshots: RwLock<Vec<Arc<SnapshotRecord>>>,
    /// Held by whatever changes the volume as a whole: removal, snapshot, rollback, resize.
    pub(crate) op: tokio::sync::Mutex<()>,
    /// What is wrong with it, for people; empty when nothing is.
    pub(crate) trouble: Mutex<String>,
    /// Held while snapshots are dropped for space.
    pub(crate) relieving: tokio::sync::Mutex<()>,
}

impl Volume {
    fn new(record: VolumeRecord) -> Self {
        Self {
            id: record.id.clone(),
            record: RwLock::new(Arc::new(record)),
            snapshots: RwLock::default(),
            op: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
            relieving: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn record(&self) -> Arc<VolumeRecord> {
        self.record
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
    pub(crate) fn set_record(&self, record: VolumeRecord) {
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
    }
    pub(crate) fn set_trouble(&self, trouble: impl Into<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble.into();
    }

    fn lock_snapshots(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Arc<SnapshotRecord>>> {
        self.snapshots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
    /// All snapshots on record, whatever is going on with them, the oldest first.
    pub(crate) fn all_snapshots(&self) -> Vec<Arc<SnapshotRecord>> {
        self.snapshots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
    /// The snapshots that are there, the oldest first.
    pub(crate) fn snapshots(&self) -> Vec<Arc<SnapshotRecord>> {
        let mut snapshots = self.all_snapshots();
        snapshots.retain(|snapshot| snapshot.phase == SnapshotPhase::Ready);
        snapshots
    }
    /// The snapshot with this name.
    pub(crate) fn snapshot(&self, name: &str) -> Result<Arc<SnapshotRecord>> {
        self.snapshots()
            .into_iter()
            .find(|snapshot| snapshot.name.as_str() == name)
            .ok_or_else(|| {
                Error::not_found(format!(
                    "no such snapshot: volume {} has no snapshot {name:?} (kra volume snapshot ls {0} lists them)",
                    self.record().name
                ))
            })
    }
    pub(crate) fn put_snapshot(&self, record: SnapshotRecord) {
        let mut snapshots = self.lock_snapshots();
        snapshots.retain(|snapshot| snapshot.id != record.id);
        let at = snapshots.partition_point(|snapshot| snapshot.created <= record.created);
        snapshots.insert(at, Arc::new(record));
    }
    pub(crate) fn drop_snapshot(&self, id: &SnapshotId) {
        self.lock_snapshots().retain(|snapshot| snapshot.id != *id);
    }
    /// Whether a name is taken, even by a snapshot that is just coming or going.
    pub(crate) fn has_snapshot(&self, name: &SnapshotName) -> bool {
        self.all_snapshots()
            .iter()
            .any(|snapshot| snapshot.name == *name)
    }
    /// The automatic snapshots, as the schedule wants to know them.
    pub(crate) fn automatic(&self) -> Vec<(Automatic, Arc<SnapshotRecord>)> {
        let mut automatic = Vec::new();
        for snapshot in self.snapshots() {
            if let SnapshotOrigin::Automatic(period) = snapshot.origin {
                let time = snapshot.created;
                automatic.push((Automatic { period, time }, snapshot));
            }
        }
        automatic
    }
    /// Which of its snapshots can be dropped for space.
    pub(crate) fn droppable(&self) -> Droppable {
        match self.next_to_drop().map(|snapshot| snapshot.origin) {
            Some(SnapshotOrigin::Automatic(_)) => Droppable::Automatic,
            Some(SnapshotOrigin::Safety) => Droppable::Safety,
            Some(SnapshotOrigin::User) | None => Droppable::None,
        }
    }
    /// The snapshot to go first when space is needed: the oldest automatic one, then the oldest
    /// that a rollback left. Those that users made never go.
    pub(crate) fn next_to_drop(&self) -> Option<Arc<SnapshotRecord>> {
        let now = Time::now();
        let order = |snapshot: &Arc<SnapshotRecord>| match snapshot.origin {
            SnapshotOrigin::User => None,
            SnapshotOrigin::Automatic(_) => Some((0, age_order(snapshot.created, now))),
            SnapshotOrigin::Safety => Some((1, age_order(snapshot.created, now))),
        };
        self.snapshots()
            .into_iter()
            .filter_map(|snapshot| Some((order(&snapshot)?, snapshot)))
            .min_by_key(|(order, _)| *order)
            .map(|(_, snapshot)| snapshot)
    }
}

/// All volumes.
#[derive(Default)]
pub(crate) struct Table {
    index: RwLock<Index>,
    /// Volumes that a create under way has found or made and not yet recorded a mount of.
    pub(super) leased: Mutex<HashMap<VolumeId, usize>>,
}

#[derive(Default)]
struct Index {
    by_id: HashMap<VolumeId, Arc<Volume>>,
    by_name: HashMap<(Namespace, VolumeName), VolumeId>,
}

impl Table {
    /// All volumes that the store knows. Records of earlier versions are written anew.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self> {
        let table = Self::default();
        let mut snapshots = Vec::new();
        for entry in store.list("ns/").await?.entries {
            let parts: Vec<&str> = entry.key.split('/').collect();
            match parts.as_slice() {
                [_, namespace, "volumes", last] => {
                    let mut record: VolumeRecord = types::record::decode(&entry.value)?;
                    if record.id.as_str() != *last {
                        record.namespace = namespace.parse()?;
                        upgrade(store, &record).await?;
                    }
                    table.insert(record);
                }
                [_, _, "snapshots", _, _] => {
                    snapshots.push(types::record::decode::<SnapshotRecord>(&entry.value)?);
                }
                _ => {}
            }
        }
        for snapshot in snapshots {
            match table.get(&snapshot.volume) {
                Some(volume) => volume.put_snapshot(snapshot),
                None => {
                    tracing::warn!(snapshot = %snapshot.name, volume = ?snapshot.volume, "a snapshot is recorded whose volume is not");
                }
            }
        }
        Ok(table)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a volume; its name means it unless it is being removed.
    pub(super) fn insert(&self, record: VolumeRecord) -> Arc<Volume> {
        let mut index = self.write();
        let name = (record.namespace.clone(), record.name.clone());
        if record.phase != VolumePhase::Removing {
            index.by_name.insert(name, record.id.clone());
        }
        let volume = Arc::new(Volume::new(record));
        index.by_id.insert(volume.id.clone(), volume.clone());
        volume
    }

    /// Nobody finds the volume by its name any more.
    pub(super) fn hide(&self, volume: &Volume) {
        let record = volume.record();
        let mut index = self.write();
        let name = (record.namespace.clone(), record.name.clone());
        if index.by_name.get(&name) == Some(&volume.id) {
            index.by_name.remove(&name);
        }
    }

    pub(super) fn forget(&self, volume: &Volume) {
        self.hide(volume);
        self.write().by_id.remove(&volume.id);
    }

    pub(crate) fn get(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.read().by_id.get(id).cloned()
    }

    pub(crate) fn named(&self, namespace: &Namespace, name: &VolumeName) -> Option<Arc<Volume>> {
        let index = self.read();
        let id = index.by_name.get(&(namespace.clone(), name.clone()))?;
        index.by_id.get(id).cloned()
    }

    /// The volumes of a namespace that are not being removed, by name.
    pub(crate) fn of(&self, namespace: &Namespace) -> Vec<Arc<Volume>> {
        let index = self.read();
        let mut volumes: Vec<_> = index
            .by_name
            .iter()
            .filter(|((ns, _), _)| ns == namespace)
            .filter_map(|((_, name), id)| Some((name.clone(), index.by_id.get(id)?.clone())))
            .collect();
        volumes.sort_by(|a, b| a.0.cmp(&b.0));
        volumes.into_iter().map(|(_, volume)| volume).collect()
    }

    /// All volumes, those being removed too.
    pub(crate) fn all(&self) -> Vec<Arc<Volume>> {
        self.read().by_id.values().cloned().collect()
    }
}

/// Writes a record of version 1, which lay under its name, under its new id.
async fn upgrade(store: &dyn Store, record: &VolumeRecord) -> Result<()> {
    let name = key::volume_name(&record.namespace, &record.name);
    let txn = Txn::new()
        .when(Guard::Absent(name.clone()))
        .delete(key::volume_v1(&record.namespace, &record.name))
        .put(name, record.id.as_str().to_owned())
        .put(key::volume(&record.namespace, &record.id), encode(record)?);
    store.commit(txn).await?;
    Ok(())
}
