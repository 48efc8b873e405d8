//! Control groups: which layout the machine has, and one container's group in it.
//!
//! Two layouts are known: pure v2, and v1 (one mount per controller) with or without a v2
//! mount beside it, which then carries no limits of ours. The OCI runtime makes the groups
//! and sets the first limits; this module reads, changes, freezes and removes them.

mod files;

mod limits;
mod procfs;
mod throttle;
mod v1;
mod v2;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use types::{container::Resources, stats::Stats};

pub(crate) use self::limits::cpu_bandwidth;
pub use self::{
    procfs::{interfaces, parse_interfaces},
    throttle::IoLimits,
};
use crate::error::{Error, Result};

const ROOT: &str = "/sys/fs/cgroup";
/// `statfs` of a v2 mount (linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// How long dying and freezing may take before it is an error.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machine's control group mounts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups(Arc<Layout>);

#[derive(Debug)]
enum Layout {
    V1 {
        /// Mount point by controller; `systemd` for the hierarchy of that name.
        mounts: BTreeMap<String, PathBuf>,
        /// A v2 mount that owns controllers, which crun before 1.15 refuses to see.
        hide: Option<PathBuf>,
    },
    V2 {
        root: PathBuf,
    },
}

impl Cgroups {
    /// Looks at this machine.
    pub fn detect() -> Result<Self> {
        let root = Path::new(ROOT);
        let magic = rustix::fs::statfs(root)
            .map_err(|errno| Error::io(format!("look at {ROOT}"))(errno.into()))?
            .f_type;
        if u64::try_from(magic).ok() == Some(CGROUP2_MAGIC) {
            return Ok(Self::v2(root));
        }
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(Error::io("read /proc/self/mounts"))?;
        let mounts = v1::parse_mounts(&mounts);
        if mounts.is_empty() {
            return Err(Error::Invalid(format!(
                "no control groups are mounted at {ROOT}: mount cgroup2 there"
            )));
        }
        let unified = root.join("unified");
        let owned = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
        let hide = (!owned.trim().is_empty()).then_some(unified);
        Ok(Self(Arc::new(Layout::V1 { mounts, hide })))
    }

    /// Makes a group that containers' groups are to be in, where its controller wants it set up:
    /// a cpuset of v1 begins without processors and memory, and nothing can be put into groups
    /// below it. OCI runtimes that start side by side would each find it, half set up by another.
    pub fn prepare(&self, path: &str) -> Result<()> {
        let Layout::V1 { mounts, .. } = &*self.0 else {
            return Ok(());
        };
        let Some(mount) = mounts.get("cpuset") else {
            return Ok(());
        };
        let mut directory = mount.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let parent = directory.clone();
            directory.push(part);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(format!(
                        "create the control group {}",
                        directory.display()
                    ))(error));
                }
                _ => {}
            }
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = directory.join(file);
                if files::text(&own)?.trim().is_empty() {
                    files::write(&own, files::text(&parent.join(file))?.trim())?;
                }
            }
        }
        Ok(())
    }

    /// Makes a group that containers' groups are to be in and whose limits are for all of them
    /// together. It may be there already.
    pub fn make(&self, path: &str) -> Result<()> {
        self.prepare(path)?;
        let create = |directory: &Path| {
            fs::create_dir_all(directory).map_err(Error::io(format!(
                "create the control group {}",
                directory.display()
            )))
        };
        match &*self.0 {
            Layout::V1 { mounts, .. } => ["memory", "cpu", "pids", "blkio"]
                .into_iter()
                .filter_map(|controller| mounts.get(controller))
                .try_for_each(|mount| create(&mount.join(path.trim_matches('/')))),
            Layout::V2 { root } => {
                let mut directory = root.clone();
                let mut parts = path.split('/').filter(|part| !part.is_empty());
                loop {
                    // One by one: a controller that the machine lacks must not cost the others.
                    for controller in ["memory", "cpu", "pids", "io", "cpuset"] {
                        let file = directory.join("cgroup.subtree_control");
                        if let Err(error) = files::write(&file, &format!("+{controller}")) {
                            tracing::debug!(%error, controller, "a controller is not for groups below");
                        }
                    }
                    let Some(part) = parts.next() else {
                        return Ok(());
                    };
                    directory.push(part);
                    create(&directory)?;
                }
            }
        }
    }

    /// A v2 hierarchy at `root`.
    pub fn v2(root: &Path) -> Self {
        Self(Arc::new(Layout::V2 {
            root: root.to_owned(),
        }))
    }

    /// 1 or 2.
    pub fn version(&self) -> u8 {
        match *self.0 {
            Layout::V1 { .. } => 1,
            Layout::V2 { .. } => 2,
        }
    }

    /// Whether limits of this controller (by its v1 name) can be set.
    pub fn has(&self, controller: &str) -> bool {
        match &*self.0 {
            Layout::V1 { mounts, .. } => mounts.contains_key(controller),
            Layout::V2 { root } => {
                let controller = match controller {
                    "blkio" => "io",
                    // A property of each group, and a BPF program.
                    "freezer" | "devices" | "cpuacct" => return true,
                    other => other,
                };
                let all = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                all.split_ascii_whitespace().any(|name| name == controller)
            }
        }
    }

    /// Whether swap can be limited.
    pub fn has_swap_limit(&self) -> bool {
        match &*self.0 {
            Layout::V1 { mounts, .. } => mounts
                .get("memory")
                .is_some_and(|mount| mount.join("memory.memsw.limit_in_bytes").exists()),
            // The root group has no such file, and any other group does where swap is accounted.
            Layout::V2 { .. } => Path::new("/proc/swaps").exists(),
        }
    }

    /// Whether weights of block I/O can be set: in v1 only some of the kernel's schedulers have them.
    pub fn has_blkio_weight(&self) -> bool {
        match &*self.0 {
            Layout::V1 { mounts, .. } => mounts
                .get("blkio")
                .is_some_and(|mount| mount.join("blkio.weight").exists()),
            Layout::V2 { .. } => self.has("blkio"),
        }
    }

    /// A mount that the OCI runtime must not see, if there is one.
    pub fn mount_to_hide(&self) -> Option<&Path> {
        match &*self.0 {
            Layout::V1 { hide, .. } => hide.as_deref(),
            Layout::V2 { .. } => None,
        }
    }

    /// The group at `path` below each mount; it need not exist.
    pub fn group(&self, path: &str) -> Group {
        Group {
            layout: self.0.clone(),
            path: path.trim_matches('/').to_owned(),
        }
    }
}

/// One container's control group, in all hierarchies.
#[derive(Debug, Clone)]
pub struct Group {
    layout: Arc<Layout>,
    /// Relative, never empty for a group that is changed.
    path: String,
}

impl Group {
    /// Whether any part of it exists.
    pub fn exists(&self) -> bool {
        self.directories()
            .iter()
            .any(|directory| directory.exists())
    }

    /// Ids of its processes and those of nested groups, sorted.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        // In v1 a process is in the same group everywhere: one hierarchy tells of all.
        if let Some(directory) = self.process_directory() {
            files::collect_pids(&directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Its directory in the hierarchy that is asked for processes.
    fn process_directory(&self) -> Option<PathBuf> {
        match &*self.layout {
            Layout::V1 { mounts, .. } => {
                let preferred = ["pids", "memory", "freezer", "devices", "cpu"];
                let mount = preferred
                    .iter()
                    .find_map(|name| mounts.get(*name))
                    .or_else(|| mounts.values().next());
                Some(mount?.join(&self.path))
            }
            Layout::V2 { root } => Some(root.join(&self.path)),
        }
    }

    /// Sends a signal to all of them.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        for pid in self.pids()? {
            let started = shim::proto::Started {
                pid,
                start_time: crate::process::start_time(pid).unwrap_or_default(),
            };
            crate::process::signal(started, signal)
                .map_err(Error::io(format!("signal process {pid}")))?;
        }
        Ok(())
    }

    /// Freezes or thaws; returns when the kernel has done it.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.write_freezer(frozen)?;
            if self.is_frozen()? == frozen {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::io(format!("freeze /{}", self.path))(
                    io::ErrorKind::TimedOut.into(),
                ));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether all its processes are frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        match &*self.layout {
            Layout::V1 { mounts, .. } => {
                let Some(mount) = mounts.get("freezer") else {
                    return Ok(false);
                };
                Ok(files::text(&mount.join(&self.path).join("freezer.state"))?.trim() == "FROZEN")
            }
            Layout::V2 { root } => {
                let events = files::text(&root.join(&self.path).join("cgroup.events"))?;
                Ok(files::field(&events, "frozen") == Some(1))
            }
        }
    }

    fn write_freezer(&self, frozen: bool) -> Result<()> {
        match &*self.layout {
            Layout::V1 { mounts, .. } => {
                let mount = mounts.get("freezer").ok_or_else(|| {
                    Error::Invalid("the freezer control group is not mounted".into())
                })?;
                files::write(
                    &mount.join(&self.path).join("freezer.state"),
                    if frozen { "FROZEN" } else { "THAWED" },
                )
            }
            Layout::V2 { root } => files::write(
                &root.join(&self.path).join("cgroup.freeze"),
                if frozen { "1" } else { "0" },
            ),
        }
    }

    /// Applies the limits that `resources` names.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        let writes = match &*self.layout {
            Layout::V1 { .. } => limits::v1(resources),
            Layout::V2 { .. } => limits::v2(resources),
        };
        self.apply(&writes)
    }

    fn apply(&self, changes: &[limits::Change]) -> Result<()> {
        for change in changes {
            let directory = match &*self.layout {
                Layout::V1 { mounts, .. } => {
                    let mount = mounts.get(change.controller);
                    mount.ok_or_else(|| {
                        Error::Invalid(format!(
                            "the control group {} is not mounted",
                            change.controller
                        ))
                    })?
                }
                Layout::V2 { root } => root,
            };
            change.apply(&directory.join(&self.path))?;
        }
        Ok(())
    }

    /// Where it is below each mount.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Limits all that is in the group and below it: bytes of memory, billionths of processors,
    /// processes and threads. Without a value there is no limit.
    pub fn limit(
        &self,
        memory: Option<u64>,
        nano_cpus: Option<u64>,
        pids: Option<u64>,
    ) -> Result<()> {
        let changes = match &*self.layout {
            Layout::V1 { mounts, .. } => {
                let mut changes = limits::whole_v1(memory, nano_cpus, pids);
                changes.retain(|change| mounts.contains_key(change.controller));
                changes
            }
            Layout::V2 { .. } => limits::whole_v2(memory, nano_cpus, pids),
        };
        self.apply(&changes)
    }

    /// Limits how fast all that is in the group reads and writes together; fails where the machine
    /// cannot. In version 1 each group that is in it now gets the limit for itself.
    pub fn limit_io(&self, limits: &IoLimits) -> Result<()> {
        match &*self.layout {
            Layout::V1 { mounts, .. } => match mounts.get("blkio") {
                Some(mount) => limits.apply_v1(&mount.join(&self.path)),
                None if *limits == IoLimits::default() => Ok(()),
                None => Err(Error::Invalid(
                    "the control group blkio is not mounted: reading and writing cannot be limited"
                        .into(),
                )),
            },
            Layout::V2 { root } => limits.apply_v2(&root.join(&self.path)),
        }
    }

    /// One sample of its counters.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = match &*self.layout {
            Layout::V1 { mounts, .. } => v1::stats(mounts, &self.path)?,
            Layout::V2 { root } => v2::stats(&root.join(&self.path))?,
        };
        procfs::machine(&mut stats)?;
        Ok(stats)
    }

    /// The file that counts OOM kills in a line `oom_kill N`.
    pub fn oom_file(&self) -> Option<PathBuf> {
        match &*self.layout {
            Layout::V1 { mounts, .. } => Some(
                mounts
                    .get("memory")?
                    .join(&self.path)
                    .join("memory.oom_control"),
            ),
            Layout::V2 { root } => Some(root.join(&self.path).join("memory.events")),
        }
    }

    /// OOM kills so far; 0 when the group is gone.
    pub fn oom_kills(&self) -> u64 {
        let text = self
            .oom_file()
            .and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default();
        files::field(&text, "oom_kill").unwrap_or(0)
    }

    /// Kills all processes and removes the group with those nested in it. Idempotent.
    pub fn destroy(&self) -> Result<()> {
        if self.path.is_empty() || !self.exists() {
            return Ok(());
        }
        self.kill_all()?;
        self.directories()
            .iter()
            .try_for_each(|directory| files::remove_group(directory, PATIENCE))
    }

    fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(200);
        while !self.pids()?.is_empty() {
            self.signal_all(9)?;
            // A frozen process dies only when it is thawed.
            if self.is_frozen().unwrap_or(false) {
                self.write_freezer(false)?;
            }
            if Instant::now() > deadline {
                return Err(Error::io(format!("kill the processes of /{}", self.path))(
                    io::ErrorKind::TimedOut.into(),
                ));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its directory in every hierarchy.
    fn directories(&self) -> Vec<PathBuf> {
        match &*self.layout {
            Layout::V1 { mounts, hide } => {
                let mut directories: Vec<PathBuf> = mounts
                    .values()
                    .map(|mount| mount.join(&self.path))
                    .collect();
                directories.extend(hide.as_ref().map(|mount| mount.join(&self.path)));
                // Controllers that share a mount.
                directories.sort();
                directories.dedup();
                directories
            }
            Layout::V2 { root } => vec![root.join(&self.path)],
        }
    }
}
