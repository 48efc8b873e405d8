//! Packs directory trees into tars: for `docker cp`, `docker export` and `docker commit`.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, openat, readlinkat,
        statx,
    },
    io::Errno,
};

use crate::{
    changes::is_opaque,
    fsutil::{deeper, is_whiteout, kind, lstat, magic_child, names, open_child_dir, path},
    owners::Owners,
    tar::{Header, Kind, Writer},
};

/// How trees are packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Overlay whiteouts become AUFS ones; without this they are left out.
    whiteouts: bool,
    /// Go into directories that something is mounted on.
    cross_mounts: bool,
    /// Keep times below the second.
    nanoseconds: bool,
    /// Through whose eyes the tree is seen.
    owners: Owners,
}

impl Rules {
    /// A layer of an upper directory.
    pub(crate) fn layer() -> Self {
        Self {
            whiteouts: true,
            cross_mounts: false,
            nanoseconds: true,
            owners: Owners::default(),
        }
    }
    /// `docker cp`.
    pub(crate) fn copy() -> Self {
        Self {
            whiteouts: false,
            cross_mounts: true,
            nanoseconds: true,
            owners: Owners::default(),
        }
    }
    /// `docker export`.
    pub(crate) fn export() -> Self {
        Self {
            whiteouts: false,
            cross_mounts: false,
            nanoseconds: true,
            owners: Owners::default(),
        }
    }
    /// Of a tree that is seen through a user namespace.
    pub(crate) fn owners(self, owners: Owners) -> Self {
        Self { owners, ..self }
    }
}

/// A tar being packed.
pub(crate) struct Packer<W: Write> {
    tar: Writer<W>,
    rules: Rules,
    /// Files with several names: the name they were packed under.
    linked: HashMap<(u64, u64), Vec<u8>>,
    depth: usize,
}

fn entry_kind(stat: &Stat) -> Option<Kind> {
    Some(match kind(stat) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        // Sockets have no place in a tar.
        _ => return None,
    })
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(output: W, rules: Rules) -> Self {
        Self {
            tar: Writer::new(output),
            rules,
            linked: HashMap::new(),
            depth: 0,
        }
    }

    /// Packs the entries of directory `name` of `dir`, each under `prefix` and its own name.
    pub(crate) fn tree(
        mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        prefix: &[u8],
    ) -> io::Result<Self> {
        let inner = open_child_dir(dir, name)?;
        self.children(&inner, prefix)?;
        Ok(self)
    }

    /// Packs `name` of `dir` as `as_path`, with all that is in it.
    pub(crate) fn entry(
        mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        as_path: &[u8],
    ) -> io::Result<Self> {
        let stat = lstat(dir, name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.one(dir, name, as_path, &stat)?;
        Ok(self)
    }

    /// Ends the tar.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.tar.finish().map(drop)
    }

    fn children(&mut self, dir: &OwnedFd, prefix: &[u8]) -> io::Result<()> {
        self.depth = deeper(self.depth)?;
        for name in names(dir)? {
            // Things may vanish while a container runs.
            if let Some(stat) = lstat(dir, &name)? {
                self.one(
                    dir.as_fd(),
                    &name,
                    &[prefix, name.as_slice()].concat(),
                    &stat,
                )?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn one(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        as_path: &[u8],
        stat: &Stat,
    ) -> io::Result<()> {
        if is_whiteout(stat) {
            return if self.rules.whiteouts {
                self.whiteout(as_path, stat)
            } else {
                Ok(())
            };
        }
        let Some(kind) = entry_kind(stat) else {
            return Ok(());
        };
        let mut header = self.header(as_path, kind, stat);
        if !self.rules.nanoseconds {
            header.mtime.1 = 0;
        }
        header.xattrs = xattrs(dir, name)?;
        for (attribute, value) in &mut header.xattrs {
            *value = self
                .rules
                .owners
                .attribute_to_tar(attribute, std::mem::take(value));
        }
        match kind {
            Kind::Directory => self.directory(dir, name, header),
            Kind::File => self.file(dir, name, header, stat),
            Kind::Symlink => {
                header.link = match readlinkat(dir, path(name), Vec::new()) {
                    Ok(target) => target.into_bytes(),
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                self.tar.begin(&header)
            }
            _ => self.tar.begin(&header),
        }
    }

    fn header(&self, as_path: &[u8], kind: Kind, stat: &Stat) -> Header {
        Header {
            path: as_path.to_vec(),
            link: Vec::new(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: self.rules.owners.to_tar(stat.st_uid),
            gid: self.rules.owners.to_tar(stat.st_gid),
            mtime: (
                stat.st_mtime,
                u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
            size: 0,
            device: (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            xattrs: Vec::new(),
        }
    }

    fn whiteout(&mut self, as_path: &[u8], stat: &Stat) -> io::Result<()> {
        let (parent, name) = crate::names::split_last(as_path);
        let place = crate::fsutil::join(parent, &[b".wh.", name].concat());
        self.tar.begin(&Header {
            size: 0,
            mode: 0,
            ..self.header(&place, Kind::File, stat)
        })
    }

    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        mut header: Header,
    ) -> io::Result<()> {
        let inner = match open_child_dir(dir, name) {
            Ok(inner) => inner,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !header.path.ends_with(b"/") {
            header.path.push(b'/');
        }
        self.tar.begin(&header)?;
        if !self.rules.cross_mounts && is_mount_point(dir, name)? {
            return Ok(());
        }
        if self.rules.whiteouts && is_opaque(&inner)? {
            let place = [header.path.as_slice(), b".wh..wh..opq"].concat();
            self.tar.begin(&Header {
                path: place,
                kind: Kind::File,
                size: 0,
                xattrs: Vec::new(),
                ..header.clone()
            })?;
        }
        self.children(&inner, &header.path)
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        mut header: Header,
        stat: &Stat,
    ) -> io::Result<()> {
        let inode = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.linked.get(&inode)
        {
            header.link = first.clone();
            header.kind = Kind::HardLink;
            return self.tar.begin(&header);
        }
        // Not blocking: a pipe may have taken the file's place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match openat(dir, path(name), flags, Mode::empty()) {
            Ok(fd) => std::fs::File::from(fd),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now = rustix::fs::fstat(&file)?;
        if kind(&now) != FileType::RegularFile {
            return Ok(());
        }
        header.size = u64::try_from(now.st_size).unwrap_or(0);
        self.tar.begin(&header)?;
        self.content(&mut file, header.size)?;
        if stat.st_nlink > 1 {
            self.linked.insert(inode, header.path);
        }
        Ok(())
    }

    /// Exactly `size` bytes: a file that shrinks meanwhile is filled with zeroes, one that
    /// grows is cut.
    fn content(&mut self, file: &mut std::fs::File, size: u64) -> io::Result<()> {
        let mut buffer = vec![
            0;
            usize::try_from(size)
                .unwrap_or(usize::MAX)
                .clamp(1, 256 * 1024)
        ];
        let mut left = size;
        while left > 0 {
            let limit = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let mut count = file.read(&mut buffer[..limit])?;
            if count == 0 {
                buffer[..limit].fill(0);
                count = limit;
            }
            self.tar.content(&buffer[..count])?;
            left -= count as u64;
        }
        Ok(())
    }
}

/// The attributes that travel: capabilities and the users' own.
fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let place = magic_child(dir, name);
    let mut list = vec![0u8; 4096];
    let length = loop {
        match rustix::fs::llistxattr(&place, &mut list[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) => list.resize(list.len() * 4, 0),
            Err(Errno::NOTSUP | Errno::NOENT | Errno::PERM | Errno::ACCESS) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    for attribute in list[..length].split(|&b| b == 0) {
        if attribute != b"security.capability" && !attribute.starts_with(b"user.") {
            continue;
        }
        let mut value = vec![0u8; 65536];
        match rustix::fs::lgetxattr(&place, path(attribute), &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA | Errno::NOENT | Errno::NOTSUP) => continue,
            Err(error) => return Err(error.into()),
        }
        found.push((attribute.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

fn is_mount_point(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let facts = statx(
        dir,
        path(name),
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::empty(),
    )?;
    Ok(facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
