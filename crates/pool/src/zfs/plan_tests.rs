//! Random histories against a small ZFS that refuses what the real one refuses.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::zfs::state::{Branch, Form, HIDDEN, branch_name};

fn id(n: u8) -> VolumeId {
    format!("{n:064x}").parse().unwrap()
}

/// The pool, and what callers believe to be on it.
#[derive(Default)]
struct Model {
    pool: State,
    /// Hidden snapshots that go with their last clone.
    deferred: BTreeSet<String>,
    wanted: BTreeMap<u8, BTreeSet<String>>,
    counter: u64,
}

impl Model {
    fn fresh(&mut self) -> String {
        self.counter += 1;
        format!("{:04}", self.counter)
    }

    fn add(&mut self, name: String, id: VolumeId, number: u64, origin: Option<(String, String)>) {
        if let Some((branch, snapshot)) = &origin {
            assert!(self.pool.get(branch).unwrap().snapshots.contains(snapshot));
        }
        assert!(self.pool.get(&name).is_none());
        self.pool.branches.push(Branch {
            name,
            owner: Owner::Volume(id, number),
            mark: Mark::Unfinished,
            form: Form::Files,
            origin,
            mounted: true,
            referenced: 0,
            used: 0,
            used_by_head: 0,
            quota: None,
            bytes: 0,
            next: None,
            snapshots: Vec::new(),
        });
    }

    fn destroy_snapshot(&mut self, branch: &str, snapshot: &str) {
        if self.pool.clones(branch, snapshot).is_empty() {
            let branch = self.pool.get_mut(branch).unwrap();
            branch.snapshots.retain(|name| name != snapshot);
        } else {
            assert!(
                is_hidden(snapshot),
                "{snapshot} is wanted by name and has clones"
            );
            self.deferred.insert(snapshot.to_owned());
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::DropView(name) => self.pool.branches.retain(|branch| branch.name != *name),
            Step::Destroy(name) => {
                let branch = self.pool.get(name).unwrap().clone();
                for snapshot in &branch.snapshots {
                    assert!(
                        self.pool.clones(name, snapshot).is_empty(),
                        "{name}@{snapshot}"
                    );
                }
                self.pool.branches.retain(|branch| branch.name != *name);
                if let Some((origin, at)) = branch.origin
                    && self.deferred.contains(&at)
                {
                    self.destroy_snapshot(&origin, &at);
                }
            }
            Step::Promote(name) => {
                assert!(self.pool.get(name).unwrap().origin.is_some());
                promote(&mut self.pool, name);
                let snapshots = &self.pool.get(name).unwrap().snapshots;
                let unique: BTreeSet<_> = snapshots.iter().collect();
                assert_eq!(unique.len(), snapshots.len(), "names meet");
            }
            Step::Hide { branch, from, to } => self.pool.rename(branch, from, to),
            Step::Discard { branch, snapshots } => {
                for snapshot in snapshots {
                    self.destroy_snapshot(branch, snapshot);
                }
            }
            Step::Rewind(rewind) => {
                let branch = self.pool.get_mut(&rewind.branch).unwrap();
                assert_eq!(branch.snapshots.last(), Some(&rewind.to));
                branch.mark = Mark::Rewound(rewind.to.clone());
            }
        }
    }

    /// Plans for `ids`; a crash comes after `crash` steps.
    fn tidy(&mut self, ids: &[VolumeId], depth: Depth, crash: usize) {
        let mut state = self.pool.clone();
        for branch in &mut state.branches {
            // As the engine does: others' snapshots are not asked for.
            if !branch.volume().is_some_and(|id| ids.contains(id)) {
                branch.snapshots.clear();
            }
        }
        let counter = &mut self.counter;
        let steps = plan(state, ids, depth, &mut |_| {
            *counter += 1;
            format!("{HIDDEN}{counter:04}")
        });
        for step in steps.iter().take(crash) {
            self.apply(step);
        }
    }

    fn create(&mut self, n: u8, from: Option<(u8, usize)>, crash: usize) {
        let id = id(n);
        if self.pool.of(&id).next().is_some() {
            return;
        }
        let origin = match from {
            Some((of, pick)) if of != n && self.wanted.contains_key(&of) => {
                Some(self.pin(of, pick))
            }
            _ => None,
        };
        let name = branch_name(&id, 0);
        self.add(name.clone(), id, 0, origin.clone());
        if crash == 0 {
            return;
        }
        self.pool.get_mut(&name).unwrap().mark = Mark::Live;
        self.wanted.insert(n, BTreeSet::new());
        if let Some((branch, snapshot)) = origin
            && is_hidden(&snapshot)
            && crash > 1
        {
            self.destroy_snapshot(&branch, &snapshot);
        }
    }

    /// One of a volume's snapshots, or one taken for it.
    fn pin(&mut self, of: u8, pick: usize) -> (String, String) {
        let names: Vec<_> = self.wanted[&of].iter().cloned().collect();
        if let Some(name) = names.get(pick) {
            return (self.holder(of, name), name.clone());
        }
        let name = format!("{HIDDEN}{}", self.fresh());
        let live = self.pool.live(&id(of)).unwrap().name.clone();
        let branch = self.pool.get_mut(&live).unwrap();
        branch.snapshots.push(name.clone());
        (live, name)
    }

    fn holder(&self, n: u8, snapshot: &str) -> String {
        let id = id(n);
        let mut holders = self
            .pool
            .of(&id)
            .filter(|branch| branch.snapshots.iter().any(|name| name == snapshot));
        let holder = holders
            .next()
            .expect("a wanted snapshot is lost")
            .name
            .clone();
        assert!(holders.next().is_none());
        holder
    }

    fn snapshot(&mut self, n: u8) {
        if !self.wanted.contains_key(&n) {
            return;
        }
        let name = format!("s{}", self.fresh());
        let live = self.pool.live(&id(n)).unwrap().name.clone();
        self.pool
            .get_mut(&live)
            .unwrap()
            .snapshots
            .push(name.clone());
        self.wanted.get_mut(&n).unwrap().insert(name);
    }

    fn rollback(&mut self, n: u8, pick: usize, crash: usize) {
        let Some(name) = self
            .wanted
            .get(&n)
            .and_then(|names| names.iter().nth(pick))
            .cloned()
        else {
            return;
        };
        let id = id(n);
        let number = self.pool.next_number(&id);
        let branch = branch_name(&id, number);
        let origin = (self.holder(n, &name), name);
        self.add(branch.clone(), id.clone(), number, Some(origin));
        if crash == 0 {
            return;
        }
        self.pool.get_mut(&branch).unwrap().mark = Mark::Live;
        self.tidy(&[id], Depth::Needed, crash - 1);
    }

    fn remove_snapshot(&mut self, n: u8, pick: usize, crash: usize) {
        let Some(name) = self
            .wanted
            .get(&n)
            .and_then(|names| names.iter().nth(pick))
            .cloned()
        else {
            return;
        };
        self.wanted.get_mut(&n).unwrap().remove(&name);
        let holder = self.holder(n, &name);
        if self.pool.clones(&holder, &name).is_empty() {
            self.destroy_snapshot(&holder, &name);
        } else {
            let hidden = format!("{HIDDEN}{}", self.fresh());
            self.pool.rename(&holder, &name, &hidden);
            if crash == 0 {
                return;
            }
            self.destroy_snapshot(&holder, &hidden);
        }
        self.tidy(&[id(n)], Depth::Space, crash);
    }

    fn remove(&mut self, n: u8, crash: usize) {
        if self.wanted.remove(&n).is_none() {
            return;
        }
        let live = self.pool.live(&id(n)).unwrap().name.clone();
        self.pool.get_mut(&live).unwrap().mark = Mark::Removed;
        self.tidy(&[id(n)], Depth::Needed, crash);
    }

    /// Nothing wanted is lost at any time.
    fn check(&self) {
        for (n, names) in &self.wanted {
            assert!(self.pool.live(&id(*n)).is_some());
            let found: BTreeSet<_> = self
                .pool
                .of(&id(*n))
                .flat_map(Branch::wanted)
                .cloned()
                .collect();
            assert_eq!(&found, names, "volume {n}");
        }
        for branch in &self.pool.branches {
            if let Some((of, at)) = &branch.origin {
                assert!(self.pool.get(of).unwrap().snapshots.contains(at));
            }
        }
    }

    /// After a sweep nothing is there that needs not be.
    fn check_swept(&self) {
        for branch in &self.pool.branches {
            let id = branch.volume().unwrap();
            let live = self.pool.live(id).expect("a branch of no volume");
            for snapshot in &branch.snapshots {
                assert!(
                    !is_hidden(snapshot) || !self.pool.clones(&branch.name, snapshot).is_empty(),
                    "{snapshot} is held by nothing"
                );
            }
            if branch.name == live.name {
                let origin = branch
                    .origin
                    .as_ref()
                    .map(|(of, _)| self.pool.get(of).unwrap());
                assert!(origin.is_none_or(|origin| origin.volume() != Some(id)));
            } else {
                assert!(branch.wanted().next().is_some());
                assert_eq!(
                    branch.mark,
                    Mark::Rewound(branch.snapshots.last().unwrap().clone())
                );
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Create(u8, Option<(u8, usize)>, usize),
    Snapshot(u8),
    Rollback(u8, usize, usize),
    RemoveSnapshot(u8, usize, usize),
    Remove(u8, usize),
    Sweep(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    // Most calls are not cut off.
    let crash = || prop_oneof![3 => Just(usize::MAX), 1 => 0usize..8];
    let volume = 0u8..4;
    prop_oneof![
        3 => (volume.clone(), proptest::option::of((0u8..4, 0usize..4)), crash())
            .prop_map(|(n, from, crash)| Deed::Create(n, from, crash)),
        5 => volume.clone().prop_map(Deed::Snapshot),
        4 => (volume.clone(), 0usize..4, crash()).prop_map(|(n, pick, c)| Deed::Rollback(n, pick, c)),
        3 => (volume.clone(), 0usize..4, crash())
            .prop_map(|(n, pick, c)| Deed::RemoveSnapshot(n, pick, c)),
        1 => (volume, crash()).prop_map(|(n, c)| Deed::Remove(n, c)),
        1 => (0usize..8).prop_map(Deed::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_history_loses_or_leaves_anything(deeds in proptest::collection::vec(deed(), 1..40)) {
        let mut model = Model::default();
        for deed in deeds {
            match deed {
                Deed::Create(n, from, crash) => model.create(n, from, crash),
                Deed::Snapshot(n) => model.snapshot(n),
                Deed::Rollback(n, pick, crash) => model.rollback(n, pick, crash),
                Deed::RemoveSnapshot(n, pick, crash) => model.remove_snapshot(n, pick, crash),
                Deed::Remove(n, crash) => model.remove(n, crash),
                Deed::Sweep(crash) => {
                    let ids = model.pool.volumes();
                    model.tidy(&ids, Depth::Space, crash);
                }
            }
            model.check();
        }
        // Once is enough when nothing is cut off.
        let ids = model.pool.volumes();
        model.tidy(&ids, Depth::Space, usize::MAX);
        model.check();
        model.check_swept();
    }
}

#[test]
fn undone_rollback_leaves_one_branch() {
    let mut model = Model::default();
    model.create(1, None, 9);
    model.snapshot(1);
    model.snapshot(1);
    // To the first, and back to the second.
    model.rollback(1, 0, 99);
    assert_eq!(model.pool.branches.len(), 2);
    model.rollback(1, 1, 99);
    assert_eq!(model.pool.branches.len(), 1);
    assert_eq!(model.pool.branches[0].snapshots.len(), 2);
    model.check();
}

#[test]
fn a_removal_that_was_cut_off_leaves_nothing() {
    for crash in 0..6 {
        let mut model = Model::default();
        model.create(3, None, 9);
        model.snapshot(3);
        model.create(0, Some((3, 0)), 9);
        model.remove(3, crash);
        let mut ids = model.pool.volumes();
        for _ in 0..2 {
            ids.reverse();
            let mut model = Model {
                pool: model.pool.clone(),
                deferred: model.deferred.clone(),
                wanted: model.wanted.clone(),
                counter: model.counter,
            };
            model.tidy(&ids, Depth::Space, usize::MAX);
            model.check();
            model.check_swept();
        }
    }
}
