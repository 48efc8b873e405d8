//! Checks of content: what is written, snapshots, rollbacks, copies and differences.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::Duration,
};

use types::{SnapshotId, VolumeId, error::Kind, volume::Content};

use super::*;

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

pub(super) fn write_at(image: &Path, seed: u64, at: u64, length: u64) {
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
    assert_eq!(
        pool.datasets().unwrap()[0].snapshots,
        std::slice::from_ref(&kept)
    );
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

/// What was written after a snapshot and is still in memory gets into no snapshot by a rollback.
pub fn rollback_before_writeback(bench: &mut dyn Bench) {
    let pool = bench.pool();
    let (id, path) = files(&*pool);
    write(&path.join("file"), 1, M).unwrap();
    // The clock that times of files come from moves in steps.
    thread::sleep(Duration::from_millis(50));
    let (state, first) = (live(&*pool, &id), taken(&*pool, &id));
    let second = taken(&*pool, &id);
    let mut file = File::options()
        .append(true)
        .open(path.join("file"))
        .unwrap();
    file.write_all(&noise(2, M)).unwrap();
    drop(file);
    pool.rollback(&id, &first).unwrap();
    for snapshot in [&first, &second] {
        let path = pool.snapshot_path(&id, snapshot).unwrap();
        assert_eq!(contents(&path), state);
    }
    assert_eq!(live(&*pool, &id), state);
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
