//! PAX extended headers (POSIX.1-2001, `pax`, "pax Extended Header"): records `length key=value\n`.

use std::io;

use super::bad;

/// What a PAX header says of the entry that follows it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: PaxSparse,
}

/// The three forms in which GNU tar keeps sparse files under PAX.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    /// 1.0 says `realsize`, 0.x `size`.
    pub real_size: Option<u64>,
    /// Form 0.1: `offset,length,…`.
    pub map: Option<Vec<u64>>,
    /// Form 0.0: repeated `offset` and `numbytes`.
    pub pairs: Vec<u64>,
    pub blocks: Option<u64>,
}

impl PaxSparse {
    /// Whether there is any sparse map.
    pub(super) fn is_used(&self) -> bool {
        self.major.is_some()
            || self.map.is_some()
            || self.blocks.is_some()
            || !self.pairs.is_empty()
    }
}

fn invalid(key: &[u8]) -> io::Error {
    bad(format!(
        "archive/tar: invalid tar header: bad PAX record {:?}",
        String::from_utf8_lossy(key)
    ))
}

fn integer<T: std::str::FromStr>(key: &[u8], value: &[u8]) -> io::Result<T> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| invalid(key))
}

/// Seconds with an optional fraction, possibly negative.
fn time(key: &[u8], value: &[u8]) -> io::Result<(i64, u32)> {
    let text = std::str::from_utf8(value).map_err(|_| invalid(key))?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = integer(key, whole.as_bytes())?;
    if fraction.bytes().any(|b| !b.is_ascii_digit()) {
        return Err(invalid(key));
    }
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Ok((
            seconds.checked_sub(1).ok_or_else(|| invalid(key))?,
            1_000_000_000 - nanos,
        )),
        _ => Ok((seconds, nanos)),
    }
}

impl Pax {
    /// Parses the content of an `x` entry.
    pub(super) fn parse(mut content: &[u8]) -> io::Result<Self> {
        let mut pax = Self::default();
        while !content.is_empty() {
            let (key, value, rest) = record(content)?;
            pax.set(key, value)?;
            content = rest;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let has_nul = value.contains(&0);
        match key {
            b"path" | b"linkpath" | b"GNU.sparse.name" if has_nul => return Err(invalid(key)),
            // An empty value takes the keyword back.
            _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {}
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(integer(key, value)?),
            b"uid" => self.uid = Some(integer(key, value)?),
            b"gid" => self.gid = Some(integer(key, value)?),
            b"mtime" => self.mtime = Some(time(key, value)?),
            b"GNU.sparse.major" => self.sparse.major = Some(integer(key, value)?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(integer(key, value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.real_size = Some(integer(key, value)?)
            }
            b"GNU.sparse.numblocks" => self.sparse.blocks = Some(integer(key, value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.pairs.push(integer(key, value)?)
            }
            b"GNU.sparse.map" => {
                self.sparse.map = Some(
                    value
                        .split(|&b| b == b',')
                        .map(|part| integer(key, part))
                        .collect::<io::Result<_>>()?,
                );
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return Err(invalid(key));
                    }
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// The first record of `content`: key, value, and what follows.
fn record(content: &[u8]) -> io::Result<(&[u8], &[u8], &[u8])> {
    let broken = || bad("archive/tar: invalid tar header: broken PAX record");
    let space = content
        .iter()
        .take(20)
        .position(|&b| b == b' ')
        .ok_or_else(broken)?;
    let length: usize = integer(b"length", &content[..space])?;
    if length <= space + 1 || length > content.len() || content[length - 1] != b'\n' {
        return Err(broken());
    }
    let body = &content[space + 1..length - 1];
    let equals = body
        .iter()
        .position(|&b| b == b'=')
        .filter(|&at| at > 0)
        .ok_or_else(broken)?;
    Ok((&body[..equals], &body[equals + 1..], &content[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let pax =
            Pax::parse(b"12 path=a/b\n21 mtime=-1.25000000\n27 SCHILY.xattr.user.x=\x00\x01\n\n")
                .unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.mtime, Some((-2, 750_000_000)));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"\0\x01\n".to_vec())]);
        for broken in [
            &b"12 path=a/b"[..],
            b"99 path=a\n",
            b"x",
            b"3 a\n",
            b"9 path=\0\n",
            b"10 size=-1\n",
            b"0 \n",
        ] {
            assert!(Pax::parse(broken).is_err(), "{broken:?}");
        }
    }
}
