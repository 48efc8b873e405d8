//! Networks: their records, the names they are found by, and the addresses in use.

pub(crate) mod config;
mod endpoints;
mod list;
mod manage;
mod names;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use agent::{EndpointPlan, NodeAgent};
use ipnet::IpNet;
use network::{Bridge, Subnet, ipam};
use store::{Store, Txn};
use types::{
    Error, Namespace, NetworkId, Result, Time, container::EndpointSettings, record::encode,
};

use config::{BridgeOptions, GatewayMode};

use crate::{
    Engine, Settings,
    record::{NetworkRecord, SubnetRecord, key},
};

/// A container's connection that has its addresses.
#[derive(Debug, Clone)]
pub(crate) struct Allocated {
    /// The network's name.
    pub(crate) name: String,
    pub(crate) plan: EndpointPlan,
    /// As inspect shows it.
    pub(crate) settings: EndpointSettings,
}

/// All networks in memory, with the addresses in use.
pub(crate) struct Networks {
    index: RwLock<HashMap<(Namespace, NetworkId), Arc<NetworkRecord>>>,
    pools: Mutex<HashMap<NetworkId, Vec<ipam::Pool>>>,
    /// How often names of networks were told.
    revision: Mutex<u64>,
    /// Held while a network is made.
    creating: tokio::sync::Mutex<()>,
}

impl Networks {
    /// Reads the records; makes the built-in ones at first start, and the bridges on the node.
    pub(crate) async fn open(
        settings: &Settings,
        store: &dyn Store,
        agent: &dyn NodeAgent,
    ) -> Result<Self> {
        let mut index = HashMap::new();
        for entry in store.list("ns/").await?.entries {
            let mut parts = entry.key.split('/').skip(1);
            if let (Some(namespace), Some("networks"), Some(_), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            {
                let record: NetworkRecord = types::record::decode(&entry.value)?;
                index.insert((namespace.parse()?, record.id.clone()), Arc::new(record));
            }
        }
        let namespace = Namespace::default();
        if !index.values().any(|record| record.builtin) {
            let occupied = agent.network_occupied().await?;
            let bridge = settings.bridge.clone();
            for record in builtin(settings, &settings.bridge_subnet, Some(bridge), &occupied)? {
                store
                    .commit(Txn::new().put(key::network(&namespace, &record.id), encode(&record)?))
                    .await?;
                index.insert((namespace.clone(), record.id.clone()), Arc::new(record));
            }
        }
        let mut pools = HashMap::new();
        for record in index.values().filter(|record| record.has_addresses()) {
            let ensure = async {
                let bridge = bridge(record)?;
                pools.insert(record.id.clone(), pools_of(record, &bridge)?);
                agent.network_ensure(&bridge).await
            };
            match ensure.await {
                // What is wrong with a user's network, such as an interface that is not there
                // (yet), concerns only the containers that want it.
                Err(error) if !record.builtin => {
                    tracing::warn!(network = record.name, %error, "a network is not usable");
                }
                other => other?,
            }
        }
        Ok(Self {
            index: RwLock::new(index),
            pools: Mutex::new(pools),
            revision: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        })
    }

    /// By name, full id or unambiguous prefix of an id.
    pub(crate) fn find(&self, namespace: &Namespace, wanted: &str) -> Result<Arc<NetworkRecord>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let visible = || {
            index
                .iter()
                .filter(|((ns, _), _)| ns == namespace)
                .map(|(_, record)| record)
        };
        if let Some(record) =
            visible().find(|record| record.id.as_str() == wanted || record.name == wanted)
        {
            return Ok(record.clone());
        }
        let mut found =
            visible().filter(|record| !wanted.is_empty() && record.id.as_str().starts_with(wanted));
        match (found.next(), found.next()) {
            (Some(record), None) => Ok(record.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "network {wanted} is ambiguous (2 matches found on ID prefix)"
            ))),
            _ => Err(Error::not_found(format!("network {wanted} not found"))),
        }
    }

    fn with_names(&self) -> Vec<(Namespace, Arc<NetworkRecord>)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index
            .iter()
            .filter(|(_, record)| record.has_names())
            .map(|((namespace, _), record)| (namespace.clone(), record.clone()))
            .collect()
    }

    fn of(&self, namespace: &Namespace) -> Vec<Arc<NetworkRecord>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<_> = index
            .iter()
            .filter(|((ns, _), _)| ns == namespace)
            .map(|(_, record)| record.clone())
            .collect();
        records.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)));
        records
    }

    /// The subnets of all networks.
    fn nets(&self) -> Vec<IpNet> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.values().flatten().map(ipam::Pool::net).collect()
    }

    /// Addresses of one endpoint: those asked for, else the next free ones.
    fn allocate(&self, record: &NetworkRecord, wanted: &EndpointSettings) -> Result<Vec<IpNet>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = pools
            .get_mut(&record.id)
            .map_or(&mut [][..], Vec::as_mut_slice);
        let fixed = wanted.ipam_config.clone().unwrap_or_default();
        let mut taken: Vec<IpNet> = Vec::new();
        for is_v4 in [true, false] {
            let text = if is_v4 {
                &fixed.ipv4_address
            } else {
                &fixed.ipv6_address
            };
            let mut of_family: Vec<_> = pools
                .iter_mut()
                .filter(|pool| pool.net().addr().is_ipv4() == is_v4)
                .collect();
            let result = if text.is_empty() {
                next_free(record, &mut of_family, if is_v4 { 4 } else { 6 })
            } else {
                let ip: IpAddr = text
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
                let is_configured = |subnet: &SubnetRecord| subnet.contains(ip);
                let is_spoken = !of_family.is_empty();
                match of_family.iter_mut().find(|pool| pool.net().contains(&ip)) {
                    Some(pool) => pool.reserve(ip).map(Some),
                    // As with docker, a subnet of a family that the network does not speak is
                    // kept and means nothing, and so do addresses in it.
                    None if !is_spoken && record.subnets.iter().any(is_configured) => Ok(None),
                    None => Err(Error::invalid(format!(
                        "no configured subnet or ip-range contain the IP address {ip}"
                    ))),
                }
            };
            match result {
                Ok(address) => taken.extend(address),
                Err(error) => {
                    release(pools, taken.iter().map(IpNet::addr));
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    fn release(&self, network: &NetworkId, addresses: impl Iterator<Item = IpAddr>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pools) = pools.get_mut(network) {
            release(pools, addresses);
        }
    }

    /// What this installation's private IPv6 range is made of: stays the same, and is nobody
    /// else's.
    fn seed(&self) -> String {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let ids = index.iter().filter(|((namespace, _), record)| {
            record.builtin && *namespace == Namespace::default()
        });
        ids.map(|(_, record)| record.id.to_string())
            .min()
            .unwrap_or_default()
    }

    /// Called once every living container has its addresses reserved again.
    pub(crate) fn after_recovery(&self, engine: &Engine) {
        let used: usize = self
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .flatten()
            .map(ipam::Pool::used)
            .sum();
        tracing::debug!(
            addresses = used,
            containers = engine.containers.all().len(),
            "addresses in use after recovery"
        );
    }
}

/// The next free address of the first pool that has one; none where there is no pool.
fn next_free(
    record: &NetworkRecord,
    pools: &mut [&mut ipam::Pool],
    version: u8,
) -> Result<Option<IpNet>> {
    if pools.is_empty() {
        return Ok(None);
    }
    pools
        .iter_mut()
        .find_map(|pool| pool.allocate().ok())
        .map(Some)
        .ok_or_else(|| {
            Error::system(format!(
                "no available IPv{version} addresses on this network's address pools: {} ({})",
                record.name, record.id
            ))
        })
}

fn release(pools: &mut [ipam::Pool], addresses: impl Iterator<Item = IpAddr>) {
    for address in addresses {
        for pool in pools
            .iter_mut()
            .filter(|pool| pool.net().contains(&address))
        {
            pool.release(address);
        }
    }
}

/// The three networks that every docker has, with a bridge of this name, or of one made up, and
/// a subnet that is not occupied where none is wanted.
fn builtin(
    settings: &Settings,
    subnet: &str,
    bridge: Option<String>,
    occupied: &[IpNet],
) -> Result<Vec<NetworkRecord>> {
    let subnet = match subnet {
        "" => ipam::choose(&settings.pools_v4(), occupied)?,
        wanted => wanted
            .parse()
            .map_err(|_| Error::invalid(format!("invalid bridge subnet {wanted:?}")))?,
    };
    let complete = ipam::complete(&Subnet {
        net: subnet,
        gateway: None,
        range: None,
    })?;
    let make = |name: &str, driver: &str| NetworkRecord {
        id: NetworkId::random(),
        name: name.into(),
        created: Time::now(),
        driver: driver.into(),
        internal: false,
        attachable: false,
        enable_ipv6: false,
        no_ipv4: false,
        ipam_options: None,
        bridge: String::new(),
        subnets: Vec::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        builtin: true,
        guarded: false,
    };
    let default = make("bridge", "bridge");
    let bridge = bridge.unwrap_or_else(|| format!("kr-{}", default.id.short()));
    let options = [
        ("com.docker.network.bridge.default_bridge", "true"),
        ("com.docker.network.bridge.enable_icc", "true"),
        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
        ("com.docker.network.bridge.name", bridge.as_str()),
        ("com.docker.network.driver.mtu", "1500"),
    ];
    let default = NetworkRecord {
        subnets: vec![subnet_record(&complete)],
        options: options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        bridge,
        ..default
    };
    Ok(vec![default, make("host", "host"), make("none", "null")])
}

fn subnet_record(subnet: &Subnet) -> SubnetRecord {
    SubnetRecord {
        subnet: subnet.net.to_string(),
        gateway: subnet.gateway.map(|ip| ip.to_string()).unwrap_or_default(),
        ip_range: subnet.range.map(|net| net.to_string()).unwrap_or_default(),
        aux: BTreeMap::new(),
    }
}

/// The pools of a network's subnets, with nothing given away yet.
fn pools_of(record: &NetworkRecord, bridge: &Bridge) -> Result<Vec<ipam::Pool>> {
    let mut pools = bridge
        .subnets
        .iter()
        .map(ipam::Pool::new)
        .collect::<Result<Vec<_>>>()?;
    let aux = record.subnets.iter().flat_map(|subnet| &subnet.aux);
    for (name, address) in aux {
        let failed = |why: &dyn std::fmt::Display| {
            Error::system(format!(
                "failed to allocate secondary ip address ({name}:{address}): {why}"
            ))
        };
        let ip: IpAddr = address.parse().map_err(|error| failed(&error))?;
        // None: of a family that the network does not speak.
        if let Some(pool) = pools.iter_mut().find(|pool| pool.net().contains(&ip)) {
            pool.reserve(ip).map_err(|error| failed(&error.message))?;
        }
    }
    Ok(pools)
}

/// A record as the node's network crate wants it.
fn bridge(record: &NetworkRecord) -> Result<Bridge> {
    let options = BridgeOptions::parse(&record.options, record.internal)?;
    let mut subnets = Vec::new();
    for subnet in &record.subnets {
        let mut subnet = parse_subnet(subnet)?;
        let (spoken, mode) = match subnet.net {
            IpNet::V4(_) => (!record.no_ipv4, options.modes[0]),
            IpNet::V6(_) => (record.enable_ipv6, options.modes[1]),
        };
        if mode == GatewayMode::Isolated {
            subnet.gateway = None;
        }
        if spoken {
            subnets.push(subnet);
        }
    }
    let mut bridge = Bridge::new(record.id.clone(), record.bridge.parse()?, subnets);
    bridge.guarded = record.guarded;
    if record.driver == "macvlan" {
        let dummy = format!("dm-{}", record.id.short());
        let macvlan = config::macvlan(&record.options, &dummy)?;
        // Without a wire nothing leads out.
        bridge.internal = record.internal || macvlan.parent.as_str() == dummy;
        bridge.macvlan = Some(macvlan);
        return Ok(bridge);
    }
    bridge.mtu = options.mtu;
    bridge.icc = options.icc;
    bridge.masquerade = options.masquerade;
    bridge.internal = record.internal;
    bridge.unprotected = options.modes.contains(&GatewayMode::Unprotected);
    bridge.binding = options.binding;
    bridge.prefix = options.prefix;
    Ok(bridge)
}

fn parse_subnet(record: &SubnetRecord) -> Result<Subnet> {
    let bad = |what: &str, text: &str| {
        Error::invalid(format!("invalid {what} {text}: invalid CIDR or IP address"))
    };
    let net = record
        .subnet
        .parse()
        .map_err(|_| bad("subnet", &record.subnet))?;
    let gateway = Some(&record.gateway).filter(|text| !text.is_empty());
    let gateway = gateway
        .map(|text| text.parse().map_err(|_| bad("gateway", text)))
        .transpose()?;
    let range = Some(&record.ip_range).filter(|text| !text.is_empty());
    let range = range
        .map(|text| text.parse().map_err(|_| bad("ip-range", text)))
        .transpose()?;
    ipam::complete(&Subnet {
        net,
        gateway,
        range,
    })
}
