//! Chunks that somebody has sent and no layer of theirs has yet.
//!
//! Each request's chunks lie in a file of their own, a pack: for each chunk its length (four
//! bytes, little-endian), its hash and its bytes. Packs are read again after a restart, so an
//! interrupted push goes on where it stopped; they go when the push is done, or a day later.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use chunk::{Hash, List, MAX};
use types::{Error, Result, error::ResultExt as _};

use crate::layers::{archive_error, lock};

/// How long a push that was interrupted may be taken up again.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What a request brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    pub chunks: u64,
    /// Bytes of them.
    pub bytes: u64,
}

#[derive(Debug)]
struct Pack {
    path: PathBuf,
    /// Of which push.
    session: String,
    file: Arc<File>,
    bytes: u64,
    /// More of it may come.
    open: bool,
    /// Its push is done: it counts no more, and goes when nobody may need it.
    done: bool,
}

#[derive(Debug, Default)]
struct State {
    packs: HashMap<u64, Pack>,
    /// Where chunks are: pack, offset, length.
    chunks: HashMap<Hash, (u64, u64, u32)>,
    next: u64,
    bytes: u64,
    /// Layers that are put together just now, by a number that grows.
    assembling: BTreeSet<u64>,
    next_assembling: u64,
    done: VecDeque<Done>,
}

/// A push that is done, and waits for the layers that were put together when it ended.
#[derive(Debug)]
struct Done {
    session: String,
    /// Of what it made.
    lists: Vec<Arc<List>>,
    /// The number of the first assembly that began later.
    later: u64,
    at: Instant,
}

impl Done {
    /// Whether nobody counts on what it brought any more. Who does not end counts no longer.
    fn is_due(&self, assembling: &BTreeSet<u64>) -> bool {
        let first = assembling.first();
        first.is_none_or(|first| *first >= self.later) || self.at.elapsed() > LONGEST
    }
}

/// How long an assembly is waited for, and how many pushes wait.
const LONGEST: Duration = Duration::from_secs(3600);
const WAITING: usize = 64;

/// The chunks of one sender.
#[derive(Debug)]
pub struct Space {
    directory: PathBuf,
    state: Mutex<State>,
    arrived: Condvar,
}

impl Space {
    fn open(directory: PathBuf) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let opening = || format!("opening {}", directory.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .during(opening)?;
        let mut state = State::default();
        for entry in fs::read_dir(&directory).during(opening)? {
            let path = entry.during(opening)?.path();
            if is_old(&path) {
                fs::remove_file(&path).during(opening)?;
                continue;
            }
            // What a crash cut off is known up to there.
            if let Err(error) = state.take_up(&path) {
                tracing::debug!(path = %path.display(), %error, "a pack of chunks ends early");
            }
        }
        Ok(Self {
            directory,
            state: Mutex::new(state),
            arrived: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes chunks in: of each its length (four bytes, little-endian) and its bytes, to the end
    /// of `body`. They are there for others as soon as each has come; those that came before an
    /// error stay. No more than `limit` bytes lie here.
    pub fn receive(&self, session: &str, body: impl Read, limit: u64) -> Result<Received> {
        let mut pack = None;
        let received = self.take_in(&mut pack, session, body, limit);
        if let Some((number, ..)) = pack
            && let Some(pack) = self.state().packs.get_mut(&number)
        {
            pack.open = false;
        }
        received
    }

    fn take_in(
        &self,
        pack: &mut Option<(u64, BufWriter<File>, u64)>,
        session: &str,
        body: impl Read,
        limit: u64,
    ) -> Result<Received> {
        let mut body = BufReader::with_capacity(256 << 10, body);
        let failed = |error: io::Error| archive_error("receiving chunks", &error);
        let mut received = Received::default();
        let mut buffer = vec![0; MAX];
        loop {
            let mut length = [0; 4];
            match body.read_exact(&mut length) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(failed(error)),
            }
            let length = u32::from_le_bytes(length) as usize;
            let Some(bytes) = buffer.get_mut(..length).filter(|bytes| !bytes.is_empty()) else {
                return Err(Error::invalid(format!(
                    "invalid chunk: it has {length} bytes, and must have 1 to {MAX}"
                )));
            };
            body.read_exact(bytes).map_err(failed)?;
            received.chunks += 1;
            received.bytes += length as u64;
            let hash = Hash::of(bytes);
            let state = self.state();
            if state.chunks.contains_key(&hash) {
                continue;
            }
            if state.bytes + length as u64 > limit {
                return Err(Error::forbidden(format!(
                    "what has been pushed and is in no image yet would be more than the {limit} bytes that there is room for"
                )));
            }
            drop(state);
            if pack.is_none() {
                *pack = Some(self.begin(session)?);
            }
            let Some((number, file, at)) = pack.as_mut() else {
                continue;
            };
            let writing = |error: io::Error| Error::wrap("keeping chunks", error);
            file.write_all(&(length as u32).to_le_bytes())
                .and_then(|()| file.write_all(&hash.0))
                .and_then(|()| file.write_all(bytes))
                .and_then(|()| file.flush())
                .map_err(writing)?;
            let offset = *at + 4 + Hash::LENGTH as u64;
            *at = offset + length as u64;
            self.state().add(*number, hash, offset, length as u32);
            self.arrived.notify_all();
        }
        Ok(received)
    }

    fn begin(&self, session: &str) -> Result<(u64, BufWriter<File>, u64)> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let path = self.directory.join(format!(
            "{session}-{number}-{}",
            &types::id::random_hex()[..8]
        ));
        let making = || format!("creating {}", path.display());
        let file = File::options()
            .read(true)
            .append(true)
            .create_new(true)
            .open(&path)
            .during(making)?;
        let pack = Pack {
            path: path.clone(),
            session: session.to_owned(),
            file: Arc::new(file.try_clone().during(making)?),
            bytes: 0,
            open: true,
            done: false,
        };
        state.packs.insert(number, pack);
        Ok((number, BufWriter::with_capacity(MAX + 64, file), 0))
    }

    /// Whether a chunk is here.
    pub fn has(&self, hash: &Hash) -> bool {
        self.state().chunks.contains_key(hash)
    }

    /// Appends a chunk's bytes to `to`; false when it is not here.
    pub(crate) fn read(&self, hash: &Hash, to: &mut Vec<u8>) -> io::Result<bool> {
        let (file, offset, length) = {
            let state = self.state();
            let Some((pack, offset, length)) = state.chunks.get(hash).copied() else {
                return Ok(false);
            };
            let Some(pack) = state.packs.get(&pack) else {
                return Ok(false);
            };
            (pack.file.clone(), offset, length)
        };
        let start = to.len();
        to.resize(start + length as usize, 0);
        file.read_exact_at(&mut to[start..], offset)?;
        Ok(true)
    }

    /// Waits until a chunk is here; false when it does not come.
    pub(crate) fn wait_for(&self, hash: &Hash, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.state();
        while !state.chunks.contains_key(hash) {
            let Some(left) = end
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            else {
                return false;
            };
            state = self
                .arrived
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Keeps what pushes bring that end meanwhile, until the guard goes: who has been told that a
    /// chunk is here counts on it, and does not know of layers that came later.
    pub(crate) fn assembling(self: &Arc<Self>) -> Assembling {
        let mut state = self.state();
        let number = state.next_assembling;
        state.next_assembling += 1;
        state.assembling.insert(number);
        Assembling(self.clone(), number)
    }

    /// A push is done, or has been refused: what it brought counts no more against what may lie
    /// here.
    pub fn count_no_more(&self, session: &str) {
        let mut state = self.state();
        let mut bytes = 0;
        for pack in state.packs.values_mut() {
            if pack.session == session && !pack.done {
                pack.done = true;
                bytes += pack.bytes;
            }
        }
        state.bytes -= bytes;
    }

    /// Removes what a push brought, which is done, and what other pushes brought of nothing else
    /// than `lists` have now: an interrupted one has been taken up by that one. Layers that are put
    /// together just now are waited for.
    pub fn drop_done(&self, session: &str, lists: &[Arc<List>]) {
        self.count_no_more(session);
        let mut state = self.state();
        let later = state.next_assembling;
        state.done.push_back(Done {
            session: session.to_owned(),
            lists: lists.to_vec(),
            later,
            at: Instant::now(),
        });
        state.drop_due();
    }

    /// Removes what is older than a day.
    pub fn drop_old(&self) {
        let mut state = self.state();
        state.drop_due();
        state.drop_packs(|_, pack| is_old(&pack.path));
    }
}

/// A layer is being put together.
#[derive(Debug)]
pub(crate) struct Assembling(Arc<Space>, u64);

impl Drop for Assembling {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.assembling.remove(&self.1);
        state.drop_due();
    }
}

fn is_old(path: &Path) -> bool {
    let modified = path.metadata().and_then(|facts| facts.modified());
    modified.is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|age| age > KEPT)
    })
}

impl State {
    /// Removes what nobody waits for any more.
    fn drop_due(&mut self) {
        while let Some(first) = self.done.front()
            && (first.is_due(&self.assembling) || self.done.len() > WAITING)
        {
            let Some(Done { session, lists, .. }) = self.done.pop_front() else {
                return;
            };
            let mut needed = HashSet::new();
            for (hash, (pack, ..)) in &self.chunks {
                if lists.iter().all(|list| list.find(hash).is_none()) {
                    needed.insert(*pack);
                }
            }
            self.drop_packs(|number, pack| {
                pack.session == session || !(pack.open || needed.contains(&number))
            });
        }
    }

    fn drop_packs(&mut self, goes: impl Fn(u64, &Pack) -> bool) {
        let gone: Vec<u64> = self
            .packs
            .iter()
            .filter(|(number, pack)| goes(**number, pack))
            .map(|(number, _)| *number)
            .collect();
        for number in &gone {
            if let Some(pack) = self.packs.remove(number) {
                if !pack.done {
                    self.bytes -= pack.bytes;
                }
                if let Err(error) = fs::remove_file(&pack.path)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %pack.path.display(), %error, "chunks that nobody needs stay; the next start of kraud tries again");
                }
            }
        }
        if !gone.is_empty() {
            self.chunks.retain(|_, (pack, ..)| !gone.contains(pack));
        }
    }

    fn add(&mut self, number: u64, hash: Hash, offset: u64, length: u32) {
        if let Some(pack) = self.packs.get_mut(&number) {
            pack.bytes += u64::from(length);
            if !pack.done {
                self.bytes += u64::from(length);
            }
            self.chunks.entry(hash).or_insert((number, offset, length));
        }
    }

    /// Reads what an earlier process kept. Hashes are believed: a layer that is made of wrong
    /// chunks has another digest.
    fn take_up(&mut self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let session = name.split('-').next().unwrap_or_default().to_owned();
        let file = File::open(path)?;
        let number = self.next;
        self.next += 1;
        let mut reader = BufReader::with_capacity(64 << 10, file.try_clone()?);
        let end = file.metadata()?.len();
        self.packs.insert(
            number,
            Pack {
                path: path.to_owned(),
                session,
                file: Arc::new(file),
                bytes: 0,
                open: false,
                done: false,
            },
        );
        let mut at = 0;
        loop {
            let mut head = [0; 4 + Hash::LENGTH];
            reader.read_exact(&mut head)?;
            let (length, hash) = head.split_at(4);
            let length = u32::from_le_bytes(length.try_into().map_err(io::Error::other)?);
            let hash = Hash(hash.try_into().map_err(io::Error::other)?);
            let offset = at + head.len() as u64;
            at = offset + u64::from(length);
            if length == 0 || length as usize > MAX || at > end {
                return Err(io::ErrorKind::InvalidData.into());
            }
            reader.seek_relative(length.into())?;
            self.add(number, hash, offset, length);
        }
    }
}

/// The spaces of all senders.
#[derive(Debug)]
pub struct Spaces {
    root: PathBuf,
    open: Mutex<HashMap<String, Arc<Space>>>,
}

impl Spaces {
    /// Uses folder `push` of `data_dir`, made when first needed.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            root: data_dir.join("push"),
            open: Mutex::default(),
        }
    }

    /// The space of a sender, whose name is a namespace's.
    pub fn of(&self, name: &str) -> Result<Arc<Space>> {
        if let Some(space) = lock(&self.open).get(name) {
            return Ok(space.clone());
        }
        let mut open = lock(&self.open);
        if let Some(space) = open.get(name) {
            return Ok(space.clone());
        }
        let space = Arc::new(Space::open(self.root.join(name))?);
        open.insert(name.to_owned(), space.clone());
        Ok(space)
    }

    /// Removes a sender's space with all that is in it.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut open = lock(&self.open);
        open.remove(name);
        let directory = self.root.join(name);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::wrap(
                format_args!("removing {}", directory.display()),
                error,
            )),
            _ => Ok(()),
        }
    }

    /// Removes what is older than a day, of all senders, open or not.
    pub fn drop_old(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match self.of(&name) {
                Ok(space) => space.drop_old(),
                Err(error) => {
                    tracing::warn!(%error, "chunks of interrupted pushes could not be looked through");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(chunks: &[&[u8]]) -> Vec<u8> {
        let framed = |chunk: &&[u8]| [&(chunk.len() as u32).to_le_bytes()[..], *chunk].concat();
        chunks.iter().flat_map(framed).collect()
    }

    fn text(space: &Space, hash: &Hash) -> Option<String> {
        let mut bytes = Vec::new();
        space
            .read(hash, &mut bytes)
            .unwrap()
            .then(|| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn chunks_come_stay_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let spaces = Spaces::new(dir.path());
        let space = spaces.of("shop").unwrap();
        let received = space
            .receive("s1", body(&[b"one", b"two", b"one"]).as_slice(), 100)
            .unwrap();
        assert_eq!(
            received,
            Received {
                chunks: 3,
                bytes: 9
            }
        );
        space
            .receive("s2", body(&[b"three"]).as_slice(), 100)
            .unwrap();
        let [one, two, three] = [&b"one"[..], b"two", b"three"].map(Hash::of);
        assert_eq!(text(&space, &two).as_deref(), Some("two"));
        assert!(!spaces.of("other").unwrap().has(&two));

        // A restart, with the last chunk cut off by a crash.
        let packs: Vec<_> = fs::read_dir(dir.path().join("push/shop"))
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(packs.len(), 2);
        let first = packs
            .iter()
            .find(|pack| pack.file_name().to_string_lossy().starts_with("s1-"))
            .unwrap();
        let file = File::options().append(true).open(first.path()).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        let spaces = Spaces::new(dir.path());
        let space = spaces.of("shop").unwrap();
        assert_eq!(text(&space, &one).as_deref(), Some("one"));
        assert_eq!(text(&space, &two), None);
        assert!(space.has(&three));
        space
            .receive("s3", body(&[b"two"]).as_slice(), 100)
            .unwrap();
        assert_eq!(text(&space, &two).as_deref(), Some("two"));

        space.drop_done("s1", &[]);
        assert!(!space.has(&one) && space.has(&three));
        // What another push had brought of what is in a layer now.
        space
            .receive("s4", body(&[b"four"]).as_slice(), 100)
            .unwrap();
        let list = List::build(|builder| {
            builder.file(b"x");
            builder.chunk(Hash::of(b"four"), 0, 4);
            Ok(())
        });
        let lists = [Arc::new(list.unwrap())];
        // Not while somebody may count on it.
        let (first, second) = (space.assembling(), space.assembling());
        space.drop_done("s5", &lists);
        let third = space.assembling();
        drop(first);
        assert!(space.has(&Hash::of(b"four")));
        // The third began later: it knows of the layer.
        drop(second);
        assert!(!space.has(&Hash::of(b"four")) && space.has(&three));
        drop(third);
        // What is done counts no more, also while it is still there.
        space
            .receive("s6", body(&[b"five"]).as_slice(), 100)
            .unwrap();
        let guard = space.assembling();
        space.drop_done("s6", &[]);
        assert!(space.has(&Hash::of(b"five")));
        let left = space.state().bytes;
        space
            .receive("s7", body(&[b"eleven byte"]).as_slice(), left + 11)
            .unwrap();
        drop(guard);
        assert!(!space.has(&Hash::of(b"five")));
        space.drop_done("s7", &[]);
        space.drop_old();
        assert!(space.has(&three));
        for pack in fs::read_dir(dir.path().join("push/shop"))
            .unwrap()
            .flatten()
        {
            let file = File::open(pack.path()).unwrap();
            file.set_modified(SystemTime::now() - KEPT - Duration::from_secs(60))
                .unwrap();
        }
        spaces.drop_old();
        assert!(space.state().packs.is_empty() && !space.has(&three));
        spaces.remove("shop").unwrap();
        assert!(!dir.path().join("push/shop").exists());
    }

    #[test]
    fn what_is_too_much_or_no_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let space = Spaces::new(dir.path()).of("shop").unwrap();
        let error = space
            .receive("s", body(&[b"one", b"fourteen bytes"]).as_slice(), 10)
            .unwrap_err();
        assert_eq!(error.kind, types::Kind::Forbidden);
        assert!(space.has(&Hash::of(b"one")));
        for bad in [
            &0u32.to_le_bytes()[..],
            &((MAX as u32) + 1).to_le_bytes(),
            b"\x05\0\0\0ab",
        ] {
            let error = space.receive("s", bad, 1 << 30).unwrap_err();
            assert_eq!(error.kind, types::Kind::InvalidParameter, "{bad:?}");
        }
        assert!(!space.wait_for(&Hash::of(b"never"), Duration::from_millis(20)));
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| space.wait_for(&Hash::of(b"later"), Duration::from_secs(20)));
            space
                .receive("s", body(&[b"later"]).as_slice(), 1 << 30)
                .unwrap();
            assert!(waiting.join().unwrap());
        });
    }
}
