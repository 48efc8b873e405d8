//! The streaming reader. Every byte of the input goes either to the [`Tap`] or, as content,
//! to the caller.

use std::io::{self, BufRead};

use super::{
    BLOCK, Entry, Kind, Segment, bad, cut_off,
    header::{Dialect, RawHeader},
    pax::Pax,
    sparse,
};

/// The largest extension header (long name, PAX) that is read into memory.
const MAX_EXTENSION: u64 = 1 << 20;

/// Sees what the caller of the reader does not: headers, padding, skipped content.
pub(crate) trait Tap {
    /// Bytes to be repeated literally.
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// `length` bytes of content that can be read again from `path` at `offset`.
    fn content(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()>;
    /// How often [`Tap::content`] was called.
    fn contents(&self) -> u64 {
        0
    }
}

impl Tap for () {
    fn literal(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn content(&mut self, _path: &[u8], _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Reads entries one after another.
pub(crate) struct Reader<R, T> {
    input: R,
    tap: T,
    /// Content of the current entry that is not read yet.
    left: u64,
    /// Bytes up to the next block after it.
    padding: u64,
    /// The end of the archive was seen.
    ended: bool,
}

/// Extensions collected for the next entry.
#[derive(Default)]
struct Pending {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Pax,
    any: bool,
}

impl<R: BufRead, T: Tap> Reader<R, T> {
    /// A reader of `input`, telling `tap`.
    pub(crate) fn new(input: R, tap: T) -> Self {
        Self {
            input,
            tap,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The tap.
    pub(crate) fn tap(&mut self) -> &mut T {
        &mut self.tap
    }

    /// Gives input and tap back.
    pub(crate) fn into_tap(self) -> T {
        self.tap
    }

    /// The next entry; `None` at the end of the archive. What is left of the content of the
    /// entry before goes to the tap.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut pending = Pending::default();
        loop {
            self.skip_content()?;
            let Some(block) = self.header_block()? else {
                return if pending.any {
                    Err(cut_off())
                } else {
                    Ok(None)
                };
            };
            let header = RawHeader::new(&block)?;
            match header.flag() {
                b'x' => pending.pax = Pax::parse(&self.extension(&header)?)?,
                b'L' => pending.long_path = Some(until_nul(self.extension(&header)?)),
                b'K' => pending.long_link = Some(until_nul(self.extension(&header)?)),
                // Global headers change nothing that docker would heed.
                b'g' => {
                    self.extension(&header)?;
                    continue;
                }
                _ => return self.entry(&header, pending).map(Some),
            }
            pending.any = true;
        }
    }

    /// The stored content that is buffered now; empty at its end.
    pub(crate) fn fill_content(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Err(cut_off());
        }
        Ok(clamp(buffer, self.left))
    }

    /// Marks `count` bytes of [`Reader::fill_content`] as read.
    pub(crate) fn consume_content(&mut self, count: usize) {
        debug_assert!(count as u64 <= self.left);
        self.left -= count as u64;
        self.input.consume(count);
    }

    /// Stored bytes of the entry that are not read yet.
    pub(crate) fn content_left(&self) -> u64 {
        self.left
    }

    /// Sends the rest of the content, and the padding, to the tap.
    pub(crate) fn skip_content(&mut self) -> io::Result<()> {
        let mut rest = self
            .left
            .checked_add(self.padding)
            .ok_or_else(|| bad("archive/tar: invalid tar header"))?;
        while rest > 0 {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Err(cut_off());
            }
            let piece = clamp(buffer, rest);
            self.tap.literal(piece)?;
            let count = piece.len();
            self.input.consume(count);
            rest -= count as u64;
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// After the last entry: sends everything up to the end of the input to the tap.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            self.tap.literal(buffer)?;
            let count = buffer.len();
            self.input.consume(count);
        }
    }

    /// Reads and taps one block; `None` when the input ends before it.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let count = self.input.read(&mut block[filled..])?;
            if count == 0 {
                break;
            }
            filled += count;
        }
        self.tap.literal(&block[..filled])?;
        match filled {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(cut_off()),
        }
    }

    /// The next header; `None` at the end: two zero blocks, or none where a header would begin.
    fn header_block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        if self.ended {
            return Ok(None);
        }
        let zero = [0; BLOCK];
        let first = self.block()?;
        if first.is_some_and(|block| block != zero) {
            return Ok(first);
        }
        if first.is_some() && self.block()?.is_some_and(|block| block != zero) {
            return Err(bad("archive/tar: invalid tar header"));
        }
        self.ended = true;
        Ok(None)
    }

    /// The content of an extension header.
    fn extension(&mut self, header: &RawHeader<'_>) -> io::Result<Vec<u8>> {
        let size =
            u64::try_from(header.size()?).map_err(|_| bad("archive/tar: invalid tar header"))?;
        if size > MAX_EXTENSION {
            return Err(bad("archive/tar: header field too long"));
        }
        self.begin_content(size);
        let mut content = Vec::with_capacity(size as usize);
        while self.left > 0 {
            let piece = self.fill_content()?;
            content.extend_from_slice(piece);
            let count = piece.len();
            let start = content.len() - count;
            self.tap.literal(&content[start..])?;
            self.consume_content(count);
        }
        Ok(content)
    }

    fn begin_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Applies the extensions to a header.
    fn entry(&mut self, header: &RawHeader<'_>, pending: Pending) -> io::Result<Entry> {
        let Pending {
            long_path,
            long_link,
            pax,
            ..
        } = pending;
        let path = pax
            .sparse
            .name
            .clone()
            .or(pax.path.clone())
            .or(long_path)
            .unwrap_or_else(|| header.path());
        let link = pax
            .link
            .clone()
            .or(long_link)
            .unwrap_or_else(|| header.link().to_vec());
        let kind = kind_of(header.flag(), &path)?;
        let stored = self.stored_size(header, &pax, kind)?;
        self.begin_content(stored);
        let sparse = if kind == Kind::File {
            self.sparse_map(header, &pax)?
        } else {
            None
        };
        let (size, segments) = match sparse {
            Some((real_size, segments)) => (real_size, Some(segments)),
            None => (stored, None),
        };
        let (major, minor) = if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            header.device()?
        } else {
            (0, 0)
        };
        Ok(Entry {
            path,
            link,
            kind,
            mode: (header.mode()? & 0o7777) as u32,
            uid: owner(pax.uid, header.uid())?,
            gid: owner(pax.gid, header.gid())?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => (header.mtime()?, 0),
            },
            size,
            device: (device_number(major)?, device_number(minor)?),
            xattrs: pax.xattrs,
            segments,
        })
    }

    fn stored_size(&self, header: &RawHeader<'_>, pax: &Pax, kind: Kind) -> io::Result<u64> {
        let size = match pax.size {
            Some(size) => size,
            None => u64::try_from(header.size()?)
                .map_err(|_| bad("archive/tar: invalid tar header: negative size"))?,
        };
        // Only files have content, whatever the header of another kind says.
        match kind {
            Kind::File if size > i64::MAX as u64 => {
                Err(bad("archive/tar: invalid tar header: size out of range"))
            }
            Kind::File => Ok(size),
            _ => Ok(0),
        }
    }

    /// The full size and the segments of a sparse file.
    fn sparse_map(
        &mut self,
        header: &RawHeader<'_>,
        pax: &Pax,
    ) -> io::Result<Option<(u64, Vec<Segment>)>> {
        let (real_size, segments) = if header.flag() == b'S' && header.dialect() == Dialect::Gnu {
            self.gnu_map(header)?
        } else if pax.sparse.major == Some(1) && pax.sparse.minor.unwrap_or(0) == 0 {
            (pax.sparse.real_size, self.map_in_content()?)
        } else if pax.sparse.is_used() {
            let numbers = pax.sparse.map.as_ref().unwrap_or(&pax.sparse.pairs);
            (pax.sparse.real_size, sparse::from_pairs(numbers)?)
        } else if header.flag() == b'S' {
            return Err(bad("archive/tar: invalid tar header"));
        } else {
            return Ok(None);
        };
        let real_size = real_size
            .filter(|&size| i64::try_from(size).is_ok())
            .ok_or_else(|| bad("archive/tar: invalid tar header: bad size of a sparse file"))?;
        sparse::check(&segments, real_size, self.left)?;
        Ok(Some((real_size, segments)))
    }

    /// The old GNU form: segments in the header and in extension blocks behind it.
    fn gnu_map(&mut self, header: &RawHeader<'_>) -> io::Result<(Option<u64>, Vec<Segment>)> {
        let real_size = u64::try_from(header.gnu_real_size()?).ok();
        let mut segments = Vec::new();
        let (fields, mut extended) = header.gnu_sparse();
        sparse::add_gnu(&mut segments, fields)?;
        while extended {
            let block = self.block()?.ok_or_else(cut_off)?;
            sparse::add_gnu(&mut segments, &block[..504])?;
            extended = block[504] != 0;
        }
        Ok((real_size, segments))
    }

    /// The PAX form 1.0: decimal lines at the start of the content, padded to a block.
    fn map_in_content(&mut self) -> io::Result<Vec<Segment>> {
        let invalid = || bad("archive/tar: invalid tar header: bad map of a sparse file");
        let (mut numbers, mut line, mut wanted) = (Vec::new(), Vec::new(), None);
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            if self.left < BLOCK as u64 {
                return Err(invalid());
            }
            let block = self.block()?.ok_or_else(cut_off)?;
            self.left -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(invalid());
                    }
                    continue;
                }
                let number: u64 = std::str::from_utf8(&line)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(invalid)?;
                line.clear();
                match wanted {
                    None if number <= sparse::MAX_SEGMENTS as u64 => {
                        wanted = Some(number as usize * 2)
                    }
                    None => return Err(invalid()),
                    Some(_) => numbers.push(number),
                }
                if wanted.is_some_and(|wanted| numbers.len() >= wanted) {
                    break;
                }
            }
        }
        sparse::from_pairs(&numbers)
    }
}

fn clamp(buffer: &[u8], limit: u64) -> &[u8] {
    &buffer[..usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .min(buffer.len())]
}

fn until_nul(mut content: Vec<u8>) -> Vec<u8> {
    let end = content
        .iter()
        .position(|&b| b == 0)
        .unwrap_or(content.len());
    content.truncate(end);
    content
}

fn owner(pax: Option<u32>, header: io::Result<i64>) -> io::Result<u32> {
    match pax {
        Some(id) => Ok(id),
        None => u32::try_from(header?)
            .map_err(|_| bad("archive/tar: invalid tar header: owner out of range")),
    }
}

fn device_number(number: i64) -> io::Result<u32> {
    u32::try_from(number)
        .map_err(|_| bad("archive/tar: invalid tar header: device number out of range"))
}

fn kind_of(flag: u8, path: &[u8]) -> io::Result<Kind> {
    Ok(match flag {
        // Before POSIX a directory was a file whose name ends in a slash.
        b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(bad(format!("unhandled tar header type {other}"))),
    })
}
