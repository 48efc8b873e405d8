//! From the engine's views to the wire. Pure functions.

pub(super) mod container;
pub(super) mod image;
pub(super) mod request;
mod when;

use engine::view::{NetworkView, VolumeView};
use types::Time;

use super::wire::{
    network::{ConfigReference, EndpointResource, Ipam, IpamConfig, Network},
    volume::{UsageData, Volume},
};

/// A time without its fraction, as volumes show it.
fn whole_seconds(time: Time) -> String {
    Time::from_unix(time.unix_seconds(), 0).to_string()
}

/// `Volume`.
pub(super) fn volume(view: &VolumeView) -> Volume {
    let record = &view.record;
    let nonempty = |map: &std::collections::BTreeMap<String, String>| {
        Some(map.clone()).filter(|map| !map.is_empty())
    };
    Volume {
        created_at: whole_seconds(record.created),
        driver: record.driver.clone(),
        labels: nonempty(&record.labels),
        mountpoint: view.mountpoint.display().to_string(),
        name: record.name.to_string(),
        options: nonempty(&record.options),
        scope: "local",
        status: Some(view.status.clone()).filter(|status| !status.is_empty()),
        usage_data: view.usage.map(|usage| UsageData {
            ref_count: i64::try_from(usage.references).unwrap_or(i64::MAX),
            size: i64::try_from(usage.size).unwrap_or(i64::MAX),
        }),
    }
}

/// `Network`.
pub(super) fn network(view: &NetworkView) -> Network {
    let config = view
        .subnets
        .iter()
        .map(|subnet| IpamConfig {
            subnet: subnet.subnet.clone(),
            ip_range: subnet.ip_range.clone(),
            gateway: subnet.gateway.clone(),
            auxiliary_addresses: subnet.aux.clone(),
        })
        .collect::<Vec<_>>();
    let containers = view.containers.iter().map(|(id, member)| {
        let endpoint = EndpointResource {
            name: member.name.clone(),
            endpoint_id: member.endpoint_id.clone(),
            mac_address: member.mac_address.clone(),
            ipv4_address: member.ipv4_address.clone(),
            ipv6_address: member.ipv6_address.clone(),
        };
        (id.to_string(), endpoint)
    });
    Network {
        name: view.name.clone(),
        id: view.id.to_string(),
        created: view.created.to_string(),
        scope: "local",
        driver: view.driver.clone(),
        enable_ipv4: view.enable_ipv4,
        enable_ipv6: view.enable_ipv6,
        ipam: Ipam {
            driver: "default",
            options: view.ipam_options.clone(),
            // The drivers host and null have no addresses to give.
            config: Some(config).filter(|config| {
                !config.is_empty() || !matches!(view.driver.as_str(), "host" | "null")
            }),
        },
        internal: view.internal,
        attachable: view.attachable,
        ingress: false,
        config_from: ConfigReference::default(),
        config_only: false,
        containers: containers.collect(),
        options: view.options.clone(),
        labels: view.labels.clone(),
    }
}
