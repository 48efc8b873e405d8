//! User namespaces: what a tenant's containers are in, so that no user of theirs, root included,
//! is a user of the machine.
//!
//! A namespace is made once and kept by a bind mount on a file. What lies on disk keeps the
//! owners that containers see: file trees reach a container through mounts that map owners
//! (`mount_setattr(2)` with `MOUNT_ATTR_IDMAP`; Linux 5.12, below an overlay 5.19).
//!
//! It keeps no records and does not know tenants. All of it blocks.

mod sys;

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{
        MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, move_mount, open_tree, unmount,
    },
};
use types::{Error, IdRange, Result, error::ResultExt as _};

/// A user namespace.
#[derive(Debug)]
pub struct UserNamespace {
    namespace: OwnedFd,
    path: PathBuf,
    ids: IdRange,
}

impl UserNamespace {
    /// Where it is mounted, for programs that enter it by a path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The machine's ids that it uses.
    pub fn ids(&self) -> IdRange {
        self.ids
    }

    /// A new network namespace whose owner it is: root in the one rules in the other.
    pub fn new_network(&self) -> io::Result<OwnedFd> {
        sys::new_network(self.namespace.as_fd())
    }

    /// Runs `work` on a thread of its own, as whose files the namespace's root is taken for; all
    /// capabilities stay. Where owners are mapped the machine's root can make no file: it has
    /// no id there. An overlay that is mounted so makes its own files so.
    pub fn as_root<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let ids = self.ids;
        let run = move || {
            sys::become_root_of(ids).during(|| "taking on the ids of a user namespace")?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(run).join())
            .unwrap_or_else(|_| Err(Error::system("work for a user namespace panicked")))
    }

    /// A detached mount of `source`, a file or directory, on which owners are seen through this
    /// namespace: 0 on disk is its root. Device nodes on it open nothing.
    ///
    /// # Errors
    /// When the file system at `source` cannot map owners.
    pub fn mapped(&self, source: &Path) -> Result<OwnedFd> {
        let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, source, tree)
            .during(|| format!("mounting {} with mapped owners", source.display()))?;
        self.map(mount.as_fd(), source)?;
        Ok(mount)
    }

    /// Mounts `source` with mapped owners at `target`, an existing file or directory as it.
    pub fn mount(&self, source: &Path, target: &Path) -> Result<()> {
        attach(self.mapped(source)?.as_fd(), target)
    }

    fn map(&self, mount: BorrowedFd<'_>, source: &Path) -> Result<()> {
        sys::map_mount(mount, self.namespace.as_fd()).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(nix::libc::EINVAL) => {
                    ": its file system cannot map owners (idmapped mounts), which the containers of tenants need; ext4, xfs, btrfs, and ZFS from 2.2 on can"
                }
                _ => "",
            };
            Error::wrap(
                format_args!("mounting {} with mapped owners{why}", source.display()),
                error,
            )
        })
    }
}

/// Whether files below `directory` can be given to containers with users of their own: fails with
/// what is missing. Leaves nothing behind.
pub fn probe(directory: &Path) -> Result<()> {
    let ids = IdRange {
        first: IdRange::FIRST,
        count: 1,
    };
    let namespace = sys::new_user_namespace(ids).during(|| "making a user namespace")?;
    let probe = UserNamespace {
        namespace,
        path: PathBuf::new(),
        ids,
    };
    probe.mapped(directory).map(drop)
}

/// Puts a detached mount at `target`.
pub fn attach(mount: BorrowedFd<'_>, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", CWD, target, flags).during(|| format!("mounting {}", target.display()))
}

/// All user namespaces of an instance.
#[derive(Debug, Clone)]
pub struct UserNamespaces {
    folder: PathBuf,
    made: Arc<Mutex<HashMap<String, Arc<UserNamespace>>>>,
}

impl UserNamespaces {
    /// Uses folder `userns` of `run_dir`, making it where needed. A reboot must empty it.
    pub fn open(run_dir: &Path) -> Result<Self> {
        let folder = run_dir.join("userns");
        fs::create_dir_all(&folder).during(|| format!("creating {}", folder.display()))?;
        Ok(Self {
            folder,
            made: Arc::default(),
        })
    }

    /// The namespace `name`, made if it does not exist. One with other ids is given up: what
    /// runs in it stays there.
    pub fn ensure(&self, name: &str, ids: IdRange) -> Result<Arc<UserNamespace>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(name)
            && known.ids == ids
        {
            return Ok(known.clone());
        }
        // Its ids are part of the file's name: after a restart of kraud they are known by it.
        let path = self
            .folder
            .join(format!("{name}.{}+{}", ids.first, ids.count));
        let doing = || format!("making user namespace {}", path.display());
        let namespace = match open(&path) {
            Some(namespace) => namespace,
            None => {
                self.discard(name)?;
                let namespace = sys::new_user_namespace(ids).during(doing)?;
                fs::File::create(&path).during(doing)?;
                let link = format!(
                    "/proc/self/fd/{}",
                    std::os::fd::AsRawFd::as_raw_fd(&namespace)
                );
                mount_bind(link, &path).during(doing)?;
                namespace
            }
        };
        let namespace = Arc::new(UserNamespace {
            namespace,
            path,
            ids,
        });
        made.insert(name.to_owned(), namespace.clone());
        Ok(namespace)
    }

    /// Gives a namespace up; it need not exist. What runs in it goes on.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.remove(name);
        self.discard(name)
    }

    /// Gives all of them up.
    pub fn remove_all(&self) -> Result<()> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.clear();
        self.each(|_| true)
    }

    fn discard(&self, name: &str) -> Result<()> {
        self.each(|file| file.rsplit_once('.').is_some_and(|(stem, _)| stem == name))
    }

    fn each(&self, goes: impl Fn(&str) -> bool) -> Result<()> {
        let doing = || format!("removing user namespaces in {}", self.folder.display());
        for entry in fs::read_dir(&self.folder).during(doing)? {
            let entry = entry.during(doing)?;
            if !goes(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let path = entry.path();
            while unmount(&path, UnmountFlags::DETACH).is_ok() {}
            fs::remove_file(&path).during(doing)?;
        }
        Ok(())
    }
}

/// The namespace that is mounted at a path.
fn open(path: &Path) -> Option<OwnedFd> {
    /// `NSFS_MAGIC` of `linux/magic.h`: a file that a crash left bare is none.
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = rustix::fs::fstatfs(&file).ok()?;
    (stat.f_type as u64 == NSFS_MAGIC).then_some(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown};

    use super::*;

    const IDS: IdRange = IdRange {
        first: 1_879_048_192,
        count: 65_536,
    };

    /// Mounts of the tests stay in a mount namespace of the thread's own.
    fn alone(work: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let run = || {
                // SAFETY: it concerns only this thread, which ends with the work.
                assert_eq!(unsafe { nix::libc::unshare(nix::libc::CLONE_NEWNS) }, 0);
                let private = rustix::mount::MountPropagationFlags::PRIVATE
                    | rustix::mount::MountPropagationFlags::REC;
                rustix::mount::mount_change("/", private).unwrap();
                work();
            };
            scope.spawn(run).join().unwrap();
        });
    }

    #[test]
    fn owners_are_mapped_both_ways() {
        alone(|| {
            let dir = tempfile::tempdir().unwrap();
            let all = UserNamespaces::open(dir.path()).unwrap();
            let shop = all.ensure("shop", IDS).unwrap();
            let (source, target) = (dir.path().join("source"), dir.path().join("target"));
            fs::create_dir(&source).unwrap();
            fs::create_dir(&target).unwrap();
            fs::write(source.join("of5"), "").unwrap();
            chown(source.join("of5"), Some(5), Some(6)).unwrap();
            shop.mount(&source, &target).unwrap();
            let seen = fs::metadata(target.join("of5")).unwrap();
            assert_eq!((seen.uid(), seen.gid()), (IDS.first + 5, IDS.first + 6));
            chown(target.join("of5"), Some(IDS.first), Some(IDS.first)).unwrap();
            let kept = fs::metadata(source.join("of5")).unwrap();
            assert_eq!((kept.uid(), kept.gid()), (0, 0));
            // The machine's own root is nobody there.
            assert!(fs::write(target.join("mine"), "").is_err());
            let path = target.join("theirs");
            shop.as_root(|| {
                fs::write(&path, "").during(|| "writing")?;
                // Still able to do what root is.
                chown(&path, Some(IDS.first + 7), None).during(|| "giving away")
            })
            .unwrap();
            let kept = fs::metadata(source.join("theirs")).unwrap();
            assert_eq!((kept.uid(), kept.gid()), (7, 0));
            unmount(&target, UnmountFlags::DETACH).unwrap();
            all.remove_all().unwrap();
        });
    }

    #[test]
    fn one_of_each_name() {
        alone(|| {
            let dir = tempfile::tempdir().unwrap();
            let all = UserNamespaces::open(dir.path()).unwrap();
            let number = |one: &UserNamespace| fs::metadata(one.path()).unwrap().ino();
            let first = number(&all.ensure("shop", IDS).unwrap());
            assert_eq!(number(&all.ensure("shop", IDS).unwrap()), first);
            // A restart finds it.
            let again = UserNamespaces::open(dir.path()).unwrap();
            assert_eq!(number(&again.ensure("shop", IDS).unwrap()), first);
            // A crash between the file and its mount.
            let path = again.ensure("shop", IDS).unwrap().path().to_owned();
            unmount(&path, UnmountFlags::DETACH).unwrap();
            let third = UserNamespaces::open(dir.path()).unwrap();
            assert!(open(third.ensure("shop", IDS).unwrap().path()).is_some());
            let other = IdRange {
                first: 100_000,
                ..IDS
            };
            third.ensure("shop", other).unwrap();
            third.ensure("shop.2", other).unwrap();
            let files = || fs::read_dir(dir.path().join("userns")).unwrap().count();
            assert_eq!(files(), 2);
            third.remove("shop").unwrap();
            assert_eq!(files(), 1);
            third.remove("nobody").unwrap();
            third.remove_all().unwrap();
            assert_eq!(files(), 0);
        });
    }

    #[test]
    fn networks_belong_to_it() {
        alone(|| {
            let dir = tempfile::tempdir().unwrap();
            let all = UserNamespaces::open(dir.path()).unwrap();
            let shop = all.ensure("shop", IDS).unwrap();
            // Many at once, from a program with many threads.
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..8 {
                            let network = shop.new_network().unwrap();
                            /// `NS_GET_USERNS` of `linux/nsfs.h`.
                            const NS_GET_USERNS: u64 = 0xb701;
                            let fd = std::os::fd::AsRawFd::as_raw_fd(&network);
                            // SAFETY: takes nothing and gives a descriptor.
                            let owner = unsafe { nix::libc::ioctl(fd, NS_GET_USERNS) };
                            assert!(owner >= 0);
                            // SAFETY: it is ours.
                            let owner: fs::File =
                                unsafe { std::os::fd::FromRawFd::from_raw_fd(owner) };
                            let wanted = fs::metadata(shop.path()).unwrap().ino();
                            assert_eq!(owner.metadata().unwrap().ino(), wanted);
                        }
                    });
                }
            });
            drop(shop);
            all.remove_all().unwrap();
        });
    }
}
