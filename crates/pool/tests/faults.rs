//! Every fault point: a child process dies there, by itself or with the whole machine, and the
//! pool is then as before the call or as after it; the same call again finishes it.
#![allow(clippy::unwrap_used)] // helpers of tests, too

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{M, Place};
use fault::POINTS;
use pool::{
    Engine, Growth, Origin, Pool, PoolSpec, Source,
    conformance::{contents, noise, write},
    loopdev,
};
use types::{Result, SnapshotId, VolumeId, volume::Content};

const SCENE: &str = "POOL_TEST_SCENE";
const IMAGES: [&str; 4] = ["pool.img", "one", "two", "three"];
const PLACE: &str = "POOL_TEST_PLACE";

fn volume(digit: char) -> VolumeId {
    digit.to_string().repeat(64).parse().unwrap()
}

fn snapshot(digit: char) -> SnapshotId {
    digit.to_string().repeat(64).parse().unwrap()
}

/// The operations that a process dies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    Create,
    Clone,
    Remove,
    Snapshot,
    Batch,
    RemoveSnapshot,
    Rollback,
    /// One whose old content has a snapshot, as it has when it can be undone.
    SafeRollback,
    Resize,
    Limit,
    MakeInFile,
    MakeOnDevices,
    GrowFile,
    GrowDevices,
}

impl Scene {
    /// The operations that come to a point.
    fn of(point: &str) -> &'static [Self] {
        let parts: Vec<&str> = point.split('.').collect();
        match (parts[1], parts[2]) {
            ("create", _) => &[Self::Create, Self::Clone],
            ("remove", _) => &[Self::Remove],
            ("snapshot", "taken") => &[Self::Snapshot],
            ("snapshot", _) => &[Self::Batch],
            ("remove_snapshot", _) => &[Self::RemoveSnapshot],
            ("rollback", "frozen" | "flushed" | "kept") => &[Self::SafeRollback],
            ("rollback", _) => &[Self::Rollback, Self::SafeRollback],
            ("resize", _) => &[Self::Resize],
            ("limit", _) => &[Self::Limit],
            ("pool", "named") => &[Self::MakeInFile],
            ("pool", _) => &[Self::MakeInFile, Self::MakeOnDevices],
            ("grow", "file") => &[Self::GrowFile],
            ("grow", "device") => &[Self::GrowDevices],
            _ => panic!("no operation is known that comes to {point}"),
        }
    }
    fn makes_pool(self) -> bool {
        matches!(self, Self::MakeInFile | Self::MakeOnDevices)
    }
    fn on_devices(self) -> bool {
        matches!(self, Self::MakeOnDevices | Self::GrowDevices)
    }
    /// The one that a child was told, by its name.
    fn named(name: &str) -> Self {
        POINTS
            .iter()
            .filter(|point| point.starts_with("btrfs."))
            .flat_map(|point| Self::of(point))
            .copied()
            .find(|scene| format!("{scene:?}") == name)
            .unwrap()
    }
}

fn image(name: &str, place: &Path) -> PathBuf {
    place.join(name)
}

/// The pool of a scene; its devices are loops of files in the place, attached by `attach`.
fn spec(scene: Scene, place: &Path) -> PoolSpec {
    let source = if scene.on_devices() {
        Source::Devices {
            paths: ["one", "two"]
                .map(|name| attach(&image(name, place)))
                .to_vec(),
            mirror: true,
        }
    } else {
        Source::File {
            path: image("pool.img", place),
            bytes: 256 * M,
        }
    };
    PoolSpec {
        name: "test".parse().unwrap(),
        engine: Engine::Btrfs,
        source,
    }
}

fn attach(file: &Path) -> PathBuf {
    if !file.exists() {
        File::create(file).unwrap().set_len(256 * M).unwrap();
    }
    loopdev::attach(file, loopdev::Options::default()).unwrap()
}

/// What there is before the operation: two datasets, one with two snapshots and a dirty state,
/// and an image.
fn prepare(pool: &dyn Pool) {
    let (a, b, i) = (volume('a'), volume('b'), volume('f'));
    pool.create(&a, Content::Files, None).unwrap();
    pool.create(&b, Content::Files, None).unwrap();
    pool.create(&i, Content::Image { bytes: 16 * M }, None)
        .unwrap();
    let path = pool.path(&a).unwrap();
    for (step, digit) in ['1', '2'].into_iter().enumerate() {
        write(&path.join("file"), step as u64, 300_000).unwrap();
        write(&path.join(format!("file-{step}")), step as u64, 3000).unwrap();
        pool.snapshot(&[(&a, &snapshot(digit))]).unwrap();
    }
    write(&path.join("file"), 77, 400_000).unwrap();
    write(&pool.path(&b).unwrap().join("other"), 5, 5000).unwrap();
    pool.set_limit(&a, Some(32 * M)).unwrap();
    // Lasting, also when the machine dies.
    rustix::fs::syncfs(File::open(path).unwrap()).unwrap();
}

fn operate(scene: Scene, pool: &dyn Pool, place: &Path) -> Result<()> {
    let (a, b, c) = (volume('a'), volume('b'), volume('c'));
    match scene {
        Scene::Create => pool.create(&c, Content::Image { bytes: 8 * M }, None),
        Scene::Clone => {
            let kept = snapshot('1');
            let origin = Origin {
                dataset: &a,
                snapshot: Some(&kept),
            };
            pool.create(&c, Content::Files, Some(origin))
        }
        Scene::Remove => pool.remove(&a),
        Scene::Snapshot => pool.snapshot(&[(&a, &snapshot('3'))]),
        Scene::Batch => pool.snapshot(&[
            (&a, &snapshot('3')),
            (&b, &snapshot('4')),
            (&a, &snapshot('5')),
        ]),
        Scene::RemoveSnapshot => pool.remove_snapshot(&a, &snapshot('1')),
        Scene::Rollback | Scene::SafeRollback => pool.rollback(&a, &snapshot('1')),
        Scene::Resize => pool.resize(&volume('f'), 24 * M),
        Scene::Limit => pool.set_limit(&a, Some(16 * M)),
        Scene::GrowFile => pool.grow(&Growth::Bytes(512 * M)),
        Scene::GrowDevices => pool.grow(&Growth::Devices(vec![attach(&image("three", place))])),
        Scene::MakeInFile | Scene::MakeOnDevices => Ok(()),
    }
}

/// Its content, its snapshots with their checksums, its own, and its limit.
type Dataset = (Content, BTreeMap<SnapshotId, u64>, u64, Option<u64>);

/// All that a user can see of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    datasets: BTreeMap<VolumeId, Dataset>,
    total: u64,
}

fn state(pool: &dyn Pool) -> State {
    let hash = |path: &Path| {
        let mut sum = 0u64;
        for (name, hash) in contents(path) {
            sum = sum.rotate_left(7) ^ hash ^ name.as_os_str().len() as u64;
        }
        sum
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
    State {
        datasets: datasets.collect(),
        total: pool.status().unwrap().total,
    }
}

/// What the child does: the same as a test run does, but it dies on the way.
#[test]
fn scene_in_a_child() {
    let Ok(name) = std::env::var(SCENE) else {
        return; // not a child
    };
    let scene = Scene::named(&name);
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let spec = spec(scene, &place);
    let mount = place.join("mount");
    let pool = if scene.makes_pool() {
        pool::create(&spec, &mount).unwrap()
    } else {
        pool::open(&spec, &mount).unwrap()
    };
    operate(scene, &*pool, &place).unwrap();
}

/// Copies the pool's files as the disk has them at one moment, and puts the copies in their
/// place: what a machine finds that died now.
fn die_with_the_machine(place: &Place) {
    for name in IMAGES {
        let path = image(name, place.path());
        if !path.exists() {
            continue;
        }
        let copy = path.with_extension("copy");
        loop {
            let generation = |path: &Path| {
                let mut bytes = [0; 8];
                File::open(path)
                    .unwrap()
                    .read_exact_at(&mut bytes, (64 << 10) + 0x48)
                    .map(|()| bytes)
                    .ok()
            };
            let before = generation(&path);
            common::run(
                "cp",
                &[
                    "--sparse=always",
                    path.to_str().unwrap(),
                    copy.to_str().unwrap(),
                ],
            );
            // A commit in between would have made a mixture of it.
            if generation(&path) == before {
                break;
            }
        }
    }
    place.clear();
    // A machine that died has nothing mounted any more; here the kernel may need a while.
    let deadline = Instant::now() + Duration::from_secs(60);
    for name in IMAGES {
        while loopdev::find(&image(name, place.path())).unwrap().is_some() {
            assert!(Instant::now() < deadline, "{name} stays in use");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    for name in IMAGES {
        let path = image(name, place.path());
        let copy = path.with_extension("copy");
        if copy.exists() {
            fs::rename(copy, &path).unwrap();
            if name != "pool.img" {
                // Devices are there when a machine starts.
                attach(&path);
            }
        }
    }
}

fn walk(point: &str, scene: Scene, machine: bool) {
    let about = format!("{scene:?} dies at {point}, with the machine: {machine}");
    let place = Place::new("fault");
    let mount = place.mount();
    let before = (!scene.makes_pool()).then(|| {
        let pool = pool::create(&spec(scene, place.path()), &mount).unwrap();
        prepare(&*pool);
        if scene == Scene::SafeRollback {
            std::thread::sleep(Duration::from_millis(20));
            pool.snapshot(&[(&volume('a'), &snapshot('9'))]).unwrap();
        }
        state(&*pool)
    });
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "scene_in_a_child", "--nocapture"])
        .env("KRAUD_FAULT", point)
        .env(SCENE, format!("{scene:?}"))
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
        die_with_the_machine(&place);
    }
    let spec = spec(scene, place.path());
    let again = |what: &str| -> Arc<dyn Pool> {
        let opened = if scene.makes_pool() && what == "after" {
            pool::create(&spec, &mount)
        } else {
            pool::open(&spec, &mount)
        };
        opened.unwrap_or_else(|error| panic!("{about}: {what}: {error}"))
    };
    let pool = again("after");
    pool.sweep()
        .unwrap_or_else(|error| panic!("{about}: sweep: {error}"));
    let found = state(&*pool);
    operate(scene, &*pool, place.path()).unwrap_or_else(|error| panic!("{about}: again: {error}"));
    let after = state(&*pool);
    if let Some(before) = before {
        assert!(
            found == before || found == after,
            "{about}: neither old nor new:\n{before:?}\n{found:?}\n{after:?}"
        );
        assert_ne!(before, after, "{about}: the operation does something");
    }
    // Nothing is left over, and it works on.
    pool.sweep().unwrap();
    for entry in fs::read_dir(pool.status().unwrap().root).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            name.to_str().unwrap().parse::<VolumeId>().is_ok(),
            "{about}: {name:?} is left"
        );
    }
    let d = volume('d');
    pool.create(&d, Content::Files, None).unwrap();
    fs::write(pool.path(&d).unwrap().join("x"), noise(1, 1000)).unwrap();
    if scene == Scene::Limit {
        let path = pool.path(&volume('a')).unwrap();
        assert!(
            write(&path.join("more"), 1, 20 * M).is_err(),
            "{about}: the limit is in force"
        );
    }
    for found in pool.datasets().unwrap() {
        pool.remove(&found.id).unwrap();
    }
    pool.reclaim(Duration::from_secs(3)).unwrap();
    pool.destroy()
        .unwrap_or_else(|error| panic!("{about}: destroy: {error}"));
}

#[test]
fn all_points() {
    let mut walks = Vec::new();
    for point in POINTS.iter().filter(|point| point.starts_with("btrfs.")) {
        for scene in Scene::of(point) {
            walks.extend([(point, *scene, false), (point, *scene, true)]);
        }
    }
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((point, scene, machine)) =
                    walks.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let walked = std::panic::catch_unwind(|| walk(point, *scene, *machine));
                    if walked.is_err() {
                        failed.lock().unwrap().push((point, scene, machine));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(walks.len() > 2 * 23, "all points are walked through");
}
