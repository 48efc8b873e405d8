//! What the engine keeps in the store, and under which keys.
//!
//! | key | record |
//! |---|---|
//! | `ns/<namespace>/containers/<id>/spec` | [`ContainerRecord`]: the desired state |
//! | `ns/<namespace>/containers/<id>/state` | [`ObservedRecord`]: what was last seen |
//! | `ns/<namespace>/container-names/<name>` | the id that holds the name |
//! | `ns/<namespace>/volumes/<id>` | [`VolumeRecord`]; before version 2 under its name |
//! | `ns/<namespace>/volume-names/<name>` | the id that holds the name |
//! | `ns/<namespace>/snapshots/<volume id>/<id>` | [`SnapshotRecord`] |
//! | `nodes/<node>/pools/<name>` | [`PoolRecord`] |
//! | `ns/<namespace>/networks/<id>` | [`NetworkRecord`] |
//! | `installation` | [`InstallationRecord`] |

use std::collections::BTreeMap;

use agent::volumes::PoolSpec;
use serde::{Deserialize, Serialize};
use types::{
    Config, ContainerId, ContainerName, Digest, HostConfig, Namespace, NetworkId, NodeId, PoolName,
    SnapshotId, SnapshotName, Time, VolumeId, VolumeName,
    container::{EndpointSettings, PortBinding},
    port::Port,
    record::Record,
    state::{ContainerState, Desired},
    volume::{
        Class, Content, FileSystem,
        schedule::{Period, Schedule},
    },
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
    /// Mounts this snapshot of the volume, read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub id: VolumeId,
    pub namespace: Namespace,
    pub name: VolumeName,
    /// As the user wrote it: `local` is shown as `local`.
    pub driver: String,
    pub class: Class,
    pub created: Time,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Made without a name; goes with `docker rm -v` and `docker volume prune`.
    pub anonymous: bool,
    /// The node and the pool that hold it.
    pub node: NodeId,
    pub pool: PoolName,
    pub content: Content,
    pub fs: FileSystem,
    /// Bytes that may be written, for a volume of files. Images have their size in `content`.
    pub size: Option<u64>,
    pub zone: String,
    pub schedule: Schedule,
    /// Since when the schedule is in force.
    pub scheduled: Time,
    pub phase: VolumePhase,
    /// Containers that a rollback had stopped and that have not been started again yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<ContainerId>,
}

/// What is going on with a volume. Each phase is recorded before the node is told, so that a
/// start after a crash can finish what was begun.
///
/// ```text
///  Creating --+--> Ready <--> RollingBack
///  Importing -+      |
///                    +--> Removing --> (no record)
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumePhase {
    /// It may not be on its pool yet.
    Creating {
        origin: Option<OriginRecord>,
    },
    /// Its content is still in the plain directory of an earlier kraud.
    Importing,
    Ready,
    /// Once the safety snapshot is there it becomes what `to` holds; then the containers start.
    RollingBack {
        to: SnapshotId,
        safety: SnapshotId,
        restart: Vec<ContainerId>,
    },
    Removing,
}

fn json(value: impl Serialize) -> types::Result<serde_json::Value> {
    use types::error::ResultExt as _;
    serde_json::to_value(value).during(|| "upgrading a record")
}

/// What a volume is a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginRecord {
    pub volume: VolumeId,
    pub snapshot: Option<SnapshotId>,
}

impl VolumeRecord {
    /// Ends a rollback, however it went; what it had stopped stays noted until it runs again.
    pub(crate) fn end_rollback(&mut self) {
        let ended = std::mem::replace(&mut self.phase, VolumePhase::Ready);
        if let VolumePhase::RollingBack { restart, .. } = ended {
            self.restart = restart;
        }
    }

    /// What a node must know of it.
    pub fn plan(&self) -> agent::volumes::Volume {
        agent::volumes::Volume {
            id: self.id.clone(),
            name: self.name.clone(),
            pool: self.pool.clone(),
            content: self.content,
            fs: self.fs,
        }
    }
    /// The bytes promised to the user, if there is a bound.
    pub fn bytes(&self) -> Option<u64> {
        match self.content {
            Content::Image { bytes } => Some(bytes),
            Content::Files => self.size,
        }
    }
}

impl Record for VolumeRecord {
    const NOUN: &'static str = "volume";
    const VERSION: u32 = 2;

    /// Version 1 was a plain directory of the node without any class.
    fn upgrade(from: u32, mut value: serde_json::Value) -> types::Result<serde_json::Value> {
        let failed = || types::Error::system(format!("decoding a volume record of version {from}"));
        let fields = value.as_object_mut().ok_or_else(failed)?;
        let created = fields.get("created").cloned().ok_or_else(failed)?;
        fields.insert("id".into(), json(VolumeId::random())?);
        fields.insert("namespace".into(), json(Namespace::default())?);
        fields.insert("class".into(), json(Class::Nfs)?);
        fields.insert("node".into(), json(NodeId::local())?);
        fields.insert("pool".into(), json(PoolName::default())?);
        fields.insert("content".into(), json(Content::Files)?);
        fields.insert("fs".into(), json(FileSystem::Ext4)?);
        fields.insert("size".into(), serde_json::Value::Null);
        fields.insert("zone".into(), "default".into());
        fields.insert("schedule".into(), json(Class::Nfs.default_schedule())?);
        fields.insert("scheduled".into(), created);
        fields.insert("phase".into(), json(VolumePhase::Importing)?);
        Ok(value)
    }
}

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub id: SnapshotId,
    pub volume: VolumeId,
    pub name: SnapshotName,
    pub created: Time,
    pub origin: SnapshotOrigin,
    /// Name of the call that took it together with those of other volumes.
    pub group: String,
    /// Bytes that the volume had then, for an image.
    pub content: Content,
    pub phase: SnapshotPhase,
}

/// Who wanted a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotOrigin {
    User,
    Automatic(Period),
    /// A rollback, to be undone with it.
    Safety,
}

/// What is going on with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPhase {
    /// It may not be on the pool yet; after a crash it never will.
    Taking,
    Ready,
    Removing,
}

impl Record for SnapshotRecord {
    const NOUN: &'static str = "snapshot";
}

/// A storage pool of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolRecord {
    pub spec: PoolSpec,
    pub created: Time,
    /// False until the node has made it.
    pub made: bool,
}

impl Record for PoolRecord {
    const NOUN: &'static str = "pool";
}

/// A network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkRecord {
    pub id: NetworkId,
    pub name: String,
    pub created: Time,
    /// `bridge`, `macvlan`, `host` or `null`.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv6: bool,
    /// Whether it is without IPv4.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_ipv4: bool,
    /// What the address driver was told; docker shows it and does nothing with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Interface name of the bridge, empty for the others.
    pub bridge: String,
    pub subnets: Vec<SubnetRecord>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Made by kraud itself: `bridge`, `host`, `none`.
    pub builtin: bool,
    /// A tenant's: its containers are kept from the machine's own services.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guarded: bool,
}

impl NetworkRecord {
    /// Whether containers have addresses on it.
    pub fn has_addresses(&self) -> bool {
        matches!(self.driver.as_str(), "bridge" | "macvlan")
    }
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
    /// Addresses that belong to others, by name: no container gets one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux: BTreeMap<String, String>,
}

impl SubnetRecord {
    /// Whether an address is one of it.
    pub(crate) fn contains(&self, ip: std::net::IpAddr) -> bool {
        let net = self.subnet.parse::<ipnet::IpNet>();
        net.is_ok_and(|net| net.contains(&ip))
    }
}

/// Facts of the installation, made at first start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstallationRecord {
    /// `docker info`'s ID.
    pub id: String,
    pub created: Time,
}

impl InstallationRecord {
    /// What tells installations apart in names.
    pub(crate) fn short(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }
}

impl Record for InstallationRecord {
    const NOUN: &'static str = "installation";
}

/// Keys of the records.
pub mod key {
    use types::{
        ContainerId, ContainerName, Namespace, NetworkId, NodeId, PoolName, SnapshotId, VolumeId,
        VolumeName,
    };

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
    pub fn volume(ns: &Namespace, id: &VolumeId) -> String {
        format!("ns/{ns}/volumes/{id}")
    }
    pub fn volume_name(ns: &Namespace, name: &VolumeName) -> String {
        format!("ns/{ns}/volume-names/{name}")
    }
    /// Before version 2 of the record.
    pub fn volume_v1(ns: &Namespace, name: &VolumeName) -> String {
        format!("ns/{ns}/volumes/{name}")
    }
    pub fn snapshot(ns: &Namespace, volume: &VolumeId, id: &SnapshotId) -> String {
        format!("ns/{ns}/snapshots/{volume}/{id}")
    }
    pub fn snapshots(ns: &Namespace, volume: &VolumeId) -> String {
        format!("ns/{ns}/snapshots/{volume}/")
    }
    pub fn pool(node: &NodeId, name: &PoolName) -> String {
        format!("nodes/{}/pools/{name}", node.as_str())
    }
    pub fn network(ns: &Namespace, id: &NetworkId) -> String {
        format!("ns/{ns}/networks/{id}")
    }
}
