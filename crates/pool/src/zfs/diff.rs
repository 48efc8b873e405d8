//! What differs between two trees of files.
//!
//! [`trees`] walks both. [`parse`] reads `zfs diff`, which old versions lack and which takes
//! time proportional to the change. Both say the same: a directory counts as changed when its
//! own attributes are, not when entries came or went.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::Read as _,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat},
    io::Errno,
};
use types::{Result, error::ResultExt as _};
use xattr::FileExt as _;

use crate::{Change, ChangeKind};

/// The changes found so far, by path below the roots.
pub(super) type Changes = BTreeMap<PathBuf, ChangeKind>;

/// As callers want them.
pub(super) fn sorted(changes: Changes) -> Vec<Change> {
    let mut sorted: Vec<_> = changes
        .into_iter()
        .map(|(path, kind)| Change {
            path: path.to_string_lossy().into_owned(),
            kind,
        })
        .collect();
    sorted.sort();
    sorted
}

/// Compares the tree `to` with what it was, `from`. Both must be of one origin, so that a file
/// which has the same number and the same time of change on both sides is the same. Times of
/// `doubtful` seconds or later prove nothing, if they have no fractions: the content is read.
pub(super) fn trees(from: &Path, to: &Path, doubtful: i64) -> Result<Changes> {
    let mut walk = Walk {
        doubtful,
        changes: Changes::new(),
    };
    let (left, right) = (open_root(from)?, open_root(to)?);
    let dot = OsStr::new(".");
    let mut compare = || {
        if let (Some(a), Some(b)) = (look(left.as_fd(), dot)?, look(right.as_fd(), dot)?)
            && walk.directory_differs((left.as_fd(), a), (right.as_fd(), b), dot)?
        {
            walk.changes.insert(PathBuf::new(), ChangeKind::Changed);
        }
        let (left, right) = (left.try_clone(), right.try_clone());
        let errno = |error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        walk.compare(
            Some(left.map_err(errno)?),
            Some(right.map_err(errno)?),
            Path::new(""),
        )
    };
    compare().during(|| format!("compare {} with {}", to.display(), from.display()))?;
    Ok(walk.changes)
}

/// Everything below a directory of a tree, itself included.
fn all_below(root: &Path, path: &Path, kind: ChangeKind, changes: &mut Changes) -> Result<()> {
    let operation = || format!("list {} in {}", path.display(), root.display());
    changes.insert(path.to_owned(), kind);
    let mut at = open_root(root)?;
    for part in path.components() {
        match open_directory(at.as_fd(), part.as_os_str()) {
            Ok(next) => at = next,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno) => return Err(errno).during(operation),
        }
    }
    let mut walk = Walk {
        doubtful: i64::MAX,
        changes: Changes::new(),
    };
    let (left, right) = match kind {
        ChangeKind::Removed => (Some(at), None),
        _ => (None, Some(at)),
    };
    walk.compare(left, right, path).during(operation)?;
    changes.append(&mut walk.changes);
    Ok(())
}

struct Walk {
    doubtful: i64,
    changes: Changes,
}

type Side<'a> = (BorrowedFd<'a>, Stat);

impl Walk {
    fn compare(
        &mut self,
        left: Option<OwnedFd>,
        right: Option<OwnedFd>,
        path: &Path,
    ) -> Result<(), Errno> {
        let mut entries: BTreeMap<OsString, (Option<Stat>, Option<Stat>)> = BTreeMap::new();
        for (name, stat) in list(left.as_ref())? {
            entries.entry(name).or_default().0 = Some(stat);
        }
        for (name, stat) in list(right.as_ref())? {
            entries.entry(name).or_default().1 = Some(stat);
        }
        for (name, sides) in entries {
            let path = path.join(&name);
            let kind = match (&left, &right, sides) {
                (Some(l), Some(r), (Some(a), Some(b))) => self
                    .differs((l.as_fd(), a), (r.as_fd(), b), &name)?
                    .then_some(ChangeKind::Changed),
                (_, _, (Some(_), _)) => Some(ChangeKind::Removed),
                _ => Some(ChangeKind::Added),
            };
            if let Some(kind) = kind {
                self.changes.insert(path.clone(), kind);
            }
            let left = descend(left.as_ref(), &name, sides.0)?;
            let right = descend(right.as_ref(), &name, sides.1)?;
            if left.is_some() || right.is_some() {
                self.compare(left, right, &path)?;
            }
        }
        Ok(())
    }

    fn differs(&self, left: Side<'_>, right: Side<'_>, name: &OsStr) -> Result<bool, Errno> {
        let (a, b) = (left.1, right.1);
        let kind = FileType::from_raw_mode(a.st_mode);
        if kind.is_dir() && FileType::from_raw_mode(b.st_mode).is_dir() {
            return self.directory_differs(left, right, name);
        }
        if attributes(&a) != attributes(&b)
            || (a.st_ino, a.st_size, a.st_rdev) != (b.st_ino, b.st_size, b.st_rdev)
            || (a.st_mtime, a.st_mtime_nsec) != (b.st_mtime, b.st_mtime_nsec)
        {
            return Ok(true);
        }
        if self.proves_equal(&a, &b) {
            return Ok(false);
        }
        match kind {
            FileType::RegularFile => same_file(left.0, right.0, name).map(|same| !same),
            FileType::Symlink => {
                let target = |at| readlinkat(at, name, Vec::new());
                Ok(target(left.0)? != target(right.0)?)
            }
            _ => Ok(false),
        }
    }

    fn directory_differs(
        &self,
        left: Side<'_>,
        right: Side<'_>,
        name: &OsStr,
    ) -> Result<bool, Errno> {
        let (a, b) = (left.1, right.1);
        if attributes(&a) != attributes(&b) {
            return Ok(true);
        }
        if self.proves_equal(&a, &b) {
            return Ok(false);
        }
        let open = |at| open_directory(at, name).map(File::from);
        Ok(extended(&open(left.0)?) != extended(&open(right.0)?))
    }

    /// Any change of a file changes its time of change. Some engines only count seconds.
    fn proves_equal(&self, a: &Stat, b: &Stat) -> bool {
        (a.st_ctime, a.st_ctime_nsec) == (b.st_ctime, b.st_ctime_nsec)
            && a.st_ino == b.st_ino
            && (a.st_ctime_nsec != 0 || a.st_ctime < self.doubtful)
    }
}

fn attributes(stat: &Stat) -> (u32, u32, u32) {
    (stat.st_mode, stat.st_uid, stat.st_gid)
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    open_directory(CWD, path.as_os_str()).during(|| format!("open {}", path.display()))
}

fn open_directory(at: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// A path that a writer takes away meanwhile counts as not there.
fn look(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<Option<Stat>, Errno> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn descend(
    at: Option<&OwnedFd>,
    name: &OsStr,
    stat: Option<Stat>,
) -> Result<Option<OwnedFd>, Errno> {
    match (at, stat) {
        (Some(at), Some(stat)) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
            match open_directory(at.as_fd(), name) {
                Ok(directory) => Ok(Some(directory)),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                Err(errno) => Err(errno),
            }
        }
        _ => Ok(None),
    }
}

fn list(directory: Option<&OwnedFd>) -> Result<Vec<(OsString, Stat)>, Errno> {
    let Some(directory) = directory else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = CString::from(entry?.file_name());
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        if let Some(stat) = look(directory.as_fd(), name.as_c_str())? {
            found.push((OsString::from_vec(name.into_bytes()), stat));
        }
    }
    Ok(found)
}

fn same_file(left: BorrowedFd<'_>, right: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |at| openat(at, name, flags, Mode::empty()).map(File::from);
    let (mut a, mut b) = match (open(left), open(right)) {
        (Ok(a), Ok(b)) => (a, b),
        // It went meanwhile.
        (Err(Errno::NOENT | Errno::LOOP), _) | (_, Err(Errno::NOENT | Errno::LOOP)) => {
            return Ok(false);
        }
        (Err(errno), _) | (_, Err(errno)) => return Err(errno),
    };
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    Ok(extended(&a) == extended(&b) && same_content(&mut a, &mut b).map_err(errno)?)
}

fn same_content(a: &mut File, b: &mut File) -> std::io::Result<bool> {
    const PIECE: u64 = 1 << 20;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        a.take(PIECE).read_to_end(&mut left)?;
        b.take(PIECE).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// The extended attributes; none where the file system has none.
fn extended(file: &File) -> BTreeMap<OsString, Option<Vec<u8>>> {
    file.list_xattr()
        .into_iter()
        .flatten()
        .map(|name| {
            let value = file.get_xattr(&name).ok().flatten();
            (name, value)
        })
        .collect()
}

/// Reads the lines of `zfs diff -FH`, whose paths are below `mounted`. `from` and `to` are the
/// trees themselves: what was renamed is listed from them, and directories are looked at.
/// `None` when a line is not understood.
pub(super) fn parse(text: &str, mounted: &Path, from: &Path, to: &Path) -> Result<Option<Changes>> {
    let mut changes = Changes::new();
    let mut renamed = Vec::new();
    for line in text.lines() {
        let columns: Vec<_> = line.split('\t').collect();
        let [change, kind, path, rest @ ..] = &columns[..] else {
            return Ok(None);
        };
        let Some((path, is_attribute)) = below(path, mounted) else {
            return Ok(None);
        };
        let is_directory = *kind == "/";
        match (*change, rest.first().and_then(|path| below(path, mounted))) {
            _ if is_attribute => {
                changes.entry(path).or_insert(ChangeKind::Changed);
            }
            ("M", _) if is_directory => {
                if attributes_changed(&from.join(&path), &to.join(&path)) {
                    changes.insert(path, ChangeKind::Changed);
                }
            }
            ("M", _) => {
                changes.insert(path, ChangeKind::Changed);
            }
            ("+", _) => {
                changes.insert(path, ChangeKind::Added);
            }
            ("-", _) => {
                changes.insert(path, ChangeKind::Removed);
            }
            ("R", Some((new, false))) => renamed.push((path, new)),
            _ => return Ok(None),
        }
    }
    for (old, new) in renamed {
        all_below(from, &old, ChangeKind::Removed, &mut changes)?;
        all_below(to, &new, ChangeKind::Added, &mut changes)?;
    }
    Ok(Some(replaced(changes, from, to)))
}

/// A path that was taken by something else is changed, whatever the lines about the two say.
fn replaced(mut changes: Changes, from: &Path, to: &Path) -> Changes {
    for (path, kind) in &mut changes {
        let was = from.join(path).symlink_metadata().is_ok();
        let is = to.join(path).symlink_metadata().is_ok();
        if was && is && *kind != ChangeKind::Changed {
            *kind = ChangeKind::Changed;
        }
    }
    changes
}

fn attributes_changed(from: &Path, to: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let attributes = |path: &Path| {
        let file = path.symlink_metadata().ok()?;
        let extended = File::open(path).ok().map(|file| extended(&file));
        Some((file.mode(), file.uid(), file.gid(), extended))
    };
    attributes(from) != attributes(to)
}

/// A path of `zfs diff` without the mount point, and whether it means an extended attribute.
fn below(text: &str, mounted: &Path) -> Option<(PathBuf, bool)> {
    let path = unescape(text);
    let path = Path::new(&path).strip_prefix(mounted).ok()?;
    let plain: PathBuf = path
        .components()
        .take_while(|part| part.as_os_str() != "<xattrdir>")
        .collect();
    let is_attribute = plain != path;
    Some((plain, is_attribute))
}

/// `zfs diff` writes odd bytes as a backslash and four octal digits.
fn unescape(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\')
            .then(|| tail.get(..4))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = &tail[4..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
