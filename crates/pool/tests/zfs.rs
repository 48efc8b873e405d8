//! The ZFS engine, on zfs-fuse. Needs root.

#![allow(clippy::unwrap_used, unreachable_pub)] // helpers of tests, too

mod common;
#[path = "zfs/daemon.rs"]
mod daemon;
#[path = "zfs/faults.rs"]
mod faults;
#[path = "zfs/machine.rs"]
mod machine;
#[path = "zfs/model.rs"]
mod model;
#[path = "zfs/speed.rs"]
mod speed;

use daemon::ZfsBench;

mod in_a_file {
    use super::*;
    pool::conformance_tests!(ZfsBench::in_a_file);
}
