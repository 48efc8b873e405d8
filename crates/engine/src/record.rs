//! What the engine keeps in the store, and under which keys.
//!
//! | key | record |
//! |---|---|
//! | `ns/<namespace>/containers/<id>/spec` | [`ContainerRecord`]: the desired state |
//! | `ns/<namespace>/containers/<id>/state` | [`ObservedRecord`]: what was last seen |
//! | `ns/<namespace>/container-names/<name>` | the id that holds the name |
//! | `ns/<namespace>/volumes/<name>` | [`VolumeRecord`] |
//! | `ns/<namespace>/networks/<id>` | [`NetworkRecord`] |
//! | `installation` | [`InstallationRecord`] |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{
    Config, ContainerId, ContainerName, Digest, HostConfig, Namespace, NetworkId, NodeId, Time,
    VolumeName,
    container::{EndpointSettings, PortBinding},
    port::Port,
    record::Record,
    state::{ContainerState, Desired},
};

/// A container as it should be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: ContainerId,
    pub namespace: Namespace,
    pub name: ContainerName,
    /// The node that holds its writable layer.
    pub node: NodeId,
    pub created: Time,
    /// The image's id.
    pub image: Digest,
    /// The image's layers, lowest first.
    pub layers: Vec<Digest>,
    /// `os`, in docker's `Platform` field.
    pub platform: String,
    /// Merged with the image's.
    pub config: Config,
    pub host: HostConfig,
    /// Networks to join, by name.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    pub mounts: Vec<MountRecord>,
    pub desired: Desired,
}

impl Record for ContainerRecord {
    const NOUN: &'static str = "container";
}

impl ContainerRecord {
    /// Command and arguments: entrypoint, then command.
    pub fn command_line(&self) -> (String, Vec<String>) {
        let mut words = self
            .config
            .entrypoint
            .iter()
            .chain(&self.config.cmd)
            .flatten()
            .cloned();
        (words.next().unwrap_or_default(), words.collect())
    }
    /// Whether the container's network is that of the host, another container, or none.
    pub fn shares_network(&self) -> bool {
        let mode = self.host.network_mode.as_str();
        mode == "host" || mode == "none" || mode.starts_with("container:")
    }
}

/// A mount as resolved at create (API `MountPoint`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountRecord {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// The volume's name.
    pub volume: Option<VolumeName>,
    /// Host path of a bind; empty for others.
    pub source: String,
    pub target: String,
    /// The volume's driver.
    pub driver: String,
    /// Options as the user wrote them.
    pub mode: String,
    pub writable: bool,
    pub propagation: String,
    pub subpath: String,
    pub no_copy: bool,
    /// Make a bind's missing source as a directory (the `-v` form).
    pub create_source: bool,
    pub non_recursive: bool,
    /// Options of a tmpfs.
    pub tmpfs_options: Vec<String>,
    /// Where it came from: `binds`, `mounts`, `image`, `volumes-from`, `tmpfs`.
    pub origin: String,
}

/// A container as it was last seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ObservedRecord {
    pub state: ContainerState,
    /// Networks by name, with the addresses in use.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// Published ports with the host ports really taken.
    pub ports: BTreeMap<Port, Vec<PortBinding>>,
    /// Where the network namespace is mounted.
    pub sandbox_key: String,
    /// How often it has exited; lets a waiter tell one exit from the next.
    pub exits: u64,
}

impl Record for ObservedRecord {
    const NOUN: &'static str = "container state";
}

/// A volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub name: VolumeName,
    pub driver: String,
    pub created: Time,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Made without a name; goes with `docker rm -v` and `docker volume prune`.
    pub anonymous: bool,
}

impl Record for VolumeRecord {
    const NOUN: &'static str = "volume";
}

/// A network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkRecord {
    pub id: NetworkId,
    pub name: String,
    pub created: Time,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv6: bool,
    /// Interface name of the bridge, empty for the others.
    pub bridge: String,
    pub subnets: Vec<SubnetRecord>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Made by kraud itself: `bridge`, `host`, `none`.
    pub builtin: bool,
}

impl Record for NetworkRecord {
    const NOUN: &'static str = "network";
}

/// One subnet of a network, in text form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetRecord {
    pub subnet: String,
    pub gateway: String,
    pub ip_range: String,
}

/// Facts of the installation, made at first start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstallationRecord {
    /// `docker info`'s ID.
    pub id: String,
    pub created: Time,
}

impl Record for InstallationRecord {
    const NOUN: &'static str = "installation";
}

/// Keys of the records.
pub mod key {
    use types::{ContainerId, ContainerName, Namespace, NetworkId, VolumeName};

    pub const INSTALLATION: &str = "installation";

    pub fn spec(ns: &Namespace, id: &ContainerId) -> String {
        format!("ns/{ns}/containers/{id}/spec")
    }
    pub fn state(ns: &Namespace, id: &ContainerId) -> String {
        format!("ns/{ns}/containers/{id}/state")
    }
    pub fn name(ns: &Namespace, name: &ContainerName) -> String {
        format!("ns/{ns}/container-names/{name}")
    }
    pub fn volume(ns: &Namespace, name: &VolumeName) -> String {
        format!("ns/{ns}/volumes/{name}")
    }
    pub fn network(ns: &Namespace, id: &NetworkId) -> String {
        format!("ns/{ns}/networks/{id}")
    }
}
