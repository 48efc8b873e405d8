//! Networks and who is on them: names, addresses, endpoints.

mod manage;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use agent::{EndpointPlan, NodeAgent};
use ipnet::IpNet;
use network::{Bridge, Mac, Subnet, ipam};
use store::{Store, Txn};
use types::{
    Error, Filters, Namespace, NetworkId, Result, Time, container::EndpointSettings, record::encode,
};

use crate::{
    Engine, Scope, Settings,
    containers::Container,
    record::{ContainerRecord, NetworkRecord, SubnetRecord, key},
    view::{NetworkMember, NetworkView, SubnetView},
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
            for record in builtin(settings, agent).await? {
                store
                    .commit(Txn::new().put(key::network(&namespace, &record.id), encode(&record)?))
                    .await?;
                index.insert((namespace.clone(), record.id.clone()), Arc::new(record));
            }
        }
        let mut pools = HashMap::new();
        for record in index.values().filter(|record| record.driver == "bridge") {
            let bridge = bridge(record)?;
            agent.network_ensure(&bridge).await?;
            pools.insert(record.id.clone(), pools_of(record, &bridge)?);
        }
        Ok(Self {
            index: RwLock::new(index),
            pools: Mutex::new(pools),
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
            let family = |pool: &&mut ipam::Pool| pool.net().addr().is_ipv4() == is_v4;
            let result = if text.is_empty() {
                pools
                    .iter_mut()
                    .find(family)
                    .map(ipam::Pool::allocate)
                    .transpose()
            } else {
                let ip: IpAddr = text
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
                match pools
                    .iter_mut()
                    .filter(family)
                    .find(|pool| pool.net().contains(&ip))
                {
                    Some(pool) => pool.reserve(ip).map(Some),
                    None => Err(Error::invalid(
                        "no configured subnet or ip-range contain the IP address",
                    )),
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

/// The three networks that every docker has.
async fn builtin(settings: &Settings, agent: &dyn NodeAgent) -> Result<Vec<NetworkRecord>> {
    let subnet = if settings.bridge_subnet.is_empty() {
        ipam::choose(&ipam::default_pools(), &agent.network_occupied().await?)?
    } else {
        settings.bridge_subnet.parse().map_err(|_| {
            Error::invalid(format!(
                "invalid bridge subnet {:?}",
                settings.bridge_subnet
            ))
        })?
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
        bridge: String::new(),
        subnets: Vec::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        builtin: true,
    };
    let options = [
        ("com.docker.network.bridge.default_bridge", "true"),
        ("com.docker.network.bridge.enable_icc", "true"),
        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
        ("com.docker.network.bridge.name", settings.bridge.as_str()),
        ("com.docker.network.driver.mtu", "1500"),
    ];
    let default = NetworkRecord {
        bridge: settings.bridge.clone(),
        subnets: vec![subnet_record(&complete)],
        options: options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..make("bridge", "bridge")
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
    for address in record.subnets.iter().flat_map(|subnet| subnet.aux.values()) {
        let ip: IpAddr = address
            .parse()
            .map_err(|_| Error::invalid(format!("invalid aux address: {address}")))?;
        pools
            .iter_mut()
            .find(|pool| pool.net().contains(&ip))
            .ok_or_else(|| Error::invalid(format!("no matching subnet for aux-address {address}")))?
            .reserve(ip)?;
    }
    Ok(pools)
}

/// A record as the node's network crate wants it.
fn bridge(record: &NetworkRecord) -> Result<Bridge> {
    let subnets = record
        .subnets
        .iter()
        .map(parse_subnet)
        .collect::<Result<_>>()?;
    let mut bridge = Bridge::new(record.id.clone(), record.bridge.parse()?, subnets);
    let option = |name: &str| record.options.get(name).map(String::as_str);
    bridge.mtu = option("com.docker.network.driver.mtu").and_then(|text| text.parse().ok());
    bridge.icc = option("com.docker.network.bridge.enable_icc") != Some("false");
    bridge.masquerade = option("com.docker.network.bridge.enable_ip_masquerade") != Some("false");
    bridge.internal = record.internal;
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

/// An endpoint as inspect shows it.
fn shown(
    record: &NetworkRecord,
    wanted: &EndpointSettings,
    plan: &EndpointPlan,
) -> EndpointSettings {
    let mut settings = EndpointSettings {
        network_id: record.id.to_string(),
        endpoint_id: plan.id.clone(),
        mac_address: plan.mac.to_string(),
        ..wanted.clone()
    };
    for address in &plan.addresses {
        let subnet = plan
            .network
            .subnets
            .iter()
            .find(|subnet| subnet.net.contains(&address.addr()));
        let gateway = subnet
            .and_then(|subnet| subnet.gateway)
            .map(|ip| ip.to_string())
            .unwrap_or_default();
        if address.addr().is_ipv4() {
            settings.ip_address = address.addr().to_string();
            settings.ip_prefix_len = address.prefix_len();
            settings.gateway = gateway;
        } else {
            settings.global_ipv6_address = address.addr().to_string();
            settings.global_ipv6_prefix_len = address.prefix_len();
            settings.ipv6_gateway = gateway;
        }
    }
    settings
}

impl Engine {
    /// Gives a container its addresses on all its networks. Undone by [`Engine::disconnect`].
    pub(crate) fn connect(
        &self,
        container: &Container,
        record: &ContainerRecord,
    ) -> Result<Vec<Allocated>> {
        let mut allocated = Vec::new();
        if record.shares_network() {
            return Ok(allocated);
        }
        let mode = record.host.network_mode.as_str();
        let mut networks: Vec<_> = record.endpoints.iter().collect();
        // The network that the container was made for leads out; it is the first interface.
        networks.sort_by_key(|(name, _)| name.as_str() != mode);
        for (number, (name, wanted)) in networks.into_iter().enumerate() {
            let result = self.connect_one(container, record, name, wanted, Some(number));
            match result {
                Ok(one) => allocated.push(one),
                Err(error) => {
                    for one in &allocated {
                        self.networks.release(
                            &one.plan.network.id,
                            one.plan.addresses.iter().map(IpNet::addr),
                        );
                    }
                    return Err(error);
                }
            }
        }
        // Kept at once, so that whatever fails from here on is given back.
        container.observed.send_modify(|observed| {
            observed.endpoints = allocated
                .iter()
                .map(|one| (one.name.clone(), one.settings.clone()))
                .collect();
        });
        Ok(allocated)
    }

    fn connect_one(
        &self,
        container: &Container,
        record: &ContainerRecord,
        name: &str,
        wanted: &EndpointSettings,
        number: Option<usize>,
    ) -> Result<Allocated> {
        let network = self.networks.find(&container.namespace, name)?;
        if network.driver != "bridge" {
            return Err(Error::invalid(format!(
                "container cannot be connected to {} network {name} together with others",
                network.driver
            )));
        }
        let mac_text = if wanted.mac_address.is_empty() {
            &record.config.mac_address
        } else {
            &wanted.mac_address
        };
        let mac = if mac_text.is_empty() {
            None
        } else {
            Some(mac_text.parse::<Mac>()?)
        };
        let addresses = self.networks.allocate(&network, wanted)?;
        let mac = mac.unwrap_or_else(|| match addresses.first().map(IpNet::addr) {
            Some(IpAddr::V4(ip)) => Mac::of_v4(ip),
            Some(IpAddr::V6(ip)) => Mac::of_v6(ip),
            None => Mac([2, 0x42, 0, 0, 0, 1]),
        });
        let plan = EndpointPlan {
            id: types::id::random_hex(),
            name: network.name.clone(),
            network: bridge(&network)?,
            addresses,
            mac,
            interface: number
                .map(|number| format!("eth{number}"))
                .unwrap_or_default(),
            is_default: number == Some(0),
        };
        let settings = shown(&network, wanted, &plan);
        Ok(Allocated {
            name: network.name.clone(),
            plan,
            settings,
        })
    }

    /// Gives back a container's addresses.
    pub(crate) fn disconnect(&self, container: &Container) {
        let endpoints = container.observed.borrow().endpoints.clone();
        for (name, endpoint) in &endpoints {
            let Ok(id) = endpoint.network_id.parse::<NetworkId>() else {
                continue;
            };
            let addresses = [&endpoint.ip_address, &endpoint.global_ipv6_address];
            self.networks.release(
                &id,
                addresses.into_iter().filter_map(|text| text.parse().ok()),
            );
            if container.is_running() {
                self.emit_network_event(container, "disconnect", name, id.as_str());
            }
        }
        container
            .observed
            .send_modify(|observed| observed.endpoints.clear());
    }

    /// Marks the addresses of a container that was found running as taken.
    pub(crate) fn reserve(&self, container: &Container, endpoints: &[EndpointPlan]) {
        let mut pools = self
            .networks
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for endpoint in endpoints {
            for address in &endpoint.addresses {
                let pool = pools
                    .get_mut(&endpoint.network.id)
                    .into_iter()
                    .flatten()
                    .find(|pool| pool.net().contains(&address.addr()));
                if let Some(Err(error)) = pool.map(|pool| pool.reserve(address.addr())) {
                    tracing::warn!(id = %container.id, %address, %error, "a running container's address could not be reserved again");
                }
            }
        }
    }

    /// Endpoints as inspect shows them, rebuilt from how a container was started.
    pub(crate) fn settings_of(
        &self,
        container: &Container,
        endpoints: &[EndpointPlan],
    ) -> BTreeMap<String, EndpointSettings> {
        let record = container.record();
        let mut all = BTreeMap::new();
        for plan in endpoints {
            let Ok(network) = self.networks.find(&container.namespace, &plan.name) else {
                continue;
            };
            let wanted = record
                .endpoints
                .get(&plan.name)
                .cloned()
                .unwrap_or_default();
            all.insert(plan.name.clone(), shown(&network, &wanted, plan));
        }
        all
    }

    pub(crate) fn network_event(&self, container: &Container, action: &str, endpoint: &Allocated) {
        self.emit_network_event(
            container,
            action,
            &endpoint.name,
            endpoint.plan.network.id.as_str(),
        );
    }

    fn emit_network_event(&self, container: &Container, action: &str, name: &str, id: &str) {
        let attributes = [
            ("container", container.id.as_str()),
            ("name", name),
            ("type", "bridge"),
        ];
        let attributes = attributes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        self.events
            .publish(&container.namespace, "network", action, id, attributes);
    }

    fn network_view(&self, namespace: &Namespace, record: &NetworkRecord) -> NetworkView {
        let mut containers = BTreeMap::new();
        for container in self.containers.of(namespace) {
            let observed = container.observed.borrow();
            let endpoint = observed
                .endpoints
                .get(&record.name)
                .filter(|_| observed.state.is_running());
            let Some(endpoint) = endpoint else { continue };
            let with_prefix = |address: &str, prefix: u8| {
                if address.is_empty() {
                    String::new()
                } else {
                    format!("{address}/{prefix}")
                }
            };
            let member = NetworkMember {
                name: container.record().name.to_string(),
                endpoint_id: endpoint.endpoint_id.clone(),
                mac_address: endpoint.mac_address.clone(),
                ipv4_address: with_prefix(&endpoint.ip_address, endpoint.ip_prefix_len),
                ipv6_address: with_prefix(
                    &endpoint.global_ipv6_address,
                    endpoint.global_ipv6_prefix_len,
                ),
            };
            containers.insert(container.id.clone(), member);
        }
        NetworkView {
            id: record.id.clone(),
            name: record.name.clone(),
            created: record.created,
            driver: record.driver.clone(),
            internal: record.internal,
            enable_ipv6: record.enable_ipv6,
            attachable: record.attachable,
            subnets: record
                .subnets
                .iter()
                .map(|subnet| SubnetView {
                    subnet: subnet.subnet.clone(),
                    gateway: subnet.gateway.clone(),
                    ip_range: subnet.ip_range.clone(),
                    aux: subnet.aux.clone(),
                })
                .collect(),
            options: record.options.clone(),
            labels: record.labels.clone(),
            containers,
        }
    }

    /// A network.
    pub fn network_inspect(&self, scope: &Scope, name: &str) -> Result<NetworkView> {
        let record = self.networks.find(&scope.namespace, name)?;
        Ok(self.network_view(&scope.namespace, &record))
    }

    /// Networks of the namespace, oldest first.
    pub fn network_list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<NetworkView>> {
        filters.only(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = filters.boolean("dangling")?;
        for kind in filters.values("type") {
            if !matches!(kind.as_str(), "builtin" | "custom") {
                return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
            }
        }
        let passes = |record: &NetworkRecord| {
            filters.any("name", |part| record.name.contains(part))
                && filters.any("id", |part| record.id.as_str().contains(part))
                && filters.any("driver", |driver| record.driver == driver)
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |kind| (kind == "builtin") == record.builtin)
                && filters.labels("label", |label| {
                    record.labels.get(label).map(String::as_str)
                })
                && dangling.is_none_or(|dangling| {
                    dangling == (!record.builtin && !self.network_in_use(&scope.namespace, record))
                })
        };
        let records = self.networks.of(&scope.namespace);
        Ok(records
            .iter()
            .filter(|record| passes(record))
            .map(|record| self.network_view(&scope.namespace, record))
            .collect())
    }

    fn network_in_use(&self, namespace: &Namespace, record: &NetworkRecord) -> bool {
        self.containers.of(namespace).iter().any(|container| {
            container.is_running()
                && container
                    .observed
                    .borrow()
                    .endpoints
                    .contains_key(&record.name)
        })
    }
}
