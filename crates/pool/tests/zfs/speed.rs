//! How long snapshot, rollback and clone take. Run by hand:
//! `cargo nextest run -p pool --test zfs --run-ignored only speed --no-capture`.

use std::time::{Duration, Instant};

use pool::{Origin, Pool, conformance::Bench as _};
use types::{SnapshotId, VolumeId, volume::Content};

use crate::daemon::ZfsBench;

/// The median of a few runs.
fn timed(what: &str, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("  {what}: {:.1?} (worst {:.1?})", times[4], times[8]);
    times[4]
}

fn measure(pool: &dyn Pool, id: &VolumeId) {
    let mut taken = Vec::new();
    let snapshot = timed("snapshot", || {
        let name = SnapshotId::random();
        pool.snapshot(&[(id, &name)]).unwrap();
        taken.push(name);
    });
    let mut turn = 0;
    let rollback = timed("rollback", || {
        turn += 1;
        pool.rollback(id, &taken[turn % taken.len()]).unwrap();
    });
    let clone = timed("clone", || {
        let origin = Origin {
            dataset: id,
            snapshot: Some(&taken[0]),
        };
        let copy = VolumeId::random();
        pool.create(&copy, Content::Files, Some(origin)).unwrap();
    });
    timed("path", || drop(pool.path(id).unwrap()));
    timed("charged", || drop(pool.charged().unwrap()));
    timed("datasets", || drop(pool.datasets().unwrap()));
    // Far above what a quiet machine takes: only a wait that should not be there fails it.
    for time in [snapshot, rollback, clone] {
        assert!(time < Duration::from_secs(10), "{time:?}");
    }
}

#[test]
#[ignore = "measures"]
fn speed() {
    let bench = ZfsBench::in_a_file("speed");
    let pool = bench.pool();
    let make = || {
        let id = VolumeId::random();
        pool.create(&id, Content::Files, None).unwrap();
        id
    };
    println!("an empty dataset");
    measure(&*pool, &make());
    let id = make();
    let path = pool.path(&id).unwrap();
    for directory in 0..20 {
        let directory = path.join(format!("{directory}"));
        std::fs::create_dir(&directory).unwrap();
        for file in 0..1000 {
            std::fs::write(directory.join(format!("{file}")), [7; 4096]).unwrap();
        }
    }
    println!("20,000 files");
    measure(&*pool, &id);
    let id = make();
    for _ in 0..500 {
        pool.snapshot(&[(&id, &SnapshotId::random())]).unwrap();
    }
    println!("500 snapshots");
    measure(&*pool, &id);
}
