//! Lists of the chunks of layers: made when first asked for, and kept beside the layer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    fs::File,
    io::{self, BufReader, BufWriter, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use chunk::{Cutter, Hash, List, Starts};
use rustix::fs::{FileType, Mode, OFlags, openat};
use types::{Digest, Error, Result, error::ResultExt as _};

use crate::{
    fsutil::{deeper, join, kind, lstat, names, open_child_dir, open_dir, path},
    layers::{LayerStore, lock},
};

/// The file of a layer's directory.
const FILE: &str = "chunks";
/// Lists in memory, and starts of hashes, bytes together.
const WEIGHT: usize = 64 << 20;

/// The lists of a layer store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lists(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layers: Arc<LayerStore>,
    kept: Mutex<Kept<List>>,
    /// Whoever has pushed for a year has hundreds of layers: their lists are not all in memory, and
    /// most chunks that are asked about are in none.
    starts: Mutex<Kept<Starts>>,
    /// Those that are made just now: a second one who wants it waits for it.
    making: Mutex<Making>,
    later: Mutex<Later>,
}

type GoOn = Box<dyn FnOnce(&[Arc<List>]) + Send>;
type Making = HashMap<Digest, Arc<Mutex<()>>>;

/// What a thread of its own does, one after the other.
#[derive(Default)]
struct Later {
    /// Layers to list, and what goes on with their lists. It comes first.
    then: VecDeque<(Vec<Digest>, GoOn)>,
    work: VecDeque<Digest>,
    /// Layers that are in `work`.
    queued: HashSet<Digest>,
    /// Until there is no work.
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later")
            .field("work", &self.work.len())
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// What was used lately, up to a weight; the rest is read again when it is asked for.
#[derive(Debug)]
struct Kept<T> {
    of: HashMap<Digest, (u64, Arc<T>)>,
    weigh: fn(&T) -> usize,
    weight: usize,
    most: usize,
    clock: u64,
}

impl<T> Kept<T> {
    fn new(weigh: fn(&T) -> usize, most: usize) -> Self {
        Self {
            of: HashMap::new(),
            weigh,
            weight: 0,
            most,
            clock: 0,
        }
    }

    fn get(&mut self, layer: &Digest) -> Option<Arc<T>> {
        self.clock += 1;
        let (used, kept) = self.of.get_mut(layer)?;
        *used = self.clock;
        Some(kept.clone())
    }

    fn put(&mut self, layer: &Digest, new: &Arc<T>) {
        self.clock += 1;
        self.weight += (self.weigh)(new);
        if let Some((_, old)) = self.of.insert(layer.clone(), (self.clock, new.clone())) {
            self.weight -= (self.weigh)(&old);
        }
        while self.weight > self.most && self.of.len() > 1 {
            let oldest = self.of.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(layer, _)| layer.clone()) else {
                return;
            };
            if let Some((_, gone)) = self.of.remove(&oldest) {
                self.weight -= (self.weigh)(&gone);
            }
        }
    }
}

impl Lists {
    /// The lists of `layers`.
    pub fn new(layers: Arc<LayerStore>) -> Self {
        Self(Arc::new(Inner {
            layers,
            kept: Mutex::new(Kept::new(List::weight, WEIGHT)),
            starts: Mutex::new(Kept::new(Starts::weight, WEIGHT)),
            making: Mutex::default(),
            later: Mutex::default(),
        }))
    }

    /// The store that they are of.
    pub fn layers(&self) -> &Arc<LayerStore> {
        &self.0.layers
    }

    /// The list of a layer, made if there is none yet: that reads all of the layer.
    pub fn of(&self, layer: &Digest) -> Result<Arc<List>> {
        if let Some(list) = self.known(layer) {
            return Ok(list);
        }
        let making = lock(&self.0.making)
            .entry(layer.clone())
            .or_default()
            .clone();
        let list = {
            let _one = lock(&making);
            match self.known(layer) {
                Some(list) => Ok(list),
                None => self.make(layer).map(Arc::new),
            }
        };
        let mut all = lock(&self.0.making);
        // The map's and ours: nobody else waits.
        if Arc::strong_count(&making) <= 2 {
            all.remove(layer);
        }
        drop(all);
        let list = list?;
        lock(&self.0.kept).put(layer, &list);
        Ok(list)
    }

    /// The list of a layer if it has been made.
    pub fn known(&self, layer: &Digest) -> Option<Arc<List>> {
        if let Some(list) = lock(&self.0.kept).get(layer) {
            return Some(list);
        }
        let file = File::open(self.0.layers.directory(layer).join(FILE)).ok()?;
        // One that cannot be read (of an older kraud, or cut off by a crash) is made anew.
        let list = Arc::new(List::read(&mut BufReader::with_capacity(256 << 10, file)).ok()?);
        lock(&self.0.kept).put(layer, &list);
        Some(list)
    }

    /// What a layer may have, if it has been listed.
    pub fn starts(&self, layer: &Digest) -> Option<Arc<Starts>> {
        if let Some(starts) = lock(&self.0.starts).get(layer) {
            return Some(starts);
        }
        let starts = Arc::new(self.known(layer)?.starts());
        lock(&self.0.starts).put(layer, &starts);
        Some(starts)
    }

    /// Whether a layer, which may have what `starts` says, has a chunk.
    pub fn has(&self, layer: &Digest, starts: &Starts, hash: &Hash) -> bool {
        let list = || self.known(layer);
        starts.may_have(hash) && list().is_some_and(|list| list.find(hash).is_some())
    }

    /// Has layers listed that are not, when nothing else is to be done.
    pub fn soon(&self, layers: impl IntoIterator<Item = Digest>) {
        let mut later = lock(&self.0.later);
        for layer in layers {
            if later.queued.insert(layer.clone()) {
                later.work.push_back(layer);
            }
        }
        self.start(&mut later);
    }

    /// Has layers listed, and goes on with their lists; of those that are gone there is none.
    pub fn then(&self, layers: Vec<Digest>, go_on: impl FnOnce(&[Arc<List>]) + Send + 'static) {
        let mut later = lock(&self.0.later);
        later.then.push_back((layers, Box::new(go_on)));
        self.start(&mut later);
    }

    fn start(&self, later: &mut Later) {
        // One that has panicked is replaced.
        let works = |thread: &JoinHandle<()>| !thread.is_finished();
        let idle = later.then.is_empty() && later.work.is_empty();
        if idle || later.thread.as_ref().is_some_and(works) {
            return;
        }
        let lists = self.clone();
        let spawned = std::thread::Builder::new()
            .name("layer-lists".into())
            .spawn(move || lists.work());
        match spawned {
            Ok(thread) => later.thread = Some(thread),
            Err(error) => tracing::warn!(%error, "chunks of layers are listed later"),
        }
    }

    fn work(&self) {
        // Pushes that wait for a processor come first.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10)
        {
            tracing::debug!(%error, "chunks are listed at the usual priority");
        }
        let list = |layer: &Digest| {
            self.of(layer)
                .inspect_err(
                    |error| tracing::debug!(%error, "the chunks of a layer are not listed"),
                )
                .ok()
        };
        loop {
            let (then, layer) = {
                let mut later = lock(&self.0.later);
                let then = later.then.pop_front();
                let layer = match then {
                    Some(_) => None,
                    None => later.work.pop_front(),
                };
                if then.is_none() && layer.is_none() {
                    // Under the same lock: what comes now begins a thread of its own.
                    later.thread = None;
                    return;
                }
                (then, layer)
            };
            if let Some((layers, go_on)) = then {
                let lists: Vec<_> = layers.iter().filter_map(list).collect();
                go_on(&lists);
            }
            if let Some(layer) = layer {
                drop(list(&layer));
                lock(&self.0.later).queued.remove(&layer);
            }
        }
    }

    fn make(&self, layer: &Digest) -> Result<List> {
        let making = || format!("listing the chunks of layer {layer}");
        let Some(_pinned) = self.0.layers.pin(layer) else {
            return Err(Error::not_found(format!("layer {layer} does not exist")));
        };
        let tree = open_dir(&self.0.layers.tree(layer)).during(making)?;
        let list = List::build(|builder| {
            let mut walk = Walk {
                builder,
                cutter: Cutter::default(),
                seen: HashSet::new(),
                depth: 0,
            };
            walk.directory(&open_child_dir(&tree, b".")?, b"")
        })
        .during(making)?;
        let directory = self.0.layers.directory(layer);
        let temporary = directory.join(format!("{FILE}.new"));
        let write = || -> io::Result<()> {
            let mut file = BufWriter::with_capacity(256 << 10, File::create(&temporary)?);
            list.write(&mut file)?;
            file.flush()?;
            std::fs::rename(&temporary, directory.join(FILE))
        };
        write().during(making)?;
        Ok(list)
    }
}

/// A walk through a tree, in the order of names.
struct Walk<'a> {
    builder: &'a mut chunk::ListBuilder,
    cutter: Cutter,
    /// Files with several names.
    seen: HashSet<u64>,
    depth: usize,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &OwnedFd, at: &[u8]) -> io::Result<()> {
        self.depth = deeper(self.depth)?;
        for name in names(dir)? {
            let Some(stat) = lstat(dir, &name)? else {
                continue;
            };
            let full = join(at, &name);
            match kind(&stat) {
                FileType::Directory => self.directory(&open_child_dir(dir, &name)?, &full)?,
                FileType::RegularFile if stat.st_size > 0 => {
                    if stat.st_nlink > 1 && !self.seen.insert(stat.st_ino) {
                        continue;
                    }
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = openat(dir.as_fd(), path(&name), flags, Mode::empty())?;
                    self.file(File::from(file), &full)?;
                }
                _ => {}
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn file(&mut self, file: File, full: &[u8]) -> io::Result<()> {
        self.builder.file(full);
        let (builder, mut offset) = (&mut *self.builder, 0);
        self.cutter.cut(file, |bytes| {
            builder.chunk(Hash::of(bytes), offset, bytes.len() as u32);
            offset += bytes.len() as u64;
            Ok(())
        })?;
        Ok(())
    }
}
