//! From a plan to a running process, and back.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use network::Published;
use runtime::{
    Launch, LogSettings, Stdio,
    bundle::{self, BundleInput, BundleMount, Namespace, Shm},
};
use serde::{Deserialize, Serialize};
use types::{ContainerId, Error, Result, error::ResultExt as _};
use userns::UserNamespace;

use super::{
    Live, LocalAgent, blocking, files,
    networks::{links, port_map, target, wanted_ports},
};
use crate::{
    StartError, Started,
    plan::{NamespaceMode, Plan, SandboxPlan, Share},
};

/// How a container was started; kept where a reboot empties it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StartedPlan {
    pub(super) plan: Plan,
    pub(super) ports: Vec<Published>,
}

/// Bytes of a log file, and files kept, where nobody says: no log grows without bound.
const DEFAULT_LOG_SIZE: u64 = 256 << 20;
const DEFAULT_LOG_FILES: u32 = 4;

impl LocalAgent {
    pub(super) fn plan_file(&self, id: &ContainerId) -> PathBuf {
        self.run_dir.join("plans").join(format!("{id}.json"))
    }

    /// Makes a container's directories and fills its volumes.
    pub(super) async fn prepare(&self, plan: &Plan) -> Result<()> {
        let (agent, prepared) = (self.clone(), plan.clone());
        blocking(move || agent.prepare_disk(&prepared)).await?;
        let paths = self.paths_of(&plan.id);
        let state = self.state_dir(&plan.id);
        let log = paths.log.parent().map(Path::to_owned).unwrap_or_default();
        let dirs = [state, log, paths.upper, paths.work, paths.merged];
        let private = self.container_dir(&plan.id);
        blocking(move || {
            for dir in &dirs {
                fs::create_dir_all(dir).during(|| format!("creating {}", dir.display()))?;
            }
            // Nobody but root walks into what containers keep.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o710);
            fs::set_permissions(&private, mode)
                .during(|| format!("protecting {}", private.display()))
        })
        .await?;
        self.fill_volumes(plan).await
    }

    /// The control group of a share.
    pub(super) fn share_group(&self, share: &Share) -> runtime::cgroup::Group {
        let own = &self.runtime.settings().cgroup_parent;
        let path = format!("{}/{}", own.trim_end_matches('/'), share.name);
        self.runtime.cgroups().group(&path)
    }

    /// What a container's control group is below; empty for the instance's own.
    fn cgroup_parent(&self, plan: &Plan) -> String {
        match &plan.share {
            Some(share) => self.share_group(share).path().to_owned(),
            None => plan.host.resources.cgroup_parent.clone(),
        }
    }

    /// Sets the control group up that a container shares with others.
    async fn prepare_share(&self, plan: &Plan) -> Result<()> {
        let Some(share) = plan.share.clone() else {
            return Ok(());
        };
        let agent = self.clone();
        blocking(move || {
            let group = agent.share_group(&share);
            let cgroups = agent.runtime.cgroups();
            cgroups.make(group.path()).map_err(types::Error::from)?;
            agent.limit_group(&group, &share)
        })
        .await
    }

    /// Starts a container; on failure the caller releases it.
    pub(super) async fn start_container(
        &self,
        plan: &Plan,
        hold: bool,
    ) -> Result<Started, StartError> {
        self.prepare_share(plan).await?;
        let users = self.prepare_namespace(plan).await?;
        let (rooted, connected, attached) = tokio::join!(
            self.mount_root(plan, users.clone()),
            self.connect(plan, users),
            self.attach_plan(plan)
        );
        let published = connected.map_err(|error| StartError {
            connected: false,
            ..StartError::from(error)
        })?;
        rooted?;
        attached?;
        let launch = self.launch(plan, hold).await?;
        self.keep_plan(plan, &published).await?;
        let started = self.runtime.start(launch).await.map_err(start_error)?;
        if let Some(live) = self.lives().get_mut(&plan.id) {
            live.pid = started.pid;
        }
        self.watch(plan.id.clone());
        if plan.share.is_some() {
            let (agent, plan) = (self.clone(), plan.clone());
            blocking(move || agent.settle(&plan)).await?;
        }
        Ok(Started {
            pid: started.pid,
            ports: port_map(&published),
            sandbox_key: self.sandbox_key(plan),
        })
    }

    /// The user namespace of a container, with a directory of its own that its users reach.
    async fn prepare_namespace(&self, plan: &Plan) -> Result<Option<Arc<UserNamespace>>> {
        if plan.ids().is_none() {
            return Ok(None);
        }
        let (agent, plan) = (self.clone(), plan.clone());
        blocking(move || {
            agent.prepare_users(&plan)?;
            agent.namespace_of(&plan)
        })
        .await
    }

    async fn mount_root(&self, plan: &Plan, users: Option<Arc<UserNamespace>>) -> Result<()> {
        let paths = self.paths_of(&plan.id);
        let spec = image::RootfsSpec {
            layers: plan.layers.clone(),
            upper: paths.upper,
            work: paths.work,
            target: self.root_of(plan),
            volatile: false,
            users: users.map(|namespace| image::Users {
                namespace,
                scratch: self.users_dir(&plan.id).join("layers"),
            }),
        };
        let layers = self.layers.clone();
        blocking(move || {
            layers.unmount_rootfs(&spec.target)?;
            layers.mount_rootfs(&spec)
        })
        .await
    }

    /// What is left to do once a container with a share runs.
    fn settle(&self, plan: &Plan) -> Result<()> {
        self.settle_users(plan)?;
        match &plan.share {
            // With version 1 of control groups its own group has to have the limit.
            Some(share) if share.io_bytes.is_some() || share.io_operations.is_some() => {
                self.limit_group(&self.share_group(share), share)
            }
            _ => Ok(()),
        }
    }

    async fn attach_plan(&self, plan: &Plan) -> Result<()> {
        /// A check of a large file system that was not unmounted takes its time.
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1800);
        if super::volumes::volumes_of(plan).next().is_none() {
            return Ok(());
        }
        let (agent, plan) = (self.clone(), plan.clone());
        blocking(move || {
            let doing = format!("attaching the volumes of container {}", plan.name);
            volume::deadline::run(&doing, PATIENCE, move || agent.attach_volumes(&plan))
        })
        .await
    }

    /// Makes the network namespace with its interfaces and publishes the ports.
    async fn connect(
        &self,
        plan: &Plan,
        owner: Option<Arc<UserNamespace>>,
    ) -> Result<Vec<Published>> {
        let (endpoints, publish) = match &plan.network {
            SandboxPlan::Host | SandboxPlan::Container(_) => return Ok(Vec::new()),
            SandboxPlan::None => (&[][..], &[][..]),
            SandboxPlan::Own { endpoints, publish } => (endpoints.as_slice(), publish.as_slice()),
        };
        self.networks.create_sandbox_in(&plan.id, owner).await?;
        for endpoint in links(endpoints)? {
            self.networks.attach(&plan.id, &endpoint).await?;
        }
        self.serve_names(plan).await?;
        let Some(target) = target(plan, endpoints).filter(|_| !publish.is_empty()) else {
            return Ok(Vec::new());
        };
        let wanted = wanted_ports(endpoints, publish)?;
        self.networks.publish(&target, &wanted).await
    }

    async fn launch(&self, plan: &Plan, hold: bool) -> Result<Launch, StartError> {
        let agent = self.clone();
        let plan = plan.clone();
        let made = tokio::task::spawn_blocking(move || agent.launch_blocking(&plan, hold)).await;
        made.map_err(|error| StartError::from(Error::wrap("preparing a start", error)))?
    }

    fn launch_blocking(&self, plan: &Plan, hold: bool) -> Result<Launch, StartError> {
        let paths = self.paths_of(&plan.id);
        let mut generated = self.write_files(plan)?;
        let root = self.root_of(plan);
        let user = runtime::user::resolve(
            &root,
            &plan.config.user,
            plan.host.group_add.as_deref().unwrap_or_default(),
        )
        .map_err(|error| StartError::new(126, error.into()))?;
        let mut mounts = self.bundle_mounts(plan)?;
        let mut shm = self.shm(plan)?;
        let devices = self.raw_devices(plan)?;
        let users = self.namespace_of(plan)?;
        let mut rules = Vec::new();
        let mut host = std::borrow::Cow::Borrowed(&plan.host);
        if let Some(users) = &users {
            mounts.extend(self.map_devices(plan, &devices)?);
            rules = devices;
            let sources = mounts.iter_mut().filter_map(BundleMount::source_mut);
            let shared = match &mut shm {
                Shm::Directory(dir) => Some(dir),
                _ => None,
            };
            self.map_sources(
                plan,
                users,
                sources.chain(generated.files_mut()).chain(shared),
            )?;
        } else if !devices.is_empty() {
            let known = &mut host.to_mut().resources.devices;
            known.get_or_insert_default().extend(devices);
        }
        let tag = plan.hostname.clone();
        let spec = bundle::build(&BundleInput {
            id: &plan.id,
            config: &plan.config,
            host: &host,
            rootfs: &root,
            hostname: &tag,
            network: self.network_namespace(&plan.network, &plan.id)?,
            pid: self.namespace(&plan.pid, "pid")?,
            ipc: self.namespace(&plan.ipc, "ipc")?,
            uts: self.namespace(&plan.uts, "uts")?,
            users: users.as_deref().map(UserNamespace::path),
            bound_devices: &rules,
            user: &user,
            mounts: &mounts,
            hosts_file: Some(generated.hosts),
            hostname_file: Some(generated.hostname),
            resolv_conf: Some(generated.resolv_conf),
            shm,
            extra_env: &[],
            cgroup_path: &self
                .runtime
                .cgroup_path(&plan.id, &self.cgroup_parent(plan)),
            cgroups: self.runtime.cgroups(),
            init: self.runtime.settings().init.as_deref(),
        })
        .map_err(Error::from)?;
        Ok(Launch {
            id: plan.id.clone(),
            spec,
            runtime: plan.host.runtime.clone(),
            stdio: Stdio {
                tty: plan.config.tty,
                open_stdin: plan.config.open_stdin,
                stdin_once: plan.config.stdin_once,
                console_size: console_size(plan.host.console_size),
                owner: plan.ids().map(|ids| (ids.first, ids.first)),
            },
            log: log_settings(plan, paths.log)?,
            state_dir: self.state_dir(&plan.id),
            wait_attach: hold,
        })
    }

    fn network_namespace(&self, network: &SandboxPlan, id: &ContainerId) -> Result<Namespace> {
        match network {
            SandboxPlan::Host => Ok(Namespace::Host),
            SandboxPlan::None | SandboxPlan::Own { .. } => {
                Ok(Namespace::Path(self.networks.sandbox_path(id)))
            }
            SandboxPlan::Container(other) => {
                let plan = self.live(other).ok_or_else(|| not_running(other))?;
                self.network_namespace(&plan.network, other)
            }
        }
    }

    /// Where `docker inspect` finds the network namespace.
    pub(super) fn sandbox_key(&self, plan: &Plan) -> String {
        match self.network_namespace(&plan.network, &plan.id) {
            Ok(Namespace::Path(path)) if !matches!(plan.network, SandboxPlan::Container(_)) => {
                path.display().to_string()
            }
            _ => String::new(),
        }
    }

    fn namespace(&self, mode: &NamespaceMode, kind: &str) -> Result<Namespace> {
        Ok(match mode {
            NamespaceMode::Private | NamespaceMode::Shareable | NamespaceMode::None => {
                Namespace::Private
            }
            NamespaceMode::Host => Namespace::Host,
            NamespaceMode::Container(other) => {
                let pid = self.pid(other).ok_or_else(|| not_running(other))?;
                Namespace::Path(format!("/proc/{pid}/ns/{kind}").into())
            }
        })
    }

    /// What is at /dev/shm. A container that shares it keeps it where others can mount it.
    fn shm(&self, plan: &Plan) -> Result<Shm> {
        let size = u64::try_from(plan.host.shm_size)
            .ok()
            .filter(|size| *size > 0)
            .unwrap_or(64 << 20);
        Ok(match &plan.ipc {
            NamespaceMode::Private => Shm::Private(size),
            NamespaceMode::None => Shm::None,
            NamespaceMode::Host => Shm::Directory("/dev/shm".into()),
            NamespaceMode::Shareable => {
                let dir = self.shm_dir(plan);
                let owner = plan.ids().map_or(0, |ids| ids.first);
                super::mounts::mount_shm(&dir, size, owner)?;
                Shm::Directory(dir)
            }
            NamespaceMode::Container(other) => {
                let shared = self
                    .live(other)
                    .filter(|plan| plan.ipc == NamespaceMode::Shareable)
                    .ok_or_else(|| {
                        Error::invalid(format!(
                            "cannot join IPC of container {other}: it was not started with --ipc shareable"
                        ))
                    })?;
                Shm::Directory(self.shm_dir(&shared))
            }
        })
    }

    pub(super) async fn keep_plan(&self, plan: &Plan, ports: &[Published]) -> Result<()> {
        let kept = StartedPlan {
            plan: plan.clone(),
            ports: ports.to_vec(),
        };
        let file = self.plan_file(&plan.id);
        self.lives().insert(
            plan.id.clone(),
            Live {
                plan: Arc::new(plan.clone()),
                pid: 0,
            },
        );
        blocking(move || {
            let text = serde_json::to_vec(&kept).during(|| "encoding a plan")?;
            files::write(&file, &text)
        })
        .await
    }

    /// Gives back all that only a running container has.
    pub(super) async fn release_container(&self, id: &ContainerId) -> Result<()> {
        self.runtime.delete(id).await?;
        let (agent, gone) = (self.clone(), id.clone());
        let (layers, merged, shm, file) = (
            self.layers.clone(),
            self.paths_of(id).merged,
            self.run_dir.join("shm").join(id.as_str()),
            self.plan_file(id),
        );
        let (volumes, owner) = (self.volumes.clone(), id.to_string());
        let unmount = blocking(move || {
            // One that fails does not keep the others from being given back.
            let detached = volumes.detach_all(&owner);
            layers.unmount_rootfs(&merged)?;
            super::mounts::unmount_shm(&shm)?;
            agent.clear_users(&gone, &[])?;
            files::remove(&file)?;
            detached
        });
        let (unmounted, disconnected) = tokio::join!(unmount, self.networks.delete_sandbox(id));
        self.lives().remove(id);
        unmounted?;
        disconnected.map(drop)
    }
}

fn not_running(id: &ContainerId) -> Error {
    Error::conflict(format!(
        "cannot join a namespace of container {id}: it is not running"
    ))
}

/// docker's exit codes for what went wrong.
pub(super) fn start_error(error: runtime::Error) -> StartError {
    let exit_code = match &error {
        runtime::Error::Start(start) => start.kind.exit_code(),
        _ => 128,
    };
    StartError::new(exit_code, error.into())
}

/// docker gives height and width; a terminal that nobody measured has none.
pub(super) fn console_size([height, width]: [u32; 2]) -> Option<(u16, u16)> {
    let (width, height) = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
    (width > 0 && height > 0).then_some((width, height))
}

fn log_settings(plan: &Plan, path: PathBuf) -> Result<Option<LogSettings>> {
    let config = &plan.host.log_config;
    if config.driver == "none" {
        return Ok(None);
    }
    let max_size = match config.config.get("max-size").map(String::as_str) {
        None => Some(DEFAULT_LOG_SIZE),
        Some("-1") => None,
        Some(text) => Some(types::size::parse(text)?),
    };
    let max_file = match config.config.get("max-file") {
        Some(text) => text.parse().unwrap_or(1),
        None if config.config.contains_key("max-size") => 1,
        None => DEFAULT_LOG_FILES,
    };
    Ok(Some(LogSettings {
        path,
        max_size,
        max_file,
        attrs: super::logs::attributes(plan),
    }))
}
