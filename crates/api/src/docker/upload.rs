//! Request and response bodies that are byte streams: archives.

use std::io;

use agent::Reader;
use axum::body::Body;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    io::{DuplexStream, duplex},
    sync::oneshot,
};
use tokio_util::io::{ReaderStream, StreamReader};

/// Pieces in which a stream is sent.
const PIECE: usize = 128 << 10;

/// A request's body as a reader.
pub(super) fn reader(body: Body) -> Reader {
    Box::pin(StreamReader::new(
        body.into_data_stream().map_err(io::Error::other),
    ))
}

/// A reader as a response's body. A failure breaks the connection off, so that the client
/// does not take half an archive for a whole one.
pub(super) fn body(reader: Reader) -> Body {
    Body::from_stream(ReaderStream::with_capacity(reader, PIECE))
}

/// The writing end of a response's body.
pub(super) struct Writer {
    pipe: DuplexStream,
    verdict: oneshot::Sender<Result<(), String>>,
}

/// Says whether what was written is whole.
pub(super) struct Verdict(oneshot::Sender<Result<(), String>>);

impl Verdict {
    /// Ends the body, or breaks the connection off.
    pub(super) fn give(self, result: Result<(), String>) {
        // The client may have gone meanwhile.
        let _ = self.0.send(result);
    }
}

impl Writer {
    /// Where to write, and the right to say how it ended.
    pub(super) fn split(self) -> (DuplexStream, Verdict) {
        (self.pipe, Verdict(self.verdict))
    }
}

/// A response's body and its writing end. The body ends well only when the verdict says so.
pub(super) fn pipe() -> (Body, Writer) {
    let (pipe, reader) = duplex(2 * PIECE);
    let (verdict, result) = oneshot::channel();
    let last = stream::once(async move {
        match result.await {
            Ok(Ok(())) => Ok(bytes::Bytes::new()),
            Ok(Err(message)) => Err(io::Error::other(message)),
            Err(_) => Err(io::Error::other("the writer was given up")),
        }
    });
    let stream = ReaderStream::with_capacity(reader, PIECE).chain(last);
    (Body::from_stream(stream), Writer { pipe, verdict })
}
