//! `kra volume cp`.
//!
//! What goes where is decided here, with docker's rules; `get` and `put` do it, `retar` gives
//! the root of an archive another name.

mod get;
mod pack;
mod pipe;
mod put;
mod retar;

use clap::Args;

use super::about;
use crate::{
    exit::{Failure, Outcome},
    place::{Place, Side},
    session::Session,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  kra volume cp data@monday:/etc/app.conf ./
  kra volume cp data@monday:/etc/app.conf data:/etc/
  kra volume cp ./site data:/www
  kra volume cp data:/www/. ./site
  kra volume cp data@monday:/ - > monday.tar
  kra volume cp - data:/restored < monday.tar

A directory that exists is copied into, under the source's own name; a path that does not exist
becomes the copy. With /. behind it, a directory's contents are copied without the directory.
What begins with / or . is a path of this machine.";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to copy; - is a tar on standard input
    #[arg(value_name = "VOLUME[@SNAPSHOT]:PATH | PATH | -")]
    from: Side,
    /// Where to; - is a tar on standard output
    #[arg(value_name = "PATH | VOLUME:PATH | -")]
    to: Side,
    /// Keep owners; without it, files that come here are yours, and those that go there root's
    #[arg(short, long)]
    archive: bool,
}

pub(crate) async fn run(session: &Session, options: Options) -> Outcome {
    if let Side::There(Place {
        snapshot: Some(snapshot),
        volume,
        ..
    }) = &options.to
    {
        return Err(Failure::usage(format!(
            "{volume}@{snapshot} is a snapshot, and those are never written to: copy to {volume}:PATH"
        )));
    }
    match (options.from, options.to) {
        (Side::There(from), Side::Here(to)) => {
            get::to_path(session, &from, &to, options.archive).await
        }
        (Side::There(from), Side::Stream) => get::to_stdout(session, &from).await,
        (Side::Here(from), Side::There(to)) => {
            put::from_path(session, &from, &to, options.archive).await
        }
        (Side::Stream, Side::There(to)) => put::from_stdin(session, &to).await,
        (Side::There(from), Side::There(to)) => put::from_volume(session, &from, &to).await,
        (Side::Here(_) | Side::Stream, Side::Here(_) | Side::Stream) => Err(Failure::usage(
            "neither side is in a volume: write VOLUME:PATH or VOLUME@SNAPSHOT:PATH",
        )),
    }
}

/// A path with its slashes and dots in order, and whether only the contents of what it names
/// are meant.
fn tidy(path: &str) -> (String, bool) {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let contents = path.ends_with("/.") || path == "." || names.is_empty();
    (format!("/{}", names.join("/")), contents)
}

/// The directory that a tidy path is in, and its name there.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
        None => ("/", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, tidied, contents) in [
            ("/", "/", true),
            ("", "/", true),
            (".", "/", true),
            ("a", "/a", false),
            ("/a/b/", "/a/b", false),
            ("/a/b/.", "/a/b", true),
            ("//a/./b/../c", "/a/c", false),
            ("/../../x", "/x", false),
        ] {
            assert_eq!(tidy(path), (tidied.to_owned(), contents), "{path}");
        }
        assert_eq!(split("/a/b/c"), ("/a/b", "c"));
        assert_eq!(split("/a"), ("/", "a"));
    }
}
