//! Sandboxes: network namespaces that are kept alive by a bind mount each.
//!
//! A thread that has changed its namespace never goes back into a pool: every function
//! that enters one does so on a thread of its own, which ends with the work.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{UnmountFlags, mount_bind, unmount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use types::{ContainerId, Error, Result, error::ResultExt as _};
use userns::UserNamespace;

use crate::link::Links;

/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Runs `work` on a thread of its own and waits for it without blocking the runtime.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let run = move || {
        // The caller may have gone away; then nobody wants the answer.
        let _ = sender.send(work());
    };
    thread::Builder::new()
        .name("network".into())
        .spawn(run)
        .during(|| "starting a thread for a network operation")?;
    receiver
        .await
        .unwrap_or_else(|_| Err(Error::system("a network operation panicked")))
}

/// Runs `work`, which changes its thread's namespace, on a thread of its own. Blocks.
pub(crate) fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let panicked = |_| Err(Error::system("a network operation panicked"));
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(panicked)
}

/// The folder that sandboxes are mounted in.
#[derive(Debug, Clone)]
pub(crate) struct Sandboxes(PathBuf);

impl Sandboxes {
    /// Uses folder `netns` of `run_dir`, making it where needed.
    pub(crate) fn open(run_dir: &Path) -> Result<Self> {
        let folder = run_dir.join("netns");
        fs::create_dir_all(&folder).during(|| format!("creating {}", folder.display()))?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Whether the sandbox is there and whole.
    pub(crate) fn exists(&self, id: &str) -> bool {
        rustix::fs::statfs(self.path(id)).is_ok_and(|stat| stat.f_type as u64 == NSFS_MAGIC)
    }

    /// The number of the sandbox's namespace, which no other living one has.
    pub(crate) fn inode(&self, id: &str) -> io::Result<u64> {
        Ok(rustix::fs::stat(self.path(id))?.st_ino)
    }

    /// Makes a sandbox with its loopback interface up; one that exists stays. Blocks.
    ///
    /// IPv6 is off on all interfaces but loopback until an endpoint has an IPv6 address. A new
    /// one belongs to `owner`, or to the machine's user namespace.
    pub(crate) fn create(&self, id: &str, owner: Option<&UserNamespace>) -> Result<PathBuf> {
        let path = self.path(id);
        if self.exists(id) {
            return Ok(path);
        }
        let failed = || format!("creating network namespace {}", path.display());
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .during(failed)?;
        let made = on_own_thread(|| unshare_onto(&path, owner).during(failed));
        if made.is_err() {
            let _ = self.remove(id);
        }
        made.map(|()| path)
    }

    /// Removes a sandbox. False when there was none. Blocks.
    pub(crate) fn remove(&self, id: &str) -> io::Result<bool> {
        let path = self.path(id);
        // Several mounts can lie over one another after a crash between check and mount.
        while unmount(&path, UnmountFlags::DETACH).is_ok() {}
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names of all sandboxes, whole or not.
    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    /// A handle of the sandbox's namespace.
    pub(crate) fn handle(&self, id: &ContainerId) -> Result<OwnedFd> {
        let path = self.path(id.as_str());
        if !self.exists(id.as_str()) {
            return Err(Error::not_found(format!(
                "no network namespace at {}",
                path.display()
            )));
        }
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .during(|| format!("opening network namespace {}", path.display()))
    }
}

/// Moves this thread, for good, into the namespace of `handle`. Only for threads of
/// [`on_thread`] that end with the work.
pub(crate) fn enter(handle: impl AsFd) -> Result<()> {
    move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
        .during(|| "entering a network namespace")
}

/// Moves this thread into a new namespace, prepares it and mounts it at `path`.
fn unshare_onto(path: &Path, owner: Option<&UserNamespace>) -> io::Result<()> {
    match owner {
        None => nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?,
        Some(owner) => move_into_link_name_space(
            owner.new_network()?.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?,
    }
    // The index of the loopback interface is 1 in every namespace.
    Links::open()?.set_up(1)?;
    write_sysctl("net.ipv6.conf.all.disable_ipv6", "1").or_else(absent)?;
    write_sysctl("net.ipv6.conf.lo.disable_ipv6", "0").or_else(absent)?;
    // Docker's defaults: any port and ping without privileges, for the namespace is private.
    write_sysctl("net.ipv4.ip_unprivileged_port_start", "0")?;
    // The kernel takes the groups as this thread sees them.
    let groups = match owner.map(UserNamespace::ids) {
        None => "0\t2147483647".to_owned(),
        Some(ids) => format!("{}\t{}", ids.first, ids.first + (ids.count - 1)),
    };
    write_sysctl("net.ipv4.ping_group_range", &groups)?;
    mount_bind("/proc/thread-self/ns/net", path)?;
    Ok(())
}

/// Takes a setting's absence for success: a kernel without IPv6 has none of its settings.
pub(crate) fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

/// Writes a kernel setting of this thread's network namespace, if it differs. Its name
/// starts with `net`; dots and slashes may stand for one another, as sysctl(8) has it:
/// the first separator decides.
pub(crate) fn write_sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = sysctl_path(name)?;
    if fs::read_to_string(&path).is_ok_and(|now| now.trim_end() == value) {
        return Ok(());
    }
    fs::write(path, value)
}

fn sysctl_path(name: &str) -> io::Result<PathBuf> {
    let dotted = name
        .find(['.', '/'])
        .is_some_and(|at| name.as_bytes()[at] == b'.');
    let path: String = if dotted {
        name.chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect()
    } else {
        name.into()
    };
    let strays = path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if strays || !path.starts_with("net/") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is no setting of a network namespace"),
        ));
    }
    Ok(Path::new("/proc/sys").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names() {
        let path = |name| {
            sysctl_path(name)
                .map(|path| path.display().to_string())
                .ok()
        };
        assert_eq!(
            path("net.ipv4.conf.eth0.rp_filter").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0/rp_filter"
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.1/rp_filter").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
        );
        assert_eq!(
            path("net.ipv4.conf.eth0/1.rp_filter").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
        );
        for bad in [
            "",
            "kernel.shmmax",
            "net/../kernel/shmmax",
            "net//ipv4",
            "net./.kernel",
            "/net",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
