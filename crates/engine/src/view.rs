//! What the engine answers with: plain data that the APIs convert to their wire forms.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use types::{
    ContainerId, Digest, ExecId, NetworkId, Time,
    container::{EndpointSettings, PortBinding},
    port::Port,
    state::ContainerState,
    stats::{InterfaceStats, Stats},
};

use crate::record::{ContainerRecord, VolumeRecord};

/// A container as it is now.
#[derive(Debug, Clone)]
pub struct ContainerView {
    /// What it should be, and what its image and volumes resolved to.
    pub record: Arc<ContainerRecord>,
    /// What was last seen of it.
    pub state: ContainerState,
    /// Its networks by name; addresses are empty while it does not run.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// Published ports as they are now; exposed but unpublished ports map to `None`.
    pub ports: BTreeMap<Port, Option<Vec<PortBinding>>>,
    /// Where its network namespace is mounted, empty when it does not run.
    pub sandbox_key: String,
    /// Its files on the node.
    pub files: Files,
    /// Further names, from the links of others: `container/alias`.
    pub link_names: Vec<String>,
    /// Its running exec sessions.
    pub exec_ids: Vec<ExecId>,
    /// Bytes in the writable layer, where sizes were asked for.
    pub size_rw: Option<u64>,
    /// Bytes of the image and the writable layer together, where sizes were asked for.
    pub size_root: Option<u64>,
}

/// Paths of a container's files on its node.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub log: PathBuf,
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    /// Overlay parts: lower (joined by ':'), upper, work, merged.
    pub lower: String,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub merged: PathBuf,
}

/// How a wait ended.
#[derive(Debug, Clone)]
pub struct WaitOutcome {
    pub exit_code: i64,
    /// Why the container could not be waited for to its end.
    pub error: Option<String>,
}

/// `docker top`.
#[derive(Debug, Clone)]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

/// One sample of `docker stats`.
#[derive(Debug, Clone)]
pub struct StatsSample {
    pub id: ContainerId,
    /// Without the slash.
    pub name: String,
    pub read: Time,
    /// `None` while the container does not run.
    pub stats: Option<Stats>,
    pub networks: Vec<InterfaceStats>,
}

/// One line of `docker diff`.
#[derive(Debug, Clone)]
pub struct Change {
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}

/// An exec session.
#[derive(Debug, Clone)]
pub struct ExecView {
    pub id: ExecId,
    pub container: ContainerId,
    pub request: crate::request::ExecRequest,
    /// Command and arguments.
    pub entrypoint: String,
    pub arguments: Vec<String>,
    pub running: bool,
    /// `None` until it has ended.
    pub exit_code: Option<i64>,
    pub pid: i32,
}

/// What a prune took away.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// Ids (containers), names (volumes, networks).
    pub deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// What `docker rmi` and `docker image prune` did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRemoval {
    Untagged(String),
    Deleted(Digest),
}

/// A volume and, where asked for, its use.
#[derive(Debug, Clone)]
pub struct VolumeView {
    pub record: Arc<VolumeRecord>,
    pub mountpoint: PathBuf,
    /// Containers that refer to it and bytes, where asked for.
    pub usage: Option<VolumeUsage>,
    /// What docker shows as `Status`, where one volume is asked for.
    pub status: std::collections::BTreeMap<String, serde_json::Value>,
}

/// The use of a volume.
#[derive(Debug, Clone, Copy)]
pub struct VolumeUsage {
    pub references: usize,
    /// Bytes on disk.
    pub size: u64,
}

/// A network.
#[derive(Debug, Clone)]
pub struct NetworkView {
    pub id: NetworkId,
    pub name: String,
    pub created: Time,
    /// `bridge`, `macvlan`, `host` or `null`.
    pub driver: String,
    pub internal: bool,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub attachable: bool,
    pub subnets: Vec<SubnetView>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Endpoints of running containers.
    pub containers: BTreeMap<ContainerId, NetworkMember>,
}

/// One subnet of a network.
#[derive(Debug, Clone, Default)]
pub struct SubnetView {
    /// `172.17.0.0/16`
    pub subnet: String,
    pub gateway: String,
    pub ip_range: String,
    pub aux: BTreeMap<String, String>,
}

/// A container on a network.
#[derive(Debug, Clone)]
pub struct NetworkMember {
    pub name: String,
    pub endpoint_id: String,
    pub mac_address: String,
    /// `172.17.0.2/16`
    pub ipv4_address: String,
    pub ipv6_address: String,
}

/// `GET /info`: facts of the node and counts of this namespace.
#[derive(Debug, Clone, Default)]
pub struct Info {
    pub id: String,
    /// Whether containers of the namespace have users of their own.
    pub own_users: bool,
    pub containers: usize,
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub data_dir: PathBuf,
    /// Those that the operator chose, none otherwise.
    pub address_pools: Vec<network::ipam::PoolRange>,
    pub insecure_registries: Vec<String>,
    pub node: agent::NodeInfo,
}

/// `GET /system/df`.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once.
    pub layers_size: u64,
    /// With sizes.
    pub containers: Vec<ContainerView>,
    pub volumes: Vec<VolumeView>,
    /// Per image: id, bytes shared with other images, containers that use it.
    pub images: Vec<ImageUsage>,
}

/// The use of an image.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    pub image: Arc<catalog::Image>,
    pub references: Vec<String>,
    pub repo_digests: Vec<String>,
    pub shared_size: u64,
    pub containers: usize,
}
