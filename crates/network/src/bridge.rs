//! Bridges: made, changed and removed together with what the firewall knows of them.

use std::sync::{MutexGuard, PoisonError};

use ipnet::IpNet;
use types::{Error, Result, error::ResultExt as _};

use crate::{
    Bridge, Changed, Inner, LinkName, Mac,
    firewall::{Elements, bridge_elements},
    link::{Link, Links},
    netns::{absent, write_sysctl},
};

impl Inner {
    pub(crate) fn ensure_bridge(&self, bridge: Bridge) -> Result<Changed> {
        let _alone = self.bridge_work();
        if let Some(macvlan) = bridge.macvlan.clone() {
            return self.ensure_parent(bridge, &macvlan);
        }
        let links = self.links()?;
        let name = bridge.name.as_str();
        let found = links
            .find(name)
            .during(|| format!("looking for bridge {name}"))?;
        let (link, made) = match found {
            Some(link) if link.kind == "bridge" => (link, false),
            Some(link) => {
                let kind = if link.kind.is_empty() {
                    "hardware"
                } else {
                    &link.kind
                };
                return Err(Error::conflict(format!(
                    "interface {name} exists and is no bridge but {kind}"
                )));
            }
            None => (self.make_bridge(&links, &bridge)?, true),
        };
        let changed = self.adjust_bridge(&links, &bridge, &link);
        match changed {
            Ok(_) if made => Ok(Changed::Created),
            Ok(true) => Ok(Changed::Updated),
            Ok(false) => Ok(Changed::Same),
            Err(error) => {
                if made {
                    let _ = links.remove(name);
                }
                Err(error)
            }
        }
    }

    fn make_bridge(&self, links: &Links, bridge: &Bridge) -> Result<Link> {
        let name = bridge.name.as_str();
        let mac = bridge_mac(self.instance.group(), name);
        let made = links
            .add_bridge(name, self.instance.group(), mac, bridge.mtu)
            .and_then(|()| links.find(name));
        let made = made.during(|| format!("making bridge {name}"))?;
        made.ok_or_else(|| Error::system(format!("bridge {name} vanished while it was made")))
    }

    /// Brings addresses, settings and rules of an existing bridge in line. True when
    /// something differed.
    fn adjust_bridge(&self, links: &Links, bridge: &Bridge, link: &Link) -> Result<bool> {
        let name = bridge.name.as_str();
        let during = || format!("setting up bridge {name}");
        let mut changed = false;
        if let Some(mtu) = bridge.mtu.filter(|mtu| *mtu != link.mtu) {
            links.set_mtu(link.index, mtu).during(during)?;
            changed = true;
        }
        settings(bridge).during(during)?;
        changed |=
            addresses(links, bridge, link, link.group == self.instance.group()).during(during)?;
        links.set_up(link.index).during(during)?;

        let before = self.bridges().get(&bridge.name).cloned();
        if before
            .as_ref()
            .is_some_and(|before| before.icc != bridge.icc)
        {
            let ports = links.list().during(during)?;
            for port in ports.iter().filter(|port| port.master == Some(link.index)) {
                links
                    .set_port(port.index, true, !bridge.icc)
                    .during(during)?;
            }
        }
        let elements = bridge_elements(bridge);
        let mut obsolete = before.as_ref().map(bridge_elements).unwrap_or_default();
        obsolete.retain(|place, _| !elements.contains_key(place));
        changed |= before.as_ref().is_some_and(|before| before != bridge);
        self.firewall.change(elements, obsolete)?;
        self.bridges().insert(bridge.name.clone(), bridge.clone());
        Ok(changed)
    }

    pub(crate) fn remove_bridge(&self, name: &LinkName) -> Result<bool> {
        let _alone = self.bridge_work();
        let known = self.bridges().get(name).cloned();
        if let Some(macvlan) = known.as_ref().and_then(|bridge| bridge.macvlan.as_ref()) {
            return self.remove_parent(name, macvlan);
        }
        if let Some(bridge) = &known {
            self.firewall
                .change(Elements::new(), bridge_elements(bridge))?;
            self.bridges().remove(name);
        }
        let removed = self.remove_own_link(name.as_str())?;
        Ok(known.is_some() || removed)
    }

    /// Removes a link if this instance made it.
    pub(crate) fn remove_own_link(&self, name: &str) -> Result<bool> {
        let links = self.links()?;
        let remove = || match links.find(name)? {
            Some(link) if link.group == self.instance.group() => links.remove(name),
            _ => Ok(false),
        };
        remove().during(|| format!("removing interface {name}"))
    }

    fn bridge_work(&self) -> MutexGuard<'_, ()> {
        self.bridge_work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A locally administered address that stays the same for a bridge of this name, so that a
/// rebuilt bridge is still known to the containers' address caches.
fn bridge_mac(group: u32, name: &str) -> Mac {
    let hash = crate::sandbox::fnv([group.to_string().as_bytes(), name.as_bytes()]);
    let [a, b, c, d, ..] = hash.to_be_bytes();
    Mac([0x02, 0x42, a, b, c, d])
}

/// The bridge's own addresses: those that are missing are added, and on a bridge of ours
/// others are removed. True when something differed.
fn addresses(links: &Links, bridge: &Bridge, link: &Link, ours: bool) -> std::io::Result<bool> {
    let wanted: Vec<IpNet> = bridge
        .subnets
        .iter()
        .filter_map(|subnet| IpNet::new(subnet.gateway?, subnet.net.prefix_len()).ok())
        .collect();
    let present = links.addresses(Some(link.index))?;
    let missing: Vec<_> = wanted
        .iter()
        .filter(|address| !present.contains(address))
        .copied()
        .collect();
    links.add_addresses(link.index, &missing)?;
    let link_local =
        |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
    let surplus = present
        .iter()
        .filter(|address| ours && !wanted.contains(address) && !link_local(address));
    let mut changed = !missing.is_empty();
    for address in surplus {
        links.remove_address(link.index, address)?;
        changed = true;
    }
    Ok(changed)
}

/// A bridge takes no router advertisements, and speaks IPv6 only where it has a subnet.
fn settings(bridge: &Bridge) -> std::io::Result<()> {
    let has_v6 = bridge
        .subnets
        .iter()
        .any(|subnet| matches!(subnet.net, IpNet::V6(_)));
    let conf = |name| format!("net/ipv6/conf/{}/{name}", bridge.name);
    write_sysctl(&conf("accept_ra"), "0").or_else(absent)?;
    // Until its link-local address has proved unique, for a second or two, the machine asks
    // for no neighbour on behalf of others: translated connections would hang.
    write_sysctl(&conf("accept_dad"), "0").or_else(absent)?;
    write_sysctl(&conf("disable_ipv6"), if has_v6 { "0" } else { "1" }).or_else(absent)?;
    if has_v6 { forward_v6() } else { Ok(()) }
}

/// Turns on IPv6 forwarding without losing what routers advertise: forwarding machines
/// ignore advertisements unless told otherwise (`accept_ra` 2).
fn forward_v6() -> std::io::Result<()> {
    let folder = std::path::Path::new("/proc/sys/net/ipv6/conf");
    if std::fs::read_to_string(folder.join("all/forwarding")).is_ok_and(|now| now.trim() == "1") {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path().join("accept_ra");
        if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == "1") {
            std::fs::write(&path, "2")?;
        }
    }
    write_sysctl("net/ipv6/conf/all/forwarding", "1")
}
