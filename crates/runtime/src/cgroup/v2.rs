//! Counters of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst).

use std::path::Path;

use types::stats::{BlkioStat, Stats};

use super::files;
use crate::error::Result;

pub(super) fn stats(directory: &Path) -> Result<Stats> {
    let cpu = files::text(&directory.join("cpu.stat"))?;
    let microseconds = |name| files::field(&cpu, name).unwrap_or(0) * 1000;
    let memory = files::text(&directory.join("memory.stat"))?;
    Ok(Stats {
        cgroup_v2: true,
        cpu_total_ns: microseconds("usage_usec"),
        cpu_user_ns: microseconds("user_usec"),
        cpu_system_ns: microseconds("system_usec"),
        throttle_periods: files::field(&cpu, "nr_periods").unwrap_or(0),
        throttled_periods: files::field(&cpu, "nr_throttled").unwrap_or(0),
        throttled_ns: microseconds("throttled_usec"),
        memory_usage: files::number(&directory.join("memory.current"))?.unwrap_or(0),
        memory_max_usage: files::number(&directory.join("memory.peak"))?.unwrap_or(0),
        memory_limit: files::number(&directory.join("memory.max"))?.filter(|limit| *limit > 0),
        memory_failcnt: files::field(&files::text(&directory.join("memory.events"))?, "max")
            .unwrap_or(0),
        memory_stat: files::fields(&memory)
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        pids_current: files::number(&directory.join("pids.current"))?.unwrap_or(0),
        pids_limit: files::number(&directory.join("pids.max"))?.filter(|limit| *limit > 0),
        blkio: files::text(&directory.join("io.stat"))?
            .lines()
            .filter_map(parse_io)
            .collect(),
        ..Stats::default()
    })
}

/// `8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0`
fn parse_io(line: &str) -> Option<BlkioStat> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    let mut stat = BlkioStat {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        ..BlkioStat::default()
    };
    for (name, value) in fields.filter_map(|field| field.split_once('=')) {
        let value = value.parse().unwrap_or(0);
        match name {
            "rbytes" => stat.read_bytes = value,
            "wbytes" => stat.write_bytes = value,
            "rios" => stat.read_ops = value,
            "wios" => stat.write_ops = value,
            _ => {}
        }
    }
    Some(stat)
}
