//! Making and removing networks.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use ipnet::IpNet;
use network::{Subnet, ipam};
use store::{Guard, Txn};
use types::{
    Error, Filters, NetworkId, NetworkName, Result, Time, container::EndpointSettings,
    record::encode,
};

use super::{bridge, parse_subnet, pools_of, subnet_record};
use crate::{
    Engine, Scope,
    record::{NetworkRecord, SubnetRecord, key},
    request::NetworkCreate,
    view::Pruned,
};

impl Engine {
    /// Makes a bridge network; returns its id and a warning, which may be empty.
    pub async fn network_create(
        &self,
        scope: &Scope,
        request: NetworkCreate,
    ) -> Result<(NetworkId, String)> {
        let name: NetworkName = request.name.parse()?;
        let driver = if request.driver.is_empty() {
            "bridge"
        } else {
            request.driver.as_str()
        };
        if matches!(name.as_str(), "bridge" | "host" | "none" | "default") {
            return Err(Error::forbidden(format!(
                "operation is not permitted on predefined {name} network"
            )));
        }
        match driver {
            "bridge" => {}
            "host" | "null" => {
                return Err(Error::forbidden(format!(
                    "only one instance of \"{driver}\" network is allowed"
                )));
            }
            other => {
                return Err(Error::not_found(format!(
                    "could not find plugin {other} in v1 plugin registry: plugin not found: this kraud has the network driver bridge"
                )));
            }
        }
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
        let record = self.new_network(&name, request).await?;
        let made = bridge(&record)?;
        let pools = pools_of(&record, &made)?;
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
            ("type".to_owned(), "bridge".to_owned()),
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
        request: NetworkCreate,
    ) -> Result<NetworkRecord> {
        let id = NetworkId::random();
        let used: Vec<IpNet> = {
            let pools = self
                .networks
                .pools
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            pools.values().flatten().map(ipam::Pool::net).collect()
        };
        let mut subnets = Vec::new();
        for wanted in &request.subnets {
            let subnet = parse_subnet(wanted)?;
            if wanted
                .subnet
                .parse::<IpNet>()
                .is_ok_and(|net| net.trunc() != net)
            {
                return Err(Error::invalid(format!(
                    "invalid network config:\ninvalid subnet {}: it should be {}",
                    wanted.subnet, subnet.net
                )));
            }
            if used.iter().any(|other| ipam::overlap(other, &subnet.net)) {
                return Err(Error::forbidden(
                    "invalid pool request: Pool overlaps with other one on this address space",
                ));
            }
            subnets.push(SubnetRecord {
                aux: wanted.aux.clone(),
                ..subnet_record(&subnet)
            });
        }
        if !subnets.iter().any(|subnet| subnet.subnet.contains('.')) {
            let mut occupied = self.agent.network_occupied().await?;
            occupied.extend(used);
            let net = ipam::choose(&ipam::default_pools(), &occupied)?;
            subnets.insert(
                0,
                subnet_record(&ipam::complete(&Subnet {
                    net,
                    gateway: None,
                    range: None,
                })?),
            );
        }
        let bridge = request
            .options
            .get("com.docker.network.bridge.name")
            .cloned();
        Ok(NetworkRecord {
            bridge: bridge.unwrap_or_else(|| format!("kr-{}", id.short())),
            id,
            name: name.to_string(),
            created: Time::now(),
            driver: "bridge".into(),
            internal: request.internal,
            attachable: request.attachable,
            enable_ipv6: request.enable_ipv6,
            subnets,
            options: request.options,
            labels: request.labels,
            builtin: false,
        })
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
        if self.network_in_use(&scope.namespace, &record) {
            return Err(Error::forbidden(format!(
                "error while removing network: network {} has active endpoints",
                record.name
            )));
        }
        self.agent.network_remove(&bridge(&record)?).await?;
        self.store
            .commit(Txn::new().delete(key::network(&scope.namespace, &record.id)))
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
            .remove(&(scope.namespace.clone(), record.id.clone()));
        let attributes = BTreeMap::from([
            ("name".to_owned(), record.name.clone()),
            ("type".to_owned(), "bridge".to_owned()),
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
            return Err(Error::forbidden(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        if network.driver != "bridge" {
            return Err(Error::forbidden(format!(
                "container cannot be connected to {0} network - container must be created in {0} mode",
                network.name
            )));
        }
        if record.endpoints.contains_key(&network.name) {
            return Err(Error::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                record.name, network.name
            )));
        }
        if container.is_running() {
            let one = self.connect_one(&container, &record, &network.name, &wanted, None)?;
            if let Err(error) = self.agent.network_join(&container.id, &one.plan).await {
                self.networks
                    .release(&network.id, one.plan.addresses.iter().map(IpNet::addr));
                return Err(error);
            }
            self.observe(&container, |observed| {
                observed
                    .endpoints
                    .insert(one.name.clone(), one.settings.clone());
            });
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
            return Err(Error::forbidden(format!(
                "container {} is not connected to network {}",
                container.id, network.name
            )));
        }
        if network.driver != "bridge" {
            return Err(Error::forbidden(format!(
                "container cannot be disconnected from {} network - container can only be connected to it when it is created",
                network.name
            )));
        }
        if container.is_running() {
            self.agent.network_leave(&container.id, &network.id).await?;
            let mut left = None;
            self.observe(&container, |observed| {
                left = observed.endpoints.remove(&network.name)
            });
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
