//! What changed between two read-only subvolumes: the kernel's send stream without data, read
//! and turned into a list of paths. Its cost is that of the change, as the kernel skips all that
//! both have in common.
//!
//! The stream says how to make one state of the other, step by step. A new file first appears
//! under a name of its own, `o<inode>-<generation>-<number>`, and what is in the way of a new
//! name is moved to such a name, so the steps are followed on a sketch of the tree that only
//! holds what they touch.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, Read},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
    thread,
};

use rustix::{io::Errno, pipe::PipeFlags};
use types::{Error, Result, error::ResultExt as _};

use super::ioctl;
use crate::{Change, ChangeKind};

/// What changed from the read-only subvolume at `old` to that at `new`, sorted by path.
pub(super) fn changes(old: &Path, new: &Path) -> Result<Vec<Change>> {
    let subvolume = super::dataset::open(new)?;
    let mut found = compare(&subvolume, &super::dataset::open(old)?)?;
    add_moved(&mut found, old, new)?;
    add_links(&mut found, &subvolume, new);
    Ok(found
        .kinds
        .into_iter()
        .map(|(path, kind)| Change {
            path: String::from_utf8_lossy(&path).into_owned(),
            kind,
        })
        .collect())
}

/// All that is in a directory that bears another name now is elsewhere too.
fn add_moved(found: &mut Differences, old: &Path, new: &Path) -> Result<()> {
    let there = |root: &Path, path: &[u8]| {
        root.join(OsStr::from_bytes(path))
            .symlink_metadata()
            .is_ok()
    };
    for (was, is) in &found.moved {
        for path in below(old, was)? {
            let kind = match there(new, &path) {
                true => ChangeKind::Changed,
                false => ChangeKind::Removed,
            };
            found.kinds.entry(path).or_insert(kind);
        }
        for path in below(new, is)? {
            let kind = match there(old, &path) {
                true => ChangeKind::Changed,
                false => ChangeKind::Added,
            };
            found.kinds.entry(path).or_insert(kind);
        }
    }
    Ok(())
}

/// All paths below the directory `path` of `root`; none if it is no directory.
fn below(root: &Path, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut left = vec![path.to_vec()];
    while let Some(path) = left.pop() {
        let directory = root.join(OsStr::from_bytes(&path));
        if !directory
            .symlink_metadata()
            .is_ok_and(|found| found.is_dir())
        {
            continue;
        }
        for name in super::dataset::names(&directory)? {
            let inner = joined(&path, name.as_bytes());
            left.push(inner.clone());
            found.push(inner);
        }
    }
    Ok(found)
}

/// A file with several names that changed is told of by one: the others changed too.
fn add_links(found: &mut Differences, subvolume: &File, root: &Path) {
    for path in &found.touched {
        let linked = fs::symlink_metadata(root.join(OsStr::from_bytes(path)))
            .ok()
            .filter(|found| !found.is_dir() && found.nlink() > 1);
        let Some(linked) = linked else { continue };
        // One that can't be found out is no reason to tell nothing.
        for name in ioctl::inode_paths(subvolume, linked.ino()).unwrap_or_default() {
            found.kinds.entry(name).or_insert(ChangeKind::Changed);
        }
    }
}

type Kinds = BTreeMap<Vec<u8>, ChangeKind>;

/// What a stream says.
#[derive(Debug, Default)]
struct Differences {
    kinds: Kinds,
    /// New paths of things that were there before and changed themselves.
    touched: Vec<Vec<u8>>,
    /// Old and new paths of things that are elsewhere now.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Lets the kernel compare, and reads what it says.
fn compare(subvolume: &File, parent: &File) -> Result<Differences> {
    let parent_id = ioctl::subvolume_info(parent)
        .during(|| "look at a snapshot")?
        .id;
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(|| "make a pipe")?;
    let (sent, read) = thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let sent = ioctl::send(subvolume, parent_id, &writer);
            // The reader sees the end of the stream only then.
            drop::<OwnedFd>(writer);
            sent
        });
        let read = follow(BufReader::with_capacity(64 << 10, File::from(reader)));
        (sender.join(), read)
    });
    match sent {
        // A reader that gives up breaks the pipe.
        Ok(Ok(()) | Err(Errno::PIPE)) => read,
        Ok(Err(error)) => Err(Error::wrap("compare two snapshots", error)),
        Err(_) => Err(Error::system("compare two snapshots: the sender panicked")),
    }
}

const MAGIC: &[u8; 13] = b"btrfs-stream\0";

/// Commands of the stream (fs/btrfs/send.h).
mod command {
    pub(super) const SUBVOL: u16 = 1;
    pub(super) const SNAPSHOT: u16 = 2;
    pub(super) const MKFILE: u16 = 3;
    pub(super) const SYMLINK: u16 = 8;
    pub(super) const RENAME: u16 = 9;
    pub(super) const LINK: u16 = 10;
    pub(super) const UNLINK: u16 = 11;
    pub(super) const RMDIR: u16 = 12;
    pub(super) const UTIMES: u16 = 20;
    pub(super) const END: u16 = 21;
}

/// Attributes of commands.
mod attribute {
    pub(super) const PATH: u16 = 15;
    pub(super) const PATH_TO: u16 = 16;
}

/// Reads a stream to its end.
fn follow(mut stream: impl Read) -> Result<Differences> {
    let mut head = [0; 17];
    stream.read_exact(&mut head).map_err(cut)?;
    if &head[..13] != MAGIC {
        return Err(Error::system("compare two snapshots: not a send stream"));
    }
    let mut sketch = Sketch::default();
    let mut buffer = Vec::new();
    loop {
        let mut head = [0; 10];
        stream.read_exact(&mut head).map_err(cut)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        // Without file data no command comes near this.
        if length > 16 << 20 {
            return Err(Error::system("compare two snapshots: a bad send stream"));
        }
        let command = u16::from_le_bytes([head[4], head[5]]);
        buffer.resize(length, 0);
        stream.read_exact(&mut buffer).map_err(cut)?;
        if command == command::END {
            return Ok(sketch.changes());
        }
        let [path, to] = paths(&buffer);
        sketch.apply(command, path, to);
    }
}

fn cut(error: io::Error) -> Error {
    Error::wrap("compare two snapshots: read the send stream", error)
}

/// The path and the second path of a command.
fn paths(mut attributes: &[u8]) -> [&[u8]; 2] {
    let mut found: [&[u8]; 2] = [&[], &[]];
    while let Some((head, rest)) = attributes.split_at_checked(4) {
        let kind = u16::from_le_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let Some((value, rest)) = rest.split_at_checked(length) else {
            break;
        };
        match kind {
            attribute::PATH => found[0] = value,
            attribute::PATH_TO => found[1] = value,
            _ => {}
        }
        attributes = rest;
    }
    found
}

/// Where a thing that the stream touches was before. Things that moved take what is in them
/// along.
#[derive(Debug, Default)]
struct Node {
    /// Its path in the old state, for what was there.
    was: Option<Vec<u8>>,
    /// Whether it was made, or its content or attributes changed.
    fresh: bool,
    touched: bool,
    children: BTreeMap<Vec<u8>, Node>,
}

/// The part of the tree that the stream touches.
#[derive(Debug, Default)]
struct Sketch {
    root: Node,
    /// Old paths of what was removed.
    removed: Vec<Vec<u8>>,
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        [] => name.to_vec(),
        _ => [parent, b"/", name].concat(),
    }
}

impl Sketch {
    fn apply(&mut self, command: u16, path: &[u8], to: &[u8]) {
        use command::{LINK, MKFILE, RENAME, RMDIR, SNAPSHOT, SUBVOL, SYMLINK, UNLINK, UTIMES};
        match command {
            // The root itself; and times change with whatever changed.
            SUBVOL | SNAPSHOT | UTIMES => {}
            MKFILE..=SYMLINK => self.make(path),
            LINK => self.make(path),
            RENAME => self.rename(path, to),
            UNLINK | RMDIR => self.remove(path),
            _ => self.node(path).touched = true,
        }
    }

    /// The node at a path of the state that the stream has come to.
    fn node(&mut self, path: &[u8]) -> &mut Node {
        let mut node = &mut self.root;
        let mut old: Option<Vec<u8>> = Some(Vec::new());
        for part in parts(path) {
            // What the stream has not touched is where it was in its parent.
            let parent = if node.fresh {
                None
            } else {
                node.was.clone().or(old)
            };
            old = parent.map(|parent| joined(&parent, part));
            let was = old.clone();
            node = node.children.entry(part.to_vec()).or_insert_with(|| Node {
                was,
                ..Node::default()
            });
            old = node.was.clone();
        }
        node
    }

    fn make(&mut self, path: &[u8]) {
        let node = self.node(path);
        *node = Node {
            fresh: true,
            ..Node::default()
        };
    }

    /// Takes the node at `path` out of the tree.
    fn take(&mut self, path: &[u8]) -> Node {
        self.node(path);
        let (parent, name) = split(path);
        let parent = self.node(parent);
        parent.children.remove(name).unwrap_or_default()
    }

    fn rename(&mut self, path: &[u8], to: &[u8]) {
        let node = self.take(path);
        let (parent, name) = split(to);
        self.node(parent).children.insert(name.to_vec(), node);
    }

    fn remove(&mut self, path: &[u8]) {
        let node = self.take(path);
        if let Some(was) = node.was {
            self.removed.push(was);
        }
    }

    /// Compares where things are with where they were.
    fn changes(self) -> Differences {
        let mut found = Differences::default();
        for path in self.removed {
            found.kinds.insert(path, ChangeKind::Removed);
        }
        collect(&self.root, &[], &mut found);
        for (was, _) in &found.moved {
            // Another thing may have taken its place, which is then a change of that path.
            found
                .kinds
                .entry(was.clone())
                .and_modify(|kind| {
                    if *kind == ChangeKind::Added {
                        *kind = ChangeKind::Changed;
                    }
                })
                .or_insert(ChangeKind::Removed);
        }
        found
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Notes what is new or changed at and below a node, which is at `path` now.
fn collect(node: &Node, path: &[u8], found: &mut Differences) {
    if !path.is_empty() {
        if node.was.as_deref() != Some(path) {
            // A new thing at the place of an old one is a change of that path.
            found
                .kinds
                .entry(path.to_vec())
                .and_modify(|kind| *kind = ChangeKind::Changed)
                .or_insert(ChangeKind::Added);
            let was = node.was.clone();
            found.moved.extend(was.map(|was| (was, path.to_vec())));
        } else if node.touched {
            found.kinds.insert(path.to_vec(), ChangeKind::Changed);
        }
        if node.touched && !node.fresh {
            found.touched.push(path.to_vec());
        }
    }
    for (name, child) in &node.children {
        collect(child, &joined(path, name), found);
    }
}
