//! The log in docker's json-file format: lines, pieces of long lines, rotation.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use shim::proto::Log;

use crate::time;

/// Longer lines are logged in pieces of this size.
const PIECE: usize = 16 * 1024;
/// Text gathered before it is written.
const BATCH: usize = 64 * 1024;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// Writes both streams to one file.
#[derive(Debug)]
pub(crate) struct JsonLog {
    settings: Log,
    file: fs::File,
    size: u64,
    /// The begun line of each stream.
    lines: [Vec<u8>; 2],
    /// Encoded and not yet written.
    batch: Vec<u8>,
    /// The file ends within a line: the disk was full, and would not even take that back.
    torn: bool,
}

impl JsonLog {
    pub(crate) fn open(settings: Log) -> io::Result<Self> {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&settings.path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            settings,
            file,
            size,
            lines: [Vec::new(), Vec::new()],
            batch: Vec::new(),
            torn: false,
        })
    }

    /// Takes output as it comes; complete lines are written before this returns. A full disk
    /// costs lines, never the container.
    pub(crate) fn take(&mut self, source: Source, mut output: &[u8]) {
        let mut line = std::mem::take(&mut self.lines[source as usize]);
        while !output.is_empty() {
            let room = &output[..output.len().min(PIECE - line.len())];
            match room.iter().position(|&byte| byte == b'\n') {
                Some(end) => {
                    self.line(source, &line, &output[..=end]);
                    line.clear();
                    output = &output[end + 1..];
                }
                None if line.len() + room.len() == PIECE => {
                    self.line(source, &line, room);
                    line.clear();
                    output = &output[room.len()..];
                }
                None => {
                    line.extend_from_slice(room);
                    output = &[];
                }
            }
        }
        self.lines[source as usize] = line;
        self.flush();
    }

    /// Writes what an ended stream left without a line end.
    pub(crate) fn end(&mut self, source: Source) {
        let line = std::mem::take(&mut self.lines[source as usize]);
        if !line.is_empty() {
            self.line(source, &line, &[]);
        }
        self.flush();
    }

    /// Encodes one line or piece, given in two parts.
    fn line(&mut self, source: Source, first: &[u8], second: &[u8]) {
        if self.settings.max_size.is_some_and(|max| {
            self.size + self.batch.len() as u64 >= max && self.size + self.batch.len() as u64 > 0
        }) {
            self.flush();
            // Without a new file the old one grows: better than losing lines.
            let _ = self.rotate();
        }
        let batch = &mut self.batch;
        batch.extend_from_slice(b"{\"log\":\"");
        if first.is_empty() {
            escape(batch, second);
        } else {
            // A character may lie across the border.
            escape(batch, &[first, second].concat());
        }
        batch.extend_from_slice(match source {
            Source::Stdout => b"\",\"stream\":\"stdout\"",
            Source::Stderr => b"\",\"stream\":\"stderr\"",
        });
        if let Some(attrs) = &self.settings.attrs {
            batch.extend_from_slice(b",\"attrs\":");
            batch.extend_from_slice(attrs.as_bytes());
        }
        batch.extend_from_slice(b",\"time\":\"");
        time::append_now(batch);
        batch.extend_from_slice(b"\"}\n");
        if batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            if self.torn {
                // Ends what is there; whoever reads passes it over.
                self.batch.insert(0, b'\n');
            }
            match self.file.write_all(&self.batch) {
                Ok(()) => {
                    self.size += self.batch.len() as u64;
                    self.torn = false;
                }
                // No half line is left for the next one to be appended to.
                Err(_) => {
                    self.torn = self.file.set_len(self.size).is_err();
                    if self.torn
                        && let Ok(now) = self.file.metadata()
                    {
                        self.size = now.len();
                    }
                }
            }
        }
        self.batch.clear();
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, …; with one file it is emptied.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        for number in (1..self.settings.max_file).rev() {
            let older = numbered(path, number);
            let newer = if number == 1 {
                path.clone()
            } else {
                numbered(path, number - 1)
            };
            match fs::rename(&newer, &older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.settings.max_file <= 1 {
            self.file.set_len(0)?;
        } else {
            self.file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)?;
        }
        self.size = 0;
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Appends bytes as the inside of a JSON string: what is not UTF-8 becomes U+FFFD, and what
/// is special in HTML and JavaScript is escaped, as Go does it.
fn escape(text: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut plain = 0;
        let mut at = 0;
        while at < valid.len() {
            let byte = valid[at];
            let special = match byte {
                b'"' | b'\\' | b'<' | b'>' | b'&' | 0..0x20 => true,
                // U+2028 and U+2029, line ends of JavaScript.
                0xe2 => matches!(valid[at + 1..], [0x80, 0xa8 | 0xa9, ..]),
                _ => false,
            };
            if !special {
                at += 1;
                continue;
            }
            text.extend_from_slice(&valid[plain..at]);
            match byte {
                b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
                b'\n' => text.extend_from_slice(b"\\n"),
                b'\r' => text.extend_from_slice(b"\\r"),
                0xe2 => {
                    text.extend_from_slice(if valid[at + 2] == 0xa8 {
                        b"\\u2028"
                    } else {
                        b"\\u2029"
                    });
                    at += 2;
                }
                _ => {
                    text.extend_from_slice(b"\\u00");
                    text.extend_from_slice(&[
                        HEX[usize::from(byte >> 4)],
                        HEX[usize::from(byte & 15)],
                    ]);
                }
            }
            at += 1;
            plain = at;
        }
        text.extend_from_slice(&valid[plain..]);
        for _ in chunk.invalid() {
            text.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut text = Vec::new();
        escape(&mut text, bytes);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn escapes() {
        assert_eq!(
            escaped(b"a\"b\\c\n\r\t<>&\x1b"),
            r#"a\"b\\c\n\r\u0009\u003c\u003e\u0026\u001b"#
        );
        assert_eq!(escaped("ü\u{2028}€".as_bytes()), "ü\\u2028€");
        assert_eq!(escaped(b"\xff\xe2\x82z"), "\\ufffd\\ufffd\\ufffdz");
    }

    fn logged(directory: &Path, settings: impl FnOnce(&mut Log), chunks: &[&[u8]]) -> Vec<String> {
        let mut log = Log {
            path: directory.join("log"),
            max_size: None,
            max_file: 1,
            attrs: None,
        };
        settings(&mut log);
        let mut log = JsonLog::open(log).unwrap();
        for chunk in chunks {
            log.take(Source::Stdout, chunk);
        }
        log.end(Source::Stdout);
        let text = fs::read_to_string(directory.join("log")).unwrap();
        text.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    /// A directory of the test's own, removed with it.
    struct Directory(PathBuf);
    impl Directory {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("kraud-shim-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }
    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lines_and_pieces() {
        let directory = Directory::new("pieces");
        let long = vec![b'x'; PIECE + 3];
        let lines = logged(
            &directory.0,
            |_| {},
            &[b"one\ntw", b"o\n", &long, b"\nrest"],
        );
        assert_eq!(
            lines,
            ["one\n", "two\n", &"x".repeat(PIECE), "xxx\n", "rest"]
        );
    }

    #[test]
    fn rotation() {
        let directory = Directory::new("rotation");
        let rotated = |log: &mut Log| (log.max_size, log.max_file) = (Some(100), 3);
        let lines = logged(&directory.0, rotated, &[b"1\n2\n3\n4\n5\n6\n7\n8\n9\n"]);
        assert_eq!(lines.last().unwrap(), "9\n");
        assert!(directory.0.join("log.1").exists() && directory.0.join("log.2").exists());
        assert!(!directory.0.join("log.3").exists());
        assert!(fs::metadata(directory.0.join("log.1")).unwrap().len() < 200);
    }
}
