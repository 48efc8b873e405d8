//! The front half of an ingest: read, decompress and hash on a thread of its own, so that it
//! runs beside the unpacking.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

use sha2::{Digest as _, Sha256};
use types::Digest;

use crate::tar::bad;

/// Bytes per piece, and pieces on the way.
const PIECE: usize = 256 * 1024;
const QUEUE: usize = 8;

/// Tells compression by the first bytes and undoes it.
pub(crate) fn decompress<'a>(
    input: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut input = BufReader::with_capacity(PIECE, input);
    let mut head = Vec::with_capacity(6);
    (&mut input).take(6).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(input);
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(PIECE, whole),
        )),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(whole)?),
        [b'B', b'Z', b'h', ..] => {
            return Err(bad(
                "unsupported compression: bzip2 (use gzip, zstd or none)",
            ));
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            return Err(bad("unsupported compression: xz (use gzip, zstd or none)"));
        }
        _ => Box::new(whole),
    })
}

/// The back half's view of the stream.
pub(crate) struct Pieces {
    pieces: Receiver<io::Result<Vec<u8>>>,
    used: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() && !self.ended {
            let next = match self.pieces.recv() {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    self.ended = true;
                    Vec::new()
                }
            };
            // Nobody there to take it back means the other half is done.
            let _ = self.used.send(std::mem::replace(&mut self.current, next));
            self.at = 0;
        }
        Ok(&self.current[self.at..])
    }
    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.current.len());
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// What went through.
pub(crate) struct Summary {
    /// Of the decompressed bytes.
    pub digest: Digest,
    pub size: u64,
}

/// Runs `work` on the decompressed `input`; returns its result and the digest of all bytes.
/// When `work` fails, its error counts and the rest of the input is left unread.
pub(crate) fn pipelined<T>(
    input: impl Read + Send,
    work: impl FnOnce(Pieces) -> io::Result<T>,
) -> io::Result<(T, Summary)> {
    let (to_work, pieces) = sync_channel(QUEUE);
    let (used, back) = channel();
    thread::scope(|scope| {
        let producer = thread::Builder::new()
            .name("layer-input".into())
            .spawn_scoped(scope, move || produce(input, &to_work, &back))?;
        let done = work(Pieces {
            pieces,
            used,
            current: Vec::new(),
            at: 0,
            ended: false,
        });
        let summary = producer
            .join()
            .map_err(|_| io::Error::other("the reading thread panicked"))?;
        let done = done?;
        summary
            .map(|summary| (done, summary))
            .ok_or_else(|| io::Error::other("the stream was not read to its end"))
    })
}

/// Sends pieces until the end, an error, or until nobody wants them. `None` unless at the end.
fn produce(
    input: impl Read + Send,
    pieces: &SyncSender<io::Result<Vec<u8>>>,
    back: &Receiver<Vec<u8>>,
) -> Option<Summary> {
    let mut input = match decompress(input) {
        Ok(input) => input,
        Err(error) => {
            let _ = pieces.send(Err(error));
            return None;
        }
    };
    let (mut hasher, mut size) = (Sha256::new(), 0u64);
    loop {
        let mut piece = back.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        match fill(&mut input, &mut piece) {
            Ok(0) => {
                return Some(Summary {
                    digest: Digest::from_sha256(hasher.finalize().into()),
                    size,
                });
            }
            Ok(count) => {
                piece.truncate(count);
                hasher.update(&piece);
                size += count as u64;
                pieces.send(Ok(piece)).ok()?;
            }
            Err(error) => {
                let _ = pieces.send(Err(error));
                return None;
            }
        }
    }
}

/// Fills `buffer` as far as the input goes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
