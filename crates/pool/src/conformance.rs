//! What any engine must do: one suite, run on every engine by the tests in `tests/`.
//!
//! An engine's test brings a [`Bench`] and names it in [`conformance_tests!`](crate::conformance_tests), which makes a test
//! of every check. Each check gets a pool of its own of about a gigabyte. A check panics where a
//! promise is broken.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    hash::{DefaultHasher, Hasher as _},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use types::{SnapshotId, VolumeId, error::Kind, volume::Content};

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
            snapshots_keep_content, snapshots_of_several, rollback_to_any, rollback_of_images,
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

/// Creating again changes nothing.
pub fn create_twice(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("file"), 1, M).unwrap();
    let before = live(&*pool, &id);
    pool.create(&id, Content::Files, None).unwrap();
    assert_eq!(live(&*pool, &id), before);
    let found = pool.datasets().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].id, found[0].content), (&id, Content::Files));
    assert_eq!(found[0].snapshots, []);
}

/// Images have the size that was asked for, keep what is written, and only grow.
pub fn images_grow(bench: &mut dyn Bench) {
    let pool = bench.pool();
    if !bench.has_images() {
        return;
    }
    let id = volume();
    pool.create(&id, Content::Image { bytes: 64 * M }, None)
        .unwrap();
    write_at(&pool.path(&id).unwrap(), 5, 63 * M, M);
    let content = |pool: &dyn Pool| pool.datasets().unwrap()[0].content;
    assert_eq!(content(&*pool), Content::Image { bytes: 64 * M });
    pool.resize(&id, 64 * M).unwrap();
    pool.resize(&id, 96 * M).unwrap();
    assert_eq!(content(&*pool), Content::Image { bytes: 96 * M });
    assert_eq!(kind(pool.resize(&id, 32 * M)), Kind::InvalidParameter);
    assert_eq!(content(&*pool), Content::Image { bytes: 96 * M });
    assert_eq!(read_at(&pool.path(&id).unwrap(), 63 * M, M), noise(5, M));
    write_at(&pool.path(&id).unwrap(), 6, 95 * M, M);
}

fn write_at(image: &Path, seed: u64, at: u64, length: u64) {
    let file = File::options().write(true).open(image).unwrap();
    file.write_all_at(&noise(seed, length), at).unwrap();
    file.sync_all().unwrap();
}

fn read_at(image: &Path, at: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    File::open(image)
        .unwrap()
        .read_exact_at(&mut bytes, at)
        .unwrap();
    bytes
}

/// What is not there is `NotFound`; removing it is no error.
pub fn errors_name_their_kind(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, _) = files(&*pool);
    let nobody = volume();
    let none = snapshot();
    let message = pool.path(&nobody).unwrap_err().message;
    assert!(message.contains(nobody.short()), "{message}");
    assert_eq!(kind(pool.path(&nobody)), Kind::NotFound);
    assert_eq!(kind(pool.snapshot_path(&id, &none)), Kind::NotFound);
    assert_eq!(kind(pool.snapshot(&[(&nobody, &none)])), Kind::NotFound);
    assert_eq!(kind(pool.rollback(&id, &none)), Kind::NotFound);
    assert_eq!(kind(pool.rollback(&nobody, &none)), Kind::NotFound);
    assert_eq!(kind(pool.resize(&nobody, M)), Kind::NotFound);
    assert_eq!(kind(pool.set_limit(&nobody, Some(M))), Kind::NotFound);
    assert_eq!(kind(pool.usage(&nobody)), Kind::NotFound);
    assert_eq!(kind(pool.diff(&id, &none, None)), Kind::NotFound);
    let origin = Origin {
        dataset: &nobody,
        snapshot: None,
    };
    assert_eq!(
        kind(pool.create(&volume(), Content::Files, Some(origin))),
        Kind::NotFound
    );
    let origin = Origin {
        dataset: &id,
        snapshot: Some(&none),
    };
    assert_eq!(
        kind(pool.create(&volume(), Content::Files, Some(origin))),
        Kind::NotFound
    );
    assert_eq!(
        pool.datasets().unwrap().len(),
        1,
        "a failed copy leaves nothing"
    );
    pool.remove(&nobody).unwrap();
    pool.remove_snapshot(&id, &none).unwrap();
    pool.remove_snapshot(&nobody, &none).unwrap();
}

/// A killed process loses nothing that was acknowledged.
pub fn content_survives_reopening(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("file"), 2, 3 * M).unwrap();
    let kept = taken(&*pool, &id);
    pool.set_limit(&id, Some(20 * M)).unwrap();
    let before = live(&*pool, &id);
    drop(pool);
    bench.reopen();
    let pool = bench.pool();
    pool.sweep().unwrap();
    assert_eq!(pool.datasets().unwrap()[0].snapshots, std::slice::from_ref(&kept));
    assert_eq!(live(&*pool, &id), before);
    assert_eq!(contents(&pool.snapshot_path(&id, &kept).unwrap()), before);
    assert_eq!(pool.usage(&id).unwrap().limit, Some(20 * M));
    assert_no_room(fill(&pool.path(&id).unwrap().join("more"), 64 * M).1);
}

/// Snapshots keep what was there, can't be written, and can be taken again.
pub fn snapshots_keep_content(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("a"), 1, M).unwrap();
    fs::create_dir(path.join("d")).unwrap();
    write(&path.join("d/b"), 2, 10_000).unwrap();
    let before = live(&*pool, &id);
    let first = taken(&*pool, &id);
    write(&path.join("a"), 3, 2 * M).unwrap();
    fs::remove_file(path.join("d/b")).unwrap();
    pool.snapshot(&[(&id, &first)])
        .expect("one that exists is left as it is");
    let second = taken(&*pool, &id);
    let frozen = pool.snapshot_path(&id, &first).unwrap();
    assert_eq!(contents(&frozen), before);
    assert_eq!(
        contents(&pool.snapshot_path(&id, &second).unwrap()),
        live(&*pool, &id)
    );
    assert!(
        File::create(frozen.join("x")).is_err(),
        "a snapshot can't be written"
    );
    assert!(File::options().write(true).open(frozen.join("a")).is_err());
    let mut both = vec![first.clone(), second.clone()];
    both.sort();
    let mut found = pool.datasets().unwrap().remove(0).snapshots;
    found.sort();
    assert_eq!(found, both);
    pool.remove_snapshot(&id, &first).unwrap();
    pool.remove_snapshot(&id, &first).unwrap();
    assert_eq!(pool.datasets().unwrap()[0].snapshots, [second]);
}

/// Snapshots of several: all, or none when one fails.
pub fn snapshots_of_several(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (a, path) = files(&*pool);
    let (b, _) = files(&*pool);
    write(&path.join("file"), 4, M).unwrap();
    let (sa, sb) = (snapshot(), snapshot());
    pool.snapshot(&[(&a, &sa), (&b, &sb)]).unwrap();
    pool.snapshot(&[(&a, &sa), (&b, &sb)]).unwrap();
    pool.snapshot(&[]).unwrap();
    for found in pool.datasets().unwrap() {
        let wanted = if found.id == a { &sa } else { &sb };
        assert_eq!(found.snapshots, std::slice::from_ref(wanted));
    }
    assert_eq!(
        contents(&pool.snapshot_path(&a, &sa).unwrap()),
        live(&*pool, &a)
    );
    let (ta, tn) = (snapshot(), snapshot());
    let nobody = volume();
    assert_eq!(
        kind(pool.snapshot(&[(&a, &ta), (&nobody, &tn)])),
        Kind::NotFound
    );
    assert_eq!(
        kind(pool.snapshot_path(&a, &ta)),
        Kind::NotFound,
        "all or none"
    );
}

/// Rollback goes to any snapshot; others stay; a snapshot taken before undoes it.
pub fn rollback_to_any(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    let mut states = Vec::new();
    for step in 0..3u64 {
        write(&path.join("same"), step, M).unwrap();
        write(&path.join(format!("file-{step}")), step, 5000).unwrap();
        states.push((taken(&*pool, &id), live(&*pool, &id)));
    }
    write(&path.join("unsaved"), 9, M).unwrap();
    let safety = taken(&*pool, &id);
    let unsaved = live(&*pool, &id);
    for at in [0, 2, 1, 1] {
        let (snapshot, state) = &states[at];
        pool.rollback(&id, snapshot).unwrap();
        assert_eq!(&live(&*pool, &id), state, "snapshot {at}");
        assert_eq!(
            pool.datasets().unwrap()[0].snapshots.len(),
            4,
            "all snapshots stay"
        );
        // It can be written, and its snapshot is not touched.
        write(&pool.path(&id).unwrap().join("after"), 5, M).unwrap();
        assert_eq!(
            &contents(&pool.snapshot_path(&id, snapshot).unwrap()),
            state
        );
    }
    pool.rollback(&id, &safety).unwrap();
    assert_eq!(live(&*pool, &id), unsaved);
    // Any of them can be removed, also the one that the content comes from.
    for (snapshot, _) in &states {
        pool.remove_snapshot(&id, snapshot).unwrap();
    }
    pool.remove_snapshot(&id, &safety).unwrap();
    assert_eq!(live(&*pool, &id), unsaved);
    assert_eq!(pool.datasets().unwrap()[0].snapshots, []);
}

/// The same for images.
pub fn rollback_of_images(bench: &mut dyn Bench) {
    let pool = bench.pool();
    if !bench.has_images() {
        return;
    }
    let id = volume();
    pool.create(&id, Content::Image { bytes: 64 * M }, None)
        .unwrap();
    write_at(&pool.path(&id).unwrap(), 1, 0, 4 * M);
    let first = taken(&*pool, &id);
    write_at(&pool.path(&id).unwrap(), 2, 2 * M, 4 * M);
    let second = taken(&*pool, &id);
    pool.rollback(&id, &first).unwrap();
    assert_eq!(read_at(&pool.path(&id).unwrap(), 0, 4 * M), noise(1, 4 * M));
    assert_eq!(
        read_at(&pool.path(&id).unwrap(), 4 * M, 4 * M),
        vec![0; 4 << 20]
    );
    pool.rollback(&id, &second).unwrap();
    assert_eq!(
        read_at(&pool.path(&id).unwrap(), 2 * M, 4 * M),
        noise(2, 4 * M)
    );
    let frozen = pool.snapshot_path(&id, &first).unwrap();
    assert_eq!(read_at(&frozen, 0, 4 * M), noise(1, 4 * M));
    assert!(
        File::options().write(true).open(&frozen).is_err(),
        "a snapshot can't be written"
    );
}

/// Copies of the live dataset and of snapshots; origin and copy don't feel each other.
pub fn clones_are_independent(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("a"), 1, 2 * M).unwrap();
    let old = live(&*pool, &id);
    let kept = taken(&*pool, &id);
    write(&path.join("a"), 2, 2 * M).unwrap();
    let new = live(&*pool, &id);
    let (of_live, of_snapshot, of_clone) = (volume(), volume(), volume());
    let clone = |to: &VolumeId, dataset: &VolumeId, snapshot: Option<&SnapshotId>| {
        pool.create(to, Content::Files, Some(Origin { dataset, snapshot }))
            .unwrap();
    };
    clone(&of_live, &id, None);
    clone(&of_live, &id, None);
    clone(&of_snapshot, &id, Some(&kept));
    clone(&of_clone, &of_snapshot, None);
    assert_eq!(live(&*pool, &of_live), new);
    assert_eq!(live(&*pool, &of_snapshot), old);
    write(&pool.path(&of_live).unwrap().join("b"), 3, M).unwrap();
    write(&path.join("c"), 4, M).unwrap();
    assert!(!live(&*pool, &id).contains_key(Path::new("b")));
    assert!(!live(&*pool, &of_live).contains_key(Path::new("c")));
    for found in pool.datasets().unwrap() {
        assert_eq!(
            found.snapshots.len(),
            usize::from(found.id == id),
            "clones begin without snapshots"
        );
    }
    pool.remove(&id).unwrap();
    pool.reclaim(PATIENCE).unwrap();
    drop(pool);
    bench.reopen();
    let pool = bench.pool();
    pool.sweep().unwrap();
    assert_eq!(live(&*pool, &of_snapshot), old);
    pool.remove(&of_snapshot).unwrap();
    assert_eq!(live(&*pool, &of_clone), old);
    assert!(live(&*pool, &of_live).contains_key(Path::new("b")));
    let back = taken(&*pool, &of_clone);
    write(&pool.path(&of_clone).unwrap().join("a"), 8, M).unwrap();
    pool.rollback(&of_clone, &back).unwrap();
    assert_eq!(live(&*pool, &of_clone), old);
    assert_eq!(pool.datasets().unwrap().len(), 2);
}

/// Copies of images, which may be larger.
pub fn clones_of_images(bench: &mut dyn Bench) {
    let pool = bench.pool();
    if !bench.has_images() {
        return;
    }
    let id = volume();
    pool.create(&id, Content::Image { bytes: 32 * M }, None)
        .unwrap();
    write_at(&pool.path(&id).unwrap(), 1, 8 * M, 4 * M);
    let copy = volume();
    let origin = Origin {
        dataset: &id,
        snapshot: None,
    };
    pool.create(&copy, Content::Image { bytes: 48 * M }, Some(origin))
        .unwrap();
    let found = pool.datasets().unwrap();
    let size = found.iter().find(|found| found.id == copy).unwrap().content;
    assert_eq!(size, Content::Image { bytes: 48 * M });
    write_at(&pool.path(&id).unwrap(), 2, 8 * M, M);
    pool.remove(&id).unwrap();
    assert_eq!(
        read_at(&pool.path(&copy).unwrap(), 8 * M, 4 * M),
        noise(1, 4 * M)
    );
    write_at(&pool.path(&copy).unwrap(), 3, 40 * M, M);
}

/// A dataset goes with its snapshots, and its space comes back.
pub fn remove_with_snapshots(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (stays, path) = files(&*pool);
    write(&path.join("other"), 1, M).unwrap();
    let other = live(&*pool, &stays);
    let (id, path) = files(&*pool);
    let before = pool.status().unwrap().used;
    write(&path.join("a"), 1, 64 * M).unwrap();
    taken(&*pool, &id);
    write(&path.join("a"), 2, 64 * M).unwrap();
    taken(&*pool, &id);
    pool.reclaim(PATIENCE).unwrap();
    assert!(pool.status().unwrap().used > before + 120 * M);
    pool.remove(&id).unwrap();
    pool.remove(&id).unwrap();
    assert_eq!(kind(pool.path(&id)), Kind::NotFound);
    eventually("space comes back", || {
        pool.reclaim(PATIENCE).unwrap();
        pool.status().unwrap().used < before + 16 * M
    });
    assert_eq!(pool.datasets().unwrap().len(), 1);
    assert_eq!(live(&*pool, &stays), other);
}

/// Writing ends at the limit, and goes on when it is lifted.
pub fn limit_of_live(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    let (other, other_path) = files(&*pool);
    pool.set_limit(&id, Some(64 * M)).unwrap();
    pool.set_limit(&id, Some(64 * M)).unwrap();
    let (written, error) = fill(&path.join("a"), 200 * M);
    assert_no_room(error);
    assert!((48 * M..=66 * M).contains(&written), "{written}");
    // Nothing else is hurt.
    write(&other_path.join("b"), 1, 80 * M).unwrap();
    pool.remove(&other).unwrap();
    // Removing makes room, a larger limit too.
    fs::remove_file(path.join("a")).unwrap();
    eventually("room comes back", || {
        pool.reclaim(PATIENCE).unwrap();
        write(&path.join("b"), 1, 40 * M).is_ok()
    });
    pool.set_limit(&id, Some(160 * M)).unwrap();
    write(&path.join("c"), 2, 80 * M).unwrap();
    pool.set_limit(&id, None).unwrap();
    assert_eq!(pool.usage(&id).unwrap().limit, None);
    write(&path.join("d"), 3, 80 * M).unwrap();
}

/// The limit is in force in what a rollback made live.
pub fn limit_after_rollback(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    pool.set_limit(&id, Some(96 * M)).unwrap();
    write(&path.join("a"), 1, 32 * M).unwrap();
    let kept = taken(&*pool, &id);
    write(&path.join("b"), 2, 16 * M).unwrap();
    for _ in 0..2 {
        pool.rollback(&id, &kept).unwrap();
        pool.reclaim(PATIENCE).unwrap();
        let path = pool.path(&id).unwrap();
        let (written, error) = fill(&path.join("c"), 200 * M);
        assert_no_room(error);
        assert!((40 * M..=66 * M).contains(&written), "{written}");
    }
    // What a rollback let go is free again.
    pool.rollback(&id, &kept).unwrap();
    pool.reclaim(PATIENCE).unwrap();
    assert_near(pool.usage(&id).unwrap().live, 32 * M, "live");
    if bench.limit_covers_snapshots() {
        let path = pool.path(&id).unwrap();
        fs::remove_file(path.join("a")).unwrap();
        pool.reclaim(PATIENCE).unwrap();
        let (written, error) = fill(&path.join("d"), 200 * M);
        assert_no_room(error);
        assert!(written <= 66 * M, "the snapshot counts: {written}");
    }
}

/// What a copy has in common with its origin counts against its limit.
pub fn limit_of_clone(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("a"), 1, 96 * M).unwrap();
    let copy = volume();
    let origin = Origin {
        dataset: &id,
        snapshot: None,
    };
    pool.create(&copy, Content::Files, Some(origin)).unwrap();
    pool.set_limit(&copy, Some(128 * M)).unwrap();
    let path = pool.path(&copy).unwrap();
    let (written, error) = fill(&path.join("b"), 200 * M);
    assert_no_room(error);
    // Up to 16 MiB more, so that a full copy can still be written over.
    assert!((16 * M..=50 * M).contains(&written), "{written}");
    pool.remove(&id).unwrap();
    pool.reclaim(PATIENCE).unwrap();
    let usage = pool.usage(&copy).unwrap();
    assert_near(
        usage.live,
        96 * M + fs::metadata(path.join("b")).unwrap().len(),
        "live",
    );
}

/// A copy as full as its limit can be written over again and again, while somebody polls.
pub fn clone_writes_over_itself(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    for file in 0..12 {
        write(&path.join(format!("{file}")), file, 8 * M).unwrap();
    }
    let copy = volume();
    let origin = Origin {
        dataset: &id,
        snapshot: None,
    };
    pool.create(&copy, Content::Files, Some(origin)).unwrap();
    pool.set_limit(&copy, Some(100 * M)).unwrap();
    let path = pool.path(&copy).unwrap();
    for round in 0..2 {
        for file in 0..12 {
            eventually("a full copy is written over", || {
                pool.charged().unwrap();
                write(
                    &path.join(format!("{file}")),
                    100 + round * 50 + file,
                    8 * M,
                )
                .is_ok()
            });
        }
    }
    assert_near(pool.usage(&copy).unwrap().live, 96 * M, "live");
    let charged = pool.charged().unwrap();
    let counted = charged.iter().find(|(found, _)| *found == copy).unwrap().1;
    assert!(counted <= 101 * M, "{counted}");
    // Nothing is shared any more: the limit is the limit.
    let (written, error) = fill(&path.join("more"), 100 * M);
    assert_no_room(error);
    assert!(written <= 8 * M, "{written}");
}

/// An origin that writes over what a copy still holds does not pay for that.
pub fn origin_is_not_charged_for_clones(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    pool.set_limit(&id, Some(120 * M)).unwrap();
    for file in 0..5 {
        write(&path.join(format!("{file}")), file, 16 * M).unwrap();
    }
    let copy = volume();
    let origin = Origin {
        dataset: &id,
        snapshot: None,
    };
    pool.create(&copy, Content::Files, Some(origin)).unwrap();
    for round in 0..3 {
        for file in 0..5 {
            eventually("an origin is written over", || {
                pool.charged().unwrap();
                write(
                    &path.join(format!("{file}")),
                    100 + round * 50 + file,
                    16 * M,
                )
                .is_ok()
            });
        }
    }
    assert_near(pool.usage(&id).unwrap().live, 80 * M, "live");
    let (written, error) = fill(&path.join("more"), 200 * M);
    assert_no_room(error);
    assert!(written <= 48 * M, "{written}");
}

/// The use of a dataset is what was written.
pub fn usage_is_exact(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    assert_near(pool.usage(&id).unwrap().live, 0, "an empty dataset");
    write(&path.join("a"), 1, 50 * M).unwrap();
    write(&path.join("b"), 2, 30 * M).unwrap();
    let usage = pool.usage(&id).unwrap();
    assert_near(usage.live, 80 * M, "live");
    assert_eq!((usage.snapshots, usage.limit), (0, None));
    fs::remove_file(path.join("b")).unwrap();
    pool.reclaim(PATIENCE).unwrap();
    assert_near(pool.usage(&id).unwrap().live, 50 * M, "after removing");
    // Written over in small pieces, a file is as large as before.
    let file = File::options().write(true).open(path.join("a")).unwrap();
    for piece in 0..400u64 {
        file.write_all_at(&noise(piece, 4096), piece * 125_000 / 4096 * 4096)
            .unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    assert_near(pool.usage(&id).unwrap().live, 50 * M, "after writing over");
    if bench.has_images() {
        let image = volume();
        pool.create(&image, Content::Image { bytes: 256 * M }, None)
            .unwrap();
        write_at(&pool.path(&image).unwrap(), 3, 100 * M, 40 * M);
        pool.reclaim(PATIENCE).unwrap();
        assert_near(pool.usage(&image).unwrap().live, 40 * M, "an image");
    }
}

/// What only snapshots hold is told apart.
pub fn usage_of_snapshots(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("a"), 1, 40 * M).unwrap();
    write(&path.join("b"), 2, 20 * M).unwrap();
    let kept = taken(&*pool, &id);
    pool.reclaim(PATIENCE).unwrap();
    let usage = pool.usage(&id).unwrap();
    assert_near(usage.live, 60 * M, "live");
    assert_near(usage.snapshots, 0, "nothing is held by a snapshot alone");
    fs::remove_file(path.join("b")).unwrap();
    write(&path.join("c"), 3, 10 * M).unwrap();
    pool.reclaim(PATIENCE).unwrap();
    let usage = pool.usage(&id).unwrap();
    assert_near(usage.live, 50 * M, "live");
    assert_near(usage.snapshots, 20 * M, "b is only in the snapshot");
    pool.rollback(&id, &kept).unwrap();
    pool.reclaim(PATIENCE).unwrap();
    let usage = pool.usage(&id).unwrap();
    assert_near(usage.live, 60 * M, "live after the rollback");
    assert_near(usage.snapshots, 0, "all is live again");
    pool.remove_snapshot(&id, &kept).unwrap();
    pool.reclaim(PATIENCE).unwrap();
    assert_eq!(pool.usage(&id).unwrap().snapshots, 0);
}

/// `charged` shows what is written soon.
pub fn charged_follows(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (a, path) = files(&*pool);
    let (b, _) = files(&*pool);
    write(&path.join("x"), 1, 50 * M).unwrap();
    eventually("the charge follows", || {
        let charged: BTreeMap<_, _> = pool.charged().unwrap().into_iter().collect();
        charged.len() == 2 && charged[&a].abs_diff(50 * M) < 2 * M && charged[&b] < M
    });
}

/// Added, changed and removed paths, sorted; nothing else.
pub fn differences(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    fs::create_dir_all(path.join("dir/sub")).unwrap();
    for name in [
        "changed",
        "dir/sub/deep",
        "moved",
        "removed",
        "same",
        "dir/same",
    ] {
        write(&path.join(name), 1, 10_000).unwrap();
    }
    let first = taken(&*pool, &id);
    assert_eq!(pool.diff(&id, &first, None).unwrap(), []);
    write(&path.join("changed"), 2, 10_000).unwrap();
    write(&path.join("added"), 3, 100).unwrap();
    fs::create_dir(path.join("new dir")).unwrap();
    write(&path.join("new dir/inside"), 3, 100).unwrap();
    fs::remove_file(path.join("removed")).unwrap();
    fs::rename(path.join("moved"), path.join("dir/moved here")).unwrap();
    write(&path.join("dir/sub/deep"), 5, 20_000).unwrap();
    let wanted = [
        ("added", ChangeKind::Added),
        ("changed", ChangeKind::Changed),
        ("dir/moved here", ChangeKind::Added),
        ("dir/sub/deep", ChangeKind::Changed),
        ("moved", ChangeKind::Removed),
        ("new dir", ChangeKind::Added),
        ("new dir/inside", ChangeKind::Added),
        ("removed", ChangeKind::Removed),
    ]
    .map(|(path, kind)| Change {
        path: path.into(),
        kind,
    });
    // A directory whose entries changed may be reported as changed itself.
    let told = |changes: Vec<Change>| -> Vec<Change> {
        changes
            .into_iter()
            .filter(|change| {
                !(change.kind == ChangeKind::Changed
                    && ["", "dir", "dir/sub"].contains(&&*change.path))
            })
            .collect()
    };
    assert_eq!(told(pool.diff(&id, &first, None).unwrap()), wanted);
    let second = taken(&*pool, &id);
    assert_eq!(told(pool.diff(&id, &first, Some(&second)).unwrap()), wanted);
    assert_eq!(pool.diff(&id, &second, None).unwrap(), []);
    assert_eq!(
        pool.datasets().unwrap()[0].snapshots.len(),
        2,
        "no temporary snapshot is left"
    );
}

/// A full pool lets things be read, rolled back and removed.
pub fn full_pool(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("precious"), 1, 20 * M).unwrap();
    let kept = taken(&*pool, &id);
    let state = live(&*pool, &id);
    let (hog, hog_path) = files(&*pool);
    let (written, error) = fill(&hog_path.join("all"), 4096 * M);
    assert_no_room(error);
    assert!(written > 400 * M, "{written}");
    let (_, error) = fill(&path.join("more"), 256 * M);
    assert_no_room(error);
    let status = pool.status().unwrap();
    assert!(status.free < 64 * M, "{status:?}");
    assert_eq!(contents(&pool.snapshot_path(&id, &kept).unwrap()), state);
    pool.rollback(&id, &kept).unwrap();
    assert_eq!(live(&*pool, &id), state);
    let another = taken(&*pool, &id);
    pool.remove_snapshot(&id, &another).unwrap();
    drop(pool);
    bench.reopen();
    let pool = bench.pool();
    pool.sweep().unwrap();
    fs::remove_file(hog_path.join("all")).unwrap();
    pool.remove(&hog).unwrap();
    eventually("room comes back", || {
        pool.reclaim(PATIENCE).unwrap();
        write(&pool.path(&id).unwrap().join("again"), 3, 100 * M).is_ok()
    });
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
