//! Into a volume.

use std::{
    fs,
    io::{self, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;
use tokio_util::io::SyncIoBridge;
use types::native::FileKind;

use super::{
    about,
    get::{joined, open},
    pack,
    pipe::{Counted, Writer, pipe},
    retar, split, tidy,
};
use crate::{
    exit::{Failure, Outcome},
    place::Place,
    progress::Meter,
    session::Session,
};

/// Copies a file or tree of this machine.
pub(super) async fn from_path(session: &Session, from: &str, to: &Place, owners: bool) -> Outcome {
    let source = PathBuf::from(from);
    let looking = |error| Failure::io(&format!("looking at {from}"), error);
    let is_dir = fs::metadata(&source).map_err(looking)?.is_dir();
    // `.` and `..` have names too.
    let own = match source.file_name() {
        Some(name) => name.to_owned(),
        None => {
            let real = fs::canonicalize(&source).map_err(looking)?;
            real.file_name().map(ToOwned::to_owned).unwrap_or_default()
        }
    };
    let own = own
        .into_string()
        .map_err(|name| Failure::usage(format!("{}: the name is not UTF-8", name.display())))?;
    let contents = is_dir && (from.ends_with("/.") || from == "." || own.is_empty());
    let target = target(session, to, &own, is_dir, contents).await?;
    upload(session, to, &target.0, move |writer| {
        pack::pack(&source, Path::new(&target.1), owners, writer)
    })
    .await
}

/// Unpacks what comes on standard input into a directory.
pub(super) async fn from_stdin(session: &Session, to: &Place) -> Outcome {
    if io::stdin().is_terminal() {
        return Err(Failure::usage(
            "a tar is expected on standard input, and that is a terminal",
        ));
    }
    let (path, _) = tidy(&to.path);
    upload(session, to, &path, |mut writer| {
        io::copy(&mut io::stdin().lock(), &mut writer)?;
        writer.flush()
    })
    .await
}

/// Copies from one volume, or a snapshot, to another.
pub(super) async fn from_volume(session: &Session, from: &Place, to: &Place) -> Outcome {
    let (archive, contents) = open(session, from).await?;
    let is_dir = archive.stat.kind == FileKind::Directory;
    let (path, _) = tidy(&from.path);
    let (dir, name) = target(session, to, split(&path).1, is_dir, contents && is_dir).await?;
    let tar = Counted {
        inner: SyncIoBridge::new(archive.tar),
        // What is sent is counted already.
        meter: Meter::hidden(),
    };
    upload(session, to, &dir, move |writer| copy(tar, writer, &name)).await
}

fn copy(tar: impl Read, writer: &mut Writer, name: &str) -> io::Result<()> {
    retar::rename_root(tar, writer, Path::new(name))
}

/// The directory in the volume, and the name in it, where a copy goes: docker's rules.
async fn target(
    session: &Session,
    to: &Place,
    own: &str,
    is_dir: bool,
    contents: bool,
) -> Outcome<(String, String)> {
    let volume = to.volume.as_str();
    let (path, _) = tidy(&to.path);
    let stat = |path: String| async move {
        let found = session.client.volume_stat(volume, None, &path).await;
        found.map_err(|error| about(volume, error))
    };
    let mut found = stat(path.clone()).await?;
    if found
        .as_ref()
        .is_some_and(|stat| stat.kind == FileKind::Symlink)
    {
        // A link to a directory stands for it.
        found = stat(format!("{path}/.")).await.ok().flatten().or(found);
    }
    let (dir, name) = split(&path);
    match found.map(|stat| stat.kind) {
        Some(FileKind::Directory) if contents => Ok((path, String::new())),
        Some(FileKind::Directory) => Ok((path, own.to_owned())),
        Some(_) if is_dir => Err(Failure::usage(format!(
            "{volume}:{path} is a file, and {own} a directory"
        ))),
        None if to.path.ends_with('/') && !is_dir => {
            Err(Failure::usage(format!("{volume}:{path} is not there")))
        }
        _ => Ok((dir.to_owned(), name.to_owned())),
    }
}

/// Sends what `write` writes.
async fn upload(
    session: &Session,
    to: &Place,
    dir: &str,
    write: impl FnOnce(&mut Writer) -> io::Result<()> + Send + 'static,
) -> Outcome {
    let meter = Meter::new("copying");
    let (mut writer, stream) = pipe(meter.clone());
    let writing = spawn_blocking(move || {
        write(&mut writer)?;
        writer.finish()
    });
    let volume = to.volume.as_str();
    let sent = session.client.volume_archive_put(volume, dir, stream).await;
    meter.end();
    // Standard input may never end: what kraud refused is told at once.
    if let Err(error @ client::Error::Api(_)) = sent {
        return Err(about(volume, error));
    }
    match joined(writing.await) {
        // kraud hung up; what it said, or how, is what counts.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.map_err(|error| Failure::io("packing", error))?,
    }
    sent.map_err(|error| about(volume, error))
}
