//! A file of a volume as what it was, with what is new in it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Seek as _, Write},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    sync::{Mutex, PoisonError},
};

use chunk::{
    Cutter, Hash, Prefix,
    recipe::{self, Step},
};
use rustix::{
    fs::{
        AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fallocate,
        fchmod, fchown, fstat, futimens, ioctl_ficlone, linkat, openat, renameat, unlinkat,
    },
    io::Errno,
};
use types::{Error, Result, native::FilePut};

use crate::{
    fsutil::{kind, magic_path, open_in_root, path},
    layers::archive_error,
    names::{clean, split_last},
};

/// A regular file that is there.
struct There {
    parent: OwnedFd,
    name: Vec<u8>,
    /// By its path only. What it is has been looked at, so nothing else is ever opened: a name may
    /// stand for a device of the machine's a moment later.
    place: OwnedFd,
    file: File,
}

fn reopened(place: &OwnedFd, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC;
    Ok(openat(rustix::fs::CWD, magic_path(place), flags, Mode::empty())?.into())
}

fn there(root: BorrowedFd<'_>, wanted: &str) -> Result<There> {
    let missing = || Error::not_found(format!("there is no file /{wanted}"));
    let doing = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR => missing(),
        _ => Error::wrap(format_args!("opening /{wanted}"), io::Error::from(errno)),
    };
    let full = clean(format!("/{wanted}").as_bytes()).unwrap_or_default();
    let (above, name) = split_last(&full);
    if name.is_empty() {
        return Err(missing());
    }
    let parent = open_in_root(root, above, OFlags::RDONLY | OFlags::DIRECTORY).map_err(doing)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = openat(&parent, path(name), flags, Mode::empty()).map_err(doing)?;
    if kind(&fstat(&place).map_err(doing)?) != FileType::RegularFile {
        return Err(Error::invalid(format!("/{wanted} is no regular file")));
    }
    let file = reopened(&place, OFlags::RDONLY)
        .map_err(|error| Error::wrap(format_args!("opening /{wanted}"), error))?;
    Ok(There {
        parent,
        name: name.to_vec(),
        place,
        file,
    })
}

/// The chunks of a file, in their order.
fn cut(file: &File) -> io::Result<Vec<(Hash, u64, u32)>> {
    /// Bytes. The chunks of more than that take a while to find, and memory.
    const LARGEST: u64 = 4 << 30;
    let length = file.metadata()?.len();
    if length > LARGEST {
        return Err(crate::tar::bad(format!(
            "a file of {length} bytes is sent as a whole; up to {LARGEST} its chunks are told"
        )));
    }
    let (mut found, mut at) = (Vec::new(), 0);
    Cutter::default().cut(file, |bytes| {
        found.push((Hash::of(bytes), at, bytes.len() as u32));
        at += bytes.len() as u64;
        Ok(())
    })?;
    Ok(found)
}

/// The starts of the hashes of a file's chunks, [`Prefix::LENGTH`] bytes each.
pub fn file_chunks(root: BorrowedFd<'_>, wanted: &str) -> Result<Vec<u8>> {
    let there = there(root, wanted)?;
    let chunks =
        cut(&there.file).map_err(|error| archive_error(&format!("reading /{wanted}"), &error))?;
    let mut prefixes = Vec::with_capacity(chunks.len() * Prefix::LENGTH);
    for (hash, ..) in chunks {
        prefixes.extend_from_slice(&hash.prefix().0);
    }
    Ok(prefixes)
}

/// A file in the making. Where the file system can do that it has no name until it is whole: a
/// crash before leaves nothing.
struct Temporary<'a> {
    parent: &'a OwnedFd,
    file: File,
    /// The name that it has now.
    name: Option<String>,
}

fn temporary_name() -> String {
    format!(".kr-{}", &types::id::random_hex()[..16])
}

impl<'a> Temporary<'a> {
    fn new(parent: &'a OwnedFd) -> io::Result<Self> {
        let mode = Mode::from_raw_mode(0o600);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let (file, name) = match openat(parent, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => (file, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                let name = temporary_name();
                let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                (openat(parent, name.as_str(), flags, mode)?, Some(name))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            parent,
            file: file.into(),
            name,
        })
    }

    /// Takes the place of what has this name.
    fn rename(mut self, to: &[u8]) -> io::Result<()> {
        let name = match self.name.take() {
            Some(name) => name,
            None => {
                let name = temporary_name();
                linkat(
                    rustix::fs::CWD,
                    magic_path(&self.file),
                    self.parent,
                    name.as_str(),
                    AtFlags::SYMLINK_FOLLOW,
                )?;
                name
            }
        };
        renameat(self.parent, name.as_str(), self.parent, path(to)).inspect_err(|_| {
            self.name = Some(name);
        })?;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take()
            && let Err(error) = unlinkat(self.parent, name.as_str(), AtFlags::empty())
        {
            tracing::warn!(%name, %error, "half a file stays in a volume");
        }
    }
}

/// Makes a file that is there what `put` says, of a recipe that numbers its old chunks. Fails,
/// and leaves it as it was, when what comes of that has another hash.
pub fn file_put(root: BorrowedFd<'_>, put: &FilePut, recipe: impl Read) -> Result<()> {
    let there = there(root, &put.path)?;
    let failed = |error: io::Error| archive_error(&format!("writing /{}", put.path), &error);
    if [put.uid, put.gid].contains(&u32::MAX) {
        // To the kernel that means that it shall stay.
        return Err(Error::invalid("invalid owner: there is no such id"));
    }
    let recipe = super::decompress(recipe).map_err(failed)?;
    let recipe = BufReader::with_capacity(256 << 10, recipe);
    let mut new = Temporary::new(&there.parent).map_err(failed)?;
    let hash = fill(&there.file, recipe, &new.file, put.size).map_err(failed)?;
    if hash.to_hex() != put.hash {
        return Err(Error::conflict(format!(
            "/{} has changed meanwhile, or was sent wrong",
            put.path
        )));
    }
    let finish = || -> io::Result<()> {
        if !put.in_place {
            attributes(&new.file, put)?;
            return new.rename(&there.name);
        }
        let old = reopened(&there.place, OFlags::WRONLY)?;
        replace_content(&old, &mut new.file, put.size)?;
        attributes(&old, put)
    };
    finish().map_err(|error| match error.kind() {
        io::ErrorKind::ExecutableFileBusy => Error::conflict(format!(
            "/{} is running, so it is not changed in its place",
            put.path
        )),
        _ => failed(error),
    })
}

/// Makes a file's content that of another one, with as little as possible that can fail on the way.
fn replace_content(old: &File, new: &mut File, size: u64) -> io::Result<()> {
    /// Of two at a time the file would have a part of each.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Shares the blocks, all or none.
    if ioctl_ficlone(old, &*new).is_err() {
        // Where blocks are overwritten as they are, only those after the end may be wanting.
        match fallocate(old, FallocateFlags::KEEP_SIZE, 0, size.max(1)) {
            // Not every file system can say so before.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        new.rewind()?;
        io::copy(new, &mut &*old)?;
    }
    old.set_len(size)
}

/// Writes what a recipe makes of `old`; returns the hash of it.
fn fill(old: &File, recipe: impl BufRead, new: &File, size: u64) -> io::Result<Hash> {
    let chunks = cut(old)?;
    let mut recipe = recipe::Reader::new(recipe);
    let mut to = BufWriter::with_capacity(256 << 10, new);
    let (mut hasher, mut left) = (Hash::hasher(), size);
    let mut buffer = Vec::new();
    let mut take = |bytes: &[u8]| -> io::Result<()> {
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| crate::tar::bad("bad recipe: it makes more than the file's size"))?;
        hasher.update(bytes);
        to.write_all(bytes)
    };
    while let Some(step) = recipe.step()? {
        match step {
            Step::Bytes(bytes) => take(&bytes)?,
            Step::Known { first, count } => {
                for number in first..first + count {
                    let chunk = usize::try_from(number).ok().and_then(|at| chunks.get(at));
                    let (_, at, length) = chunk.ok_or_else(|| {
                        crate::tar::bad("bad recipe: there is no chunk of this number")
                    })?;
                    buffer.resize(*length as usize, 0);
                    old.read_exact_at(&mut buffer, *at)?;
                    take(&buffer)?;
                }
            }
            _ => return Err(crate::tar::bad("bad recipe: a step that files have not")),
        }
    }
    to.flush()?;
    drop(to);
    if left > 0 {
        return Err(crate::tar::bad(
            "bad recipe: it makes less than the file's size",
        ));
    }
    Ok(hasher.finish())
}

fn attributes(file: &File, put: &FilePut) -> io::Result<()> {
    fchown(
        file,
        Some(Uid::from_raw(put.uid)),
        Some(Gid::from_raw(put.gid)),
    )?;
    fchmod(file, Mode::from_raw_mode(put.mode & 0o7777))?;
    let time = Timespec {
        tv_sec: put.mtime,
        tv_nsec: 0,
    };
    futimens(
        file,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::{
            fd::AsFd as _,
            unix::fs::{MetadataExt as _, PermissionsExt as _},
        },
    };

    use super::*;

    fn random(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(next).collect()
    }

    fn packed(fill: impl FnOnce(&mut recipe::Writer<Vec<u8>>) -> io::Result<()>) -> Vec<u8> {
        let mut writer = recipe::Writer::new(Vec::new());
        fill(&mut writer).unwrap();
        zstd::encode_all(writer.finish().unwrap().as_slice(), 0).unwrap()
    }

    #[test]
    fn a_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let old = random(900_000);
        let place = dir.path().join("sub/data");
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(&place, &old).unwrap();
        let known = file_chunks(root.as_fd(), "sub/data").unwrap().len() / Prefix::LENGTH;
        let lengths: Vec<u32> = cut(&File::open(&place).unwrap())
            .unwrap()
            .iter()
            .map(|(_, _, length)| *length)
            .collect();
        assert_eq!(known, lengths.len());
        let new = [b"put before", old.as_slice()].concat();
        let recipe = packed(|writer| {
            writer.bytes(b"put before")?;
            for (number, length) in (0..).zip(&lengths) {
                writer.known(number, *length)?;
            }
            Ok(())
        });
        let mut put = FilePut {
            path: "sub/data".into(),
            mode: 0o640,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            mtime: 1_700_000_000,
            size: new.len() as u64,
            hash: Hash::of(&new).to_hex(),
            in_place: false,
        };
        let before = fs::metadata(&place).unwrap().ino();
        // What does not come out as promised changes nothing.
        for bad in [
            FilePut {
                hash: Hash::of(b"other").to_hex(),
                ..put.clone()
            },
            FilePut {
                size: 5,
                ..put.clone()
            },
            FilePut {
                size: put.size + 1,
                in_place: true,
                ..put.clone()
            },
            FilePut {
                uid: u32::MAX,
                ..put.clone()
            },
            FilePut {
                path: "sub".into(),
                ..put.clone()
            },
            FilePut {
                path: "sub/none".into(),
                ..put.clone()
            },
            FilePut {
                path: "/".into(),
                ..put.clone()
            },
        ] {
            file_put(root.as_fd(), &bad, recipe.as_slice()).unwrap_err();
        }
        for bad in [
            packed(|writer| writer.known(known as u64, 1)),
            packed(|writer| writer.chunk(&Hash::of(b"x"), 1)),
            recipe[..recipe.len() / 2].to_vec(),
            b"none".to_vec(),
        ] {
            file_put(root.as_fd(), &put, bad.as_slice()).unwrap_err();
        }
        assert_eq!(fs::read(&place).unwrap(), old);
        file_put(root.as_fd(), &put, recipe.as_slice()).unwrap();
        let facts = fs::metadata(&place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), new);
        assert_eq!(facts.permissions().mode() & 0o7777, 0o640);
        assert_eq!(facts.mtime(), 1_700_000_000);
        assert_ne!(facts.ino(), before);
        // In its place, and shorter.
        put.in_place = true;
        put.size = 5;
        put.hash = Hash::of(b"short").to_hex();
        let mut open = File::open(&place).unwrap();
        file_put(
            root.as_fd(),
            &put,
            packed(|writer| writer.bytes(b"short")).as_slice(),
        )
        .unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "short");
        // Pipes and devices are not opened: this would wait for ever.
        let pipe = dir.path().join("sub/pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        put.path = "sub/pipe".into();
        file_put(root.as_fd(), &put, recipe.as_slice()).unwrap_err();
        file_chunks(root.as_fd(), "sub/pipe").unwrap_err();
        fs::remove_file(pipe).unwrap();
        put.path = "sub/data".into();
        // Links lead nowhere.
        fs::write(dir.path().join("outside"), "x").unwrap();
        fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink("../outside", &place).unwrap();
        file_put(root.as_fd(), &put, recipe.as_slice()).unwrap_err();
        file_chunks(root.as_fd(), "sub/data").unwrap_err();
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
    }
}
