//! The pool itself: made, imported, grown, exported, destroyed.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use types::{Error, Result, error::Kind, error::ResultExt as _};

use super::{
    ZfsPool,
    command::{Failed, LONG, SHORT, run},
    dataset::{patient, property},
    devices::{clear_dead_mounts, file_system_of, grow_file, layout, make_file, refuse_used, wipe},
    state::{Owner, State},
    status,
};
use crate::{Growth, Health, PoolSpec, PoolStatus, Source, probe};

/// Says that a file system is the root of a pool of ours, and its name.
const POOL: &str = "kraud:pool";

/// The file system of a pool of our own below which the datasets are.
const DATA: &str = "data";
/// What an old version keeps from writers, so that a full pool can be tidied up: this, or this
/// part of it.
const RESERVE: u64 = 16 << 20;
const RESERVED_PART: u64 = 64;

/// The names of the file systems that hold a pool's datasets are made of the pool's name and
/// of where it is mounted: two daemons on one machine don't meet.
fn unique(spec: &PoolSpec, mount: &Path) -> String {
    let digest = types::Digest::of(mount.as_os_str().as_bytes());
    format!("kraud-{}-{}", spec.name, &digest.hex()[..8])
}

/// The root file system of a pool.
pub(super) fn root_name(spec: &PoolSpec, mount: &Path) -> Result<String> {
    let unique = unique(spec, mount);
    match &spec.source {
        Source::Directory { path } => Ok(format!("{}/{unique}", file_system_of(path)?)),
        _ => Ok(format!("{unique}/{DATA}")),
    }
}

fn zpool(args: &[&str]) -> Result<String, Failed> {
    run("zpool", args, SHORT)
}

impl ZfsPool {
    /// The pool of the root file system.
    fn zpool_name(&self) -> &str {
        self.root.split('/').next().unwrap_or(&self.root)
    }
    fn owns_zpool(&self) -> bool {
        !matches!(self.spec.source, Source::Directory { .. })
    }
    /// What it was made of; what was added later is found where these are, or is shown by
    /// `zpool status`.
    fn first_devices(&self) -> Vec<PathBuf> {
        match &self.spec.source {
            Source::File { path, .. } => vec![path.clone()],
            Source::Devices { paths, .. } => paths.clone(),
            Source::Directory { .. } => Vec::new(),
        }
    }

    pub(super) fn is_imported(&self) -> Result<bool> {
        match zpool(&["list", "-H", "-o", "name", self.zpool_name()]) {
            Ok(_) => Ok(true),
            Err(failed) if failed.is_absent() => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }

    /// The name under which the root was made; `None` when there is no root, or not ours.
    fn label(&self) -> Result<Option<String>> {
        match self.zfs(&["get", "-H", "-o", "value", POOL, &self.root]) {
            Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| value != "-")),
            Err(failed) if failed.is_absent() => Ok(None),
            Err(failed) => Err(failed.into()),
        }
    }

    pub(super) fn make_pool(&self) -> Result<()> {
        std::fs::create_dir_all(&self.mount).during(|| format!("make {}", self.mount.display()))?;
        if self.owns_zpool() {
            self.make_or_find_zpool()?;
        }
        match self.label()? {
            None => {
                let mount = property("mountpoint", self.mount.display());
                let label = property(POOL, &self.spec.name);
                let mut args = vec!["create", "-o", &mount, "-o", &label];
                if self.owns_zpool() {
                    // The pool's own root is mounted there: it has room for directories when
                    // the datasets' quota is used up.
                    args.extend(["-o", "canmount=off"]);
                }
                args.push(&self.root);
                self.zfs(&args)?;
                fault::point("zfs.pool.made");
            }
            // A call that was cut off made it.
            Some(_) if self.branches()?.branches.is_empty() => {}
            Some(_) => {
                return Err(Error::conflict(format!(
                    "create pool {}: it exists already, with data: open it instead",
                    self.spec.name
                )));
            }
        }
        self.reserve()
    }

    /// A pool of this name is ours, from a call that was cut off: the name says where it is
    /// mounted.
    fn make_or_find_zpool(&self) -> Result<()> {
        if self.is_imported()? {
            return Ok(());
        }
        let label = format!("(label {})", self.zpool_name());
        let is_ours = |path: &PathBuf| {
            let content = probe::content(path).ok().flatten();
            content.is_some_and(|content| content.contains(&label))
        };
        if self.first_devices().iter().any(is_ours) {
            return self.import();
        }
        self.make_zpool()?;
        fault::point("zfs.pool.formatted");
        Ok(())
    }

    fn make_zpool(&self) -> Result<()> {
        let (paths, mirror) = match &self.spec.source {
            Source::File { path, bytes } => {
                make_file(path, *bytes)?;
                fault::point("zfs.pool.file");
                (std::slice::from_ref(path), false)
            }
            Source::Devices { paths, mirror } => {
                for path in paths {
                    refuse_used(path)?;
                }
                (&paths[..], *mirror)
            }
            Source::Directory { .. } => (&[][..], false),
        };
        let vdevs = layout(paths, mirror)?;
        // The system's own list of pools is not for ours: we import it. When a device fails,
        // writers get errors instead of hanging.
        let mut args = vec!["create", "-o", "cachefile=none", "-o", "failmode=continue"];
        args.extend(["-o", "autoexpand=on", "-O", "atime=off"]);
        args.extend(["-O", "com.sun:auto-snapshot=false"]);
        if self.modern {
            args.extend(["-o", "ashift=12", "-O", "compression=lz4"]);
            args.extend(["-O", "xattr=sa", "-O", "acltype=posixacl"]);
        }
        let mount = self.mount.to_string_lossy();
        args.extend(["-m", &mount, self.zpool_name()]);
        args.extend(vdevs.iter().map(String::as_str));
        run("zpool", &args, LONG)?;
        Ok(())
    }

    /// Imports it unless it still is, and mounts what is live.
    pub(super) fn open_pool(&self) -> Result<()> {
        if self.owns_zpool() && !self.is_imported()? {
            self.import()?;
        }
        match self.label()? {
            Some(label) if label == self.spec.name.as_str() => {}
            Some(label) => {
                return Err(Error::conflict(format!(
                    "open pool {}: {} holds the pool {label}",
                    self.spec.name, self.root
                )));
            }
            None => {
                return Err(Error::not_found(format!(
                    "open pool {}: there is no {} of ours",
                    self.spec.name, self.root
                )));
            }
        }
        self.reserve()?;
        self.mount_all()
    }

    /// A full pool must still let things be removed and rolled back. OpenZFS sees to that
    /// itself. In an old version our own changes need room like any write, so the writers get
    /// a quota that leaves some.
    fn reserve(&self) -> Result<()> {
        if self.modern || !self.owns_zpool() {
            return Ok(());
        }
        let (used, free) = self.space(self.zpool_name())?;
        let quota = used + free - ((used + free) / RESERVED_PART).max(RESERVE).min(free);
        match self.zfs(&["set", &property("quota", quota), &self.root]) {
            // It is full: the quota that it has must do.
            Err(failed) if failed.is_full() || failed.is_below_use() => {
                tracing::debug!(%failed, pool = %self.spec.name, "the quota stays");
                Ok(())
            }
            other => Ok(other.map(drop)?),
        }
    }

    /// Views that an earlier process made go, unless a container still reads one.
    fn mount_all(&self) -> Result<()> {
        // An import mounts it; after a failed export it need not be.
        let top = if self.owns_zpool() {
            self.zpool_name()
        } else {
            &self.root
        };
        match patient(|| self.zfs(&["mount", top])) {
            Err(failed) if !failed.is_mounted() => return Err(failed.into()),
            _ => {}
        }
        let state = self.branches()?;
        for id in state.volumes() {
            if let Some(live) = state.live(&id) {
                self.ensure_mounted(live)?;
                self.note_size(live)?;
            }
        }
        for view in state
            .branches
            .iter()
            .filter(|branch| branch.owner == Owner::View)
        {
            if let Err(failed) = self.zfs(&["destroy", &self.full(&view.name)]) {
                tracing::debug!(%failed, "a view stays");
            }
        }
        Ok(())
    }

    fn import(&self) -> Result<()> {
        clear_dead_mounts(&self.mount)?;
        let mut places: Vec<_> = self
            .first_devices()
            .iter()
            .filter_map(|path| path.parent())
            .map(|place| place.to_string_lossy().into_owned())
            .collect();
        places.sort();
        places.dedup();
        let mut args = vec!["import", "-o", "cachefile=none"];
        for place in &places {
            args.extend(["-d", place]);
        }
        args.push(self.zpool_name());
        match run("zpool", &args, LONG) {
            Ok(_) => Ok(()),
            // Some of its file systems could not be mounted: that is seen to afterwards.
            Err(_) if self.is_imported()? => Ok(()),
            Err(failed) => {
                let error = Error::from(failed);
                Err(Error::new(
                    Kind::Unavailable,
                    format!(
                        "open pool {}: {} (looked for its devices in {})",
                        self.spec.name,
                        error.message,
                        places.join(", ")
                    ),
                ))
            }
        }
    }

    pub(super) fn report(&self) -> Result<PoolStatus> {
        let faulted = |why: String| PoolStatus {
            health: Health::Faulted(why),
            total: 0,
            used: 0,
            free: 0,
            copies: 1,
            devices: self.first_devices(),
            root: self.mount.clone(),
        };
        let mut args = vec!["status"];
        if self.modern {
            // Whole paths.
            args.push("-P");
        }
        args.push(self.zpool_name());
        let report = match zpool(&args) {
            Ok(text) => status::parse(&text),
            Err(failed) if failed.is_absent() => {
                return Err(Error::not_found(format!(
                    "pool {} is not open: {failed}",
                    self.spec.name
                )));
            }
            Err(failed) => return Ok(faulted(failed.to_string())),
        };
        let (used, free) = match &report.health {
            Health::Faulted(_) => (0, 0),
            _ => self.space(&self.root)?,
        };
        Ok(PoolStatus {
            health: report.health,
            total: used + free,
            used,
            free,
            copies: report.copies,
            devices: report.devices,
            root: self.mount.clone(),
        })
    }

    /// Bytes used and free below a file system.
    fn space(&self, file_system: &str) -> Result<(u64, u64)> {
        let args = ["get", "-Hp", "-o", "value", "used,available", file_system];
        let text = self.zfs(&args)?;
        let mut numbers = text.lines().map(|line| line.trim().parse().unwrap_or(0));
        Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
    }

    pub(super) fn extend(&self, by: &Growth) -> Result<()> {
        match (by, &self.spec.source) {
            (_, Source::Directory { path }) => Err(Error::invalid(format!(
                "pool {} is a part of the ZFS pool of {}: let that one grow, with zpool",
                self.spec.name,
                path.display()
            ))),
            (Growth::Bytes(bytes), Source::File { path, .. }) => {
                grow_file(path, *bytes)?;
                fault::point("zfs.grow.file");
                self.fill()
            }
            (Growth::Bytes(_), _) => Err(Error::invalid(format!(
                "pool {} lies on devices: add one, or let them grow and then the pool",
                self.spec.name
            ))),
            (Growth::Devices(paths), source) => {
                let mirror = matches!(source, Source::Devices { mirror: true, .. });
                let there = self.report()?.devices;
                if paths.iter().all(|path| there.contains(path)) {
                    return Ok(());
                }
                for path in paths {
                    refuse_used(path)?;
                }
                let vdevs = layout(paths, mirror)?;
                let mut args = vec!["add", self.zpool_name()];
                args.extend(vdevs.iter().map(String::as_str));
                run("zpool", &args, LONG)?;
                fault::point("zfs.grow.device");
                self.reserve()
            }
            (Growth::Fill, _) => self.fill(),
        }
    }

    /// Uses devices that have grown to their end.
    fn fill(&self) -> Result<()> {
        if self.modern {
            for device in self.report()?.devices {
                zpool(&["online", "-e", self.zpool_name(), &device.to_string_lossy()])?;
            }
            return Ok(());
        }
        // An old version looks at sizes only when it opens a pool.
        self.close_pool().map_err(|error| {
            error.context("the device has grown, but this version of ZFS uses it only after the pool is opened anew")
        })?;
        self.open_pool()
    }

    pub(super) fn close_pool(&self) -> Result<()> {
        let closed = if self.owns_zpool() {
            self.export()
        } else {
            self.unmount_all()
        };
        let Err(failed) = closed else {
            return Ok(());
        };
        // A part may be unmounted already.
        if let Err(error) = self.mount_all() {
            tracing::warn!(%error, pool = %self.spec.name, "could not mount everything again");
        }
        Err(Error::from(failed).context(format!("close pool {}", self.spec.name)))
    }

    fn export(&self) -> Result<(), Failed> {
        match patient(|| run("zpool", &["export", self.zpool_name()], LONG)) {
            Err(failed) if failed.is_absent() => Ok(()),
            other => other.map(drop),
        }
    }

    fn unmount_all(&self) -> Result<(), Failed> {
        let Ok(state) = self.branches() else {
            return Ok(());
        };
        for branch in state.branches.iter().filter(|branch| branch.mounted) {
            self.zfs(&["unmount", &self.full(&branch.name)])?;
        }
        match self.zfs(&["unmount", &self.root]) {
            Err(failed) if failed.is_busy() => Err(failed),
            _ => Ok(()),
        }
    }

    pub(super) fn destroy_pool(&self) -> Result<()> {
        if self.owns_zpool() && !self.is_imported()? {
            // Without its devices there is nothing to destroy, or it is done already.
            if self.import().is_err() {
                return self.remove_traces(&self.first_devices());
            }
        }
        let state = match self.label()? {
            Some(_) => self.branches()?,
            None if self.owns_zpool() => State::default(),
            None => return self.remove_traces(&[]),
        };
        let alive = state
            .volumes()
            .iter()
            .filter(|id| state.live(id).is_some())
            .count();
        if alive > 0 {
            return Err(Error::conflict(format!(
                "destroy pool {}: it has {alive} dataset(s); remove them first",
                self.spec.name
            )));
        }
        let mut devices = self.first_devices();
        if self.owns_zpool() {
            devices.extend(self.report()?.devices);
            patient(|| run("zpool", &["destroy", self.zpool_name()], LONG))?;
        } else {
            patient(|| run("zfs", &["destroy", "-r", &self.root], LONG))?;
        }
        fault::point("zfs.pool.destroyed");
        devices.sort();
        devices.dedup();
        self.remove_traces(&devices)
    }

    /// After that the devices are free for anything.
    fn remove_traces(&self, devices: &[PathBuf]) -> Result<()> {
        if let Source::File { path, .. } = &self.spec.source {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::wrap(format!("remove {}", path.display()), error));
                }
                _ => {}
            }
        } else if self.owns_zpool() {
            let ours = format!("zfs_member (label {})", self.zpool_name());
            for device in devices {
                // Only what is ours: a device may be somebody else's by now.
                if probe::content(device).ok().flatten() == Some(ours.clone()) {
                    wipe(device)?;
                }
            }
        }
        let _ = std::fs::remove_dir(&self.mount);
        Ok(())
    }

    /// Waits until all that was done before is on the disk and counted.
    pub(super) fn settle(&self) -> Result<(), Failed> {
        if self.modern {
            zpool(&["sync", self.zpool_name()]).map(drop)
        } else {
            // Any change of a property waits for the transaction before it.
            self.zfs(&["set", "kraud:synced=yes", &self.root]).map(drop)
        }
    }

    /// Newer versions free in the background.
    pub(super) fn wait_for_space(&self, patience: Duration) -> Result<()> {
        self.settle()?;
        if !self.modern {
            return Ok(());
        }
        let until = Instant::now() + patience;
        loop {
            let args = ["get", "-Hp", "-o", "value", "freeing", self.zpool_name()];
            match zpool(&args) {
                Ok(freeing) if !matches!(freeing.trim(), "0" | "-") => {}
                _ => return Ok(()),
            }
            if Instant::now() > until {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
