//! Pools and volumes: the crate `volume` on threads that may wait for a disk, files in volumes,
//! and the first filling of a volume from an image.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::io::SyncIoBridge;
use types::{ContainerId, Error, PoolName, Result, SnapshotId, error::ResultExt as _};
use volume::{
    Change, Growth, PoolSpec, PoolStatus, Usage, Volume, Volumes,
    deadline::{self},
};

use super::{
    LocalAgent,
    archive::{packed, path_stat},
    blocking,
    root::Root,
};
use crate::{
    PathStat, Reader,
    plan::{MountPlan, MountSource, Plan},
    volumes::{Droppable, FileFacts, NodeVolumes, Origin},
};

/// For what should take milliseconds.
const SHORT: Duration = Duration::from_secs(30);
/// For what copies, formats, checks or frees.
const LONG: Duration = Duration::from_secs(600);

impl LocalAgent {
    /// Calls `work` off the async threads, and does not wait for ever.
    async fn on_disk<T: Send + 'static>(
        &self,
        doing: String,
        patience: Duration,
        work: impl FnOnce(&Volumes) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let volumes = self.volumes.clone();
        blocking(move || deadline::run(&doing, patience, move || work(&volumes))).await
    }

    /// Makes the volumes of a plan usable, each for this container. Blocking.
    pub(super) fn attach_volumes(&self, plan: &Plan) -> Result<()> {
        for (volume, snapshot) in volumes_of(plan) {
            self.volumes.attach(volume, snapshot, plan.id.as_str())?;
        }
        Ok(())
    }

    /// Takes note that a container which lives on has its volumes. Blocking.
    pub(super) fn adopt_volumes(&self, plan: &Plan) {
        for (volume, snapshot) in volumes_of(plan) {
            if let Err(error) = self.volumes.adopt(volume, snapshot, plan.id.as_str()) {
                tracing::warn!(id = %plan.id, volume = %volume.name, %error, "a running container's volume cannot be looked at");
            }
        }
    }

    /// Copies what the image has at a volume's target into the volume while it is empty.
    pub(super) async fn fill_volumes(&self, plan: &Plan) -> Result<()> {
        let fillable = |mount: &&MountPlan| matches!(&mount.source, MountSource::Volume { no_copy: false, subpath, snapshot: None, volume } if subpath.is_empty() && !volume.is_raw());
        let mounts: Vec<(Volume, String)> = plan
            .mounts
            .iter()
            .filter(fillable)
            .filter_map(|mount| match &mount.source {
                MountSource::Volume { volume, .. } => Some((volume.clone(), mount.target.clone())),
                _ => None,
            })
            .collect();
        if mounts.is_empty() {
            return Ok(());
        }
        let (agent, plan) = (self.clone(), plan.clone());
        blocking(move || {
            deadline::run("filling volumes from an image", LONG, move || {
                let mut empty = Vec::new();
                for (volume, target) in mounts {
                    let used = agent.volumes.use_for(&volume, None, "fill")?;
                    if is_empty(used.path()) {
                        empty.push((used, target));
                    }
                }
                if empty.is_empty() {
                    return Ok(());
                }
                agent.with_image_root(&plan, |root| {
                    empty
                        .iter()
                        .try_for_each(|(used, target)| fill(root, target, used.path()))
                })
            })
        })
        .await
    }
}

/// The volumes of a plan, each with the snapshot of it that is mounted.
pub(super) fn volumes_of(plan: &Plan) -> impl Iterator<Item = (&Volume, Option<&SnapshotId>)> {
    plan.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume {
            volume, snapshot, ..
        } => Some((volume, snapshot.as_ref())),
        _ => None,
    })
}

/// A new ext4 has a directory of its own in it.
fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries
            .flatten()
            .all(|entry| entry.file_name() == "lost+found")
    })
}

/// Copies the directory `target` of a root, its own owner and mode included.
fn fill(root: Root<'_>, target: &str, volume: &Path) -> Result<()> {
    let stat = match image::archive::stat(root.fd, target) {
        Ok(stat) => stat,
        Err(error) if error.kind == types::Kind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    /// Go's bit for a directory.
    const GO_DIR: u32 = 1 << 31;
    if stat.mode & GO_DIR == 0 {
        return Ok(());
    }
    copy_tree(root, target, volume)
}

/// Copies the content of `from` in `root` into `to`.
fn copy_tree(root: Root<'_>, from: &str, to: &Path) -> Result<()> {
    let into = fs::File::open(to).during(|| format!("opening {}", to.display()))?;
    let (reader, writer) = std::io::pipe().during(|| "making a pipe")?;
    std::thread::scope(|scope| {
        let from = format!("{}/.", from.trim_end_matches('/'));
        let packing =
            scope.spawn(move || image::archive::get(root.fd, &from, root.seen_by, writer));
        let unpacked = image::archive::put(
            into.as_fd(),
            "/",
            reader,
            image::archive::PutOptions::default(),
        );
        let packed = packing
            .join()
            .unwrap_or_else(|_| Err(Error::system("packing a volume's first content")));
        packed.and(unpacked)
    })
}

/// Empties a directory.
fn clear(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).during(|| format!("listing {}", dir.display()))? {
        let path = entry
            .during(|| format!("listing {}", dir.display()))?
            .path();
        let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        let removed = if is_dir {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.during(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Moves the content of a volume of an earlier kraud, a plain directory, into `volume`. It is
/// gone from the directory only once all of it has been written out.
fn import(volumes: &Volumes, volume: &Volume, old: &Path) -> Result<()> {
    let content = old.join("_data");
    if content.is_dir() {
        let used = volumes.use_for(volume, None, "import")?;
        clear(used.path())?;
        let root = fs::File::open(&content).during(|| format!("opening {}", content.display()))?;
        let root = Root {
            fd: root.as_fd(),
            seen_by: None,
        };
        copy_tree(root, "/", used.path())?;
        let target =
            fs::File::open(used.path()).during(|| format!("opening {}", used.path().display()))?;
        rustix::fs::syncfs(&target).during(|| format!("writing out {}", used.path().display()))?;
    }
    super::remove_tree(old)
}

#[async_trait]
impl NodeVolumes for LocalAgent {
    async fn pool_default(&self) -> Result<PoolSpec> {
        self.on_disk("choosing the first pool".into(), SHORT, |volumes| {
            volumes.default_pool()
        })
        .await
    }
    async fn pool_in_file(&self, name: &PoolName, bytes: u64) -> Result<PoolSpec> {
        self.volumes.file_pool(name.clone(), bytes)
    }
    async fn pool_create(&self, spec: &PoolSpec, anew: bool) -> Result<PoolStatus> {
        let spec = spec.clone();
        self.on_disk(format!("making pool {}", spec.name), LONG, move |volumes| {
            volumes.create_pool(&spec, anew)
        })
        .await
    }
    async fn pool_open(&self, spec: &PoolSpec) -> Result<()> {
        let spec = spec.clone();
        self.on_disk(
            format!("opening pool {}", spec.name),
            LONG,
            move |volumes| volumes.open_pool(&spec),
        )
        .await
    }
    async fn pool_status(&self, name: &PoolName) -> Result<PoolStatus> {
        let name = name.clone();
        self.on_disk(format!("looking at pool {name}"), SHORT, move |volumes| {
            volumes.pool_status(&name)
        })
        .await
    }
    async fn pool_grow(&self, name: &PoolName, by: &Growth) -> Result<PoolStatus> {
        let (name, by) = (name.clone(), by.clone());
        self.on_disk(format!("growing pool {name}"), LONG, move |volumes| {
            volumes.grow_pool(&name, &by)
        })
        .await
    }
    async fn pool_remove(&self, name: &PoolName) -> Result<()> {
        let name = name.clone();
        self.on_disk(format!("removing pool {name}"), LONG, move |volumes| {
            volumes.destroy_pool(&name)
        })
        .await
    }
    async fn pool_reclaim(&self, name: &PoolName) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let name = name.clone();
        let doing = format!("waiting for free space on pool {name}");
        self.on_disk(doing, SHORT, move |volumes| {
            volumes.reclaim(&name, PATIENCE)
        })
        .await
    }

    async fn volume_create(&self, volume: &Volume, origin: Option<&Origin>) -> Result<()> {
        let (volume, origin) = (volume.clone(), origin.cloned());
        let doing = format!("creating volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| {
            let origin = origin
                .as_ref()
                .map(|origin| (&origin.volume, origin.snapshot.as_ref()));
            volumes.create(&volume, origin)
        })
        .await
    }
    async fn volume_import(&self, volume: &Volume) -> Result<()> {
        let old = self.data_dir.join("volumes").join(volume.name.as_str());
        let volume = volume.clone();
        let doing = format!("moving volume {} into its pool", volume.name);
        self.on_disk(doing, LONG * 6, move |volumes| {
            import(volumes, &volume, &old)
        })
        .await
    }
    async fn volume_remove(&self, volume: &Volume) -> Result<()> {
        let volume = volume.clone();
        let doing = format!("removing volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| volumes.remove(&volume))
            .await
    }
    async fn volume_resize(&self, volume: &Volume) -> Result<()> {
        let volume = volume.clone();
        let doing = format!("resizing volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| volumes.resize(&volume))
            .await
    }
    async fn volume_limit(
        &self,
        volume: &Volume,
        size: Option<u64>,
        droppable: Droppable,
    ) -> Result<()> {
        let volume = volume.clone();
        let doing = format!("limiting volume {}", volume.name);
        self.on_disk(doing, SHORT, move |volumes| {
            volumes.limit(&volume, size, droppable)
        })
        .await
    }
    async fn volume_charged(&self, volume: &Volume) -> Result<u64> {
        let volume = volume.clone();
        let doing = format!("measuring volume {}", volume.name);
        self.on_disk(doing, SHORT, move |volumes| {
            Ok(volumes.charged(&volume)?.unwrap_or(0))
        })
        .await
    }
    async fn volume_usage(&self, volume: &Volume) -> Result<Usage> {
        let volume = volume.clone();
        let doing = format!("measuring volume {}", volume.name);
        self.on_disk(doing, SHORT, move |volumes| volumes.usage(&volume))
            .await
    }
    async fn volume_paths(&self, wanted: &[Volume]) -> Result<Vec<PathBuf>> {
        let wanted = wanted.to_vec();
        self.on_disk("looking for volumes".into(), SHORT, move |volumes| {
            Ok(wanted
                .iter()
                .map(|volume| volumes.path_of(volume))
                .collect())
        })
        .await
    }
    async fn volumes_missing(&self, wanted: &[Volume]) -> Result<Vec<types::VolumeId>> {
        let wanted = wanted.to_vec();
        self.on_disk("looking for volumes".into(), LONG, move |volumes| {
            let missing = volumes.missing(&wanted);
            Ok(missing.iter().map(|volume| volume.id.clone()).collect())
        })
        .await
    }

    async fn snapshots_take(
        &self,
        wanted: &[(Volume, SnapshotId)],
        hold: &[ContainerId],
    ) -> Result<()> {
        let mut held = Vec::new();
        let mut outcome = Ok(());
        for id in hold {
            match self.runtime.pause(id).await {
                Ok(()) => held.push(id),
                // It may have ended meanwhile; then it writes nothing either.
                Err(runtime::Error::NotRunning(_)) => {}
                Err(error) => {
                    outcome = Err(Error::from(error));
                    break;
                }
            }
        }
        outcome = outcome.and_then(|()| fault::step("agent.snapshot.held"));
        if outcome.is_ok() {
            let wanted = wanted.to_vec();
            outcome = self
                .on_disk("taking snapshots".into(), SHORT, move |volumes| {
                    volumes.snapshot(&wanted)
                })
                .await;
        }
        for id in held {
            if let Err(error) = self.runtime.unpause(id).await {
                tracing::error!(%id, %error, "a container that stood still for a snapshot does not go on; docker unpause it");
            }
        }
        outcome
    }
    async fn snapshot_remove(&self, volume: &Volume, snapshot: &SnapshotId) -> Result<()> {
        let (volume, snapshot) = (volume.clone(), snapshot.clone());
        let doing = format!("removing a snapshot of volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| {
            volumes.remove_snapshot(&volume, &snapshot)
        })
        .await
    }
    async fn volume_rollback(&self, volume: &Volume, snapshot: &SnapshotId) -> Result<()> {
        let (volume, snapshot) = (volume.clone(), snapshot.clone());
        let doing = format!("rolling back volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| {
            volumes.rollback(&volume, &snapshot)
        })
        .await
    }
    async fn volume_diff(
        &self,
        volume: &Volume,
        from: &SnapshotId,
        to: Option<&SnapshotId>,
    ) -> Result<Vec<Change>> {
        let (volume, from, to) = (volume.clone(), from.clone(), to.cloned());
        let doing = format!("comparing snapshots of volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| {
            volumes.diff(&volume, &from, to.as_ref())
        })
        .await
    }

    async fn volume_files(
        &self,
        volume: &Volume,
        snapshot: Option<&SnapshotId>,
        path: &str,
    ) -> Result<Vec<FileFacts>> {
        let (volume, snapshot, path) = (volume.clone(), snapshot.cloned(), path.to_owned());
        let doing = format!("listing files of volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| {
            let used = volumes.use_for(&volume, snapshot.as_ref(), "ls")?;
            let root = open(used.path())?;
            let files = image::archive::list(root.as_fd(), &path)?;
            Ok(files.into_iter().map(file_facts).collect())
        })
        .await
    }
    async fn volume_archive_get(
        &self,
        volume: &Volume,
        snapshot: Option<&SnapshotId>,
        path: &str,
    ) -> Result<(PathStat, Reader)> {
        let (volume, snapshot, path) = (volume.clone(), snapshot.cloned(), path.to_owned());
        let doing = format!("reading files of volume {}", volume.name);
        let wanted = path.clone();
        let (used, root, stat) = self
            .on_disk(doing, LONG, move |volumes| {
                let used = volumes.use_for(&volume, snapshot.as_ref(), "cp")?;
                let root = open(used.path())?;
                let stat = image::archive::stat(root.as_fd(), &wanted)?;
                Ok((used, root, stat))
            })
            .await?;
        let reader = packed(move |writer| {
            let result = image::archive::get(root.as_fd(), &path, None, writer);
            drop(root);
            drop(used);
            result
        });
        Ok((path_stat(stat), reader))
    }
    async fn volume_file_remove(&self, volume: &Volume, path: &str) -> Result<()> {
        let (volume, path) = (volume.clone(), path.to_owned());
        let doing = format!("removing files of volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| {
            let used = volumes.use_for(&volume, None, "rm")?;
            let root = open(used.path())?;
            image::archive::remove(root.as_fd(), &path)
        })
        .await
    }
    async fn volume_file_chunks(&self, volume: &Volume, path: &str) -> Result<Vec<u8>> {
        let (volume, path) = (volume.clone(), path.to_owned());
        let doing = format!("reading files of volume {}", volume.name);
        self.on_disk(doing, LONG, move |volumes| {
            let used = volumes.use_for(&volume, None, "cp")?;
            let root = open(used.path())?;
            image::push::file_chunks(root.as_fd(), &path)
        })
        .await
    }
    async fn volume_file_put(
        &self,
        volume: &Volume,
        put: &types::native::FilePut,
        recipe: Reader,
    ) -> Result<()> {
        let (volumes, volume, put) = (self.volumes.clone(), volume.clone(), put.clone());
        let handle = tokio::runtime::Handle::current();
        // It lasts as long as the client sends: no deadline.
        blocking(move || {
            let used = volumes.use_for(&volume, None, "cp")?;
            let root = open(used.path())?;
            let recipe = SyncIoBridge::new_with_handle(recipe, handle);
            let result = image::push::file_put(root.as_fd(), &put, recipe);
            drop(root);
            result
        })
        .await
    }
    async fn volume_archive_put(&self, volume: &Volume, path: &str, tar: Reader) -> Result<()> {
        let (volumes, volume, path) = (self.volumes.clone(), volume.clone(), path.to_owned());
        let handle = tokio::runtime::Handle::current();
        // It lasts as long as the client sends: no deadline.
        blocking(move || {
            let used = volumes.use_for(&volume, None, "cp")?;
            let root = open(used.path())?;
            let tar = SyncIoBridge::new_with_handle(tar, handle);
            let options = image::archive::PutOptions::default();
            let result = image::archive::put(root.as_fd(), &path, tar, options);
            drop(root);
            result
        })
        .await
    }
}

fn file_facts(listed: image::archive::Listed) -> FileFacts {
    FileFacts {
        name: listed.name,
        size: listed.size,
        mode: listed.mode,
        uid: listed.uid,
        gid: listed.gid,
        mtime: listed.mtime,
        link_target: listed.link_target,
    }
}

fn open(path: &Path) -> Result<fs::File> {
    fs::File::open(path).during(|| format!("opening {}", path.display()))
}
