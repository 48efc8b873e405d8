//! Legacy links on the default bridge: `--link other:alias`.
//!
//! A record holds each as `<id of the other>:<alias>`, so that a rename changes nothing. They
//! become lines of /etc/hosts and environment variables when the container starts.

use std::sync::Arc;

use types::{Error, HostConfig, Result, port::Port};

use super::Container;
use crate::{Engine, Scope, record::ContainerRecord};

/// `other:alias`, `other`, or what an inspect gives: `/other:/container/alias`.
fn parse(link: &str) -> Result<(&str, &str)> {
    let mut parts = link.split(':');
    let (name, alias) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(alias), None) => (name, alias),
        (Some(name), None, None) => (name, name),
        _ => ("", ""),
    };
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    if name.is_empty() || alias.is_empty() {
        return Err(Error::invalid(format!("bad format for links: {link}")));
    }
    Ok((name, alias))
}

/// Whether a container's links are legacy ones; on networks of users they belong to endpoints.
fn applies(host: &HostConfig) -> bool {
    matches!(host.network_mode.as_str(), "" | "default" | "bridge")
}

/// The environment that a link gives, in docker's order.
fn variables(container: &str, alias: &str, address: &str, other: &ContainerRecord) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut ports: Vec<Port> = other
        .config
        .exposed_ports
        .iter()
        .flatten()
        .filter_map(|(port, _)| port.parse().ok())
        .collect();
    // TCP first, then by number.
    ports.sort_by_key(|port| (port.protocol != types::port::Protocol::Tcp, port.number));
    let mut list = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let (number, protocol) = (port.number, port.protocol.as_str());
        let url = format!("{protocol}://{address}:{number}");
        let one = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        if index == 0 {
            list.push(format!("{prefix}_PORT={url}"));
        }
        list.push(format!("{one}={url}"));
        list.push(format!("{one}_ADDR={address}"));
        list.push(format!("{one}_PORT={number}"));
        list.push(format!("{one}_PROTO={protocol}"));
    }
    list.push(format!("{prefix}_NAME=/{container}/{alias}"));
    for variable in other.config.env.iter().flatten() {
        if let Some((name, value)) = variable.split_once('=')
            && !matches!(name, "HOME" | "PATH")
        {
            list.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    list
}

impl Engine {
    /// Puts ids in place of names in a new container's links.
    pub(super) fn settle_links(&self, scope: &Scope, host: &mut HostConfig) -> Result<()> {
        if !applies(host) {
            return Ok(());
        }
        for link in host.links.iter_mut().flatten() {
            let (name, alias) = parse(link)?;
            let other = self.container(scope, name).map_err(|error| {
                Error::invalid(format!(
                    "could not get container for {name}: {}",
                    error.message
                ))
            })?;
            if other.record().host.network_mode == "host" {
                return Err(Error::invalid(
                    "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
                ));
            }
            *link = format!("{}:{alias}", other.id);
        }
        Ok(())
    }

    /// The other containers of a container's links that are there, with their aliases.
    fn links_of(&self, record: &ContainerRecord) -> Vec<(Arc<Container>, String)> {
        let scope = Scope::within(record.namespace.clone());
        let links = record.host.links.iter().flatten();
        links
            .filter_map(|link| {
                let (name, alias) = parse(link).ok()?;
                Some((self.container(&scope, name).ok()?, alias.to_owned()))
            })
            .collect()
    }

    /// Fails when a linked container does not run.
    pub(super) fn links_run(&self, record: &ContainerRecord) -> Result<()> {
        if !applies(&record.host) {
            return Ok(());
        }
        match self
            .links_of(record)
            .iter()
            .find(|(other, _)| !other.is_running())
        {
            Some((other, alias)) => Err(Error::conflict(format!(
                "Cannot link to a non running container: /{} AS /{}/{alias}",
                other.record().name,
                record.name
            ))),
            None => Ok(()),
        }
    }

    /// What links bring at a start: lines of /etc/hosts, and variables.
    pub(super) fn link_facts(
        &self,
        record: &ContainerRecord,
    ) -> (Vec<(String, String)>, Vec<String>) {
        let (mut hosts, mut env) = (Vec::new(), Vec::new());
        // Elsewhere links are names that the network knows.
        if !applies(&record.host) {
            return (hosts, env);
        }
        for (other, alias) in self.links_of(record) {
            let address = other
                .observed
                .borrow()
                .endpoints
                .values()
                .map(|endpoint| endpoint.ip_address.clone())
                .find(|address| !address.is_empty());
            let Some(address) = address else { continue };
            let other = other.record();
            let names = format!("{alias} {} {}", other.id.short(), other.name);
            env.extend(variables(record.name.as_str(), &alias, &address, &other));
            hosts.push((address, names));
        }
        (hosts, env)
    }

    /// A record whose links are as inspect shows them; `None` when there are none.
    pub(super) fn with_shown_links(&self, record: &ContainerRecord) -> Option<ContainerRecord> {
        record
            .host
            .links
            .as_ref()
            .filter(|links| !links.is_empty())?;
        if !applies(&record.host) {
            return None;
        }
        let mut shown = record.clone();
        shown.host.links = Some(
            self.links_of(record)
                .into_iter()
                .map(|(other, alias)| format!("/{}:/{}/{alias}", other.record().name, record.name))
                .collect(),
        );
        Some(shown)
    }

    /// The names that links of others give a container: `container/alias`.
    pub(super) fn link_names(&self, container: &Container) -> Vec<String> {
        let mut names = Vec::new();
        for other in self.containers.with_links(&container.namespace) {
            let record = other.record();
            for (child, alias) in self.links_of(&record) {
                if child.id == container.id && applies(&record.host) {
                    names.push(format!("{}/{alias}", record.name));
                }
            }
        }
        names.sort();
        names
    }

    /// Takes a link away: `container/alias`. It shows at the next start.
    pub async fn container_unlink(&self, scope: &Scope, name: &str) -> Result<()> {
        self.container(scope, name)?;
        let Some((parent, alias)) = name.trim_start_matches('/').split_once('/') else {
            return Err(Error::conflict(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let container = self.container(scope, parent)?;
        let _op = container.op.lock().await;
        self.desire(&container, |record| {
            if let Some(links) = &mut record.host.links {
                links.retain(|link| parse(link).map_or(true, |(_, other)| other != alias));
            }
        })
        .await
    }
}

/// The id of the container that `container` knows as `alias`.
pub(super) fn target<'a>(record: &'a ContainerRecord, alias: &str) -> Option<&'a str> {
    let links = record.host.links.iter().flatten();
    links
        .filter_map(|link| parse(link).ok())
        .find(|(_, known)| *known == alias)
        .map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse("db").unwrap(), ("db", "db"));
        assert_eq!(parse("db:d").unwrap(), ("db", "d"));
        assert_eq!(parse("/db:/web/d").unwrap(), ("/db", "d"));
        for bad in ["", ":", "db:", ":d", "a:b:c", "/"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
