//! Making and removing networks.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use ipnet::IpNet;
use network::{MacvlanMode, Subnet, ipam};
use store::{Guard, Txn};
use types::{
    Error, Filters, Namespace, NetworkId, NetworkName, Result, Time, container::EndpointSettings,
    record::encode,
};

use super::{
    bridge,
    config::{self, ENABLE_V4, ENABLE_V6},
    parse_subnet, pools_of, subnet_record,
};
use crate::{
    Engine, Scope,
    record::{NetworkRecord, SubnetRecord, key},
    request::NetworkCreate,
    tenants::policy,
    view::Pruned,
};

/// A choice of a create: the field of the request, else a driver option, else the default.
fn choice(
    field: Option<bool>,
    options: &mut BTreeMap<String, String>,
    name: &str,
    default: bool,
) -> Result<bool> {
    match (field, options.get(name)) {
        (Some(said), _) => {
            options.remove(name);
            Ok(said)
        }
        (None, Some(text)) => config::boolean(text)
            .ok_or_else(|| Error::invalid(format!("driver-opt {name:?} is not a valid bool"))),
        (None, None) => Ok(default),
    }
}

/// A gateway must be an address that a host can have.
fn check_gateway(subnet: &Subnet) -> Result<()> {
    let net = subnet.net;
    let small = net.max_prefix_len() - net.prefix_len() < 2;
    let taken =
        |ip: std::net::IpAddr| ip == net.network() || (ip.is_ipv4() && ip == net.broadcast());
    match subnet.gateway {
        Some(ip) if !small && taken(ip) => Err(Error::system(format!(
            "failed to allocate gateway ({ip}): Address already in use"
        ))),
        _ => Ok(()),
    }
}

impl Engine {
    /// Makes a network; returns its id and a warning, which may be empty.
    pub async fn network_create(
        &self,
        scope: &Scope,
        request: NetworkCreate,
    ) -> Result<(NetworkId, String)> {
        let name: NetworkName = request.name.parse()?;
        let driver = match request.driver.as_str() {
            "" => "bridge".to_owned(),
            other => other.to_owned(),
        };
        let driver = driver.as_str();
        if matches!(name.as_str(), "bridge" | "host" | "none" | "default") {
            return Err(Error::forbidden(format!(
                "operation is not permitted on predefined {name} network "
            )));
        }
        match driver {
            "bridge" | "macvlan" => {}
            "host" | "null" => {
                return Err(Error::forbidden(format!(
                    "only one instance of \"{driver}\" network is allowed"
                )));
            }
            "overlay" => {
                return Err(Error::forbidden(
                    "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
                ));
            }
            other => {
                return Err(Error::not_found(format!(
                    "could not find plugin {other} in v1 plugin registry: plugin not found: this kraud has the network drivers bridge and macvlan"
                )));
            }
        }
        if scope.is_tenant() {
            let occupied = self.agent.network_occupied().await?;
            policy::network(scope, &request, &occupied)?;
        }
        // One at a time: two must not take the same name, subnet or bridge.
        let _alone = self.networks.creating.lock().await;
        if self
            .networks
            .of(&scope.namespace)
            .iter()
            .any(|record| record.name == name.as_str())
        {
            return Err(Error::conflict(format!(
                "network with name {name} already exists"
            )));
        }
        let mut record = self.new_network(&name, driver, request).await?;
        record.guarded = scope.is_tenant();
        let made = bridge(&record)?;
        let pools = pools_of(&record, &made)?;
        self.check_conflicts(&record, &made)?;
        self.agent.network_ensure(&made).await?;
        let key = key::network(&scope.namespace, &record.id);
        if let Err(error) = self
            .store
            .commit(
                Txn::new()
                    .when(Guard::Absent(key.clone()))
                    .put(key, encode(&record)?),
            )
            .await
        {
            let _ = self.agent.network_remove(&made).await;
            return Err(error.into());
        }
        self.networks
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.id.clone(), pools);
        let id = record.id.clone();
        let attributes = BTreeMap::from([
            ("name".to_owned(), record.name.clone()),
            ("type".to_owned(), record.driver.clone()),
        ]);
        self.networks
            .index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((scope.namespace.clone(), id.clone()), Arc::new(record));
        self.events.publish(
            &scope.namespace,
            "network",
            "create",
            id.as_str(),
            attributes,
        );
        Ok((id, String::new()))
    }

    async fn new_network(
        &self,
        name: &NetworkName,
        driver: &str,
        mut request: NetworkCreate,
    ) -> Result<NetworkRecord> {
        let id = NetworkId::random();
        let v4 = choice(request.enable_ipv4, &mut request.options, ENABLE_V4, true)?;
        let v6 = choice(request.enable_ipv6, &mut request.options, ENABLE_V6, false)?;
        config::check_subnets(&request.subnets, v6)?;
        if !v4 && !v6 {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
        }
        let bridge = match driver {
            "bridge" => {
                let wanted = request.options.get(config::BRIDGE_NAME);
                let wanted = wanted.filter(|name| !name.is_empty()).cloned();
                wanted.unwrap_or_else(|| format!("kr-{}", id.short()))
            }
            // Only a key: there is no bridge.
            _ => format!("kr-{}", id.short()),
        };
        let mut record = NetworkRecord {
            bridge,
            id,
            name: name.to_string(),
            created: Time::now(),
            driver: driver.to_owned(),
            internal: request.internal,
            attachable: request.attachable,
            enable_ipv6: v6,
            no_ipv4: !v4,
            ipam_options: request.ipam_options,
            subnets: Vec::new(),
            options: request.options,
            labels: request.labels,
            builtin: false,
            guarded: false,
        };
        // Before subnets are looked for: what is wrong with the options comes first.
        super::bridge(&record)?;
        record.subnets = self.new_subnets(&record, &request.subnets).await?;
        Ok(record)
    }

    /// The subnets of a new network: those asked for, and one for each family that has none.
    async fn new_subnets(
        &self,
        record: &NetworkRecord,
        wanted: &[SubnetRecord],
    ) -> Result<Vec<SubnetRecord>> {
        let mut used = self.networks.nets();
        let spoken = |net: &IpNet| match net {
            IpNet::V4(_) => !record.no_ipv4,
            IpNet::V6(_) => record.enable_ipv6,
        };
        let mut subnets = Vec::new();
        let (mut has_v4, mut has_v6) = (false, false);
        for wanted in wanted {
            let subnet = parse_subnet(wanted)?;
            if !spoken(&subnet.net) {
                subnets.push(wanted.clone());
                continue;
            }
            if used.iter().any(|other| ipam::overlap(other, &subnet.net)) {
                return Err(Error::forbidden(
                    "invalid pool request: Pool overlaps with other one on this address space",
                ));
            }
            check_gateway(&subnet)?;
            used.push(subnet.net);
            match subnet.net {
                IpNet::V4(_) => has_v4 = true,
                IpNet::V6(_) => has_v6 = true,
            }
            subnets.push(SubnetRecord {
                aux: wanted.aux.clone(),
                ..subnet_record(&subnet)
            });
        }
        if (!record.no_ipv4 && !has_v4) || (record.enable_ipv6 && !has_v6) {
            used.extend(self.agent.network_occupied().await?);
        }
        let fresh = |net| {
            ipam::complete(&Subnet {
                net,
                gateway: None,
                range: None,
            })
        };
        if !record.no_ipv4 && !has_v4 {
            let net = ipam::choose(&self.settings.pools_v4(), &used)?;
            subnets.insert(0, subnet_record(&fresh(net)?));
        }
        if record.enable_ipv6 && !has_v6 {
            let net = ipam::choose(&self.settings.pools_v6(&self.networks.seed()), &used)?;
            subnets.push(subnet_record(&fresh(net)?));
        }
        Ok(subnets)
    }

    /// Refuses what another network has already: a bridge, or the whole of an interface.
    fn check_conflicts(&self, record: &NetworkRecord, made: &network::Bridge) -> Result<()> {
        let others: Vec<_> = {
            let index = self
                .networks
                .index
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            index.values().cloned().collect()
        };
        for other in others.iter().filter(|other| other.has_addresses()) {
            if other.bridge == record.bridge {
                return Err(Error::forbidden(format!(
                    "cannot create network {} ({}): conflicts with network {} ({}): networks have same bridge name",
                    record.id, record.bridge, other.id, other.bridge
                )));
            }
            let known = bridge(other).ok().and_then(|bridge| bridge.macvlan);
            let (Some(mine), Some(known)) = (&made.macvlan, known) else {
                continue;
            };
            if mine.parent != known.parent {
                continue;
            }
            if mine.mode == MacvlanMode::Passthru {
                return Err(Error::system(format!(
                    "cannot use mode passthru, macvlan network {} is already using parent interface {}",
                    other.id, mine.parent
                )));
            }
            if known.mode == MacvlanMode::Passthru {
                return Err(Error::system(format!(
                    "macvlan network {} is already using parent interface {} in mode passthru",
                    other.id, mine.parent
                )));
            }
        }
        Ok(())
    }

    /// The endpoints that keep a network from being removed, as docker lists them.
    fn active_endpoints(&self, namespace: &Namespace, record: &NetworkRecord) -> Vec<String> {
        let mut list = Vec::new();
        for container in self.containers.of(namespace) {
            let observed = container.observed.borrow();
            let endpoint = observed.endpoints.get(&record.name);
            if let Some(endpoint) = endpoint.filter(|_| observed.state.is_running()) {
                let id: String = endpoint.endpoint_id.chars().take(12).collect();
                list.push(format!(
                    "name:{:?} id:{id:?}",
                    container.record().name.as_str()
                ));
            }
        }
        list.sort();
        list
    }

    /// Removes a network that no running container is on.
    pub async fn network_remove(&self, scope: &Scope, name: &str) -> Result<()> {
        let record = self.networks.find(&scope.namespace, name)?;
        if record.builtin {
            return Err(Error::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                record.name
            )));
        }
        let active = self.active_endpoints(&scope.namespace, &record);
        if !active.is_empty() {
            return Err(Error::forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                record.name,
                active.join(", ")
            )));
        }
        self.drop_network(&scope.namespace, &record).await?;
        let attributes = BTreeMap::from([
            ("name".to_owned(), record.name.clone()),
            ("type".to_owned(), record.driver.clone()),
        ]);
        self.events.publish(
            &scope.namespace,
            "network",
            "destroy",
            record.id.as_str(),
            attributes,
        );
        Ok(())
    }

    /// Takes a network that nobody is on away, on the node and from the records.
    async fn drop_network(&self, namespace: &Namespace, record: &NetworkRecord) -> Result<()> {
        if record.has_addresses() {
            self.agent.network_remove(&bridge(record)?).await?;
        }
        self.store
            .commit(Txn::new().delete(key::network(namespace, &record.id)))
            .await?;
        self.networks
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&record.id);
        self.networks
            .index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(namespace.clone(), record.id.clone()));
        Ok(())
    }

    /// Makes the networks that every docker has for a tenant. Those that are there stay.
    pub(crate) async fn tenant_networks(&self, namespace: &Namespace) -> Result<()> {
        let _alone = self.networks.creating.lock().await;
        let there = self.networks.of(namespace);
        if there.iter().any(|record| record.builtin) {
            return Ok(());
        }
        let mut occupied = self.agent.network_occupied().await?;
        occupied.extend(self.networks.nets());
        let mut made = super::builtin(&self.settings, "", None, &occupied)?;
        for record in &mut made {
            record.guarded = true;
        }
        let mut txn = Txn::new();
        for record in &made {
            txn = txn.put(key::network(namespace, &record.id), encode(record)?);
        }
        let mut ensured = Vec::new();
        for record in made.iter().filter(|record| record.has_addresses()) {
            let bridge = bridge(record)?;
            self.agent.network_ensure(&bridge).await?;
            ensured.push((record.id.clone(), pools_of(record, &bridge)?, bridge));
        }
        if let Err(error) = self.store.commit(txn).await {
            for (_, _, bridge) in &ensured {
                let _ = self.agent.network_remove(bridge).await;
            }
            return Err(error.into());
        }
        let mut pools = self
            .networks
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pools.extend(ensured.into_iter().map(|(id, nets, _)| (id, nets)));
        drop(pools);
        let mut index = self
            .networks
            .index
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        index.extend(
            made.into_iter()
                .map(|record| ((namespace.clone(), record.id.clone()), Arc::new(record))),
        );
        Ok(())
    }

    /// Takes all networks of a tenant away that has no containers any more.
    pub(crate) async fn drop_networks(&self, namespace: &Namespace) -> Result<()> {
        for record in self.networks.of(namespace) {
            self.drop_network(namespace, &record).await?;
        }
        Ok(())
    }

    /// Removes the networks that users made and no running container is on.
    pub async fn network_prune(&self, scope: &Scope, filters: &Filters) -> Result<Pruned> {
        filters.only(&["label", "label!", "until"])?;
        let until = crate::system::until(filters)?;
        let mut pruned = Pruned::default();
        for record in self.networks.of(&scope.namespace) {
            let wanted = !record.builtin
                && until.is_none_or(|until| record.created < until)
                && crate::system::labels_pass(filters, |label| {
                    record.labels.get(label).map(String::as_str)
                })
                && !self.network_in_use(&scope.namespace, &record);
            if wanted && self.network_remove(scope, record.id.as_str()).await.is_ok() {
                pruned.deleted.push(record.name.clone());
            }
        }
        self.prune_event(scope, "network", 0);
        Ok(pruned)
    }

    /// Connects a container to one more network, at once if it runs.
    pub async fn network_connect(
        &self,
        scope: &Scope,
        network: &str,
        container: &str,
        wanted: EndpointSettings,
    ) -> Result<()> {
        let network = self.networks.find(&scope.namespace, network)?;
        let container = self.container(scope, container)?;
        let _op = container.op.lock().await;
        let record = container.record();
        if record.shares_network() {
            return Err(Error::invalid(match record.host.network_mode.as_str() {
                "none" => config::PRIVATE,
                _ => {
                    "container sharing network namespace with another container or host cannot be connected to any other network"
                }
            }));
        }
        config::must_have_addresses(&network)?;
        config::check_endpoint(&network, &wanted)?;
        if record.endpoints.contains_key(&network.name) {
            return Err(Error::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                record.name, network.name
            )));
        }
        if container.is_running() {
            let one = self.connect_one(&container, &record, &network.name, &wanted)?;
            let ports = match self.agent.network_join(&container.id, &one.plan).await {
                Ok(ports) => ports,
                Err(error) => {
                    self.networks
                        .release(&network.id, one.plan.addresses.iter().map(IpNet::addr));
                    return Err(error);
                }
            };
            self.observe(&container, |observed| {
                observed.ports = ports;
                observed
                    .endpoints
                    .insert(one.name.clone(), one.settings.clone());
            });
            self.publish_names(&container.namespace, vec![network.name.clone()])
                .await;
            self.network_event(&container, "connect", &one);
        }
        self.desire(&container, |record| {
            record.endpoints.insert(network.name.clone(), wanted);
        })
        .await
    }

    /// Takes a container off a network, at once if it runs.
    pub async fn network_disconnect(
        &self,
        scope: &Scope,
        network: &str,
        container: &str,
    ) -> Result<()> {
        let network = self.networks.find(&scope.namespace, network)?;
        let container = self.container(scope, container)?;
        let _op = container.op.lock().await;
        if !container.record().endpoints.contains_key(&network.name) {
            return Err(Error::system(format!(
                "container {} is not connected to network {}",
                container.id, network.name
            )));
        }
        if network.driver == "host" {
            return Err(Error::invalid(format!(
                "container cannot be disconnected from {} network - container can only be connected to it when it is created",
                network.name
            )));
        }
        if container.is_running() {
            let ports = self.agent.network_leave(&container.id, &network.id).await?;
            let mut left = None;
            self.observe(&container, |observed| {
                observed.ports = ports;
                left = observed.endpoints.remove(&network.name)
            });
            self.publish_names(&container.namespace, vec![network.name.clone()])
                .await;
            if let Some(endpoint) = left {
                let addresses = [endpoint.ip_address, endpoint.global_ipv6_address];
                self.networks.release(
                    &network.id,
                    addresses.iter().filter_map(|text| text.parse().ok()),
                );
                self.emit_network_event(
                    &container,
                    "disconnect",
                    &network.name,
                    network.id.as_str(),
                );
            }
        }
        self.desire(&container, |record| {
            record.endpoints.remove(&network.name);
        })
        .await
    }
}
