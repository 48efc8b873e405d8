//! Counters of cgroup v1 (Documentation/admin-guide/cgroup-v1).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use types::stats::{BlkioStat, Stats};

use super::files;
use crate::error::Result;

/// Nanoseconds of a clock tick (`USER_HZ` is 100 on every Linux architecture).
const TICK: u64 = 10_000_000;
/// From here on a memory limit is the kernel's "none" (`PAGE_COUNTER_MAX` in bytes).
const NO_LIMIT: u64 = 1 << 62;

/// Mount points by controller, from the text of /proc/self/mounts.
pub(super) fn parse_mounts(mounts: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(point), Some("cgroup"), Some(options)) =
            (fields.nth(1), fields.next(), fields.next())
        else {
            continue;
        };
        for option in options.split(',') {
            let controller = option.strip_prefix("name=").unwrap_or(option);
            let known = [
                "cpu",
                "cpuacct",
                "cpuset",
                "memory",
                "devices",
                "freezer",
                "blkio",
                "pids",
                "hugetlb",
                "net_cls",
                "net_prio",
                "perf_event",
                "rdma",
                "misc",
                "systemd",
            ];
            if known.contains(&controller) {
                found
                    .entry(controller.to_owned())
                    .or_insert_with(|| PathBuf::from(point));
            }
        }
    }
    found
}

pub(super) fn stats(mounts: &BTreeMap<String, PathBuf>, path: &str) -> Result<Stats> {
    let mut stats = Stats::default();
    let directory = |controller: &str| mounts.get(controller).map(|mount| mount.join(path));
    if let Some(directory) = directory("cpuacct") {
        stats.cpu_total_ns = files::number(&directory.join("cpuacct.usage"))?.unwrap_or(0);
        let per_cpu = files::text(&directory.join("cpuacct.usage_percpu"))?;
        stats.cpu_per_cpu_ns = per_cpu
            .split_ascii_whitespace()
            .filter_map(|value| value.parse().ok())
            .collect();
        let split = files::text(&directory.join("cpuacct.stat"))?;
        stats.cpu_user_ns = files::field(&split, "user").unwrap_or(0) * TICK;
        stats.cpu_system_ns = files::field(&split, "system").unwrap_or(0) * TICK;
    }
    if let Some(directory) = directory("cpu") {
        let text = files::text(&directory.join("cpu.stat"))?;
        stats.throttle_periods = files::field(&text, "nr_periods").unwrap_or(0);
        stats.throttled_periods = files::field(&text, "nr_throttled").unwrap_or(0);
        stats.throttled_ns = files::field(&text, "throttled_time").unwrap_or(0);
    }
    if let Some(directory) = directory("memory") {
        stats.memory_usage = files::number(&directory.join("memory.usage_in_bytes"))?.unwrap_or(0);
        stats.memory_max_usage =
            files::number(&directory.join("memory.max_usage_in_bytes"))?.unwrap_or(0);
        stats.memory_failcnt = files::number(&directory.join("memory.failcnt"))?.unwrap_or(0);
        stats.memory_limit = files::number(&directory.join("memory.limit_in_bytes"))?
            .filter(|limit| *limit < NO_LIMIT);
        let text = files::text(&directory.join("memory.stat"))?;
        stats.memory_stat = files::fields(&text)
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
    }
    if let Some(directory) = directory("pids") {
        stats.pids_current = files::number(&directory.join("pids.current"))?.unwrap_or(0);
        stats.pids_limit = files::number(&directory.join("pids.max"))?;
    }
    if let Some(directory) = directory("blkio") {
        stats.blkio = block_io(&directory)?;
    }
    Ok(stats)
}

fn block_io(directory: &Path) -> Result<Vec<BlkioStat>> {
    let bytes = files::text(&directory.join("blkio.throttle.io_service_bytes_recursive"))?;
    let operations = files::text(&directory.join("blkio.throttle.io_serviced_recursive"))?;
    let mut devices: BTreeMap<(u64, u64), BlkioStat> = BTreeMap::new();
    for (device, what, value) in bytes.lines().filter_map(parse_line) {
        let stat = devices.entry(device).or_default();
        match what {
            "Read" => stat.read_bytes = value,
            "Write" => stat.write_bytes = value,
            _ => {}
        }
    }
    for (device, what, value) in operations.lines().filter_map(parse_line) {
        let stat = devices.entry(device).or_default();
        match what {
            "Read" => stat.read_ops = value,
            "Write" => stat.write_ops = value,
            _ => {}
        }
    }
    Ok(devices
        .into_iter()
        .map(|((major, minor), stat)| BlkioStat {
            major,
            minor,
            ..stat
        })
        .collect())
}

/// `8:0 Read 4096`
fn parse_line(line: &str) -> Option<((u64, u64), &str, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    Some((
        (major.parse().ok()?, minor.parse().ok()?),
        fields.next()?,
        fields.next()?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let text = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n\
                    cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let mounts = parse_mounts(text);
        assert_eq!(
            mounts.keys().collect::<Vec<_>>(),
            ["cpu", "cpuacct", "systemd"]
        );
        assert_eq!(mounts["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    }

    #[test]
    fn block_lines() {
        assert_eq!(parse_line("253:1 Write 12"), Some(((253, 1), "Write", 12)));
        assert_eq!(parse_line("Total 0"), None);
    }
}
