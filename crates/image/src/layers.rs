//! Layers on disk: unpacked trees by diff id, and their exact tars.
//!
//! `<data>/layers/<hex of diff id>/` holds `tree` (a lower directory for overlayfs),
//! `headers.zst` and `replaced` (what else it takes to give the tar back, see
//! [`crate::headers`]) and `meta.json`. A layer comes into being by a rename, so that it is
//! whole or not there. Names that begin with `tmp-` are half done or half removed.
//!
//! Blocking; call from a thread that may block.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, BufWriter, Read, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{AtFlags, Mode, RenameFlags, fchmod, mkdirat, renameat_with, unlinkat},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use types::{Digest, Error, Kind, Result, error::ResultExt as _, record};

use crate::{
    allowance::Allowance,
    apply::{Applied, Applier},
    durable::{Durability, Standing},
    fsutil::{names, open_child_dir, open_dir, remove_tree},
    headers::{Move, Moves, Rebuilder, Recorder},
    input::pipelined,
    tar::Reader,
};

const TREE: &str = "tree";
const HEADERS: &str = "headers.zst";
const REPLACED: &str = "replaced";
const META: &str = "meta.json";
const TEMPORARY: &str = "tmp-";

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerMeta {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of its files' contents.
    pub size: u64,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// Bytes that it counts for: each file, directory and link in whole blocks of 4096 bytes.
    pub charge: u64,
}

/// The stored form of `meta.json`.
#[derive(Debug, Serialize, Deserialize)]
struct LayerRecord {
    diff_id: Digest,
    size: u64,
    tar_size: u64,
    charge: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    moves: Vec<Move>,
}

impl record::Record for LayerRecord {
    const NOUN: &'static str = "layer";
    const VERSION: u32 = 2;

    /// Version 1 did not count files: its tar is as near as one can come.
    fn upgrade(_: u32, mut value: serde_json::Value) -> Result<serde_json::Value> {
        let charge = value["tar_size"].clone();
        value["charge"] = charge;
        Ok(value)
    }
}

impl LayerRecord {
    fn meta(self) -> LayerMeta {
        LayerMeta {
            diff_id: self.diff_id,
            size: self.size,
            tar_size: self.tar_size,
            charge: self.charge,
        }
    }
}

/// Who holds layers in this process.
#[derive(Debug, Default)]
struct Pins {
    counts: HashMap<Digest, usize>,
    /// Pinned since the sweep began that is under way: its list of records may be too old.
    touched: HashSet<Digest>,
}

/// Keeps a layer from being collected while it lives.
#[derive(Debug)]
pub struct LayerGuard {
    diff_id: Digest,
    store: Arc<LayerStore>,
}

impl Drop for LayerGuard {
    fn drop(&mut self) {
        let mut pins = self.store.pins();
        if let Some(count) = pins.counts.get_mut(&self.diff_id) {
            *count -= 1;
            if *count == 0 {
                pins.counts.remove(&self.diff_id);
            }
        }
    }
}

/// What an ingest made or found.
#[derive(Debug)]
pub struct Ingested {
    pub meta: LayerMeta,
    /// Whether the layer was there already.
    pub existed: bool,
    /// Hold this until a record that refers to the layer is written.
    pub guard: LayerGuard,
}

/// The layer store: `<data>/layers`.
#[derive(Debug)]
pub struct LayerStore {
    path: PathBuf,
    dir: OwnedFd,
    pins: Mutex<Pins>,
    /// One lock per layer that is being brought in.
    busy: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
    /// Layers that may not be on disk yet.
    durability: Durability,
}

/// Turns an I/O error into one for callers: a bad archive is theirs, all else is ours.
pub(crate) fn archive_error(operation: &str, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Kind::InvalidParameter,
        io::ErrorKind::QuotaExceeded => Kind::Forbidden,
        _ => Kind::System,
    };
    Error::new(kind, format!("{operation}: {error}"))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks protect is consistent at every step, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LayerStore {
    /// Opens the store under `data_dir`, removing what a crash left half done.
    pub fn open(data_dir: &Path) -> Result<Arc<Self>> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = data_dir.join("layers");
        let opening = || format!("opening the layer store {}", path.display());
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .during(opening)?;
        let path = path.canonicalize().during(opening)?;
        let dir = open_dir(&path).during(opening)?;
        fchmod(
            open_child_dir(&dir, b".").during(opening)?,
            Mode::from_raw_mode(0o700),
        )
        .during(opening)?;
        let readable = open_child_dir(&dir, b".").during(opening)?;
        spread(&readable);
        let durability = Durability::new(readable);
        let store = Arc::new(Self {
            path: path.clone(),
            dir,
            pins: Mutex::default(),
            busy: Mutex::default(),
            durability,
        });
        for name in store.names()? {
            if name.starts_with(TEMPORARY) {
                store.remove_temporary(&name)?;
            } else if let Ok(diff_id) = format!("sha256:{name}").parse() {
                store.check_standing(&diff_id)?;
            }
        }
        store.make_base()?;
        Ok(store)
    }

    /// After the start: a layer that may have lost data with the power is read, and removed
    /// if it did.
    fn check_standing(self: &Arc<Self>, diff_id: &Digest) -> Result<()> {
        let checking = || format!("checking layer {diff_id}");
        match self.durability.standing(diff_id).during(checking)? {
            Standing::OnDisk => return Ok(()),
            Standing::InMemory => {}
            Standing::Doubtful => {
                let read = self
                    .tar_stream(diff_id)
                    .and_then(|mut tar| io::copy(&mut tar, &mut io::sink()).during(checking));
                if let Err(error) = read {
                    tracing::error!(%error, layer = %diff_id, "the layer was damaged when the machine stopped; load or pull its image again");
                    self.begin_sweep();
                    self.sweep(diff_id)?;
                    return Ok(());
                }
            }
        }
        self.durability.schedule(diff_id.clone());
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        let dir = open_child_dir(&self.dir, b".").during(|| "listing layers")?;
        let names = names(&dir).during(|| "listing layers")?;
        Ok(names
            .into_iter()
            .filter_map(|name| String::from_utf8(name).ok())
            .collect())
    }

    fn remove_temporary(&self, name: &str) -> Result<()> {
        remove_tree(self.dir.as_fd(), name.as_bytes())
            .during(|| format!("removing {}", self.path.join(name).display()))
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        lock(&self.pins)
    }

    /// Whether the layer is there.
    pub fn contains(&self, diff_id: &Digest) -> bool {
        rustix::fs::accessat(
            &self.dir,
            format!("{}/{META}", diff_id.hex()),
            rustix::fs::Access::EXISTS,
            AtFlags::empty(),
        )
        .is_ok()
    }

    /// Holds a layer; `None` when it is not there.
    pub fn pin(self: &Arc<Self>, diff_id: &Digest) -> Option<LayerGuard> {
        let mut pins = self.pins();
        // Under the lock, so that a sweep cannot take it between look and pin.
        if !self.contains(diff_id) {
            return None;
        }
        *pins.counts.entry(diff_id.clone()).or_default() += 1;
        pins.touched.insert(diff_id.clone());
        Some(LayerGuard {
            diff_id: diff_id.clone(),
            store: self.clone(),
        })
    }

    fn record(&self, diff_id: &Digest) -> Result<LayerRecord> {
        let file = self.path.join(diff_id.hex()).join(META);
        let stored = match std::fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!("layer {diff_id} does not exist")));
            }
            other => other.during(|| format!("reading {}", file.display()))?,
        };
        record::decode(&stored)
    }

    /// What is known of a layer.
    pub fn meta(&self, diff_id: &Digest) -> Result<LayerMeta> {
        self.record(diff_id).map(LayerRecord::meta)
    }

    /// All layers.
    pub fn list(&self) -> Result<Vec<LayerMeta>> {
        let ids = self
            .names()?
            .into_iter()
            .filter_map(|name| format!("sha256:{name}").parse::<Digest>().ok());
        ids.map(|id| self.meta(&id))
            .filter(|meta| !matches!(meta, Err(error) if error.kind == Kind::NotFound))
            .collect()
    }

    /// All that is kept of a layer.
    pub(crate) fn directory(&self, diff_id: &Digest) -> PathBuf {
        self.path.join(diff_id.hex())
    }

    /// The directory with a layer's files.
    pub fn tree(&self, diff_id: &Digest) -> PathBuf {
        self.path.join(diff_id.hex()).join(TREE)
    }

    /// Unpacks a tar (plain, gzip or zstd, told apart by content) for whoever may use all that is
    /// there. See [`Self::ingest_for`].
    pub fn ingest(
        self: &Arc<Self>,
        tar: impl Read + Send,
        expected: Option<&Digest>,
    ) -> Result<Ingested> {
        self.ingest_for(&Allowance::all(), tar, expected)
    }

    /// Unpacks a tar (plain, gzip or zstd, told apart by content). Fails, and leaves nothing
    /// behind, when the tar is bad, its digest is not `expected`, or it is more than what is
    /// allowed. When `expected` is trusted and there already (or another thread brings it
    /// meanwhile), `tar` may be left unread; one that is not trusted is read and must have the
    /// digest, also when it is there.
    pub fn ingest_for(
        self: &Arc<Self>,
        allowance: &Allowance,
        tar: impl Read + Send,
        expected: Option<&Digest>,
    ) -> Result<Ingested> {
        let Some(expected) = expected.filter(|digest| allowance.trusts(digest)) else {
            return self.unpack(allowance, tar, expected);
        };
        let mine = lock(&self.busy)
            .entry(expected.clone())
            .or_default()
            .clone();
        let result = {
            let _only_one = lock(&mine);
            match self.pin(expected) {
                Some(guard) => Ok(Ingested {
                    meta: self.meta(expected)?,
                    existed: true,
                    guard,
                }),
                None => self.unpack(allowance, tar, Some(expected)),
            }
        };
        let mut busy = lock(&self.busy);
        // The map's and ours: nobody else waits.
        if Arc::strong_count(&mine) <= 2 {
            busy.remove(expected);
        }
        result
    }

    fn unpack(
        self: &Arc<Self>,
        allowance: &Allowance,
        tar: impl Read + Send,
        expected: Option<&Digest>,
    ) -> Result<Ingested> {
        let temporary = Temporary::new(self)?;
        let record = temporary.fill(allowance, tar, expected)?;
        let (guard, existed) = temporary.keep(&record.diff_id)?;
        Ok(Ingested {
            meta: record.meta(),
            existed,
            guard,
        })
    }

    /// The exact tar of a layer.
    pub fn tar_stream(self: &Arc<Self>, diff_id: &Digest) -> Result<TarStream> {
        let missing = || Error::not_found(format!("layer {diff_id} does not exist"));
        let guard = self.pin(diff_id).ok_or_else(missing)?;
        let record = self.record(diff_id)?;
        let opening = || format!("opening layer {diff_id}");
        let dir = self.path.join(diff_id.hex());
        let headers = File::open(dir.join(HEADERS)).during(opening)?;
        let tree = open_dir(&dir.join(TREE)).during(opening)?;
        let replaced = if record.moves.is_empty() {
            None
        } else {
            Some(open_dir(&dir.join(REPLACED)).during(opening)?)
        };
        let inner =
            Rebuilder::new(headers, tree, replaced, Moves::new(&record.moves)).during(opening)?;
        Ok(TarStream {
            inner,
            hasher: Some(Sha256::new()),
            left: record.tar_size,
            guard,
        })
    }

    /// Begins a sweep: whatever is pinned from now on survives it.
    pub fn begin_sweep(&self) {
        let mut pins = self.pins();
        // Who holds a layer now may write the record that needs it before the sweep looks.
        pins.touched = pins.counts.keys().cloned().collect();
    }

    /// Removes a layer unless somebody holds it; returns the bytes freed.
    pub fn sweep(&self, diff_id: &Digest) -> Result<u64> {
        let size = self.meta(diff_id).map_or(0, |meta| meta.size);
        let temporary = temporary_name();
        {
            let pins = self.pins();
            if pins.counts.contains_key(diff_id) || pins.touched.contains(diff_id) {
                return Ok(0);
            }
            match renameat_with(
                &self.dir,
                diff_id.hex(),
                &self.dir,
                temporary.as_str(),
                RenameFlags::NOREPLACE,
            ) {
                Err(Errno::NOENT) => return Ok(0),
                other => other.during(|| format!("removing layer {diff_id}"))?,
            }
        }
        self.remove_temporary(&temporary)?;
        Ok(size)
    }

    /// The lowest layer of every root file system: the places that the runtime mounts onto
    /// and the marks that docker's containers have. Any image's own files hide it.
    fn make_base(&self) -> Result<()> {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
        let base = self.base();
        let making = || format!("making {}", base.display());
        // Whatever the daemon's umask is.
        let open_to_all = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).during(making)
        };
        for dir in ["", "dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
            std::fs::create_dir_all(base.join(dir)).during(making)?;
            open_to_all(&base.join(dir))?;
        }
        for file in [
            ".dockerenv",
            "dev/console",
            "etc/hostname",
            "etc/hosts",
            "etc/resolv.conf",
        ] {
            let mut options = File::options();
            let path = base.join(file);
            options.create(true).append(true).mode(0o755);
            options.open(&path).during(making)?;
            open_to_all(&path)?;
        }
        match std::os::unix::fs::symlink("/proc/mounts", base.join("etc/mtab")) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).during(making),
            _ => Ok(()),
        }
    }

    /// The directory of the lowest layer.
    pub(crate) fn base(&self) -> PathBuf {
        self.path.join("base")
    }
}

/// Asks ext4 to place each layer in a group of blocks of its own: otherwise all crowd around
/// the store's directory, and finding free inodes there becomes slow.
fn spread(dir: &OwnedFd) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let set = ioctl_getflags(dir).and_then(|flags| ioctl_setflags(dir, flags | IFlags::TOPDIR));
    if let Err(error) = set {
        // Other file systems neither know it nor need it.
        tracing::debug!(%error, "layers are placed as the file system likes");
    }
}

fn temporary_name() -> String {
    format!("{TEMPORARY}{}", &types::id::random_hex()[..16])
}

/// A layer being made; removed unless it is kept.
struct Temporary<'a> {
    store: &'a Arc<LayerStore>,
    name: String,
    dir: OwnedFd,
    kept: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.store.remove_temporary(&self.name)
        {
            tracing::warn!(%error, "what is left of a layer stays until the next start");
        }
    }
}

impl<'a> Temporary<'a> {
    fn new(store: &'a Arc<LayerStore>) -> Result<Self> {
        let name = temporary_name();
        let making = || format!("making {}", store.path.join(&name).display());
        mkdirat(&store.dir, name.as_str(), Mode::from_raw_mode(0o700)).during(making)?;
        let dir = open_child_dir(&store.dir, name.as_bytes()).during(making)?;
        let made = Self {
            store,
            name,
            dir,
            kept: false,
        };
        for (name, mode) in [(TREE, 0o755), (REPLACED, 0o700)] {
            mkdirat(&made.dir, name, Mode::from_raw_mode(mode))
                .during(|| format!("making {name} of a layer"))?;
            let dir = open_child_dir(&made.dir, name.as_bytes()).during(|| "opening a layer")?;
            fchmod(dir, Mode::from_raw_mode(mode)).during(|| "making a layer")?;
        }
        Ok(made)
    }

    fn path(&self) -> PathBuf {
        self.store.path.join(&self.name)
    }

    fn fill(
        &self,
        allowance: &Allowance,
        tar: impl Read + Send,
        expected: Option<&Digest>,
    ) -> Result<LayerRecord> {
        let failed = |error: io::Error| archive_error("unpacking a layer", &error);
        let headers = File::create(self.path().join(HEADERS))
            .during(|| "creating a layer's header stream")?;
        let tree = open_dir(&self.path().join(TREE)).map_err(failed)?;
        let aside = open_dir(&self.path().join(REPLACED)).map_err(failed)?;
        let (applied, summary) = pipelined(tar, |pieces| {
            let mut reader = Reader::new(pieces, Recorder::new(BufWriter::new(headers))?);
            let applied = Applier::layer(tree, aside, allowance.clone())?.run(&mut reader)?;
            reader.drain()?;
            reader.into_tap().finish()?.flush()?;
            Ok(applied)
        })
        .map_err(failed)?;
        if expected.is_some_and(|expected| *expected != summary.digest) {
            let expected = expected.map(Digest::as_str).unwrap_or_default();
            return Err(Error::invalid(format!(
                "layer verification failed: expected diff id {expected}, got {}",
                summary.digest
            )));
        }
        let Applied {
            size,
            charge,
            moves,
        } = applied;
        let record = LayerRecord {
            diff_id: summary.digest,
            size,
            tar_size: summary.size,
            charge,
            moves,
        };
        self.write_meta(&record)?;
        Ok(record)
    }

    fn write_meta(&self, record: &LayerRecord) -> Result<()> {
        if record.moves.is_empty() {
            unlinkat(&self.dir, REPLACED, AtFlags::REMOVEDIR).during(|| "finishing a layer")?;
        }
        self.store
            .durability
            .mark(&self.dir)
            .during(|| "marking a layer")?;
        std::fs::write(self.path().join(META), record::encode(record)?)
            .during(|| "writing a layer's meta data")
    }

    /// Gives it its name. Another thread may have been faster; then that one counts.
    fn keep(mut self, diff_id: &Digest) -> Result<(LayerGuard, bool)> {
        let existed = match renameat_with(
            &self.store.dir,
            self.name.as_str(),
            &self.store.dir,
            diff_id.hex(),
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => {
                self.kept = true;
                self.store.durability.schedule(diff_id.clone());
                false
            }
            Err(Errno::EXIST | Errno::NOTEMPTY) => true,
            Err(error) => return Err(Error::wrap(format_args!("storing layer {diff_id}"), error)),
        };
        match self.store.pin(diff_id) {
            Some(guard) => Ok((guard, existed)),
            // A sweep came between; the next try will do.
            None => Err(Error::unavailable(format!(
                "layer {diff_id} was removed while it was stored"
            ))),
        }
    }
}

/// The exact tar of a layer. Fails at its end when what was read is not the layer.
pub struct TarStream {
    inner: Rebuilder,
    hasher: Option<Sha256>,
    left: u64,
    guard: LayerGuard,
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(count as u64);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        // Checked with the last bytes and not after them: whoever copies a known number of
        // bytes never asks again.
        if (self.left == 0 || count == 0)
            && let Some(hasher) = self.hasher.take()
        {
            let digest = Digest::from_sha256(hasher.finalize().into());
            if digest != self.guard.diff_id {
                return Err(crate::tar::bad(format!(
                    "layer {} is damaged on disk: its content is now {digest}",
                    self.guard.diff_id
                )));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_changes_only_with_its_version() {
        record::check_golden::<LayerRecord>(&[
            include_bytes!("../golden/layer.v1.json"),
            include_bytes!("../golden/layer.v2.json"),
        ])
        .unwrap();
    }
}
