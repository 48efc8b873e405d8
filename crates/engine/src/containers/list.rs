//! Listing containers with docker's filters.

use std::sync::Arc;

use regex_lite::Regex;
use types::{
    Error, Filters, Result, Time,
    container::PortBinding,
    port::{Port, Protocol},
    state::Status,
};

use super::Container;
use crate::{
    Engine, Scope,
    record::{ContainerRecord, ObservedRecord},
    request::ListRequest,
    view::ContainerView,
};

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// The filters, parsed and looked up once.
struct Wanted<'a> {
    filters: &'a Filters,
    names: Vec<Regex>,
    ids: Vec<Regex>,
    exited: Vec<i32>,
    publish: Vec<(Port, Port)>,
    expose: Vec<(Port, Port)>,
    before: Option<Time>,
    since: Option<Time>,
    ancestors: Vec<types::Digest>,
    networks: Vec<String>,
}

impl Engine {
    /// Containers of the namespace, newest first.
    pub async fn container_list(
        &self,
        scope: &Scope,
        request: &ListRequest,
    ) -> Result<Vec<ContainerView>> {
        let wanted = self.wanted(scope, &request.filters).await?;
        let mut containers = self.containers.of(&scope.namespace);
        containers.sort_by_key(|container| std::cmp::Reverse(container.record().created));
        // Asking by state, by exit or for the newest means those that do not run, too.
        let all = request.all
            || request.limit.is_some()
            || ["status", "exited"]
                .iter()
                .any(|name| request.filters.has(name))
            || wanted.before.is_some()
            || wanted.since.is_some();
        let mut views = Vec::new();
        for container in containers {
            if request.limit.is_some_and(|limit| views.len() >= limit) {
                break;
            }
            let (record, observed) = (container.record(), container.observed.borrow().clone());
            if (all || observed.state.is_running()) && wanted.matches(&record, &observed) {
                views.push(self.listed(&container, request.size).await?);
            }
        }
        Ok(views)
    }

    /// A container may go while it is being looked at; then its sizes are zero.
    async fn listed(&self, container: &Arc<Container>, size: bool) -> Result<ContainerView> {
        match self.view(container, size).await {
            Err(_) if size => self.view(container, false).await,
            other => other,
        }
    }

    async fn wanted<'a>(&self, scope: &Scope, filters: &'a Filters) -> Result<Wanted<'a>> {
        filters.only(FILTERS)?;
        let patterns = |name: &str| -> Result<Vec<Regex>> {
            filters
                .values(name)
                .iter()
                .map(|text| {
                    Regex::new(text).map_err(|_| {
                        Error::invalid(format!(
                            "invalid filter '{name}={text}': not a regular expression"
                        ))
                    })
                })
                .collect()
        };
        for status in filters.values("status") {
            if ![
                "created",
                "running",
                "paused",
                "restarting",
                "removing",
                "exited",
                "dead",
            ]
            .contains(&status.as_str())
            {
                return Err(Error::invalid(format!("invalid filter 'status={status}'")));
            }
        }
        for health in filters.values("health") {
            if !["starting", "healthy", "unhealthy", "none"].contains(&health.as_str()) {
                return Err(Error::invalid(format!("invalid filter 'health={health}'")));
            }
        }
        let created = |name: &str| -> Result<Option<Time>> {
            filters
                .values(name)
                .last()
                .map(|other| Ok(self.container(scope, other)?.record().created))
                .transpose()
        };
        let exited = filters
            .values("exited")
            .iter()
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::invalid(format!("invalid filter 'exited={text}'")))
            })
            .collect::<Result<_>>()?;
        let mut ancestors = Vec::new();
        for name in filters.values("ancestor") {
            ancestors.extend(self.images_named(scope, name).await);
        }
        let networks = filters
            .values("network")
            .iter()
            .map(|name| {
                self.networks
                    .find(&scope.namespace, name)
                    .map_or_else(|_| name.clone(), |network| network.name.clone())
            })
            .collect();
        Ok(Wanted {
            filters,
            names: patterns("name")?,
            ids: patterns("id")?,
            exited,
            publish: ports(filters, "publish")?,
            expose: ports(filters, "expose")?,
            before: created("before")?,
            since: created("since")?,
            ancestors,
            networks,
        })
    }
}

/// Port filters, `80`, `80/udp`, `8000-8010/tcp`, as inclusive ranges.
fn ports(filters: &Filters, name: &str) -> Result<Vec<(Port, Port)>> {
    filters
        .values(name)
        .iter()
        .map(|text| {
            let bad = || Error::invalid(format!("invalid filter '{name}={text}'"));
            let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => return Err(bad()),
            };
            let (first, last) = super::validate::port_range(range).ok_or_else(bad)?;
            Ok((
                Port {
                    number: first,
                    protocol,
                },
                Port {
                    number: last,
                    protocol,
                },
            ))
        })
        .collect()
}

fn within(port: Port, ranges: &[(Port, Port)]) -> bool {
    ranges.iter().any(|(first, last)| {
        port.protocol == first.protocol && (first.number..=last.number).contains(&port.number)
    })
}

/// Whether one of the host's ports that lead to `port` is within `ranges`.
fn publishes(port: Port, bindings: &[PortBinding], ranges: &[(Port, Port)]) -> bool {
    let on_host = |binding: &PortBinding| {
        binding.host_port.parse().ok().map(|number| Port {
            number,
            protocol: port.protocol,
        })
    };
    bindings
        .iter()
        .filter_map(on_host)
        .any(|port| within(port, ranges))
}

impl Wanted<'_> {
    fn matches(&self, record: &ContainerRecord, observed: &ObservedRecord) -> bool {
        let filters = self.filters;
        let state = &observed.state;
        let name = record.name.as_str();
        let slashed = format!("/{name}");
        let label = |key: &str| {
            record
                .config
                .labels
                .as_ref()
                .and_then(|labels| labels.get(key))
                .map(String::as_str)
        };
        let health = state
            .health
            .as_ref()
            .map_or("none", |health| health.status.as_str());
        let has_volume = |wanted: &str| {
            record.mounts.iter().any(|mount| {
                mount.target == wanted
                    || mount.source == wanted
                    || mount
                        .volume
                        .as_ref()
                        .is_some_and(|volume| volume.as_str() == wanted)
            })
        };
        let exposes = |ranges: &[(Port, Port)]| {
            record
                .config
                .exposed_ports
                .iter()
                .flatten()
                .filter_map(|(port, _)| port.parse().ok())
                .any(|port| within(port, ranges))
        };
        (self.names.is_empty()
            || self
                .names
                .iter()
                .any(|p| p.is_match(name) || p.is_match(&slashed)))
            && (self.ids.is_empty() || self.ids.iter().any(|p| p.is_match(record.id.as_str())))
            && filters.any("status", |wanted| state.status.as_str() == wanted)
            && filters.any("health", |wanted| health == wanted)
            && filters.any("isolation", |wanted| matches!(wanted, "default" | ""))
            && filters.any("is-task", |wanted| matches!(wanted, "false" | "0"))
            && filters.labels("label", label)
            && filters.any("volume", has_volume)
            && (self.exited.is_empty()
                || (state.status == Status::Exited && self.exited.contains(&state.exit_code)))
            && (self.publish.is_empty()
                || observed
                    .ports
                    .iter()
                    .any(|(port, bindings)| publishes(*port, bindings, &self.publish)))
            && (self.expose.is_empty() || exposes(&self.expose))
            && self.before.is_none_or(|time| record.created < time)
            && self.since.is_none_or(|time| record.created > time)
            && (!filters.has("ancestor") || self.ancestors.contains(&record.image))
            && (self.networks.is_empty()
                || self
                    .networks
                    .iter()
                    .any(|network| record.endpoints.contains_key(network)))
    }
}
