//! Creating containers.

use std::sync::Arc;

use store::{Guard, Txn};
use types::{
    Config, ContainerId, ContainerName, Error, HostConfig, Kind, NodeId, Result, Time,
    container::EndpointSettings, record::encode, state::Desired,
};

use super::{Container, merge::merge, name_conflict, support, validate};
use crate::{
    Engine, Scope,
    record::{ContainerRecord, ObservedRecord, key},
    request::{CreateRequest, Created},
    tenants::policy,
};

/// How often a made-up name may be taken before one with a number is used.
const NAME_TRIES: usize = 6;

impl Engine {
    /// Creates a container: checks the request, finds the image, makes the volumes,
    /// prepares the node, and records it. All of it is undone when a step fails.
    pub async fn container_create(&self, scope: &Scope, request: CreateRequest) -> Result<Created> {
        let CreateRequest {
            name,
            platform,
            config,
            mut host,
            mut endpoints,
        } = request;
        let name = name
            .filter(|name| !name.is_empty())
            .map(|name| name.parse::<ContainerName>())
            .transpose()?;
        if config.image.is_empty() {
            return Err(Error::invalid("no image specified: Config.Image is empty"));
        }
        let cpus = self.node().await?.cpus;
        let mut warnings = validate::create(&config, &mut host, cpus)?;
        policy::container(scope, &host)?;
        support::resources(&mut host.resources, &self.node().await?, &mut warnings)?;
        support::storage(&host)?;
        validate::endpoints(&host, &endpoints)?;
        let image = self
            .image_for_run(scope, &config.image, platform.as_deref())
            .await?;
        let mut config = merge(config, &image.config)?;
        validate::create(&config, &mut host, cpus)?;
        // Names of other containers become ids, so that a later rename changes nothing.
        for mode in [
            &mut host.network_mode,
            &mut host.pid_mode,
            &mut host.ipc_mode,
        ] {
            if let Some(other) = mode.strip_prefix("container:") {
                let found = self.container(scope, other).map_err(not_the_image)?;
                *mode = format!("container:{}", found.id);
            }
        }
        if let Some(runtime) = Some(&host.runtime).filter(|runtime| !runtime.is_empty())
            && !self.node().await?.runtimes.contains_key(runtime)
        {
            return Err(Error::invalid(format!(
                "unknown or invalid runtime name: {runtime}"
            )));
        }
        let id = ContainerId::random();
        settle_networks(&config, &mut host, &mut endpoints);
        self.settle_endpoints(&scope.namespace, &mut endpoints)?;
        self.settle_links(scope, &mut host)?;
        self.settle_hostname(scope, &id, &mut config, &host).await?;
        self.settle_defaults(&mut host).await?;
        if let Some(name) = &name
            && let Some(holder) = self.containers.holder(&scope.namespace, name)
        {
            return Err(name_conflict(name, holder.as_str()));
        }

        let _turn = self.room_for_container(&scope.namespace, &host).await?;
        let (mounts, leases) = self
            .resolve_mounts(scope, &config, &host)
            .await
            .map_err(not_the_image)?;
        let record = ContainerRecord {
            name: name.clone().unwrap_or_else(types::name::made_up),
            namespace: scope.namespace.clone(),
            node: NodeId::local(),
            created: Time::now(),
            image: image.id.clone(),
            layers: image.layers.clone(),
            platform: image.os.clone(),
            config,
            host,
            endpoints,
            mounts,
            desired: Desired::Stopped,
            id: id.clone(),
        };
        let record = self.record_new(record, name.is_some()).await?;
        let plan = self.plan(&record)?;
        if let Err(error) = self.agent.create(&plan).await {
            self.undo_create(&record).await;
            return Err(error);
        }
        for lease in leases {
            lease.keep();
        }
        let container = Arc::new(Container::new(record, ObservedRecord::default()));
        self.containers.insert(container.clone());
        image.held.release().await;
        self.container_event(&container, "create", &[]);
        Ok(Created { id, warnings })
    }

    /// Writes the record under a free name. The record comes before anything on the node,
    /// so that whatever a crash leaves behind there belongs to a known container.
    async fn record_new(
        &self,
        mut record: ContainerRecord,
        named: bool,
    ) -> Result<ContainerRecord> {
        for attempt in 0.. {
            let name_key = key::name(&record.namespace, &record.name);
            let txn = Txn::new()
                .when(Guard::Absent(name_key.clone()))
                .put(name_key, record.id.as_str().to_owned())
                .put(key::spec(&record.namespace, &record.id), encode(&record)?);
            match self.store.commit(txn).await {
                Ok(_) => break,
                Err(store::Error::Conflict { .. }) if named => {
                    let holder = self.containers.holder(&record.namespace, &record.name);
                    return Err(name_conflict(
                        &record.name,
                        holder.as_ref().map_or("", ContainerId::as_str),
                    ));
                }
                Err(store::Error::Conflict { .. }) => {
                    record.name = types::name::made_up();
                    if attempt >= NAME_TRIES {
                        record.name = format!("{}{attempt}", record.name).parse()?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(record)
    }

    async fn undo_create(&self, record: &ContainerRecord) {
        if let Err(error) = self.agent.destroy(&record.id).await {
            tracing::warn!(id = %record.id, %error, "undoing a create: the container's files could not be removed; the next start of kraud tries again");
        }
        let txn = Txn::new()
            .delete(key::name(&record.namespace, &record.name))
            .delete_prefix(format!("ns/{}/containers/{}/", record.namespace, record.id));
        if let Err(error) = self.store.commit(txn).await {
            tracing::warn!(id = %record.id, %error, "undoing a create: the record could not be removed");
        }
    }

    /// The hostname: as asked, else that of the network shared, else the short id.
    async fn settle_hostname(
        &self,
        scope: &Scope,
        id: &ContainerId,
        config: &mut Config,
        host: &HostConfig,
    ) -> Result<()> {
        if let Some(other) = host.network_mode.strip_prefix("container:") {
            let other = self.container(scope, other)?.record();
            config.hostname.clone_from(&other.config.hostname);
            config.domainname.clone_from(&other.config.domainname);
        } else if config.hostname.is_empty() {
            config.hostname = if host.network_mode == "host" || host.uts_mode == "host" {
                self.node().await?.hostname.clone()
            } else {
                id.short().to_owned()
            };
        }
        Ok(())
    }

    /// Fills in what docker's inspect shows as settled even if nobody asked for it.
    async fn settle_defaults(&self, host: &mut HostConfig) -> Result<()> {
        let node = self.node().await?;
        if host.runtime.is_empty() {
            host.runtime.clone_from(&node.default_runtime);
        }
        if host.shm_size == 0 {
            host.shm_size = 64 << 20;
        }
        if host.ipc_mode.is_empty() {
            host.ipc_mode = "private".into();
        }
        if host.cgroupns_mode.is_empty() {
            // As in docker a privileged container has its own, too: only version 1 gives it the host's.
            let private = node.cgroup_version == 2;
            host.cgroupns_mode = if private { "private" } else { "host" }.into();
        }
        if host.restart_policy.name.is_empty() {
            host.restart_policy.name = "no".into();
        }
        if host.masked_paths.is_none() && !host.privileged {
            host.masked_paths = Some(strings(MASKED_PATHS));
        }
        if host.readonly_paths.is_none() && !host.privileged {
            host.readonly_paths = Some(strings(READONLY_PATHS));
        }
        if host.log_config.config.is_empty() && host.log_config.driver != "none" {
            host.log_config
                .config
                .clone_from(&self.settings.log_options);
        }
        Ok(())
    }
}

/// At a create, "not found" means the image: clients would try to pull it.
fn not_the_image(mut error: Error) -> Error {
    if error.kind == Kind::NotFound {
        error.kind = Kind::InvalidParameter;
    }
    error
}

/// Names the default network, and lists every network to join. Whether they exist is found
/// at the start, as in docker: at a create, "not found" would mean the image.
fn settle_networks(
    config: &Config,
    host: &mut HostConfig,
    endpoints: &mut std::collections::BTreeMap<String, EndpointSettings>,
) {
    if config.network_disabled {
        host.network_mode = "none".into();
    }
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".into();
    }
    if host.network_mode.starts_with("container:") {
        endpoints.clear();
        return;
    }
    if let Some(settings) = endpoints.remove("default") {
        endpoints.entry("bridge".into()).or_insert(settings);
    }
    endpoints.entry(host.network_mode.clone()).or_default();
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&path| path.to_owned()).collect()
}

/// Paths that docker hides from containers by default.
const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Paths that docker makes read-only by default.
const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
