//! Packs files of this machine into a tar.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header, HeaderMode};

/// Packs `path` and all below it, under the name `root`; with an empty one, only what is below.
/// With `owners`, files keep theirs; else they are root's. Sockets are left out.
pub(super) fn pack(path: &Path, root: &Path, owners: bool, into: impl Write) -> io::Result<()> {
    let mut packer = Packer {
        builder: Builder::new(into),
        owners,
        links: HashMap::new(),
    };
    // A link that is named itself is followed: what it leads to was meant.
    packer.entry(path, root, &fs::metadata(path).map_err(naming(path))?)?;
    packer.builder.finish()?;
    packer.builder.into_inner()?.flush()
}

struct Packer<W: Write> {
    builder: Builder<W>,
    owners: bool,
    /// The first name of files that have several.
    links: HashMap<(u64, u64), PathBuf>,
}

fn naming(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl<W: Write> Packer<W> {
    fn entry(&mut self, path: &Path, name: &Path, facts: &fs::Metadata) -> io::Result<()> {
        let kind = facts.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_metadata_in_mode(facts, HeaderMode::Complete);
        if !self.owners {
            header.set_uid(0);
            header.set_gid(0);
        }
        if kind.is_dir() {
            if !name.as_os_str().is_empty() {
                header.set_size(0);
                self.builder.append_data(&mut header, name, io::empty())?;
            }
            return self.below(path, name);
        }
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(naming(path))?;
            header.set_size(0);
            return self.builder.append_link(&mut header, name, target);
        }
        if facts.nlink() > 1 {
            let key = (facts.dev(), facts.ino());
            if let Some(first) = self.links.get(&key) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.builder.append_link(&mut header, name, first);
            }
            self.links.insert(key, name.to_owned());
        }
        if !kind.is_file() {
            header.set_size(0);
            return self.builder.append_data(&mut header, name, io::empty());
        }
        self.file(path, name, &mut header)
    }

    fn file(&mut self, path: &Path, name: &Path, header: &mut Header) -> io::Result<()> {
        let file = fs::File::open(path).map_err(naming(path))?;
        let size = header.size()?;
        // A file that grows meanwhile ends where it ended; one that shrinks is an error, or all
        // that follows would be out of step.
        let mut content = Exactly { file, left: size };
        self.builder
            .append_data(header, name, &mut content)
            .map_err(naming(path))?;
        if content.left > 0 {
            return Err(io::Error::other(format!(
                "{}: the file became shorter while it was read",
                path.display()
            )));
        }
        Ok(())
    }

    fn below(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let mut entries = fs::read_dir(path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(naming(path))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let facts = fs::symlink_metadata(&path).map_err(naming(&path))?;
            self.entry(&path, &name.join(entry.file_name()), &facts)?;
        }
        Ok(())
    }
}

/// So many bytes of a file.
struct Exactly {
    file: fs::File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tree = here.path().join("tree");
        fs::create_dir_all(tree.join("sub/empty")).unwrap();
        fs::write(tree.join("sub/f"), "content").unwrap();
        fs::hard_link(tree.join("sub/f"), tree.join("second")).unwrap();
        symlink("sub/f", tree.join("soft")).unwrap();
        let mut tar = Vec::new();
        pack(&tree, Path::new("renamed"), false, &mut tar).unwrap();
        tar::Archive::new(&tar[..]).unpack(there.path()).unwrap();
        let copy = there.path().join("renamed");
        assert_eq!(fs::read(copy.join("sub/f")).unwrap(), b"content");
        assert_eq!(fs::metadata(copy.join("second")).unwrap().nlink(), 2);
        assert_eq!(
            fs::read_link(copy.join("soft")).unwrap(),
            Path::new("sub/f")
        );
        assert!(copy.join("sub/empty").is_dir());
        let mut tar = Vec::new();
        pack(&tree, Path::new(""), true, &mut tar).unwrap();
        let first = tar::Archive::new(&tar[..])
            .entries()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path()
            .unwrap()
            .into_owned();
        assert_eq!(first, Path::new("second"));
        assert!(
            pack(
                &here.path().join("missing"),
                Path::new("x"),
                true,
                io::sink()
            )
            .unwrap_err()
            .to_string()
            .contains("missing")
        );
    }
}
