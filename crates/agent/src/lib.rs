//! The node agent: everything that touches one machine's kernel, disks and processes.
//!
//! [`NodeAgent`], and beside it [`NodeImages`] for layers, is the seam between deciding and
//! doing. The engine decides, records, and asks the agent of the node that holds the object;
//! the agent does as it is told and reports what it sees. Requests and answers are plain data
//! and streams, so that an agent on another machine can serve them. On one machine
//! [`local::LocalAgent`] and [`local::images::LocalImages`] are called in process.
//!
//! The agent keeps no records of its own: a [`Plan`] holds all that is needed to run a
//! container, and what the agent finds on disk is rebuilt or removed by [`NodeAgent::adopt`].

pub mod images;
pub mod io;
pub mod local;
pub mod plan;
pub mod volumes;

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use types::{
    ContainerId, Digest, ExecId, Result, Time,
    container::{PortBinding, Resources},
    port::Port,
    stats::{InterfaceStats, Stats},
};

pub use crate::{
    images::{MadeLayer, NodeImages},
    io::{Attached, Input, LogEntry, LogQuery, LogStream, Output, Reader},
    plan::{EndpointPlan, MountPlan, MountSource, NamespaceMode, Plan, SandboxPlan},
    volumes::NodeVolumes,
};

/// What the agent tells without being asked.
#[derive(Debug, Clone)]
pub enum AgentEvent {
    /// The container's first process ended.
    Exited { id: ContainerId, exit: Exit },
    /// An exec session ended.
    ExecExited {
        id: ContainerId,
        exec: ExecId,
        exit: Exit,
    },
    /// A volume or a pool is fuller than it should be.
    Pressure(volumes::Pressure),
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// 0–255; 128 + N after signal N.
    pub code: i32,
    pub oom_killed: bool,
    pub at: Time,
}

/// Published ports with the host ports that were really taken, in docker's form.
pub type PortMap = BTreeMap<Port, Vec<PortBinding>>;

/// What a start made.
#[derive(Debug, Clone, Default)]
pub struct Started {
    /// Process id on the node.
    pub pid: i32,
    /// Published ports with the host ports that were really taken.
    pub ports: PortMap,
    /// Where the network namespace is mounted, empty when it has none of its own.
    pub sandbox_key: String,
}

/// Why a start failed and the exit code docker gives for it.
#[derive(Debug, Clone)]
pub struct StartError {
    /// 127 not found, 126 not executable, 128 the runtime could not, 125 all else.
    pub exit_code: i32,
    /// Whether it had come as far as to be on its networks.
    pub connected: bool,
    pub error: types::Error,
}

impl StartError {
    /// One that has nothing to do with networks.
    pub fn new(exit_code: i32, error: types::Error) -> Self {
        Self {
            exit_code,
            connected: true,
            error,
        }
    }
}

impl From<types::Error> for StartError {
    fn from(error: types::Error) -> Self {
        Self::new(128, error)
    }
}

/// What [`NodeAgent::adopt`] found of a container that should exist.
#[derive(Debug, Clone)]
pub enum Observed {
    /// Its process lives on.
    Running {
        pid: i32,
        paused: bool,
        ports: PortMap,
        sandbox_key: String,
        /// As it was started.
        endpoints: Vec<EndpointPlan>,
    },
    /// It ended while nobody looked.
    Exited(Exit),
    /// There is no process and no trace of how it ended.
    Gone,
}

/// A process to run in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecPlan {
    pub command: Vec<String>,
    /// Added to the container's own environment.
    pub env: Vec<String>,
    pub working_dir: String,
    /// Empty: the container's.
    pub user: String,
    pub tty: bool,
    pub stdin: bool,
    pub privileged: bool,
    /// Height, width.
    pub console_size: Option<[u32; 2]>,
}

/// What to attach to a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachTo {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// A start is about to come: wait for it.
    pub await_start: bool,
}

/// Facts of a node.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct NodeInfo {
    pub hostname: String,
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release.
    pub operating_system: String,
    pub os_version: String,
    /// As `uname -m` says.
    pub architecture: String,
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    pub cgroup_version: u8,
    pub cgroup_driver: String,
    /// Names of OCI runtimes and their paths.
    pub runtimes: BTreeMap<String, String>,
    pub default_runtime: String,
    /// Version text of the default runtime.
    pub runtime_version: String,
    pub backing_filesystem: String,
    pub supports_d_type: bool,
    pub swap_limit: bool,
    /// Whether weights of block I/O can be set.
    pub blkio_weight: bool,
    /// The memory nodes that there are, as a list such as `0-1`; empty when unknown.
    pub memory_nodes: String,
    pub ipv4_forwarding: bool,
    pub seccomp: bool,
    pub cgroupns: bool,
    pub init_binary: String,
    /// What an operator should know, in docker's form `WARNING: …`.
    pub warnings: Vec<String>,
    /// Open files, goroutine-like tasks: for `docker info -D`.
    pub open_files: usize,
}

/// A change of a container's root file system.
#[derive(Debug, Clone)]
pub struct RootChange {
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}

/// What `docker cp` wants to know of a path (`X-Docker-Container-Path-Stat`).
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    /// Go's `os.FileMode` bits.
    pub mode: u32,
    pub mtime: Time,
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// What a node can do. Every method names its object in its errors.
#[async_trait::async_trait]
pub trait NodeAgent: volumes::NodeVolumes {
    /// Facts of the node, gathered now.
    async fn info(&self) -> Result<NodeInfo>;

    /// Prepares everything on disk for a container and fills its new volumes. Idempotent.
    async fn create(&self, plan: &Plan) -> Result<()>;
    /// Starts it. `hold_for_attach`: the process begins once the first client is attached.
    async fn start(&self, plan: &Plan, hold_for_attach: bool) -> Result<Started, StartError>;
    /// After the daemon's own start: finds what lives of `plans`, reports it, and removes
    /// whatever on this node belongs to none of them.
    async fn adopt(&self, plans: &[Plan]) -> Result<Vec<(ContainerId, Observed)>>;
    /// Gives back what only a running container needs: network, mounts, cgroup. Idempotent.
    async fn release(&self, id: &ContainerId) -> Result<()>;
    /// Removes all that [`NodeAgent::create`] made. Idempotent.
    async fn destroy(&self, id: &ContainerId) -> Result<()>;

    /// Sends a signal to the first process.
    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<()>;
    /// Freezes or thaws all processes.
    async fn set_paused(&self, id: &ContainerId, paused: bool) -> Result<()>;
    /// Applies new limits to a running container.
    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()>;
    /// Attaches to the first process.
    async fn attach(&self, id: &ContainerId, to: AttachTo) -> Result<Attached>;
    /// Sets the terminal's size.
    async fn resize(&self, id: &ContainerId, height: u16, width: u16) -> Result<()>;
    /// Reads the log.
    async fn logs(&self, id: &ContainerId, query: LogQuery) -> Result<LogStream>;
    /// `ps` with `arguments` for the container's processes: titles and rows.
    async fn top(
        &self,
        id: &ContainerId,
        arguments: &str,
    ) -> Result<(Vec<String>, Vec<Vec<String>>)>;
    /// One sample of what it uses.
    async fn stats(&self, id: &ContainerId) -> Result<(Stats, Vec<InterfaceStats>)>;

    /// Starts a process in a running container; attached before it begins where `attach` asks.
    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        plan: &ExecPlan,
        attach: Option<AttachTo>,
    ) -> Result<(i32, Option<Attached>), StartError>;
    /// Sets the size of an exec session's terminal.
    async fn exec_resize(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        height: u16,
        width: u16,
    ) -> Result<()>;
    /// How an exec session ended; `None` while it runs. Asked when the session's stream has
    /// ended, which a client may see before the event.
    async fn exec_exit(&self, id: &ContainerId, exec: &ExecId) -> Result<Option<Exit>>;
    /// The end of an exec session has been taken note of: nothing of it need be kept.
    async fn exec_forget(&self, id: &ContainerId, exec: &ExecId) -> Result<()>;
    /// Kills an exec session's process.
    async fn exec_kill(&self, id: &ContainerId, exec: &ExecId) -> Result<()>;

    /// Bytes of the writable layer.
    async fn size_rw(&self, id: &ContainerId) -> Result<u64>;
    /// What differs from the image whose layers are `lower`, lowest first.
    async fn changes(&self, id: &ContainerId, lower: &[Digest]) -> Result<Vec<RootChange>>;
    /// The whole root file system as a tar.
    async fn export(&self, plan: &Plan) -> Result<Reader>;
    /// Facts of a path inside, whether the container runs or not.
    async fn archive_stat(&self, plan: &Plan, path: &str) -> Result<PathStat>;
    /// A path inside as a tar.
    async fn archive_get(&self, plan: &Plan, path: &str) -> Result<(PathStat, Reader)>;
    /// Unpacks a tar into a directory inside.
    async fn archive_put(
        &self,
        plan: &Plan,
        path: &str,
        tar: Reader,
        no_overwrite_dir_non_dir: bool,
        copy_owner: bool,
    ) -> Result<()>;
    /// Makes a layer from the writable layer; held until [`NodeImages::layers_release`].
    async fn commit_layer(&self, id: &ContainerId) -> Result<MadeLayer>;

    /// Makes or changes a network's bridge. Idempotent.
    async fn network_ensure(&self, network: &network::Bridge) -> Result<()>;
    /// Removes a network's bridge. Idempotent.
    async fn network_remove(&self, network: &network::Bridge) -> Result<()>;
    /// Sets all names of a network, for the containers on it that are on this node; later
    /// revisions win.
    async fn network_names(&self, names: &network::Names) -> Result<()>;
    /// Connects a running container to one more network; returns its published ports, which
    /// may lead there now.
    async fn network_join(&self, id: &ContainerId, endpoint: &EndpointPlan) -> Result<PortMap>;
    /// Takes a running container off a network; returns its published ports.
    async fn network_leave(&self, id: &ContainerId, network: &types::NetworkId) -> Result<PortMap>;
    /// The nets that the node's own addresses and routes occupy.
    async fn network_occupied(&self) -> Result<Vec<ipnet::IpNet>>;
    /// Whether a path exists on the node (a bind's source).
    async fn path_exists(&self, path: &std::path::Path) -> Result<bool>;
    /// Limits the containers of a share that run, as those are that start later.
    async fn share_limit(&self, share: &plan::Share) -> Result<()>;
    /// Removes the control group of a share that has no containers any more.
    async fn share_remove(&self, share: &plan::Share) -> Result<()>;
    /// What the containers of a share take.
    async fn share_use(&self, share: &plan::Share) -> Result<plan::ShareUse>;
    /// Removes what the node has for all containers together: bridges, firewall rules,
    /// control groups. Only when no container runs; the next start makes them again.
    async fn tear_down(&self) -> Result<()>;

    /// Where a container's files are, for inspect.
    async fn paths(&self, id: &ContainerId) -> Result<plan::Paths>;

    /// The stream of what happens; there is one listener, the engine.
    fn events(&self) -> Option<mpsc::UnboundedReceiver<AgentEvent>>;
}
