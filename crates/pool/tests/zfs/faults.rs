//! Every fault point of the engine: a child dies there, by itself or together with the daemon
//! of ZFS, which is a machine that dies. The pool is then as before the call or as after it,
//! and the same call again finishes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fault::POINTS;
use pool::{
    Engine, Growth, Origin, Pool, PoolSpec, Source,
    conformance::{contents, write},
};
use types::{Result, SnapshotId, VolumeId, volume::Content};

use crate::{
    common::{M, Place},
    daemon::{Daemon, detach_all, sparse},
};

const SCENE: &str = "POOL_TEST_ZFS_SCENE";
const PLACE: &str = "POOL_TEST_ZFS_PLACE";

fn volume(digit: char) -> VolumeId {
    digit.to_string().repeat(64).parse().unwrap()
}

fn snapshot(digit: char) -> SnapshotId {
    digit.to_string().repeat(64).parse().unwrap()
}

/// The operations that a process dies in, and the points that each comes to.
const SCENES: &[(&str, &[&str])] = &[
    (
        "create",
        &["create.made", "create.filled", "create.finished"],
    ),
    ("image", &["create.made", "create.filled"]),
    (
        "clone",
        &[
            "create.pinned",
            "clone.made",
            "create.filled",
            "create.finished",
        ],
    ),
    ("clone of snapshot", &["clone.made", "create.filled"]),
    (
        "remove",
        &[
            "remove.marked",
            "tidy.hidden",
            "tidy.discarded",
            "tidy.promoted",
            "tidy.destroyed",
        ],
    ),
    ("snapshot", &["snapshot.taken"]),
    (
        "snapshots",
        &[
            "snapshot.announced",
            "snapshot.all",
            "snapshot.named",
            "snapshot.taken",
        ],
    ),
    (
        "remove snapshot",
        &["tidy.hidden", "tidy.discarded", "remove_snapshot.gone"],
    ),
    (
        "remove old snapshot",
        &["remove_snapshot.gone", "tidy.rewound", "tidy.noted"],
    ),
    (
        "rollback",
        &[
            "rollback.unmounted",
            "clone.made",
            "rollback.cloned",
            "rollback.switched",
            "tidy.promoted",
        ],
    ),
    (
        "undo",
        &["rollback.switched", "tidy.promoted", "tidy.destroyed"],
    ),
    ("resize", &["resize.grown", "resize.done"]),
    ("view", &["view.made"]),
    ("sweep", &["tidy.rewound", "tidy.noted"]),
    ("make", &["pool.file", "pool.formatted", "pool.made"]),
    ("grow", &["grow.file"]),
    ("add", &["grow.device"]),
    ("destroy", &["pool.destroyed"]),
];

fn spec(scene: &str, place: &Path) -> PoolSpec {
    let source = if scene == "add" {
        Source::Devices {
            paths: ["one", "two"]
                .map(|name| sparse(place, name, 128 * M))
                .into(),
            mirror: true,
        }
    } else {
        Source::File {
            path: place.join("pool.img"),
            bytes: 128 * M,
        }
    };
    PoolSpec {
        name: "test".parse().unwrap(),
        engine: Engine::Zfs,
        source,
    }
}

/// `a` was rolled back, so its snapshot 2 is in another branch, of which `b` is a copy; `c` is
/// one of its live content. `e` was rolled back as well and has no copies. `f` is an image.
fn prepare(pool: &dyn Pool) {
    let [a, b, c, e, f] = ['a', 'b', 'c', 'e', 'f'].map(volume);
    for (id, digits) in [(&a, ['1', '2', '3']), (&e, ['4', '5', '6'])] {
        pool.create(id, Content::Files, None).unwrap();
        let path = pool.path(id).unwrap();
        for (step, digit) in digits.into_iter().enumerate() {
            write(&path.join("file"), step as u64, 300_000).unwrap();
            write(&path.join(format!("file-{step}")), step as u64, 3000).unwrap();
            pool.snapshot(&[(id, &snapshot(digit))]).unwrap();
        }
        write(&path.join("file"), 77, 400_000).unwrap();
        pool.set_limit(id, Some(32 * M)).unwrap();
    }
    pool.rollback(&a, &snapshot('1')).unwrap();
    pool.rollback(&e, &snapshot('4')).unwrap();
    let second = snapshot('2');
    let copy = |to: &VolumeId, snapshot| {
        let origin = Origin {
            dataset: &a,
            snapshot,
        };
        pool.create(to, Content::Files, Some(origin)).unwrap();
    };
    copy(&b, Some(&second));
    copy(&c, None);
    pool.snapshot(&[(&c, &snapshot('7'))]).unwrap();
    write(&pool.path(&c).unwrap().join("own"), 8, 5000).unwrap();
    pool.create(&f, Content::Image { bytes: 16 * M }, None)
        .unwrap();
}

fn operate(scene: &str, pool: &dyn Pool, place: &Path) -> Result<()> {
    let [a, c, d, e] = ['a', 'c', 'd', 'e'].map(volume);
    let second = snapshot('2');
    let copy = |snapshot| {
        let origin = Origin {
            dataset: &a,
            snapshot,
        };
        pool.create(&d, Content::Files, Some(origin))
    };
    match scene {
        "create" => pool.create(&d, Content::Files, None),
        "image" => pool.create(&d, Content::Image { bytes: 8 * M }, None),
        "clone" => copy(None),
        "clone of snapshot" => copy(Some(&second)),
        "remove" => pool.remove(&a),
        "snapshot" => pool.snapshot(&[(&a, &snapshot('8'))]),
        "snapshots" => pool.snapshot(&[(&a, &snapshot('8')), (&c, &snapshot('9'))]),
        "remove snapshot" => pool.remove_snapshot(&a, &second),
        "remove old snapshot" => pool.remove_snapshot(&e, &snapshot('6')),
        "rollback" => pool.rollback(&a, &second),
        "undo" => pool.rollback(&e, &snapshot('6')),
        "resize" => pool.resize(&volume('f'), 24 * M),
        "view" => pool.snapshot_path(&a, &second).map(drop),
        "sweep" => pool.sweep(),
        "grow" => pool.grow(&Growth::Bytes(256 * M)),
        "add" => pool.grow(&Growth::Devices(
            ["three", "four"]
                .map(|name| sparse(place, name, 128 * M))
                .into(),
        )),
        "destroy" => {
            for found in pool.datasets()? {
                pool.remove(&found.id)?;
            }
            pool.destroy()
        }
        _ => Ok(()),
    }
}

type Seen = BTreeMap<VolumeId, (Content, BTreeMap<SnapshotId, u64>, u64, Option<u64>)>;

/// All that a user can see of a pool.
fn state(pool: &dyn Pool) -> (Seen, u64) {
    let hash = |path: &Path| {
        contents(path).into_iter().fold(0u64, |sum, (name, hash)| {
            sum.rotate_left(7) ^ hash ^ name.as_os_str().len() as u64
        })
    };
    let datasets = pool.datasets().unwrap().into_iter().map(|found| {
        let snapshots = found
            .snapshots
            .iter()
            .map(|s| (s.clone(), hash(&pool.snapshot_path(&found.id, s).unwrap())))
            .collect();
        let live = hash(&pool.path(&found.id).unwrap());
        let limit = pool.usage(&found.id).unwrap().limit;
        (found.id, (found.content, snapshots, live, limit))
    });
    // Metadata takes a little of it.
    (datasets.collect(), pool.status().unwrap().total / (16 * M))
}

fn in_child(scene: &str, place: &Path) {
    let spec = spec(scene, place);
    let mount = place.join("mount");
    let pool = if scene == "make" {
        pool::create(&spec, &mount).unwrap()
    } else {
        pool::open(&spec, &mount).unwrap()
    };
    operate(scene, &*pool, place).unwrap();
}

fn walk(daemon: &mut Daemon, scene: &str, point: &str, machine: bool) {
    let about = format!("{scene} dies at {point}, with the machine: {machine}");
    let place = Place::new("zfs-fault");
    let mount = place.mount();
    let spec = spec(scene, place.path());
    let before = (scene != "make").then(|| {
        let pool = pool::create(&spec, &mount).unwrap();
        prepare(&*pool);
        // Looking at snapshots makes their views.
        let state = (!matches!(scene, "sweep" | "view")).then(|| state(&*pool));
        state.unwrap_or_default()
    });
    // Also when the file was replaced by now.
    let child = Command::new("/proc/self/exe")
        .args(["--exact", "faults::all_points", "--nocapture"])
        .env("KRAUD_FAULT", point)
        .env(SCENE, scene)
        .env(PLACE, place.path())
        .output()
        .unwrap();
    const SIGABRT: i32 = 6;
    assert_eq!(
        child.status.signal(),
        Some(SIGABRT),
        "{about}: the point was not reached: {}",
        String::from_utf8_lossy(&child.stderr)
    );
    if machine {
        daemon.kill();
        detach_all(place.path());
        daemon.run();
    }
    if scene == "destroy" {
        if let Ok(pool) = pool::open(&spec, &mount) {
            pool.destroy().unwrap();
        }
    } else {
        finish(scene, &about, &spec, &place, before);
    }
    detach_all(place.path());
}

fn finish(scene: &str, about: &str, spec: &PoolSpec, place: &Place, before: Option<(Seen, u64)>) {
    let mount = place.mount();
    let opened = if scene == "make" {
        pool::create(spec, &mount)
    } else {
        pool::open(spec, &mount)
    };
    let pool: Arc<dyn Pool> = opened.unwrap_or_else(|error| panic!("{about}: open: {error}"));
    pool.sweep()
        .unwrap_or_else(|error| panic!("{about}: sweep: {error}"));
    let found = state(&*pool);
    operate(scene, &*pool, place.path()).unwrap_or_else(|error| panic!("{about}: again: {error}"));
    pool.sweep().unwrap();
    let after = state(&*pool);
    match before {
        Some(before) if !matches!(scene, "sweep" | "view") => {
            assert!(
                found == before || found == after,
                "{about}: neither old nor new:\n{before:?}\n{found:?}\n{after:?}"
            );
            assert_ne!(before, after, "{about}: the operation does something");
        }
        _ => assert_eq!(found, after, "{about}"),
    }
    check_layout(about, &*pool);
    let new = volume('0');
    pool.create(&new, Content::Files, None).unwrap();
    File::create(pool.path(&new).unwrap().join("x")).unwrap();
    for found in pool.datasets().unwrap() {
        pool.remove(&found.id)
            .unwrap_or_else(|error| panic!("{about}: remove {:?}: {error}", found.id));
    }
    pool.reclaim(Duration::from_secs(3)).unwrap();
    let mounted = fs::read_dir(pool.status().unwrap().root).unwrap();
    assert_eq!(mounted.count(), 0, "{about}: all is gone");
    pool.destroy()
        .unwrap_or_else(|error| panic!("{about}: destroy: {error}"));
    assert!(!place.file().exists(), "{about}");
}

/// Nothing is on the pool that the module's invariants do not name.
fn check_layout(about: &str, pool: &dyn Pool) {
    let ids: BTreeSet<String> = pool
        .datasets()
        .unwrap()
        .iter()
        .map(|found| found.id.to_string())
        .collect();
    let list = Command::new("/usr/local/sbin/zfs")
        .args(["get", "-H", "-r", "-o", "name,value", "kraud:state"])
        .output()
        .unwrap();
    for line in String::from_utf8(list.stdout).unwrap().lines() {
        let (name, mark) = line.split_once('\t').unwrap();
        let Some((_, branch)) = name.split_once("/data/") else {
            assert!(!name.contains('@'), "{about}: {name} is left");
            continue;
        };
        if branch.starts_with("view-") || branch.contains('@') {
            continue;
        }
        let id = branch.split('.').next().unwrap();
        assert!(ids.contains(id), "{about}: {name} is left");
        assert!(
            mark == "live" || mark.starts_with("old:"),
            "{about}: {line}"
        );
    }
}

#[test]
fn all_points() {
    if let Ok(scene) = std::env::var(SCENE) {
        let place = std::env::var_os(PLACE).unwrap();
        return in_child(&scene, Path::new(&place));
    }
    let mut walks = Vec::new();
    let mut reached = BTreeSet::new();
    // A walk takes seconds of zfs-fuse: each point is walked once, by turns with a process and
    // with a machine that dies there. All ways to each point are for a thorough run.
    let thorough = std::env::var_os("KRAUD_TEST_THOROUGH").is_some();
    for (scene, points) in SCENES {
        for point in *points {
            let point = format!("zfs.{point}");
            let is_new = reached.insert(point.clone());
            if thorough {
                walks.push((*scene, point.clone(), false));
                walks.push((*scene, point, true));
            } else if is_new {
                let machine = reached.len() % 2 == 0;
                walks.push((*scene, point, machine));
            }
        }
    }
    let known = POINTS.iter().filter(|point| point.starts_with("zfs."));
    assert_eq!(reached, known.map(|point| (*point).to_owned()).collect());
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut daemon = Daemon::start();
                while let Some((scene, point, machine)) =
                    walks.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        walk(&mut daemon, scene, point, *machine);
                    }));
                    if walked.is_err() {
                        // Nothing of it meets the next.
                        daemon.kill();
                        daemon.run();
                        failed.lock().unwrap().push((scene, point, machine));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}
