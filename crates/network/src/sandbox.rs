//! Endpoints: a pair of interfaces between a sandbox and its bridge.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use types::{ContainerId, Error, Result, error::ResultExt as _};

use crate::{
    Endpoint, Inner, Instance, LinkName,
    link::{Links, Veth},
    netlink::is_present,
    netns::{absent, enter, on_thread, write_sysctl},
};

/// What the names of our pairs' outer ends begin with.
pub(crate) const OUTER: &str = "kv";

impl Inner {
    /// Changes the calling thread's namespace.
    pub(crate) fn attach(&self, id: &ContainerId, endpoint: &Endpoint) -> Result<()> {
        let during = || {
            format!(
                "attaching {} of container {} to {}",
                endpoint.ifname,
                id.short(),
                endpoint.bridge
            )
        };
        let bridge = self
            .known_bridge(&endpoint.bridge)
            .map_err(|error| error.context(during()))?;
        if let Some(macvlan) = &bridge.macvlan {
            return self
                .attach_macvlan(id, endpoint, macvlan)
                .map_err(|error| error.context(during()));
        }
        let handle = self
            .sandboxes
            .handle(id)
            .map_err(|error| error.context(during()))?;
        let links = self.links()?;
        let Some(port_of) = links.find(endpoint.bridge.as_str()).during(during)? else {
            return Err(Error::not_found(format!(
                "{}: the bridge is gone",
                during()
            )));
        };
        let outer = self.outer_name(id, &endpoint.ifname).during(during)?;
        let veth = Veth {
            host_name: &outer,
            group: self.instance.group(),
            bridge: port_of.index,
            mtu: bridge.mtu.unwrap_or(port_of.mtu),
            sandbox: handle.as_fd(),
            sandbox_name: endpoint.ifname.as_str(),
            mac: endpoint.mac,
        };
        let made = match links.add_veth(&veth) {
            // Left over from an attempt that did not end.
            Err(error) if is_present(&error) => {
                links.remove(&outer).and_then(|_| links.add_veth(&veth))
            }
            other => other,
        };
        made.during(during)?;
        let work = || {
            // A frame may go back to where it came from: a container that uses its own
            // published port, on machines whose bridges call the IP firewall.
            links.set_port(links.index(&outer)?, true, !bridge.icc)?;
            enter(&handle).map_err(io::Error::other)?;
            equip(endpoint)?;
            // Asking for a link makes the kernel act on its new carrier now and not within the
            // next second: the port forwards, and the bridge sends, before anybody connects.
            links.find(&outer)?;
            links.find(endpoint.bridge.as_str()).map(drop)
        };
        work().during(during).inspect_err(|_| {
            // The socket still acts on the namespace it was opened in.
            let _ = links.remove(&outer);
        })
    }

    pub(crate) fn detach(&self, id: &ContainerId, ifname: &LinkName) -> Result<bool> {
        if !self.sandboxes.exists(id.as_str()) {
            return Ok(false);
        }
        let outer = self
            .outer_name(id, ifname)
            .during(|| format!("looking for container {}", id.short()))?;
        let removed = self
            .links()?
            .remove(&outer)
            .during(|| format!("detaching {ifname} of container {}", id.short()))?;
        // No pair: it may lie directly on an interface of the machine.
        if removed {
            Ok(true)
        } else {
            self.detach_macvlan(id, ifname)
        }
    }

    /// The name of the outer end of a sandbox's interface.
    pub(crate) fn outer_name(&self, id: &ContainerId, ifname: &LinkName) -> io::Result<String> {
        Ok(outer_name(
            self.instance,
            self.sandboxes.inode(id.as_str())?,
            id.as_str(),
            ifname,
        ))
    }

    /// Changes the calling thread's namespace.
    pub(crate) fn set_gateways(
        &self,
        id: &ContainerId,
        ifname: &LinkName,
        gateways: &[IpAddr],
    ) -> Result<()> {
        enter(self.sandboxes.handle(id)?)?;
        let links = self.links()?;
        let set = || {
            let index = links.index(ifname.as_str())?;
            gateways
                .iter()
                .try_for_each(|gateway| links.set_default_route(index, gateway))
        };
        set().during(|| format!("setting the gateways of container {}", id.short()))
    }

    /// Removes a sandbox and returns, if there was one, the outer ends of its pairs: the
    /// kernel removes them soon, see [`Inner::bury`]. Changes the calling thread's namespace.
    pub(crate) fn delete_sandbox(&self, id: &str) -> Result<Option<Vec<String>>> {
        let outer_ends = match id.parse().and_then(|id| self.sandboxes.handle(&id)) {
            // Not worth failing for: the kernel removes what nobody can name.
            Ok(handle) => self.outer_ends(id, &handle).unwrap_or_default(),
            // Nothing is mounted there (any more); remove what is left of it.
            Err(_) => Vec::new(),
        };
        let removed = self
            .sandboxes
            .remove(id)
            .during(|| format!("removing network namespace {id}"))?;
        Ok(removed.then_some(outer_ends))
    }

    fn outer_ends(&self, id: &str, handle: &OwnedFd) -> Result<Vec<String>> {
        let list = || {
            let inode = rustix::fs::fstat(handle)?.st_ino;
            enter(handle).map_err(io::Error::other)?;
            let links = Links::open()?;
            let all = links.list()?;
            // These go at once: until they have gone, nobody else can be up on the same
            // parent with the same hardware address, the container's own next run included.
            for link in all.iter().filter(|link| link.kind == "macvlan") {
                links.remove(&link.name)?;
            }
            let veths = all.into_iter().filter(|link| link.kind == "veth");
            let names = veths.filter_map(|link| link.name.parse().ok());
            Ok::<_, io::Error>(
                names
                    .map(|name| outer_name(self.instance, inode, id, &name))
                    .collect(),
            )
        };
        list().during(|| format!("listing the interfaces of network namespace {id}"))
    }

    /// Removes the pairs of a sandbox that is gone, as far as the kernel has not done so. It
    /// does within a fraction of a second, many at a time and at no cost to anybody who
    /// waits, unless a process still holds the namespace.
    pub(crate) async fn bury(self: Arc<Self>, outer_ends: Vec<String>) {
        for milliseconds in [30, 100, 300, 600] {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            if !matches!(self.clone().any_left(&outer_ends, false).await, Ok(true)) {
                return;
            }
        }
        if let Err(error) = self.any_left(&outer_ends, true).await {
            tracing::warn!("{error}");
        }
    }

    /// Whether any of these links is there, and removes them if asked to.
    async fn any_left(self: Arc<Self>, names: &[String], remove: bool) -> Result<bool> {
        let names = names.to_vec();
        on_thread(move || {
            let links = self.links()?;
            let mut left = false;
            for name in &names {
                let found = if remove {
                    links.remove(name)
                } else {
                    links.find(name).map(|link| link.is_some())
                };
                left |= found.during(|| format!("removing interface {name}"))?;
            }
            Ok(left)
        })
        .await
    }
}

/// Addresses the interface within the calling thread's namespace and sets it up.
pub(crate) fn equip(endpoint: &Endpoint) -> io::Result<()> {
    let ifname = endpoint.ifname.as_str();
    let links = Links::open()?;
    let index = links.index(ifname)?;
    if endpoint
        .addresses
        .iter()
        .any(|address| matches!(address, IpNet::V6(_)))
    {
        let conf = |name| format!("net/ipv6/conf/{ifname}/{name}");
        write_sysctl(&conf("accept_dad"), "0").or_else(absent)?;
        write_sysctl(&conf("disable_ipv6"), "0").or_else(absent)?;
    }
    for (name, value) in &endpoint.sysctls {
        write_sysctl(&name.replace("IFNAME", ifname), value)?;
    }
    links.equip(index, &endpoint.addresses, &endpoint.gateways)?;
    links.find(ifname).map(drop)
}

/// The outer end's name: the same whenever it is asked for, so that it need not be kept. The
/// namespace's number sets it apart from that of a former namespace of the same container,
/// whose interfaces may not be gone yet.
fn outer_name(instance: Instance, inode: u64, id: &str, ifname: &LinkName) -> String {
    let hash = fnv([
        instance.to_string().as_bytes(),
        &inode.to_ne_bytes(),
        id.as_bytes(),
        ifname.as_str().as_bytes(),
    ]);
    format!("{OUTER}{:013x}", hash >> 12)
}

/// FNV-1a over all parts, each ended by a zero byte.
pub(crate) fn fnv<const N: usize>(parts: [&[u8]; N]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let whole = |hash, part: &&[u8]| part.iter().chain(&[0]).fold(hash, step);
    parts.iter().fold(0xcbf2_9ce4_8422_2325, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_names_fit_and_differ() {
        let (one, two): (Instance, Instance) =
            ("00000001".parse().unwrap(), "00000002".parse().unwrap());
        let eth = |n: u8| format!("eth{n}").parse::<LinkName>().unwrap();
        let names = [
            outer_name(one, 1, "a", &eth(0)),
            outer_name(two, 1, "a", &eth(0)),
            outer_name(one, 1, "a", &eth(1)),
        ];
        assert!(names.iter().all(|name| name.len() == 15), "{names:?}");
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2]);
    }
}
