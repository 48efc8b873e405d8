//! `docker cp` and `docker export`: tars out of and into a root directory.
//!
//! Every path is resolved inside the root (`RESOLVE_IN_ROOT`): links cannot leave it, mounts
//! beneath it are crossed. The root may be `/proc/<pid>/root`. Blocking.

use std::{
    io::{Read, Write},
    os::fd::BorrowedFd,
};

use types::{Result, Time};

/// What `docker cp` wants to know of a path (`X-Docker-Container-Path-Stat`).
#[derive(Debug, Clone, PartialEq)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `os.FileMode` bits.
    pub mode: u32,
    pub mtime: Time,
    /// For a link: the path in the root it finally leads to.
    pub link_target: String,
}

/// How to unpack.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// Refuse to replace a directory by something else, and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Everything belongs to this user and group instead of those in the tar.
    pub owner: Option<(u32, u32)>,
}

/// Facts of `path` in `root`. [`types::Kind::NotFound`] when there is no such path.
pub fn stat(_root: BorrowedFd<'_>, path: &str) -> Result<PathStat> {
    Err(types::Error::not_implemented(path))
}

/// Writes `path` as a tar, as `docker cp` wants it.
pub fn get(_root: BorrowedFd<'_>, path: &str, _to: impl Write) -> Result<()> {
    Err(types::Error::not_implemented(path))
}

/// Unpacks a tar (plain, gzip or zstd) into the directory `path`.
pub fn put(
    _root: BorrowedFd<'_>,
    path: &str,
    _tar: impl Read + Send,
    _options: PutOptions,
) -> Result<()> {
    Err(types::Error::not_implemented(path))
}

/// Writes everything in `root` as a tar, without what is mounted beneath it.
pub fn export(_root: BorrowedFd<'_>, _to: impl Write) -> Result<()> {
    Err(types::Error::not_implemented("export"))
}
