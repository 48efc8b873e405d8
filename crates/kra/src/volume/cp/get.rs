//! Out of a volume or a snapshot.

use std::{
    fs,
    io::{self, IsTerminal as _, Read},
    path::{Path, PathBuf},
    thread,
};

use client::Archive;
use tokio::task::spawn_blocking;
use tokio_util::io::SyncIoBridge;
use types::native::FileKind;

use super::{about, pipe::Counted, retar, split, tidy};
use crate::{
    exit::{Failure, Outcome},
    place::Place,
    progress::Meter,
    session::Session,
};

/// The archive of a place, and whether only the contents of the directory are meant.
pub(super) async fn open(session: &Session, place: &Place) -> Outcome<(Archive, bool)> {
    let (path, contents) = tidy(&place.path);
    let volume = place.volume.as_str();
    let archive = session
        .client
        .volume_archive_get(volume, place.snapshot(), &path)
        .await
        .map_err(|error| about(volume, error))?;
    Ok((archive, contents))
}

/// Writes the tar to standard output, as it comes.
pub(super) async fn to_stdout(session: &Session, from: &Place) -> Outcome {
    if io::stdout().is_terminal() {
        return Err(Failure::usage(
            "a tar is not for a terminal: send it to a file or a program",
        ));
    }
    let (archive, _) = open(session, from).await?;
    let meter = Meter::new("copying");
    let mut tar = Counted {
        inner: SyncIoBridge::new(archive.tar),
        meter: meter.clone(),
    };
    let done = spawn_blocking(move || io::copy(&mut tar, &mut io::stdout().lock())).await;
    meter.end();
    joined(done)
        .map(drop)
        .map_err(|error| Failure::io("copying", error))
}

/// What came of a thread.
pub(super) fn joined<T>(done: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Unpacks into this machine's files.
pub(super) async fn to_path(session: &Session, from: &Place, to: &str, owners: bool) -> Outcome {
    let (archive, contents) = open(session, from).await?;
    let is_dir = archive.stat.kind == FileKind::Directory;
    let (path, _) = tidy(&from.path);
    let target = Target::of(to, split(&path).1, is_dir, contents)?;
    let meter = Meter::new("copying");
    let tar = Counted {
        inner: SyncIoBridge::new(archive.tar),
        meter: meter.clone(),
    };
    let done = spawn_blocking(move || {
        if is_dir {
            unpack(tar, &target.name, &target.dir, owners)
        } else {
            replace(tar, &target, owners)
        }
    })
    .await;
    meter.end();
    joined(done).map_err(|error| Failure::io(&format!("copying to {to}"), error))
}

/// Where a copy goes.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// A directory that exists.
    dir: PathBuf,
    /// The copy's name in it; empty for contents without their directory.
    name: PathBuf,
}

impl Target {
    /// docker's rules. `own` is the name of what is copied.
    fn of(to: &str, own: &str, is_dir: bool, contents: bool) -> Outcome<Self> {
        let path = Path::new(to);
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => Ok(Self {
                dir: path.to_owned(),
                name: if contents && is_dir {
                    PathBuf::new()
                } else {
                    own.into()
                },
            }),
            Ok(_) if is_dir => Err(Failure::usage(format!(
                "{to} is a file, and {own} a directory"
            ))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::io(&format!("looking at {to}"), error))
            }
            Err(_) if to.ends_with('/') && !is_dir => Err(Failure::usage(format!(
                "{to} is not there; make the directory first"
            ))),
            // It is a file that is replaced, or is made.
            _ => Self::anew(path),
        }
    }

    fn anew(path: &Path) -> Outcome<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| Failure::usage(format!("{} is no name for a copy", path.display())))?;
        let dir = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !dir.is_dir() {
            return Err(Failure::usage(format!(
                "{} is not there; make the directory first",
                dir.display()
            )));
        }
        Ok(Self {
            dir: dir.to_owned(),
            name: name.into(),
        })
    }
}

/// Unpacks an archive into `dir`, its root renamed to `name`.
fn unpack(tar: impl Read + Send, name: &Path, dir: &Path, owners: bool) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    thread::scope(|scope| {
        let renaming = scope.spawn(|| retar::rename_root(tar, io::BufWriter::new(writer), name));
        let mut archive = tar::Archive::new(reader);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(owners);
        archive.set_unpack_xattrs(owners);
        let unpacked = archive.unpack(dir);
        // A reader that is gone ends the renaming thread.
        drop(archive);
        let renamed = renaming
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("renaming failed")));
        match (unpacked, renamed) {
            // The thread that reads from kraud knows best why there was no more.
            (Err(_), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            (Err(error), _) => Err(innermost(error)),
            (Ok(()), renamed) => renamed,
        }
    })
}

/// tar's errors hide the cause behind what was done.
fn innermost(error: io::Error) -> io::Error {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    io::Error::new(error.kind(), text)
}

/// Puts a single file in place in one step: it is the old one or the new one.
fn replace(tar: impl Read + Send, target: &Target, owners: bool) -> io::Result<()> {
    let beside = tempfile::Builder::new()
        .prefix(".kra-cp-")
        .tempdir_in(&target.dir)?;
    unpack(tar, &target.name, beside.path(), owners)?;
    fs::rename(
        beside.path().join(&target.name),
        target.dir.join(&target.name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let at = |path: &str| dir.path().join(path).display().to_string();
        let target = |to: &str, is_dir, contents| {
            Target::of(to, "own", is_dir, contents)
                .map(|target| target.dir.join(target.name).display().to_string())
                .ok()
        };
        assert_eq!(target(&at(""), true, false), Some(at("own")));
        assert_eq!(target(&at(""), true, true), Some(at("")));
        assert_eq!(target(&at(""), false, false), Some(at("own")));
        assert_eq!(target(&at("new"), true, false), Some(at("new")));
        assert_eq!(target(&at("new"), false, false), Some(at("new")));
        assert_eq!(target(&at("file"), false, false), Some(at("file")));
        assert_eq!(target(&at("new/"), true, false), Some(at("new")));
        for (to, is_dir) in [
            ("file", true),
            ("new/", false),
            ("no/new", true),
            ("no/new", false),
        ] {
            assert_eq!(target(&at(to), is_dir, false), None, "{to}");
        }
    }

    #[test]
    fn a_broken_archive_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "old").unwrap();
        let mut tar = Vec::new();
        let source = dir.path().join("source");
        fs::write(&source, "new".repeat(1000)).unwrap();
        super::super::pack::pack(&source, Path::new("g"), false, &mut tar).unwrap();
        let target = Target {
            dir: dir.path().to_owned(),
            name: "f".into(),
        };
        assert!(replace(&tar[..2000], &target, false).is_err());
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"old");
        replace(&tar[..], &target, false).unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"new".repeat(1000));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
