//! What any engine must do: one suite, run on every engine by the tests in `tests/`.
//!
//! An engine's test brings a [`Bench`] and names it in [`conformance_tests!`](crate::conformance_tests), which makes a test
//! of every check. Each check gets a pool of its own of about a gigabyte. A check panics where a
//! promise is broken.

mod datasets;
mod room;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    hash::{DefaultHasher, Hasher as _},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use types::{SnapshotId, VolumeId, error::Kind, volume::Content};

pub use self::{datasets::*, room::*};

use crate::{Change, ChangeKind, Growth, Health, Origin, Pool};

/// An engine under test, with a fresh pool of about 1 GiB. It cleans up when it is dropped.
pub trait Bench {
    /// The pool, opened.
    fn pool(&self) -> Arc<dyn Pool>;
    /// Opens it again as a process does that finds what a killed one left.
    fn reopen(&mut self);
    /// Opens it again after [`Pool::close`].
    fn open_closed(&mut self);
    /// Whether the limit counts what only snapshots hold.
    fn limit_covers_snapshots(&self) -> bool;
    /// Whether images can be read and written on this machine.
    fn has_images(&self) -> bool {
        true
    }
    /// How the pool can grow here, if it can.
    fn growth(&self) -> Option<Growth>;
}

const M: u64 = 1 << 20;
/// The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a `#[test]` of every check. `$bench` is a function that gives a fresh [`Bench`].
#[macro_export]
macro_rules! conformance_tests {
    ($bench:path) => {
        $crate::conformance_tests!(@each $bench:
            empty_pool, create_twice, images_grow, errors_name_their_kind, content_survives_reopening,
            snapshots_keep_content, snapshots_of_several, rollback_to_any, rollback_before_writeback,
            rollback_of_images,
            clones_are_independent, clones_of_images, remove_with_snapshots, limit_of_live,
            limit_after_rollback, limit_of_clone, clone_writes_over_itself, origin_is_not_charged_for_clones,
            usage_is_exact, usage_of_snapshots, charged_follows, differences, full_pool, close_and_open, busy_close,
            destroy_needs_no_datasets, pool_grows, sweep_keeps_all);
    };
    (@each $bench:path: $($check:ident),*) => {
        $(#[test]
        fn $check() {
            let mut bench = $bench(stringify!($check));
            $crate::conformance::$check(&mut bench);
        })*
    };
}

/// Bytes that don't compress, the same for the same seed.
pub fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length as usize + 8);
    while bytes.len() < length as usize {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length as usize);
    bytes
}

/// Writes a file of noise, and to the disk.
pub fn write(path: &Path, seed: u64, length: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    for chunk in 0..length.div_ceil(M) {
        let bytes = M.min(length - chunk * M);
        file.write_all(&noise(seed ^ (chunk << 32), bytes))?;
    }
    file.sync_all()
}

/// A path and a hash of every file below a directory, or of the image.
pub fn contents(path: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let metadata = fs::metadata(path).expect("content is there");
    if !metadata.is_dir() {
        found.insert(PathBuf::new(), hash(path));
        return found;
    }
    let mut left = vec![path.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("a directory is listed") {
            let inner = entry.expect("an entry is read").path();
            let name = inner.strip_prefix(path).expect("it is below").to_owned();
            if inner.is_dir() {
                found.insert(name, 0);
                left.push(inner);
            } else {
                found.insert(name, hash(&inner));
            }
        }
    }
    found
}

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut file = File::open(path).expect("a file opens");
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).expect("a file is read") {
            0 => return hasher.finish(),
            n => hasher.write(&buffer[..n]),
        }
    }
}

fn volume() -> VolumeId {
    VolumeId::random()
}

fn snapshot() -> SnapshotId {
    SnapshotId::random()
}

/// A new file dataset.
fn files(pool: &dyn Pool) -> (VolumeId, PathBuf) {
    let id = volume();
    pool.create(&id, Content::Files, None)
        .expect("a dataset is made");
    let path = pool.path(&id).expect("it has a path");
    (id, path)
}

fn taken(pool: &dyn Pool, id: &VolumeId) -> SnapshotId {
    let taken = snapshot();
    pool.snapshot(&[(id, &taken)]).expect("a snapshot is taken");
    taken
}

fn live(pool: &dyn Pool, id: &VolumeId) -> BTreeMap<PathBuf, u64> {
    contents(&pool.path(id).expect("it has a path"))
}

fn kind<T: std::fmt::Debug>(result: types::Result<T>) -> Kind {
    result.expect_err("it must fail").kind
}

/// Writes noise until it fails; gives the bytes that got through and the error.
fn fill(path: &Path, most: u64) -> (u64, Option<io::Error>) {
    let mut file = match File::create(path) {
        Ok(file) => file,
        Err(error) => return (0, Some(error)),
    };
    let mut written = 0;
    while written < most {
        let result = file.write_all(&noise(written ^ 77, M)).and_then(|()| {
            if written % (8 * M) == 0 {
                file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(error) = result {
            return (written, Some(error));
        }
        written += M;
    }
    (written, file.sync_all().err())
}

fn assert_no_room(error: Option<io::Error>) {
    let error = error.expect("writing must come to an end");
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull
        ),
        "EDQUOT or ENOSPC is expected: {error}"
    );
}

fn assert_near(found: u64, wanted: u64, what: &str) {
    let difference = found.abs_diff(wanted);
    // A few blocks of metadata are always there.
    assert!(
        difference <= wanted / 100 + 128 * 1024,
        "{what}: {found} instead of {wanted}"
    );
}

/// Waits until a condition holds, asking as callers do: five times a second.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A fresh pool is well and has room.
pub fn empty_pool(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let status = pool.status().expect("status");
    assert_eq!(status.health, Health::Online);
    assert!(status.total > 500 * M, "{status:?}");
    assert!(
        status.free > 500 * M && status.free <= status.total,
        "{status:?}"
    );
    assert!(status.used < 100 * M, "{status:?}");
    assert!(
        status.copies >= 1 && !status.devices.is_empty(),
        "{status:?}"
    );
    assert!(status.root.is_dir());
    assert_eq!(pool.datasets().expect("datasets"), []);
    assert_eq!(pool.charged().expect("charged"), []);
    pool.sweep().expect("sweep");
}

/// Closing leaves nothing mounted; all is there when it is opened again.
pub fn close_and_open(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("a"), 1, 3 * M).unwrap();
    let kept = taken(&*pool, &id);
    let state = live(&*pool, &id);
    pool.close().unwrap();
    pool.close().unwrap();
    assert!(!path.exists(), "it is unmounted");
    assert!(pool.datasets().is_err());
    assert!(pool.create(&volume(), Content::Files, None).is_err());
    drop(pool);
    bench.open_closed();
    let pool = bench.pool();
    assert_eq!(live(&*pool, &id), state);
    assert_eq!(pool.datasets().unwrap()[0].snapshots, [kept]);
}

/// A pool in use is not closed.
pub fn busy_close(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    let open = File::create(path.join("open")).unwrap();
    assert_eq!(kind(pool.close()), Kind::Conflict);
    write(&path.join("still"), 1, M).unwrap();
    assert_eq!(live(&*pool, &id).len(), 2);
    drop(open);
    pool.close().unwrap();
}

/// A pool with datasets is not destroyed.
pub fn destroy_needs_no_datasets(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("a"), 1, M).unwrap();
    assert_eq!(kind(pool.destroy()), Kind::Conflict);
    assert_eq!(live(&*pool, &id).len(), 1);
    pool.remove(&id).unwrap();
    pool.destroy().unwrap();
    assert!(pool.status().is_err());
}

/// A pool that has grown has more room, also after it is opened again.
pub fn pool_grows(bench: &mut dyn Bench) {
    let Some(growth) = bench.growth() else { return };
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("a"), 1, M).unwrap();
    let state = live(&*pool, &id);
    let before = pool.status().unwrap();
    pool.grow(&growth).unwrap();
    pool.grow(&growth).unwrap();
    let after = pool.status().unwrap();
    assert!(after.total > before.total + 200 * M, "{before:?} {after:?}");
    assert!(after.free > before.free + 200 * M, "{before:?} {after:?}");
    assert_eq!(live(&*pool, &id), state);
    let (written, error) = fill(&path.join("more"), before.total + 100 * M);
    assert!(error.is_none(), "{written}: {error:?}");
    assert_eq!(kind(pool.grow(&Growth::Bytes(M))), Kind::InvalidParameter);
}

/// Sweeping removes nothing that counts.
pub fn sweep_keeps_all(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("a"), 1, 8 * M).unwrap();
    let kept = taken(&*pool, &id);
    write(&path.join("a"), 2, 8 * M).unwrap();
    pool.rollback(&id, &kept).unwrap();
    let copy = volume();
    let origin = Origin {
        dataset: &id,
        snapshot: Some(&kept),
    };
    pool.create(&copy, Content::Files, Some(origin)).unwrap();
    pool.set_limit(&id, Some(32 * M)).unwrap();
    let state = live(&*pool, &id);
    pool.reclaim(PATIENCE).unwrap();
    let usage = pool.usage(&id).unwrap();
    for _ in 0..2 {
        pool.sweep().unwrap();
        assert_eq!(pool.datasets().unwrap().len(), 2);
        assert_eq!(live(&*pool, &id), state);
        assert_eq!(live(&*pool, &copy), state);
        assert_near(pool.usage(&id).unwrap().live, usage.live, "usage");
    }
    let (written, error) = fill(&path_of(&*pool, &id).join("b"), 100 * M);
    assert_no_room(error);
    assert!(written <= 26 * M, "{written}");
}

fn path_of(pool: &dyn Pool, id: &VolumeId) -> PathBuf {
    pool.path(id).unwrap()
}
