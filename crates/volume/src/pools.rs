//! The pools that are open, and the one that kraud makes by itself.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use pool::{Engine, Growth, Health, Pool, PoolSpec, PoolStatus, Source};
use types::{Error, PoolName, Result, error::ResultExt as _};

use crate::Volumes;

/// A pool that ought to be there.
#[derive(Debug, Clone)]
enum Slot {
    Open(Arc<dyn Pool>),
    /// It could not be opened; says why.
    Failed(Error),
}

/// All pools by name.
#[derive(Debug, Default)]
pub(crate) struct Table(RwLock<HashMap<PoolName, (PoolSpec, Slot)>>);

impl Table {
    pub(crate) fn get(&self, name: &PoolName) -> Result<Arc<dyn Pool>> {
        match self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            Some((_, Slot::Open(pool))) => Ok(pool.clone()),
            Some((_, Slot::Failed(error))) => Err(Error::unavailable(format!(
                "pool {name} is not available: {}",
                error.message
            ))),
            None => Err(Error::not_found(format!("no such pool: {name}"))),
        }
    }

    pub(crate) fn all(&self) -> Vec<(PoolName, Arc<dyn Pool>)> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let open = table.iter().filter_map(|(name, (_, slot))| match slot {
            Slot::Open(pool) => Some((name.clone(), pool.clone())),
            Slot::Failed(_) => None,
        });
        open.collect()
    }

    fn set(&self, spec: &PoolSpec, slot: Slot) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(spec.name.clone(), (spec.clone(), slot));
    }

    fn remove(&self, name: &PoolName) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }
}

/// Type numbers of statfs (linux/magic.h; ZFS from its own sources).
const BTRFS_MAGIC: i64 = 0x9123_683E;
const ZFS_MAGIC: i64 = 0x2FC1_2FC1;
/// The smallest pool that is worth making.
const SMALLEST: u64 = 256 << 20;

impl Volumes {
    pub(crate) fn pool(&self, name: &PoolName) -> Result<Arc<dyn Pool>> {
        self.pools.get(name)
    }

    fn mount_dir(&self, name: &PoolName) -> std::path::PathBuf {
        self.pools_dir.join(name.as_str())
    }

    /// How the default pool would be made here: the data directory's own file system if it is
    /// btrfs or ZFS, else a sparse file of most of the free space.
    pub fn default_pool(&self) -> Result<PoolSpec> {
        let operation = || format!("looking at {}", self.pools_dir.display());
        let stat = rustix::fs::statfs(&self.pools_dir).during(operation)?;
        let own = match stat.f_type as i64 {
            BTRFS_MAGIC => Some(Engine::Btrfs),
            ZFS_MAGIC => Some(Engine::Zfs),
            _ => None,
        };
        let name = PoolName::default();
        if let Some(engine) = own {
            let path = self.pools_dir.clone();
            return Ok(PoolSpec {
                name,
                engine,
                source: Source::Directory { path },
            });
        }
        // A tenth stays with images and containers, which lie beside the pool. The file is
        // sparse, so this takes nothing yet.
        let free = stat.f_bavail * stat.f_frsize as u64;
        self.file_pool(name, free / 10 * 9)
    }

    /// A pool of engine btrfs in a sparse file of ours.
    pub fn file_pool(&self, name: PoolName, bytes: u64) -> Result<PoolSpec> {
        let bytes = bytes & !((1 << 20) - 1);
        if bytes < SMALLEST {
            return Err(Error::invalid(format!(
                "a pool of {} MiB is too small: btrfs needs at least {} MiB; free some space on the file system of {}",
                bytes >> 20,
                SMALLEST >> 20,
                self.pools_dir.display()
            )));
        }
        Ok(PoolSpec {
            source: Source::File {
                path: self.pools_dir.join(format!("{name}.img")),
                bytes,
            },
            name,
            engine: Engine::Btrfs,
        })
    }

    /// Makes a pool and opens it. Made already: it is opened. A file that a creation left half
    /// done is made anew when `anew` says that it never was whole.
    pub fn create_pool(&self, spec: &PoolSpec, anew: bool) -> Result<PoolStatus> {
        let mount = self.mount_dir(&spec.name);
        if anew && let Source::File { path, .. } = &spec.source {
            discard_half_made(&mount, path)?;
        }
        let pool = pool::create(spec, &mount)?;
        let status = pool.status();
        self.pools.set(spec, Slot::Open(pool));
        status
    }

    /// Opens a pool that exists. One that cannot be opened is remembered with the reason; what
    /// is asked of it fails with that reason, and everything else goes on.
    pub fn open_pool(&self, spec: &PoolSpec) -> Result<()> {
        match pool::open(spec, &self.mount_dir(&spec.name)) {
            Ok(pool) => {
                if let Err(error) = pool.sweep() {
                    tracing::warn!(pool = %spec.name, %error, "removing what was left half done on a pool");
                }
                self.pools.set(spec, Slot::Open(pool));
                Ok(())
            }
            Err(error) => {
                self.pools.set(spec, Slot::Failed(error.clone()));
                Err(error)
            }
        }
    }

    /// How a pool is doing; one that could not be opened is [`Health::Faulted`], and opening it
    /// is tried again.
    pub fn pool_status(&self, name: &PoolName) -> Result<PoolStatus> {
        let found = self
            .pools
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        let (spec, slot) =
            found.ok_or_else(|| Error::not_found(format!("no such pool: {name}")))?;
        if let Slot::Failed(_) = slot
            && let Err(error) = self.open_pool(&spec)
        {
            return Ok(faulted(error.message));
        }
        match self.pool(name)?.status() {
            Ok(status) => Ok(status),
            Err(error) => Ok(faulted(error.message)),
        }
    }

    /// Makes a pool larger. Returns how it is now.
    pub fn grow_pool(&self, name: &PoolName, by: &Growth) -> Result<PoolStatus> {
        let pool = self.pool(name)?;
        pool.grow(by)?;
        pool.status()
    }

    /// Removes a pool with its data. `Conflict` while it has volumes.
    pub fn destroy_pool(&self, name: &PoolName) -> Result<()> {
        match self.pool(name) {
            Ok(pool) => pool.destroy()?,
            // Nothing of it can be reached; what is left on devices is the operator's.
            Err(error) => {
                tracing::warn!(pool = %name, %error, "removing a pool that is not available: its data stays on its devices");
            }
        }
        self.pools.remove(name);
        let _ = std::fs::remove_dir(self.mount_dir(name));
        Ok(())
    }

    /// The devices of all pools that are open.
    pub fn devices(&self) -> Vec<std::path::PathBuf> {
        let open = self.pools.all();
        let status = open.iter().filter_map(|(_, pool)| pool.status().ok());
        status.flat_map(|status| status.devices).collect()
    }

    /// Closes all pools; for the end, when nothing uses them.
    pub fn close_pools(&self) -> Result<()> {
        let mut outcome = Ok(());
        for (name, pool) in self.pools.all() {
            let closed = pool
                .close()
                .map_err(|error| error.context(format_args!("closing pool {name}")));
            if closed.is_ok() {
                self.pools.remove(&name);
            }
            outcome = outcome.and(closed);
        }
        outcome
    }

    /// Waits until the space of removed volumes and snapshots is free again.
    pub fn reclaim(&self, name: &PoolName, patience: std::time::Duration) -> Result<()> {
        self.pool(name)?.reclaim(patience)
    }
}

fn faulted(reason: String) -> PoolStatus {
    PoolStatus {
        health: Health::Faulted(reason),
        total: 0,
        used: 0,
        free: 0,
        copies: 1,
        devices: Vec::new(),
        root: std::path::PathBuf::new(),
    }
}

/// Removes a pool's file whose creation a crash cut off, mounted or not. There is no volume on
/// it: none is made before the pool is recorded as whole.
fn discard_half_made(mount: &Path, file: &Path) -> Result<()> {
    while rustix::mount::unmount(mount, rustix::mount::UnmountFlags::empty()).is_ok() {}
    if file.exists() {
        crate::block::detach_image(file)?;
        std::fs::remove_file(file).during(|| format!("removing {}", file.display()))?;
    }
    Ok(())
}
