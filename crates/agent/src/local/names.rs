//! Names inside containers: their resolv.conf, and what the name service of a sandbox has to
//! know. The service itself is the crate `network`'s.

use std::{fs, net::IpAddr};

use network::{HostResolver, Known, Resolver};
use types::{ContainerId, Result};

use super::{LocalAgent, blocking, files::write};
use crate::plan::{EndpointPlan, Plan, SandboxPlan};

/// Name servers where the host has none that a container could reach (as docker).
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];
/// Where the name service of a sandbox is asked.
const SERVICE: &str = "127.0.0.11";

impl LocalAgent {
    /// Serves names in a container's sandbox, if it is on a network that has any.
    pub(super) async fn serve_names(&self, plan: &Plan) -> Result<()> {
        if !has_names(plan) {
            return Ok(());
        }
        let resolver = resolver(plan, &host().await?);
        self.networks.serve_names(&plan.id, resolver).await
    }

    /// Serves names again in a container that was found running.
    pub(super) async fn serve_names_again(&self, plan: &Plan) -> Result<()> {
        if !has_names(plan) && !self.asks_service(&plan.id).await? {
            return Ok(());
        }
        let resolver = resolver(plan, &host().await?);
        self.networks.serve_names(&plan.id, resolver).await
    }

    /// A running container's networks have changed, and with them the names that it knows. One
    /// that has come to its first network with names finds the service in its resolv.conf,
    /// unless somebody has changed that; it stays there when the container leaves the network.
    pub(super) async fn change_names(&self, before: &Plan, after: &Plan) -> Result<()> {
        if !has_names(before) && !has_names(after) {
            return Ok(());
        }
        let host = host().await?;
        let resolver = resolver(after, &host);
        self.networks.serve_names(&after.id, resolver).await?;
        let file = self.paths_of(&after.id).resolv_conf;
        let (old, new) = (
            resolv_conf(before, &host, false),
            resolv_conf(after, &host, false),
        );
        blocking(move || match fs::read_to_string(&file) {
            Ok(text) if text == old && new.contains(SERVICE) => write(&file, new.as_bytes()),
            _ => Ok(()),
        })
        .await
    }

    async fn asks_service(&self, id: &ContainerId) -> Result<bool> {
        let file = self.paths_of(id).resolv_conf;
        let asks = move || {
            fs::read_to_string(file)
                .is_ok_and(|text| HostResolver::parse(&text).servers == [SERVICE])
        };
        blocking(move || Ok(asks())).await
    }
}

async fn host() -> Result<HostResolver> {
    blocking(|| Ok(HostResolver::read())).await
}

fn own(plan: &Plan) -> &[EndpointPlan] {
    match &plan.network {
        SandboxPlan::Own { endpoints, .. } => endpoints,
        _ => &[],
    }
}

/// Whether it is on a network whose names are served.
fn has_names(plan: &Plan) -> bool {
    own(plan).iter().any(|endpoint| endpoint.links.is_some())
}

/// What the service has to know.
fn resolver(plan: &Plan, host: &HostResolver) -> Resolver {
    let endpoints = own(plan);
    let given = plan.host.dns.iter().flatten();
    let ndots = |option: &String| {
        option
            .strip_prefix("ndots:")
            .is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number > 0))
    };
    let mut networks: Vec<_> = endpoints.iter().collect();
    // Those that lead out come first, as in docker.
    networks.sort_by_key(|one| {
        (
            one.network.internal,
            std::cmp::Reverse(one.priority),
            &one.name,
        )
    });
    Resolver {
        networks: networks
            .into_iter()
            .filter_map(|one| {
                Some(Known {
                    network: one.network.id.clone(),
                    links: one.links.clone()?,
                })
            })
            .collect(),
        servers: given.filter_map(|server| server.parse().ok()).collect(),
        outside: endpoints.iter().any(|one| !one.network.internal),
        ipv6: endpoints
            .iter()
            .flat_map(|one| &one.addresses)
            .any(|address| address.addr().is_ipv6()),
        bare_names_stay: options(plan, host).iter().any(ndots),
    }
}

fn options(plan: &Plan, host: &HostResolver) -> Vec<String> {
    let given = plan.host.dns_options.clone().unwrap_or_default();
    if given.is_empty() {
        host.options.clone()
    } else {
        given
    }
}

/// A container's resolv.conf: what was asked for over what the host has. On a network with
/// names the service is asked, and asks the others. Elsewhere the servers are listed, without
/// those on the host's loopback: they cannot be reached from a network of its own.
pub(super) fn resolv_conf(plan: &Plan, host: &HostResolver, host_network: bool) -> String {
    let mut servers = plan.host.dns.clone().unwrap_or_default();
    let mut search = plan.host.dns_search.clone().unwrap_or_default();
    let mut options = options(plan, host);
    if has_names(plan) {
        servers = vec![SERVICE.to_owned()];
        // Names of neighbours have no dots; they are asked for as they are first.
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".to_owned());
        }
    } else if servers.is_empty() {
        let reachable = |server: &&String| {
            let address = server.split('%').next().unwrap_or(server);
            host_network || address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback())
        };
        servers = host.servers.iter().filter(reachable).cloned().collect();
        if servers.is_empty() && !host_network {
            servers = FALLBACK_SERVERS.map(str::to_owned).to_vec();
        }
    }
    if search.is_empty() {
        search = host.search.clone();
    }
    let mut text = String::new();
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // A single dot is how users say "no search domains".
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(edit: impl FnOnce(&mut Plan)) -> Plan {
        let mut plan = Plan {
            id: ContainerId::random(),
            name: "x".into(),
            config: types::Config::default(),
            host: types::HostConfig::default(),
            hostname: "x".into(),
            layers: Vec::new(),
            mounts: Vec::new(),
            network: SandboxPlan::None,
            pid: crate::NamespaceMode::Private,
            ipc: crate::NamespaceMode::Private,
            uts: crate::NamespaceMode::Private,
            hosts: Vec::new(),
            share: None,
        };
        edit(&mut plan);
        plan
    }

    fn on_a_network(plan: &mut Plan) {
        let id = types::NetworkId::random();
        let bridge = network::Bridge::new(id, "kr-x".parse().unwrap(), Vec::new());
        plan.network = SandboxPlan::Own {
            endpoints: vec![EndpointPlan {
                id: "e".into(),
                name: "n".into(),
                network: bridge,
                addresses: Vec::new(),
                mac: network::Mac([2, 0, 0, 0, 0, 1]),
                interface: "eth0".into(),
                sysctls: Vec::new(),
                priority: 0,
                links: Some(std::collections::BTreeMap::new()),
            }],
            publish: Vec::new(),
        };
    }

    #[test]
    fn resolvers() {
        let theirs = HostResolver::parse(
            "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a.example\noptions ndots:2\n",
        );
        let bare = plan(|_| {});
        assert_eq!(
            resolv_conf(&bare, &theirs, false),
            "nameserver 10.0.0.2\nsearch a.example\noptions ndots:2\n"
        );
        let none = resolv_conf(&bare, &HostResolver::parse("nameserver ::1\n"), false);
        assert_eq!(none, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        let own = plan(|plan| {
            plan.host.dns = Some(vec!["1.2.3.4".into()]);
            plan.host.dns_search = Some(vec![".".into()]);
        });
        let nothing = HostResolver::default();
        assert_eq!(resolv_conf(&own, &nothing, false), "nameserver 1.2.3.4\n");
        assert!(resolv_conf(&bare, &theirs, true).contains("127.0.0.53"));
    }

    #[test]
    fn the_service_stands_in_for_all_servers() {
        let named = plan(|plan| {
            on_a_network(plan);
            plan.host.dns = Some(vec!["1.2.3.4".into()]);
        });
        let nothing = HostResolver::default();
        assert_eq!(
            resolv_conf(&named, &nothing, false),
            "nameserver 127.0.0.11\noptions ndots:0\n"
        );
        let wanted = resolver(&named, &nothing);
        assert_eq!(wanted.servers, ["1.2.3.4".parse::<IpAddr>().unwrap()]);
        assert!(wanted.outside && !wanted.bare_names_stay);
        let theirs = HostResolver::parse("options ndots:2\n");
        assert!(resolver(&named, &theirs).bare_names_stay);
        assert!(resolv_conf(&named, &theirs, false).ends_with("options ndots:2\n"));
        assert!(has_names(&named) && !has_names(&plan(|_| {})));
    }
}
