//! `kra volume ls-files`.

use clap::Args;
use term::{Format, Table};
use types::native::{FileEntry, FileKind};

use super::{about, print_names};
use crate::{exit::Outcome, place::Place, session::Session};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to look; without a path, the root
    #[arg(value_name = "VOLUME[@SNAPSHOT][:PATH]")]
    place: Place,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let place = &options.place;
    let volume = place.volume.as_str();
    let files = session
        .client
        .volume_files(volume, place.snapshot(), &place.path)
        .await
        .map_err(|error| about(volume, error))?;
    if options.quiet {
        return print_names(files.iter().map(|file| &file.name));
    }
    match options.output {
        Format::Json => term::json(&files)?,
        Format::Table => table(&files).print()?,
    }
    Ok(())
}

fn table(files: &[FileEntry]) -> Table {
    let mut table = Table::new(&["MODE", ">UID", ">GID", ">SIZE", "MODIFIED (UTC)", "NAME"]);
    for file in files {
        let name = match &file.target {
            Some(target) => format!("{} -> {target}", file.name),
            None => file.name.clone(),
        };
        table.row([
            mode(file.kind, file.mode),
            file.uid.to_string(),
            file.gid.to_string(),
            term::bytes(file.size),
            term::moment(file.modified),
            name,
        ]);
    }
    table
}

/// As ls writes it: `drwxr-xr-x`.
fn mode(kind: FileKind, bits: u32) -> String {
    let mut text = String::from(match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Device => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    });
    for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        let triple = bits >> shift;
        text.push(if triple & 4 == 0 { '-' } else { 'r' });
        text.push(if triple & 2 == 0 { '-' } else { 'w' });
        let (with, without) = letters.split_at(1);
        text.push_str(match (triple & 1 != 0, bits & special != 0) {
            (true, true) => with,
            (false, true) => without,
            (true, false) => "x",
            (false, false) => "-",
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(mode(FileKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(FileKind::File, 0o4755), "-rwsr-xr-x");
        assert_eq!(mode(FileKind::File, 0o6644), "-rwSr-Sr--");
        assert_eq!(mode(FileKind::Symlink, 0o777), "lrwxrwxrwx");
    }
}
