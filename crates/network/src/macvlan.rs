//! Networks without a bridge: endpoints are macvlan interfaces on an interface of the machine.
//!
//! That interface is the operator's, or was made for the network: a VLAN (`eth0.10`), or one
//! without a wire (`dm-…`). Only what carries this instance's mark is ever removed.

use std::{io, os::fd::AsFd as _};

use types::{ContainerId, Error, Result, error::ResultExt as _};

use crate::{
    Bridge, Changed, Endpoint, Inner, LinkName, Macvlan,
    link::Links,
    netlink::is_present,
    netns::{enter, on_own_thread},
    sandbox::equip,
};

/// What the names of parents without a wire begin with (docker's own).
const DUMMY: &str = "dm-";

impl Inner {
    /// Makes the network's parent interface if it is not there.
    pub(crate) fn ensure_parent(&self, network: Bridge, macvlan: &Macvlan) -> Result<Changed> {
        let links = self.links()?;
        let parent = macvlan.parent.as_str();
        let during = || format!("setting up interface {parent}");
        let changed = if links.find(parent).during(during)?.is_some() {
            Changed::Same
        } else {
            self.make_parent(&links, parent)?;
            Changed::Created
        };
        self.bridges().insert(network.name.clone(), network);
        Ok(changed)
    }

    fn make_parent(&self, links: &Links, parent: &str) -> Result<()> {
        let group = self.instance.group();
        if parent.starts_with(DUMMY) {
            return links
                .add_wireless(parent, group)
                .during(|| format!("making interface {parent}"));
        }
        let (base, id) = vlan(parent)?;
        let Some(below) = links
            .find(base)
            .during(|| format!("looking for interface {base}"))?
        else {
            return Err(Error::system(format!(
                "-o parent interface was not found on the host: {base}"
            )));
        };
        links
            .add_vlan(parent, below.index, id, group)
            .during(|| format!("failed to create {parent} vlan link"))
    }

    /// Forgets the network, and removes its parent if this instance made it and no other
    /// network lies on it.
    pub(crate) fn remove_parent(&self, name: &LinkName, macvlan: &Macvlan) -> Result<bool> {
        let mut bridges = self.bridges();
        let known = bridges.remove(name).is_some();
        let shared = bridges
            .values()
            .filter_map(|other| other.macvlan.as_ref())
            .any(|other| other.parent == macvlan.parent);
        drop(bridges);
        let removed = !shared && self.remove_own_link(macvlan.parent.as_str())?;
        Ok(known || removed)
    }

    /// Whether a parent that this instance made is one of a known network.
    pub(crate) fn is_parent(&self, name: &str) -> bool {
        self.bridges()
            .values()
            .filter_map(|network| network.macvlan.as_ref())
            .any(|macvlan| macvlan.parent.as_str() == name)
    }

    /// Changes the calling thread's namespace.
    pub(crate) fn attach_macvlan(
        &self,
        id: &ContainerId,
        endpoint: &Endpoint,
        macvlan: &Macvlan,
    ) -> Result<()> {
        let handle = self.sandboxes.handle(id)?;
        let links = self.links()?;
        let parent = macvlan.parent.as_str();
        let Some(below) = links
            .find(parent)
            .during(|| format!("looking for interface {parent}"))?
        else {
            return Err(Error::system(format!(
                "the requested parent interface {parent} was not found on the Docker host"
            )));
        };
        let made = links.add_macvlan(below.index, handle.as_fd(), endpoint, macvlan.mode);
        match made {
            // Left over from an attempt that did not end; addressing it again does no harm.
            Err(error) if is_present(&error) => {}
            other => other.during(|| "failed to create the macvlan port")?,
        }
        enter(&handle)?;
        equip(endpoint).during(|| format!("addressing {}", endpoint.ifname))
    }

    /// Removes an endpoint's interface from within its sandbox.
    pub(crate) fn detach_macvlan(&self, id: &ContainerId, ifname: &LinkName) -> Result<bool> {
        let handle = self.sandboxes.handle(id)?;
        let remove = || {
            enter(&handle).map_err(io::Error::other)?;
            Links::open()?.remove(ifname.as_str())
        };
        on_own_thread(|| {
            remove().during(|| format!("detaching {ifname} of container {}", id.short()))
        })
    }

    /// Whether a sandbox has an interface of this name.
    pub(crate) fn has_inside(&self, id: &ContainerId, ifname: &LinkName) -> Result<bool> {
        let handle = self.sandboxes.handle(id)?;
        let look = || {
            enter(&handle).map_err(io::Error::other)?;
            Links::open()?
                .find(ifname.as_str())
                .map(|link| link.is_some())
        };
        on_own_thread(|| {
            look().during(|| format!("looking for {ifname} of container {}", id.short()))
        })
    }
}

/// `eth0.10` as interface and number.
fn vlan(name: &str) -> Result<(&str, u16)> {
    let Some((base, number)) = name.split_once('.') else {
        return Err(Error::system(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        )));
    };
    if number.contains('.') {
        return Err(Error::system(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )));
    }
    match number.parse::<i64>() {
        Ok(id @ 1..=4094) => Ok((base, id as u16)),
        Ok(id) => Err(Error::system(format!(
            "vlan id must be between 1-4094, received: {id}"
        ))),
        Err(_) => Err(Error::system(format!(
            "unable to parse a valid vlan id from: {number} (ex. eth0.10 for vlan 10)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vlans() {
        assert_eq!(vlan("eth0.10").unwrap(), ("eth0", 10));
        for bad in ["eth0", "eth0.0", "eth0.4095", "eth0.x", "eth0.1.2"] {
            assert!(vlan(bad).is_err(), "{bad}");
        }
    }
}
