//! Pools for tests: on sparse files, taken away again whatever happens.

#![allow(dead_code, unreachable_pub)] // not every test uses all of it
#![allow(clippy::unwrap_used)] // it is a part of tests

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use pool::{Engine, Growth, Pool, PoolSpec, Source, conformance::Bench, loopdev};
use rustix::mount::{UnmountFlags, unmount};

pub const M: u64 = 1 << 20;
pub const G: u64 = 1 << 30;

/// A directory for a test, on a disk. Mounts below it and loop devices of its files are let go
/// when it is dropped.
#[derive(Debug)]
pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new(name: &str) -> Self {
        Self(
            tempfile::Builder::new()
                .prefix(&format!("pool-{name}-"))
                .tempdir_in(std::env::var_os("TMPDIR").map_or("/var/tmp".into(), PathBuf::from))
                .unwrap(),
        )
    }
    pub fn path(&self) -> &Path {
        self.0.path()
    }
    pub fn mount(&self) -> PathBuf {
        self.path().join("mount")
    }
    pub fn file(&self) -> PathBuf {
        self.path().join("pool.img")
    }
    /// A loop device over a new sparse file.
    pub fn device(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.path().join(name);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        loopdev::attach(&path, loopdev::Options::default()).unwrap()
    }
    /// Unmounts and detaches all there is.
    pub fn clear(&self) {
        while unmount(self.mount(), UnmountFlags::DETACH).is_ok() {}
        for entry in std::fs::read_dir(self.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            // What was unmounted lazily is let go when the kernel is done with it.
            if entry.path().is_file()
                && let Ok(Some(device)) = loopdev::find(&entry.path())
                && let Err(error) = loopdev::detach_when_idle(&device)
            {
                eprintln!("{error}");
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A btrfs pool in a file.
pub struct BtrfsBench {
    pub spec: PoolSpec,
    pub pool: Option<Arc<dyn Pool>>,
    pub place: Place,
}

impl BtrfsBench {
    pub fn new(name: &str, bytes: u64) -> Self {
        let place = Place::new(name);
        let spec = PoolSpec {
            name: "test".parse().unwrap(),
            engine: Engine::Btrfs,
            source: Source::File {
                path: place.file(),
                bytes,
            },
        };
        Self::with(place, spec)
    }
    pub fn with(place: Place, spec: PoolSpec) -> Self {
        let pool = pool::create(&spec, &place.mount()).unwrap();
        Self {
            spec,
            pool: Some(pool),
            place,
        }
    }
}

impl Bench for BtrfsBench {
    fn pool(&self) -> Arc<dyn Pool> {
        self.pool.clone().unwrap()
    }
    fn reopen(&mut self) {
        self.pool = None;
        self.pool = Some(pool::open(&self.spec, &self.place.mount()).unwrap());
    }
    fn open_closed(&mut self) {
        self.reopen();
    }
    fn limit_covers_snapshots(&self) -> bool {
        true
    }
    fn growth(&self) -> Option<Growth> {
        match &self.spec.source {
            Source::File { bytes, .. } => Some(Growth::Bytes(bytes + 512 * M)),
            Source::Devices { mirror: false, .. } => {
                let more = self.place.path().join("more.img");
                let device = loopdev::find(&more).ok().flatten();
                let device = device.unwrap_or_else(|| self.place.device("more.img", 512 * M));
                Some(Growth::Devices(vec![device]))
            }
            _ => None,
        }
    }
}

/// Runs a program to success.
pub fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
