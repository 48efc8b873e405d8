//! From a plan to a running process, and back.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use network::{Endpoint, Publish, Published, Target};
use runtime::{
    Launch, LogSettings, Stdio,
    bundle::{self, BundleInput, Namespace, Shm},
};
use serde::{Deserialize, Serialize};
use types::{
    ContainerId, Error, NetworkId, Result, container::PortBinding, error::ResultExt as _,
    port::Port,
};

use super::{Live, LocalAgent, blocking, files};
use crate::{
    StartError, Started,
    plan::{EndpointPlan, NamespaceMode, Plan, SandboxPlan},
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

    /// Starts a container; on failure the caller releases it.
    pub(super) async fn start_container(
        &self,
        plan: &Plan,
        hold: bool,
    ) -> Result<Started, StartError> {
        let (rooted, connected, attached) = tokio::join!(
            self.mount_root(plan),
            self.connect(plan),
            self.attach_plan(plan)
        );
        let published = connected?;
        rooted?;
        attached?;
        let launch = self.launch(plan, hold).await?;
        self.keep_plan(plan, &published).await?;
        let started = self.runtime.start(launch).await.map_err(start_error)?;
        if let Some(live) = self.lives().get_mut(&plan.id) {
            live.pid = started.pid;
        }
        self.watch(plan.id.clone());
        Ok(Started {
            pid: started.pid,
            ports: port_map(&published),
            sandbox_key: self.sandbox_key(plan),
        })
    }

    async fn mount_root(&self, plan: &Plan) -> Result<()> {
        let paths = self.paths_of(&plan.id);
        let spec = image::RootfsSpec {
            layers: plan.layers.clone(),
            upper: paths.upper,
            work: paths.work,
            target: paths.merged,
            volatile: false,
        };
        let layers = self.layers.clone();
        blocking(move || {
            layers.unmount_rootfs(&spec.target)?;
            layers.mount_rootfs(&spec)
        })
        .await
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
    async fn connect(&self, plan: &Plan) -> Result<Vec<Published>> {
        let (endpoints, publish) = match &plan.network {
            SandboxPlan::Host | SandboxPlan::Container(_) => return Ok(Vec::new()),
            SandboxPlan::None => (&[][..], &[][..]),
            SandboxPlan::Own { endpoints, publish } => (endpoints.as_slice(), publish.as_slice()),
        };
        self.networks.create_sandbox(&plan.id).await?;
        for endpoint in endpoints {
            self.networks.attach(&plan.id, &link(endpoint)?).await?;
        }
        if publish.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = publish
            .iter()
            .map(|(port, binding)| wanted_port(*port, binding))
            .collect::<Result<Vec<_>>>()?;
        self.networks
            .publish(&target(plan, endpoints), &wanted)
            .await
    }

    async fn launch(&self, plan: &Plan, hold: bool) -> Result<Launch, StartError> {
        let agent = self.clone();
        let plan = plan.clone();
        let made = tokio::task::spawn_blocking(move || agent.launch_blocking(&plan, hold)).await;
        made.map_err(|error| StartError::from(Error::wrap("preparing a start", error)))?
    }

    fn launch_blocking(&self, plan: &Plan, hold: bool) -> Result<Launch, StartError> {
        let paths = self.paths_of(&plan.id);
        let generated = self.write_files(plan)?;
        let user = runtime::user::resolve(
            &paths.merged,
            &plan.config.user,
            plan.host.group_add.as_deref().unwrap_or_default(),
        )
        .map_err(|error| StartError {
            exit_code: 126,
            error: error.into(),
        })?;
        let mounts = self.bundle_mounts(plan)?;
        let devices = self.raw_devices(plan)?;
        let mut host = std::borrow::Cow::Borrowed(&plan.host);
        if !devices.is_empty() {
            let known = &mut host.to_mut().resources.devices;
            known.get_or_insert_default().extend(devices);
        }
        let tag = plan.hostname.clone();
        let spec = bundle::build(&BundleInput {
            id: &plan.id,
            config: &plan.config,
            host: &host,
            rootfs: &paths.merged,
            hostname: &tag,
            network: self.network_namespace(&plan.network, &plan.id)?,
            pid: self.namespace(&plan.pid, "pid")?,
            ipc: self.namespace(&plan.ipc, "ipc")?,
            uts: self.namespace(&plan.uts, "uts")?,
            user: &user,
            mounts: &mounts,
            hosts_file: Some(generated.hosts),
            hostname_file: Some(generated.hostname),
            resolv_conf: Some(generated.resolv_conf),
            shm: self.shm(plan)?,
            extra_env: &[],
            cgroup_path: &self
                .runtime
                .cgroup_path(&plan.id, &plan.host.resources.cgroup_parent),
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
                let dir = self.shm_dir(&plan.id);
                super::mounts::mount_shm(&dir, size)?;
                Shm::Directory(dir)
            }
            NamespaceMode::Container(other) => {
                let shared = self
                    .live(other)
                    .is_some_and(|plan| plan.ipc == NamespaceMode::Shareable);
                if !shared {
                    return Err(Error::invalid(format!(
                        "cannot join IPC of container {other}: it was not started with --ipc shareable"
                    )));
                }
                Shm::Directory(self.shm_dir(other))
            }
        })
    }

    /// Connects a running container to one more network.
    pub(super) async fn join_network(
        &self,
        id: &ContainerId,
        endpoint: &EndpointPlan,
    ) -> Result<()> {
        let plan = self
            .live(id)
            .ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
        let SandboxPlan::Own { endpoints, .. } = &plan.network else {
            return Err(Error::conflict(format!(
                "container {id} has no network of its own"
            )));
        };
        let is_free = |name: &String| endpoints.iter().all(|other| other.interface != *name);
        let interface = (0..)
            .map(|number| format!("eth{number}"))
            .find(is_free)
            .unwrap_or_default();
        // Where nothing leads out yet, the new network does.
        let is_default = !endpoints.iter().any(|other| other.is_default);
        let endpoint = &EndpointPlan {
            interface,
            is_default,
            ..endpoint.clone()
        };
        self.networks.attach(id, &link(endpoint)?).await?;
        let kept = self
            .change_endpoints(id, |endpoints| endpoints.push(endpoint.clone()))
            .await;
        if kept.is_err() {
            self.networks
                .detach(id, &endpoint.interface.parse()?)
                .await?;
        }
        kept
    }

    /// Takes a running container off a network.
    pub(super) async fn leave_network(&self, id: &ContainerId, network: &NetworkId) -> Result<()> {
        let plan = self
            .live(id)
            .ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
        let SandboxPlan::Own { endpoints, .. } = &plan.network else {
            return Ok(());
        };
        for endpoint in endpoints
            .iter()
            .filter(|endpoint| endpoint.network.id == *network)
        {
            self.networks
                .detach(id, &endpoint.interface.parse()?)
                .await?;
        }
        self.change_endpoints(id, |endpoints| {
            endpoints.retain(|endpoint| endpoint.network.id != *network)
        })
        .await
    }

    /// Changes what is kept of a running container's connections.
    async fn change_endpoints(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut Vec<EndpointPlan>),
    ) -> Result<()> {
        let kept = self.started_plan(id).await?;
        let Some(StartedPlan { mut plan, ports }) = kept else {
            return Err(Error::conflict(format!("container {id} is not running")));
        };
        if let SandboxPlan::Own { endpoints, .. } = &mut plan.network {
            change(endpoints);
        }
        let pid = self.pid(id).unwrap_or(0);
        self.keep_plan(&plan, &ports).await?;
        if let Some(live) = self.lives().get_mut(id) {
            live.pid = pid;
        }
        Ok(())
    }

    async fn keep_plan(&self, plan: &Plan, ports: &[Published]) -> Result<()> {
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
        let (layers, merged, shm, file) = (
            self.layers.clone(),
            self.paths_of(id).merged,
            self.shm_dir(id),
            self.plan_file(id),
        );
        let (volumes, owner) = (self.volumes.clone(), id.to_string());
        let unmount = blocking(move || {
            // One that fails does not keep the others from being given back.
            let detached = volumes.detach_all(&owner);
            layers.unmount_rootfs(&merged)?;
            super::mounts::unmount_shm(&shm)?;
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
    StartError {
        exit_code,
        error: error.into(),
    }
}

/// An endpoint as the kernel shall have it.
pub(super) fn link(endpoint: &EndpointPlan) -> Result<Endpoint> {
    let leads_out = endpoint.is_default && !endpoint.network.internal;
    let gateways = endpoint
        .network
        .subnets
        .iter()
        .filter_map(|subnet| subnet.gateway);
    let reachable = |ip: &std::net::IpAddr| endpoint.addresses.iter().any(|own| own.contains(ip));
    Ok(Endpoint {
        bridge: endpoint.network.name.clone(),
        ifname: endpoint.interface.parse()?,
        addresses: endpoint.addresses.clone(),
        mac: endpoint.mac,
        gateways: if leads_out {
            gateways.filter(reachable).collect()
        } else {
            Vec::new()
        },
        sysctls: Vec::new(),
    })
}

/// Where a plan's published ports lead.
pub(super) fn target(plan: &Plan, endpoints: &[EndpointPlan]) -> Target {
    let mut first: Vec<&EndpointPlan> = endpoints.iter().collect();
    first.sort_by_key(|endpoint| !endpoint.is_default);
    let addresses = || {
        first
            .iter()
            .flat_map(|endpoint| &endpoint.addresses)
            .map(ipnet::IpNet::addr)
    };
    Target {
        id: plan.id.clone(),
        name: plan.name.clone(),
        endpoint_id: first
            .first()
            .map(|endpoint| endpoint.id.clone())
            .unwrap_or_default(),
        v4: addresses().find_map(|ip| {
            if let std::net::IpAddr::V4(ip) = ip {
                Some(ip)
            } else {
                None
            }
        }),
        v6: addresses().find_map(|ip| {
            if let std::net::IpAddr::V6(ip) = ip {
                Some(ip)
            } else {
                None
            }
        }),
    }
}

fn wanted_port(port: Port, binding: &PortBinding) -> Result<Publish> {
    let bad = || {
        Error::invalid(format!(
            "invalid port specification: {:?}",
            binding.host_port
        ))
    };
    let host_ports = match binding.host_port.split_once('-') {
        _ if binding.host_port.is_empty() => (0, 0),
        None => binding
            .host_port
            .parse()
            .map(|port| (port, port))
            .map_err(|_| bad())?,
        Some((first, last)) => (
            first.parse().map_err(|_| bad())?,
            last.parse().map_err(|_| bad())?,
        ),
    };
    let host_ip = Some(&binding.host_ip).filter(|text| !text.is_empty());
    let host_ip = host_ip
        .map(|text| {
            text.parse()
                .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))
        })
        .transpose()?;
    Ok(Publish {
        protocol: port.protocol,
        container_port: port.number,
        host_ip,
        host_ports,
    })
}

/// Published ports in docker's form.
pub(super) fn port_map(
    published: &[Published],
) -> std::collections::BTreeMap<Port, Vec<PortBinding>> {
    let mut map = std::collections::BTreeMap::<Port, Vec<PortBinding>>::new();
    for one in published {
        let port = Port {
            number: one.container_port,
            protocol: one.protocol,
        };
        let binding = PortBinding {
            host_ip: one.host_ip.to_string(),
            host_port: one.host_port.to_string(),
        };
        map.entry(port).or_default().push(binding);
    }
    map
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
