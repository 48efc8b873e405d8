//! Checks of room: limits, use, and a pool that is full.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use types::{error::Kind, volume::Content};

use super::*;

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
