//! How a tar is put together: bytes as they are, and chunks by reference, one after the other.
//!
//! A recipe is a stream of steps, each a kind (one byte) with its fields; numbers are LEB128. The
//! whole is compressed by whoever sends it.
//!
//! | kind | fields | |
//! |---|---|---|
//! | 0 | | the end |
//! | 1 | length, bytes | as they are |
//! | 2 | distance, count | chunks of the lists that both sides have, one list after the other; the first is that far (zigzag) from the one after the last that was named |
//! | 3 | hash, length | any chunk |
//! | 4 | 512 bytes | a header of a tar, zero where its checksum is |
//! | 5 | | zeros up to the next multiple of 512 bytes |
//!
//! The last two spare what a tar has of bytes that follow from others: of a layer whose times are
//! all new little else is sent.

use std::io::{self, BufRead, Write};

use crate::{Hash, MAX};

/// A step of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Bytes(Vec<u8>),
    /// Chunks in a row, by their number in the lists.
    Known {
        first: u64,
        count: u64,
    },
    Chunk {
        hash: Hash,
        length: u32,
    },
    /// With its checksum.
    Header(Box<[u8; BLOCK]>),
    Padding,
}

/// A block of a tar, bytes.
pub const BLOCK: usize = 512;
/// Where a header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Puts the checksum into a header, in the form that nearly all programs write.
fn seal(header: &mut [u8; BLOCK]) {
    header[CHECKSUM].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    header[CHECKSUM].copy_from_slice(text.as_bytes());
}

const END: u8 = 0;
const BYTES: u8 = 1;
const KNOWN: u8 = 2;
const CHUNK: u8 = 3;
const HEADER: u8 = 4;
const PADDING: u8 = 5;
/// Bytes of one step, at the most.
const PIECE: usize = 64 << 10;

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad recipe: {what}"))
}

/// Writes a recipe.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    /// Chunks in a row, not written yet.
    row: Option<(u64, u64)>,
    /// The number after the last known chunk that was written.
    next: u64,
    bytes: Vec<u8>,
    /// Bytes of the tar so far.
    length: u64,
}

impl<W: Write> Writer<W> {
    /// A recipe that goes to `to`.
    pub fn new(to: W) -> Self {
        Self {
            to,
            row: None,
            next: 0,
            bytes: Vec::new(),
            length: 0,
        }
    }

    /// A header of a tar.
    pub fn header(&mut self, header: &[u8; BLOCK]) -> io::Result<()> {
        let mut sealed = *header;
        seal(&mut sealed);
        if sealed != *header {
            return self.bytes(header);
        }
        self.settle()?;
        self.length += BLOCK as u64;
        sealed[CHECKSUM].fill(0);
        self.to.write_all(&[HEADER])?;
        self.to.write_all(&sealed)
    }

    /// What fills a content up to whole blocks.
    pub fn padding(&mut self, bytes: &[u8]) -> io::Result<()> {
        let wanted = self.length.next_multiple_of(BLOCK as u64) - self.length;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.len() as u64 != wanted || bytes.iter().any(|byte| *byte != 0) {
            return self.bytes(bytes);
        }
        self.settle()?;
        self.length += wanted;
        self.to.write_all(&[PADDING])
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.end_row()?;
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let count = bytes.len().min(PIECE - self.bytes.len());
            self.bytes.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.bytes.len() == PIECE {
                self.end_bytes()?;
            }
        }
        Ok(())
    }

    /// The chunk with a number in the lists, of so many bytes.
    pub fn known(&mut self, number: u64, length: u32) -> io::Result<()> {
        self.end_bytes()?;
        self.length += u64::from(length);
        match &mut self.row {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => {
                self.end_row()?;
                self.row = Some((number, 1));
            }
        }
        Ok(())
    }

    /// A chunk by its hash.
    pub fn chunk(&mut self, hash: &Hash, length: u32) -> io::Result<()> {
        self.settle()?;
        self.length += u64::from(length);
        self.to.write_all(&[CHUNK])?;
        self.to.write_all(&hash.0)?;
        number(&mut self.to, length.into())
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<W> {
        self.settle()?;
        self.to.write_all(&[END])?;
        Ok(self.to)
    }

    /// What is written to, with all steps so far in it.
    pub fn settled(&mut self) -> io::Result<&mut W> {
        self.settle()?;
        Ok(&mut self.to)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.end_row()?;
        self.end_bytes()
    }

    fn end_row(&mut self) -> io::Result<()> {
        let Some((first, count)) = self.row.take() else {
            return Ok(());
        };
        self.to.write_all(&[KNOWN])?;
        let distance = first.wrapping_sub(self.next) as i64;
        number(&mut self.to, ((distance << 1) ^ (distance >> 63)) as u64)?;
        self.next = first.wrapping_add(count);
        number(&mut self.to, count)
    }

    fn end_bytes(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.to.write_all(&[BYTES])?;
        number(&mut self.to, self.bytes.len() as u64)?;
        self.to.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

fn number(to: &mut impl Write, mut value: u64) -> io::Result<()> {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return to.write_all(&[low]);
        }
        to.write_all(&[low | 0x80])?;
    }
}

/// Reads a recipe. Whatever it is fed it neither panics nor takes much memory.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    next: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// The recipe that comes from `from`.
    pub fn new(from: R) -> Self {
        Self {
            from,
            next: 0,
            ended: false,
        }
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is no recipe, [`io::ErrorKind::UnexpectedEof`] for
    /// one that is cut off.
    pub fn step(&mut self) -> io::Result<Option<Step>> {
        if self.ended {
            return Ok(None);
        }
        match self.byte()? {
            END => {
                self.ended = true;
                Ok(None)
            }
            BYTES => {
                let length = self.number()?;
                if length == 0 || length > PIECE as u64 {
                    return Err(bad("too many bytes in one step"));
                }
                let mut bytes = vec![0; length as usize];
                self.from.read_exact(&mut bytes)?;
                Ok(Some(Step::Bytes(bytes)))
            }
            KNOWN => {
                let (zigzag, count) = (self.number()?, self.number()?);
                let distance = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                let first = self.next.wrapping_add(distance as u64);
                self.next = first
                    .checked_add(count)
                    .filter(|_| count > 0)
                    .ok_or_else(|| bad("a row of no or too many chunks"))?;
                Ok(Some(Step::Known { first, count }))
            }
            CHUNK => {
                let mut hash = [0; Hash::LENGTH];
                self.from.read_exact(&mut hash)?;
                let length = self.number()?;
                if length == 0 || length > MAX as u64 {
                    return Err(bad("a chunk is too long"));
                }
                Ok(Some(Step::Chunk {
                    hash: Hash(hash),
                    length: length as u32,
                }))
            }
            HEADER => {
                let mut header = Box::new([0; BLOCK]);
                self.from.read_exact(&mut header[..])?;
                seal(&mut header);
                Ok(Some(Step::Header(header)))
            }
            PADDING => Ok(Some(Step::Padding)),
            _ => Err(bad("an unknown step")),
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad("a number is too large"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps(mut from: &[u8]) -> io::Result<Vec<Step>> {
        let mut reader = Reader::new(&mut from);
        let mut found = Vec::new();
        while let Some(step) = reader.step()? {
            found.push(step);
        }
        Ok(found)
    }

    #[test]
    fn steps_are_joined() {
        let mut writer = Writer::new(Vec::new());
        let hash = Hash::of(b"x");
        writer.bytes(b"head").unwrap();
        writer.bytes(b"er").unwrap();
        for number in [300, 301, 302, 7, 8] {
            writer.known(number, 100).unwrap();
        }
        writer.chunk(&hash, 1).unwrap();
        // Six bytes, five hundred and one: five short of a block.
        writer.padding(&[0; 5]).unwrap();
        writer.padding(&[0; 5]).unwrap();
        let mut header = [7; BLOCK];
        seal(&mut header);
        writer.header(&header).unwrap();
        header[150] = b'x';
        writer.header(&header).unwrap();
        writer.bytes(&vec![5; PIECE + 1]).unwrap();
        let written = writer.finish().unwrap();
        assert_eq!(
            steps(&written).unwrap(),
            [
                Step::Bytes(b"header".to_vec()),
                Step::Known {
                    first: 300,
                    count: 3
                },
                Step::Known { first: 7, count: 2 },
                Step::Chunk { hash, length: 1 },
                Step::Padding,
                Step::Bytes(vec![0; 5]),
                {
                    let mut header = [7; BLOCK];
                    seal(&mut header);
                    Step::Header(Box::new(header))
                },
                Step::Bytes([&header[..], &[5; PIECE - BLOCK]].concat()),
                Step::Bytes(vec![5; BLOCK + 1]),
            ]
        );
        for end in 0..written.len() {
            assert!(steps(&written[..end]).is_err());
        }
    }

    proptest! {
        #[test]
        fn anything_can_come(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = steps(&bytes);
        }

        #[test]
        fn numbers(value in any::<u64>()) {
            let mut bytes = Vec::new();
            number(&mut bytes, value).unwrap();
            prop_assert_eq!(Reader::new(bytes.as_slice()).number().unwrap(), value);
        }
    }
}
