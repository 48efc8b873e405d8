//! The files of a log, and the place in them from which the last lines are.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

const BLOCK: usize = 64 * 1024;

/// All files of a log, oldest first. None when the container has never printed.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<File>> {
    // A rotation while they are opened shows as a file that is there twice; then try again.
    for _ in 0..10 {
        let mut files: Vec<File> = Vec::new();
        files.extend(open(path)?);
        for number in 1.. {
            let Some(file) = open(&numbered(path, number))? else {
                break;
            };
            files.push(file);
        }
        let mut inodes = files
            .iter()
            .map(|file| file.metadata().map(|data| data.ino()))
            .collect::<io::Result<Vec<_>>>()?;
        inodes.sort_unstable();
        if inodes.windows(2).all(|pair| pair[0] != pair[1]) {
            files.reverse();
            return Ok(files);
        }
    }
    Err(io::Error::other(
        "the log is rotated faster than it can be read",
    ))
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Sets the files so that reading them one after another gives the last `lines` lines.
pub(super) fn seek(files: &mut [File], lines: u64) -> io::Result<()> {
    let mut wanted = lines;
    for file in files.iter_mut().rev() {
        let end = file.metadata()?.len();
        if wanted == 0 {
            file.seek(SeekFrom::Start(end))?;
            continue;
        }
        let (start, found) = last_lines(file, end, wanted)?;
        file.seek(SeekFrom::Start(start))?;
        wanted -= found;
    }
    Ok(())
}

/// Where the last `wanted` lines begin, and how many there are.
fn last_lines(file: &File, end: u64, wanted: u64) -> io::Result<(u64, u64)> {
    let mut block = vec![0; BLOCK];
    let mut found = 0;
    let mut position = end;
    while position > 0 {
        let length = position.min(BLOCK as u64);
        position -= length;
        let bytes = &mut block[..usize::try_from(length).unwrap_or(BLOCK)];
        file.read_exact_at(bytes, position)?;
        for (offset, _) in bytes
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            let after = position + offset as u64 + 1;
            // The line end at the very end ends the last line, it begins none.
            if after == end {
                continue;
            }
            found += 1;
            if found == wanted {
                return Ok((after, found));
            }
        }
    }
    // The first line has no line end before it.
    Ok((0, if end > 0 { found + 1 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _};

    use super::*;

    #[test]
    fn across_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "5\n6\n").unwrap();
        fs::write(numbered(&path, 1), "3\n4\n").unwrap();
        fs::write(numbered(&path, 2), "1\n2\n").unwrap();
        let tail = |lines| {
            let mut files = open_all(&path).unwrap();
            seek(&mut files, lines).unwrap();
            let mut text = String::new();
            files
                .iter_mut()
                .for_each(|file| assert!(file.read_to_string(&mut text).is_ok()));
            text.replace('\n', "")
        };
        for (lines, expected) in [
            (0, ""),
            (1, "6"),
            (2, "56"),
            (3, "456"),
            (5, "23456"),
            (6, "123456"),
            (99, "123456"),
        ] {
            assert_eq!(tail(lines), expected, "{lines}");
        }
    }

    #[test]
    fn long_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, format!("a\n{}\nb\n", "x".repeat(BLOCK * 2))).unwrap();
        let mut files = open_all(&path).unwrap();
        seek(&mut files, 2).unwrap();
        let mut text = String::new();
        files[0].read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), BLOCK * 2 + 3);
    }
}
