//! What callers ask the engine for: plain data, already converted from the wire.

use std::collections::BTreeMap;

use identity::Caller;
use types::{
    Config, Filters, HostConfig, Namespace,
    container::{EndpointSettings, Resources, RestartPolicy},
};

/// On whose behalf a call is made.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The namespace whose objects the call can see.
    pub namespace: Namespace,
    /// Who makes it, and with which rights.
    pub caller: Caller,
}

impl Default for Scope {
    /// The operator, over the socket.
    fn default() -> Self {
        Caller::operator().into()
    }
}

impl Scope {
    /// Whether the namespace is a tenant's, who may not ask of the machine what its operator may.
    pub fn is_tenant(&self) -> bool {
        self.namespace != Namespace::default()
    }
    /// For what kraud does by itself in a namespace.
    pub(crate) fn within(namespace: Namespace) -> Self {
        Self {
            namespace,
            caller: Caller::operator(),
        }
    }
}

impl From<Caller> for Scope {
    fn from(caller: Caller) -> Self {
        Self {
            namespace: caller.namespace.clone(),
            caller,
        }
    }
}

/// `POST /containers/create`.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// Made up when missing.
    pub name: Option<String>,
    /// `os[/arch[/variant]]`; must fit the image.
    pub platform: Option<String>,
    pub config: Config,
    pub host: HostConfig,
    /// Networks to join, by name.
    pub endpoints: BTreeMap<String, EndpointSettings>,
}

/// The answer to a create.
#[derive(Debug, Clone)]
pub struct Created {
    pub id: types::ContainerId,
    pub warnings: Vec<String>,
}

/// `GET /containers/json`.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Those not running, too.
    pub all: bool,
    /// The newest N, running or not.
    pub limit: Option<usize>,
    /// Work out sizes.
    pub size: bool,
    pub filters: Filters,
}

/// `DELETE /containers/{id}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveRequest {
    /// Kill it first when it runs.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
}

/// `POST /containers/{id}/update`; only non-zero values change anything.
#[derive(Debug, Clone, Default)]
pub struct UpdateRequest {
    pub resources: Resources,
    /// `None` leaves it as it is.
    pub restart_policy: Option<RestartPolicy>,
}

/// What `POST /containers/{id}/wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Answers at once when the container does not run.
    #[default]
    NotRunning,
    /// The next exit from now on.
    NextExit,
    /// Its removal.
    Removed,
}

/// What to attach to.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachRequest {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Give what was logged before.
    pub logs: bool,
    /// Go on with what comes.
    pub stream: bool,
}

/// `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecRequest {
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    /// Height, width.
    pub console_size: Option<[u32; 2]>,
    pub detach_keys: String,
    pub tty: bool,
    pub env: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub privileged: bool,
    pub user: String,
    pub working_dir: String,
}

/// `POST /exec/{id}/start`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecStart {
    pub detach: bool,
    pub tty: bool,
    /// Height, width.
    pub console_size: Option<[u32; 2]>,
}

/// `POST /commit`.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    pub container: String,
    /// Repository, may be empty.
    pub repo: String,
    /// Tag, may be empty.
    pub tag: String,
    pub comment: String,
    pub author: String,
    /// Pause while reading; docker's default is true.
    pub pause: bool,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Overrides from the body.
    pub config: Option<Config>,
}

/// `POST /volumes/create`.
#[derive(Debug, Clone, Default)]
pub struct VolumeCreate {
    /// Made up (64 hexadecimal digits) when missing.
    pub name: Option<String>,
    /// `local` when empty.
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// `POST /networks/create`.
#[derive(Debug, Clone, Default)]
pub struct NetworkCreate {
    pub name: String,
    /// `bridge` when empty.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    /// Whether the network speaks IPv4; it does unless told otherwise.
    pub enable_ipv4: Option<bool>,
    /// Whether it speaks IPv6; it does not unless told otherwise.
    pub enable_ipv6: Option<bool>,
    /// For the address driver; kept and shown.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// One is chosen for each family that has none.
    pub subnets: Vec<crate::record::SubnetRecord>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}
