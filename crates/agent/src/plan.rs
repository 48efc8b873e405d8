//! All that an agent needs to know to run a container: the engine's decisions as data.

use std::{collections::BTreeMap, path::PathBuf};

use ipnet::IpNet;
use network::{Bridge, Mac};
use serde::{Deserialize, Serialize};
use types::{
    Config, ContainerId, Digest, HostConfig, IdRange, SnapshotId, container::PortBinding,
    port::Port,
};
use volume::Volume;

/// A container, ready to be made and started on this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub id: ContainerId,
    /// For messages and `docker`'s log tags.
    pub name: String,
    /// Already merged with the image's.
    pub config: Config,
    pub host: HostConfig,
    pub hostname: String,
    /// The image's layers, lowest first.
    pub layers: Vec<Digest>,
    /// Every mount but the runtime's own.
    pub mounts: Vec<MountPlan>,
    /// How it is connected.
    pub network: SandboxPlan,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
    pub uts: NamespaceMode,
    /// More lines for /etc/hosts, address and names.
    pub hosts: Vec<(String, String)>,
    /// What it takes its resources from together with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// A control group and a user namespace that containers are in together. Groups of different
/// names get the same part of the processors when all want more than there is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Unique on the node.
    pub name: String,
    /// Bytes that all of them may have together.
    pub memory: Option<u64>,
    /// Billionths of processors.
    pub nano_cpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The node's ids that stand for theirs; without them they have the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<IdRange>,
    /// Bytes, and operations, that they read per second, and as many that they write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_operations: Option<u64>,
    /// Where their files lie; without it among the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ShareDisk>,
}

/// A place for what containers write and for their logs, with an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareDisk {
    /// A volume of files that nobody else knows of.
    pub volume: Volume,
    pub bytes: u64,
}

impl Plan {
    /// The node's ids that stand for those of the container, if it has others than the node.
    pub fn ids(&self) -> Option<IdRange> {
        self.share.as_ref()?.ids
    }
}

impl Share {
    /// As many processes and threads as are enough for much, and not for a fork bomb.
    pub const PIDS: u64 = 8192;
}

/// What a share takes at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareUse {
    /// Bytes; none while nothing runs.
    pub memory: Option<u64>,
    pub pids: Option<u64>,
    /// Bytes.
    pub disk: Option<u64>,
}

/// Where one of a container's namespaces comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// Its own, and others may join (IPC: /dev/shm is kept where they find it).
    Shareable,
    /// The node's.
    Host,
    /// That of another container on this node.
    Container(ContainerId),
    /// None at all (IPC: no /dev/shm).
    None,
}

/// How a container is connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum SandboxPlan {
    /// Only a loopback interface.
    None,
    /// The node's own network.
    Host,
    /// The network of another container.
    Container(ContainerId),
    /// Its own, with these endpoints and published ports.
    Own {
        endpoints: Vec<EndpointPlan>,
        publish: Vec<(Port, PortBinding)>,
    },
}

/// One connection to a bridge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointPlan {
    /// The endpoint's own id, 64 hexadecimal digits.
    pub id: String,
    /// The network's name.
    pub name: String,
    pub network: Bridge,
    /// With their subnet's prefix length.
    pub addresses: Vec<IpNet>,
    pub mac: Mac,
    /// The interface's name inside, `eth0` and on; empty lets the agent choose a free one.
    pub interface: String,
    /// Kernel settings of the interface, `IFNAME` standing for its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<(String, String)>,
    /// The way out leads through the endpoint with the highest; the first name among equals.
    #[serde(default)]
    pub priority: i64,
    /// On a network whose names are served: the container's own names for its neighbours, each
    /// with a name that the network knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<BTreeMap<String, String>>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountPlan {
    pub source: MountSource,
    /// Absolute path inside.
    pub target: String,
    pub read_only: bool,
    /// Empty means `rprivate`.
    pub propagation: String,
    pub non_recursive: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path of the node; made as a directory when `create` says so.
    Bind { path: PathBuf, create: bool },
    /// A volume, filled from the image on its first use unless `no_copy`.
    Volume {
        volume: Volume,
        /// Read-only, one of its snapshots.
        snapshot: Option<SnapshotId>,
        subpath: String,
        no_copy: bool,
    },
    /// Memory, with mount options.
    Tmpfs { options: Vec<String> },
}

/// Paths of a container's files on its node.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    pub log: PathBuf,
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    /// The overlay's parts.
    pub upper: PathBuf,
    pub work: PathBuf,
    pub merged: PathBuf,
    /// The directory of all layers.
    pub layers: PathBuf,
}
