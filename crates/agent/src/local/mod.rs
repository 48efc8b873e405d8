//! The agent of the machine it runs on.
//!
//! ```text
//! <data>/containers/<id>/   upper, work, merged (overlay), hosts, hostname, resolv.conf,
//!                           log/ (json-file), state/ (exit.json)
//!                           disk, a link to where the first ones and log/ lie instead
//! <data>/pools/             pools of volumes (the crate `volume`)
//! <run>/volumes/            mounts of block volumes
//! <run>/plans/<id>.json     how a running container was started
//! <run>/shm/<id>            /dev/shm of a container that shares it
//! <run>/userns/             user namespaces (the crate `userns`)
//! <run>/users/<id>/         what a container with users of its own reaches
//! ```

mod adopt;
mod archive;
mod disk;
mod exec;
mod files;
pub mod images;
mod info;
mod logs;
mod mounts;
mod names;
mod networks;
mod root;
mod start;
mod streams;
mod top;
mod users;
mod volumes;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use image::LayerStore;
use network::{Bridge, Networks};
use runtime::Runtime;
use tokio::sync::mpsc;
use types::{
    ContainerId, ExecId, Result,
    container::Resources,
    error::ResultExt as _,
    stats::{InterfaceStats, Stats},
};
use userns::UserNamespaces;
use volume::Volumes;

use self::images::LocalImages;
use crate::{
    AgentEvent, AttachTo, Attached, ExecPlan, LogQuery, LogStream, MadeLayer, NodeAgent, NodeInfo,
    Observed, PathStat, Plan, Reader, RootChange, StartError, Started, plan::Paths,
};

/// What a [`LocalAgent`] works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Durable, for this instance only.
    pub data_dir: PathBuf,
    /// On a file system that a reboot empties, for this instance only.
    pub run_dir: PathBuf,
    pub runtime: Runtime,
    pub networks: Networks,
    pub images: LocalImages,
}

/// The agent of this machine. Cheap to clone.
#[derive(Clone)]
pub struct LocalAgent(Arc<Inner>);

/// A container that was started and not released.
struct Live {
    plan: Arc<Plan>,
    /// 0 until the start is complete.
    pid: i32,
}

/// What all clones share.
pub struct Inner {
    data_dir: PathBuf,
    run_dir: PathBuf,
    runtime: Runtime,
    networks: Networks,
    layers: Arc<LayerStore>,
    volumes: Volumes,
    users: UserNamespaces,
    disks: disk::Disks,
    images: LocalImages,
    /// Plans of the containers that have been started and not released.
    live: Mutex<HashMap<ContainerId, Live>>,
    events: mpsc::UnboundedSender<AgentEvent>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<AgentEvent>>>,
    facts: info::Facts,
}

impl std::ops::Deref for LocalAgent {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl LocalAgent {
    /// Makes the directories it works in.
    pub fn open(settings: Settings) -> Result<Self> {
        let Settings {
            data_dir,
            run_dir,
            runtime,
            networks,
            images,
        } = settings;
        for dir in [
            data_dir.join("containers"),
            run_dir.join("plans"),
            run_dir.join("shm"),
            run_dir.join("users"),
        ] {
            std::fs::create_dir_all(&dir).during(|| format!("creating {}", dir.display()))?;
        }
        let (events, receiver) = mpsc::unbounded_channel();
        let pressure = events.clone();
        let volumes = Volumes::new(&data_dir, &run_dir, move |what| {
            // Nobody listens at the very end.
            let _ = pressure.send(AgentEvent::Pressure(what));
        })?;
        let users = UserNamespaces::open(&run_dir)?;
        // Users of containers pass through these directories to their own, and see no other.
        for dir in run_dir.join("users").ancestors().take(2) {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            std::fs::set_permissions(dir, mode)
                .during(|| format!("setting permissions of {}", dir.display()))?;
        }
        let facts = info::Facts::gather(&data_dir, &runtime);
        Ok(Self(Arc::new(Inner {
            data_dir,
            run_dir,
            runtime,
            networks,
            volumes,
            users,
            disks: disk::Disks::default(),
            layers: images.layers().clone(),
            images,
            live: Mutex::default(),
            events,
            receiver: Mutex::new(Some(receiver)),
            facts,
        })))
    }

    fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.data_dir.join("containers").join(id.as_str())
    }
    fn state_dir(&self, id: &ContainerId) -> PathBuf {
        self.container_dir(id).join("state")
    }
    /// Where a container keeps /dev/shm for others.
    fn shm_dir(&self, plan: &Plan) -> PathBuf {
        match plan.ids() {
            Some(_) => self.users_dir(&plan.id).join("shm"),
            None => self.run_dir.join("shm").join(plan.id.as_str()),
        }
    }
    fn layer_path(&self) -> PathBuf {
        self.data_dir.join("layers")
    }

    fn paths_of(&self, id: &ContainerId) -> Paths {
        let dir = self.container_dir(id);
        let disk = dir.join(disk::LINK);
        let written = if disk.is_symlink() { &disk } else { &dir };
        Paths {
            log: written.join("log").join(format!("{id}-json.log")),
            resolv_conf: dir.join("resolv.conf"),
            hosts: dir.join("hosts"),
            hostname: dir.join("hostname"),
            upper: written.join("upper"),
            work: written.join("work"),
            merged: dir.join("merged"),
            layers: self.layer_path(),
        }
    }

    fn lives(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// How a started container was planned.
    fn live(&self, id: &ContainerId) -> Option<Arc<Plan>> {
        self.lives().get(id).map(|live| live.plan.clone())
    }
    /// The first process of a running container.
    fn pid(&self, id: &ContainerId) -> Option<i32> {
        self.lives()
            .get(id)
            .map(|live| live.pid)
            .filter(|pid| *pid > 0)
    }

    /// Tells of the end of a container's first process, once it has come.
    fn watch(&self, id: ContainerId) {
        let agent = self.clone();
        tokio::spawn(async move {
            let exit = match agent.runtime.wait(&id).await {
                Ok(exit) => crate::Exit {
                    code: exit.code,
                    oom_killed: exit.oom,
                    at: at(exit.finished_at),
                },
                Err(error) => {
                    tracing::error!(%id, %error, "waiting for a container's end failed; it counts as ended");
                    crate::Exit {
                        code: 255,
                        oom_killed: false,
                        at: types::Time::now(),
                    }
                }
            };
            let _ = agent.events.send(AgentEvent::Exited { id, exit });
        });
    }
}

fn at(time: types::Time) -> types::Time {
    if time.is_zero() {
        types::Time::now()
    } else {
        time
    }
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .during(|| "running blocking work")?
}

#[async_trait::async_trait]
impl NodeAgent for LocalAgent {
    async fn info(&self) -> Result<NodeInfo> {
        Ok(self.facts.now())
    }
    async fn create(&self, plan: &Plan) -> Result<()> {
        self.prepare(plan).await
    }
    async fn start(&self, plan: &Plan, hold_for_attach: bool) -> Result<Started, StartError> {
        self.start_container(plan, hold_for_attach).await
    }
    async fn adopt(&self, plans: &[Plan]) -> Result<Vec<(ContainerId, Observed)>> {
        self.adopt_all(plans).await
    }
    async fn release(&self, id: &ContainerId) -> Result<()> {
        self.release_container(id).await
    }
    async fn destroy(&self, id: &ContainerId) -> Result<()> {
        self.release_container(id).await?;
        let (agent, id) = (self.clone(), id.clone());
        blocking(move || {
            agent.remove_from_disk(&id)?;
            remove_tree(&agent.container_dir(&id))
        })
        .await
    }
    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<()> {
        match self.runtime.kill(id, signal, false).await {
            Err(runtime::Error::NotRunning(_)) => Err(types::Error::not_found(format!(
                "container {id} has no process"
            ))),
            other => Ok(other?),
        }
    }
    async fn set_paused(&self, id: &ContainerId, paused: bool) -> Result<()> {
        if paused {
            self.runtime.pause(id).await?;
        } else {
            self.runtime.unpause(id).await?;
        }
        Ok(())
    }
    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        Ok(self.runtime.update(id, resources).await?)
    }
    async fn attach(&self, id: &ContainerId, to: AttachTo) -> Result<Attached> {
        self.attach_container(id, to).await
    }
    async fn resize(&self, id: &ContainerId, height: u16, width: u16) -> Result<()> {
        Ok(self.runtime.resize(id, width, height).await?)
    }
    async fn logs(&self, id: &ContainerId, query: LogQuery) -> Result<LogStream> {
        self.read_logs(id, query).await
    }
    async fn top(
        &self,
        id: &ContainerId,
        arguments: &str,
    ) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        self.ps(id, arguments).await
    }
    async fn stats(&self, id: &ContainerId) -> Result<(Stats, Vec<InterfaceStats>)> {
        let stats = self.runtime.stats(id).await?;
        // A container without a network of its own has nothing to count.
        let own = self
            .live(id)
            .is_some_and(|plan| matches!(plan.network, crate::SandboxPlan::Own { .. }));
        let networks = if own {
            self.runtime.interface_stats(id).await.unwrap_or_default()
        } else {
            Vec::new()
        };
        Ok((
            stats,
            networks
                .into_iter()
                .filter(|one| one.name != "lo")
                .collect(),
        ))
    }
    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        plan: &ExecPlan,
        attach: Option<AttachTo>,
    ) -> Result<(i32, Option<Attached>), StartError> {
        self.exec_container(id, exec, plan, attach).await
    }
    async fn exec_exit(&self, id: &ContainerId, exec: &ExecId) -> Result<Option<crate::Exit>> {
        self.exec_ended(id, exec).await
    }
    async fn exec_resize(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        height: u16,
        width: u16,
    ) -> Result<()> {
        Ok(self.runtime.exec_resize(id, exec, width, height).await?)
    }
    async fn exec_forget(&self, id: &ContainerId, exec: &ExecId) -> Result<()> {
        Ok(self.runtime.exec_delete(id, exec).await?)
    }
    async fn exec_kill(&self, id: &ContainerId, exec: &ExecId) -> Result<()> {
        Ok(self.runtime.exec_kill(id, exec, 9).await?)
    }
    async fn size_rw(&self, id: &ContainerId) -> Result<u64> {
        let (layers, upper) = (self.layers.clone(), self.paths_of(id).upper);
        blocking(move || layers.upper_size(&upper)).await
    }
    async fn changes(&self, id: &ContainerId, lower: &[types::Digest]) -> Result<Vec<RootChange>> {
        let (layers, lower, upper) = (self.layers.clone(), lower.to_vec(), self.paths_of(id).upper);
        let changes = blocking(move || layers.changes(&lower, &upper)).await?;
        Ok(changes
            .into_iter()
            .map(|change| RootChange {
                path: change.path,
                kind: change.kind as u8,
            })
            .collect())
    }
    async fn export(&self, plan: &Plan) -> Result<Reader> {
        self.export_root(plan).await
    }
    async fn archive_stat(&self, plan: &Plan, path: &str) -> Result<PathStat> {
        self.stat_path(plan, path).await
    }
    async fn archive_get(&self, plan: &Plan, path: &str) -> Result<(PathStat, Reader)> {
        self.get_archive(plan, path).await
    }
    async fn archive_put(
        &self,
        plan: &Plan,
        path: &str,
        tar: Reader,
        no_overwrite_dir_non_dir: bool,
        copy_owner: bool,
    ) -> Result<()> {
        self.put_archive(plan, path, tar, no_overwrite_dir_non_dir, copy_owner)
            .await
    }
    async fn commit_layer(&self, id: &ContainerId) -> Result<MadeLayer> {
        let (layers, upper) = (self.layers.clone(), self.paths_of(id).upper);
        let made = blocking(move || layers.commit_layer(&upper)).await?;
        Ok(self.images.made(made))
    }
    async fn network_ensure(&self, network: &Bridge) -> Result<()> {
        self.networks.ensure_bridge(network).await.map(drop)
    }
    async fn network_remove(&self, network: &Bridge) -> Result<()> {
        self.networks.forget_names(&network.id);
        self.networks.remove_bridge(&network.name).await.map(drop)
    }
    async fn network_names(&self, names: &network::Names) -> Result<()> {
        self.networks.set_names(names);
        Ok(())
    }
    async fn network_join(
        &self,
        id: &ContainerId,
        endpoint: &crate::EndpointPlan,
    ) -> Result<crate::PortMap> {
        self.join_network(id, endpoint).await
    }
    async fn network_leave(
        &self,
        id: &ContainerId,
        network: &types::NetworkId,
    ) -> Result<crate::PortMap> {
        self.leave_network(id, network).await
    }
    async fn network_occupied(&self) -> Result<Vec<ipnet::IpNet>> {
        self.networks.used_networks().await
    }
    async fn path_exists(&self, path: &Path) -> Result<bool> {
        let path = path.to_owned();
        blocking(move || Ok(path.exists())).await
    }
    async fn share_limit(&self, share: &crate::plan::Share) -> Result<()> {
        let (agent, share) = (self.clone(), share.clone());
        blocking(move || {
            agent.limit_disk(&share)?;
            let group = agent.share_group(&share);
            match group.exists() {
                true => agent.limit_group(&group, &share),
                false => Ok(()),
            }
        })
        .await
    }
    async fn share_remove(&self, share: &crate::plan::Share) -> Result<()> {
        let (agent, share) = (self.clone(), share.clone());
        blocking(move || {
            agent.remove_users(&share)?;
            agent.remove_disk(&share)?;
            agent
                .share_group(&share)
                .destroy()
                .map_err(types::Error::from)
        })
        .await
    }
    async fn share_use(&self, share: &crate::plan::Share) -> Result<crate::plan::ShareUse> {
        let (agent, share) = (self.clone(), share.clone());
        blocking(move || {
            let mut used = crate::plan::ShareUse {
                disk: agent.disk_use(&share),
                ..Default::default()
            };
            let group = agent.share_group(&share);
            if group.exists() {
                let stats = group.stats().map_err(types::Error::from)?;
                used.memory = Some(stats.memory_usage);
                used.pids = Some(stats.pids_current);
            }
            Ok(used)
        })
        .await
    }
    async fn tear_down(&self) -> Result<()> {
        let volumes = self.volumes.clone();
        let closed = blocking(move || volumes.close_pools()).await;
        self.networks.tear_down().await?;
        self.networks.settled().await;
        let group = self
            .runtime
            .cgroups()
            .group(&self.runtime.settings().cgroup_parent);
        let users = self.users.clone();
        blocking(move || {
            users.remove_all()?;
            group.destroy().map_err(types::Error::from)
        })
        .await?;
        closed
    }
    async fn paths(&self, id: &ContainerId) -> Result<Paths> {
        let mut paths = self.paths_of(id);
        if let Some(plan) = self.live(id) {
            paths.merged = self.root_of(&plan);
        }
        Ok(paths)
    }
    fn events(&self) -> Option<mpsc::UnboundedReceiver<AgentEvent>> {
        self.receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl LocalAgent {
    /// Sets the limits of a share's control group.
    fn limit_group(
        &self,
        group: &runtime::cgroup::Group,
        share: &crate::plan::Share,
    ) -> Result<()> {
        let limited = share.io_bytes.is_some() || share.io_operations.is_some();
        let io = runtime::cgroup::IoLimits {
            devices: if limited { self.disks() } else { Vec::new() },
            bytes: share.io_bytes,
            operations: share.io_operations,
        };
        group
            .limit(share.memory, share.nano_cpus, share.pids)
            .and_then(|()| group.limit_io(&io))
            .map_err(|error| {
                types::Error::from(error).context(format!(
                    "limiting {} (what runs may take more than that already)",
                    share.name
                ))
            })
    }

    /// The disks that hold what containers read and write, whole ones: parts have no limits.
    fn disks(&self) -> Vec<(u32, u32)> {
        use std::os::unix::fs::MetadataExt as _;
        let own = std::fs::metadata(&self.data_dir).map(|facts| facts.dev());
        let of_pools = self.volumes.devices().into_iter().filter_map(|device| {
            let facts = std::fs::metadata(device).ok()?;
            (facts.rdev() != 0).then_some(facts.rdev())
        });
        let mut disks: Vec<(u32, u32)> = own
            .into_iter()
            .chain(of_pools)
            .filter_map(|number| whole_disk(rustix::fs::major(number), rustix::fs::minor(number)))
            .collect();
        disks.sort_unstable();
        disks.dedup();
        disks
    }
}

/// The disk that a block device is, or is a part of; `None` for what is no block device, as file
/// systems over several have it.
fn whole_disk(major: u32, minor: u32) -> Option<(u32, u32)> {
    let place = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let place = match place.join("partition").exists() {
        true => place.parent()?,
        false => &place,
    };
    let text = std::fs::read_to_string(place.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Removes a directory with all it holds; it need not exist.
fn remove_tree(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(types::Error::wrap(
            format_args!("removing {}", dir.display()),
            error,
        )),
        _ => Ok(()),
    }
}
