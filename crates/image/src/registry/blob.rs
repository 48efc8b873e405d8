//! A layer's bytes on their way in: resumed when the connection breaks, verified by digest and
//! decompressed while they arrive.
//!
//! Owns the bridge from an async download to a blocking [`Read`]; nothing is spooled to disk,
//! a slow reader slows the download down.

use std::{
    io::{self, Read},
    sync::{Arc, OnceLock},
};

use bytes::{Buf as _, Bytes};
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE},
};
use sha2::Digest as _;
use tokio::sync::mpsc;
use types::{Digest, Error};

use super::{
    connection::{Connection, next_chunk},
    fault::Fault,
    manifest::Descriptor,
    progress::{Counter, Progress, Report},
};

/// Chunks between the download and its reader (each up to about 16 KiB).
const CHUNKS: usize = 64;

/// What the download hands over.
enum Piece {
    Bytes(Bytes),
    /// All bytes were sent.
    End,
}

/// How a download ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    Complete,
    /// The reader went away first, for reasons of its own.
    Unwanted,
}

/// A download without its connection: feeds one reader.
pub(crate) struct Feed {
    pieces: mpsc::Sender<Piece>,
}

/// The two ends of one download of `descriptor`.
pub(crate) fn bridge(descriptor: &Descriptor, id: &str, report: &Report) -> (Feed, BlobReader) {
    let (pieces, incoming) = mpsc::channel(CHUNKS);
    let reader = BlobReader {
        incoming,
        current: Bytes::new(),
        hash: sha2::Sha256::new(),
        seen: 0,
        wanted: descriptor.clone(),
        ended: false,
        verdict: Verdict::default(),
        id: id.into(),
        report: report.clone(),
    };
    (Feed { pieces }, reader)
}

impl Feed {
    /// Downloads the blob, going on where a broken connection stopped.
    pub(crate) async fn run(
        self,
        connection: &Connection,
        blob: &Descriptor,
        id: &str,
        report: &Report,
    ) -> Result<Fed, Fault> {
        let counter = Counter::new(report, id, "Downloading", blob.size);
        let mut offset = 0;
        let mut failures = 0;
        loop {
            let before = offset;
            let fault = match self.stream(connection, blob, &mut offset, &counter).await {
                Ok(Fed::Unwanted) => return Ok(Fed::Unwanted),
                Ok(Fed::Complete) => break,
                Err(fault) => fault,
            };
            // Bytes that arrived are a fresh start.
            failures = if offset > before { 1 } else { failures + 1 };
            if !fault.may_pass() || failures >= connection.patience.attempts {
                return Err(fault);
            }
            let pause = connection.patience.pause(failures);
            if pause.as_secs() > 0 {
                report(Progress::of(
                    id,
                    format!("Retrying in {} seconds", pause.as_secs()),
                ));
            }
            tokio::time::sleep(pause).await;
        }
        report(Progress::of(id, "Verifying Checksum"));
        match self.pieces.send(Piece::End).await {
            Ok(()) => Ok(Fed::Complete),
            Err(_) => Ok(Fed::Unwanted),
        }
    }

    /// One request, from `offset` to the end or the next break.
    async fn stream(
        &self,
        connection: &Connection,
        blob: &Descriptor,
        offset: &mut u64,
        counter: &Counter,
    ) -> Result<Fed, Fault> {
        if *offset == blob.size && blob.size > 0 {
            return Ok(Fed::Complete);
        }
        let url = connection.url(&format!("blobs/{}", blob.digest))?;
        let mut headers = HeaderMap::new();
        if *offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let mut answer = connection.get(Method::GET, &url, &headers).await?;
        // Where the answer starts: a registry may ignore the range.
        let mut skip = match (answer.status(), range_start(answer.headers())) {
            (StatusCode::PARTIAL_CONTENT, Some(start)) if start <= *offset => *offset - start,
            (StatusCode::PARTIAL_CONTENT, Some(_)) => {
                return Err(Error::system(format!(
                    "{url} answered another range than the one asked for"
                ))
                .into());
            }
            (StatusCode::PARTIAL_CONTENT, None) => 0,
            _ => *offset,
        };
        loop {
            let Some(mut chunk) = next_chunk(&mut answer, &url).await? else {
                break;
            };
            let repeated = skip.min(chunk.len() as u64);
            chunk.advance(repeated as usize);
            skip -= repeated;
            *offset += chunk.len() as u64;
            if *offset > blob.size {
                return Err(Error::system(format!(
                    "layer {} is longer than the {} bytes of its manifest",
                    blob.digest, blob.size
                ))
                .into());
            }
            if !chunk.is_empty() && self.pieces.send(Piece::Bytes(chunk)).await.is_err() {
                return Ok(Fed::Unwanted);
            }
            counter.at(*offset);
        }
        if *offset < blob.size {
            return Err(Fault::Unreachable("unexpected EOF".into()).during(Method::GET, &url));
        }
        Ok(Fed::Complete)
    }
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Why a reader failed, kept apart from the [`io::Error`] that a consumer may rephrase.
#[derive(Clone, Default)]
pub(crate) struct Verdict(Arc<OnceLock<Error>>);

impl Verdict {
    /// The failure, if the content was at fault.
    pub(crate) fn error(&self) -> Option<Error> {
        self.0.get().cloned()
    }

    fn fail(&self, error: Error) -> io::Error {
        let told = io::Error::new(io::ErrorKind::InvalidData, error.message.clone());
        let _ = self.0.set(error);
        told
    }
}

/// The blob's bytes as they were compressed. Ends only when size and digest are right; fails
/// when they are not or when the download was given up. Blocking.
pub(crate) struct BlobReader {
    incoming: mpsc::Receiver<Piece>,
    current: Bytes,
    hash: sha2::Sha256,
    seen: u64,
    wanted: Descriptor,
    ended: bool,
    verdict: Verdict,
    id: String,
    report: Report,
}

impl BlobReader {
    /// Where the reason of a failure is kept.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    fn verify(&mut self) -> io::Result<()> {
        let digest = Digest::from_sha256(std::mem::take(&mut self.hash).finalize().into());
        if self.seen != self.wanted.size || digest != self.wanted.digest {
            let text = format!(
                "filesystem layer verification failed for digest {}",
                self.wanted.digest
            );
            return Err(self.verdict.fail(Error::system(text)));
        }
        self.ended = true;
        (self.report)(Progress::of(&self.id, "Download complete"));
        let bytes = Some((self.wanted.size, self.wanted.size));
        (self.report)(Progress {
            bytes,
            ..Progress::of(&self.id, "Extracting")
        });
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            match self.incoming.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    self.hash.update(&bytes);
                    self.seen += bytes.len() as u64;
                    self.current = bytes;
                }
                Some(Piece::End) => self.verify()?,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the download was given up",
                    ));
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

type Whole = io::Chain<io::Cursor<Vec<u8>>, BlobReader>;

/// The uncompressed tar of a layer. Its end says that the compressed bytes, including any that
/// follow the compressed stream, had the right digest.
pub(crate) enum TarReader {
    Plain(Box<Whole>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<io::BufReader<Whole>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, io::BufReader<Whole>>>),
}

impl TarReader {
    /// Looks at the first bytes of `blob` and decompresses it accordingly: media types are not
    /// to be relied on.
    pub(crate) fn open(mut blob: BlobReader) -> io::Result<Self> {
        let mut head = Vec::new();
        (&mut blob).take(4).read_to_end(&mut head)?;
        let magic = head.clone();
        let whole = Read::chain(io::Cursor::new(head), blob);
        let buffered = |whole| io::BufReader::with_capacity(64 << 10, whole);
        let gzip = |whole| {
            let decoder = flate2::bufread::MultiGzDecoder::new(buffered(whole));
            Self::Gzip(Box::new(decoder))
        };
        let zstd = |whole| -> io::Result<Self> {
            let decoder = zstd::stream::read::Decoder::with_buffer(buffered(whole))?;
            Ok(Self::Zstd(Box::new(decoder)))
        };
        match magic.as_slice() {
            [0x1f, 0x8b, ..] => Ok(gzip(whole)),
            [0x28, 0xb5, 0x2f, 0xfd] => zstd(whole),
            // A skippable frame (RFC 8878, 3.1.2), which only zstd archives start with.
            [first, 0x2a, 0x4d, 0x18] if first & 0xf0 == 0x50 => zstd(whole),
            _ => Ok(Self::Plain(Box::new(whole))),
        }
    }

    fn blob(&mut self) -> &mut dyn Read {
        match self {
            Self::Plain(whole) => whole.as_mut(),
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self {
            Self::Plain(whole) => whole.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }?;
        if count == 0 && !buffer.is_empty() {
            io::copy(self.blob(), &mut io::sink())?;
        }
        Ok(count)
    }
}
