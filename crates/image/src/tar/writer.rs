//! The writer: ustar headers, with PAX records where ustar cannot say it.
//!
//! The same input gives the same bytes: no clock, no random names.

use std::io::{self, Write};

use super::{BLOCK, Kind};

/// `size` up to the next block.
fn round_up(size: u64) -> u64 {
    size.div_ceil(BLOCK as u64) * BLOCK as u64
}

/// What an entry's header says.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub size: u64,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header {
    /// A file or directory of root at time zero.
    pub(crate) fn plain(path: &str, kind: Kind, mode: u32, size: u64) -> Self {
        Self {
            path: path.into(),
            link: Vec::new(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

/// Writes entries one after another.
pub(crate) struct Writer<W> {
    output: W,
    /// Content that the current entry still needs, and its padding.
    left: u64,
    padding: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(output: W) -> Self {
        Self {
            output,
            left: 0,
            padding: 0,
        }
    }

    /// Begins an entry; `size` bytes of content must follow for files.
    pub(crate) fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.finish_entry()?;
        let records = pax_records(header);
        if !records.is_empty() {
            let content: Vec<u8> = records
                .iter()
                .flat_map(|(key, value)| record(key, value))
                .collect();
            let pax = Header {
                size: content.len() as u64,
                ..Header::plain("PaxHeaders.0/entry", Kind::File, 0o644, 0)
            };
            self.output.write_all(&block(&pax, b'x'))?;
            self.output.write_all(&content)?;
            self.pad(content.len() as u64)?;
        }
        self.output.write_all(&block(header, flag(header.kind)))?;
        if header.kind == Kind::File {
            self.left = header.size;
            self.padding = round_up(header.size) - header.size;
        }
        Ok(())
    }

    /// Writes content of the current entry.
    pub(crate) fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if length > self.left {
            return Err(io::Error::other(
                "more content than the header of the entry says",
            ));
        }
        self.left -= length;
        self.output.write_all(bytes)
    }

    /// Ends the archive and gives the output back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.finish_entry()?;
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn finish_entry(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other(
                "less content than the header of the entry says",
            ));
        }
        let padding = std::mem::take(&mut self.padding) as usize;
        self.output.write_all(&[0; BLOCK][..padding])
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (round_up(size) - size) as usize;
        self.output.write_all(&[0; BLOCK][..padding])
    }
}

fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// The largest number that `digits` octal digits hold.
const fn octal_max(digits: u32) -> u64 {
    (1 << (3 * digits)) - 1
}

/// What ustar fields cannot hold.
fn pax_records(header: &Header) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
    if split(&header.path).is_none() || !header.path.is_ascii() {
        add("path", header.path.clone());
    }
    if header.link.len() > 100 || !header.link.is_ascii() {
        add("linkpath", header.link.clone());
    }
    if header.size > octal_max(11) {
        add("size", header.size.to_string().into_bytes());
    }
    for (key, id) in [("uid", header.uid), ("gid", header.gid)] {
        if u64::from(id) > octal_max(7) {
            add(key, id.to_string().into_bytes());
        }
    }
    let (seconds, nanos) = header.mtime;
    if nanos != 0 || seconds < 0 || seconds.cast_unsigned() > octal_max(11) {
        add("mtime", decimal_time(seconds, nanos).into_bytes());
    }
    for (name, value) in &header.xattrs {
        records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
    }
    records
}

/// Seconds with a fraction, trailing zeroes cut.
fn decimal_time(seconds: i64, nanos: u32) -> String {
    if nanos == 0 {
        return seconds.to_string();
    }
    let (sign, seconds, nanos) = if seconds < 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else {
        ("", seconds.unsigned_abs(), nanos)
    };
    format!(
        "{sign}{seconds}.{}",
        format!("{nanos:09}").trim_end_matches('0')
    )
}

/// One PAX record; its length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Splits a path into ustar's prefix and name, where that is possible.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    let from = path.len().checked_sub(101)?;
    let slash = from + path[from..path.len() - 1].iter().position(|&b| b == b'/')?;
    (slash > 0 && slash <= 155).then(|| (&path[..slash], &path[slash + 1..]))
}

fn block(header: &Header, flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8], limit: usize| {
        let count = bytes.len().min(limit);
        block[at..at + count].copy_from_slice(&bytes[..count]);
    };
    // Numbers that do not fit are in the PAX header; readers take that one.
    let octal =
        |value: u64, digits: usize| format!("{:0digits$o}", value.min(octal_max(digits as u32)));
    let (prefix, name) = split(&header.path).unwrap_or((&[], &header.path));
    put(0, name, 100);
    put(100, octal(u64::from(header.mode & 0o7777), 7).as_bytes(), 7);
    put(108, octal(u64::from(header.uid), 7).as_bytes(), 7);
    put(116, octal(u64::from(header.gid), 7).as_bytes(), 7);
    let size = if header.kind == Kind::File {
        header.size
    } else {
        0
    };
    put(124, octal(size, 11).as_bytes(), 11);
    put(
        136,
        octal(u64::try_from(header.mtime.0).unwrap_or(0), 11).as_bytes(),
        11,
    );
    put(148, b"        ", 8);
    put(156, &[flag], 1);
    put(157, &header.link, 100);
    put(257, b"ustar\x0000", 8);
    put(329, octal(u64::from(header.device.0), 7).as_bytes(), 7);
    put(337, octal(u64::from(header.device.1), 7).as_bytes(), 7);
    put(345, prefix, 155);
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
