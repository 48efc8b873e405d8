//! Request and response bodies that are byte streams: archives.

use std::{io, sync::Arc, time::Duration};

use agent::Reader;
use axum::body::{Body, BodyDataStream};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Mutex;
use tokio_util::io::{ReaderStream, StreamReader};

/// Pieces in which a stream is sent.
const PIECE: usize = 128 << 10;

/// A request's body as a reader.
pub(super) fn reader(body: Body) -> Reader {
    Box::pin(StreamReader::new(
        body.into_data_stream().map_err(io::Error::other),
    ))
}

/// A request's body that is read to its end even if whoever works on it gives up: a client
/// that is still sending does not look at an answer.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Mutex<BodyDataStream>>);

/// How much, and for how long, is read of a body that nobody wants.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

impl Upload {
    pub(crate) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body.into_data_stream())))
    }

    /// The body as a reader.
    pub(crate) fn reader(&self) -> Reader {
        let pieces = stream::unfold(self.0.clone(), |body| async move {
            let piece = body.lock().await.next().await?;
            Some((piece.map_err(io::Error::other), body))
        });
        Box::pin(StreamReader::new(Box::pin(pieces)))
    }

    /// Reads what is left.
    pub(crate) async fn drain(&self) {
        let rest = async {
            let (mut body, mut left) = (self.0.lock().await, DRAIN_BYTES);
            while let Some(Ok(piece)) = body.next().await {
                left = left.saturating_sub(piece.len());
                if left == 0 {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
    }
}

/// A reader as a response's body. A failure breaks the connection off, so that the client
/// does not take half an archive for a whole one.
pub(crate) fn body(reader: Reader) -> Body {
    Body::from_stream(ReaderStream::with_capacity(reader, PIECE))
}
