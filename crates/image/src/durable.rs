//! Which layers are on disk for good.
//!
//! A layer's files reach the disk some time after the layer is there; nobody waits for it.
//! Until then it carries a mark with the id of this boot of the machine. A mark from
//! another boot means that power was lost in between: such a layer is read and compared with
//! its digest before it is trusted again.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, openat, unlinkat},
    io::Errno,
};
use types::Digest;

const MARK: &str = "unsynced";
/// Layers that come together are written out together, and not while more of them come.
const DELAY: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Waiting {
    layers: HashSet<Digest>,
    /// A thread takes care of them.
    running: bool,
}

/// What is not on disk for good yet.
#[derive(Debug)]
pub(crate) struct Durability {
    /// The directory of the layers, open for reading.
    dir: Arc<OwnedFd>,
    boot: String,
    waiting: Arc<Mutex<Waiting>>,
}

/// What is known of a layer's files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    OnDisk,
    /// Written in this boot; the kernel has it all.
    InMemory,
    /// Power was lost before it was on disk.
    Doubtful,
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Durability {
    pub(crate) fn new(dir: OwnedFd) -> Self {
        // Without an id every mark is from another boot: slower after a start, never wrong.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            dir: Arc::new(dir),
            boot,
            waiting: Arc::default(),
        }
    }

    /// Marks a layer that is being made in `dir`.
    pub(crate) fn mark(&self, dir: &OwnedFd) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let mark = openat(dir, MARK, flags, Mode::from_raw_mode(0o600))?;
        File::from(mark).write_all(self.boot.as_bytes())
    }

    /// What the mark of a layer says.
    pub(crate) fn standing(&self, diff_id: &Digest) -> io::Result<Standing> {
        let path = format!("{}/{MARK}", diff_id.hex());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mark = match openat(&*self.dir, path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Standing::OnDisk),
            other => other?,
        };
        let mut boot = String::new();
        File::from(mark).read_to_string(&mut boot)?;
        let same = !boot.is_empty() && boot == self.boot;
        Ok(if same {
            Standing::InMemory
        } else {
            Standing::Doubtful
        })
    }

    /// Brings a layer to the disk soon, on a thread of its own.
    pub(crate) fn schedule(&self, diff_id: Digest) {
        let mut waiting = lock(&self.waiting);
        waiting.layers.insert(diff_id);
        if waiting.running {
            return;
        }
        let (dir, shared) = (self.dir.clone(), self.waiting.clone());
        let spawned = std::thread::Builder::new()
            .name("layer-sync".into())
            .spawn(move || write_out(&dir, &shared));
        match spawned {
            Ok(_) => waiting.running = true,
            // The marks stay, and the next layer or the next start tries again.
            Err(error) => tracing::warn!(%error, "layers are written to disk later"),
        }
    }
}

/// Writes waiting layers to disk and takes their marks away, until there are none.
fn write_out(dir: &OwnedFd, shared: &Mutex<Waiting>) {
    loop {
        std::thread::sleep(DELAY);
        let layers = {
            let mut waiting = lock(shared);
            if waiting.layers.is_empty() {
                waiting.running = false;
                return;
            }
            std::mem::take(&mut waiting.layers)
        };
        if let Err(error) = rustix::fs::syncfs(dir) {
            tracing::warn!(%error, "layers could not be written to disk");
            continue;
        }
        for layer in layers {
            // Gone already is fine.
            let _ = unlinkat(dir, format!("{}/{MARK}", layer.hex()), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (Digest::of(b"new"), Digest::of(b"old"));
        for layer in [&new, &old] {
            std::fs::create_dir(dir.path().join(layer.hex())).unwrap();
        }
        let open = |path| OwnedFd::from(File::open(path).unwrap());
        let durability = Durability::new(open(dir.path().to_owned()));
        assert_eq!(durability.standing(&new).unwrap(), Standing::OnDisk);
        durability.mark(&open(dir.path().join(new.hex()))).unwrap();
        assert_eq!(durability.standing(&new).unwrap(), Standing::InMemory);
        // Cut off by the loss of power, or of another boot.
        std::fs::write(dir.path().join(old.hex()).join(MARK), "").unwrap();
        assert_eq!(durability.standing(&old).unwrap(), Standing::Doubtful);
        durability.schedule(new.clone());
        while durability.standing(&new).unwrap() != Standing::OnDisk {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
