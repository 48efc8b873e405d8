//! Pools on ZFS, by its commands `zpool` and `zfs`.
//!
//! Works with OpenZFS 2.x and with old versions as zfs-fuse (pool version 23), which know no
//! zvols, no `zfs diff`, no `.zfs` directory and one name per `zfs snapshot`. Nothing is kept
//! in memory: each call looks at what is there.
//!
//! # On the pool
//!
//! Below the pool's root file system, which is mounted where the caller wants it:
//!
//! - `<VolumeId>.<N>`: a *branch*. The one with the highest N among those whose property
//!   `kraud:state` is set decides: `live` makes it the live content of the volume, `removed`
//!   says that the volume is no more. `old:<snapshot>` marks one that only keeps snapshots.
//!   Without that property it was never finished: it is rubbish.
//! - `@<SnapshotId>`: a snapshot of the branch's volume. `@x-…`: one that nobody wants, which
//!   goes when its last clone goes. Other names are an administrator's, and stay as long as
//!   the volume.
//! - `view-<SnapshotId>`: a read-only clone, by which a snapshot is read.
//!
//! # Invariants
//!
//! 1. One property of one branch changes in one transaction. Setting `kraud:state` is the
//!    single step by which a volume appears, is rolled back, or is gone.
//! 2. A rollback clones the snapshot into branch N+1 and sets `live`. Nothing is renamed, and
//!    no snapshot is touched, newer ones included.
//! 3. Afterwards the live branch is promoted until its origin is of no branch of its own
//!    volume: it then holds all older snapshots, and `used` of the old branches is what only
//!    snapshots hold. Old branches without wanted snapshots are destroyed. The head of one
//!    that stays is taken back to its newest snapshot, to hold no space of its own.
//! 4. A snapshot with clones can't be destroyed. It is renamed to `x-…` first (in an old
//!    version, where that would unmount the clones, it gets the property `kraud:gone`) and
//!    then destroyed with `-d`, which waits for the clones. So a wanted snapshot always lies in a
//!    branch of its own volume.
//! 5. A branch that goes while other volumes are cloned from it is stripped first: a clone is
//!    promoted, and takes over what it needs. So a copy never depends on its origin.
//! 6. What follows from 3 to 5 is planned by `plan`, from what is found: after a crash the
//!    same plan goes on.
//!
//! Images are sparse zvols, or where there are none a sparse file in a branch of its own.

mod access;
mod command;
mod dataset;
mod devices;
mod diff;
mod plan;
mod snapshot;
mod state;
mod status;
mod vdev;

use std::{
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use types::{Error, Result, SnapshotId, VolumeId, volume::Content};

use self::{
    command::{Failed, SHORT, run},
    plan::Depth,
    state::Form,
};
use crate::{Change, Engine, Found, Growth, Origin, Pool, PoolSpec, PoolStatus, Usage, no_dataset};

/// A ZFS pool, opened.
#[derive(Debug)]
pub struct ZfsPool {
    spec: PoolSpec,
    /// Where its root file system is mounted.
    mount: PathBuf,
    /// The name of its root file system.
    root: String,
    /// OpenZFS, not a version of old.
    modern: bool,
    gate: Gate,
}

impl ZfsPool {
    /// Makes a pool; see [`crate::create`].
    pub fn create(spec: &PoolSpec, mount: &Path) -> Result<Self> {
        let pool = Self::new(spec, mount)?;
        pool.make_pool()?;
        Ok(pool)
    }

    /// Opens a pool; see [`crate::open`].
    pub fn open(spec: &PoolSpec, mount: &Path) -> Result<Self> {
        let pool = Self::new(spec, mount)?;
        pool.open_pool()?;
        Ok(pool)
    }

    fn new(spec: &PoolSpec, mount: &Path) -> Result<Self> {
        // Fails with what is to be done when there is no ZFS here.
        run("zpool", &["list", "-H", "-o", "name"], SHORT)?;
        Ok(Self {
            spec: spec.clone(),
            mount: mount.to_owned(),
            root: vdev::root_name(spec, mount)?,
            modern: is_modern(),
            gate: Gate::default(),
        })
    }

    /// The whole name of a branch.
    fn full(&self, branch: &str) -> String {
        format!("{}/{branch}", self.root)
    }

    fn zfs(&self, args: &[&str]) -> Result<String, Failed> {
        run("zfs", args, SHORT)
    }
}

/// The overview that `zfs` prints without arguments names its subcommands. `diff` came after
/// the last version that lacks what is used here.
fn is_modern() -> bool {
    let none: [&str; 0] = [];
    match run("zfs", &none, SHORT) {
        Ok(text) => text.contains("diff"),
        Err(failed) => failed.to_string().contains("diff "),
    }
}

impl Pool for ZfsPool {
    fn engine(&self) -> Engine {
        Engine::Zfs
    }

    fn status(&self) -> Result<PoolStatus> {
        self.report()
    }

    fn datasets(&self) -> Result<Vec<Found>> {
        let state = self.whole()?;
        Ok(state
            .volumes()
            .into_iter()
            .filter_map(|id| {
                let live = state.live(&id)?;
                let content = match live.form {
                    Form::Files => Content::Files,
                    _ => Content::Image { bytes: live.bytes },
                };
                let snapshots = state
                    .of(&id)
                    .filter(|branch| branch.mark != state::Mark::Unfinished)
                    .flat_map(|branch| &branch.snapshots)
                    .filter_map(|name| name.parse().ok())
                    .collect();
                Some(Found {
                    id,
                    content,
                    snapshots,
                })
            })
            .collect())
    }

    fn sweep(&self) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.sweep_helping()?;
        let state = self.whole()?;
        self.sweep_directories(&state)?;
        let ids = state.volumes();
        self.execute(plan::plan(state, &ids, Depth::Space, &mut |name| {
            self.hidden_name(name)
        }))
    }

    fn create(&self, id: &VolumeId, content: Content, from: Option<Origin<'_>>) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.make(id, content, from)
    }

    fn remove(&self, id: &VolumeId) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.unmake(id)
    }

    fn path(&self, id: &VolumeId) -> Result<PathBuf> {
        self.live_path(id)
    }

    fn snapshot_path(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<PathBuf> {
        let _entered = self.gate.enter()?;
        self.view(id, snapshot)
    }

    fn snapshot(&self, wanted: &[(&VolumeId, &SnapshotId)]) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.take(wanted)
    }

    fn remove_snapshot(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.drop_snapshot(id, snapshot)
    }

    fn rollback(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.turn_back(id, snapshot)
    }

    fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()> {
        let _entered = self.gate.enter()?;
        let state = self.branches()?;
        let live = state
            .live(id)
            .ok_or_else(|| no_dataset(&self.spec.name, id))?;
        if live.form == Form::Files {
            return Err(Error::invalid(format!(
                "resize dataset {id:?}: it holds files and has a limit, not a size"
            )));
        }
        if bytes < live.bytes {
            return Err(Error::invalid(format!(
                "resize dataset {id:?} to {bytes} bytes: it has {} and never becomes smaller",
                live.bytes
            )));
        }
        self.grow_image(&live.name, live.form, bytes)
    }

    /// An image has its own size and needs no limit.
    fn set_limit(&self, id: &VolumeId, bytes: Option<u64>) -> Result<()> {
        let _entered = self.gate.enter()?;
        let state = self.branches()?;
        let live = state
            .live(id)
            .ok_or_else(|| no_dataset(&self.spec.name, id))?;
        if live.form != Form::Files {
            return Ok(());
        }
        match self.limit(&live.name, bytes) {
            Err(failed) if failed.is_below_use() => Err(Error::conflict(format!(
                "limit dataset {id:?} to {} bytes: it holds {} already",
                bytes.unwrap_or(0),
                live.referenced
            ))),
            other => Ok(other?),
        }
    }

    fn usage(&self, id: &VolumeId) -> Result<Usage> {
        if let Err(failed) = self.settle() {
            // A full or degraded pool still tells what it knows.
            tracing::debug!(%failed, "usage without the last writes");
        }
        let state = self.branches()?;
        let live = state
            .live(id)
            .ok_or_else(|| no_dataset(&self.spec.name, id))?;
        let all: u64 = state.of(id).map(|branch| branch.used).sum();
        Ok(Usage {
            live: live.referenced,
            snapshots: all.saturating_sub(live.used_by_head),
            limit: live.quota,
        })
    }

    fn charged(&self) -> Result<Vec<(VolumeId, u64)>> {
        let state = self.branches()?;
        Ok(state
            .volumes()
            .into_iter()
            .filter_map(|id| {
                let live = state.live(&id)?;
                Some((id, live.referenced))
            })
            .collect())
    }

    fn reclaim(&self, patience: Duration) -> Result<()> {
        let _entered = self.gate.enter()?;
        let state = self.whole()?;
        let ids = state.volumes();
        self.execute(plan::plan(state, &ids, Depth::Space, &mut |name| {
            self.hidden_name(name)
        }))?;
        self.wait_for_space(patience)
    }

    /// Where there is no `zfs diff`, and between snapshots that a rollback parted, both trees
    /// are walked: that takes time proportional to the number of files.
    fn diff(
        &self,
        id: &VolumeId,
        from: &SnapshotId,
        to: Option<&SnapshotId>,
    ) -> Result<Vec<Change>> {
        self.changes(id, from, to).map(diff::sorted)
    }

    fn grow(&self, by: &Growth) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.extend(by)
    }

    fn close(&self) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.close_pool()
    }

    fn destroy(&self) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.destroy_pool()
    }
}

/// One change at a time; who waits too long is told so.
#[derive(Debug, Default)]
struct Gate {
    taken: Mutex<bool>,
    free: Condvar,
}

struct Entered<'a>(&'a Gate);

impl Gate {
    const PATIENCE: Duration = Duration::from_secs(120);

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<Entered<'_>> {
        let (mut taken, waited) = self
            .free
            .wait_timeout_while(self.lock(), Self::PATIENCE, |taken| *taken)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && *taken {
            return Err(Error::unavailable(format!(
                "the pool is busy with another call for more than {} s",
                Self::PATIENCE.as_secs()
            )));
        }
        *taken = true;
        Ok(Entered(self))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.0.lock() = false;
        self.0.free.notify_one();
    }
}
