//! What differs between two states of a block volume's file system, both mounted: their trees
//! are walked side by side and what the kernel keeps of each file is compared. No content is
//! read. Its cost is that of the number of files, where a file volume's is that of the change:
//! no file system but the pool's own knows what two of its states share.

use std::{
    cmp::Ordering,
    ffi::{OsStr, OsString},
    fs::File,
    os::{fd::AsFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use pool::{Change, ChangeKind};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, statat},
    io::Errno,
};
use types::{Result, error::ResultExt as _};

/// What changed from the tree at `old` to that at `new`, sorted by path.
pub(crate) fn changes(old: &Path, new: &Path) -> Result<Vec<Change>> {
    let open = |path: &Path| File::open(path).during(|| format!("opening {}", path.display()));
    let walk = Walk {
        old: open(old)?,
        new: open(new)?,
    };
    let mut found = Vec::new();
    // Directories that both have.
    let mut left = vec![PathBuf::new()];
    while let Some(directory) = left.pop() {
        walk.directory(&directory, &mut found, &mut left)?;
    }
    found.sort();
    Ok(found)
}

/// An entry of a directory.
struct Entry {
    name: OsString,
    facts: Stat,
}

impl Entry {
    fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.facts.st_mode) == FileType::Directory
    }

    /// Whether it is the same thing in the same state. A file's change time is set by whatever
    /// is done to it, and users cannot set it.
    fn is_as(&self, other: &Self) -> bool {
        let owner = |facts: &Stat| (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_rdev);
        let changed = |facts: &Stat| (facts.st_ctime, facts.st_ctime_nsec);
        let written = |facts: &Stat| (facts.st_mtime, facts.st_mtime_nsec);
        let (one, two) = (&self.facts, &other.facts);
        if owner(one) != owner(two) {
            return false;
        }
        if self.is_directory() {
            // Names that come and go are differences of their own, and set both times. Only
            // something else sets the one and not the other.
            return changed(one) == changed(two) || written(one) != written(two);
        }
        one.st_ino == two.st_ino && one.st_size == two.st_size && changed(one) == changed(two)
    }
}

struct Walk {
    old: File,
    new: File,
}

impl Walk {
    fn directory(
        &self,
        path: &Path,
        found: &mut Vec<Change>,
        left: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let was = entries(&self.old, path)?;
        let is = entries(&self.new, path)?;
        let (mut was, mut is) = (was.iter().peekable(), is.iter().peekable());
        loop {
            let order = match (was.peek(), is.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(two)) => one.name.cmp(&two.name),
            };
            let one = was.next_if(|_| order.is_le());
            let two = is.next_if(|_| order.is_ge());
            let name = one.or(two).map(|entry| path.join(&entry.name));
            let Some(inner) = name else { return Ok(()) };
            let kind = match (one, two) {
                (Some(one), Some(two)) => (!one.is_as(two)).then_some(ChangeKind::Changed),
                (Some(_), None) => Some(ChangeKind::Removed),
                (None, _) => Some(ChangeKind::Added),
            };
            found.extend(kind.map(|kind| change(&inner, kind)));
            let was_directory = one.is_some_and(Entry::is_directory);
            let is_directory = two.is_some_and(Entry::is_directory);
            if was_directory && is_directory {
                left.push(inner);
            } else if was_directory {
                below(&self.old, &inner, ChangeKind::Removed, found)?;
            } else if is_directory {
                below(&self.new, &inner, ChangeKind::Added, found)?;
            }
        }
    }
}

/// Everything below a directory that only one of the two has.
fn below(root: &File, path: &Path, kind: ChangeKind, found: &mut Vec<Change>) -> Result<()> {
    let mut left = vec![path.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in entries(root, &directory)? {
            let inner = directory.join(&entry.name);
            found.push(change(&inner, kind));
            if entry.is_directory() {
                left.push(inner);
            }
        }
    }
    Ok(())
}

fn change(path: &Path, kind: ChangeKind) -> Change {
    Change {
        path: String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned(),
        kind,
    }
}

/// The entries of the directory `path` below `root`, sorted by name. What goes while a live tree
/// is read is not there.
fn entries(root: &File, path: &Path) -> Result<Vec<Entry>> {
    let operation = || format!("listing {}", path.display());
    let relative = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    // Users of a live tree may put links in the way.
    let opened = openat2(
        root,
        relative,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    );
    let directory = match opened {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        opened => opened.map_err(std::io::Error::from).during(operation)?,
    };
    let mut found = Vec::new();
    for entry in Dir::read_from(&directory)
        .map_err(std::io::Error::from)
        .during(operation)?
    {
        let entry = entry.map_err(std::io::Error::from).during(operation)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            facts => found.push(Entry {
                name: name.to_owned(),
                facts: facts.map_err(std::io::Error::from).during(operation)?,
            }),
        }
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// Two trees without a file in common: only a snapshot has the inodes and times of another
    /// tree, and those are compared by `tests/volumes/inside.sh`.
    #[test]
    fn names_and_what_is_below() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        for made in ["old/gone/deep", "old/both/x", "new/both/y", "new/came/deep"] {
            fs::create_dir_all(dir.path().join(made)).expect("a directory");
        }
        fs::write(old.join("gone/deep/file"), "1").expect("a file");
        fs::write(new.join("came/deep/file"), "1").expect("a file");
        fs::write(old.join("turned"), "1").expect("a file");
        fs::create_dir(new.join("turned")).expect("a directory");
        fs::write(new.join("turned/inner"), "1").expect("a file");
        let found = changes(&old, &new).expect("a comparison");
        let found: Vec<(&str, ChangeKind)> = found
            .iter()
            .map(|change| (change.path.as_str(), change.kind))
            .collect();
        use ChangeKind::{Added, Changed, Removed};
        let wanted = [
            ("both/x", Removed),
            ("both/y", Added),
            ("came", Added),
            ("came/deep", Added),
            ("came/deep/file", Added),
            ("gone", Removed),
            ("gone/deep", Removed),
            ("gone/deep/file", Removed),
            ("turned", Changed),
            ("turned/inner", Added),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_same_tree() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("d")).expect("a directory");
        fs::write(dir.path().join("d/f"), "1").expect("a file");
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).expect("a link");
        fs::set_permissions(dir.path().join("d/f"), fs::Permissions::from_mode(0o600))
            .expect("a mode");
        assert_eq!(changes(dir.path(), dir.path()).expect("a comparison"), []);
    }
}
