//! Tar archives: a streaming reader that can account for every byte, and a writer.
//!
//! Knows ustar, GNU and PAX (POSIX.1-2001 `pax`, GNU tar manual "Tar Internals"). It does
//! not touch the file system.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

use std::io;

pub(crate) use self::{
    reader::{Reader, Tap},
    writer::{Header, Writer},
};

/// The unit of everything in a tar.
pub(crate) const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A run of stored bytes in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// One entry, its extensions already applied.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Major, minor.
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes go, for sparse files; in order and without overlap.
    pub segments: Option<Vec<Segment>>,
}

/// An error about the archive itself, as opposed to one of reading it.
pub(crate) fn bad(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// The archive ends where it must not.
pub(crate) fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF")
}

/// Whether a file of `size` bytes that begins with `head` (512 bytes, or all) is a tar.
pub(crate) fn looks_like_tar(head: &[u8], size: u64) -> bool {
    match <&[u8; BLOCK]>::try_from(head) {
        // An empty archive is nothing but zeroes.
        Ok(block) if *block == [0; BLOCK] => size.is_multiple_of(BLOCK as u64),
        Ok(block) => header::RawHeader::new(block).is_ok(),
        Err(_) => false,
    }
}
