//! What is remembered of a running container between two lives of the daemon.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use shim::proto::{Started, files};

use crate::{
    error::{Error, Result},
    paths,
};

/// Written before the container starts, gone with its run directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Path below each control group mount.
    pub(crate) cgroup: String,
    /// Where `exit.json` is.
    pub(crate) state_dir: PathBuf,
    /// The OCI runtime's binary.
    pub(crate) runtime: PathBuf,
}

impl Meta {
    /// That of the container with this run directory; `None` when it has none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>> {
        read_json(&directory.join(paths::META))
    }
}

/// The process that a shim started; `None` before that.
pub(crate) fn started(directory: &Path) -> Result<Option<Started>> {
    read_json(&directory.join(files::STARTED))
}

/// A JSON file that need not exist.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("read {}", path.display()))(error)),
    };
    let value = serde_json::from_slice(&bytes);
    value
        .map(Some)
        .map_err(|error| Error::io(format!("read {}", path.display()))(error.into()))
}
