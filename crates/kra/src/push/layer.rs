//! One layer on its way: read once, what is new is sent, the rest is named.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use chunk::{Cutter, Hash, Prefix, recipe, tar};
use client::Client;
use futures_util::stream;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use types::Digest;

use crate::exit::{Failure, Outcome};

/// Chunks that are asked for and sent together: bytes, and how many.
const BATCH: usize = 2 << 20;
const MOST: usize = 4096;
/// Batches on their way at a time.
const SENDERS: usize = 4;
/// Bytes of a tar after which what is known of its recipe is sent on.
const FLUSH: u64 = 8 << 20;

/// What kraud has, as far as a push knows.
#[derive(Debug, Default)]
pub(super) struct Bases {
    pub(super) layers: Vec<Digest>,
    prefixes: Vec<Prefix>,
    numbers: HashMap<Prefix, u64>,
}

impl Bases {
    /// What `layers` have, by the starts of their chunks' hashes.
    pub(super) fn new(layers: Vec<Digest>, prefixes: &[u8]) -> Option<Self> {
        let prefixes = Prefix::many(prefixes)?;
        let mut numbers = HashMap::with_capacity(prefixes.len());
        for (number, prefix) in (0..).zip(&prefixes) {
            numbers.entry(*prefix).or_insert(number);
        }
        Some(Self {
            layers,
            prefixes,
            numbers,
        })
    }

    /// The number of a chunk; the one after `last` if that is it, too.
    fn find(&self, prefix: Prefix, last: Option<u64>) -> Option<u64> {
        let next = last.map(|last| last + 1);
        next.filter(|next| self.prefixes.get(*next as usize) == Some(&prefix))
            .or_else(|| self.numbers.get(&prefix).copied())
    }
}

/// A push under way.
#[derive(Clone)]
pub(super) struct Push {
    pub(super) client: Client,
    pub(super) session: String,
    pub(super) bases: Arc<Bases>,
    /// Bytes sent.
    pub(super) sent: Arc<AtomicU64>,
}

/// Chunks that kraud may lack.
#[derive(Default)]
struct Batch {
    chunks: Vec<(Hash, Vec<u8>)>,
    bytes: usize,
}

/// Where a recipe goes: pieces for a request's body. There is no end to how many wait, as kraud
/// reads on only when the chunks are there; recipes are small.
struct Outgoing {
    pieces: mpsc::UnboundedSender<io::Result<Bytes>>,
    sent: Arc<AtomicU64>,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let piece = Bytes::copy_from_slice(bytes);
        self.pieces
            .send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes a tar apart.
struct Taker<'a> {
    push: &'a Push,
    recipe: recipe::Writer<zstd::Encoder<'static, Outgoing>>,
    cutter: Cutter,
    batch: Batch,
    batches: mpsc::Sender<Batch>,
    queued: HashSet<Hash>,
    last: Option<u64>,
    /// Bytes since the recipe was sent on.
    waiting: u64,
    moved: &'a (dyn Fn(u64) + Send + Sync),
}

impl Taker<'_> {
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        (self.moved)(bytes);
        self.waiting += bytes;
        if self.waiting >= FLUSH {
            self.waiting = 0;
            self.recipe.settled()?.flush()?;
            // What the recipe names by now shall not wait for more of its kind.
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        if self.batch.chunks.is_empty() {
            return Ok(());
        }
        self.batches
            .blocking_send(std::mem::take(&mut self.batch))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let hash = Hash::of(bytes);
        match self.push.bases.find(hash.prefix(), self.last) {
            Some(number) => {
                self.recipe.known(number, bytes.len() as u32)?;
                self.last = Some(number);
            }
            None => {
                self.recipe.chunk(&hash, bytes.len() as u32)?;
                if self.queued.insert(hash) {
                    self.batch.chunks.push((hash, bytes.to_vec()));
                    self.batch.bytes += bytes.len();
                }
            }
        }
        if self.batch.bytes >= BATCH || self.batch.chunks.len() >= MOST {
            self.send()?;
        }
        self.pass(bytes.len() as u64)
    }
}

impl tar::Sink for Taker<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.recipe.bytes(bytes)?;
        self.pass(bytes.len() as u64)
    }

    fn header(&mut self, header: &[u8; recipe::BLOCK]) -> io::Result<()> {
        self.recipe.header(header)?;
        self.pass(header.len() as u64)
    }

    fn padding(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.recipe.padding(bytes)?;
        self.pass(bytes.len() as u64)
    }

    fn content(&mut self, content: &mut dyn Read) -> io::Result<()> {
        let mut cutter = std::mem::take(&mut self.cutter);
        let cut = cutter.cut(content, |bytes| self.chunk(bytes));
        self.cutter = cutter;
        cut.map(drop)
    }
}

/// Where the tar of a layer goes. It blocks; what comes of it shows the [`Sending`].
pub(super) struct Feed {
    push: Push,
    pieces: mpsc::UnboundedSender<io::Result<Bytes>>,
    batches: mpsc::Sender<Batch>,
}

/// A layer on its way.
pub(super) struct Sending(JoinHandle<Outcome>);

impl Sending {
    /// Waits until kraud has the layer; `read` is what reading it came to.
    pub(super) async fn end(self, read: io::Result<u64>) -> Outcome<u64> {
        let sent = self
            .0
            .await
            .unwrap_or_else(|error| Err(Failure::io("sending a layer", io::Error::other(error))));
        match (read, sent) {
            (Ok(length), sent) => sent.map(|()| length),
            // Nobody took it any more, for this reason.
            (Err(error), Err(failure)) if error.kind() == io::ErrorKind::BrokenPipe => Err(failure),
            (Err(error), _) => Err(Failure::io("reading a layer", error)),
        }
    }
}

impl Feed {
    /// Reads a tar to its end; `moved` hears of its bytes. Returns its length.
    pub(super) fn read(
        self,
        tar: impl Read,
        moved: &(dyn Fn(u64) + Send + Sync),
    ) -> io::Result<u64> {
        let failed = self.pieces.clone();
        let outgoing = Outgoing {
            pieces: self.pieces,
            sent: self.push.sent.clone(),
        };
        let push = &self.push;
        let work = || -> io::Result<u64> {
            let mut encoder = zstd::Encoder::new(outgoing, 6)?;
            encoder.window_log(23)?;
            let mut taker = Taker {
                push,
                recipe: recipe::Writer::new(encoder),
                cutter: Cutter::default(),
                batch: Batch::default(),
                batches: self.batches,
                queued: HashSet::new(),
                last: None,
                waiting: 0,
                moved,
            };
            let length = tar::split(tar, &mut taker)?;
            taker.send()?;
            taker.recipe.finish()?.finish()?;
            Ok(length)
        };
        // Without its end kraud would take what there is of the recipe for all of it.
        work().inspect_err(|error| drop(failed.send(Err(io::Error::other(error.to_string())))))
    }
}

impl Push {
    /// Begins to send a layer, whose tar the [`Feed`] takes.
    pub(super) fn begin(&self, diff_id: &Digest) -> (Feed, Sending) {
        let (pieces, recipe) = mpsc::unbounded_channel();
        let (batches, receiver) = mpsc::channel(1);
        let sending = {
            let (push, diff_id) = (self.clone(), diff_id.clone());
            tokio::spawn(async move { push.sending(&diff_id, recipe, receiver).await })
        };
        let feed = Feed {
            push: self.clone(),
            pieces,
            batches,
        };
        (feed, Sending(sending))
    }

    async fn sending(
        &self,
        diff_id: &Digest,
        mut recipe: mpsc::UnboundedReceiver<io::Result<Bytes>>,
        batches: mpsc::Receiver<Batch>,
    ) -> Outcome {
        let body = stream::poll_fn(move |context| recipe.poll_recv(context));
        let batches = Mutex::new(batches);
        let senders = futures_util::future::try_join_all((0..SENDERS).map(|_| async {
            // Not held while a batch is sent.
            while let Some(batch) = { batches.lock().await.recv().await } {
                self.send(batch).await?;
            }
            Ok::<_, Failure>(())
        }));
        let put = async {
            let layers = &self.bases.layers;
            self.client
                .push_layer(&self.session, diff_id, layers, body)
                .await
                .map_err(Failure::from)
        };
        tokio::try_join!(senders, put)?;
        Ok(())
    }

    /// Asks which chunks of a batch are missing, and sends them.
    async fn send(&self, batch: Batch) -> Outcome {
        let hashes: Vec<u8> = batch.chunks.iter().flat_map(|(hash, _)| hash.0).collect();
        self.sent.fetch_add(hashes.len() as u64, Ordering::Relaxed);
        let missing = self.client.push_missing(hashes.into()).await?;
        let wanted: Vec<Vec<u8>> = batch
            .chunks
            .into_iter()
            .zip(missing.iter().chain(std::iter::repeat(&1)))
            .filter(|(_, missing)| **missing != 0)
            .map(|((_, bytes), _)| bytes)
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let packed = tokio::task::spawn_blocking(move || pack(&wanted))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| Failure::io("compressing chunks", error))?;
        self.sent.fetch_add(packed.len() as u64, Ordering::Relaxed);
        self.client
            .push_chunks(&self.session, packed.into())
            .await?;
        Ok(())
    }
}

/// Chunks as they are sent.
fn pack(chunks: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
    for chunk in chunks {
        encoder.write_all(&(chunk.len() as u32).to_le_bytes())?;
        encoder.write_all(chunk)?;
    }
    encoder.finish()
}
