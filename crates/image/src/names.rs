//! Names in archives, as text: made clean before the kernel sees them.

use crate::fsutil::join;

/// The parts of `name` without `.`, `..` and double slashes; leading slashes are dropped.
/// `None` when a relative name climbs above its start.
pub(crate) fn clean(name: &[u8]) -> Option<Vec<u8>> {
    let absolute = name.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() && !absolute {
                    return None;
                }
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// Where the link at clean path `from` leads; `None` when that is outside.
pub(crate) fn join_link(from: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.first() == Some(&b'/') {
        clean(target)
    } else {
        clean(&join(split_last(from).0, target))
    }
}

/// Directory and last part of a clean path.
pub(crate) fn split_last(full: &[u8]) -> (&[u8], &[u8]) {
    match full.iter().rposition(|&b| b == b'/') {
        Some(at) => (&full[..at], &full[at + 1..]),
        None => (&[], full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(clean(b"./a//b/../c/").as_deref(), Some(&b"a/c"[..]));
        assert_eq!(clean(b"/../etc").as_deref(), Some(&b"etc"[..]));
        assert_eq!(clean(b"."), Some(Vec::new()));
        for outside in [&b".."[..], b"../a", b"a/../../b"] {
            assert_eq!(clean(outside), None);
        }
    }
}
