//! A container's whole file tree as its own processes see it, running or not.
//!
//! A running container is entered through `/proc/<pid>/root`. One that does not run is
//! put together in a mount namespace of a thread's own: nothing of it is seen outside, and
//! it is gone with the thread whatever happens.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags},
};
use types::{Error, Result, error::ResultExt as _};

use super::LocalAgent;
use crate::plan::Plan;

/// What is bound into a tree, and what keeps it attached.
struct Source {
    path: PathBuf,
    target: String,
    _used: Option<volume::User>,
}

impl LocalAgent {
    /// Calls `work` with the root directory of a container, its volumes in place. Blocking.
    pub(super) fn with_root<T: Send>(
        &self,
        plan: &Plan,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        if let Some(pid) = self.pid(&plan.id)
            && let Ok(root) = File::open(format!("/proc/{pid}/root"))
        {
            return work(root.as_fd());
        }
        self.in_private_mounts(plan, true, work)
    }

    /// The same with the image's files alone. Blocking.
    pub(super) fn with_image_root<T: Send>(
        &self,
        plan: &Plan,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        self.in_private_mounts(plan, false, work)
    }

    fn in_private_mounts<T: Send>(
        &self,
        plan: &Plan,
        volumes: bool,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        // Attached here, where everybody sees the mounts, and given back when all is done.
        let sources = if volumes {
            self.sources_at_rest(plan)?
        } else {
            Vec::new()
        };
        let joined = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNS).during(|| "making a mount namespace")?;
                    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                    rustix::mount::mount_change("/", private).during(|| "making mounts private")?;
                    self.hide_volumes(&sources);
                    let root = self.assemble(plan, &sources)?;
                    work(root.as_fd())
                })
                .join()
        });
        joined.unwrap_or_else(|_| {
            Err(Error::system(format!(
                "working on the files of container {}",
                plan.id
            )))
        })
    }

    fn sources_at_rest(&self, plan: &Plan) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for mount in &plan.mounts {
            if let Some((path, used)) = self.source_at_rest(mount)? {
                sources.push(Source {
                    path,
                    target: mount.target.clone(),
                    _used: used,
                });
            }
        }
        Ok(sources)
    }

    /// The copies of other volumes' mounts in the calling thread's mount namespace would keep
    /// them from being detached as long as the work here lasts.
    fn hide_volumes(&self, needed: &[Source]) {
        let Ok(entries) = std::fs::read_dir(self.run_dir.join("volumes")) else {
            return;
        };
        for mount in entries.flatten().map(|entry| entry.path()) {
            if !needed.iter().any(|source| source.path.starts_with(&mount)) {
                let _ = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }

    /// Mounts a container's tree in the calling thread's own mount namespace.
    fn assemble(&self, plan: &Plan, sources: &[Source]) -> Result<OwnedFd> {
        let paths = self.paths_of(&plan.id);
        let spec = image::RootfsSpec {
            layers: plan.layers.clone(),
            upper: paths.upper,
            work: paths.work,
            target: paths.merged.clone(),
            volatile: false,
        };
        self.layers.mount_rootfs(&spec)?;
        let root = open_root(&paths.merged)?;
        for source in sources {
            bind(&source.path, root.as_fd(), &source.target)?;
        }
        Ok(root)
    }
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).during(|| format!("opening {}", path.display()))
}

/// Binds `source` over `target` in `root`; a target that the image lacks is passed over,
/// since only a start makes it.
fn bind(source: &Path, root: BorrowedFd<'_>, target: &str) -> Result<()> {
    let operation = || format!("mounting {} at {target}", source.display());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(target_fd) =
        rustix::fs::openat2(root, target, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    else {
        return Ok(());
    };
    let tree = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, source, tree).during(operation)?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", &target_fd, "", both).during(operation)
}
