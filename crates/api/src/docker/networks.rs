//! `/networks`.

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use engine::{record::SubnetRecord, request::NetworkCreate};
use serde::Deserialize;
use types::{Error, Result, container::EndpointSettings};

use super::{
    call, convert,
    router::Call,
    wire::network::{Network, NetworkCreated, NetworksPruned},
};

/// `GET /networks`
pub(super) async fn list(call: Call) -> Result<Response> {
    let networks = call
        .state
        .network_list(&call.scope(), &call.query.filters()?)?;
    let networks: Vec<Network> = networks
        .iter()
        .map(|network| {
            let mut network = convert::network(network);
            if call.since(28) {
                // Only inspect tells who is connected.
                network.containers.clear();
            }
            network
        })
        .collect();
    call::json(&networks)
}

/// `GET /networks/{id}`
pub(super) async fn inspect(call: Call) -> Result<Response> {
    call::json(&convert::network(
        &call.state.network_inspect(&call.scope(), &call.name)?,
    ))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    name: String,
    driver: String,
    scope: String,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: IpamBody,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IpamBody {
    driver: String,
    options: Option<BTreeMap<String, String>>,
    config: Vec<IpamConfigBody>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IpamConfigBody {
    subnet: String,
    #[serde(rename = "IPRange")]
    ip_range: String,
    gateway: String,
    auxiliary_addresses: BTreeMap<String, String>,
}

impl CreateBody {
    fn into_request(self) -> Result<NetworkCreate> {
        if self.ingress || self.scope == "swarm" {
            return Err(Error::unavailable(
                "swarm networks need a swarm: this node is not part of a swarm",
            ));
        }
        if self.config_only {
            return Err(Error::not_implemented(format!(
                "network {}: configuration-only networks are not done yet",
                self.name
            )));
        }
        if !matches!(self.ipam.driver.as_str(), "" | "default") {
            return Err(Error::not_found(format!(
                "could not find IPAM driver {:?}: this kraud has the driver default",
                self.ipam.driver
            )));
        }
        let subnets = self
            .ipam
            .config
            .into_iter()
            .map(|config| SubnetRecord {
                subnet: config.subnet,
                gateway: config.gateway,
                ip_range: config.ip_range,
                aux: config.auxiliary_addresses,
            })
            .collect();
        Ok(NetworkCreate {
            name: self.name,
            driver: self.driver,
            internal: self.internal,
            attachable: self.attachable,
            enable_ipv4: self.enable_ipv4,
            enable_ipv6: self.enable_ipv6,
            ipam_options: self.ipam.options,
            subnets,
            options: self.options,
            labels: self.labels,
        })
    }
}

/// `POST /networks/create`
pub(super) async fn create(mut call: Call) -> Result<Response> {
    let body: CreateBody = call.json().await?;
    let (id, warning) = call
        .state
        .network_create(&call.scope(), body.into_request()?)
        .await?;
    call::json_with(
        StatusCode::CREATED,
        &NetworkCreated {
            id: id.to_string(),
            warning,
        },
    )
}

/// `DELETE /networks/{id}`
pub(super) async fn remove(call: Call) -> Result<Response> {
    call.state.network_remove(&call.scope(), &call.name).await?;
    call::empty(StatusCode::NO_CONTENT)
}

/// `POST /networks/prune`
pub(super) async fn prune(call: Call) -> Result<Response> {
    let pruned = call
        .state
        .network_prune(&call.scope(), &call.query.filters()?)
        .await?;
    call::json(&NetworksPruned {
        networks_deleted: Some(pruned.deleted).filter(|names| !names.is_empty()),
    })
}

/// `NetworkConnectRequest`
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectBody {
    container: String,
    endpoint_config: EndpointSettings,
}

/// `NetworkDisconnectRequest`
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DisconnectBody {
    container: String,
}

/// `POST /networks/{id}/connect`
pub(super) async fn connect(mut call: Call) -> Result<Response> {
    let body: ConnectBody = call.json().await?;
    call.state
        .network_connect(
            &call.scope(),
            &call.name,
            &body.container,
            body.endpoint_config,
        )
        .await?;
    call::empty(StatusCode::OK)
}

/// `POST /networks/{id}/disconnect`
pub(super) async fn disconnect(mut call: Call) -> Result<Response> {
    let body: DisconnectBody = call.json().await?;
    call.state
        .network_disconnect(&call.scope(), &call.name, &body.container)
        .await?;
    call::empty(StatusCode::OK)
}
