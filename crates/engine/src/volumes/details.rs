//! What there is to know of a volume, for docker's clients and for the native API; copies, files
//! and differences.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use agent::{PathStat, Reader, volumes::PoolStatus};
use futures_util::StreamExt as _;
use types::{
    Error, Result, SnapshotId, Time,
    native::{self, FileEntry, FileKind},
    volume::schedule,
};

use super::{MEASURED_AT_ONCE, Volume};
use crate::{
    Engine, Scope,
    pools::{health, redundancy},
    record::{VolumePhase, VolumeRecord},
    request::VolumeCreate,
    snapshots::{attachment, automatic},
    view::VolumeView,
};

/// Fails unless nothing else is going on with the volume.
pub(crate) fn must_be_ready(record: &VolumeRecord) -> Result<()> {
    let doing = match record.phase {
        VolumePhase::Ready => return Ok(()),
        VolumePhase::Creating { .. } | VolumePhase::Importing => "not complete",
        VolumePhase::RollingBack { .. } => "being rolled back",
        VolumePhase::Removing => "being removed",
    };
    Err(Error::conflict(format!(
        "volume {} is {doing}: a start of kraud finishes what was begun",
        record.name
    )))
}

impl Engine {
    pub(super) async fn volume_view(&self, volume: &Arc<Volume>) -> Result<VolumeView> {
        let mut views = self.volume_views(std::slice::from_ref(volume)).await?;
        views
            .pop()
            .ok_or_else(|| Error::system("looking for a volume gave nothing"))
    }

    pub(super) async fn volume_views(&self, volumes: &[Arc<Volume>]) -> Result<Vec<VolumeView>> {
        let records: Vec<Arc<VolumeRecord>> =
            volumes.iter().map(|volume| volume.record()).collect();
        let plans: Vec<_> = records.iter().map(|record| record.plan()).collect();
        let paths = if plans.is_empty() {
            Vec::new()
        } else {
            self.agent.volume_paths(&plans).await?
        };
        Ok(records
            .into_iter()
            .zip(paths)
            .map(|(record, mountpoint)| VolumeView {
                record,
                mountpoint,
                usage: None,
                status: BTreeMap::new(),
            })
            .collect())
    }

    /// Where volumes have their content on the node, by name.
    pub async fn volume_mountpoints(&self, scope: &Scope) -> Result<BTreeMap<String, PathBuf>> {
        let views = self
            .volume_views(&self.volumes.of(&scope.namespace))
            .await?;
        Ok(views
            .into_iter()
            .map(|view| (view.record.name.to_string(), view.mountpoint))
            .collect())
    }

    /// A volume, with what docker shows as its status.
    pub async fn volume_inspect(&self, scope: &Scope, name: &str) -> Result<VolumeView> {
        let volume = self.volume_named(scope, name)?;
        let view = self.volume_view(&volume).await?;
        // docker's own driver `local` shows no status, and SDKs that follow the published schema
        // to the letter cannot read one. Who asked for a class, or for an option, gets it.
        if view.record.driver == "local" && view.record.options.is_empty() {
            return Ok(view);
        }
        let details = self.details(&volume).await;
        Ok(VolumeView {
            status: status(&details),
            ..view
        })
    }

    /// A volume with all there is to know of it.
    pub async fn volume_details(&self, scope: &Scope, name: &str) -> Result<native::Volume> {
        let volume = self.volume_named(scope, name)?;
        Ok(self.details(&volume).await)
    }

    /// All volumes with all there is to know of them, by name.
    pub async fn volume_list_details(&self, scope: &Scope) -> Result<Vec<native::Volume>> {
        let volumes = futures_util::stream::iter(self.volumes.of(&scope.namespace));
        let details = volumes.map(|volume| async move { self.details(&volume).await });
        Ok(details.buffered(MEASURED_AT_ONCE).collect().await)
    }

    async fn details(&self, volume: &Arc<Volume>) -> native::Volume {
        let usage = self.agent.volume_usage(&volume.record().plan()).await;
        self.details_with(volume, Some(usage)).await
    }

    async fn details_with(
        &self,
        volume: &Arc<Volume>,
        usage: Option<Result<agent::volumes::Usage>>,
    ) -> native::Volume {
        let record = volume.record();
        let pool = self.agent.pool_status(&record.pool).await;
        let snapshots = volume.snapshots();
        let unmeasured = usage.as_ref().and_then(|usage| usage.as_ref().err());
        let (state, trouble) = self.state_of(volume, &pool, unmeasured);
        let copies = pool.as_ref().map_or(1, |status| status.copies);
        let users = self.users_of(&record);
        native::Volume {
            name: record.name.clone(),
            id: record.id.clone(),
            driver: record.driver.clone(),
            class: record.class,
            pool: record.pool.clone(),
            engine: self.pools.engine(&record.pool),
            node: record.node.as_str().to_owned(),
            size: record.bytes(),
            fs: record.class.is_block().then_some(record.fs),
            zone: Some(record.zone.clone()).filter(|zone| !zone.is_empty()),
            created: record.created,
            labels: record.labels.clone(),
            options: record.options.clone(),
            redundancy: redundancy(copies),
            schedule: record.schedule,
            next_snapshot: schedule::next(
                record.schedule,
                record.scheduled,
                &automatic(volume),
                Time::now(),
            ),
            last_snapshot: snapshots.last().map(|snapshot| snapshot.created),
            snapshots: snapshots.len(),
            usage: usage.and_then(Result::ok).map(|usage| native::VolumeUsage {
                live: usage.live,
                snapshots: usage.snapshots,
                total: usage.live + usage.snapshots,
                limit: usage.limit,
            }),
            attached_to: users.iter().map(|user| attachment(user)).collect(),
            health: state,
            status: trouble,
        }
    }

    /// A volume is as healthy as its pool, or worse.
    fn state_of(
        &self,
        volume: &Volume,
        pool: &Result<PoolStatus>,
        unmeasured: Option<&Error>,
    ) -> (native::Health, Option<String>) {
        let trouble = volume
            .trouble
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        if !trouble.is_empty() {
            return (native::Health::Faulted, Some(trouble));
        }
        match pool {
            Err(error) => (native::Health::Faulted, Some(error.message.clone())),
            Ok(status) => match health(&status.health) {
                (native::Health::Online, None) if unmeasured.is_some() => (
                    native::Health::Degraded,
                    unmeasured.map(|error| error.message.clone()),
                ),
                other => other,
            },
        }
    }

    /// Makes a volume larger, and shows it.
    pub async fn volume_resize(
        &self,
        scope: &Scope,
        name: &str,
        bytes: u64,
    ) -> Result<native::Volume> {
        self.volume_grow(scope, name, bytes).await?;
        self.volume_details(scope, name).await
    }

    /// Makes an independent copy of a volume, or of a snapshot of it, of the same class.
    pub async fn volume_clone(
        &self,
        scope: &Scope,
        source: &str,
        snapshot: Option<&str>,
        new: &str,
    ) -> Result<native::Volume> {
        let volume = self.volume_named(scope, source)?;
        let name: types::VolumeName = new.parse()?;
        if self.volumes.named(&scope.namespace, &name).is_some() {
            return Err(Error::conflict(format!(
                "volume {new} exists already: choose another name for the copy"
            )));
        }
        let from = match snapshot {
            Some(snapshot) => format!("{source}@{snapshot}"),
            None => source.to_owned(),
        };
        let record = volume.record();
        let request = VolumeCreate {
            name: Some(new.to_owned()),
            driver: record.driver.clone(),
            options: BTreeMap::from([
                ("from".to_owned(), from),
                ("snapshots".to_owned(), record.schedule.to_string()),
            ]),
            labels: record.labels.clone(),
        };
        self.volume_create(scope, request).await?;
        let copy = self.volume_named(scope, new)?;
        // Measuring a copy of a million files for the first time takes a thousand times as long
        // as making it: whoever wants to know asks.
        Ok(self.details_with(&copy, None).await)
    }

    fn snapshot_of(&self, volume: &Volume, name: Option<&str>) -> Result<Option<SnapshotId>> {
        let found = name.map(|name| volume.snapshot(name)).transpose()?;
        Ok(found.map(|snapshot| snapshot.id.clone()))
    }

    /// What changed from a snapshot to another, or to the volume as it is.
    pub async fn volume_diff(
        &self,
        scope: &Scope,
        name: &str,
        from: &str,
        to: Option<&str>,
    ) -> Result<Vec<native::Change>> {
        let volume = self.volume_named(scope, name)?;
        let from = volume.snapshot(from)?.id.clone();
        let to = self.snapshot_of(&volume, to)?;
        let plan = volume.record().plan();
        let changes = self.agent.volume_diff(&plan, &from, to.as_ref()).await?;
        Ok(changes
            .into_iter()
            .map(|change| native::Change {
                path: change.path,
                kind: match change.kind {
                    agent::volumes::ChangeKind::Added => native::ChangeKind::Added,
                    agent::volumes::ChangeKind::Changed => native::ChangeKind::Changed,
                    agent::volumes::ChangeKind::Removed => native::ChangeKind::Removed,
                },
            })
            .collect())
    }

    /// The files of a directory in a volume or snapshot.
    pub async fn volume_files(
        &self,
        scope: &Scope,
        name: &str,
        snapshot: Option<&str>,
        path: &str,
    ) -> Result<Vec<FileEntry>> {
        let volume = self.volume_named(scope, name)?;
        let snapshot = self.snapshot_of(&volume, snapshot)?;
        let plan = volume.record().plan();
        let files = self
            .agent
            .volume_files(&plan, snapshot.as_ref(), path)
            .await?;
        Ok(files.into_iter().map(file_entry).collect())
    }

    /// A path of a volume or snapshot as a tar.
    pub async fn volume_archive_get(
        &self,
        scope: &Scope,
        name: &str,
        snapshot: Option<&str>,
        path: &str,
    ) -> Result<(PathStat, Reader)> {
        let volume = self.volume_named(scope, name)?;
        let snapshot = self.snapshot_of(&volume, snapshot)?;
        let plan = volume.record().plan();
        self.agent
            .volume_archive_get(&plan, snapshot.as_ref(), path)
            .await
    }

    /// Removes a file or a directory with all that is in it; one that is not there is fine.
    pub async fn volume_file_remove(&self, scope: &Scope, name: &str, path: &str) -> Result<()> {
        let volume = self.volume_named(scope, name)?;
        let record = volume.record();
        must_be_ready(&record)?;
        self.agent.volume_file_remove(&record.plan(), path).await
    }

    /// The starts of the hashes of the chunks of a volume's file, six bytes each.
    pub async fn volume_file_chunks(
        &self,
        scope: &Scope,
        name: &str,
        path: &str,
    ) -> Result<Vec<u8>> {
        let volume = self.volume_named(scope, name)?;
        let record = volume.record();
        must_be_ready(&record)?;
        self.agent.volume_file_chunks(&record.plan(), path).await
    }

    /// Changes a file of a volume, of a recipe that numbers its chunks.
    pub async fn volume_file_put(
        &self,
        scope: &Scope,
        name: &str,
        put: &native::FilePut,
        recipe: Reader,
    ) -> Result<()> {
        let volume = self.volume_named(scope, name)?;
        let record = volume.record();
        must_be_ready(&record)?;
        self.agent
            .volume_file_put(&record.plan(), put, recipe)
            .await
    }

    /// Unpacks a tar into a directory of a volume.
    pub async fn volume_archive_put(
        &self,
        scope: &Scope,
        name: &str,
        path: &str,
        tar: Reader,
    ) -> Result<()> {
        let volume = self.volume_named(scope, name)?;
        let record = volume.record();
        must_be_ready(&record)?;
        self.agent
            .volume_archive_put(&record.plan(), path, tar)
            .await
    }
}

fn file_entry(facts: agent::volumes::FileFacts) -> FileEntry {
    // Types of stat(2).
    let kind = match facts.mode & 0o170_000 {
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        0o020_000 | 0o060_000 => FileKind::Device,
        0o010_000 => FileKind::Fifo,
        0o140_000 => FileKind::Socket,
        _ => FileKind::File,
    };
    FileEntry {
        name: facts.name,
        kind,
        size: facts.size,
        mode: facts.mode & 0o7777,
        uid: facts.uid,
        gid: facts.gid,
        modified: facts.mtime,
        target: Some(facts.link_target).filter(|target| !target.is_empty()),
    }
}

/// docker's free-form `Status` of a volume.
fn status(volume: &native::Volume) -> BTreeMap<String, serde_json::Value> {
    let time =
        |time: Option<Time>| time.map_or(serde_json::Value::Null, |at| at.to_string().into());
    let mut status = BTreeMap::new();
    let mut set = |name: &str, value: serde_json::Value| {
        status.insert(name.to_owned(), value);
    };
    set("Class", volume.class.as_str().into());
    set("Pool", volume.pool.as_str().into());
    set("Engine", volume.engine.as_str().into());
    set("Node", volume.node.clone().into());
    set("Zone", volume.zone.clone().into());
    set("Redundancy", volume.redundancy.clone().into());
    set("Size", volume.size.into());
    set("Used", volume.usage.map(|usage| usage.live).into());
    set(
        "UsedBySnapshots",
        volume.usage.map(|usage| usage.snapshots).into(),
    );
    if let Some(fs) = volume.fs {
        set("FileSystem", fs.as_str().into());
    }
    set("Schedule", volume.schedule.to_string().into());
    set("Snapshots", volume.snapshots.into());
    set("LastSnapshot", time(volume.last_snapshot));
    set("NextSnapshot", time(volume.next_snapshot));
    let users: Vec<&str> = volume
        .attached_to
        .iter()
        .map(|user| user.name.as_str())
        .collect();
    set("AttachedTo", users.into());
    set("Health", volume.health.as_str().into());
    if let Some(trouble) = &volume.status {
        set("Trouble", trouble.clone().into());
    }
    status
}
