//! A container's whole file tree as its own processes see it, running or not.
//!
//! A running container is entered through `/proc/<pid>/root`. One that does not run is
//! put together in a mount namespace of a thread's own: nothing of it is seen outside, and
//! it is gone with the thread whatever happens.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags},
};
use types::{Error, IdRange, Result, error::ResultExt as _};

use super::LocalAgent;
use crate::plan::Plan;

/// A container's root directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root<'a> {
    pub(super) fd: BorrowedFd<'a>,
    /// The node's ids that owners have here, if they are not those on disk.
    pub(super) seen_by: Option<IdRange>,
}

/// What is bound into a tree, and what keeps it attached.
struct Source {
    path: PathBuf,
    target: String,
    _used: Option<volume::User>,
}

impl LocalAgent {
    /// Calls `work` with the root directory of a container, its volumes in place, and with the
    /// ids it is seen by if it is seen through a user namespace. Blocking.
    pub(super) fn with_root<T: Send>(
        &self,
        plan: &Plan,
        work: impl FnOnce(Root<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        if let Some(pid) = self.pid(&plan.id)
            && let Some(live) = self.live(&plan.id)
            && let Ok(root) = File::open(format!("/proc/{pid}/root"))
        {
            return self.as_seen(&live, root.as_fd(), work);
        }
        self.in_private_mounts(plan, true, work)
    }

    /// The same with the files of the image and what was written over them, without volumes.
    /// Blocking.
    pub(super) fn with_image_root<T: Send>(
        &self,
        plan: &Plan,
        work: impl FnOnce(Root<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        if self.pid(&plan.id).is_some()
            && let Some(live) = self.live(&plan.id)
            && let Ok(root) = open_root(&self.root_of(&live))
        {
            return self.as_seen(&live, root.as_fd(), work);
        }
        self.in_private_mounts(plan, false, work)
    }

    /// Works on the tree of a running container, as its root if it has users of its own.
    fn as_seen<T: Send>(
        &self,
        live: &Plan,
        fd: BorrowedFd<'_>,
        work: impl FnOnce(Root<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        match self.namespace_of(live)? {
            None => work(Root { fd, seen_by: None }),
            Some(namespace) => namespace.as_root(|| {
                let seen_by = Some(namespace.ids());
                work(Root { fd, seen_by })
            }),
        }
    }

    fn in_private_mounts<T: Send>(
        &self,
        plan: &Plan,
        volumes: bool,
        work: impl FnOnce(Root<'_>) -> Result<T> + Send,
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
                    work(Root {
                        fd: root.as_fd(),
                        seen_by: None,
                    })
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
            users: None,
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

/// Binds `source` over `target` in `root`. A target that the image lacks is made, as a start
/// would make it; one that cannot be made (a dangling link in its path, say) is passed over.
fn bind(source: &Path, root: BorrowedFd<'_>, target: &str) -> Result<()> {
    let operation = || format!("mounting {} at {target}", source.display());
    let Ok(target_fd) =
        open_beneath(root, target).or_else(|_| make_target(root, target, source.is_dir()))
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

/// Opens a path as processes whose root is `root` see it.
fn open_beneath(root: BorrowedFd<'_>, path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(
        root,
        path.as_ref(),
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
}

/// Makes a mount point with the directories above it.
fn make_target(root: BorrowedFd<'_>, target: &str, is_dir: bool) -> rustix::io::Result<OwnedFd> {
    let mut path = PathBuf::from("/");
    let mut names = Path::new(target)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .peekable();
    while let Some(name) = names.next() {
        let parent = open_beneath(root, &path)?;
        path.push(name);
        match open_beneath(root, &path) {
            Ok(_) => {}
            Err(Errno::NOENT) if is_dir || names.peek().is_some() => {
                rustix::fs::mkdirat(&parent, name.as_os_str(), Mode::from_raw_mode(0o755))?;
            }
            Err(Errno::NOENT) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o644);
                drop(rustix::fs::openat(&parent, name.as_os_str(), flags, mode)?);
            }
            Err(error) => return Err(error),
        }
    }
    open_beneath(root, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_made_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("/real", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("broken")).unwrap();
        let fd = open_root(root).unwrap();
        make_target(fd.as_fd(), "/a/b", true).unwrap();
        assert!(root.join("a/b").is_dir());
        make_target(fd.as_fd(), "/link/c/file", false).unwrap();
        assert!(root.join("real/c/file").is_file());
        make_target(fd.as_fd(), "/../up", true).unwrap();
        assert!(root.join("up").is_dir());
        assert!(make_target(fd.as_fd(), "/broken/x", true).is_err());
    }
}
