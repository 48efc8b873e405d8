//! The server's half of `kra push`: which chunks there are, those that came, and layers put
//! together from both.
//!
//! A chunk is used only for whoever has it: it lies in a layer that the caller names as one of
//! its own, or the caller has sent it, into a [`Space`] of its own.

mod assemble;
mod lists;
mod patch;
mod space;

use std::io::{self, BufReader, Read};

/// What both sides of a push may keep of what is compressed, as a power of two: 8 MiB.
const WINDOW: u32 = 23;

/// Undoes the compression of what a push sends.
pub fn decompress(body: impl Read) -> io::Result<impl Read> {
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(256 << 10, body))?;
    // Whoever sends shall not choose how much memory is taken.
    decoder.window_log_max(WINDOW)?;
    Ok(Sent(decoder))
}

/// What is wrong with what somebody sent is that person's fault.
struct Sent<R>(R);

impl<R: Read> Read for Sent<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Other => io::Error::new(io::ErrorKind::InvalidData, error),
            _ => error,
        })
    }
}

pub use self::{
    assemble::{Assembly, assemble},
    lists::Lists,
    patch::{file_chunks, file_put},
    space::{Received, Space, Spaces},
};
