//! A container's connections: which endpoint leads out, where published ports lead, and how
//! both change while it runs. Namespaces and interfaces are made by the crate `network`.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use network::{Endpoint, Publish, Published, Target};
use types::{ContainerId, Error, NetworkId, Result, container::PortBinding, port::Port};

use super::{LocalAgent, start::StartedPlan};
use crate::{
    PortMap,
    plan::{EndpointPlan, Plan, SandboxPlan},
};

impl LocalAgent {
    /// Connects a running container to one more network.
    pub(super) async fn join_network(
        &self,
        id: &ContainerId,
        endpoint: &EndpointPlan,
    ) -> Result<PortMap> {
        let before = self.own_endpoints(id)?;
        let mut endpoint = endpoint.clone();
        if endpoint.interface.is_empty() {
            let is_taken = |name: &str| before.iter().any(|other| other.interface == name);
            endpoint.interface = endpoint.network.free_interface(is_taken);
        }
        let mut after = before.clone();
        after.push(endpoint.clone());
        let mut link = link(&endpoint, &[])?;
        // The way out is set apart: it may be another endpoint's.
        link.gateways = Vec::new();
        self.networks.attach(id, &link).await?;
        let joined = self.reconnect(id, &before, after.clone()).await;
        if joined.is_err() {
            // The way out and the ports may lead through it already.
            if let Err(error) = self.reconnect(id, &after, before).await {
                tracing::warn!(%id, %error, "a container's networks after one that could not be joined");
            }
            self.networks.detach(id, &link.ifname).await?;
        }
        joined
    }

    /// Takes a running container off a network.
    pub(super) async fn leave_network(
        &self,
        id: &ContainerId,
        network: &NetworkId,
    ) -> Result<PortMap> {
        let before = self.own_endpoints(id)?;
        let (gone, after): (Vec<_>, Vec<_>) = before
            .iter()
            .cloned()
            .partition(|endpoint| endpoint.network.id == *network);
        for endpoint in gone {
            self.networks
                .detach(id, &endpoint.interface.parse()?)
                .await?;
        }
        self.reconnect(id, &before, after).await
    }

    fn own_endpoints(&self, id: &ContainerId) -> Result<Vec<EndpointPlan>> {
        let plan = self
            .live(id)
            .ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
        match &plan.network {
            SandboxPlan::Own { endpoints, .. } => Ok(endpoints.clone()),
            _ => Err(Error::conflict(format!(
                "container {id} has no network of its own"
            ))),
        }
    }

    /// Leads the way out and the published ports to where they belong now, and keeps how the
    /// container is connected.
    async fn reconnect(
        &self,
        id: &ContainerId,
        before: &[EndpointPlan],
        after: Vec<EndpointPlan>,
    ) -> Result<PortMap> {
        let kept = self.started_plan(id).await?;
        let Some(StartedPlan {
            mut plan,
            mut ports,
        }) = kept
        else {
            return Err(Error::conflict(format!("container {id} is not running")));
        };
        for v4 in [true, false] {
            let (was, is) = (leader(before, v4), leader(&after, v4));
            let Some((endpoint, gateway)) = is else {
                continue;
            };
            if was.is_none_or(|(other, _)| other.id != endpoint.id) {
                self.networks
                    .set_gateways(id, &endpoint.interface.parse()?, &[gateway])
                    .await?;
            }
        }
        let (old, new) = (target(&plan, before), target(&plan, &after));
        if old != new {
            ports = self.publish_anew(&plan, new, &after, &ports).await?;
        }
        let earlier = plan.clone();
        if let SandboxPlan::Own { endpoints, .. } = &mut plan.network {
            *endpoints = after;
        }
        self.change_names(&earlier, &plan).await?;
        let pid = self.pid(id).unwrap_or(0);
        self.keep_plan(&plan, &ports).await?;
        if let Some(live) = self.lives().get_mut(id) {
            live.pid = pid;
        }
        Ok(port_map(&ports))
    }

    /// Publishes a running container's ports where they lead now: the same ones, if there are
    /// any; nowhere, if nothing leads out any more.
    async fn publish_anew(
        &self,
        plan: &Plan,
        target: Option<Target>,
        endpoints: &[EndpointPlan],
        had: &[Published],
    ) -> Result<Vec<Published>> {
        let Some(target) = target else {
            self.networks.unpublish(&plan.id).await?;
            return Ok(Vec::new());
        };
        let SandboxPlan::Own { publish, .. } = &plan.network else {
            return Ok(Vec::new());
        };
        let again = |port: &Published| Publish {
            protocol: port.protocol,
            container_port: port.container_port,
            host_ip: Some(port.host_ip),
            host_ports: (port.host_port, port.host_port),
        };
        let wanted = wanted_ports(endpoints, publish)?;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let same: Vec<Publish> = had.iter().map(again).collect();
        if !same.is_empty() {
            match self.networks.publish(&target, &same).await {
                Ok(published) => return Ok(published),
                // Given back for a moment, a port that nobody chose may be somebody else's now.
                Err(error) => {
                    tracing::info!(id = %plan.id, %error, "a container's ports are published anew");
                }
            }
        }
        self.networks.publish(&target, &wanted).await
    }
}

/// The endpoint that the way out leads through, and its gateway, for one address family: of
/// those that lead out at all the one with the highest priority, then the first name.
fn leader(endpoints: &[EndpointPlan], v4: bool) -> Option<(&EndpointPlan, IpAddr)> {
    endpoints
        .iter()
        .filter(|endpoint| !endpoint.network.internal)
        .filter_map(|endpoint| Some((endpoint, gateway(endpoint, v4)?)))
        .min_by_key(|(endpoint, _)| (Reverse(endpoint.priority), &endpoint.name))
}

/// The gateway of an endpoint's own subnet.
fn gateway(endpoint: &EndpointPlan, v4: bool) -> Option<IpAddr> {
    let gateways = endpoint
        .network
        .subnets
        .iter()
        .filter_map(|subnet| subnet.gateway);
    let reachable = |ip: &IpAddr| endpoint.addresses.iter().any(|own| own.contains(ip));
    gateways.filter(|ip| ip.is_ipv4() == v4).find(reachable)
}

/// All endpoints as the kernel shall have them.
pub(super) fn links(endpoints: &[EndpointPlan]) -> Result<Vec<Endpoint>> {
    endpoints
        .iter()
        .map(|endpoint| link(endpoint, endpoints))
        .collect()
}

/// One of all endpoints as the kernel shall have it.
fn link(endpoint: &EndpointPlan, all: &[EndpointPlan]) -> Result<Endpoint> {
    let leads = |v4| leader(all, v4).filter(|(first, _)| first.id == endpoint.id);
    Ok(Endpoint {
        bridge: endpoint.network.name.clone(),
        ifname: endpoint.interface.parse()?,
        addresses: endpoint.addresses.clone(),
        mac: endpoint.mac,
        gateways: [true, false]
            .into_iter()
            .filter_map(|v4| leads(v4).map(|(_, gateway)| gateway))
            .collect(),
        sysctls: endpoint.sysctls.clone(),
    })
}

/// Where published ports lead: to the bridges that the way out leads through. Nowhere, if
/// there are none: a port of an internal network is not published, as in docker.
pub(super) fn target(plan: &Plan, endpoints: &[EndpointPlan]) -> Option<Target> {
    let of_bridge = |v4| {
        leader(endpoints, v4)
            .map(|(endpoint, _)| endpoint)
            .filter(|endpoint| endpoint.network.macvlan.is_none())
    };
    let (first, second) = (of_bridge(true), of_bridge(false));
    let endpoint = first.or(second)?;
    let addresses = |endpoint: Option<&EndpointPlan>| {
        let addresses = endpoint.map(|endpoint| endpoint.addresses.clone());
        addresses.unwrap_or_default()
    };
    Some(Target {
        id: plan.id.clone(),
        name: plan.name.clone(),
        endpoint_id: endpoint.id.clone(),
        v4: addresses(first).iter().find_map(|own| match own.addr() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }),
        v6: addresses(second).iter().find_map(|own| match own.addr() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        }),
    })
}

/// What to publish; where nobody named an address, the network's counts.
pub(super) fn wanted_ports(
    endpoints: &[EndpointPlan],
    publish: &[(Port, PortBinding)],
) -> Result<Vec<Publish>> {
    let binding = leader(endpoints, true)
        .or(leader(endpoints, false))
        .and_then(|(endpoint, _)| endpoint.network.binding);
    let one = |(port, wanted): &(Port, PortBinding)| {
        let mut wanted = wanted_port(*port, wanted)?;
        wanted.host_ip = wanted.host_ip.or(binding);
        Ok(wanted)
    };
    publish.iter().map(one).collect()
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
pub(super) fn port_map(published: &[Published]) -> PortMap {
    let mut map = BTreeMap::<Port, Vec<PortBinding>>::new();
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
