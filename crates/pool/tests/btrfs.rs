//! The btrfs engine, on loop devices. Needs root.
#![allow(clippy::unwrap_used)] // helpers of tests, too

mod common;

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use common::{BtrfsBench, G, M, Place};
use pool::{
    Engine, Health, Pool, PoolSpec, Source,
    conformance::{Bench as _, contents, noise, write},
    loopdev,
};
use types::{SnapshotId, VolumeId, error::Kind, volume::Content};

mod in_a_file {
    use super::*;

    fn bench(name: &str) -> BtrfsBench {
        BtrfsBench::new(name, G)
    }
    pool::conformance_tests!(bench);
}

/// Every block twice.
mod on_a_mirror {
    use super::*;

    fn bench(name: &str) -> BtrfsBench {
        mirror(&format!("mirror-{name}"))
    }
    pool::conformance_tests!(@each bench:
        empty_pool, content_survives_reopening, rollback_to_any, clones_are_independent,
        limit_of_live, usage_is_exact, full_pool, close_and_open, destroy_needs_no_datasets);
}

/// Two devices, one after the other.
mod on_devices {
    use super::*;

    fn bench(name: &str) -> BtrfsBench {
        devices(&format!("devices-{name}"), &["one", "two"], false)
    }
    pool::conformance_tests!(@each bench:
        empty_pool, content_survives_reopening, close_and_open, pool_grows, destroy_needs_no_datasets);
}

/// A directory of a file system that somebody else has mounted.
mod in_a_directory {
    use super::*;

    fn bench(name: &str) -> BtrfsBench {
        directory(name, false)
    }
    pool::conformance_tests!(@each bench:
        empty_pool, content_survives_reopening, rollback_to_any, remove_with_snapshots,
        limit_of_live, limit_of_clone, usage_of_snapshots, differences, destroy_needs_no_datasets, sweep_keeps_all);
}

/// The same with full quota groups, which somebody has switched on.
mod with_full_quotas {
    use super::*;

    fn bench(name: &str) -> BtrfsBench {
        directory(name, true)
    }
    pool::conformance_tests!(@each bench:
        empty_pool, content_survives_reopening, rollback_to_any, rollback_before_writeback, clones_are_independent,
        limit_of_live, limit_of_clone, usage_is_exact, usage_of_snapshots, destroy_needs_no_datasets);
}

fn spec(source: Source) -> PoolSpec {
    PoolSpec {
        name: "test".parse().unwrap(),
        engine: Engine::Btrfs,
        source,
    }
}

fn devices(name: &str, files: &[&str], mirror: bool) -> BtrfsBench {
    let place = Place::new(name);
    let paths = files.iter().map(|file| place.device(file, G)).collect();
    BtrfsBench::with(place, spec(Source::Devices { paths, mirror }))
}

fn mirror(name: &str) -> BtrfsBench {
    devices(name, &["one", "two"], true)
}

fn directory(name: &str, full_quotas: bool) -> BtrfsBench {
    let place = Place::new(&format!("directory-{name}"));
    let device = place.device("base", G);
    common::run("mkfs.btrfs", &["--quiet", device.to_str().unwrap()]);
    std::fs::create_dir(place.mount()).unwrap();
    rustix::mount::mount(
        &device,
        place.mount(),
        "btrfs",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .unwrap();
    if full_quotas {
        common::run(
            "btrfs",
            &["quota", "enable", place.mount().to_str().unwrap()],
        );
    }
    let path = place.mount().join("data");
    std::fs::create_dir(&path).unwrap();
    BtrfsBench::with(place, spec(Source::Directory { path }))
}

fn a_dataset(pool: &dyn Pool) -> (VolumeId, PathBuf) {
    let id = VolumeId::random();
    pool.create(&id, Content::Files, None).unwrap();
    let path = pool.path(&id).unwrap();
    (id, path)
}

fn complaint(pool: &dyn Pool) -> String {
    match pool.status().unwrap().health {
        Health::Degraded(why) => why,
        other => panic!("the pool must be degraded: {other:?}"),
    }
}

/// A mirror works without one device, says so, and never takes up old data.
#[test]
fn a_mirror_without_a_device() {
    let mut bench = mirror("degraded");
    let (id, path) = a_dataset(&*bench.pool());
    write(&path.join("old"), 1, 20 * M).unwrap();
    let image = VolumeId::random();
    bench
        .pool()
        .create(&image, Content::Image { bytes: 32 * M }, None)
        .unwrap();
    write_image(&*bench.pool(), &image, 1);
    assert_eq!(bench.pool().status().unwrap().copies, 2);
    bench.pool().close().unwrap();

    let second = bench.place.path().join("two");
    let device = loopdev::find(&second).unwrap().unwrap();
    loopdev::detach(&device).unwrap();
    bench.open_closed();
    let pool = bench.pool();
    let why = complaint(&*pool);
    assert!(why.contains(device.to_str().unwrap()), "{why}");
    assert_eq!(contents(&path).len(), 1);
    write(&path.join("new"), 2, 20 * M).unwrap();
    // Not copied on write and without checksums: only we can tell old from new.
    write_image(&*pool, &image, 2);
    pool.snapshot(&[(&id, &SnapshotId::random())]).unwrap();
    let state = contents(&path);
    pool.close().unwrap();

    // The device comes back with what it held before.
    loopdev::attach(&second, loopdev::Options::default()).unwrap();
    bench.open_closed();
    let pool = bench.pool();
    let why = complaint(&*pool);
    assert!(why.contains("old data"), "{why}");
    assert_eq!(contents(&path), state);
    for _ in 0..4 {
        assert_eq!(read_image(&*pool, &image), noise(2, 8 * M));
        std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    }
    write(&path.join("more"), 3, M).unwrap();
    pool.close().unwrap();
}

fn write_image(pool: &dyn Pool, id: &VolumeId, seed: u64) {
    let file = File::options()
        .write(true)
        .open(pool.path(id).unwrap())
        .unwrap();
    file.write_all_at(&noise(seed, 8 * M), 0).unwrap();
    file.sync_all().unwrap();
}

fn read_image(pool: &dyn Pool, id: &VolumeId) -> Vec<u8> {
    let mut bytes = vec![0; 8 << 20];
    File::open(pool.path(id).unwrap())
        .unwrap()
        .read_exact_at(&mut bytes, 0)
        .unwrap();
    bytes
}

/// Without a mirror nothing can be missing.
#[test]
fn devices_that_are_missing() {
    let mut bench = devices("missing", &["one", "two"], false);
    let (_, path) = a_dataset(&*bench.pool());
    write(&path.join("a"), 1, M).unwrap();
    let state = contents(&path);
    bench.pool().close().unwrap();
    let second = bench.place.path().join("two");
    let device = loopdev::find(&second).unwrap().unwrap();
    loopdev::detach(&device).unwrap();
    let error = pool::open(&bench.spec, &bench.place.mount()).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains(device.to_str().unwrap()), "{error}");
    // It is found by what it holds, whatever its name is: mostly another one, as something else has
    // taken that.
    bench.place.device("blocker", M);
    loopdev::attach(&second, loopdev::Options::default()).unwrap();
    bench.open_closed();
    assert_eq!(bench.pool().status().unwrap().health, Health::Online);
    assert_eq!(contents(&path), state);
}

/// Devices that hold something, or are in use, are refused.
#[test]
fn devices_in_use_are_refused() {
    let place = Place::new("refused");
    let one = place.device("one", 256 * M);
    let two = place.device("two", 256 * M);
    let make = |paths: Vec<PathBuf>, mirror| {
        pool::create(&spec(Source::Devices { paths, mirror }), &place.mount()).unwrap_err()
    };
    common::run("mkfs.ext4", &["-q", one.to_str().unwrap()]);
    let error = make(vec![one.clone()], false);
    assert_eq!(error.kind, Kind::Conflict);
    assert!(
        error.message.contains("ext4") && error.message.contains("wipefs"),
        "{error}"
    );
    let error = make(vec![two.clone(), one.clone()], true);
    assert_eq!(error.kind, Kind::Conflict);
    std::fs::create_dir(place.mount()).unwrap();
    rustix::mount::mount(
        &one,
        place.mount(),
        "ext4",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .unwrap();
    let error = make(vec![one.clone()], false);
    assert!(
        error.kind == Kind::Conflict && error.message.contains("in use"),
        "{error}"
    );
    place.clear();
    assert_eq!(make(vec![two.clone()], true).kind, Kind::InvalidParameter);
    assert_eq!(make(vec![], false).kind, Kind::InvalidParameter);
    assert_eq!(
        make(vec![place.path().join("nothing")], false).kind,
        Kind::NotFound
    );
}

/// A file that is there already is never touched, and one that is too small is refused.
#[test]
fn files_are_not_overwritten() {
    let place = Place::new("file");
    let path = place.path().join("precious");
    std::fs::write(&path, b"precious").unwrap();
    let make = |path: &Path, bytes| {
        pool::create(
            &spec(Source::File {
                path: path.into(),
                bytes,
            }),
            &place.mount(),
        )
    };
    assert_eq!(make(&path, G).unwrap_err().kind, Kind::Conflict);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let small = place.path().join("small");
    assert_eq!(make(&small, M).unwrap_err().kind, Kind::InvalidParameter);
    assert!(!small.exists());
    let error = pool::open(
        &spec(Source::File {
            path: small,
            bytes: G,
        }),
        &place.mount(),
    )
    .unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    let error = make_directory(place.path());
    assert_eq!(error.kind, Kind::InvalidParameter, "not a btrfs");
    // One in use is not made again.
    let good = place.file();
    let pool = make(&good, G).unwrap();
    a_dataset(&*pool);
    assert_eq!(make(&good, G).unwrap_err().kind, Kind::Conflict);
    assert_eq!(pool.datasets().unwrap().len(), 1);
}

fn make_directory(path: &Path) -> types::Error {
    pool::create(&spec(Source::Directory { path: path.into() }), path).unwrap_err()
}

/// Subvolumes that somebody makes inside of a dataset go with it and count for it.
#[test]
fn subvolumes_inside() {
    let bench = BtrfsBench::new("inside", G);
    let pool = bench.pool();
    let (id, path) = a_dataset(&*pool);
    let inner = path.join("inner");
    common::run(
        "btrfs",
        &["-q", "subvolume", "create", inner.to_str().unwrap()],
    );
    common::run(
        "btrfs",
        &[
            "-q",
            "subvolume",
            "create",
            inner.join("most").to_str().unwrap(),
        ],
    );
    pool.set_limit(&id, Some(32 * M)).unwrap();
    assert!(write(&inner.join("most/a"), 1, 64 * M).is_err());
    std::fs::remove_file(inner.join("most/a")).unwrap();
    let kept = SnapshotId::random();
    pool.snapshot(&[(&id, &kept)]).unwrap();
    pool.rollback(&id, &kept).unwrap();
    common::run(
        "btrfs",
        &[
            "-q",
            "subvolume",
            "create",
            path.join("another").to_str().unwrap(),
        ],
    );
    pool.remove(&id).unwrap();
    assert_eq!(pool.datasets().unwrap(), []);
}
