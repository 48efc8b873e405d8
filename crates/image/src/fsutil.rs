//! Small file system operations that never leave a directory.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, openat,
        openat2, renameat_with, statat, unlinkat,
    },
    io::Errno,
};

/// `bytes` as a path.
pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// `.` for the empty path, which system calls do not take.
pub(crate) fn or_dot(bytes: &[u8]) -> &[u8] {
    if bytes.is_empty() { b"." } else { bytes }
}

/// `dir/name`, `name` when `dir` is empty.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

/// Opens a directory by its path in this process's view.
pub(crate) fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    Ok(openat(
        CWD,
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens `relative` in `root` with its links resolved inside.
pub(crate) fn open_in_root(
    root: BorrowedFd<'_>,
    relative: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    retry(|| {
        openat2(
            root,
            path(or_dot(relative)),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    })
}

/// Opens `relative` beneath `root` where no part of it may be a link.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    relative: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    retry(|| {
        openat2(
            root,
            path(or_dot(relative)),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    })
}

/// openat2 gives EAGAIN when something is renamed or mounted meanwhile anywhere.
fn retry(mut call: impl FnMut() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 0..128 {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    call()
}

/// The path under which the kernel knows an open file.
pub(crate) fn real_path(fd: impl AsFd) -> io::Result<PathBuf> {
    std::fs::read_link(magic_path(fd))
}

/// A path that leads to exactly the file that is open as `fd`.
pub(crate) fn magic_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// `dir/name` where `dir` is open; `name` itself is not followed by the `l…` calls.
pub(crate) fn magic_child(dir: impl AsFd, name: &[u8]) -> PathBuf {
    magic_path(dir).join(path(name))
}

/// Facts of `name` in `dir`, of the link itself if it is one; `None` when it is not there.
pub(crate) fn lstat(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether this is overlayfs's mark of a deleted file.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The names in `dir`, sorted.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens directory `name` of `dir` for reading, not through a link.
pub(crate) fn open_child_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(
        dir,
        path(name),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Removes `name` of `dir` and all that is in it. Not there is fine.
///
/// Deep trees are flattened on the way, so that neither the stack nor the number of open
/// files limits the depth: subdirectories move up beside `name`'s first level and empty.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(dir, path(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = match open_child_dir(dir, name) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut serial = 0u64;
    loop {
        let children = names(&top)?;
        if children.is_empty() {
            break;
        }
        for child in children {
            if unlinkat(&top, path(&child), AtFlags::empty()).is_ok() {
                continue;
            }
            empty_upwards(&top, &child, &mut serial)?;
            unlinkat(&top, path(&child), AtFlags::REMOVEDIR)?;
        }
    }
    Ok(unlinkat(dir, path(name), AtFlags::REMOVEDIR)?)
}

/// Removes the files of directory `child` of `top` and moves its directories up to `top`.
fn empty_upwards(top: &OwnedFd, child: &[u8], serial: &mut u64) -> io::Result<()> {
    let inner = open_child_dir(top, child)?;
    for name in names(&inner)? {
        match unlinkat(&inner, path(&name), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        // Mostly empty already.
        if unlinkat(&inner, path(&name), AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        loop {
            *serial += 1;
            let place = format!(".removed-{serial}");
            match renameat_with(
                &inner,
                path(&name),
                top,
                place.as_str(),
                RenameFlags::NOREPLACE,
            ) {
                Err(Errno::EXIST) => {}
                other => break other?,
            }
        }
    }
    Ok(())
}

/// How deep trees are walked. A container can nest directories without end; neither the
/// stack nor the number of open files may be its to use up.
const MAX_DEPTH: usize = 256;

/// One level further down; an error where that is too deep.
pub(crate) fn deeper(depth: usize) -> io::Result<usize> {
    if depth >= MAX_DEPTH {
        return Err(io::Error::other(format!(
            "directories are nested more than {MAX_DEPTH} levels deep"
        )));
    }
    Ok(depth + 1)
}

/// Bytes of the regular files in directory `name` of `dir`, or of the file, without those
/// that have other names.
pub(crate) fn content_size(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<u64> {
    size_below(dir, name, 0)
}

fn size_below(dir: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<u64> {
    let Some(stat) = lstat(dir, name)? else {
        return Ok(0);
    };
    match kind(&stat) {
        FileType::RegularFile if stat.st_nlink <= 1 => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
        FileType::Directory => {
            let inner = open_child_dir(dir, name)?;
            let depth = deeper(depth)?;
            names(&inner)?
                .iter()
                .map(|child| size_below(inner.as_fd(), child, depth))
                .sum()
        }
        _ => Ok(0),
    }
}
