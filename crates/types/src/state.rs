//! The life of a container.
//!
//! ```text
//!            start            exit
//! Created ----------> Running -----> Exited ----> (start again)
//!    |                 |   ^            |
//!    |            pause|   |unpause     | restart policy
//!    |                 v   |            v
//!    |                Paused       Restarting --> Running
//!    `------------------- remove: Removing --> gone; Dead when removal fails half-way
//! ```
//!
//! The *desired* state ([`Desired`]) is what the user last asked for; the *observed* state
//! ([`ContainerState`]) is what the node last reported. They are separate records.

use crate::time::Time;

/// Where a container is in its life. The names are docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    /// docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// What the user last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// Not running; where `manual`, even after a restart of the daemon.
    #[default]
    Stopped,
    /// Running.
    Running,
}

/// What was last seen of a container.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// Where it is in its life.
    pub status: Status,
    /// Process id of its first process in the node's namespace, 0 when there is none.
    pub pid: i32,
    /// Exit code of the last run: 0–255, 128 + N after signal N.
    pub exit_code: i32,
    /// Whether the kernel's OOM killer ended the last run.
    pub oom_killed: bool,
    /// Why the last start failed, else empty.
    pub error: String,
    /// Start of the last run.
    pub started_at: Time,
    /// End of the last run.
    pub finished_at: Time,
    /// Restarts by the policy since the last start by a user.
    pub restart_count: u32,
    /// Health, where a check is configured.
    pub health: Option<Health>,
}

impl ContainerState {
    /// Whether processes exist (docker counts paused and restarting as running).
    pub fn is_running(&self) -> bool {
        matches!(
            self.status,
            Status::Running | Status::Paused | Status::Restarting
        )
    }
}

/// Health by docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Health of a running container.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five probes, oldest first.
    pub log: Vec<Probe>,
}

/// One run of a health check.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Probe {
    /// When it began.
    pub start: Time,
    /// When it ended.
    pub end: Time,
    /// Its exit code, -1 when it timed out or could not run.
    pub exit_code: i32,
    /// Its first 4096 bytes of output.
    pub output: String,
}
