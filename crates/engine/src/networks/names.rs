//! Which names each network has: computed from who is on it, and handed to the node.
//!
//! A table is always made anew and whole. It has a revision, for the answer to "who came
//! last" must not depend on which call reaches the node first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};

use network::{Member, Names};
use types::{Namespace, container::EndpointSettings};

use crate::{
    Engine,
    containers::Container,
    record::{ContainerRecord, NetworkRecord},
};

/// What an endpoint's container is known by besides its name.
fn aliases(record: &ContainerRecord, endpoint: &EndpointSettings) -> Vec<String> {
    let asked_for = endpoint.aliases.iter().flatten().cloned();
    let mut names: Vec<String> = asked_for
        .chain([
            record.id.short().to_string(),
            record.config.hostname.clone(),
        ])
        .filter(|name| !name.is_empty() && *name != record.name.as_str())
        .collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// All names of an endpoint, as inspect shows them.
pub(super) fn dns_names(record: &ContainerRecord, endpoint: &EndpointSettings) -> Vec<String> {
    let own = [record.name.to_string()];
    own.into_iter().chain(aliases(record, endpoint)).collect()
}

/// The names that an endpoint's links give its neighbours: alias, and a name of theirs.
pub(super) fn links(endpoint: &EndpointSettings) -> BTreeMap<String, String> {
    let links = endpoint.links.iter().flatten();
    links
        .map(|link| {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            let bare = |name: &str| name.trim_start_matches('/').to_owned();
            (bare(alias), bare(name))
        })
        .collect()
}

impl NetworkRecord {
    /// Whether names are served on it: it is not the default bridge.
    pub(super) fn has_names(&self) -> bool {
        self.has_addresses() && !self.builtin
    }
}

impl Engine {
    /// Tells the node the names of the networks that a container is on, or was.
    pub(crate) async fn publish_names(&self, namespace: &Namespace, networks: Vec<String>) {
        for name in networks {
            let Ok(network) = self.networks.find(namespace, &name) else {
                continue;
            };
            if network.has_names() {
                self.publish_network(namespace, &network).await;
            }
        }
    }

    async fn publish_network(&self, namespace: &Namespace, network: &NetworkRecord) {
        let names = self.names_of(namespace, network);
        if let Err(error) = self.agent.network_names(&names).await {
            tracing::warn!(network = network.name, %error, "the names of a network could not be told");
        }
    }

    /// After a start of the daemon: the names of all networks.
    pub(crate) async fn publish_all_names(&self) {
        for (namespace, network) in self.networks.with_names() {
            self.publish_network(&namespace, &network).await;
        }
    }

    fn names_of(&self, namespace: &Namespace, network: &NetworkRecord) -> Names {
        // Held while the table is made: a later revision never knows less.
        let mut revision = self
            .networks
            .revision
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *revision += 1;
        let members = self
            .containers
            .of(namespace)
            .iter()
            .filter_map(|container| member(container, network))
            .collect();
        Names {
            network: network.id.clone(),
            name: network.name.clone(),
            revision: *revision,
            members,
        }
    }
}

/// A container as a network knows it: from the moment that it is given addresses.
fn member(container: &Container, network: &NetworkRecord) -> Option<Member> {
    let observed = container.observed.borrow();
    let endpoint = observed.endpoints.get(&network.name)?;
    let record = container.record();
    let addresses = [&endpoint.ip_address, &endpoint.global_ipv6_address];
    Some(Member {
        name: record.name.to_string(),
        aliases: aliases(&record, endpoint),
        addresses: addresses
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_neighbours() {
        let endpoint = EndpointSettings {
            links: Some(vec!["db:store".into(), "/cache".into()]),
            ..EndpointSettings::default()
        };
        let links = links(&endpoint);
        assert_eq!(links["store"], "db");
        assert_eq!(links["cache"], "cache");
    }
}
