//! Which names a network has, and what a container may ask: plain data from whoever decides,
//! and the lookups in it.
//!
//! A name is looked up in the networks of the asking container, one after the other, as
//! docker does: `web`, then `web.backend` as name `web` of network `backend`.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use types::NetworkId;

/// The names of one network, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The network.
    pub network: NetworkId,
    /// Its name, which may follow that of a member.
    pub name: String,
    /// Grows with every change: what comes late does not undo what came first.
    pub revision: u64,
    /// Who is on it.
    pub members: Vec<Member>,
}

/// One container on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name that an address leads back to.
    pub name: String,
    /// What else it is known by.
    pub aliases: Vec<String>,
    /// Its addresses on this network.
    pub addresses: Vec<IpAddr>,
}

/// How one container's questions are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// The networks whose names it knows, in the order in which they are asked.
    pub networks: Vec<Known>,
    /// Who is asked for all other names; the machine's own servers when empty.
    pub servers: Vec<IpAddr>,
    /// Whether the machine's servers may be asked; not where all networks are cut off.
    pub outside: bool,
    /// Whether it has an IPv6 address.
    pub ipv6: bool,
    /// Whether names without a dot stay here: somebody set `ndots`.
    pub bare_names_stay: bool,
}

/// A network as one of its containers knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The network.
    pub network: NetworkId,
    /// Names of this container's own for its neighbours (docker's links).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
}

/// A network's names, ready to be asked.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) revision: u64,
    name: String,
    by_name: HashMap<String, Vec<IpAddr>>,
    by_address: HashMap<IpAddr, String>,
}

impl Zone {
    pub(super) fn new(names: &Names) -> Self {
        let mut by_name: HashMap<String, Vec<IpAddr>> = HashMap::new();
        let mut by_address = HashMap::new();
        for member in &names.members {
            for name in std::iter::once(&member.name).chain(&member.aliases) {
                let known = by_name.entry(name.to_ascii_lowercase()).or_default();
                for address in &member.addresses {
                    if !known.contains(address) {
                        known.push(*address);
                    }
                }
            }
            for address in &member.addresses {
                by_address.insert(*address, format!("{}.{}", member.name, names.name));
            }
        }
        Self {
            revision: names.revision,
            name: names.name.to_ascii_lowercase(),
            by_name,
            by_address,
        }
    }
}

/// The zones that one container may ask, with its own names in each.
pub(super) type View<'a> = &'a [(Arc<Zone>, &'a BTreeMap<String, String>)];

/// The addresses of a name, in lower case and without a dot at its end.
pub(super) fn addresses<'a>(view: View<'a>, name: &str) -> Option<&'a [IpAddr]> {
    if let Some(found) = within(view, name, None) {
        return Some(found);
    }
    let mut end = name.len();
    while let Some(dot) = name[..end].rfind('.') {
        if let Some(found) = within(view, &name[..dot], Some(&name[dot + 1..])) {
            return Some(found);
        }
        end = dot;
    }
    None
}

fn within<'a>(view: View<'a>, name: &str, network: Option<&str>) -> Option<&'a [IpAddr]> {
    let zones = || {
        view.iter()
            .filter(move |(zone, _)| network.is_none_or(|network| zone.name == network))
    };
    let linked = zones().find_map(|(zone, links)| {
        let target = links
            .iter()
            .find(|(alias, _)| alias.eq_ignore_ascii_case(name))?
            .1;
        zone.by_name.get(&target.to_ascii_lowercase())
    });
    linked
        .or_else(|| zones().find_map(|(zone, _)| zone.by_name.get(name)))
        .map(Vec::as_slice)
}

/// The name of an address, with its network's.
pub(super) fn name_of(view: View<'_>, address: &IpAddr) -> Option<String> {
    view.iter()
        .find_map(|(zone, _)| zone.by_address.get(address).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, aliases: &[&str], address: &str) -> Member {
        Member {
            name: name.into(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            addresses: vec![address.parse().unwrap()],
        }
    }

    #[test]
    fn names_of_one_network_and_of_several() {
        let zone = |name: &str, members| {
            Arc::new(Zone::new(&Names {
                network: NetworkId::random(),
                name: name.into(),
                revision: 1,
                members,
            }))
        };
        let front = zone(
            "my.front",
            vec![
                member("Web-1", &["web"], "10.0.0.2"),
                member("Web-2", &["web"], "10.0.0.3"),
            ],
        );
        let back = zone("back", vec![member("db", &["web"], "10.1.0.2")]);
        let (none, links) = (
            BTreeMap::new(),
            BTreeMap::from([("Store".to_owned(), "db".to_owned())]),
        );
        let view = [(front, &none), (back, &links)];
        let of = |name: &str| addresses(&view, name).map(<[IpAddr]>::len);
        assert_eq!(of("web"), Some(2));
        assert_eq!(of("web-1"), Some(1));
        assert_eq!(of("web.my.front"), Some(2));
        assert_eq!(of("web.back"), Some(1));
        assert_eq!(of("store"), Some(1));
        assert_eq!(of("store.back"), Some(1));
        assert_eq!(of("store.my.front"), None);
        assert_eq!(of("db.my.front"), None);
        assert_eq!(of(""), None);
        assert_eq!(of("."), None);
        let name = name_of(&view, &"10.0.0.3".parse().unwrap());
        assert_eq!(name.unwrap(), "Web-2.my.front");
        assert_eq!(name_of(&view, &"10.9.9.9".parse().unwrap()), None);
    }
}
