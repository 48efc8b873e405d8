//! Reads the outer archive: layers go to the layer store at once, small files to memory.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use types::{Digest, Error, Result};

use super::Progress;
use crate::{
    allowance::Allowance,
    input::decompress,
    layers::{Ingested, LayerGuard, LayerMeta, LayerStore, archive_error},
    names::{clean, join_link},
    tar::{Kind, Reader, looks_like_tar},
};

/// A file that is not a layer is kept up to this size; no manifest or configuration is larger.
const MAX_SMALL: u64 = 8 << 20;
/// All of them together.
const MAX_SMALL_TOTAL: u64 = 128 << 20;
/// How many links one after the other are followed.
const MAX_LINKS: usize = 8;

/// A layer of the archive.
pub(crate) struct SpooledLayer {
    pub meta: LayerMeta,
    guard: LayerGuard,
}

/// A file of the archive.
enum Item {
    Layer(SpooledLayer),
    Small(Arc<[u8]>),
    /// To this name.
    Link(Vec<u8>),
    /// Looked like a layer but is none; matters only to whoever needs it.
    Bad(Error),
    TooLarge,
}

/// The archive as far as it was read.
pub(crate) struct Spool {
    layers: Arc<LayerStore>,
    /// Which need not be in the archive as a whole, and how much may come.
    allowance: Allowance,
    progress: Progress,
    items: HashMap<Vec<u8>, Item>,
    new: HashSet<Digest>,
    small_total: u64,
}

/// The unread content of the current entry.
struct Content<'a, R>(&'a mut Reader<R, ()>);

impl<R: io::BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.fill_content()?;
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        self.0.consume_content(count);
        Ok(count)
    }
}

/// Hashes and counts what passes.
struct Watched<'a, R> {
    inner: R,
    hasher: Option<Sha256>,
    name: &'a str,
    done: u64,
    told: u64,
    progress: &'a Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        self.done += count as u64;
        if self.done - self.told >= 1 << 20 {
            (self.progress)(self.name, self.done);
            self.told = self.done;
        }
        Ok(count)
    }
}

/// The digest that the name of a blob in an OCI layout promises.
fn promised(path: &[u8]) -> Option<Digest> {
    let hex = std::str::from_utf8(path.strip_prefix(b"blobs/sha256/")?).ok()?;
    format!("sha256:{hex}").parse().ok()
}

impl Spool {
    pub(crate) fn new(layers: Arc<LayerStore>, allowance: Allowance, progress: Progress) -> Self {
        Self {
            layers,
            allowance,
            progress,
            items: HashMap::new(),
            new: HashSet::new(),
            small_total: 0,
        }
    }

    /// The layers that were not there before.
    pub(crate) fn new_layers(&self) -> HashSet<Digest> {
        self.new.clone()
    }

    /// What holds its layers.
    pub(crate) fn into_guards(self) -> Vec<LayerGuard> {
        let guard = |item| match item {
            Item::Layer(layer) => Some(layer.guard),
            _ => None,
        };
        self.items.into_values().filter_map(guard).collect()
    }

    /// Reads the archive to its end.
    pub(crate) fn read(&mut self, archive: &mut (impl Read + Send)) -> Result<()> {
        let failed = |error: io::Error| archive_error("loading images", &error);
        let input = decompress(archive).map_err(failed)?;
        let mut reader = Reader::new(io::BufReader::with_capacity(256 * 1024, input), ());
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            let Some(path) = clean(&entry.path) else {
                return Err(Error::invalid(format!(
                    "invalid archive: {:?} is outside of it",
                    String::from_utf8_lossy(&entry.path)
                )));
            };
            let item = match entry.kind {
                Kind::File if entry.segments.is_some() => Item::Bad(Error::invalid(
                    "sparse files in an image archive are not supported",
                )),
                Kind::File => self.file(&path, &mut reader)?,
                Kind::Symlink => match join_link(&path, &entry.link) {
                    Some(target) => Item::Link(target),
                    None => return Err(Error::invalid("invalid archive: a link leads out of it")),
                },
                Kind::HardLink => Item::Link(clean(&entry.link).unwrap_or_default()),
                _ => continue,
            };
            self.items.insert(path, item);
        }
        // Whoever sends the archive shall be able to send all of it.
        reader.drain().map_err(failed)
    }

    fn file<R: io::BufRead + Send>(
        &mut self,
        path: &[u8],
        reader: &mut Reader<R, ()>,
    ) -> Result<Item> {
        let failed = |error: io::Error| archive_error("loading images", &error);
        let size = reader.content_left();
        let promised = promised(path);
        if let Some(digest) = &promised
            && self.allowance.trusts(digest)
            && let Some(guard) = self.layers.pin(digest)
        {
            return Ok(Item::Layer(SpooledLayer {
                meta: self.layers.meta(digest)?,
                guard,
            }));
        }
        let mut head = Vec::with_capacity(512);
        Content(reader)
            .take(512)
            .read_to_end(&mut head)
            .map_err(failed)?;
        let compressed =
            head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        if compressed || looks_like_tar(&head, size) {
            return self.layer(path, head, promised.as_ref(), compressed, reader);
        }
        if size > MAX_SMALL {
            return Ok(Item::TooLarge);
        }
        self.small_total += size;
        if self.small_total > MAX_SMALL_TOTAL {
            return Err(Error::invalid("invalid archive: too much that is no layer"));
        }
        Content(reader).read_to_end(&mut head).map_err(failed)?;
        if let Some(promised) = promised.filter(|promised| *promised != Digest::of(&head)) {
            return Err(Error::invalid(format!(
                "invalid archive: the content of blob {promised} has another digest"
            )));
        }
        Ok(Item::Small(head.into()))
    }

    fn layer<R: io::BufRead + Send>(
        &mut self,
        path: &[u8],
        head: Vec<u8>,
        promised: Option<&Digest>,
        compressed: bool,
        reader: &mut Reader<R, ()>,
    ) -> Result<Item> {
        let name = String::from_utf8_lossy(path).into_owned();
        let expected = promised.filter(|_| !compressed);
        let mut watched = Watched {
            inner: io::Cursor::new(head).chain(Content(reader)),
            hasher: (compressed && promised.is_some()).then(Sha256::new),
            name: &name,
            done: 0,
            told: 0,
            progress: &self.progress,
        };
        let result = self
            .layers
            .ingest_for(&self.allowance, &mut watched, expected);
        let rest = io::copy(&mut watched, &mut io::sink());
        let digest = watched
            .hasher
            .map(|hasher| Digest::from_sha256(hasher.finalize().into()));
        (self.progress)(&name, watched.done);
        rest.map_err(|error| archive_error("loading images", &error))?;
        if let (Some(promised), Some(digest)) = (promised, digest)
            && *promised != digest
        {
            return Err(Error::invalid(format!(
                "invalid archive: the content of blob {promised} has another digest ({digest})"
            )));
        }
        match result {
            Ok(Ingested {
                meta,
                existed,
                guard,
            }) => {
                if !existed {
                    self.new.insert(meta.diff_id.clone());
                }
                Ok(Item::Layer(SpooledLayer { meta, guard }))
            }
            Err(error) if error.kind == types::Kind::InvalidParameter => Ok(Item::Bad(error)),
            Err(error) => Err(error),
        }
    }

    fn find(&self, path: &str) -> Option<&Item> {
        let mut path = clean(path.as_bytes())?;
        for _ in 0..MAX_LINKS {
            match self.items.get(&path)? {
                Item::Link(target) => path = target.clone(),
                item => return Some(item),
            }
        }
        None
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The content of a small file; `None` when it is not there.
    pub(crate) fn small(&self, path: &str) -> Result<Option<Arc<[u8]>>> {
        match self.find(path) {
            Some(Item::Small(content)) => Ok(Some(content.clone())),
            Some(Item::TooLarge) => Err(Error::invalid(format!(
                "invalid archive: {path} is too large"
            ))),
            Some(Item::Layer(_) | Item::Bad(_)) => Err(Error::invalid(format!(
                "invalid archive: {path} is not what it should be"
            ))),
            Some(Item::Link(_)) | None => Ok(None),
        }
    }

    /// The text of a file that must be there.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        let content = self
            .small(path)?
            .ok_or_else(|| Error::invalid(format!("invalid archive: {path} is missing")))?;
        String::from_utf8(content.to_vec())
            .map_err(|_| Error::invalid(format!("invalid archive: {path} is not text")))
    }

    /// The layer that was in file `path`.
    pub(crate) fn layer_at(&self, path: &str) -> Result<&LayerMeta> {
        match self.find(path) {
            Some(Item::Layer(layer)) => Ok(&layer.meta),
            Some(Item::Bad(error)) => Err(error.clone()),
            Some(_) => Err(Error::invalid(format!(
                "invalid archive: {path} is not a layer"
            ))),
            None => Err(Error::invalid(format!(
                "invalid archive: layer {path} is missing"
            ))),
        }
    }
}
