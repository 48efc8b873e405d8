//! What the system does to a pool: devices that go, daemons that die, other people's data.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pool::{
    Engine, Health, Origin, Pool, PoolSpec, Source,
    conformance::{Bench as _, contents, noise, write},
};
use rustix::process::Signal;
use types::{SnapshotId, VolumeId, error::Kind, volume::Content};

use crate::{
    common::{G, M, Place},
    daemon::{Daemon, ZfsBench, detach_all, quiet, sparse},
};

fn files(pool: &dyn Pool) -> VolumeId {
    let id = VolumeId::random();
    pool.create(&id, Content::Files, None).unwrap();
    id
}

fn taken(pool: &dyn Pool, id: &VolumeId) -> SnapshotId {
    let snapshot = SnapshotId::random();
    pool.snapshot(&[(id, &snapshot)]).unwrap();
    snapshot
}

/// A place where no device is looked for; beside the others it would be found by its label.
fn elsewhere(bench: &ZfsBench) -> std::path::PathBuf {
    let directory = bench.place.path().join("away");
    fs::create_dir_all(&directory).unwrap();
    directory.join("device")
}

#[test]
fn a_lost_mirror_half_is_named_and_nothing_is_lost() {
    let mut bench = ZfsBench::mirror("degraded");
    let pool = bench.pool();
    let status = pool.status().unwrap();
    assert_eq!((status.health, status.copies), (Health::Online, 2));
    assert!(status.total < G, "every block is there twice");
    let id = files(&*pool);
    write(&pool.path(&id).unwrap().join("a"), 1, 5 * M).unwrap();
    let kept = taken(&*pool, &id);
    let before = contents(&pool.path(&id).unwrap());
    pool.close().unwrap();
    drop(pool);
    let (two, away) = (bench.place.path().join("two"), elsewhere(&bench));
    fs::rename(&two, &away).unwrap();
    bench.open_closed();
    let pool = bench.pool();
    let Health::Degraded(why) = pool.status().unwrap().health else {
        panic!("{:?}", pool.status());
    };
    assert!(
        why.contains(two.to_str().unwrap()) && why.contains("UNAVAIL"),
        "{why}"
    );
    assert_eq!(contents(&pool.path(&id).unwrap()), before);
    write(&pool.path(&id).unwrap().join("b"), 2, 5 * M).unwrap();
    pool.rollback(&id, &kept).unwrap();
    assert_eq!(contents(&pool.path(&id).unwrap()), before);
    pool.close().unwrap();
    drop(pool);
    fs::rename(&away, &two).unwrap();
    bench.open_closed();
    assert_eq!(contents(&bench.pool().path(&id).unwrap()), before);
}

#[test]
fn without_its_devices_the_pool_does_not_open() {
    let bench = ZfsBench::in_a_file("gone");
    bench.pool().close().unwrap();
    fs::rename(bench.place.file(), elsewhere(&bench)).unwrap();
    let error = pool::open(&bench.spec, &bench.place.mount()).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(error.message.contains("pool test"), "{error}");
    // Its status says so too, and does not hang.
    assert_eq!(bench.pool().status().unwrap_err().kind, Kind::NotFound);
}

#[test]
fn an_unclean_end_loses_nothing_acknowledged() {
    let mut bench = ZfsBench::in_a_file("unclean");
    let pool = bench.pool();
    let id = files(&*pool);
    let path = pool.path(&id).unwrap();
    write(&path.join("a"), 1, 3 * M).unwrap();
    let kept = taken(&*pool, &id);
    write(&path.join("b"), 2, 3 * M).unwrap();
    let view = pool.snapshot_path(&id, &kept).unwrap();
    let (before, old) = (contents(&path), contents(&view));
    drop(pool);
    bench.daemon.kill();
    assert!(path.metadata().is_err(), "the mount is dead");
    let error = bench.pool().datasets().unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(
        error.message.contains("systemctl start zfs-fuse"),
        "{error}"
    );
    bench.daemon.run();
    bench.reopen();
    let pool = bench.pool();
    pool.sweep().unwrap();
    assert_eq!(contents(&pool.path(&id).unwrap()), before);
    assert_eq!(contents(&pool.snapshot_path(&id, &kept).unwrap()), old);
}

#[test]
#[ignore = "waits for a deadline of a minute"]
fn a_daemon_that_hangs_does_not_hang_callers() {
    let bench = ZfsBench::in_a_file("hangs");
    let pool = bench.pool();
    let id = files(&*pool);
    bench.daemon.signal(Signal::STOP);
    let began = Instant::now();
    let error = pool.path(&id).unwrap_err();
    bench.daemon.signal(Signal::CONT);
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(began.elapsed() < Duration::from_secs(70));
    assert!(pool.path(&id).is_ok());
}

#[test]
fn what_holds_something_is_refused() {
    let place = Place::new("zfs-refused");
    let mut daemon = Daemon::start();
    let spec = |source| PoolSpec {
        name: "test".parse().unwrap(),
        engine: Engine::Zfs,
        source,
    };
    let devices = |names: &[&str], mirror| Source::Devices {
        paths: names.iter().map(|name| place.path().join(name)).collect(),
        mirror,
    };
    let create = |source| pool::create(&spec(source), &place.mount()).unwrap_err();
    let ext4 = sparse(place.path(), "ext4", 64 * M);
    crate::common::run("mkfs.ext4", &["-q", ext4.to_str().unwrap()]);
    let data = sparse(place.path(), "data", 64 * M);
    File::create(&data)
        .unwrap()
        .write_all(&noise(1, 70 * M))
        .unwrap();
    sparse(place.path(), "free", 128 * M);
    for (name, kind, words) in [
        ("ext4", Kind::Conflict, "ext4"),
        ("data", Kind::Conflict, "holds data"),
        ("none", Kind::NotFound, "no device"),
    ] {
        let error = create(devices(&["free", name], true));
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{error}");
    }
    let file = Source::File {
        path: data.clone(),
        bytes: 128 * M,
    };
    assert_eq!(create(file).kind, Kind::Conflict);
    assert_eq!(
        fs::read(&data).unwrap(),
        noise(1, 70 * M),
        "it is as it was"
    );
    let error = create(devices(&["free"], true));
    assert_eq!(error.kind, Kind::InvalidParameter, "{error}");
    let error = create(Source::Directory {
        path: place.path().into(),
    });
    assert_eq!(error.kind, Kind::InvalidParameter, "{error}");
    // A pool of ZFS is something, too.
    let owner = pool::create(&spec(devices(&["free"], false)), &place.mount()).unwrap();
    let elsewhere = place.path().join("elsewhere");
    let error = pool::create(&spec(devices(&["free"], false)), &elsewhere).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "{error}");
    owner.destroy().unwrap();
    // Afterwards the device is free.
    let again = pool::create(&spec(devices(&["free"], false)), &elsewhere).unwrap();
    again.destroy().unwrap();
    daemon.kill();
    detach_all(place.path());
}

#[test]
fn a_directory_of_another_pool_and_two_of_one_name() {
    let bench = ZfsBench::in_a_file("directory");
    let host = bench.pool();
    let spec = PoolSpec {
        name: "test".parse().unwrap(),
        engine: Engine::Zfs,
        source: Source::Directory {
            path: bench.place.mount(),
        },
    };
    let mount = bench.place.path().join("inner");
    let inner = pool::create(&spec, &mount).unwrap();
    let (a, b) = (files(&*host), files(&*inner));
    write(&inner.path(&b).unwrap().join("x"), 1, M).unwrap();
    assert!(inner.path(&b).unwrap().starts_with(&mount));
    assert_eq!(inner.datasets().unwrap().len(), 1);
    assert_eq!(host.datasets().unwrap().len(), 1);
    assert_eq!(host.datasets().unwrap()[0].id, a);
    assert_eq!(inner.status().unwrap().health, Health::Online);
    inner.sweep().unwrap();
    host.sweep().unwrap();
    inner.close().unwrap();
    assert!(!mount.join(format!("{b}.0")).join("x").exists());
    let inner = pool::open(&spec, &mount).unwrap();
    assert!(inner.path(&b).unwrap().join("x").exists());
    inner.remove(&b).unwrap();
    inner.destroy().unwrap();
    assert!(host.path(&a).is_ok());
}

#[test]
fn several_are_taken_at_one_moment() {
    let bench = ZfsBench::in_a_file("moment");
    let pool = bench.pool();
    let (a, b) = (files(&*pool), files(&*pool));
    let open = |id| File::create(pool.path(id).unwrap().join("n")).unwrap();
    let (first, second) = (open(&a), open(&b));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                first.write_all_at(&n.to_le_bytes(), 0).unwrap();
                second.write_all_at(&n.to_le_bytes(), 0).unwrap();
            }
            n
        }
    });
    let mut moments = Vec::new();
    for _ in 0..5 {
        let (x, y) = (SnapshotId::random(), SnapshotId::random());
        pool.snapshot(&[(&a, &x), (&b, &y)]).unwrap();
        moments.push((x, y));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 100);
    for (x, y) in moments {
        let read = |id, snapshot| {
            let path = pool.snapshot_path(id, snapshot).unwrap().join("n");
            let bytes = fs::read(path).unwrap();
            bytes.try_into().map_or(0, u64::from_le_bytes)
        };
        let (x, y) = (read(&a, &x), read(&b, &y));
        // The second is written after the first.
        assert!(
            x == y || x == y + 1,
            "{x} and {y} were never there together"
        );
    }
}

#[test]
fn a_snapshot_that_is_read_stays_readable_and_goes_later() {
    let bench = ZfsBench::in_a_file("read");
    let pool = bench.pool();
    let id = files(&*pool);
    write(&pool.path(&id).unwrap().join("a"), 1, 3 * M).unwrap();
    let kept = taken(&*pool, &id);
    fs::remove_file(pool.path(&id).unwrap().join("a")).unwrap();
    let view = pool.snapshot_path(&id, &kept).unwrap();
    let open = File::open(view.join("a")).unwrap();
    pool.remove_snapshot(&id, &kept).unwrap();
    assert_eq!(pool.datasets().unwrap()[0].snapshots, []);
    assert_eq!(
        pool.snapshot_path(&id, &kept).unwrap_err().kind,
        Kind::NotFound
    );
    let mut bytes = vec![0; M as usize];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, noise(1, M));
    drop(open);
    pool.sweep().unwrap();
    assert!(!view.exists());
    assert!(
        pool.usage(&id).unwrap().snapshots < M,
        "{:?}",
        pool.usage(&id)
    );
}

#[test]
fn a_dataset_in_use_is_not_rolled_back_nor_removed() {
    let bench = ZfsBench::in_a_file("in-use");
    let pool = bench.pool();
    let id = files(&*pool);
    let kept = taken(&*pool, &id);
    let open = File::create(pool.path(&id).unwrap().join("open")).unwrap();
    assert_eq!(pool.rollback(&id, &kept).unwrap_err().kind, Kind::Conflict);
    assert_eq!(pool.remove(&id).unwrap_err().kind, Kind::Conflict);
    assert!(pool.path(&id).unwrap().join("open").exists());
    drop(open);
    pool.rollback(&id, &kept).unwrap();
    assert!(!pool.path(&id).unwrap().join("open").exists());
    pool.remove(&id).unwrap();
}

#[test]
fn an_administrators_snapshot_stays() {
    let bench = ZfsBench::in_a_file("manual");
    let pool = bench.pool();
    let id = files(&*pool);
    let first = taken(&*pool, &id);
    let root = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let branch = root
        .lines()
        .find_map(|line| {
            line.split(' ')
                .next()
                .filter(|name| name.contains(id.as_str()))
        })
        .unwrap();
    let manual = format!("{branch}@by-hand");
    assert!(quiet("zfs", &["snapshot", &manual]));
    assert_eq!(
        pool.datasets().unwrap()[0].snapshots,
        std::slice::from_ref(&first)
    );
    pool.rollback(&id, &first).unwrap();
    pool.sweep().unwrap();
    assert!(quiet("zfs", &["list", &manual]));
    let copy = VolumeId::random();
    let origin = Origin {
        dataset: &id,
        snapshot: None,
    };
    pool.create(&copy, Content::Files, Some(origin)).unwrap();
    // A copy in use feels nothing of it.
    let _open = File::create(pool.path(&copy).unwrap().join("open")).unwrap();
    pool.remove(&id).unwrap();
    assert!(!quiet("zfs", &["list", &manual]), "it goes with its volume");
    assert_eq!(pool.datasets().unwrap()[0].snapshots, []);
}
