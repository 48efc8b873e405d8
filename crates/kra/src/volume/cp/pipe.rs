//! Bytes between threads that block and the async side.

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;

use crate::progress::Meter;

/// Bytes in one piece.
const PIECE: usize = 128 << 10;

/// The writing end, for a thread.
pub(super) struct Writer {
    to: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    meter: Meter,
}

/// A pipe, whose reading end is a stream. The stream ends when the writer is finished, and
/// fails when it is dropped before.
pub(super) fn pipe(
    meter: Meter,
) -> (
    Writer,
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) {
    let (to, from) = mpsc::channel::<io::Result<Bytes>>(4);
    let stream = stream::unfold(Some(from), |from| async move {
        let mut from = from?;
        match from.recv().await {
            // An empty piece is the sign of a good end.
            Some(Ok(piece)) if piece.is_empty() => None,
            Some(Ok(piece)) => Some((Ok(piece), Some(from))),
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(io::Error::other("the archive is not whole")), None)),
        }
    });
    let writer = Writer {
        to,
        piece: Vec::with_capacity(PIECE),
        meter,
    };
    (writer, stream)
}

impl Writer {
    /// Everything was written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(Bytes::new())
    }

    fn send(&self, piece: Bytes) -> io::Result<()> {
        self.meter.moved(piece.len());
        self.to
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.send(piece.into())
    }
}

/// Counts what is read.
pub(super) struct Counted<R> {
    pub(super) inner: R,
    pub(super) meter: Meter,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.meter.moved(count);
        Ok(count)
    }
}
