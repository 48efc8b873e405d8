//! The ZFS engine, on zfs-fuse. Needs root.

mod common;
#[path = "zfs/daemon.rs"]
mod daemon;

use daemon::ZfsBench;

mod in_a_file {
    use super::*;
    pool::conformance_tests!(ZfsBench::in_a_file);
}
