//! Random histories on a pool, against what they ought to lead to: all content is compared by
//! its hash after each step.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::Duration,
};

use pool::{
    Origin, Pool,
    conformance::{Bench as _, contents, noise, write},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use types::{SnapshotId, VolumeId, volume::Content};

use crate::{
    common::M,
    daemon::{ZfsBench, detach_all},
};

type Hashes = BTreeMap<PathBuf, u64>;

struct Volume {
    content: Content,
    live: Hashes,
    snapshots: BTreeMap<SnapshotId, (Content, Hashes)>,
}

struct Model {
    bench: ZfsBench,
    random: StdRng,
    volumes: BTreeMap<VolumeId, Volume>,
}

impl Model {
    fn pick(&mut self) -> Option<VolumeId> {
        let ids: Vec<_> = self.volumes.keys().cloned().collect();
        ids.choose(&mut self.random).cloned()
    }

    fn pick_snapshot(&mut self, id: &VolumeId) -> Option<SnapshotId> {
        let names: Vec<_> = self.volumes[id].snapshots.keys().cloned().collect();
        names.choose(&mut self.random).cloned()
    }

    fn create(&mut self) {
        let id = VolumeId::random();
        let content = if self.random.random_bool(0.7) {
            Content::Files
        } else {
            Content::Image { bytes: 4 * M }
        };
        let pool = self.bench.pool();
        pool.create(&id, content, None).unwrap();
        let live = contents(&pool.path(&id).unwrap());
        let snapshots = BTreeMap::new();
        let volume = Volume {
            content,
            live,
            snapshots,
        };
        self.volumes.insert(id, volume);
    }

    fn copy(&mut self) {
        let Some(dataset) = self.pick() else { return };
        let snapshot = if self.random.random_bool(0.5) {
            self.pick_snapshot(&dataset)
        } else {
            None
        };
        let from = &self.volumes[&dataset];
        let (content, live) = match &snapshot {
            Some(name) => from.snapshots[name].clone(),
            None => (from.content, from.live.clone()),
        };
        let id = VolumeId::random();
        let origin = Origin {
            dataset: &dataset,
            snapshot: snapshot.as_ref(),
        };
        self.bench
            .pool()
            .create(&id, content, Some(origin))
            .unwrap();
        let snapshots = BTreeMap::new();
        let volume = Volume {
            content,
            live,
            snapshots,
        };
        self.volumes.insert(id, volume);
    }

    fn write(&mut self) {
        let Some(id) = self.pick() else { return };
        let path = self.bench.pool().path(&id).unwrap();
        let seed = self.random.random();
        match self.volumes[&id].content {
            Content::Files => {
                let file = path.join(format!("{}", self.random.random_range(0..6)));
                if file.exists() && self.random.random_bool(0.3) {
                    fs::remove_file(file).unwrap();
                } else {
                    write(&file, seed, self.random.random_range(0..300_000)).unwrap();
                }
            }
            Content::Image { bytes } => {
                let at = self.random.random_range(0..bytes - 70_000);
                let file = File::options().write(true).open(&path).unwrap();
                file.write_all_at(&noise(seed, 60_000), at).unwrap();
                file.sync_all().unwrap();
            }
        }
        let live = contents(&path);
        self.volumes.get_mut(&id).unwrap().live = live;
    }

    fn resize(&mut self) {
        let Some(id) = self.pick() else { return };
        if let Content::Image { bytes } = self.volumes[&id].content {
            let content = Content::Image { bytes: bytes + M };
            let pool = self.bench.pool();
            pool.resize(&id, bytes + M).unwrap();
            let live = contents(&pool.path(&id).unwrap());
            let volume = self.volumes.get_mut(&id).unwrap();
            (volume.content, volume.live) = (content, live);
        }
    }

    fn snapshot(&mut self) {
        let mut wanted = BTreeMap::new();
        for _ in 0..self.random.random_range(1..3) {
            if let Some(id) = self.pick() {
                wanted.insert(id, SnapshotId::random());
            }
        }
        let pairs: Vec<_> = wanted.iter().collect();
        self.bench.pool().snapshot(&pairs).unwrap();
        for (id, name) in wanted {
            let volume = self.volumes.get_mut(&id).unwrap();
            let state = (volume.content, volume.live.clone());
            volume.snapshots.insert(name, state);
        }
    }

    fn with_snapshot(&mut self, act: impl Fn(&dyn Pool, &mut Volume, &VolumeId, &SnapshotId)) {
        let Some(id) = self.pick() else { return };
        let Some(name) = self.pick_snapshot(&id) else {
            return;
        };
        let pool = self.bench.pool();
        act(&*pool, self.volumes.get_mut(&id).unwrap(), &id, &name);
    }

    fn step(&mut self) -> &'static str {
        match self.random.random_range(0..100) {
            0..10 => {
                self.create();
                "create"
            }
            10..35 => {
                self.write();
                "write"
            }
            35..55 => {
                self.snapshot();
                "snapshot"
            }
            55..70 => {
                self.with_snapshot(|pool, volume, id, name| {
                    pool.rollback(id, name).unwrap();
                    (volume.content, volume.live) = volume.snapshots[name].clone();
                });
                "rollback"
            }
            70..78 => {
                self.copy();
                "copy"
            }
            78..88 => {
                self.with_snapshot(|pool, volume, id, name| {
                    pool.remove_snapshot(id, name).unwrap();
                    volume.snapshots.remove(name);
                });
                "remove a snapshot"
            }
            88..92 => {
                if let Some(id) = self.pick().filter(|_| self.volumes.len() > 2) {
                    self.bench.pool().remove(&id).unwrap();
                    self.volumes.remove(&id);
                }
                "remove"
            }
            92..94 => {
                self.resize();
                "resize"
            }
            94..96 => {
                self.bench.pool().sweep().unwrap();
                "sweep"
            }
            96..98 => {
                self.bench.pool().close().unwrap();
                self.bench.open_closed();
                "close and open"
            }
            _ => {
                self.bench.daemon.kill();
                detach_all(self.bench.place.path());
                self.bench.daemon.run();
                self.bench.reopen();
                "crash"
            }
        }
    }

    fn check(&mut self, everything: bool) {
        let pool = self.bench.pool();
        let found = pool.datasets().unwrap();
        assert_eq!(found.len(), self.volumes.len());
        for dataset in found {
            let volume = &self.volumes[&dataset.id];
            assert_eq!(dataset.content, volume.content);
            let mut names = dataset.snapshots.clone();
            names.sort();
            assert!(names.iter().eq(volume.snapshots.keys()));
            assert_eq!(contents(&pool.path(&dataset.id).unwrap()), volume.live);
            for (name, (_, hashes)) in &volume.snapshots {
                if everything || self.random.random_bool(0.05) {
                    let path = pool.snapshot_path(&dataset.id, name).unwrap();
                    assert_eq!(&contents(&path), hashes);
                }
            }
        }
    }
}

fn history(seed: u64, steps: usize) {
    println!("seed {seed}");
    let mut model = Model {
        bench: ZfsBench::in_a_file("model"),
        random: StdRng::seed_from_u64(seed),
        volumes: BTreeMap::new(),
    };
    for number in 0..steps {
        let step = model.step();
        println!("{number}: {step}");
        model.check(false);
    }
    model.check(true);
    let pool = model.bench.pool();
    for id in model.volumes.keys() {
        pool.remove(id).unwrap();
    }
    pool.sweep().unwrap();
    pool.reclaim(Duration::from_secs(5)).unwrap();
    let used = pool.status().unwrap().used;
    assert!(used < 4 * M, "{used} bytes are left behind");
    pool.destroy().unwrap();
}

#[test]
fn random_histories() {
    let steps = std::env::var("KRAUD_TEST_STEPS").map_or(60, |steps| steps.parse().unwrap());
    history(rand::rng().random(), steps);
    history(1, steps);
}
