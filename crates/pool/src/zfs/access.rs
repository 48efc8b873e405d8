//! Where content is: branches mounted and unmounted, snapshots made readable.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{fs::StatVfsMountFlags, mount::MountFlags};
use types::{Error, Result, SnapshotId, VolumeId, error::ResultExt as _};

use super::{
    ZfsPool,
    command::{Failed, LONG, run},
    dataset::{patient, property},
    diff::{self, Changes},
    state::{BYTES, Branch, CONTENT, Form, State, view_name},
};
use crate::no_dataset;

/// The image in a file system of its own, where there are no zvols.
const IMAGE: &str = "image";

impl ZfsPool {
    /// The live content.
    pub(super) fn live_path(&self, id: &VolumeId) -> Result<PathBuf> {
        let state = self.branches()?;
        let live = state
            .live(id)
            .ok_or_else(|| no_dataset(&self.spec.name, id))?;
        self.ensure_mounted(live)?;
        self.content(&live.name, live.form)
    }

    /// What changed from a snapshot on.
    pub(super) fn changes(
        &self,
        id: &VolumeId,
        from: &SnapshotId,
        to: Option<&SnapshotId>,
    ) -> Result<Changes> {
        let entered = self.gate.enter()?;
        let before = self.view(id, from)?;
        let after = match to {
            Some(to) => self.view(id, to)?,
            None => self.live_path(id)?,
        };
        let state = self.volume(id)?;
        let live = state
            .live(id)
            .ok_or_else(|| no_dataset(&self.spec.name, id))?;
        if live.form != Form::Files {
            return Err(Error::invalid(format!(
                "compare snapshots of dataset {id:?}: it is an image, not files"
            )));
        }
        // The tree of a snapshot stays as it is, and what a writer does to the live one
        // meanwhile is his: other calls need not wait.
        drop(entered);
        let name = |snapshot: &SnapshotId| {
            let holder = state
                .holder(id, snapshot)
                .ok_or_else(|| self.no_snapshot(id, snapshot))?;
            Ok::<_, Error>((
                holder.name.clone(),
                format!("{}@{snapshot}", self.full(&holder.name)),
            ))
        };
        let (_, first) = name(from)?;
        let (branch, second) = match to {
            Some(to) => name(to)?,
            None => (live.name.clone(), self.full(&live.name)),
        };
        if self.modern
            && let Ok(lines) = run("zfs", &["diff", "-FH", &first, &second], LONG)
            && let Some(changes) = diff::parse(&lines, &self.mount.join(&branch), &before, &after)?
        {
            return Ok(changes);
        }
        let mut doubtful = self.created(&first)?;
        if to.is_some() {
            doubtful = doubtful.min(self.created(&second)?);
        }
        diff::trees(&before, &after, doubtful)
    }

    /// When a snapshot was taken, in seconds.
    fn created(&self, snapshot: &str) -> Result<i64> {
        let text = self.zfs(&["get", "-Hp", "-o", "value", "creation", snapshot])?;
        // Read every file rather than miss one.
        Ok(text.trim().parse().unwrap_or(0))
    }

    /// Removes directories that a crash left between the end of a branch and theirs.
    pub(super) fn sweep_directories(&self, state: &State) -> Result<()> {
        let operation = || format!("list {}", self.mount.display());
        for entry in std::fs::read_dir(&self.mount).during(operation)? {
            let name = entry.during(operation)?.file_name();
            if name.to_str().is_none_or(|name| state.get(name).is_none()) {
                // Nothing happens to one that is mounted or holds anything.
                let _ = std::fs::remove_dir(self.mount.join(&name));
            }
        }
        Ok(())
    }

    /// An image whose growing was cut off is as large as its file.
    pub(super) fn note_size(&self, live: &Branch) -> Result<()> {
        if live.form != Form::ImageFile {
            return Ok(());
        }
        let image = self.image(&live.name);
        let length = std::fs::metadata(&image)
            .during(|| format!("look at {}", image.display()))?
            .len();
        if length != live.bytes {
            self.zfs(&["set", &property(BYTES, length), &self.full(&live.name)])?;
        }
        Ok(())
    }

    /// A snapshot's content, by a read-only clone: the branch that has the snapshot need not be
    /// mounted, zvols are read in the same way, and zfs-fuse has no `.zfs` directory.
    pub(super) fn view(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<PathBuf> {
        let state = self.volume(id)?;
        let live = state
            .live(id)
            .ok_or_else(|| no_dataset(&self.spec.name, id))?;
        let holder = state
            .holder(id, snapshot)
            .ok_or_else(|| self.no_snapshot(id, snapshot))?;
        let name = view_name(snapshot);
        if state.get(&name).is_none() {
            let content = property(
                CONTENT,
                if live.form == Form::Files {
                    "files"
                } else {
                    "image"
                },
            );
            let from = format!("{}@{snapshot}", self.full(&holder.name));
            let to = self.full(&name);
            let mut args = vec!["clone", "-o", "readonly=on", "-o", &content];
            if live.form != Form::Zvol {
                args.extend(["-o", "canmount=noauto"]);
            }
            args.extend([from.as_str(), to.as_str()]);
            self.zfs(&args)?;
            fault::point("zfs.view.made");
        }
        if !state.get(&name).is_some_and(|view| view.mounted) && live.form != Form::Zvol {
            self.mount_named(&name)?;
            set_readonly(&self.mount.join(&name))?;
        }
        self.content(&name, live.form)
    }

    pub(super) fn drop_view(&self, name: &str) -> Result<String, Failed> {
        patient(|| self.zfs(&["destroy", &self.full(name)]))
    }

    /// Where a branch's content is; it is mounted already.
    fn content(&self, name: &str, form: Form) -> Result<PathBuf> {
        match form {
            Form::Files => Ok(self.mount.join(name)),
            Form::ImageFile => Ok(self.image(name)),
            Form::Zvol => wait_for_device(&Path::new("/dev/zvol").join(self.full(name))),
        }
    }

    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.mount.join(name).join(IMAGE)
    }

    pub(super) fn ensure_mounted(&self, branch: &Branch) -> Result<()> {
        if branch.mounted || branch.form == Form::Zvol {
            return Ok(());
        }
        self.mount_named(&branch.name)
    }

    pub(super) fn mount_named(&self, name: &str) -> Result<()> {
        match patient(|| self.zfs(&["mount", &self.full(name)])) {
            Err(failed) if !failed.is_mounted() => Err(failed.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn unmount(&self, branch: &Branch) -> Result<()> {
        if !branch.mounted {
            return Ok(());
        }
        match patient(|| self.zfs(&["unmount", &self.full(&branch.name)])) {
            Err(failed) if failed.is_busy() => Err(Error::conflict(format!(
                "dataset {} of pool {} is in use: {failed}",
                branch.name, self.spec.name
            ))),
            Err(failed) => Err(failed.into()),
            Ok(_) => Ok(()),
        }
    }
}

/// An old version lets files be opened for writing, and fails when it is done.
fn set_readonly(mount: &Path) -> Result<()> {
    let operation = || format!("make {} read-only", mount.display());
    let flags = rustix::fs::statvfs(mount).during(operation)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    rustix::mount::mount_remount(mount, MountFlags::BIND | MountFlags::RDONLY, "").during(operation)
}

/// udev makes the names of zvols a moment after the zvols.
fn wait_for_device(path: &Path) -> Result<PathBuf> {
    let until = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        if Instant::now() > until {
            return Err(Error::unavailable(format!(
                "there is no {} after 10 s: is udev running, with the rules of OpenZFS?",
                path.display()
            )));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(path.to_owned())
}
