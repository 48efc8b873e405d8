//! Where things are in the run directory.
//!
//! ```text
//! <run>/crun/                 the OCI runtime's own state
//! <run>/c/<container>/        bundle, shim's files, meta.json
//! <run>/c/<container>/x/<exec>/   the same for an exec session
//! ```

use std::{
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use types::{ContainerId, ExecId};

use crate::error::{Error, Result};

/// What the daemon must remember of a running container.
pub(crate) const META: &str = "meta.json";
/// The exit status, in the container's durable directory (in the run directory for execs).
pub(crate) const EXIT_FILE: &str = "exit.json";

/// The run directory.
#[derive(Debug, Clone)]
pub(crate) struct Paths(pub(crate) PathBuf);

impl Paths {
    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.0.join("crun")
    }
    pub(crate) fn containers(&self) -> PathBuf {
        self.0.join("c")
    }
    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }
    pub(crate) fn exec(&self, id: &ContainerId, exec: &ExecId) -> PathBuf {
        self.container(id).join("x").join(exec.as_str())
    }
}

/// Calls `with` with a short path of `directory/name`: socket addresses hold 107 bytes only.
pub(crate) fn in_directory<T>(
    directory: &Path,
    name: &str,
    with: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<T> {
    let operation = || format!("open {}", directory.join(name).display());
    let handle = open_directory(directory).map_err(|error| Error::io(operation())(error))?;
    with(&short(&handle, name)).map_err(|error| Error::io(operation())(error))
}

/// A handle that only names a directory.
pub(crate) fn open_directory(directory: &Path) -> io::Result<fs::File> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(directory)
}

/// `name` in the directory of `handle`, as a short path.
pub(crate) fn short(handle: &fs::File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
}

/// Removes a directory with all it holds; it need not exist.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
