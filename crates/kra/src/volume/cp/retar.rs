//! Gives what an archive holds another name.

use std::{
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

use tar::{Archive, Builder, EntryType};

/// Copies an archive of one file or tree. Its first entry is the root of all others, and is
/// named `to` in the copy; with an empty `to` the others stand at the top, without a root.
pub(super) fn rename_root(from: impl Read, into: impl Write, to: &Path) -> io::Result<()> {
    let mut archive = Archive::new(from);
    let mut builder = Builder::new(into);
    let mut root: Option<PathBuf> = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = plain(&entry.path()?);
        let root = root.get_or_insert_with(|| path.clone());
        let moved = moved(root, &path, to)?;
        if moved.as_os_str().is_empty() {
            continue;
        }
        let mut header = entry.header().clone();
        let kept = extensions(&mut entry)?;
        builder.append_pax_extensions(
            kept.iter()
                .map(|(key, value)| (key.as_str(), value.as_slice())),
        )?;
        match (header.entry_type(), entry.link_name()?) {
            (EntryType::Link, Some(target)) => {
                let target = self::moved(root, &plain(&target), to)?;
                builder.append_link(&mut header, &moved, target)?;
            }
            (EntryType::Symlink, Some(target)) => {
                builder.append_link(&mut header, &moved, target)?;
            }
            (kind, _) => {
                if kind == EntryType::GNUSparse {
                    // Its content arrives with the holes filled.
                    header.set_entry_type(EntryType::Regular);
                }
                header.set_size(entry.size());
                builder.append_data(&mut header, &moved, &mut entry)?;
            }
        }
    }
    builder.finish()?;
    builder.into_inner()?.flush()
}

/// A path without slashes and dots at its ends.
fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .collect()
}

fn moved(root: &Path, path: &Path, to: &Path) -> io::Result<PathBuf> {
    let rest = path.strip_prefix(root).map_err(|_| {
        io::Error::other(format!(
            "the archive holds {} beside {}",
            path.display(),
            root.display()
        ))
    })?;
    // Joining nothing would leave a slash behind.
    Ok(if rest.as_os_str().is_empty() {
        to.to_owned()
    } else {
        to.join(rest)
    })
}

/// The extensions that say more than the header, but for names and sizes: those are made anew.
fn extensions(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let Some(all) = entry.pax_extensions()? else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::new();
    for one in all {
        let one = one?;
        let key = one.key().map_err(io::Error::other)?;
        if !matches!(key, "path" | "linkpath" | "size") && !key.starts_with("GNU.sparse.") {
            kept.push((key.to_owned(), one.value_bytes().to_owned()));
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(root: &str, deep: &str) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o750);
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, root, io::empty()).unwrap();
        header.set_entry_type(EntryType::Regular);
        header.set_uid(7);
        header.set_size(3);
        builder
            .append_pax_extensions([("SCHILY.xattr.user.x", b"y".as_slice())])
            .unwrap();
        builder
            .append_data(&mut header, format!("{root}/{deep}"), &b"abc"[..])
            .unwrap();
        header.set_size(0);
        header.set_entry_type(EntryType::Link);
        builder
            .append_link(
                &mut header,
                format!("{root}/hard"),
                format!("{root}/{deep}"),
            )
            .unwrap();
        header.set_entry_type(EntryType::Symlink);
        builder
            .append_link(&mut header, format!("{root}/soft"), "../elsewhere")
            .unwrap();
        builder.into_inner().unwrap()
    }

    fn listing(tar: &[u8]) -> Vec<(String, String, String)> {
        Archive::new(tar)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                let (path, link) = (
                    entry.path().unwrap().display().to_string(),
                    entry
                        .link_name()
                        .unwrap()
                        .map_or_else(String::new, |link| link.display().to_string()),
                );
                entry.read_to_string(&mut content).unwrap();
                (path, link, content)
            })
            .collect()
    }

    #[test]
    fn the_root_is_renamed_and_nothing_else() {
        let deep = format!("sub/{}", "long".repeat(60));
        let mut out = Vec::new();
        rename_root(&archive("old", &deep)[..], &mut out, Path::new("new")).unwrap();
        let wanted = [
            ("new", "", ""),
            (&format!("new/{deep}"), "", "abc"),
            ("new/hard", &format!("new/{deep}"), ""),
            ("new/soft", "../elsewhere", ""),
        ]
        .map(|(path, link, content)| (path.to_owned(), link.to_owned(), content.to_owned()));
        assert_eq!(listing(&out), wanted);
        let mut archive = Archive::new(&out[..]);
        let mut entry = archive.entries().unwrap().nth(1).unwrap().unwrap();
        assert_eq!(entry.header().uid().unwrap(), 7);
        let extension = entry
            .pax_extensions()
            .unwrap()
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!(extension.key().unwrap(), "SCHILY.xattr.user.x");
    }

    #[test]
    fn the_root_can_be_left_out() {
        for root in ["old", "./old", "."] {
            let mut out = Vec::new();
            rename_root(&archive(root, "f")[..], &mut out, Path::new("")).unwrap();
            let names: Vec<_> = listing(&out).into_iter().map(|row| row.0).collect();
            assert_eq!(names, ["f", "hard", "soft"], "{root}");
        }
    }

    #[test]
    fn half_an_archive_is_an_error() {
        let whole = archive("old", "f");
        let mut out = Vec::new();
        assert!(rename_root(&whole[..1300], &mut out, Path::new("x")).is_err());
    }
}
