//! Random sequences of everything that can be done to datasets, beside a model in memory:
//! content is the same at every step, live and in all snapshots, also after a restart.
#![allow(clippy::unwrap_used)] // helpers of tests, too

mod common;

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs::{self, File},
    hash::{Hash as _, Hasher as _},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use common::{BtrfsBench, M};
use pool::{
    Origin, Pool,
    conformance::{Bench, noise},
};
use proptest::{prelude::*, test_runner::TestRunner};
use types::{SnapshotId, VolumeId, volume::Content};

/// One step. Numbers choose among what is there, modulo how many there are.
#[derive(Debug, Clone)]
enum Step {
    Create {
        image: bool,
    },
    Write {
        dataset: usize,
        file: u8,
        at: u32,
        length: u32,
        seed: u64,
    },
    Truncate {
        dataset: usize,
        file: u8,
        length: u32,
    },
    Delete {
        dataset: usize,
        file: u8,
    },
    Snapshot {
        dataset: usize,
        and_next: bool,
    },
    RemoveSnapshot {
        dataset: usize,
        snapshot: usize,
    },
    Rollback {
        dataset: usize,
        snapshot: usize,
    },
    Clone {
        dataset: usize,
        snapshot: Option<usize>,
    },
    Resize {
        dataset: usize,
        by: u32,
    },
    Remove {
        dataset: usize,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let dataset = 0..8usize;
    let snapshot = 0..8usize;
    prop_oneof![
        2 => any::<bool>().prop_map(|image| Step::Create { image }),
        8 => (dataset.clone(), 0..4u8, 0..200_000u32, 1..100_000u32, any::<u64>()).prop_map(
            |(dataset, file, at, length, seed)| Step::Write { dataset, file, at, length, seed }
        ),
        2 => (dataset.clone(), 0..4u8, 0..200_000u32)
            .prop_map(|(dataset, file, length)| Step::Truncate { dataset, file, length }),
        1 => (dataset.clone(), 0..4u8).prop_map(|(dataset, file)| Step::Delete { dataset, file }),
        4 => (dataset.clone(), any::<bool>())
            .prop_map(|(dataset, and_next)| Step::Snapshot { dataset, and_next }),
        2 => (dataset.clone(), snapshot.clone())
            .prop_map(|(dataset, snapshot)| Step::RemoveSnapshot { dataset, snapshot }),
        4 => (dataset.clone(), snapshot.clone())
            .prop_map(|(dataset, snapshot)| Step::Rollback { dataset, snapshot }),
        3 => (dataset.clone(), proptest::option::of(snapshot))
            .prop_map(|(dataset, snapshot)| Step::Clone { dataset, snapshot }),
        1 => (dataset.clone(), 0..64u32).prop_map(|(dataset, by)| Step::Resize { dataset, by }),
        1 => dataset.prop_map(|dataset| Step::Remove { dataset }),
        1 => Just(Step::Reopen),
    ]
}

/// What a dataset holds: its files, or one for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    id: VolumeId,
    image: bool,
    live: BTreeMap<u8, Vec<u8>>,
    snapshots: Vec<(SnapshotId, BTreeMap<u8, Vec<u8>>)>,
}

impl Model {
    fn content(&self) -> Content {
        match self.image {
            false => Content::Files,
            true => Content::Image {
                bytes: self.live[&0].len() as u64,
            },
        }
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Compares one state with what is at a path, by hash.
fn same(path: &Path, image: bool, wanted: &BTreeMap<u8, Vec<u8>>, about: &str) {
    let wanted: BTreeMap<u8, u64> = wanted
        .iter()
        .map(|(name, bytes)| (*name, digest(bytes)))
        .collect();
    let found: BTreeMap<u8, u64> = if image {
        let length = wanted_length(path);
        let mut bytes = vec![0; length];
        File::open(path)
            .unwrap()
            .read_exact_at(&mut bytes, 0)
            .unwrap();
        [(0, digest(&bytes))].into()
    } else {
        fs::read_dir(path)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                (name, digest(&fs::read(path).unwrap()))
            })
            .collect()
    };
    assert_eq!(found, wanted, "{about}");
}

/// The size of an image, a file or a device.
fn wanted_length(path: &Path) -> usize {
    use std::io::{Seek as _, SeekFrom};
    File::open(path).unwrap().seek(SeekFrom::End(0)).unwrap() as usize
}

struct World<'a> {
    bench: &'a mut dyn Bench,
    models: Vec<Model>,
}

impl World<'_> {
    fn apply(&mut self, step: &Step) {
        let pool = self.bench.pool();
        let count = self.models.len();
        let pick = |dataset: usize| (count > 0).then(|| dataset % count);
        match step {
            Step::Create { image } if *image && !self.bench.has_images() => {}
            Step::Create { image } if count < 8 => self.create(&*pool, *image),
            Step::Write {
                dataset,
                file,
                at,
                length,
                seed,
            } => {
                let Some(at_model) = pick(*dataset) else {
                    return;
                };
                self.write(
                    &*pool,
                    at_model,
                    *file,
                    *at as usize,
                    noise(*seed, (*length).into()),
                );
            }
            Step::Truncate {
                dataset,
                file,
                length,
            } => {
                let Some(i) = pick(*dataset) else { return };
                let model = &mut self.models[i];
                if let (false, Some(bytes)) = (model.image, model.live.get_mut(file)) {
                    bytes.resize(*length as usize, 0);
                    let path = pool.path(&model.id).unwrap().join(file.to_string());
                    File::options()
                        .write(true)
                        .open(path)
                        .unwrap()
                        .set_len((*length).into())
                        .unwrap();
                }
            }
            Step::Delete { dataset, file } => {
                let Some(i) = pick(*dataset) else { return };
                let model = &mut self.models[i];
                if !model.image && model.live.remove(file).is_some() {
                    fs::remove_file(pool.path(&model.id).unwrap().join(file.to_string())).unwrap();
                }
            }
            Step::Snapshot { dataset, and_next } => {
                let Some(i) = pick(*dataset) else { return };
                let mut wanted = vec![i];
                if *and_next && count > 1 {
                    wanted.push((i + 1) % count);
                }
                self.snapshot(&*pool, &wanted);
            }
            Step::RemoveSnapshot { dataset, snapshot } => {
                let Some(i) = pick(*dataset) else { return };
                let model = &mut self.models[i];
                if !model.snapshots.is_empty() {
                    let at = snapshot % model.snapshots.len();
                    let (snapshot, _) = model.snapshots.remove(at);
                    pool.remove_snapshot(&model.id, &snapshot).unwrap();
                }
            }
            Step::Rollback { dataset, snapshot } => {
                let Some(i) = pick(*dataset) else { return };
                let model = &mut self.models[i];
                if !model.snapshots.is_empty() {
                    let (snapshot, state) = &model.snapshots[snapshot % model.snapshots.len()];
                    pool.rollback(&model.id, snapshot).unwrap();
                    model.live.clone_from(state);
                }
            }
            Step::Clone { dataset, snapshot } if count < 8 => {
                let Some(i) = pick(*dataset) else { return };
                self.clone_dataset(&*pool, i, *snapshot);
            }
            Step::Resize { dataset, by } => {
                let Some(i) = pick(*dataset) else { return };
                let model = &mut self.models[i];
                if model.image {
                    let bytes = model.live.get_mut(&0).unwrap();
                    bytes.resize(bytes.len() + *by as usize * 65536, 0);
                    let bytes = bytes.len() as u64;
                    pool.resize(&model.id, bytes).unwrap();
                }
            }
            Step::Remove { dataset } => {
                let Some(i) = pick(*dataset) else { return };
                pool.remove(&self.models.remove(i).id).unwrap();
            }
            Step::Reopen => {
                drop(pool);
                self.bench.reopen();
                self.bench.pool().sweep().unwrap();
            }
            Step::Create { .. } | Step::Clone { .. } => {}
        }
    }

    fn create(&mut self, pool: &dyn Pool, image: bool) {
        let live = match image {
            true => [(0, vec![0; 2 << 20])].into(),
            false => BTreeMap::new(),
        };
        let model = Model {
            id: VolumeId::random(),
            image,
            live,
            snapshots: Vec::new(),
        };
        pool.create(&model.id, model.content(), None).unwrap();
        self.models.push(model);
    }

    fn write(&mut self, pool: &dyn Pool, at_model: usize, file: u8, at: usize, bytes: Vec<u8>) {
        let model = &mut self.models[at_model];
        let path = pool.path(&model.id).unwrap();
        let (path, name, at, bytes) = match model.image {
            // Whole blocks, as devices want them.
            true => (
                path,
                0,
                at / 4096 * 4096,
                noise(at as u64, bytes.len().div_ceil(4096) as u64 * 4096),
            ),
            false => (path.join(file.to_string()), file, at, bytes),
        };
        let node = File::options()
            .write(true)
            .create(!model.image)
            .truncate(false)
            .open(path)
            .unwrap();
        node.write_all_at(&bytes, at as u64).unwrap();
        if model.image {
            node.sync_all().unwrap();
        }
        let content = model.live.entry(name).or_default();
        if content.len() < at + bytes.len() {
            content.resize(at + bytes.len(), 0);
        }
        content[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    fn snapshot(&mut self, pool: &dyn Pool, wanted: &[usize]) {
        let taken: Vec<(usize, SnapshotId)> =
            wanted.iter().map(|i| (*i, SnapshotId::random())).collect();
        let pairs: Vec<_> = taken
            .iter()
            .map(|(i, snapshot)| (&self.models[*i].id, snapshot))
            .collect();
        pool.snapshot(&pairs).unwrap();
        for (i, snapshot) in taken {
            let state = self.models[i].live.clone();
            self.models[i].snapshots.push((snapshot, state));
        }
    }

    fn clone_dataset(&mut self, pool: &dyn Pool, i: usize, snapshot: Option<usize>) {
        let origin = &self.models[i];
        let chosen = snapshot
            .filter(|_| !origin.snapshots.is_empty())
            .map(|at| &origin.snapshots[at % origin.snapshots.len()]);
        let copy = Model {
            id: VolumeId::random(),
            image: origin.image,
            live: chosen.map_or(&origin.live, |(_, state)| state).clone(),
            snapshots: Vec::new(),
        };
        let from = Origin {
            dataset: &origin.id,
            snapshot: chosen.map(|(id, _)| id),
        };
        pool.create(&copy.id, copy.content(), Some(from)).unwrap();
        self.models.push(copy);
    }

    /// Compares all there is.
    fn check(&self) {
        let pool = self.bench.pool();
        let mut found = pool.datasets().unwrap();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let mut models: Vec<&Model> = self.models.iter().collect();
        models.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(found.len(), models.len());
        for (found, model) in found.iter().zip(models) {
            assert_eq!((&found.id, found.content), (&model.id, model.content()));
            same(
                &pool.path(&model.id).unwrap(),
                model.image,
                &model.live,
                "live",
            );
            assert_eq!(found.snapshots.len(), model.snapshots.len());
            for (snapshot, state) in &model.snapshots {
                let path = pool.snapshot_path(&model.id, snapshot).unwrap();
                same(&path, model.image, state, "a snapshot");
            }
        }
    }
}

/// Runs sequences against the engine of `bench` for about as long as `budget`.
fn run(budget: Duration, mut bench: impl FnMut() -> Box<dyn Bench>) {
    let deadline = Instant::now() + budget;
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 40,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let mut done = 0;
    let mut walks = |steps: Vec<Step>| {
        if Instant::now() > deadline && done > 0 {
            return;
        }
        done += 1;
        let mut bench = bench();
        let mut world = World {
            bench: &mut *bench,
            models: Vec::new(),
        };
        world.apply(&Step::Create { image: false });
        world.apply(&Step::Create { image: true });
        for step in &steps {
            world.apply(step);
            world.check();
        }
    };
    // The closure of proptest may not change anything, but this one counts.
    let walks = std::cell::RefCell::new(&mut walks);
    runner
        .run(&proptest::collection::vec(step(), 20..60), |steps| {
            (walks.borrow_mut())(steps);
            Ok(())
        })
        .unwrap();
}

#[test]
fn btrfs_is_as_the_model() {
    run(Duration::from_secs(20), || {
        Box::new(BtrfsBench::new("model", 512 * M))
    });
}
