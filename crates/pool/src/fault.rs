//! Fault points: named steps at which a test lets the process die.
//!
//! `KRAUD_FAULT=<name>` in the environment of a build with debug assertions aborts the process
//! when it comes to the point of that name, as a crash of the machine would. Release builds
//! contain nothing of it.

/// Every point there is, so that a test can walk through all of them.
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

/// Dies here if the environment asks for it.
#[inline]
pub(crate) fn point(name: &'static str) {
    if cfg!(debug_assertions) {
        debug_assert!(
            POINTS.contains(&name),
            "the fault point {name} is not in the list"
        );
        if std::env::var_os("KRAUD_FAULT").is_some_and(|wanted| wanted == name) {
            std::process::abort();
        }
    }
}
