//! Unpacks tar entries into a directory, and never anywhere else.
//!
//! Every name is resolved by the kernel with the root as the limit (`openat2` with
//! `RESOLVE_IN_ROOT`), so links of the archive or of the tree lead at most to another place
//! inside. The last part of a name is never followed. Two modes: a layer for overlayfs
//! (AUFS whiteouts become overlay ones; what is replaced is put aside, see
//! [`crate::headers`]), and a copy into an existing tree.

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, chmodat, chownat,
        fchmod, fchown, fsetxattr, ftruncate, futimens, linkat, lsetxattr, makedev, mkdirat,
        mknodat, openat, renameat, symlinkat, unlinkat, utimensat,
    },
    fs::{Gid, Uid},
    io::Errno,
};

use crate::{
    allowance::{Allowance, charge_of},
    archive::PutOptions,
    fsutil::{
        content_size, is_whiteout, join, kind, lstat, magic_child, magic_path, open_beneath,
        open_child_dir, open_in_root, or_dot, path, real_path, remove_tree,
    },
    headers::Move,
    names::{clean, split_last},
    owners::Owners,
    tar::{Entry, Kind, Reader, Segment, Tap, bad},
};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";

/// What the unpacking is for.
enum Purpose {
    Layer {
        /// Where what is replaced goes; made when first needed.
        aside: OwnedFd,
        moves: Vec<Move>,
        /// Bytes of file contents so far.
        size: u64,
        /// Path of the root, to make paths relative to it.
        root_path: Vec<u8>,
    },
    Copy(PutOptions),
}

/// The directory of the last entry, kept open.
struct Parent {
    /// As the archive names it.
    named: Vec<u8>,
    fd: OwnedFd,
    /// As it is reached from the root; without links in a layer.
    real: Vec<u8>,
}

/// What stands where an entry wants to be.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Free,
    /// Free after a whiteout was taken away: what lies in lower layers must stay hidden.
    WasWhiteout,
    /// A directory that a directory entry changes.
    Directory,
}

/// An unpacking under way.
pub(crate) struct Applier {
    root: OwnedFd,
    /// The directory in `root` that takes the entries.
    base: Vec<u8>,
    purpose: Purpose,
    parent: Option<Parent>,
    /// How much may come, and what came, in the bytes of [`charge_of`].
    allowance: Allowance,
    charge: Cell<u64>,
    /// Set at the end: unpacking into a directory changes its time.
    directory_times: Vec<(Vec<u8>, (i64, u32))>,
}

/// What an unpacked layer came to.
pub(crate) struct Applied {
    pub size: u64,
    pub charge: u64,
    pub moves: Vec<Move>,
}

/// Bytes of content that an entry brings.
fn content_of(entry: &Entry) -> u64 {
    match (&entry.kind, &entry.segments) {
        (Kind::File, Some(segments)) => segments
            .iter()
            .fold(0, |sum, segment| sum.saturating_add(segment.length)),
        (Kind::File, None) => entry.size,
        _ => 0,
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

impl Applier {
    /// Unpacks a layer into the empty directory `root`, putting aside into `aside`.
    pub(crate) fn layer(root: OwnedFd, aside: OwnedFd, allowance: Allowance) -> io::Result<Self> {
        use std::os::unix::ffi::OsStringExt as _;
        let root_path = real_path(&root)?.into_os_string().into_vec();
        let purpose = Purpose::Layer {
            aside,
            moves: Vec::new(),
            size: 0,
            root_path,
        };
        Ok(Self {
            root,
            base: Vec::new(),
            purpose,
            parent: None,
            allowance,
            charge: Cell::new(0),
            directory_times: Vec::new(),
        })
    }

    /// Unpacks into the directory `base` of `root`.
    pub(crate) fn copy(root: OwnedFd, base: Vec<u8>, options: PutOptions) -> Self {
        Self {
            root,
            base,
            purpose: Purpose::Copy(options),
            parent: None,
            allowance: Allowance::default(),
            charge: Cell::new(0),
            directory_times: Vec::new(),
        }
    }

    /// Unpacks all entries.
    pub(crate) fn run<R: io::BufRead, T: Tap>(
        mut self,
        reader: &mut Reader<R, T>,
    ) -> io::Result<Applied> {
        while let Some(entry) = reader.next_entry()? {
            self.apply(&entry, reader).map_err(|error| {
                // The end of the archive, or of what may come, is no fault of the entry.
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::QuotaExceeded
                ) {
                    return error;
                }
                io::Error::new(error.kind(), format!("{}: {error}", lossy(&entry.path)))
            })?;
        }
        self.set_directory_times()?;
        let charge = self.charge.get();
        let (size, moves) = match self.purpose {
            Purpose::Layer { moves, size, .. } => (size, moves),
            Purpose::Copy(_) => (0, Vec::new()),
        };
        Ok(Applied {
            size,
            charge,
            moves,
        })
    }

    fn is_layer(&self) -> bool {
        matches!(self.purpose, Purpose::Layer { .. })
    }

    fn apply<R: io::BufRead, T: Tap>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R, T>,
    ) -> io::Result<()> {
        let full = clean(&entry.path).ok_or_else(|| bad("the name is outside of the root"))?;
        if full.contains(&0) || entry.link.contains(&0) {
            return Err(bad("archive/tar: invalid tar header: NUL in a name"));
        }
        if full.is_empty() {
            // The root itself: its owner and mode are the runtime's choice.
            return if entry.kind == Kind::Directory {
                Ok(())
            } else {
                Err(bad("the root is not a directory"))
            };
        }
        let (dir, name) = split_last(&full);
        if self.is_layer()
            && name != OPAQUE
            && full
                .split(|&b| b == b'/')
                .any(|part| part.starts_with(WHITEOUT_META))
        {
            // Left-overs of AUFS that mean nothing to anybody else.
            return Ok(());
        }
        self.charge(content_of(entry))?;
        self.open_parent(dir)?;
        if self.is_layer() && name.starts_with(WHITEOUT) {
            return self.whiteout(name);
        }
        if entry.kind == Kind::HardLink {
            return self.hard_link(entry, name, reader);
        }
        let place = self.make_room(entry, name, reader.tap())?;
        match entry.kind {
            Kind::Directory => self.directory(entry, name, place),
            Kind::File => self.file(entry, name, reader),
            _ => self.special(entry, name),
        }
    }

    fn charge(&self, content: u64) -> io::Result<()> {
        let bytes = charge_of(content);
        self.charge.set(self.charge.get().saturating_add(bytes));
        self.allowance.take(bytes)
    }

    fn parent(&self) -> io::Result<&Parent> {
        self.parent
            .as_ref()
            .ok_or_else(|| io::Error::other("no directory is open"))
    }

    /// Opens the directory `dir` of the archive, making what is missing.
    fn open_parent(&mut self, dir: &[u8]) -> io::Result<()> {
        if self
            .parent
            .as_ref()
            .is_some_and(|parent| parent.named == dir)
        {
            return Ok(());
        }
        let fd = self.open_dir(dir)?;
        let real = self.real(&fd, dir)?;
        self.parent = Some(Parent {
            named: dir.to_vec(),
            fd,
            real,
        });
        Ok(())
    }

    fn open_dir(&self, dir: &[u8]) -> io::Result<OwnedFd> {
        match open_in_root(
            self.root.as_fd(),
            &self.full(dir),
            OFlags::PATH | OFlags::DIRECTORY,
        ) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_dirs(dir),
            Err(error) => Err(error.into()),
        }
    }

    /// `dir` as seen from the root.
    fn full(&self, dir: &[u8]) -> Vec<u8> {
        if dir.is_empty() {
            self.base.clone()
        } else {
            join(&self.base, dir)
        }
    }

    /// Where the open directory really is in a layer: the way there may have led over links
    /// that a later entry replaces.
    fn real(&self, fd: &OwnedFd, dir: &[u8]) -> io::Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt as _;
        let Purpose::Layer { root_path, .. } = &self.purpose else {
            return Ok(self.full(dir));
        };
        let real = real_path(fd)?.into_os_string().into_vec();
        match real.strip_prefix(root_path.as_slice()) {
            Some([]) => Ok(Vec::new()),
            Some([b'/', rest @ ..]) => Ok(rest.to_vec()),
            _ => Err(bad("the name is outside of the root")),
        }
    }

    /// Makes the missing parts of `dir`, which the archive does not name.
    fn make_dirs(&self, dir: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut at = self.base.clone();
        let mut fd = open_in_root(self.root.as_fd(), &at, flags)?;
        for part in dir.split(|&b| b == b'/') {
            at = join(&at, part);
            let direct = openat(
                &fd,
                path(part),
                flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            );
            fd = match direct {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    self.charge(0)?;
                    self.make_dir(&fd, part, Place::Free)?
                }
                Err(Errno::NOTDIR | Errno::LOOP)
                    if self.is_layer()
                        && lstat(&fd, part)?.is_some_and(|stat| is_whiteout(&stat)) =>
                {
                    unlinkat(&fd, path(part), AtFlags::empty())?;
                    self.make_dir(&fd, part, Place::WasWhiteout)?
                }
                Err(_) => open_in_root(self.root.as_fd(), &at, flags)?,
            };
        }
        Ok(fd)
    }

    fn make_dir(&self, parent: &OwnedFd, name: &[u8], place: Place) -> io::Result<OwnedFd> {
        mkdirat(parent, path(name), Mode::from_raw_mode(0o755))?;
        let fd = open_child_dir(parent, name)?;
        fchmod(&fd, Mode::from_raw_mode(0o755))?;
        if place == Place::WasWhiteout {
            fsetxattr(&fd, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
        }
        Ok(fd)
    }

    /// A file of AUFS's that says what is not there any more.
    fn whiteout(&mut self, name: &[u8]) -> io::Result<()> {
        let parent = self.parent()?;
        if name == OPAQUE {
            let dir = open_child_dir(&parent.fd, b".")?;
            return Ok(fsetxattr(&dir, OPAQUE_XATTR, b"y", XattrFlags::empty())?);
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(bad("a whiteout of nothing"));
        }
        // It speaks of lower layers only; what this layer brings stays.
        match lstat(&parent.fd, hidden)? {
            None => {
                let made = mknodat(
                    &parent.fd,
                    path(hidden),
                    FileType::CharacterDevice,
                    Mode::empty(),
                    0,
                );
                Ok(made?)
            }
            Some(stat) if kind(&stat) == FileType::Directory => {
                let dir = open_child_dir(&parent.fd, hidden)?;
                Ok(fsetxattr(&dir, OPAQUE_XATTR, b"y", XattrFlags::empty())?)
            }
            Some(_) => Ok(()),
        }
    }

    /// Takes away what stands in the way of `entry`.
    fn make_room(&mut self, entry: &Entry, name: &[u8], tap: &mut impl Tap) -> io::Result<Place> {
        let Some(stat) = lstat(&self.parent()?.fd, name)? else {
            return Ok(Place::Free);
        };
        if self.is_layer() && is_whiteout(&stat) {
            unlinkat(&self.parent()?.fd, path(name), AtFlags::empty())?;
            return Ok(Place::WasWhiteout);
        }
        let (is_dir, wants_dir) = (
            kind(&stat) == FileType::Directory,
            entry.kind == Kind::Directory,
        );
        if is_dir && wants_dir {
            return Ok(Place::Directory);
        }
        if let Purpose::Copy(PutOptions {
            no_overwrite_dir_non_dir: true,
            ..
        }) = self.purpose
        {
            let target = lossy(&join(&self.parent()?.real, name)).into_owned();
            if is_dir {
                return Err(bad(format!(
                    "cannot overwrite directory \"/{target}\" with non-directory \"/{target}\""
                )));
            }
            if wants_dir {
                return Err(bad(format!(
                    "cannot overwrite non-directory \"/{target}\" with directory \"/{target}\""
                )));
            }
        }
        self.displace(name, tap)?;
        Ok(Place::Free)
    }

    /// Removes `name`; in a layer its content is put aside, for the exact tar.
    fn displace(&mut self, name: &[u8], tap: &impl Tap) -> io::Result<()> {
        let Some(parent) = &self.parent else {
            return Ok(());
        };
        match &mut self.purpose {
            Purpose::Copy(_) => remove_tree(parent.fd.as_fd(), name),
            Purpose::Layer {
                aside, moves, size, ..
            } => {
                *size = size.saturating_sub(content_size(parent.fd.as_fd(), name)?);
                let place = moves.len() as u64;
                renameat(&parent.fd, path(name), &*aside, place.to_string())?;
                moves.push(Move {
                    path: join(&parent.real, name),
                    before: tap.contents(),
                    place,
                });
                Ok(())
            }
        }
    }

    /// Through whose eyes the tree is seen.
    fn owners(&self) -> Owners {
        match self.purpose {
            Purpose::Copy(options) => Owners(options.seen_by),
            Purpose::Layer { .. } => Owners::default(),
        }
    }

    fn owner(&self, entry: &Entry) -> io::Result<(Option<Uid>, Option<Gid>)> {
        let (uid, gid) = match self.purpose {
            Purpose::Copy(PutOptions {
                owner: Some(owner), ..
            }) => owner,
            _ => (entry.uid, entry.gid),
        };
        let owners = self.owners();
        match (owners.to_kernel(uid), owners.to_kernel(gid)) {
            (Some(uid), Some(gid)) => Ok((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} belongs to {uid}:{gid}, and this namespace has ids up to 65535 only",
                    lossy(&entry.path)
                ),
            )),
        }
    }

    fn directory(&mut self, entry: &Entry, name: &[u8], place: Place) -> io::Result<()> {
        let parent = self.parent()?;
        let fd = if place == Place::Directory {
            open_child_dir(&parent.fd, name)?
        } else {
            self.make_dir(&parent.fd, name, place)?
        };
        let full = join(&parent.real, name);
        self.finish_open(&fd, entry)?;
        self.directory_times.push((full, entry.mtime));
        Ok(())
    }

    fn file<R: io::BufRead, T: Tap>(
        &mut self,
        entry: &Entry,
        name: &[u8],
        reader: &mut Reader<R, T>,
    ) -> io::Result<()> {
        let parent = self.parent()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent.fd, path(name), flags, Mode::from_raw_mode(0o600))?;
        let full = join(&parent.real, name);
        let whole = [Segment {
            offset: 0,
            length: entry.size,
        }];
        for segment in entry.segments.as_deref().unwrap_or(&whole) {
            if segment.length > 0 {
                reader
                    .tap()
                    .content(&full, segment.offset, segment.length)?;
                write_segment(fd.as_fd(), *segment, reader)?;
            }
        }
        if entry.segments.is_some() {
            ftruncate(&fd, entry.size)?;
        }
        self.finish_open(&fd, entry)?;
        futimens(&fd, &timestamps(entry.mtime))?;
        if let Purpose::Layer { size, .. } = &mut self.purpose {
            *size = size.saturating_add(entry.size);
        }
        Ok(())
    }

    /// Owner, attributes and mode, in the order in which none undoes another.
    fn finish_open(&self, fd: &OwnedFd, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner(entry)?;
        fchown(fd, uid, gid)?;
        set_xattrs(entry, self.owners(), |name, value| {
            fsetxattr(fd, path(name), value, XattrFlags::empty())
        })?;
        Ok(fchmod(fd, Mode::from_raw_mode(entry.mode))?)
    }

    /// Links, devices and pipes.
    fn special(&self, entry: &Entry, name: &[u8]) -> io::Result<()> {
        let dir = &self.parent()?.fd;
        let file_type = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            _ => FileType::Symlink,
        };
        if file_type == FileType::Symlink {
            symlinkat(path(&entry.link), dir, path(name))?;
        } else {
            mknodat(
                dir,
                path(name),
                file_type,
                Mode::empty(),
                makedev(entry.device.0, entry.device.1),
            )?;
        }
        let (uid, gid) = self.owner(entry)?;
        chownat(dir, path(name), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        let place = magic_child(dir, name);
        set_xattrs(entry, self.owners(), |attribute, value| {
            lsetxattr(&place, path(attribute), value, XattrFlags::empty())
        })?;
        if file_type != FileType::Symlink {
            // By the open file and not by name: a name could be a link by now.
            let fd = openat(
                dir,
                path(name),
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            chmodat(
                rustix::fs::CWD,
                magic_path(&fd),
                Mode::from_raw_mode(entry.mode),
                AtFlags::empty(),
            )?;
        }
        Ok(utimensat(
            dir,
            path(name),
            &timestamps(entry.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn hard_link<R: io::BufRead, T: Tap>(
        &mut self,
        entry: &Entry,
        name: &[u8],
        reader: &mut Reader<R, T>,
    ) -> io::Result<()> {
        let outside = || {
            bad(format!(
                "invalid hardlink: its target {:?} is outside of the root",
                lossy(&entry.link)
            ))
        };
        let target = clean(&entry.link)
            .filter(|target| !target.is_empty())
            .ok_or_else(outside)?;
        let (target_dir, target_name) = split_last(&target);
        let dir = open_in_root(
            self.root.as_fd(),
            &self.full(target_dir),
            OFlags::PATH | OFlags::DIRECTORY,
        )
        .map_err(|errno| missing_target(entry, errno))?;
        let stat = lstat(&dir, target_name)?.ok_or_else(|| missing_target(entry, Errno::NOENT))?;
        if lstat(&self.parent()?.fd, name)?
            .is_some_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino))
        {
            return Ok(());
        }
        if self.is_layer() && is_whiteout(&stat) {
            return Err(missing_target(entry, Errno::NOENT));
        }
        self.make_room(entry, name, reader.tap())?;
        linkat(
            &dir,
            path(target_name),
            &self.parent()?.fd,
            path(name),
            AtFlags::empty(),
        )
        .map_err(|errno| missing_target(entry, errno))
    }

    fn set_directory_times(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        for (dir, time) in &self.directory_times {
            let opened = if self.is_layer() {
                open_beneath(self.root.as_fd(), dir, flags)
            } else {
                open_in_root(self.root.as_fd(), dir, flags)
            };
            match opened {
                Ok(fd) => futimens(&fd, &timestamps(*time))?,
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    return Err(io::Error::new(
                        io::Error::from(error).kind(),
                        format!("setting the time of {}: {error}", lossy(or_dot(dir))),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn missing_target(entry: &Entry, errno: Errno) -> io::Error {
    let text = format!(
        "hard link to {:?}: {}",
        lossy(&entry.link),
        io::Error::from(errno)
    );
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::PERM | Errno::XDEV => bad(text),
        other => io::Error::new(io::Error::from(other).kind(), text),
    }
}

fn write_segment<R: io::BufRead, T: Tap>(
    file: BorrowedFd<'_>,
    segment: Segment,
    reader: &mut Reader<R, T>,
) -> io::Result<()> {
    let (mut offset, mut left) = (segment.offset, segment.length);
    while left > 0 {
        let piece = reader.fill_content()?;
        let piece = &piece[..usize::try_from(left).unwrap_or(usize::MAX).min(piece.len())];
        if piece.is_empty() {
            return Err(bad("archive/tar: invalid tar header: content is missing"));
        }
        let count = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, piece, offset))?;
        reader.consume_content(count);
        offset += count as u64;
        left -= count as u64;
    }
    Ok(())
}

/// Sets attributes with `set`; those that the file system cannot keep are left out.
fn set_xattrs(
    entry: &Entry,
    owners: Owners,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> io::Result<()> {
    for (name, value) in &entry.xattrs {
        // Those would steer overlayfs itself.
        if name.starts_with(OVERLAY_XATTRS) {
            continue;
        }
        match set(name, &owners.attribute_to_kernel(name, value)) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::PERM) => {
                tracing::debug!(path = %lossy(&entry.path), attribute = %lossy(name), "the attribute cannot be kept here");
            }
            Err(error) => {
                return Err(io::Error::new(
                    io::Error::from(error).kind(),
                    format!("setting attribute {}: {error}", lossy(name)),
                ));
            }
        }
    }
    Ok(())
}
