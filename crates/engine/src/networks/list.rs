//! Networks as they are listed and inspected.

use std::collections::BTreeMap;

use types::{Error, Filters, Namespace, Result};

use crate::{
    Engine, Scope,
    record::NetworkRecord,
    view::{NetworkMember, NetworkView, SubnetView},
};

impl Engine {
    fn network_view(&self, namespace: &Namespace, record: &NetworkRecord) -> NetworkView {
        let mut containers = BTreeMap::new();
        for container in self.containers.of(namespace) {
            let observed = container.observed.borrow();
            let endpoint = observed
                .endpoints
                .get(&record.name)
                .filter(|_| observed.state.is_running());
            let Some(endpoint) = endpoint else { continue };
            let with_prefix = |address: &str, prefix: u8| {
                if address.is_empty() {
                    String::new()
                } else {
                    format!("{address}/{prefix}")
                }
            };
            let member = NetworkMember {
                name: container.record().name.to_string(),
                endpoint_id: endpoint.endpoint_id.clone(),
                mac_address: endpoint.mac_address.clone(),
                ipv4_address: with_prefix(&endpoint.ip_address, endpoint.ip_prefix_len),
                ipv6_address: with_prefix(
                    &endpoint.global_ipv6_address,
                    endpoint.global_ipv6_prefix_len,
                ),
            };
            containers.insert(container.id.clone(), member);
        }
        NetworkView {
            id: record.id.clone(),
            name: record.name.clone(),
            created: record.created,
            driver: record.driver.clone(),
            internal: record.internal,
            enable_ipv4: !record.no_ipv4,
            ipam_options: record.ipam_options.clone(),
            enable_ipv6: record.enable_ipv6,
            attachable: record.attachable,
            subnets: record
                .subnets
                .iter()
                .map(|subnet| SubnetView {
                    subnet: subnet.subnet.clone(),
                    gateway: subnet.gateway.clone(),
                    ip_range: subnet.ip_range.clone(),
                    aux: subnet.aux.clone(),
                })
                .collect(),
            options: record.options.clone(),
            labels: record.labels.clone(),
            containers,
        }
    }

    /// A network.
    pub fn network_inspect(&self, scope: &Scope, name: &str) -> Result<NetworkView> {
        let record = self.networks.find(&scope.namespace, name)?;
        Ok(self.network_view(&scope.namespace, &record))
    }

    /// Networks of the namespace, oldest first.
    pub fn network_list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<NetworkView>> {
        filters.only(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = filters.boolean("dangling")?;
        for kind in filters.values("type") {
            if !matches!(kind.as_str(), "builtin" | "custom") {
                return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
            }
        }
        let passes = |record: &NetworkRecord| {
            filters.any("name", |part| record.name.contains(part))
                && filters.any("id", |part| record.id.as_str().contains(part))
                && filters.any("driver", |driver| record.driver == driver)
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |kind| (kind == "builtin") == record.builtin)
                && filters.labels("label", |label| {
                    record.labels.get(label).map(String::as_str)
                })
                && dangling.is_none_or(|dangling| {
                    dangling == (!record.builtin && !self.network_in_use(&scope.namespace, record))
                })
        };
        let records = self.networks.of(&scope.namespace);
        Ok(records
            .iter()
            .filter(|record| passes(record))
            .map(|record| self.network_view(&scope.namespace, record))
            .collect())
    }

    pub(super) fn network_in_use(&self, namespace: &Namespace, record: &NetworkRecord) -> bool {
        self.containers.of(namespace).iter().any(|container| {
            container.is_running()
                && container
                    .observed
                    .borrow()
                    .endpoints
                    .contains_key(&record.name)
        })
    }
}
