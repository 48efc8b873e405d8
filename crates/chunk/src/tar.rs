//! A tar as contents of files and what lies between them.
//!
//! It only has to find contents: all parts one after the other are the archive, byte for byte,
//! whatever it is. What is no tar, or ceases to be one, comes as bytes between contents.

use std::io::{self, Read};

use crate::recipe::BLOCK;

/// A record of another entry's facts is no longer.
const LONGEST_RECORD: u64 = 1 << 20;

/// Receives the parts of an archive in order.
pub trait Sink {
    /// What lies between contents.
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// A header.
    fn header(&mut self, header: &[u8; BLOCK]) -> io::Result<()> {
        self.bytes(header)
    }
    /// What fills a content up to whole blocks.
    fn padding(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes(bytes)
    }
    /// The content of a file, to be read to its end.
    fn content(&mut self, content: &mut dyn Read) -> io::Result<()>;
}

/// Reads an archive to its end; returns its length in bytes.
///
/// # Errors
/// What reading and the sink give, and [`io::ErrorKind::UnexpectedEof`] when the archive ends
/// within a content.
pub fn split(mut archive: impl Read, sink: &mut impl Sink) -> io::Result<u64> {
    let mut total = 0;
    // The size that an extended header gives to the next entry.
    let mut size = None;
    loop {
        let mut block = [0; BLOCK];
        let count = fill(&mut archive, &mut block)?;
        total += count as u64;
        if count < BLOCK {
            sink.bytes(&block[..count])?;
            return Ok(total);
        }
        let Some(own) = header_size(&block) else {
            sink.bytes(&block)?;
            if block.iter().all(|byte| *byte == 0) {
                // The end, or one half of it.
                continue;
            }
            return Ok(total + rest(archive, sink)?);
        };
        sink.header(&block)?;
        let kind = block[156];
        let length = match kind {
            b'x' | b'L' | b'K' | b'g' => own,
            _ => size.take().unwrap_or(own),
        };
        let padded = length.next_multiple_of(BLOCK as u64) - length;
        match kind {
            b'x' if length <= LONGEST_RECORD => {
                let mut record = vec![0; (length + padded) as usize];
                let count = fill(&mut archive, &mut record)?;
                total += count as u64;
                sink.bytes(&record[..count])?;
                size = pax_size(&record[..count.min(length as usize)]).or(size);
                continue;
            }
            // Regular files, by all their names; and such as have data of any other kind.
            _ if length > 0 => {
                let mut content = archive.by_ref().take(length);
                sink.content(&mut content)?;
                if content.limit() > 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the archive ends within a file",
                    ));
                }
                total += length;
            }
            _ => {}
        }
        let mut padding = [0; BLOCK];
        let count = fill(&mut archive, &mut padding[..padded as usize])?;
        total += count as u64;
        sink.padding(&padding[..count])?;
    }
}

/// Passes on what is left.
fn rest(mut archive: impl Read, sink: &mut impl Sink) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = fill(&mut archive, &mut buffer)?;
        sink.bytes(&buffer[..count])?;
        total += count as u64;
        if count < buffer.len() {
            return Ok(total);
        }
    }
}

/// Reads until the buffer is full or nothing comes any more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match from.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// The size in a header; `None` when its checksum is wrong.
fn header_size(block: &[u8; BLOCK]) -> Option<u64> {
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            u64::from(if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            })
        })
        .sum();
    if octal(&block[148..156])? != sum {
        return None;
    }
    let field = &block[124..136];
    let size = match field[0] {
        // GNU's form for what does not fit: the number itself, the first bit set.
        0x80 => {
            let (high, low) = field.split_at(4);
            if high[1..].iter().any(|byte| *byte != 0) {
                return None;
            }
            u64::from_be_bytes(low.try_into().ok()?)
        }
        _ => octal(field)?,
    };
    // What is larger is no file's size, and would overflow.
    (size < 1 << 60).then_some(size)
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(|c: char| c == ' ' || c == '\0');
    match text {
        "" => Some(0),
        _ => u64::from_str_radix(text, 8).ok(),
    }
}

/// The size in the records of an extended header (`LENGTH size=N\n`).
fn pax_size(mut records: &[u8]) -> Option<u64> {
    let mut size = None;
    while let Some(space) = records.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?;
        if let Some(value) = record.strip_prefix(b"size=") {
            let value = std::str::from_utf8(value.strip_suffix(b"\n")?).ok()?;
            size = value.parse().ok().filter(|size: &u64| *size < 1 << 60);
        }
        records = records.get(length..)?;
    }
    size
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Kept {
        all: Vec<u8>,
        contents: Vec<Vec<u8>>,
    }

    impl Sink for Kept {
        fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.all.extend_from_slice(bytes);
            Ok(())
        }
        fn content(&mut self, content: &mut dyn Read) -> io::Result<()> {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            self.all.extend_from_slice(&bytes);
            self.contents.push(bytes);
            Ok(())
        }
    }

    fn header(name: &str, kind: u8, size: &[u8; 12]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..136].copy_from_slice(size);
        block[156] = kind;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let size = format!("{:011o}\0", content.len());
        let mut entry = header(name, kind, size.as_bytes().try_into().unwrap());
        entry.extend_from_slice(content);
        entry.resize(entry.len().next_multiple_of(BLOCK), 0);
        entry
    }

    fn contents(archive: &[u8]) -> Vec<Vec<u8>> {
        let mut kept = Kept::default();
        assert_eq!(split(archive, &mut kept).unwrap(), archive.len() as u64);
        assert_eq!(kept.all, archive);
        kept.contents
    }

    #[test]
    fn contents_are_found() {
        let pax = b"27 path=a/very/long/path/x\n\x31\x33 size=1000\n";
        let mut archive = [
            entry("dir/", b'5', b""),
            entry("a", b'0', b"hello"),
            entry("empty", b'0', b""),
            entry("link", b'2', b""),
            entry("pax", b'x', &pax[..]),
        ]
        .concat();
        // Its own header says nothing; the extended one does.
        archive.extend(header("b", b'0', b"00000000000\0"));
        archive.extend(vec![7; 1000]);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        let mut binary = *b"\x80\0\0\0\0\0\0\0\0\0\0\x03";
        archive.extend(header("c", b'0', &binary));
        archive.extend(b"xyz");
        archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
        let found = contents(&archive);
        assert_eq!(found, [b"hello".to_vec(), vec![7; 1000], b"xyz".to_vec()]);
        // Without an end, and with a tail.
        assert_eq!(contents(&archive[..archive.len() - 1024]).len(), 3);
        archive.extend(b"tail");
        assert_eq!(contents(&archive).len(), 3);
        // A size that no file has.
        binary[3] = 1;
        assert_eq!(contents(&header("d", b'0', &binary)), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn what_is_cut_off_fails() {
        let archive = entry("a", b'0', b"hello");
        let cut = &archive[..BLOCK + 3];
        let error = split(cut, &mut Kept::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(contents(b"no tar at all").is_empty());
        assert!(contents(&[1; 5000]).is_empty());
    }

    proptest! {
        #[test]
        fn anything_comes_out_as_it_is(parts in proptest::collection::vec(
            (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..1500)), 0..6)) {
            let archive: Vec<u8> = parts
                .iter()
                .flat_map(|(kind, content)| entry("name", *kind, content))
                .collect();
            contents(&archive);
        }
    }
}
