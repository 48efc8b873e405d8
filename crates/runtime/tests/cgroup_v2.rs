//! The v2 layout, on directories that look like one.
#![allow(clippy::unwrap_used, reason = "a failed test shall panic")]

use std::{fs, path::Path};

use runtime::cgroup::Cgroups;
use types::{container::Resources, stats::BlkioStat};

/// A group as a kernel 6.1 shows it.
fn fixture(root: &Path) {
    let group = root.join("kraud-1/abc");
    fs::create_dir_all(&group).unwrap();
    let files = [
        ("cgroup.procs", "17\n4\n"),
        ("cgroup.events", "populated 1\nfrozen 1\n"),
        (
            "cpu.stat",
            "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\nnr_bursts 0\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.peak", "8192\n"),
        ("memory.stat", "anon 100\nfile 200\ninactive_file 50\n"),
        (
            "memory.events",
            "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n",
        ),
        ("pids.current", "2\n"),
        ("pids.max", "50\n"),
        (
            "io.stat",
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 \n",
        ),
    ];
    for (name, content) in files {
        fs::write(group.join(name), content).unwrap();
    }
    fs::write(
        root.join("cgroup.controllers"),
        "cpuset cpu io memory pids\n",
    )
    .unwrap();
}

#[test]
fn counters() {
    let root = tempfile::tempdir().unwrap();
    fixture(root.path());
    let cgroups = Cgroups::v2(root.path());
    assert!(
        cgroups.version() == 2
            && cgroups.has("memory")
            && cgroups.has("blkio")
            && cgroups.has("freezer")
            && !cgroups.has("hugetlb")
    );
    assert_eq!(cgroups.mount_to_hide(), None);
    let group = cgroups.group("/kraud-1/abc");
    let stats = group.stats().unwrap();
    assert!(stats.cgroup_v2);
    assert_eq!(
        (stats.cpu_total_ns, stats.cpu_user_ns, stats.cpu_system_ns),
        (5_000_000, 3_000_000, 2_000_000)
    );
    assert_eq!(
        (
            stats.throttle_periods,
            stats.throttled_periods,
            stats.throttled_ns
        ),
        (7, 2, 9000)
    );
    assert_eq!(
        (
            stats.memory_usage,
            stats.memory_limit,
            stats.memory_max_usage,
            stats.memory_failcnt
        ),
        (4096, None, 8192, 3)
    );
    assert_eq!(stats.memory_stat["inactive_file"], 50);
    assert_eq!((stats.pids_current, stats.pids_limit), (2, Some(50)));
    assert_eq!(
        stats.blkio[0],
        BlkioStat {
            major: 8,
            minor: 0,
            read_bytes: 1,
            write_bytes: 2,
            read_ops: 3,
            write_ops: 4
        }
    );
    assert_eq!(group.pids().unwrap(), [4, 17]);
    assert!(group.is_frozen().unwrap());
    assert_eq!(group.oom_kills(), 1);
}

#[test]
fn limits() {
    let root = tempfile::tempdir().unwrap();
    fixture(root.path());
    let group = Cgroups::v2(root.path()).group("kraud-1/abc");
    let resources = Resources {
        memory: 1 << 20,
        memory_swap: -1,
        nano_cpus: 2_000_000_000,
        pids_limit: Some(0),
        ..Resources::default()
    };
    group.update(&resources).unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join("kraud-1/abc").join(name)).unwrap();
    assert_eq!(
        (read("memory.max"), read("memory.swap.max")),
        ("1048576".into(), "max".into())
    );
    assert_eq!(
        (read("cpu.max"), read("pids.max")),
        ("200000 100000".into(), "max".into())
    );
}

#[test]
fn a_group_that_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let group = Cgroups::v2(root.path()).group("kraud-1/none");
    assert!(!group.exists() && group.pids().unwrap().is_empty() && group.oom_kills() == 0);
    group.destroy().unwrap();
}

#[test]
fn a_group_of_groups() {
    let root = tempfile::tempdir().unwrap();
    fixture(root.path());
    for directory in ["", "kraud-1"] {
        fs::write(
            root.path().join(directory).join("cgroup.subtree_control"),
            "",
        )
        .unwrap();
    }
    let cgroups = Cgroups::v2(root.path());
    cgroups.make("/kraud-1/tenant-shop").unwrap();
    cgroups.make("/kraud-1/tenant-shop").unwrap();
    let group = cgroups.group("/kraud-1/tenant-shop");
    let place = root.path().join(group.path());
    // The last of those that were asked for.
    let control = root.path().join("kraud-1/cgroup.subtree_control");
    assert_eq!(fs::read_to_string(control).unwrap(), "+cpuset");
    for file in ["memory.max", "cpu.max", "pids.max"] {
        fs::write(place.join(file), "").unwrap();
    }
    let read = |file: &str| fs::read_to_string(place.join(file)).unwrap();
    group
        .limit(Some(1 << 20), Some(1_500_000_000), None)
        .unwrap();
    assert_eq!(
        (read("memory.max"), read("cpu.max"), read("pids.max")),
        ("1048576".into(), "150000 100000".into(), "max".into())
    );
    // Where swap is counted, as much of it.
    fs::write(place.join("memory.swap.max"), "").unwrap();
    group.limit(Some(1 << 20), None, Some(7)).unwrap();
    assert_eq!(
        (read("memory.swap.max"), read("cpu.max"), read("pids.max")),
        ("1048576".into(), "max 100000".into(), "7".into())
    );
}
