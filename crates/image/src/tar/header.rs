//! One header block: its fields, number forms and checksum.

use std::io;

use super::{BLOCK, bad};

/// The dialect a header is written in; decides what the bytes after `version` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Gnu,
    Star,
}

/// A header block whose checksum is right.
pub(super) struct RawHeader<'a>(&'a [u8; BLOCK]);

/// The bytes of a field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// A number: octal text, or base 256 when the first bit is set.
pub(super) fn number(field: &[u8]) -> io::Result<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn base256(field: &[u8]) -> io::Result<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (index, byte) in field.iter().enumerate() {
        let byte = if index == 0 {
            (byte & 0x7f) | if negative { 0x80 } else { 0 }
        } else {
            *byte
        };
        // Twelve bytes at most: 96 bits never overflow 128.
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).map_err(|_| bad("archive/tar: invalid tar header: number out of range"))
}

fn octal(field: &[u8]) -> io::Result<i64> {
    let digits = field.trim_ascii_start();
    let end = digits
        .iter()
        .position(|&b| b == 0 || b == b' ')
        .unwrap_or(digits.len());
    let digits = &digits[..end];
    if digits.iter().any(|b| !(b'0'..=b'7').contains(b)) || digits.len() > 20 {
        return Err(bad("archive/tar: invalid tar header"));
    }
    Ok(digits
        .iter()
        .fold(0, |value, digit| (value << 3) | i64::from(digit - b'0')))
}

impl<'a> RawHeader<'a> {
    /// Checks the checksum. Old writers summed signed characters; both sums are accepted.
    pub(super) fn new(block: &'a [u8; BLOCK]) -> io::Result<Self> {
        let stored = octal(&block[148..156])?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (index, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&index) {
                b' '
            } else {
                byte
            };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored != unsigned && stored != signed {
            return Err(bad("archive/tar: invalid tar header"));
        }
        Ok(Self(block))
    }

    pub(super) fn dialect(&self) -> Dialect {
        match (&self.0[257..263], &self.0[263..265]) {
            (b"ustar\0", _) if &self.0[508..512] == b"tar\0" => Dialect::Star,
            (b"ustar\0", _) => Dialect::Ustar,
            (b"ustar ", b" \0") => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[156]
    }
    pub(super) fn mode(&self) -> io::Result<i64> {
        number(&self.0[100..108])
    }
    pub(super) fn uid(&self) -> io::Result<i64> {
        number(&self.0[108..116])
    }
    pub(super) fn gid(&self) -> io::Result<i64> {
        number(&self.0[116..124])
    }
    pub(super) fn size(&self) -> io::Result<i64> {
        number(&self.0[124..136])
    }
    pub(super) fn mtime(&self) -> io::Result<i64> {
        number(&self.0[136..148])
    }
    pub(super) fn link(&self) -> &[u8] {
        text(&self.0[157..257])
    }
    /// Major and minor; zero in dialects without them.
    pub(super) fn device(&self) -> io::Result<(i64, i64)> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        Ok((number(&self.0[329..337])?, number(&self.0[337..345])?))
    }
    /// The name with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.dialect() {
            Dialect::Ustar => text(&self.0[345..500]),
            Dialect::Star => text(&self.0[345..476]),
            Dialect::Gnu | Dialect::V7 => &[],
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }
    /// The four places for sparse segments in an old GNU header, and whether more follow.
    pub(super) fn gnu_sparse(&self) -> (&[u8], bool) {
        (&self.0[386..482], self.0[482] != 0)
    }
    /// The full size of an old GNU sparse file.
    pub(super) fn gnu_real_size(&self) -> io::Result<i64> {
        number(&self.0[483..495])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]).unwrap(),
            256
        );
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(number(b"00008").is_err());
        assert!(number(b"-1").is_err());
    }
}
