//! How long snapshot, rollback and clone take on large datasets. Takes minutes and gigabytes, so
//! it is run by hand: `cargo nextest run -p pool --release --run-ignored only speed --no-capture`.
#![allow(clippy::unwrap_used)] // helpers of tests, too

mod common;

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use common::{BtrfsBench, G, M};
use pool::{
    Origin, Pool,
    conformance::{Bench as _, noise},
};
use rand::Rng as _;
use types::{SnapshotId, VolumeId, volume::Content};

/// The median of a few runs.
fn timed(what: &str, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..7)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("  {what}: {:.1?} (worst {:.1?})", times[3], times[6]);
    times[3]
}

fn measure(pool: &dyn Pool, id: &VolumeId, content: Content) {
    let mut taken = Vec::new();
    let snapshot = timed("snapshot", || {
        let snapshot = SnapshotId::random();
        pool.snapshot(&[(id, &snapshot)]).unwrap();
        taken.push(snapshot);
    });
    let safety = SnapshotId::random();
    pool.snapshot(&[(id, &safety)]).unwrap();
    let rollback = timed("rollback that can be undone (with its snapshot)", || {
        pool.rollback(id, &taken[3]).unwrap();
        let safety = SnapshotId::random();
        pool.snapshot(&[(id, &safety)]).unwrap();
    });
    let clone = timed("clone", || {
        let origin = Origin {
            dataset: id,
            snapshot: Some(&taken[0]),
        };
        pool.create(&VolumeId::random(), content, Some(origin))
            .unwrap();
    });
    for (what, time) in [
        ("snapshot", snapshot),
        ("rollback", rollback),
        ("clone", clone),
    ] {
        assert!(time < Duration::from_millis(100), "{what}: {time:?}");
    }
    let began = Instant::now();
    let usage = pool.usage(id).unwrap();
    println!(
        "  usage of an origin with {} snapshots: {:.1?}: {usage:?}",
        taken.len(),
        began.elapsed()
    );
    let began = Instant::now();
    pool.rollback(id, &taken[3]).unwrap();
    println!("  rollback: {:.1?}", began.elapsed());
    let began = Instant::now();
    pool.rollback(id, &taken[2]).unwrap();
    println!("  rollback at once again: {:.1?}", began.elapsed());
    let began = Instant::now();
    pool.reclaim(Duration::from_secs(60)).unwrap();
    println!("  reclaimed: {:.1?}", began.elapsed());
    timed("charged", || drop(pool.charged().unwrap()));
    timed("list", || drop(pool.datasets().unwrap()));
}

#[test]
#[ignore = "takes minutes"]
fn speed_of_a_million_files() {
    let bench = BtrfsBench::new("speed-files", 20 * G);
    let pool = bench.pool();
    let empty = VolumeId::random();
    pool.create(&empty, Content::Files, None).unwrap();
    println!("an empty dataset");
    measure(&*pool, &empty, Content::Files);
    let id = VolumeId::random();
    pool.create(&id, Content::Files, None).unwrap();
    let path = pool.path(&id).unwrap();
    let began = Instant::now();
    let text = noise(1, 4096);
    for directory in 0..1000 {
        let directory = path.join(format!("{directory}"));
        std::fs::create_dir(&directory).unwrap();
        for file in 0..1000 {
            std::fs::write(directory.join(format!("{file}")), &text).unwrap();
        }
    }
    println!("a million files of 4 KiB, made in {:.1?}", began.elapsed());
    pool.reclaim(Duration::from_secs(1)).unwrap();
    settle(&path);
    let began = Instant::now();
    let usage = pool.usage(&id).unwrap();
    println!("  usage: {:.1?}: {usage:?}", began.elapsed());
    measure(&*pool, &id, Content::Files);
    let kept = pool
        .datasets()
        .unwrap()
        .into_iter()
        .find(|found| found.id == id)
        .unwrap()
        .snapshots
        .remove(0);
    let began = Instant::now();
    assert_eq!(pool.diff(&id, &kept, None).unwrap(), []);
    println!("  diff of nothing: {:.1?}", began.elapsed());
    let path = pool.path(&id).unwrap();
    for file in 0..10 {
        std::fs::write(path.join(format!("{file}/{file}")), b"changed").unwrap();
    }
    let began = Instant::now();
    assert_eq!(pool.diff(&id, &kept, None).unwrap().len(), 10);
    println!("  diff of ten files: {:.1?}", began.elapsed());
}

#[test]
#[ignore = "takes minutes"]
fn speed_of_a_fragmented_image() {
    let bench = BtrfsBench::new("speed-image", 20 * G);
    let pool = bench.pool();
    let id = VolumeId::random();
    let content = Content::Image { bytes: 50 * G };
    pool.create(&id, content, None).unwrap();
    let image = File::options()
        .write(true)
        .open(pool.path(&id).unwrap())
        .unwrap();
    let began = Instant::now();
    let mut random = rand::rng();
    let text = noise(1, 32 << 10);
    for _ in 0..(5 * G / (32 << 10)) {
        let at = random.random_range(0..50 * G / 4096 - 8) * 4096;
        image.write_all_at(&text, at).unwrap();
    }
    image.sync_all().unwrap();
    drop(image);
    println!(
        "a sparse image of 50 GB with 5 GB in pieces of 32 KiB, made in {:.1?}",
        began.elapsed()
    );
    settle(&pool.path(&id).unwrap());
    let began = Instant::now();
    let usage = pool.usage(&id).unwrap();
    println!("  usage: {:.1?}: {usage:?}", began.elapsed());
    assert!(
        usage.live > 4 * G && usage.live < 5 * G + 300 * M,
        "{usage:?}"
    );
    measure(&*pool, &id, content);
}

fn settle(path: &Path) {
    let file = File::open(path).unwrap();
    rustix::fs::syncfs(&file).unwrap();
}
