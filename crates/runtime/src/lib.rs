//! Containers on this machine's kernel.
//!
//! [`Runtime`] starts processes through an OCI runtime under a `kraud-shim` each, attaches to
//! them, signals, freezes, limits, measures and removes them. The pure parts are on their
//! own: [`bundle`] (what docker's configuration means in OCI terms), [`caps`], [`seccomp`],
//! [`user`], [`cgroup`], [`logs`].
//!
//! It does not make root file systems, networks or volumes, keeps no records, and decides
//! nothing about restarts: the agent brings those together.
//!
//! All that must be known of a running container lies in the run directory (which a reboot
//! empties) and in its shim; any number of [`Runtime`] values, one after another, see the same.

pub mod bundle;
pub mod caps;
pub mod cgroup;
mod client;
mod control;
mod error;
mod failure;
mod launch;
pub mod logs;
mod meta;
mod paths;
pub mod process;
pub mod seccomp;
pub mod user;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{cgroup::Cgroups, paths::Paths};
pub use crate::{
    client::{AttachOptions, Attachment, Frame, Input, Output},
    control::{ExitInfo, Inspected},
    error::{Error, Result, StartError, StartErrorKind},
    launch::{ExecLaunch, Launch, LogSettings, Started, Stdio},
    logs::{Batches, LogEntry, LogQuery},
};

/// What a [`Runtime`] works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For this instance only, on a file system that a reboot empties.
    pub run_dir: PathBuf,
    /// The binary `kraud-shim`.
    pub shim: PathBuf,
    /// OCI runtimes by name.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// One of them.
    pub default_runtime: String,
    /// Control group above all containers, such as `/kraud-1a2b3c4d`.
    pub cgroup_parent: String,
    /// The init for `--init`, such as `/usr/bin/docker-init`.
    pub init: Option<PathBuf>,
}

/// The containers of one instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    paths: Paths,
    cgroups: Cgroups,
    starting: client::Starting,
    filters: seccomp::Compiled,
}

impl Runtime {
    /// Looks at the machine's control groups, and makes the run directory and, where it has to be
    /// set up, the group that all others are in.
    pub fn new(settings: Settings) -> Result<Self> {
        let paths = Paths(settings.run_dir.clone());
        for directory in [paths.runtime_root(), paths.containers()] {
            fs::create_dir_all(&directory)
                .map_err(Error::io(format!("create {}", directory.display())))?;
        }
        let cgroups = Cgroups::detect()?;
        cgroups.prepare(&settings.cgroup_parent)?;
        Ok(Self(Arc::new(Inner {
            settings,
            paths,
            cgroups,
            starting: client::Starting::default(),
            filters: seccomp::Compiled::default(),
        })))
    }

    /// The path of an OCI runtime by its name; empty means the default one.
    pub fn runtime_path(&self, name: &str) -> Result<&Path> {
        let settings = &self.0.settings;
        let name = if name.is_empty() {
            &settings.default_runtime
        } else {
            name
        };
        let path = settings.runtimes.get(name).map(PathBuf::as_path);
        path.ok_or_else(|| Error::UnknownRuntime(name.to_owned()))
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The machine's control groups.
    pub fn cgroups(&self) -> &Cgroups {
        &self.0.cgroups
    }

    /// The control group of a container: below `parent` where one is given
    /// (`--cgroup-parent`), else below the instance's own.
    pub fn cgroup_path(&self, id: &types::ContainerId, parent: &str) -> String {
        let parent = if parent.is_empty() {
            &self.0.settings.cgroup_parent
        } else {
            parent
        };
        format!("/{}/{id}", parent.trim_matches('/'))
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.0.paths
    }
    pub(crate) fn filters(&self) -> &seccomp::Compiled {
        &self.0.filters
    }
    pub(crate) fn starting(&self) -> &client::Starting {
        &self.0.starting
    }
}
