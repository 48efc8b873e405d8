//! Waiting for a log to grow, and finding the next file after a rotation.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};

/// How long a wait takes at most: then the end of the container is looked at again.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Wakes when anything happens in the log's directory.
pub(super) struct Watch(OwnedFd);

impl Watch {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let handle = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &handle,
            directory,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO,
        )?;
        Ok(Self(handle))
    }

    /// Returns when something happened, or after a moment.
    pub(super) fn wait(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&PATIENCE)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|(events, _)| !events.is_empty()) {}
        Ok(())
    }
}

/// The file that is now at `path`, when it is not `current` any more.
pub(super) fn successor(path: &Path, current: &File) -> io::Result<Option<File>> {
    let next = match File::open(path) {
        Ok(file) => file,
        // Between two steps of a rotation, or removed with its container.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((next.metadata()?.ino() != current.metadata()?.ino()).then_some(next))
}

/// With a single log file, rotation empties it.
pub(super) fn rewind_if_emptied(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() < file.stream_position()? {
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(())
}
