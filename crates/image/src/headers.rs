//! The other part of a layer: everything of its tar that its tree does not hold.
//!
//! Stored form, inside one zstd frame: the byte 1 (the version), then records of a tag and
//! LEB128 numbers: `1 length bytes…` (literal), `2 length path offset length` (content of a
//! file in the tree), `0` (end). The n-th content record may have moved: where an entry
//! replaced an earlier one, the earlier one's files were put aside and [`Moves`] (kept in
//! the layer's meta data) says where.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read, Write},
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::{
    fsutil::{join, open_beneath},
    tar::{Tap, bad},
};

const VERSION: u8 = 1;
const END: u8 = 0;
const LITERAL: u8 = 1;
const CONTENT: u8 = 2;
/// Literals are gathered up to this size.
const GATHER: usize = 64 * 1024;
/// No path that the kernel takes is longer.
const MAX_PATH: u64 = 1 << 16;

/// A path whose content was put aside when `before` content records had been written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    /// Relative to the tree; bytes, as paths need not be UTF-8.
    pub path: Vec<u8>,
    pub before: u64,
    /// Its name in the directory `replaced`.
    pub place: u64,
}

/// Writes the records.
pub(crate) struct Recorder<W: Write> {
    output: zstd::Encoder<'static, W>,
    literal: Vec<u8>,
    contents: u64,
}

impl<W: Write> Recorder<W> {
    pub(crate) fn new(output: W) -> io::Result<Self> {
        let mut output = zstd::Encoder::new(output, 3)?;
        output.include_checksum(true)?;
        output.write_all(&[VERSION])?;
        Ok(Self {
            output,
            literal: Vec::with_capacity(GATHER),
            contents: 0,
        })
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.flush_literal()?;
        self.output.write_all(&[END])?;
        self.output.finish()
    }

    fn flush_literal(&mut self) -> io::Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        self.output.write_all(&[LITERAL])?;
        write_number(&mut self.output, self.literal.len() as u64)?;
        self.output.write_all(&self.literal)?;
        self.literal.clear();
        Ok(())
    }
}

impl<W: Write> Tap for Recorder<W> {
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(GATHER) {
            if self.literal.len() + piece.len() > GATHER {
                self.flush_literal()?;
            }
            self.literal.extend_from_slice(piece);
        }
        Ok(())
    }

    fn content(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        self.flush_literal()?;
        self.contents += 1;
        self.output.write_all(&[CONTENT])?;
        write_number(&mut self.output, path.len() as u64)?;
        self.output.write_all(path)?;
        write_number(&mut self.output, offset)?;
        write_number(&mut self.output, length)
    }

    fn contents(&self) -> u64 {
        self.contents
    }
}

fn write_number(output: &mut impl Write, mut number: u64) -> io::Result<()> {
    while number >= 0x80 {
        output.write_all(&[(number & 0x7f) as u8 | 0x80])?;
        number >>= 7;
    }
    output.write_all(&[number as u8])
}

fn read_byte(input: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    input.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn read_number(input: &mut impl Read) -> io::Result<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = read_byte(input)?;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(bad("the header stream of the layer is damaged"))
}

/// Where content that was put aside is.
#[derive(Debug, Default)]
pub(crate) struct Moves(HashMap<Vec<u8>, Vec<(u64, u64)>>);

impl Moves {
    pub(crate) fn new(moves: &[Move]) -> Self {
        let mut by_path: HashMap<Vec<u8>, Vec<(u64, u64)>> = HashMap::new();
        for moved in moves {
            by_path
                .entry(moved.path.clone())
                .or_default()
                .push((moved.before, moved.place));
        }
        Self(by_path)
    }

    /// Place and rest of the path of the content record with number `index` for `path`.
    ///
    /// A file moves with the innermost ancestor that was replaced first after it was written.
    fn find<'p>(&self, path: &'p [u8], index: u64) -> Option<(u64, &'p [u8])> {
        if self.0.is_empty() {
            return None;
        }
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        ends.filter_map(|end| {
            let moves = self.0.get(&path[..end])?;
            // In the order of time, so the first that came after the record counts.
            let &(before, place) =
                moves.get(moves.partition_point(|&(before, _)| before <= index))?;
            Some((before, place, path.get(end + 1..).unwrap_or_default()))
        })
        .min_by_key(|&(before, place, _)| (before, place))
        .map(|(_, place, rest)| (place, rest))
    }
}

/// Gives the tar back from records and files.
pub(crate) struct Rebuilder {
    records: zstd::Decoder<'static, BufReader<std::fs::File>>,
    tree: OwnedFd,
    /// The directory with what was put aside, where there is one.
    replaced: Option<OwnedFd>,
    moves: Moves,
    index: u64,
    state: State,
}

enum State {
    Start,
    Between,
    Literal(u64),
    Content(std::fs::File, u64, u64),
    End,
}

impl Rebuilder {
    pub(crate) fn new(
        headers: std::fs::File,
        tree: OwnedFd,
        replaced: Option<OwnedFd>,
        moves: Moves,
    ) -> io::Result<Self> {
        Ok(Self {
            records: zstd::Decoder::new(headers)?,
            tree,
            replaced,
            moves,
            index: 0,
            state: State::Start,
        })
    }

    fn next_record(&mut self) -> io::Result<State> {
        Ok(match read_byte(&mut self.records)? {
            END => State::End,
            LITERAL => State::Literal(read_number(&mut self.records)?),
            CONTENT => {
                let length = read_number(&mut self.records)?;
                if length > MAX_PATH {
                    return Err(bad("the header stream of the layer is damaged"));
                }
                let mut path = vec![0; length as usize];
                self.records.read_exact(&mut path)?;
                let (offset, length) = (
                    read_number(&mut self.records)?,
                    read_number(&mut self.records)?,
                );
                let file = self.open(&path)?;
                self.index += 1;
                State::Content(file, offset, length)
            }
            _ => return Err(bad("the header stream of the layer is damaged")),
        })
    }

    fn open(&self, path: &[u8]) -> io::Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = match (self.moves.find(path, self.index), &self.replaced) {
            (Some((place, rest)), Some(replaced)) => {
                let name = place.to_string();
                let full = if rest.is_empty() {
                    name.into_bytes()
                } else {
                    join(name.as_bytes(), rest)
                };
                open_beneath(replaced.as_fd(), &full, flags)
            }
            _ => open_beneath(self.tree.as_fd(), path, flags),
        };
        opened.map(std::fs::File::from).map_err(|errno| {
            bad(format!(
                "the layer's file {:?} cannot be opened: {}",
                String::from_utf8_lossy(path),
                io::Error::from(errno)
            ))
        })
    }
}

impl Read for Rebuilder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.state {
                State::End => return Ok(0),
                State::Start => {
                    let version = read_byte(&mut self.records)?;
                    if version != VERSION {
                        return Err(bad(format!(
                            "the header stream of the layer has version {version}, this kraud knows {VERSION}"
                        )));
                    }
                    self.state = State::Between;
                }
                State::Between | State::Literal(0) | State::Content(_, _, 0) => {
                    self.state = self.next_record()?
                }
                State::Literal(left) => {
                    let limit = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len());
                    let count = self.records.read(&mut buffer[..limit])?;
                    if count == 0 {
                        return Err(bad("the header stream of the layer is cut off"));
                    }
                    *left -= count as u64;
                    return Ok(count);
                }
                State::Content(file, offset, left) => {
                    let limit = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len());
                    let count = file.read_at(&mut buffer[..limit], *offset)?;
                    if count == 0 {
                        return Err(bad("a file of the layer is shorter than it was"));
                    }
                    *offset += count as u64;
                    *left -= count as u64;
                    return Ok(count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_content_is_found() {
        let moved = |path: &[u8], before, place| Move {
            path: path.to_vec(),
            before,
            place,
        };
        let moves = Moves::new(&[
            moved(b"a", 2, 0),
            moved(b"a", 5, 1),
            moved(b"d", 7, 2),
            moved(b"d/e", 4, 3),
        ]);
        assert_eq!(moves.find(b"a", 1), Some((0, &b""[..])));
        assert_eq!(moves.find(b"a", 2), Some((1, &b""[..])));
        assert_eq!(moves.find(b"a", 5), None);
        assert_eq!(moves.find(b"d/x/y", 0), Some((2, &b"x/y"[..])));
        assert_eq!(moves.find(b"d/e/f", 0), Some((3, &b"f"[..])));
        assert_eq!(moves.find(b"d/e/f", 4), Some((2, &b"e/f"[..])));
        assert_eq!(moves.find(b"dx", 0), None);
    }
}
