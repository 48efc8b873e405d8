//! The files that a container finds in its /etc, and small file work.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use types::{Error, Result, error::ResultExt as _};

use super::LocalAgent;
use crate::plan::{Plan, SandboxPlan};

/// Generated files, to be bound into the container.
pub(super) struct Generated {
    pub(super) hosts: PathBuf,
    pub(super) hostname: PathBuf,
    pub(super) resolv_conf: PathBuf,
}

/// Name servers where the host has none that a container could reach (as docker).
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Writes a small file as a whole.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).during(|| format!("writing {}", path.display()))
}

/// Removes a file that need not exist.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::wrap(
            format_args!("removing {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}

impl LocalAgent {
    /// Writes hosts, hostname and resolv.conf; those of the container whose network is
    /// shared are used as they are.
    pub(super) fn write_files(&self, plan: &Plan) -> Result<Generated> {
        let owner = match &plan.network {
            SandboxPlan::Container(other) => other,
            _ => &plan.id,
        };
        let paths = self.paths_of(owner);
        let generated = Generated {
            hosts: paths.hosts,
            hostname: paths.hostname,
            resolv_conf: paths.resolv_conf,
        };
        if *owner != plan.id {
            return Ok(generated);
        }
        let host_network = matches!(plan.network, SandboxPlan::Host);
        write(
            &generated.hostname,
            format!("{}\n", plan.hostname).as_bytes(),
        )?;
        write(&generated.hosts, hosts(plan, host_network).as_bytes())?;
        let theirs = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        write(
            &generated.resolv_conf,
            resolv_conf(plan, &theirs, host_network).as_bytes(),
        )?;
        Ok(generated)
    }
}

fn hosts(plan: &Plan, host_network: bool) -> String {
    let mut text = if host_network {
        fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n"
            .to_owned()
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (address, names) in &plan.hosts {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    if let SandboxPlan::Own { endpoints, .. } = &plan.network {
        let names = if plan.config.domainname.is_empty() {
            plan.hostname.clone()
        } else {
            format!("{0}.{1} {0}", plan.hostname, plan.config.domainname)
        };
        for address in endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            text.push_str(&format!("{}\t{names}\n", address.addr()));
        }
    }
    text
}

/// The container's resolver: what was asked for over what the host has. Servers on the
/// host's loopback cannot be reached from a container with a network of its own.
fn resolv_conf(plan: &Plan, theirs: &str, host_network: bool) -> String {
    let given = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (mut servers, mut search, mut options) = (
        given(&plan.host.dns),
        given(&plan.host.dns_search),
        given(&plan.host.dns_options),
    );
    let rest = |line: &str, word: &str| -> Option<Vec<String>> {
        let rest = line.strip_prefix(word)?;
        rest.starts_with([' ', '\t'])
            .then(|| rest.split_whitespace().map(str::to_owned).collect())
    };
    let lines = || theirs.lines().map(str::trim);
    if servers.is_empty() {
        let reachable = |server: &String| {
            let address = server.split('%').next().unwrap_or(server);
            host_network || address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback())
        };
        servers = lines()
            .filter_map(|line| rest(line, "nameserver"))
            .flatten()
            .filter(reachable)
            .collect();
        if servers.is_empty() && !host_network {
            servers = FALLBACK_SERVERS.map(str::to_owned).to_vec();
        }
    }
    if search.is_empty() {
        search = lines()
            .filter_map(|line| rest(line, "search"))
            .next_back()
            .unwrap_or_default();
    }
    if options.is_empty() {
        options = lines()
            .filter_map(|line| rest(line, "options"))
            .flatten()
            .collect();
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
            id: types::ContainerId::random(),
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
        };
        edit(&mut plan);
        plan
    }

    #[test]
    fn resolvers() {
        let theirs =
            "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a.example\noptions ndots:2\n";
        let inherited = resolv_conf(&plan(|_| {}), theirs, false);
        assert_eq!(
            inherited,
            "nameserver 10.0.0.2\nsearch a.example\noptions ndots:2\n"
        );
        let none = resolv_conf(&plan(|_| {}), "nameserver ::1\n", false);
        assert_eq!(none, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        let own = plan(|plan| {
            plan.host.dns = Some(vec!["1.2.3.4".into()]);
            plan.host.dns_search = Some(vec![".".into()]);
        });
        assert_eq!(resolv_conf(&own, "", false), "nameserver 1.2.3.4\n");
        assert!(resolv_conf(&plan(|_| {}), theirs, true).contains("127.0.0.53"));
    }
}
