//! A layer's tar put together from a recipe.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    sync::Arc,
    time::Duration,
};

use chunk::{
    Hash, List, Place, Starts,
    recipe::{self, Step},
};
use rustix::fs::OFlags;
use types::{Digest, Error, Result, error::ResultExt as _};

use super::{lists::Lists, space::Space};
use crate::{
    allowance::Allowance,
    fsutil::{open_beneath, open_dir},
    layers::{Ingested, LayerGuard},
};

/// How long a chunk may be on its way.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a layer may be made of.
#[derive(Debug)]
pub struct Assembly<'a> {
    pub lists: &'a Lists,
    /// What the sender has sent.
    pub space: Arc<Space>,
    /// Layers of the sender's own whose lists the recipe numbers, in this order.
    pub bases: &'a [Digest],
    /// All other layers of its own.
    pub own: &'a [Digest],
}

/// Makes the layer `diff_id` while its recipe and its chunks come. Fails, and leaves nothing
/// behind, when it has another digest, when a chunk does not come, or when it is more than what is
/// allowed.
pub fn assemble(
    assembly: &Assembly<'_>,
    recipe: impl Read + Send,
    diff_id: &Digest,
    allowance: &Allowance,
) -> Result<Ingested> {
    let _kept = assembly.space.assembling();
    let opening = |error: io::Error| Error::wrap("reading a recipe", error);
    let recipe = super::decompress(recipe).map_err(opening)?;
    let sources = assembly
        .bases
        .iter()
        .map(|layer| Source::open(assembly.lists, layer))
        .collect::<Result<Vec<_>>>()?;
    let tar = Tar {
        recipe: recipe::Reader::new(BufReader::with_capacity(256 << 10, recipe)),
        space: assembly.space.clone(),
        bases: sources.len(),
        sources,
        lists: assembly.lists.clone(),
        own: assembly
            .own
            .iter()
            .map(|layer| (layer.clone(), None))
            .collect(),
        row: (0, 0),
        ready: Vec::new(),
        at: 0,
        length: 0,
        open: None,
    };
    assembly
        .lists
        .layers()
        .ingest_for(allowance, tar, Some(diff_id))
}

/// A layer that chunks are taken from.
struct Source {
    list: Arc<List>,
    tree: OwnedFd,
    _guard: LayerGuard,
}

impl Source {
    fn open(lists: &Lists, layer: &Digest) -> Result<Self> {
        let missing = || Error::not_found(format!("layer {layer} does not exist"));
        let guard = lists.layers().pin(layer).ok_or_else(missing)?;
        let tree =
            open_dir(&lists.layers().tree(layer)).during(|| format!("opening layer {layer}"))?;
        Ok(Self {
            list: lists.of(layer)?,
            tree,
            _guard: guard,
        })
    }
}

/// The tar as it comes into being.
struct Tar<R> {
    recipe: recipe::Reader<R>,
    space: Arc<Space>,
    /// The bases, then other layers of the sender's that have been opened.
    sources: Vec<Source>,
    bases: usize,
    lists: Lists,
    /// Layers of the sender's that have not, with what they may have as far as it is known.
    own: Vec<(Digest, Option<Arc<Starts>>)>,
    /// Number and count of what is left of a row of known chunks.
    row: (u64, u64),
    ready: Vec<u8>,
    at: usize,
    /// Bytes of the tar before those that are ready.
    length: u64,
    /// The file that was read last.
    open: Option<(Vec<u8>, usize, File)>,
}

impl<R: io::BufRead> Read for Tar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() && !self.more()? {
            return Ok(0);
        }
        let count = buffer.len().min(self.ready.len() - self.at);
        buffer[..count].copy_from_slice(&self.ready[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl<R: io::BufRead> Tar<R> {
    /// Makes the next bytes ready; false at the end.
    fn more(&mut self) -> io::Result<bool> {
        self.length += self.ready.len() as u64;
        self.ready.clear();
        self.at = 0;
        if self.row.1 > 0 {
            let number = self.row.0;
            self.row = (number + 1, self.row.1 - 1);
            self.known(number)?;
            return Ok(true);
        }
        match self.recipe.step()? {
            None => return Ok(false),
            Some(Step::Bytes(bytes)) => self.ready = bytes,
            Some(Step::Header(header)) => self.ready.extend_from_slice(&header[..]),
            Some(Step::Padding) => {
                let block = recipe::BLOCK as u64;
                let count = self.length.next_multiple_of(block) - self.length;
                if count == 0 {
                    // Else a small recipe could be without an end.
                    return Err(crate::tar::bad("bad recipe: padding of nothing"));
                }
                self.ready.resize(count as usize, 0);
            }
            Some(Step::Known { first, count }) => {
                self.row = (first, count);
                // No row is empty: this ends with its first chunk.
                return self.more();
            }
            Some(Step::Chunk { hash, length }) => {
                self.chunk(&hash)?;
                if self.ready.len() != length as usize {
                    return Err(crate::tar::bad("bad recipe: a chunk has another length"));
                }
            }
        }
        Ok(true)
    }

    /// A chunk by its number in the lists of all bases, one after the other.
    fn known(&mut self, number: u64) -> io::Result<()> {
        let mut rest = usize::try_from(number).unwrap_or(usize::MAX);
        for at in 0..self.bases {
            let list = self.sources[at].list.clone();
            match rest.checked_sub(list.len()) {
                Some(less) => rest = less,
                None => {
                    let place = list.place(rest).ok_or(io::ErrorKind::InvalidData)?;
                    return self.take(at, place);
                }
            }
        }
        Err(crate::tar::bad(
            "bad recipe: there is no chunk of this number",
        ))
    }

    fn chunk(&mut self, hash: &Hash) -> io::Result<()> {
        if self.space.read(hash, &mut self.ready)? {
            return Ok(());
        }
        self.open_own(hash)?;
        for at in 0..self.sources.len() {
            let list = self.sources[at].list.clone();
            if let Some(place) = list.find(hash).and_then(|number| list.place(number)) {
                return self.take(at, place);
            }
        }
        if self.space.wait_for(hash, PATIENCE) && self.space.read(hash, &mut self.ready)? {
            return Ok(());
        }
        Err(crate::tar::bad(format!(
            "chunk {hash:?} is missing, and did not come within {} s",
            PATIENCE.as_secs()
        )))
    }

    /// Opens another layer of the sender's if a chunk lies in one, and in none that is open.
    fn open_own(&mut self, hash: &Hash) -> io::Result<()> {
        let mut open = self.sources.iter();
        if open.any(|source| source.list.find(hash).is_some()) {
            return Ok(());
        }
        let lists = &self.lists;
        let has = |(layer, starts): &mut (Digest, Option<Arc<Starts>>)| {
            // Where nobody has listed the chunks yet the sender was told that they are missing.
            *starts = starts.take().or_else(|| lists.starts(layer));
            let starts = starts.as_ref();
            starts.is_some_and(|starts| lists.has(layer, starts, hash))
        };
        if let Some(at) = self.own.iter_mut().position(has) {
            let (layer, _) = self.own.swap_remove(at);
            let source = Source::open(&self.lists, &layer).map_err(io::Error::other)?;
            self.sources.push(source);
        }
        Ok(())
    }

    /// Reads a chunk of a layer.
    fn take(&mut self, at: usize, place: Place<'_>) -> io::Result<()> {
        let same = self
            .open
            .as_ref()
            .is_some_and(|(path, of, _)| *of == at && path == place.path);
        if !same {
            let tree = self.sources[at].tree.as_fd();
            let file = open_beneath(tree, place.path, OFlags::RDONLY)?;
            self.open = Some((place.path.to_vec(), at, File::from(file)));
        }
        if let Some((_, _, file)) = &self.open {
            self.ready.resize(place.length as usize, 0);
            file.read_exact_at(&mut self.ready, place.offset)?;
        }
        Ok(())
    }
}
