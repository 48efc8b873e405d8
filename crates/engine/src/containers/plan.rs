//! From records to the plan that an agent carries out. Pure but for looking things up.

use agent::{MountPlan, MountSource, NamespaceMode, Plan, plan::SandboxPlan};
use types::{ContainerId, Error, Result, container::PortBinding, port::Port};

use super::validate::port_range;
use crate::{
    Engine,
    networks::Allocated,
    record::{ContainerRecord, MountRecord},
};

impl Engine {
    /// The plan of a container that is not connected (for its preparation on the node).
    pub(crate) fn plan(&self, record: &ContainerRecord) -> Result<Plan> {
        self.plan_connected(record, &[])
    }

    /// The plan of a container that may live: a volume that is not on record any more does not
    /// keep the rest from being found.
    pub(crate) fn plan_to_adopt(&self, record: &ContainerRecord) -> Result<Plan> {
        let mut known = record.clone();
        known
            .mounts
            .retain(|mount| self.mount_plan(record, mount).is_ok());
        self.plan(&known)
    }

    /// The plan of a container with the addresses it was given.
    pub(crate) fn plan_connected(
        &self,
        record: &ContainerRecord,
        allocated: &[Allocated],
    ) -> Result<Plan> {
        let host = &record.host;
        let network = match host.network_mode.as_str() {
            "host" => SandboxPlan::Host,
            "none" => SandboxPlan::None,
            mode => match mode.strip_prefix("container:") {
                Some(id) => SandboxPlan::Container(id.parse()?),
                None => SandboxPlan::Own {
                    endpoints: allocated.iter().map(|one| one.plan.clone()).collect(),
                    publish: published(record)?,
                },
            },
        };
        let mut mounts: Vec<MountPlan> = record
            .mounts
            .iter()
            .map(|mount| self.mount_plan(record, mount))
            .collect::<Result<_>>()?;
        for (target, options) in host.tmpfs.iter().flatten() {
            let options = options
                .split(',')
                .filter(|option| !option.is_empty())
                .map(str::to_owned)
                .collect();
            mounts.push(MountPlan {
                source: MountSource::Tmpfs { options },
                target: target.clone(),
                read_only: false,
                propagation: String::new(),
                non_recursive: false,
            });
        }
        // Parents before what is mounted inside them.
        mounts.sort_by_key(|mount| mount.target.matches('/').count());
        let mut config = record.config.clone();
        let mut hosts = self.extra_hosts(record, allocated);
        // Only a start needs to know what the linked containers are like now.
        if !allocated.is_empty() {
            let (lines, variables) = self.link_facts(record);
            hosts.extend(lines);
            let own = config.env.get_or_insert_default();
            // What the container sets itself comes later and counts.
            own.splice(0..0, variables);
        }
        Ok(Plan {
            id: record.id.clone(),
            name: record.name.to_string(),
            config,
            host: host.clone(),
            hostname: record.config.hostname.clone(),
            layers: record.layers.clone(),
            mounts,
            network,
            pid: namespace(&host.pid_mode)?,
            ipc: namespace(&host.ipc_mode)?,
            uts: namespace(&host.uts_mode)?,
            hosts,
            share: self.share(&record.namespace),
        })
    }

    fn mount_plan(&self, container: &ContainerRecord, record: &MountRecord) -> Result<MountPlan> {
        let source = match (record.kind.as_str(), &record.volume) {
            ("bind", _) => MountSource::Bind {
                path: record.source.clone().into(),
                create: record.create_source,
            },
            ("volume", Some(name)) => {
                let volume = self
                    .volumes
                    .named(&container.namespace, name)
                    .ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))?;
                let snapshot = record.snapshot.as_ref();
                let snapshot = snapshot
                    .map(|name| volume.snapshot(name.as_str()))
                    .transpose()?;
                MountSource::Volume {
                    volume: volume.record().plan(),
                    snapshot: snapshot.map(|snapshot| snapshot.id.clone()),
                    subpath: record.subpath.clone(),
                    no_copy: record.no_copy,
                }
            }
            ("tmpfs", _) => MountSource::Tmpfs {
                options: record.tmpfs_options.clone(),
            },
            (kind, _) => {
                return Err(Error::system(format!(
                    "planning the mount of {}: unknown kind {kind:?}",
                    record.target
                )));
            }
        };
        Ok(MountPlan {
            source,
            target: record.target.clone(),
            read_only: !record.writable,
            propagation: record.propagation.clone(),
            non_recursive: record.non_recursive,
        })
    }

    /// Lines of /etc/hosts that were asked for.
    fn extra_hosts(
        &self,
        record: &ContainerRecord,
        allocated: &[Allocated],
    ) -> Vec<(String, String)> {
        let gateway = allocated.iter().find_map(|one| {
            one.plan
                .network
                .subnets
                .first()
                .and_then(|subnet| subnet.gateway)
        });
        let mut lines = Vec::new();
        for entry in record.host.extra_hosts.iter().flatten() {
            let Some((name, address)) = entry.split_once([':', '=']) else {
                continue;
            };
            let address = address.trim_start_matches('[').trim_end_matches(']');
            match (address, gateway) {
                ("host-gateway", Some(gateway)) => {
                    lines.push((gateway.to_string(), name.to_owned()))
                }
                ("host-gateway", None) => {}
                _ => lines.push((address.to_owned(), name.to_owned())),
            }
        }
        lines
    }
}

fn namespace(mode: &str) -> Result<NamespaceMode> {
    Ok(match mode {
        "" | "private" => NamespaceMode::Private,
        "shareable" => NamespaceMode::Shareable,
        "host" => NamespaceMode::Host,
        "none" => NamespaceMode::None,
        other => match other
            .strip_prefix("container:")
            .map(str::parse::<ContainerId>)
        {
            Some(Ok(id)) => NamespaceMode::Container(id),
            _ => return Err(Error::invalid(format!("invalid namespace mode: {other}"))),
        },
    })
}

/// The bindings to make: each one asked for, and with `-P` one for each exposed port.
fn published(record: &ContainerRecord) -> Result<Vec<(Port, PortBinding)>> {
    let mut list = Vec::new();
    for (port, bindings) in record.host.port_bindings.iter().flatten() {
        let bindings = bindings.as_deref().unwrap_or_default();
        for binding in bindings {
            port_range(&binding.host_port).ok_or_else(|| {
                Error::invalid(format!(
                    "invalid port specification: {:?}",
                    binding.host_port
                ))
            })?;
            list.push((*port, binding.clone()));
        }
        if bindings.is_empty() {
            list.push((*port, PortBinding::default()));
        }
    }
    if record.host.publish_all_ports {
        for (port, _) in record.config.exposed_ports.iter().flatten() {
            let port: Port = port.parse()?;
            if !list.iter().any(|(other, _)| *other == port) {
                list.push((port, PortBinding::default()));
            }
        }
    }
    Ok(list)
}
