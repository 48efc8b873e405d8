//! `docker cp` and `docker export`: tars out of and into a root directory.
//!
//! Every path is resolved inside the root (`RESOLVE_IN_ROOT`): links cannot leave it, mounts
//! beneath it are crossed. The root may be `/proc/<pid>/root`. Blocking.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, OFlags, Stat, readlinkat, statat},
    io::Errno,
};
use types::{Error, IdRange, Result, Time, error::ResultExt as _};

use crate::{
    apply::Applier,
    fsutil::{join, kind, lstat, open_in_root},
    input::decompress,
    layers::archive_error,
    names::{join_link, split_last},
    owners::Owners,
    pack::{Packer, Rules},
    tar::Reader,
};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

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
    /// The tree is seen through a user namespace with these ids, and the calling thread makes
    /// files as its root.
    pub seen_by: Option<IdRange>,
}

/// A path of a request: absolute, without `.` and `..`, and whether it asks for what is *in*
/// a directory or behind a link (a trailing slash or `/.`).
struct Wanted {
    clean: Vec<u8>,
    /// Ends in `/`: as the directory it is.
    slash: bool,
    /// Ends in `/.`: its content.
    dot: bool,
}

impl Wanted {
    fn new(path: &str) -> Result<Self> {
        if path.is_empty() || path.contains('\0') {
            return Err(Error::invalid("invalid path: it must not be empty"));
        }
        // Absolute names never climb out.
        let clean = crate::names::clean(format!("/{path}").as_bytes()).unwrap_or_default();
        Ok(Self {
            slash: path.ends_with('/'),
            dot: path == "." || path.ends_with("/."),
            clean,
        })
    }

    /// What Go's `filepath.Base` makes of it.
    fn base(&self) -> &[u8] {
        if self.dot {
            b"."
        } else if self.clean.is_empty() {
            b"/"
        } else {
            split_last(&self.clean).1
        }
    }

    fn missing(&self) -> Error {
        Error::not_found(format!(
            "Could not find the file /{}",
            String::from_utf8_lossy(&self.clean)
        ))
    }

    fn error(&self, errno: Errno) -> Error {
        match errno {
            Errno::NOENT => self.missing(),
            Errno::NOTDIR => Error::invalid(format!(
                "/{}: not a directory",
                String::from_utf8_lossy(&self.clean)
            )),
            other => Error::wrap(
                format_args!("looking at /{}", String::from_utf8_lossy(&self.clean)),
                io::Error::from(other),
            ),
        }
    }

    /// Opens the directory that holds it, for its last part.
    fn open_parent(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        open_in_root(
            root,
            split_last(&self.clean).0,
            OFlags::PATH | OFlags::DIRECTORY,
        )
        .map_err(|errno| self.error(errno))
    }

    /// Facts; of the link itself unless the path asks for what is behind it.
    fn lstat(&self, root: BorrowedFd<'_>) -> Result<Stat> {
        if self.clean.is_empty() || self.slash || self.dot {
            let dir = open_in_root(root, &self.clean, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(|errno| self.error(errno))?;
            return statat(&dir, "", AtFlags::EMPTY_PATH).map_err(|errno| self.error(errno));
        }
        let parent = self.open_parent(root)?;
        lstat(&parent, split_last(&self.clean).1)
            .during(|| format!("looking at /{}", String::from_utf8_lossy(&self.clean)))?
            .ok_or_else(|| self.missing())
    }
}

/// The bits of Go's `os.FileMode` for a mode of the kernel.
fn go_mode(mode: u32) -> u32 {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => DIR,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHAR_DEVICE,
        FileType::Fifo => PIPE,
        FileType::Socket => SOCKET,
        _ => 0,
    };
    let bit = |set: u32, go: u32| if mode & set != 0 { go } else { 0 };
    kind | (mode & 0o777) | bit(0o4000, SETUID) | bit(0o2000, SETGID) | bit(0o1000, STICKY)
}

/// Facts of `path` in `root`. [`types::Kind::NotFound`] when there is no such path.
pub fn stat(root: BorrowedFd<'_>, path: &str) -> Result<PathStat> {
    let wanted = Wanted::new(path)?;
    let stat = wanted.lstat(root)?;
    let link_target = if kind(&stat) == FileType::Symlink {
        final_target(root, &wanted.clean)?
    } else {
        String::new()
    };
    Ok(PathStat {
        name: String::from_utf8_lossy(wanted.base()).into_owned(),
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime: Time::from_unix(
            stat.st_mtime,
            i32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        link_target,
    })
}

/// A file in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// As the kernel has it, type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// For a link: what it says.
    pub link_target: String,
}

impl Listed {
    fn new(dir: impl std::os::fd::AsFd, name: &[u8], facts: &Stat) -> Self {
        let link_target = if kind(facts) == FileType::Symlink {
            readlinkat(dir, crate::fsutil::path(name), Vec::new())
                .map(|target| target.to_string_lossy().into_owned())
                .unwrap_or_default()
        } else {
            String::new()
        };
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            size: u64::try_from(facts.st_size).unwrap_or(0),
            mode: facts.st_mode,
            uid: facts.st_uid,
            gid: facts.st_gid,
            mtime: Time::from_unix(
                facts.st_mtime,
                i32::try_from(facts.st_mtime_nsec).unwrap_or(0),
            ),
            link_target,
        }
    }
}

/// Facts of everything in a directory, by name; of what is no directory, its own.
pub fn list(root: BorrowedFd<'_>, path: &str) -> Result<Vec<Listed>> {
    let wanted = Wanted::new(path)?;
    let own = wanted.lstat(root)?;
    let shown = String::from_utf8_lossy(&wanted.clean).into_owned();
    if kind(&own) != FileType::Directory {
        let parent = wanted.open_parent(root)?;
        return Ok(vec![Listed::new(
            &parent,
            split_last(&wanted.clean).1,
            &own,
        )]);
    }
    let dir = open_in_root(root, &wanted.clean, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| wanted.error(errno))?;
    let entries = rustix::fs::Dir::read_from(&dir).during(|| format!("listing /{shown}"))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.during(|| format!("listing /{shown}"))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        // Files come and go while they are listed.
        if let Some(facts) = lstat(&dir, name).during(|| format!("looking into /{shown}"))? {
            found.push(Listed::new(&dir, name, &facts));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Where a link finally leads, as far as that exists.
fn final_target(root: BorrowedFd<'_>, clean: &[u8]) -> Result<String> {
    let mut done: Vec<u8> = Vec::new();
    let mut rest: Vec<Vec<u8>> = clean
        .split(|&b| b == b'/')
        .rev()
        .map(<[u8]>::to_vec)
        .collect();
    let mut links = 0;
    while let Some(part) = rest.pop() {
        let here = join(&done, &part);
        let target = open_in_root(root, &done, OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|dir| readlinkat(dir, crate::fsutil::path(&part), Vec::new()));
        let Ok(target) = target else {
            done = here;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::invalid(format!(
                "/{}: too many links",
                String::from_utf8_lossy(clean)
            )));
        }
        // Relative ones that climb too high stop at the root, as in a chroot.
        let target = target.into_bytes();
        let absolute = if target.starts_with(b"/") {
            target
        } else {
            [b"/", done.as_slice(), b"/", target.as_slice()].concat()
        };
        let resolved = join_link(b"", &absolute).unwrap_or_default();
        rest.extend(
            resolved
                .split(|&b| b == b'/')
                .filter(|part| !part.is_empty())
                .rev()
                .map(<[u8]>::to_vec),
        );
        done.clear();
    }
    Ok(format!("/{}", String::from_utf8_lossy(&done)))
}

/// Writes `path` as a tar, as `docker cp` wants it: a directory under its own name, or
/// without one for `path/.`; a link as a link unless the path ends in a slash.
/// With `seen_by` the tree is seen through a user namespace; the tar has its ids.
pub fn get(
    root: BorrowedFd<'_>,
    path: &str,
    seen_by: Option<IdRange>,
    to: impl Write,
) -> Result<()> {
    let wanted = Wanted::new(path)?;
    let stat = wanted.lstat(root)?;
    let packing = || format!("reading /{}", String::from_utf8_lossy(&wanted.clean));
    let rules = Rules::copy().owners(Owners(seen_by));
    let packer = Packer::new(io::BufWriter::with_capacity(256 * 1024, to), rules);
    let packed = if kind(&stat) == FileType::Directory {
        let dir = open_in_root(root, &wanted.clean, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|errno| wanted.error(errno))?;
        let name = wanted.base();
        packer.entry(dir.as_fd(), b".", if name == b"/" { b"/" } else { name })
    } else {
        let parent = wanted.open_parent(root)?;
        let name = split_last(&wanted.clean).1;
        packer.entry(parent.as_fd(), name, name)
    };
    packed.and_then(Packer::finish).during(packing)
}

/// Unpacks a tar (plain, gzip or zstd) into the directory `path`.
pub fn put(
    root: BorrowedFd<'_>,
    path: &str,
    tar: impl Read + Send,
    options: PutOptions,
) -> Result<()> {
    let wanted = Wanted::new(path)?;
    let shown = String::from_utf8_lossy(&wanted.clean).into_owned();
    match open_in_root(root, &wanted.clean, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(_) => {}
        Err(Errno::NOTDIR) => return Err(Error::invalid("extraction point is not a directory")),
        Err(errno) => return Err(wanted.error(errno)),
    }
    let unpacking = |error: io::Error| archive_error(&format!("unpacking into /{shown}"), &error);
    let root = root.try_clone_to_owned().map_err(unpacking)?;
    let input = io::BufReader::with_capacity(256 * 1024, decompress(tar).map_err(unpacking)?);
    let mut reader = Reader::new(input, ());
    Applier::copy(root, wanted.clean, options)
        .run(&mut reader)
        .map_err(unpacking)?;
    // Whoever sends the tar shall be able to send all of it.
    reader.drain().map_err(unpacking)
}

/// Removes `path` with all that is in it, a link itself and not what it leads to. What is not
/// there is fine.
pub fn remove(root: BorrowedFd<'_>, path: &str) -> Result<()> {
    let wanted = Wanted::new(path)?;
    if wanted.clean.is_empty() {
        return Err(Error::invalid("invalid path: the root cannot be removed"));
    }
    let parent = match open_in_root(
        root,
        split_last(&wanted.clean).0,
        OFlags::RDONLY | OFlags::DIRECTORY,
    ) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(|errno| wanted.error(errno))?,
    };
    crate::fsutil::remove_tree(parent.as_fd(), split_last(&wanted.clean).1)
        .during(|| format!("removing /{}", String::from_utf8_lossy(&wanted.clean)))
}

/// Writes everything in `root` as a tar, without what is mounted beneath it. With `seen_by` the
/// tree is seen through a user namespace; the tar has its ids.
pub fn export(root: BorrowedFd<'_>, seen_by: Option<IdRange>, to: impl Write) -> Result<()> {
    Packer::new(
        io::BufWriter::with_capacity(256 * 1024, to),
        Rules::export().owners(Owners(seen_by)),
    )
    .tree(root, b".", b"")
    .and_then(Packer::finish)
    .during(|| "exporting a root file system")
}
