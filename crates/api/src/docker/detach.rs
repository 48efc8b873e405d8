//! The key sequence that leaves an attached terminal.

use types::{Error, Result};

/// ctrl-p, ctrl-q.
const DEFAULT: &[u8] = &[16, 17];

/// Parses docker's notation: keys by comma, each one character or `ctrl-` and one of
/// `a`–`z`, `@`, `[`, `\`, `]`, `^`, `_`. Missing or empty is the default.
pub(super) fn parse(text: Option<&str>) -> Result<Vec<u8>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(DEFAULT.to_vec());
    };
    let bad = || Error::invalid(format!("Invalid detach keys ({text}) provided"));
    text.split(',')
        .map(|key| match key.as_bytes() {
            [one] => Ok(*one),
            [b'c', b't', b'r', b'l', b'-', key @ (b'a'..=b'z')] => Ok(key - b'a' + 1),
            b"ctrl-@" => Ok(0),
            [
                b'c',
                b't',
                b'r',
                b'l',
                b'-',
                key @ (b'[' | b'\\' | b']' | b'^' | b'_'),
            ] => Ok(key - b'@'),
            b"DEL" => Ok(127),
            _ => Err(bad()),
        })
        .collect()
}

/// Finds the sequence in what is typed. Keys that could begin it are held back until it is
/// clear that they do not.
#[derive(Debug)]
pub(super) struct Detector {
    keys: Vec<u8>,
    matched: usize,
}

/// What [`Detector::feed`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Pass this on.
    Data(Vec<u8>),
    /// Pass this on, then detach.
    Detach(Vec<u8>),
}

impl Detector {
    /// Looks for `keys`.
    pub(super) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes in what was typed.
    pub(super) fn feed(&mut self, typed: &[u8]) -> Typed {
        let mut pass = Vec::with_capacity(typed.len());
        for &key in typed {
            if key != self.keys[self.matched] {
                pass.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if key == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return Typed::Detach(pass);
                }
            } else {
                pass.push(key);
            }
        }
        Typed::Data(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation() {
        assert_eq!(parse(None).unwrap(), [16, 17]);
        assert_eq!(parse(Some("")).unwrap(), [16, 17]);
        assert_eq!(
            parse(Some("ctrl-a,b,ctrl-@,ctrl-_,ctrl-[")).unwrap(),
            [1, b'b', 0, 31, 27]
        );
        for bad in ["ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-é"] {
            assert!(
                parse(Some(bad))
                    .unwrap_err()
                    .message
                    .starts_with("Invalid detach keys"),
                "{bad}"
            );
        }
    }

    #[test]
    fn sequence_over_pieces() {
        let mut detector = Detector::new(vec![16, 17]);
        assert_eq!(detector.feed(b"ab\x10"), Typed::Data(b"ab".to_vec()));
        assert_eq!(detector.feed(b"x"), Typed::Data(b"\x10x".to_vec()));
        assert_eq!(detector.feed(b"\x10\x10"), Typed::Data(b"\x10".to_vec()));
        assert_eq!(detector.feed(b"\x11rest"), Typed::Detach(Vec::new()));
    }
}
