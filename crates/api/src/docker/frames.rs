//! How a container's two output streams share one connection.
//!
//! Without a terminal every piece is led by eight bytes: stream (1 stdout, 2 stderr), three
//! zeroes, and the length as a big-endian 32-bit number (Docker Engine API v1.50,
//! "ContainerAttach", Stream format). With a terminal there is one stream and no framing.

use agent::Output;
use bytes::{BufMut as _, BytesMut};

/// The media type of framed output, named so since API 1.42.
pub(super) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// The media type of unframed output, and of everything before API 1.42.
pub(super) const RAW: &str = "application/vnd.docker.raw-stream";

/// The media type to announce.
pub(super) fn media_type(tty: bool, since_1_42: bool) -> &'static str {
    if !tty && since_1_42 { MULTIPLEXED } else { RAW }
}

/// Which of the two streams a piece is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stream {
    Stdout = 1,
    Stderr = 2,
}

/// Appends the parts of one piece, framed unless `raw`.
pub(super) fn put(to: &mut BytesMut, raw: bool, stream: Stream, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    to.reserve(length + 8);
    if !raw {
        to.put_u32(u32::from(stream as u8) << 24);
        to.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }
    for part in parts {
        to.put_slice(part);
    }
}

/// Appends a piece of output.
pub(super) fn put_output(to: &mut BytesMut, raw: bool, output: &Output) {
    match output {
        Output::Stdout(bytes) => put(to, raw, Stream::Stdout, &[bytes]),
        Output::Stderr(bytes) => put(to, raw, Stream::Stderr, &[bytes]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing() {
        let mut buffer = BytesMut::new();
        put_output(&mut buffer, false, &Output::Stderr("abc".into()));
        assert_eq!(&buffer[..], b"\x02\0\0\0\0\0\0\x03abc");
        buffer.clear();
        put(&mut buffer, true, Stream::Stdout, &[b"a", b"bc"]);
        assert_eq!(&buffer[..], b"abc");
        assert_eq!(
            (
                media_type(false, true),
                media_type(true, true),
                media_type(false, false)
            ),
            (MULTIPLEXED, RAW, RAW)
        );
    }
}
