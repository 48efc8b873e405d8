//! Getting one blob into a repository: found there, mounted from a neighbour, or uploaded.
//!
//! Owns the upload protocol and compressing on the way; which blobs, and in which order, is
//! `push`'s matter.
//! Source: OCI distribution specification v1.1, "Push".

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION},
};
use sha2::Digest as _;
use tokio::sync::mpsc;
use types::{Digest, Error, Result};

use super::{connection::Connection, fault::Fault, manifest::Descriptor, progress::Counter};

/// Bytes handed to the network at once.
const PIECE: usize = 64 << 10;
/// Pieces between the compressor and the network.
const PIECES: usize = 8;
/// An upload that moves nothing for so long has failed.
const STALL: Duration = Duration::from_secs(120);

/// Compresses `tar` into `out`: the same bytes for the same content at any time and place
/// (no name, no time, no system). Gives `out` back.
pub fn gzip<W: Write>(tar: &mut dyn Read, out: W) -> io::Result<W> {
    // 255 is "unknown" (RFC 1952, 2.3.1); six is the level that docker uses.
    let mut encoder = flate2::GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(out, flate2::Compression::new(6));
    let mut buffer = vec![0; PIECE];
    loop {
        match tar.read(&mut buffer) {
            Ok(0) => return encoder.finish(),
            Ok(count) => encoder.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// An upload that the registry opened.
pub(crate) struct Session {
    location: Url,
}

/// What a request to mount a blob came to.
pub(crate) enum Mount {
    Done,
    /// Not mounted, but an upload was opened in its place.
    Refused(Session),
}

impl Connection {
    /// The size of a blob in bytes if the repository has it.
    pub(crate) async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Fault> {
        let url = self.url(&format!("blobs/{digest}"))?;
        match self.get(Method::HEAD, &url, &HeaderMap::new()).await {
            Ok(answer) => {
                let length = answer
                    .headers()
                    .get(CONTENT_LENGTH)
                    .and_then(|value| value.to_str().ok()?.parse().ok());
                Ok(Some(length.unwrap_or_default()))
            }
            Err(fault) if fault.is_missing() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Opens an upload.
    pub(crate) async fn open_upload(&self) -> Result<Session, Fault> {
        let url = self.url("blobs/uploads/")?;
        let answer = self
            .send(Method::POST, &url, &HeaderMap::new(), Some(Bytes::new()))
            .await?;
        session_of(&url, &answer)
    }

    /// Asks for the blob of `from`, another repository of the same registry.
    pub(crate) async fn mount(&self, digest: &Digest, from: &str) -> Result<Mount, Fault> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", digest.as_str())
            .append_pair("from", from);
        let answer = self
            .send(Method::POST, &url, &HeaderMap::new(), Some(Bytes::new()))
            .await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Mount::Done);
        }
        session_of(&url, &answer).map(Mount::Refused)
    }

    /// Gives an upload up; nothing is lost when that fails, registries drop old ones.
    pub(crate) async fn cancel(&self, session: Session) {
        if let Err(fault) = self
            .get(Method::DELETE, &session.location, &HeaderMap::new())
            .await
        {
            tracing::debug!(?fault, "cancelling an upload");
        }
    }

    /// Uploads a blob that is in memory, unless it is there.
    pub(crate) async fn put_small(
        &self,
        descriptor: &Descriptor,
        content: &Bytes,
    ) -> Result<(), Fault> {
        if self.blob_size(&descriptor.digest).await?.is_some() {
            return Ok(());
        }
        let session = self.open_upload().await?;
        self.finish(&session.location, &descriptor.digest, content.clone())
            .await
    }

    /// Closes an upload with its last bytes and its digest.
    async fn finish(&self, location: &Url, digest: &Digest, last: Bytes) -> Result<(), Fault> {
        let mut url = location.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        self.send(Method::PUT, &url, &octets(), Some(last))
            .await
            .map(drop)
    }

    /// Uploads what `tar` gives, compressed on the way; the digest is known at the end.
    pub(crate) async fn put_stream(
        &self,
        session: Session,
        tar: Box<dyn Read + Send>,
        counter: Counter,
    ) -> Result<(Digest, u64), Fault> {
        let moved = Arc::new(AtomicU64::new(0));
        let (pieces, outgoing) = mpsc::channel(PIECES);
        let source = Counted {
            tar,
            done: 0,
            counter,
            moved: moved.clone(),
        };
        let compress = tokio::task::spawn_blocking(move || compress(source, pieces));
        let body = stream::unfold(outgoing, |mut outgoing| async move {
            outgoing.recv().await.map(|piece| (piece, outgoing))
        });
        let url = session.location;
        let request = self
            .http
            .request(Method::PATCH, url.clone())
            .headers(octets())
            .body(reqwest::Body::wrap_stream(body));
        let sent = tokio::select! {
            sent = self.send_once(request, Method::PATCH, &url) => sent,
            () = stalled(&moved) => Err(Fault::Unreachable("the upload stalled".into()).during(Method::PATCH, &url)),
        };
        let compressed = compress
            .await
            .map_err(|source| Error::wrap("compressing a layer", source))?;
        // A layer that cannot be read breaks the upload, and is what has to be told.
        let (answer, (digest, size)) = match (sent, compressed) {
            (_, Err(Broken::Source(error))) => {
                return Err(Error::wrap("reading a layer", error).into());
            }
            (Err(fault), _) => return Err(fault),
            (Ok(_), Err(Broken::Unwanted)) => {
                return Err(
                    Fault::Unreachable("the registry ended the upload early".into())
                        .during(Method::PATCH, &url),
                );
            }
            (Ok(answer), Ok(done)) => (answer, done),
        };
        let next = session_of(&url, &answer)?;
        self.finish(&next.location, &digest, Bytes::new()).await?;
        Ok((digest, size))
    }
}

/// Ends when nothing has moved for [`STALL`].
async fn stalled(moved: &AtomicU64) {
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(STALL).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

fn octets() -> HeaderMap {
    HeaderMap::from_iter([(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    )])
}

/// Where an upload goes on.
fn session_of(url: &Url, answer: &Response) -> Result<Session, Fault> {
    let location = answer
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| url.join(text).ok());
    let location = location
        .ok_or_else(|| Error::system(format!("{url} opened an upload without saying where")))?;
    Ok(Session { location })
}

/// Why compressing ended early.
enum Broken {
    /// The layer could not be read.
    Source(io::Error),
    /// The network side went away.
    Unwanted,
}

/// Counts what is read.
struct Counted {
    tar: Box<dyn Read + Send>,
    done: u64,
    counter: Counter,
    moved: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.tar.read(buffer)?;
        self.done += count as u64;
        self.moved.store(self.done, Ordering::Relaxed);
        self.counter.at(self.done);
        Ok(count)
    }
}

/// Cuts what is written into pieces, and knows digest and size of all.
struct Outgoing {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    hash: sha2::Sha256,
    size: u64,
    unwanted: bool,
}

impl Outgoing {
    fn pass(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(
            &mut self.buffer,
            Vec::with_capacity(PIECE),
        ));
        self.hash.update(&piece);
        self.size += piece.len() as u64;
        self.pieces.blocking_send(Ok(piece)).map_err(|_| {
            self.unwanted = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }
}

impl Write for &mut Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.pass()?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress(
    mut source: Counted,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) -> Result<(Digest, u64), Broken> {
    let mut out = Outgoing {
        pieces,
        buffer: Vec::with_capacity(PIECE),
        hash: sha2::Sha256::new(),
        size: 0,
        unwanted: false,
    };
    let done = gzip(&mut source, &mut out)
        .map(drop)
        .and_then(|()| out.pass());
    match done {
        Ok(()) => Ok((Digest::from_sha256(out.hash.finalize().into()), out.size)),
        Err(_) if out.unwanted => Err(Broken::Unwanted),
        Err(error) => {
            // The body must end in an error: ended cleanly it would look complete.
            let _ = out
                .pieces
                .blocking_send(Err(io::Error::other("the layer could not be read")));
            Err(Broken::Source(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_deterministic_and_reversible() {
        let content = b"tar ".repeat(100_000);
        let once = gzip(&mut content.as_slice(), Vec::new()).unwrap();
        assert_eq!(once, gzip(&mut content.as_slice(), Vec::new()).unwrap());
        assert_eq!(&once[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(once.as_slice())
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, content);
    }
}
