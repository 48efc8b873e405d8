//! The files that a container finds in its /etc, and small file work.

use std::{
    fs, io,
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

impl Generated {
    pub(super) fn files_mut(&mut self) -> [&mut PathBuf; 3] {
        [&mut self.hosts, &mut self.hostname, &mut self.resolv_conf]
    }
}

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
        let theirs = network::HostResolver::read();
        write(
            &generated.resolv_conf,
            super::names::resolv_conf(plan, &theirs, host_network).as_bytes(),
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
