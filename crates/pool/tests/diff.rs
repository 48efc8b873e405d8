//! The list of changes of btrfs beside a comparison of every file, for random changes.
#![allow(clippy::unwrap_used)] // helpers of tests, too

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use common::{BtrfsBench, M};
use pool::{
    Change, ChangeKind,
    conformance::{Bench as _, noise},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use types::{SnapshotId, VolumeId, volume::Content};

/// What makes a path the same: for a directory that it is the same one, its mode apart.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    directory: bool,
    mode: u32,
    content: Vec<u8>,
}

fn look(root: &Path) -> BTreeMap<String, Seen> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                left.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let seen = Seen {
                inode: metadata.ino(),
                directory: metadata.is_dir(),
                mode: metadata.mode(),
                content,
            };
            found.insert(name, seen);
        }
    }
    found
}

/// The differences, found the slow way. A thing in the place of another is a change of the path.
fn compare(old: &BTreeMap<String, Seen>, new: &BTreeMap<String, Seen>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, seen) in new {
        match old.get(path) {
            None => changes.push((path, ChangeKind::Added)),
            Some(before) if before != seen => changes.push((path, ChangeKind::Changed)),
            Some(_) => {}
        }
    }
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        changes.push((path, ChangeKind::Removed));
    }
    changes.sort();
    changes
        .into_iter()
        .map(|(path, kind)| Change {
            path: path.clone(),
            kind,
        })
        .collect()
}

/// Some path below `root`, a directory if asked for.
fn any(random: &mut StdRng, root: &Path, directory: bool) -> Option<PathBuf> {
    let seen = look(root);
    let paths: Vec<&String> = seen
        .iter()
        .filter(|(_, seen)| seen.directory == directory)
        .map(|(path, _)| path)
        .collect();
    if paths.is_empty() || (directory && random.random_bool(0.3)) {
        return directory.then(|| root.to_owned());
    }
    Some(root.join(paths[random.random_range(0..paths.len())]))
}

fn change(random: &mut StdRng, root: &Path, number: u32) -> Option<()> {
    let into = any(random, root, true)?;
    // Few names, so that things come to where others were.
    let name = into.join(format!("n{}", random.random_range(0..6)));
    let fresh = name.symlink_metadata().is_err();
    match random.random_range(0..12) {
        0 | 1 if fresh => fs::write(name, noise(number.into(), 100 + u64::from(number))).ok()?,
        2 if fresh => fs::create_dir(name).ok()?,
        3 if fresh => symlink(format!("to-{number}"), name).ok()?,
        4 => fs::write(any(random, root, false)?, noise(number.into(), 5000)).ok()?,
        5 => fs::remove_file(any(random, root, false)?).ok()?,
        6 => fs::remove_dir_all(any(random, root, true).filter(|path| path != root)?).ok()?,
        // Over what is there, too.
        7 | 8 => fs::rename(any(random, root, false)?, name).ok()?,
        9 if fresh => {
            fs::rename(any(random, root, true).filter(|path| path != root)?, name).ok()?
        }
        10 if fresh => fs::hard_link(any(random, root, false)?, name).ok()?,
        11 => {
            let path = any(random, root, false)?;
            let mode = 0o600 | random.random_range(0..8);
            if !path.is_symlink() {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).ok()?;
            }
        }
        _ => return None,
    }
    Some(())
}

#[test]
fn differences_of_random_changes() {
    let bench = BtrfsBench::new("diff", 512 * M);
    let pool = bench.pool();
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let id = VolumeId::random();
        pool.create(&id, Content::Files, None).unwrap();
        let live = pool.path(&id).unwrap();
        for number in 0..40 {
            let _ = change(&mut random, &live, number);
        }
        let from = SnapshotId::random();
        pool.snapshot(&[(&id, &from)]).unwrap();
        for number in 100..100 + seed as u32 % 20 {
            let _ = change(&mut random, &live, number);
        }
        let to = SnapshotId::random();
        pool.snapshot(&[(&id, &to)]).unwrap();
        let old = look(&pool.snapshot_path(&id, &from).unwrap());
        let new = look(&pool.snapshot_path(&id, &to).unwrap());
        let forward = pool.diff(&id, &from, Some(&to)).unwrap();
        assert_eq!(forward, compare(&old, &new), "seed {seed}");
        let back = pool.diff(&id, &to, Some(&from)).unwrap();
        assert_eq!(back, compare(&new, &old), "seed {seed}, backwards");
        assert_eq!(
            pool.diff(&id, &from, None).unwrap(),
            forward,
            "seed {seed}, live"
        );
        pool.remove(&id).unwrap();
    }
}
