//! Snapshots: taking, naming and removing them.
//!
//! A snapshot's record comes before it and goes after it. One that was being taken when a crash
//! came is removed at the next start: nobody was told that it exists.

mod hooks;
mod rollback;
mod schedule;

pub(crate) use self::{rollback::attachment, schedule::automatic};

use std::sync::Arc;

use store::{Guard, Txn};
use types::{
    Error, Result, SnapshotId, SnapshotName, Time,
    native::{self},
    record::encode,
    volume::schedule::{Stamp, stamped},
};

use crate::{
    Engine, Scope,
    containers::Container,
    record::{SnapshotOrigin, SnapshotPhase, SnapshotRecord, VolumeRecord, key},
    volumes::{Volume, must_be_ready},
};

/// Snapshots of one volume that may exist at once: listing them stays quick.
const MOST: usize = 10_000;

impl Engine {
    /// Takes a snapshot of each of `volumes` at one moment, all under one name; made up without
    /// one. All or none.
    pub async fn snapshot_create(
        &self,
        scope: &Scope,
        volumes: &[String],
        name: Option<&str>,
    ) -> Result<Vec<native::Snapshot>> {
        if volumes.is_empty() {
            return Err(Error::invalid("no volume given: name one at least"));
        }
        let name: Option<SnapshotName> = name.map(str::parse).transpose()?;
        let mut wanted: Vec<Arc<Volume>> = Vec::new();
        for volume in volumes {
            let volume = self.volume_named(scope, volume)?;
            if wanted.iter().any(|other| other.id == volume.id) {
                return Err(Error::invalid(format!(
                    "volume {} is given twice",
                    volume.record().name
                )));
            }
            wanted.push(volume);
        }
        let _turn = self
            .room_for_snapshots(&scope.namespace, wanted.len())
            .await?;
        let users = self.running_users(&wanted);
        self.before_snapshot(&users).await?;
        let taken = self
            .take_snapshots(&wanted, name.as_ref(), SnapshotOrigin::User)
            .await;
        self.after_snapshot(&users).await;
        let taken = taken?;
        Ok(wanted
            .iter()
            .zip(&taken)
            .map(|(volume, snapshot)| view(&volume.record(), snapshot))
            .collect())
    }

    /// Running containers that have one of these volumes mounted, as it is now.
    pub(crate) fn running_users(&self, volumes: &[Arc<Volume>]) -> Vec<Arc<Container>> {
        let mut users: Vec<Arc<Container>> = Vec::new();
        for volume in volumes {
            let record = volume.record();
            for user in self.users_of(&record) {
                let is_live = |mount: &crate::record::MountRecord| {
                    mount.volume.as_ref() == Some(&record.name) && mount.snapshot.is_none()
                };
                let known = users.iter().any(|other| other.id == user.id);
                if !known && user.is_running() && user.record().mounts.iter().any(is_live) {
                    users.push(user);
                }
            }
        }
        users
    }

    /// Takes snapshots of volumes of one namespace. Several are taken while their users stand
    /// still, so that they are of one moment.
    pub(crate) async fn take_snapshots(
        &self,
        volumes: &[Arc<Volume>],
        name: Option<&SnapshotName>,
        origin: SnapshotOrigin,
    ) -> Result<Vec<SnapshotRecord>> {
        // In one order, whatever the order of the call: two calls cannot wait for each other.
        let mut ordered: Vec<&Arc<Volume>> = volumes.iter().collect();
        ordered.sort_by(|a, b| a.id.cmp(&b.id));
        let mut ops = Vec::new();
        for volume in ordered {
            ops.push(volume.op.lock().await);
        }
        self.take_snapshots_locked(volumes, name, origin).await
    }

    /// The same; the caller holds `op` of each.
    async fn take_snapshots_locked(
        &self,
        volumes: &[Arc<Volume>],
        name: Option<&SnapshotName>,
        origin: SnapshotOrigin,
    ) -> Result<Vec<SnapshotRecord>> {
        // What an earlier call could not undo is undone now: its name is wanted, perhaps.
        for volume in volumes {
            if let Err(error) = self.recover_snapshots(volume).await {
                tracing::warn!(volume = %volume.record().name, %error, "undoing a snapshot; kraud tries again later");
            }
        }
        let records = new_records(volumes, name, origin)?;
        self.commit_snapshots(&records).await?;
        for (volume, record) in volumes.iter().zip(&records) {
            volume.put_snapshot(record.clone());
        }
        let plans: Vec<_> = volumes
            .iter()
            .zip(&records)
            .map(|(volume, snapshot)| (volume.record().plan(), snapshot.id.clone()))
            .collect();
        let users = if volumes.len() > 1 {
            self.running_users(volumes)
        } else {
            Vec::new()
        };
        // Nobody pauses, starts or ends them meanwhile; those that are paused stand still anyway.
        let mut held = Vec::new();
        for user in &users {
            held.push(user.op.lock().await);
        }
        let running = users
            .iter()
            .filter(|user| user.status() == types::state::Status::Running);
        let hold: Vec<_> = running.map(|user| user.id.clone()).collect();
        let taken = match fault::step("engine.snapshot.recorded") {
            Ok(()) => self.agent.snapshots_take(&plans, &hold).await,
            Err(error) => Err(error),
        };
        drop(held);
        let ready = async {
            taken?;
            fault::step("engine.snapshot.taken")?;
            self.commit_ready(&records).await
        };
        let records = match ready.await {
            Ok(records) => records,
            // Also when it is only not recorded: nobody is told of it, and its name is free.
            Err(error) => {
                self.undo_snapshots(volumes, &records).await;
                return Err(error);
            }
        };
        for (volume, record) in volumes.iter().zip(&records) {
            volume.put_snapshot(record.clone());
            if origin != SnapshotOrigin::User {
                self.adjust_limit(volume).await;
            }
            self.snapshot_event(volume, "snapshot", record);
        }
        if let Err(error) = fault::step("engine.snapshot.ready") {
            tracing::warn!(%error, "after taking snapshots");
        }
        Ok(records)
    }

    /// Records that snapshots are there.
    async fn commit_ready(&self, taken: &[SnapshotRecord]) -> Result<Vec<SnapshotRecord>> {
        let ready = |record: &SnapshotRecord| SnapshotRecord {
            phase: SnapshotPhase::Ready,
            ..record.clone()
        };
        let records: Vec<SnapshotRecord> = taken.iter().map(ready).collect();
        self.commit_snapshots(&records).await?;
        Ok(records)
    }

    /// Removes snapshots that were not to be had.
    async fn undo_snapshots(&self, volumes: &[Arc<Volume>], records: &[SnapshotRecord]) {
        for (volume, record) in volumes.iter().zip(records) {
            if let Err(error) = self.remove_snapshot_now(volume, record).await {
                tracing::warn!(volume = %volume.record().name, %error, "undoing a snapshot; kraud tries again later");
            }
        }
    }

    /// Sets a volume's limit anew after what is done and recorded already: no failure undoes
    /// that, and the next change of the volume sets the limit again.
    pub(crate) async fn adjust_limit(&self, volume: &Volume) {
        if let Err(error) = self.apply_limit(volume).await {
            tracing::warn!(volume = %volume.record().name, %error, "setting a volume's limit; the next change of its snapshots sets it again");
        }
    }

    /// Writes snapshots down, in one transaction for those of one namespace.
    async fn commit_snapshots(&self, records: &[SnapshotRecord]) -> Result<()> {
        let mut txn = Txn::new();
        for record in records {
            let Some(volume) = self.volumes.get(&record.volume) else {
                continue;
            };
            let volume = volume.record();
            txn = txn
                .when(Guard::Present(key::volume(&volume.namespace, &volume.id)))
                .put(
                    key::snapshot(&volume.namespace, &volume.id, &record.id),
                    encode(record)?,
                );
        }
        self.store.commit(txn).await?;
        Ok(())
    }

    fn snapshot_event(&self, volume: &Volume, action: &str, snapshot: &SnapshotRecord) {
        let facts = [("snapshot", snapshot.name.to_string())];
        self.volume_event(&volume.record(), action, &facts);
    }

    /// The snapshots of a volume, the oldest first.
    pub fn snapshot_list(&self, scope: &Scope, volume: &str) -> Result<Vec<native::Snapshot>> {
        let volume = self.volume_named(scope, volume)?;
        let record = volume.record();
        Ok(volume
            .snapshots()
            .iter()
            .map(|snapshot| view(&record, snapshot))
            .collect())
    }

    /// Removes a snapshot; refused while a container mounts it.
    pub async fn snapshot_remove(&self, scope: &Scope, volume: &str, name: &str) -> Result<()> {
        let volume = self.volume_named(scope, volume)?;
        let snapshot = volume.snapshot(name)?;
        let record = volume.record();
        let mounts_it = |user: &Arc<Container>| {
            user.record().mounts.iter().any(|mount| {
                mount.volume.as_ref() == Some(&record.name)
                    && mount.snapshot.as_ref() == Some(&snapshot.name)
            })
        };
        let mut users = self.users_of(&record);
        users.retain(mounts_it);
        if !users.is_empty() {
            let names: Vec<String> = users
                .iter()
                .map(|user| user.record().name.to_string())
                .collect();
            return Err(Error::conflict(format!(
                "remove snapshot {}@{name}: it is mounted by {}: remove these containers first",
                record.name,
                names.join(", ")
            )));
        }
        self.drop_snapshot(&volume, &snapshot).await
    }

    /// Removes a snapshot, whoever made it.
    pub(crate) async fn drop_snapshot(
        &self,
        volume: &Arc<Volume>,
        snapshot: &SnapshotRecord,
    ) -> Result<()> {
        let _op = volume.op.lock().await;
        if !volume
            .all_snapshots()
            .iter()
            .any(|other| other.id == snapshot.id)
        {
            return Ok(());
        }
        let going = SnapshotRecord {
            phase: SnapshotPhase::Removing,
            ..snapshot.clone()
        };
        self.commit_snapshots(std::slice::from_ref(&going)).await?;
        volume.put_snapshot(going.clone());
        let removed = match fault::step("engine.remove_snapshot.recorded") {
            Ok(()) => self.remove_snapshot_on_node(volume, &going).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            // It is still there and usable; say so.
            self.commit_snapshots(std::slice::from_ref(snapshot))
                .await?;
            volume.put_snapshot(snapshot.clone());
            return Err(error);
        }
        // From here on it is gone: what fails now is only the record of that, and `tidy_volumes`
        // removes it. It must not be called a snapshot again.
        if let Err(error) = self.forget_snapshot(volume, &going).await {
            tracing::warn!(volume = %volume.record().name, snapshot = %snapshot.name, %error, "forgetting a removed snapshot; kraud tries again later");
        }
        self.snapshot_event(volume, "snapshot-remove", snapshot);
        if snapshot.origin != SnapshotOrigin::User {
            self.adjust_limit(volume).await;
        }
        Ok(())
    }

    /// Removes from node and records what is recorded as coming or going.
    pub(crate) async fn remove_snapshot_now(
        &self,
        volume: &Volume,
        snapshot: &SnapshotRecord,
    ) -> Result<()> {
        self.remove_snapshot_on_node(volume, snapshot).await?;
        self.forget_snapshot(volume, snapshot).await
    }

    async fn remove_snapshot_on_node(
        &self,
        volume: &Volume,
        snapshot: &SnapshotRecord,
    ) -> Result<()> {
        let plan = volume.record().plan();
        match self.agent.snapshot_remove(&plan, &snapshot.id).await {
            Err(error) if error.kind != types::Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn forget_snapshot(&self, volume: &Volume, snapshot: &SnapshotRecord) -> Result<()> {
        let record = volume.record();
        fault::step("engine.remove_snapshot.gone")?;
        let snapshot_key = key::snapshot(&record.namespace, &record.id, &snapshot.id);
        self.store.commit(Txn::new().delete(snapshot_key)).await?;
        volume.drop_snapshot(&snapshot.id);
        fault::step("engine.remove_snapshot.forgotten")
    }

    /// Gives a snapshot another name. An automatic one becomes the user's: it is kept.
    pub async fn snapshot_rename(
        &self,
        scope: &Scope,
        volume: &str,
        old: &str,
        new: &str,
    ) -> Result<native::Snapshot> {
        let volume = self.volume_named(scope, volume)?;
        let new: SnapshotName = new.parse()?;
        let _op = volume.op.lock().await;
        let snapshot = volume.snapshot(old)?;
        let record = volume.record();
        if volume.has_snapshot(&new) {
            return Err(name_taken(&record, &new));
        }
        let mounted = self.users_of(&record).iter().any(|user| {
            user.record().mounts.iter().any(|mount| {
                mount.volume.as_ref() == Some(&record.name)
                    && mount.snapshot.as_ref() == Some(&snapshot.name)
            })
        });
        if mounted {
            return Err(Error::conflict(format!(
                "rename snapshot {}@{old}: a container mounts it under this name: remove the container first",
                record.name
            )));
        }
        let renamed = SnapshotRecord {
            name: new,
            origin: SnapshotOrigin::User,
            ..(*snapshot).clone()
        };
        self.commit_snapshots(std::slice::from_ref(&renamed))
            .await?;
        volume.put_snapshot(renamed.clone());
        if let Err(error) = fault::step("engine.rename.recorded") {
            tracing::warn!(%error, "after renaming a snapshot");
        }
        self.adjust_limit(&volume).await;
        Ok(view(&record, &renamed))
    }
}

fn name_taken(volume: &VolumeRecord, name: &SnapshotName) -> Error {
    Error::conflict(format!(
        "volume {} has a snapshot {name} already: choose another name, or remove that one (kra volume snapshot rm {0} {name})",
        volume.name
    ))
}

/// What is to be recorded of new snapshots, under one name that all of them have free.
fn new_records(
    volumes: &[Arc<Volume>],
    name: Option<&SnapshotName>,
    origin: SnapshotOrigin,
) -> Result<Vec<SnapshotRecord>> {
    let now = Time::now();
    for volume in volumes {
        let record = volume.record();
        must_be_ready(&record)?;
        if volume.all_snapshots().len() >= MOST {
            return Err(Error::conflict(format!(
                "volume {} has {MOST} snapshots, which is the most: remove some (kra volume snapshot rm)",
                record.name
            )));
        }
        if let Some(name) = name
            && volume.has_snapshot(name)
        {
            return Err(name_taken(&record, name));
        }
    }
    let stamp = match origin {
        SnapshotOrigin::User => Stamp::User,
        SnapshotOrigin::Automatic(period) => Stamp::Automatic(period),
        SnapshotOrigin::Safety => Stamp::Safety,
    };
    let is_free = |name: &SnapshotName| volumes.iter().all(|volume| !volume.has_snapshot(name));
    let name = match name {
        Some(name) => name.clone(),
        None => (1..)
            .map(|again| stamped(stamp, now, again))
            .find(is_free)
            .ok_or_else(|| Error::system("no name is free for a snapshot"))?,
    };
    let group = if volumes.len() > 1 {
        name.to_string()
    } else {
        String::new()
    };
    Ok(volumes
        .iter()
        .map(|volume| SnapshotRecord {
            id: SnapshotId::random(),
            volume: volume.id.clone(),
            name: name.clone(),
            created: now,
            origin,
            group: group.clone(),
            content: volume.record().content,
            phase: SnapshotPhase::Taking,
        })
        .collect())
}

/// A snapshot as the native API shows it.
pub(crate) fn view(volume: &VolumeRecord, snapshot: &SnapshotRecord) -> native::Snapshot {
    let (origin, period) = match snapshot.origin {
        SnapshotOrigin::User => (native::SnapshotOrigin::User, None),
        SnapshotOrigin::Safety => (native::SnapshotOrigin::Safety, None),
        SnapshotOrigin::Automatic(period) => (native::SnapshotOrigin::Automatic, Some(period)),
    };
    native::Snapshot {
        name: snapshot.name.clone(),
        id: snapshot.id.clone(),
        volume: volume.name.clone(),
        created: snapshot.created,
        origin,
        period,
        group: Some(snapshot.group.clone()).filter(|group| !group.is_empty()),
        used: None,
    }
}
