//! Fault points: named steps of what is done with volumes, at which a test lets kraud die or fail.
//!
//! `KRAUD_FAULT` in the environment of a build with debug assertions says where:
//!
//! - `<name>`: the process aborts whenever it comes to that point, as a crash of the machine
//!   would have it;
//! - `@<file>`: the file holds `<name>`, or `<name> error`. The first to come to that point takes
//!   the file away, and then dies, or fails as with a full disk. So one daemon can be led
//!   through many points, and the next one does not die in the same place.
//!
//! Release builds contain nothing of it.

use types::Result;

/// Points inside of the pools' engines, where there is only death: what fails there fails in the
/// kernel's words. Every one there is, so that a test can walk through all of them.
pub const POINTS: &[&str] = &[
    "btrfs.create.staged",
    "btrfs.create.filled",
    "btrfs.create.named",
    "btrfs.remove.renamed",
    "btrfs.remove.snapshots",
    "btrfs.remove.live",
    "btrfs.snapshot.taken",
    "btrfs.snapshot.staged",
    "btrfs.snapshot.announced",
    "btrfs.snapshot.half",
    "btrfs.remove_snapshot.gone",
    "btrfs.rollback.prepared",
    "btrfs.rollback.exchanged",
    "btrfs.rollback.frozen",
    "btrfs.rollback.flushed",
    "btrfs.rollback.kept",
    "btrfs.rollback.removed",
    "btrfs.resize.grown",
    "btrfs.limit.noted",
    "btrfs.limit.set",
    "btrfs.pool.formatted",
    "btrfs.pool.named",
    "btrfs.pool.mounted",
    "btrfs.pool.quota",
    "btrfs.grow.file",
    "btrfs.grow.device",
    "zfs.create.made",
    "zfs.create.pinned",
    "zfs.create.filled",
    "zfs.create.finished",
    "zfs.clone.made",
    "zfs.remove.marked",
    "zfs.snapshot.announced",
    "zfs.snapshot.all",
    "zfs.snapshot.named",
    "zfs.snapshot.taken",
    "zfs.remove_snapshot.gone",
    "zfs.rollback.unmounted",
    "zfs.rollback.cloned",
    "zfs.rollback.switched",
    "zfs.resize.grown",
    "zfs.resize.done",
    "zfs.view.made",
    "zfs.tidy.promoted",
    "zfs.tidy.destroyed",
    "zfs.tidy.hidden",
    "zfs.tidy.discarded",
    "zfs.tidy.rewound",
    "zfs.tidy.noted",
    "zfs.pool.file",
    "zfs.pool.formatted",
    "zfs.pool.made",
    "zfs.pool.destroyed",
    "zfs.grow.file",
    "zfs.grow.device",
];

/// Steps of the use cases above the pools, each of which can fail as well: an error is what the
/// operation after the point would give. Every one there is, in the order of each use case.
pub const STEPS: &[&str] = &[
    "engine.create.recorded",
    "volume.create.frozen",
    "volume.create.made",
    "volume.create.sized",
    "volume.attach.device",
    "volume.attach.mounted",
    "engine.create.made",
    "engine.create.limited",
    "engine.snapshot.recorded",
    "agent.snapshot.held",
    "volume.snapshot.frozen",
    "volume.snapshot.half",
    "volume.snapshot.taken",
    "engine.snapshot.taken",
    "engine.snapshot.ready",
    "engine.remove_snapshot.recorded",
    "volume.remove_snapshot.detached",
    "engine.remove_snapshot.gone",
    "engine.remove_snapshot.forgotten",
    "engine.rename.recorded",
    "engine.rollback.recorded",
    "engine.rollback.stopped",
    "engine.rollback.announced",
    "engine.rollback.taken",
    "engine.rollback.safe",
    "volume.rollback.detached",
    "volume.rollback.swapped",
    "volume.rollback.sized",
    "engine.rollback.swapped",
    "engine.rollback.ready",
    "engine.rollback.started",
    "engine.resize.recorded",
    "volume.resize.sized",
    "engine.resize.done",
    "engine.remove.recorded",
    "volume.remove.detached",
    "engine.remove.gone",
    "engine.remove.forgotten",
];

/// Dies here if the environment asks for it.
#[inline]
pub fn point(name: &'static str) {
    if cfg!(debug_assertions) {
        debug_assert!(
            POINTS.contains(&name),
            "the fault point {name} is not in the list"
        );
        let _ = strike(name, std::env::var("KRAUD_FAULT").ok().as_deref());
    }
}

/// Dies or fails here if the environment asks for it.
#[inline]
pub fn step(name: &'static str) -> Result<()> {
    if cfg!(debug_assertions) {
        debug_assert!(
            STEPS.contains(&name),
            "the fault point {name} is not in the list"
        );
        return strike(name, std::env::var("KRAUD_FAULT").ok().as_deref());
    }
    Ok(())
}

/// What `asked` says about a point: nothing, death, or an error.
fn strike(name: &str, asked: Option<&str>) -> Result<()> {
    let Some(asked) = asked else { return Ok(()) };
    let fails = match asked.strip_prefix('@') {
        None if asked == name => false,
        None => return Ok(()),
        Some(file) => {
            let Ok(text) = std::fs::read_to_string(file) else {
                return Ok(());
            };
            let mut words = text.split_whitespace();
            // Who takes the file away is the one it is meant for.
            if words.next() != Some(name) || std::fs::remove_file(file).is_err() {
                return Ok(());
            }
            words.next() == Some("error")
        }
    };
    if fails {
        return Err(types::Error::system(format!(
            "fault point {name}: No space left on device (os error 28)"
        )));
    }
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_given_once_and_only_at_its_point() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("fault");
        std::fs::write(&file, "engine.create.made error\n").expect("writing");
        let asked = format!("@{}", file.display());
        assert!(strike("engine.create.limited", Some(&asked)).is_ok());
        assert!(strike("engine.create.made", None).is_ok());
        let error = strike("engine.create.made", Some(&asked)).expect_err("an error");
        assert!(error.message.contains("No space left"), "{error}");
        assert!(!file.exists());
        assert!(strike("engine.create.made", Some(&asked)).is_ok());
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut names: Vec<_> = POINTS.iter().chain(STEPS).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
