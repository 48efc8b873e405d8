//! Datasets: made, filled, rolled back, measured and removed.
//!
//! The steps' order is what makes them safe; the invariants are in the module above.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use types::{Error, Result, SnapshotId, VolumeId, error::ResultExt as _, volume::Content};

use super::{
    ZfsPool,
    command::{Failed, LONG},
    plan::{Depth, Rewind, Step, plan},
    state::{
        BYTES, Branch, CONTENT, Form, GONE, HIDDEN, MARKED, Mark, STATE, State, branch_name, real,
        view_name,
    },
};
use crate::{Origin, no_dataset};

/// A zvol's size is a multiple of its block size; this is one of every block size there is.
const ZVOL_UNIT: u64 = 128 << 10;
/// How many snapshots one command destroys.
const BATCH: usize = 50;

impl ZfsPool {
    /// All branches, without their snapshots.
    pub(super) fn branches(&self) -> Result<State> {
        let args = ["get", "-Hp", "-d", "1", "-o", "name,property,value"];
        let args = [&args[..], &[super::state::PROPERTIES, &self.root]].concat();
        Ok(State::parse(&self.root, &self.zfs(&args)?))
    }

    /// Takes up the snapshots of some volumes.
    pub(super) fn add_snapshots(&self, state: &mut State, ids: &[&VolumeId]) -> Result<()> {
        let names: Vec<_> = ids
            .iter()
            .flat_map(|id| state.of(id))
            .map(|branch| self.full(&branch.name))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let columns = self.snapshot_columns();
        let mut args = vec![
            "list", "-H", "-r", "-d", "1", "-t", "snapshot", "-o", columns,
        ];
        args.extend(names.iter().map(String::as_str));
        state.add_snapshots(&self.root, &self.zfs(&args)?);
        Ok(())
    }

    /// A name alone is what `zfs list` gives fastest.
    fn snapshot_columns(&self) -> &'static str {
        if self.modern {
            "name"
        } else {
            "name,kraud:gone"
        }
    }

    /// The name that a snapshot has when nobody wants it any more.
    pub(super) fn hidden_name(&self, snapshot: &str) -> String {
        if self.modern {
            format!("{HIDDEN}{}", fresh())
        } else {
            format!("{MARKED}{snapshot}")
        }
    }

    /// Everything.
    pub(super) fn whole(&self) -> Result<State> {
        let mut state = self.branches()?;
        let columns = self.snapshot_columns();
        let args = [
            "list", "-H", "-r", "-t", "snapshot", "-o", columns, &self.root,
        ];
        state.add_snapshots(&self.root, &self.zfs(&args)?);
        Ok(state)
    }

    /// A volume with its snapshots, among all branches.
    pub(super) fn volume(&self, id: &VolumeId) -> Result<State> {
        let mut state = self.branches()?;
        self.add_snapshots(&mut state, &[id])?;
        Ok(state)
    }

    /// Brings volumes to their proper form.
    pub(super) fn tidy(&self, ids: &[VolumeId], depth: Depth) -> Result<()> {
        let mut state = self.branches()?;
        self.add_snapshots(&mut state, &ids.iter().collect::<Vec<_>>())?;
        self.execute(plan(state, ids, depth, &mut |name| self.hidden_name(name)))
    }

    /// Does what was planned.
    pub(super) fn execute(&self, steps: Vec<Step>) -> Result<()> {
        for step in steps {
            tracing::debug!(pool = %self.spec.name, ?step, "zfs");
            match step {
                Step::DropView(name) => {
                    if let Err(failed) = self.drop_view(&name) {
                        // Somebody reads it. It goes when nobody does; its snapshot waits for it.
                        tracing::debug!(%failed, "a view stays");
                    }
                }
                Step::Destroy(name) => self.destroy_branch(&name)?,
                Step::Promote(name) => {
                    self.zfs(&["promote", &self.full(&name)])?;
                    fault::point("zfs.tidy.promoted");
                }
                Step::Hide { branch, from, to } => self.hide(&branch, &from, &to)?,
                Step::Discard { branch, snapshots } => self.discard(&branch, &snapshots)?,
                Step::Rewind(rewind) => self.rewind(&rewind)?,
            }
        }
        Ok(())
    }

    fn destroy_branch(&self, name: &str) -> Result<()> {
        let name = self.full(name);
        patient(|| self.zfs_long(&["destroy", "-r", &name])).or_else(unless_absent)?;
        fault::point("zfs.tidy.destroyed");
        Ok(())
    }

    fn hide(&self, branch: &str, from: &str, to: &str) -> Result<()> {
        let branch = self.full(branch);
        let from = format!("{branch}@{from}");
        if to.starts_with(MARKED) {
            self.zfs(&["set", &property(GONE, "yes"), &from])?;
        } else {
            self.zfs(&["rename", &from, &format!("{branch}@{to}")])?;
        }
        fault::point("zfs.tidy.hidden");
        Ok(())
    }

    fn discard(&self, branch: &str, snapshots: &[String]) -> Result<()> {
        let batch = if self.modern { BATCH } else { 1 };
        for names in snapshots.chunks(batch) {
            let names: Vec<_> = names.iter().map(|name| real(name)).collect();
            let names = format!("{}@{}", self.full(branch), names.join(","));
            self.zfs_long(&["destroy", "-d", &names])
                .or_else(unless_absent)?;
            fault::point("zfs.tidy.discarded");
        }
        Ok(())
    }

    /// The head of a branch that only keeps snapshots must not hold more than they do.
    fn rewind(&self, wanted: &Rewind) -> Result<()> {
        let branch = self.full(&wanted.branch);
        if wanted.form != Form::Zvol {
            self.zfs(&["set", "canmount=noauto", &branch])?;
        }
        if wanted.mounted {
            self.zfs(&["unmount", &branch])?;
        }
        patient(|| self.zfs_long(&["rollback", &format!("{branch}@{}", real(&wanted.to))]))?;
        fault::point("zfs.tidy.rewound");
        self.mark(&wanted.branch, &Mark::Rewound(wanted.to.clone()))?;
        fault::point("zfs.tidy.noted");
        Ok(())
    }

    /// Says how far a branch has come: for a new one this is the moment at which it counts.
    fn mark(&self, branch: &str, mark: &Mark) -> Result<(), Failed> {
        let value = format!("{STATE}={}", mark.text());
        self.zfs(&["set", &value, &self.full(branch)]).map(drop)
    }

    pub(super) fn make(
        &self,
        id: &VolumeId,
        content: Content,
        from: Option<Origin<'_>>,
    ) -> Result<()> {
        let mut state = self.branches()?;
        if let Some(live) = state.live(id) {
            return self.ensure_mounted(live);
        }
        if state.of(id).next().is_some() {
            // What is left of a removal or of a creation that was cut off.
            self.tidy(std::slice::from_ref(id), Depth::Needed)?;
            state = self.branches()?;
        }
        let name = branch_name(id, state.next_number(id));
        let made = match from {
            None => self.make_empty(&name, content),
            Some(from) => self.make_copy(&mut state, &name, content, from),
        }
        .and_then(|()| {
            fault::point("zfs.create.filled");
            Ok(self.mark(&name, &Mark::Live)?)
        });
        if made.is_err() {
            self.undo(&name);
        }
        made?;
        fault::point("zfs.create.finished");
        Ok(())
    }

    fn make_empty(&self, name: &str, content: Content) -> Result<()> {
        let full = self.full(name);
        match content {
            Content::Files => {
                self.zfs(&["create", "-o", &property(CONTENT, "files"), &full])?;
                fault::point("zfs.create.made");
            }
            Content::Image { bytes } if self.modern => {
                let size = bytes.next_multiple_of(ZVOL_UNIT).to_string();
                let content = property(CONTENT, "image");
                self.zfs(&["create", "-s", "-V", &size, "-o", &content, &full])?;
                fault::point("zfs.create.made");
            }
            Content::Image { bytes } => {
                let content = property(CONTENT, "image");
                self.zfs(&[
                    "create",
                    "-o",
                    &content,
                    "-o",
                    &property(BYTES, bytes),
                    &full,
                ])?;
                fault::point("zfs.create.made");
                grow_file(&self.image(name), bytes)?;
            }
        }
        Ok(())
    }

    /// A clone, of a snapshot that is taken for it when none is named.
    fn make_copy(
        &self,
        state: &mut State,
        name: &str,
        content: Content,
        from: Origin<'_>,
    ) -> Result<()> {
        self.add_snapshots(state, &[from.dataset])?;
        let live = state
            .live(from.dataset)
            .ok_or_else(|| no_dataset(&self.spec.name, from.dataset))?
            .clone();
        let (branch, snapshot) = match from.snapshot {
            Some(wanted) => {
                let holder = state
                    .holder(from.dataset, wanted)
                    .ok_or_else(|| self.no_snapshot(from.dataset, wanted))?;
                (holder.name.clone(), wanted.to_string())
            }
            None => {
                let pin = format!("{HIDDEN}{}", fresh());
                self.zfs(&["snapshot", &format!("{}@{pin}", self.full(&live.name))])?;
                fault::point("zfs.create.pinned");
                (live.name.clone(), pin)
            }
        };
        let copied =
            self.clone_branch(&live, &branch, &snapshot, name)
                .and_then(|()| match content {
                    Content::Image { bytes } if live.form != Form::Files => {
                        self.grow_image(name, live.form, bytes)
                    }
                    _ => Ok(()),
                });
        if from.snapshot.is_none() {
            // It goes with the last clone; a sweep repeats it.
            if let Err(error) = self.discard(&branch, &[snapshot]) {
                tracing::warn!(%error, "the snapshot under a copy stays");
            }
        }
        copied
    }

    /// A clone of a snapshot, not marked yet, with the properties of `live`.
    fn clone_branch(&self, live: &Branch, branch: &str, snapshot: &str, name: &str) -> Result<()> {
        let content = property(
            CONTENT,
            if live.form == Form::Files {
                "files"
            } else {
                "image"
            },
        );
        let bytes = property(BYTES, live.bytes);
        let (from, to) = (format!("{}@{snapshot}", self.full(branch)), self.full(name));
        let mut args = vec!["clone", "-o", &content];
        if live.form == Form::ImageFile {
            args.extend(["-o", &bytes]);
        }
        args.extend([from.as_str(), to.as_str()]);
        self.zfs(&args)?;
        fault::point("zfs.clone.made");
        if live.form == Form::ImageFile {
            // The snapshot's image may be smaller than the live one.
            self.mount_named(name)?;
            let mut copy = live.clone();
            name.clone_into(&mut copy.name);
            self.note_size(&copy)?;
        }
        Ok(())
    }

    pub(super) fn unmake(&self, id: &VolumeId) -> Result<()> {
        let state = self.branches()?;
        if let Some(live) = state.live(id) {
            // Asks whether somebody uses it, before anything is changed.
            self.unmount(live)?;
            self.mark(&live.name, &Mark::Removed)?;
            fault::point("zfs.remove.marked");
        }
        if state.of(id).next().is_none() {
            return Ok(());
        }
        self.tidy(std::slice::from_ref(id), Depth::Needed)
            .map_err(|error| error.context(format!("remove dataset {id:?}")))
    }

    /// See the module: a clone that becomes the live one, not a `zfs rollback`.
    pub(super) fn turn_back(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()> {
        let state = self.volume(id)?;
        let live = state
            .live(id)
            .ok_or_else(|| no_dataset(&self.spec.name, id))?;
        let holder = state
            .holder(id, snapshot)
            .ok_or_else(|| self.no_snapshot(id, snapshot))?;
        self.unmount(live)?;
        fault::point("zfs.rollback.unmounted");
        let name = branch_name(id, state.next_number(id));
        let cloned = self
            .clone_branch(live, &holder.name, snapshot.as_str(), &name)
            .and_then(|()| self.take_over_limit(live, &name))
            .and_then(|()| {
                fault::point("zfs.rollback.cloned");
                Ok(self.mark(&name, &Mark::Live)?)
            });
        if let Err(error) = cloned {
            self.undo(&name);
            self.ensure_mounted(live)?;
            return Err(error);
        }
        fault::point("zfs.rollback.switched");
        // zfs-fuse throws the machine's page cache away when it rewinds: that waits for a sweep.
        let depth = if self.modern {
            Depth::Space
        } else {
            Depth::Needed
        };
        if let Err(error) = self.tidy(std::slice::from_ref(id), depth) {
            // It is rolled back; only the space of what was live is still held.
            tracing::warn!(%error, volume = ?id, "tidying up after a rollback is left to a sweep");
        }
        Ok(())
    }

    fn take_over_limit(&self, live: &Branch, name: &str) -> Result<()> {
        let Some(quota) = live.quota else {
            return Ok(());
        };
        match self.limit(name, Some(quota)) {
            Err(failed) if failed.is_below_use() => {
                // The snapshot is larger than what was allowed later: then it must not grow.
                let all = self.branches()?;
                let referenced = all.get(name).map_or(quota, |branch| branch.referenced);
                Ok(self.limit(name, Some(referenced.max(quota) + (1 << 20)))?)
            }
            other => Ok(other?),
        }
    }

    pub(super) fn limit(&self, name: &str, bytes: Option<u64>) -> Result<(), Failed> {
        let bytes = bytes.map_or("none".to_owned(), |bytes| bytes.to_string());
        self.zfs(&["set", &property("refquota", bytes), &self.full(name)])
            .map(drop)
    }

    /// Destroys what a call that failed was making.
    fn undo(&self, name: &str) {
        if let Err(failed) = self.zfs_long(&["destroy", "-r", &self.full(name)])
            && !failed.is_absent()
        {
            tracing::warn!(%failed, "what was not finished is left to a sweep");
        }
    }

    pub(super) fn grow_image(&self, name: &str, form: Form, bytes: u64) -> Result<()> {
        let full = self.full(name);
        match form {
            Form::Files => return Ok(()),
            Form::Zvol => {
                let size = bytes.next_multiple_of(ZVOL_UNIT);
                let now = self.branches()?.get(name).map_or(0, |branch| branch.bytes);
                if size > now {
                    self.zfs(&["set", &property("volsize", size), &full])?;
                }
            }
            Form::ImageFile => {
                self.mount_named(name)?;
                let length = grow_file(&self.image(name), bytes)?;
                fault::point("zfs.resize.grown");
                self.zfs(&["set", &property(BYTES, length), &full])?;
            }
        }
        fault::point("zfs.resize.done");
        Ok(())
    }

    pub(super) fn drop_snapshot(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()> {
        let mut state = self.volume(id)?;
        let Some(holder) = state.holder(id, snapshot).cloned() else {
            return Ok(());
        };
        let view = view_name(snapshot);
        if state.get(&view).is_some() && self.drop_view(&view).is_ok() {
            state.branches.retain(|branch| branch.name != view);
        }
        let full = format!("{}@{snapshot}", self.full(&holder.name));
        let has_clones = !state.clones(&holder.name, snapshot.as_str()).is_empty()
            || match self.zfs_long(&["destroy", &full]) {
                Ok(_) => false,
                Err(failed) if failed.has_clones() => true,
                Err(failed) => return Err(failed.into()),
            };
        if has_clones {
            let hidden = self.hidden_name(snapshot.as_str());
            self.hide(&holder.name, snapshot.as_str(), &hidden)?;
            self.discard(&holder.name, &[hidden])?;
        }
        fault::point("zfs.remove_snapshot.gone");
        if state.live(id).is_some_and(|live| live.name == holder.name) {
            return Ok(());
        }
        self.tidy(std::slice::from_ref(id), Depth::Space)
    }

    pub(super) fn no_snapshot(&self, id: &VolumeId, snapshot: &SnapshotId) -> Error {
        Error::not_found(format!(
            "dataset {id:?} of pool {} has no snapshot {snapshot:?}",
            self.spec.name
        ))
    }

    fn zfs_long(&self, args: &[&str]) -> Result<String, Failed> {
        super::command::run("zfs", args, LONG)
    }
}

pub(super) fn property(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name}={value}")
}

/// A name that nothing has.
pub(super) fn fresh() -> String {
    let mut text = types::id::random_hex();
    text.truncate(16);
    text
}

fn unless_absent(failed: Failed) -> Result<String, Failed> {
    if failed.is_absent() {
        Ok(String::new())
    } else {
        Err(failed)
    }
}

/// Repeats what fails because something has a hold for a moment: udev looks at a device, a
/// process that is being started has copies of our files and mounts, zfs-fuse has not yet seen
/// that it was unmounted.
pub(super) fn patient(command: impl Fn() -> Result<String, Failed>) -> Result<String, Failed> {
    let until = Instant::now() + Duration::from_secs(2);
    let mut pause = Duration::from_millis(10);
    loop {
        match command() {
            Err(failed) if failed.may_pass() && Instant::now() < until => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(200));
            }
            other => return other,
        }
    }
}

/// Makes a sparse file at least this long and returns its length.
fn grow_file(path: &Path, bytes: u64) -> Result<u64> {
    let grow = || -> std::io::Result<u64> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        if length < bytes {
            file.set_len(bytes)?;
            file.sync_all()?;
        }
        Ok(length.max(bytes))
    };
    grow().during(|| format!("grow {} to {bytes} bytes", path.display()))
}
