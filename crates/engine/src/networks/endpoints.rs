//! Who is on which network: endpoints are given addresses, shown, and given back.

use std::{collections::BTreeMap, net::IpAddr, sync::PoisonError};

use agent::EndpointPlan;
use ipnet::IpNet;
use network::Mac;
use types::{Namespace, NetworkId, Result, container::EndpointSettings};

use super::{Allocated, bridge, config, names};
use crate::{
    Engine,
    containers::Container,
    record::{ContainerRecord, NetworkRecord},
};

/// An endpoint as inspect shows it.
fn shown(
    container: &ContainerRecord,
    record: &NetworkRecord,
    wanted: &EndpointSettings,
    plan: &EndpointPlan,
) -> EndpointSettings {
    let mut settings = EndpointSettings {
        network_id: record.id.to_string(),
        endpoint_id: plan.id.clone(),
        mac_address: plan.mac.to_string(),
        ..wanted.clone()
    };
    if record.has_names() {
        settings.dns_names = Some(names::dns_names(container, wanted));
    }
    for address in &plan.addresses {
        let subnet = plan
            .network
            .subnets
            .iter()
            .find(|subnet| subnet.net.contains(&address.addr()));
        let gateway = subnet
            .and_then(|subnet| subnet.gateway)
            .map(|ip| ip.to_string())
            .unwrap_or_default();
        if address.addr().is_ipv4() {
            settings.ip_address = address.addr().to_string();
            settings.ip_prefix_len = address.prefix_len();
            settings.gateway = gateway;
        } else {
            settings.global_ipv6_address = address.addr().to_string();
            settings.global_ipv6_prefix_len = address.prefix_len();
            settings.ipv6_gateway = gateway;
        }
    }
    settings
}

/// Gives interfaces their names: those that were asked for, else the prefix of their network
/// and the first number that is free.
fn name_interfaces(allocated: &mut [Allocated]) {
    for at in 0..allocated.len() {
        if !allocated[at].plan.interface.is_empty() {
            continue;
        }
        let is_taken = |name: &str| allocated.iter().any(|one| one.plan.interface == name);
        allocated[at].plan.interface = allocated[at].plan.network.free_interface(is_taken);
    }
}

impl Engine {
    /// Gives a container its addresses on all its networks. Undone by [`Engine::disconnect`].
    pub(crate) fn connect(
        &self,
        container: &Container,
        record: &ContainerRecord,
    ) -> Result<Vec<Allocated>> {
        let mut allocated = Vec::new();
        if record.shares_network() {
            return Ok(allocated);
        }
        let mode = self
            .networks
            .find(&record.namespace, &record.host.network_mode)
            .map_or_else(
                |_| record.host.network_mode.clone(),
                |network| network.name.clone(),
            );
        let mut networks: Vec<_> = record.endpoints.iter().collect();
        // The network that the container was made for is the first interface.
        networks.sort_by_key(|(name, _)| **name != mode);
        for (name, wanted) in networks {
            let result = self.connect_one(container, record, name, wanted);
            match result {
                Ok(one) => allocated.push(one),
                Err(error) => {
                    for one in &allocated {
                        self.networks.release(
                            &one.plan.network.id,
                            one.plan.addresses.iter().map(IpNet::addr),
                        );
                    }
                    return Err(error);
                }
            }
        }
        name_interfaces(&mut allocated);
        // Kept at once, so that whatever fails from here on is given back.
        container.observed.send_modify(|observed| {
            observed.endpoints = allocated
                .iter()
                .map(|one| (one.name.clone(), one.settings.clone()))
                .collect();
        });
        Ok(allocated)
    }

    pub(super) fn connect_one(
        &self,
        container: &Container,
        record: &ContainerRecord,
        name: &str,
        wanted: &EndpointSettings,
    ) -> Result<Allocated> {
        let network = self.networks.find(&container.namespace, name)?;
        config::must_have_addresses(&network)?;
        // The container's own address is for the network that it was made for.
        let is_main = [&network.name, &network.id.to_string()].contains(&&record.host.network_mode);
        let mac_text = if wanted.mac_address.is_empty() && is_main {
            &record.config.mac_address
        } else {
            &wanted.mac_address
        };
        let mac = if mac_text.is_empty() {
            None
        } else {
            Some(mac_text.parse::<Mac>()?)
        };
        let interface = config::interface(wanted)?;
        let sysctls = config::sysctls(wanted)?;
        let addresses = self.networks.allocate(&network, wanted)?;
        let mac = mac.unwrap_or_else(|| match addresses.first().map(IpNet::addr) {
            Some(IpAddr::V4(ip)) => Mac::of_v4(ip),
            Some(IpAddr::V6(ip)) => Mac::of_v6(ip),
            None => Mac([2, 0x42, 0, 0, 0, 1]),
        });
        let plan = EndpointPlan {
            id: types::id::random_hex(),
            name: network.name.clone(),
            network: bridge(&network)?,
            addresses,
            mac,
            interface,
            sysctls,
            priority: wanted.gw_priority,
            links: network.has_names().then(|| names::links(wanted)),
        };
        let settings = shown(record, &network, wanted, &plan);
        Ok(Allocated {
            name: network.name.clone(),
            plan,
            settings,
        })
    }

    /// Takes a container off its networks.
    pub(crate) async fn disconnect(&self, container: &Container) {
        for (name, id) in self.give_back(container).await {
            self.emit_network_event(container, "disconnect", &name, id.as_str());
        }
    }

    /// Gives back a container's addresses, without a word: nobody was told that it has them.
    /// Returns the networks that it was to be on.
    pub(crate) async fn give_back(&self, container: &Container) -> BTreeMap<String, NetworkId> {
        let endpoints = container.observed.borrow().endpoints.clone();
        let mut networks = BTreeMap::new();
        for (name, endpoint) in endpoints {
            let Ok(id) = endpoint.network_id.parse::<NetworkId>() else {
                continue;
            };
            let addresses = [&endpoint.ip_address, &endpoint.global_ipv6_address];
            self.networks.release(
                &id,
                addresses.into_iter().filter_map(|text| text.parse().ok()),
            );
            networks.insert(name, id);
        }
        container
            .observed
            .send_modify(|observed| observed.endpoints.clear());
        self.publish_names(&container.namespace, networks.keys().cloned().collect())
            .await;
        networks
    }

    /// Marks the addresses of a container that was found running as taken.
    pub(crate) fn reserve(&self, container: &Container, endpoints: &[EndpointPlan]) {
        let mut pools = self
            .networks
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for endpoint in endpoints {
            for address in &endpoint.addresses {
                let pool = pools
                    .get_mut(&endpoint.network.id)
                    .into_iter()
                    .flatten()
                    .find(|pool| pool.net().contains(&address.addr()));
                if let Some(Err(error)) = pool.map(|pool| pool.reserve(address.addr())) {
                    tracing::warn!(id = %container.id, %address, %error, "a running container's address could not be reserved again");
                }
            }
        }
    }

    /// Endpoints as inspect shows them, rebuilt from how a container was started.
    pub(crate) fn settings_of(
        &self,
        container: &Container,
        endpoints: &[EndpointPlan],
    ) -> BTreeMap<String, EndpointSettings> {
        let record = container.record();
        let mut all = BTreeMap::new();
        for plan in endpoints {
            let Ok(network) = self.networks.find(&container.namespace, &plan.name) else {
                continue;
            };
            let wanted = record
                .endpoints
                .get(&plan.name)
                .cloned()
                .unwrap_or_default();
            all.insert(plan.name.clone(), shown(&record, &network, &wanted, plan));
        }
        all
    }

    pub(crate) fn network_event(&self, container: &Container, action: &str, endpoint: &Allocated) {
        self.emit_network_event(
            container,
            action,
            &endpoint.name,
            endpoint.plan.network.id.as_str(),
        );
    }

    pub(super) fn emit_network_event(
        &self,
        container: &Container,
        action: &str,
        name: &str,
        id: &str,
    ) {
        let network = self.networks.find(&container.namespace, id).ok();
        let driver = network.map(|network| network.driver.clone());
        let attributes = [
            ("container", container.id.as_str()),
            ("name", name),
            ("type", driver.as_deref().unwrap_or("bridge")),
        ];
        let attributes = attributes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        self.events
            .publish(&container.namespace, "network", action, id, attributes);
    }

    /// Checks what a new container asks of its networks, as far as they are there, and names
    /// each by its name, however it was asked for.
    pub(crate) fn settle_endpoints(
        &self,
        namespace: &Namespace,
        endpoints: &mut BTreeMap<String, EndpointSettings>,
    ) -> Result<()> {
        let mut settled = BTreeMap::new();
        for (name, wanted) in std::mem::take(endpoints) {
            let name = match self.networks.find(namespace, &name) {
                Ok(network) => {
                    config::check_endpoint(&network, &wanted).map_err(|error| {
                        error.context(format_args!("invalid config for network {name}"))
                    })?;
                    network.name.clone()
                }
                Err(_) => name,
            };
            let known: &mut EndpointSettings = settled.entry(name).or_default();
            if *known == EndpointSettings::default() {
                *known = wanted;
            }
        }
        *endpoints = settled;
        Ok(())
    }
}
