//! What is done to running containers without starting a process for it.

use std::{path::Path, time::Duration};

use futures_util::StreamExt as _;
use shim::proto::{Exit, Started};
use types::{
    ContainerId, ExecId, Time,
    container::Resources,
    stats::{InterfaceStats, Stats},
};

use crate::{
    Runtime,
    cgroup::Group,
    client::{AttachOptions, Frame},
    error::{Error, Result, blocking},
    meta::{self, Meta},
    paths, process,
};

/// How long a shim may take to notice that its killed process is dead.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitInfo {
    /// 0–255; 128 + N after signal N; 255 when nobody knows.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel's OOM killer struck in its control group.
    pub oom: bool,
    /// When; [`Time::ZERO`] when nobody knows.
    pub finished_at: Time,
    /// The shim was lost, so that nobody knows.
    pub lost: bool,
}

impl ExitInfo {
    /// For a process whose shim was lost.
    fn lost() -> Self {
        Self {
            code: 255,
            lost: true,
            ..Self::default()
        }
    }
}

impl From<Exit> for ExitInfo {
    fn from(exit: Exit) -> Self {
        let finished_at = Time::parse(&exit.finished_at).unwrap_or_default();
        Self {
            code: exit.code,
            signal: exit.signal,
            oom: exit.oom,
            finished_at,
            lost: false,
        }
    }
}

/// What became of a container that was started once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspected {
    /// Its first process and its shim live.
    Alive { pid: i32 },
    /// It ended.
    Exited(ExitInfo),
    /// There is no trace of it.
    Unknown,
}

impl Runtime {
    /// Waits for the end of a container's first process. A container that lost its shim is
    /// killed: nobody would ever learn how it ends.
    pub async fn wait(&self, id: &ContainerId) -> Result<ExitInfo> {
        if let Some(exit) = self.wait_in(&self.paths().container(id)).await? {
            return Ok(exit);
        }
        let directory = self.paths().container(id);
        let meta = blocking(move || Meta::read(&directory)).await?;
        if let Some(meta) = meta {
            if let Some(exit) = read_exit(&meta.state_dir).await? {
                return Ok(exit);
            }
            self.kill_rest(id).await?;
        }
        Ok(ExitInfo::lost())
    }

    /// Waits for the end of an exec session.
    pub async fn exec_wait(&self, id: &ContainerId, exec: &ExecId) -> Result<ExitInfo> {
        let directory = self.paths().exec(id, exec);
        if let Some(exit) = self.wait_in(&directory).await? {
            return Ok(exit);
        }
        Ok(read_exit(&directory).await?.unwrap_or_else(ExitInfo::lost))
    }

    /// Waits by the shim that works in `directory`; `None` when it is gone.
    async fn wait_in(&self, directory: &Path) -> Result<Option<ExitInfo>> {
        let Some((_, mut attachment)) = self.connect(directory, AttachOptions::default()).await?
        else {
            return Ok(None);
        };
        while let Some(frame) = attachment.output.next().await {
            if let Frame::Exit(exit) = frame {
                return Ok(Some(exit));
            }
        }
        Ok(None)
    }

    /// Returns when a container's shim has told everybody that the container ended, or is gone.
    pub(crate) async fn shim_ended(&self, id: &ContainerId) {
        if let Err(error) = self.wait_in(&self.paths().container(id)).await {
            tracing::warn!(%id, %error, "wait for the end of a followed container");
        }
    }

    /// What became of a container, asked after a restart of the daemon. `state_dir` is the
    /// durable directory it was launched with.
    pub async fn inspect(&self, id: &ContainerId, state_dir: &Path) -> Result<Inspected> {
        if let Some(exit) = read_exit(state_dir).await? {
            return Ok(Inspected::Exited(exit));
        }
        let directory = self.paths().container(id);
        if self
            .connect(&directory, AttachOptions::default())
            .await?
            .is_some()
        {
            // A shim that is still starting has not written the file yet.
            for _ in 0..500 {
                if let Some(started) = self.started(&directory).await? {
                    return Ok(Inspected::Alive { pid: started.pid });
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // It may have ended between the two looks.
        Ok(read_exit(state_dir)
            .await?
            .map_or(Inspected::Unknown, Inspected::Exited))
    }

    /// Whether an exec session still runs, and its process id.
    pub async fn exec_inspect(&self, id: &ContainerId, exec: &ExecId) -> Result<Inspected> {
        let directory = self.paths().exec(id, exec);
        if let Some(exit) = read_exit(&directory).await? {
            return Ok(Inspected::Exited(exit));
        }
        match self.started(&directory).await? {
            Some(started) if process::is_alive(started) => {
                Ok(Inspected::Alive { pid: started.pid })
            }
            _ => Ok(Inspected::Unknown),
        }
    }

    /// Sends a signal to the first process, or to all processes of the container.
    pub async fn kill(&self, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
        let group = self.group(id).await?;
        let started = self.started(&self.paths().container(id)).await?;
        let started = started.ok_or_else(|| Error::NotRunning(id.to_string()))?;
        let name = id.to_string();
        blocking(move || {
            if all {
                return group.signal_all(signal);
            }
            let sent = process::signal(started, signal)
                .map_err(Error::io(format!("signal container {name}")))?;
            if sent {
                Ok(())
            } else {
                Err(Error::NotRunning(name))
            }
        })
        .await
    }

    /// Sends a signal to an exec session's process.
    pub async fn exec_kill(&self, id: &ContainerId, exec: &ExecId, signal: i32) -> Result<()> {
        let started = self.started(&self.paths().exec(id, exec)).await?;
        let started = started.ok_or_else(|| Error::NotRunning(exec.to_string()))?;
        let sent =
            process::signal(started, signal).map_err(Error::io(format!("signal exec {exec}")))?;
        if sent {
            Ok(())
        } else {
            Err(Error::NotRunning(exec.to_string()))
        }
    }

    /// Freezes all processes; returns when they are frozen.
    pub async fn pause(&self, id: &ContainerId) -> Result<()> {
        let group = self.group(id).await?;
        blocking(move || group.freeze(true)).await
    }

    /// Thaws all processes.
    pub async fn unpause(&self, id: &ContainerId) -> Result<()> {
        let group = self.group(id).await?;
        blocking(move || group.freeze(false)).await
    }

    /// Whether a container is frozen.
    pub async fn is_paused(&self, id: &ContainerId) -> Result<bool> {
        let group = self.group(id).await?;
        blocking(move || group.is_frozen()).await
    }

    /// Applies the limits that `resources` names; zero and `None` leave what is.
    pub async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let group = self.group(id).await?;
        let resources = resources.clone();
        blocking(move || group.update(&resources)).await
    }

    /// One sample of what it uses.
    pub async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let group = self.group(id).await?;
        blocking(move || group.stats()).await
    }

    /// Counters of the interfaces in a container's network namespace.
    pub async fn interface_stats(&self, id: &ContainerId) -> Result<Vec<InterfaceStats>> {
        let started = self.started(&self.paths().container(id)).await?;
        let started = started.ok_or_else(|| Error::NotRunning(id.to_string()))?;
        blocking(move || crate::cgroup::interfaces(started.pid)).await
    }

    /// Ids of its processes in the host's namespace, sorted.
    pub async fn pids(&self, id: &ContainerId) -> Result<Vec<i32>> {
        let group = self.group(id).await?;
        blocking(move || group.pids()).await
    }

    /// Kills what is left of a container and removes its control groups and run directory.
    /// Idempotent. The durable directory is not touched.
    pub async fn delete(&self, id: &ContainerId) -> Result<()> {
        let directory = self.paths().container(id);
        let shim = self.connect(&directory, AttachOptions::default()).await?;
        self.kill_rest(id).await?;
        if let Some((_, mut attachment)) = shim {
            // It records the exit before it says so; a new start must not meet that record.
            let told = async { while attachment.output.next().await.is_some() {} };
            let _ = tokio::time::timeout(SHIM_PATIENCE, told).await;
        }
        let state = self.paths().runtime_root().join(id.as_str());
        blocking(move || {
            paths::remove_tree(&state)?;
            paths::remove_tree(&directory)
        })
        .await
    }

    /// Forgets an exec session that has ended: its files in the run directory go. Idempotent.
    pub async fn exec_delete(&self, id: &ContainerId, exec: &ExecId) -> Result<()> {
        let directory = self.paths().exec(id, exec);
        blocking(move || paths::remove_tree(&directory)).await
    }

    /// Containers that have a run directory.
    pub async fn list(&self) -> Result<Vec<ContainerId>> {
        let directory = self.paths().containers();
        blocking(move || {
            let operation = format!("list {}", directory.display());
            let entries = std::fs::read_dir(&directory).map_err(Error::io(operation))?;
            Ok(entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect())
        })
        .await
    }

    /// Kills all processes of a container and removes its control groups.
    async fn kill_rest(&self, id: &ContainerId) -> Result<()> {
        let directory = self.paths().container(id);
        let fallback = self.cgroup_path(id, "");
        let cgroups = self.cgroups().clone();
        blocking(move || {
            let path = Meta::read(&directory)?.map_or(fallback, |meta| meta.cgroup);
            if let Some(started) = meta::started(&directory)? {
                // Best effort: the control group below knows all of them.
                let _ = process::signal(started, 9);
            }
            cgroups.group(&path).destroy()
        })
        .await
    }

    async fn started(&self, directory: &Path) -> Result<Option<Started>> {
        let directory = directory.to_owned();
        blocking(move || meta::started(&directory)).await
    }

    async fn group(&self, id: &ContainerId) -> Result<Group> {
        let directory = self.paths().container(id);
        let meta = blocking(move || Meta::read(&directory)).await?;
        let meta = meta.ok_or_else(|| Error::NotRunning(id.to_string()))?;
        Ok(self.cgroups().group(&meta.cgroup))
    }
}

async fn read_exit(directory: &Path) -> Result<Option<ExitInfo>> {
    let path = directory.join(paths::EXIT_FILE);
    Ok(blocking(move || meta::read_json::<Exit>(&path))
        .await?
        .map(ExitInfo::from))
}
