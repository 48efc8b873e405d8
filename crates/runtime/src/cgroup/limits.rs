//! docker's `update` as writes to control group files. Pure, but for [`Change::apply`].

use std::path::Path;

use types::container::Resources;

use super::files;
use crate::error::Result;

/// Values to write together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The v1 controller (in v2 there is one directory for all).
    pub(super) controller: &'static str,
    /// File and value. When the order given fails the reverse is tried: a limit and the one
    /// above it must be raised and lowered in opposite orders.
    pub(super) writes: Vec<(&'static str, String)>,
    /// What to write instead where the kernel has no such file.
    pub(super) instead: Option<(&'static str, String)>,
}

impl Change {
    fn new(controller: &'static str, file: &'static str, value: impl ToString) -> Self {
        Self {
            controller,
            writes: vec![(file, value.to_string())],
            instead: None,
        }
    }

    fn or_else(mut self, file: &'static str, value: impl ToString) -> Self {
        self.instead = Some((file, value.to_string()));
        self
    }

    pub(super) fn apply(&self, directory: &Path) -> Result<()> {
        let write = |(file, value): &(&str, String)| files::write(&directory.join(file), value);
        let lacking = |(file, _): &(&str, String)| !directory.join(file).exists();
        if let Some(instead) = &self.instead
            && self.writes.iter().any(lacking)
        {
            return write(instead);
        }
        match self.writes.iter().try_for_each(write) {
            Err(_) if self.writes.len() > 1 => self.writes.iter().rev().try_for_each(write),
            outcome => outcome,
        }
    }
}

/// CPU quota and period in microseconds, where one is asked for.
pub(crate) fn cpu_bandwidth(resources: &Resources) -> (Option<i64>, Option<u64>) {
    if resources.nano_cpus > 0 {
        return (Some(resources.nano_cpus / 10_000), Some(100_000));
    }
    let quota = (resources.cpu_quota != 0).then_some(resources.cpu_quota);
    (
        quota,
        u64::try_from(resources.cpu_period)
            .ok()
            .filter(|period| *period > 0),
    )
}

/// `max` for the limits that mean none.
fn or_max(limit: i64) -> String {
    if limit <= 0 {
        "max".into()
    } else {
        limit.to_string()
    }
}

/// Microseconds of a period that `nano_cpus` are, and the period.
const PERIOD: u64 = 100_000;
fn quota_of(nano_cpus: u64) -> u64 {
    const LEAST: u64 = 1000;
    (nano_cpus / (1_000_000_000 / PERIOD)).max(LEAST)
}

fn or_else(limit: Option<u64>, none: &str) -> String {
    limit.map_or_else(|| none.to_owned(), |limit| limit.to_string())
}

/// A limit of memory, and as much swap again where the kernel counts that.
fn both(memory: (&'static str, String), swap: (&'static str, String)) -> Change {
    Change {
        controller: "memory",
        writes: vec![memory.clone(), swap],
        instead: Some(memory),
    }
}

/// v1: all limits of a group of groups, those that are none too.
pub(super) fn whole_v1(
    memory: Option<u64>,
    nano_cpus: Option<u64>,
    pids: Option<u64>,
) -> Vec<Change> {
    vec![
        both(
            ("memory.limit_in_bytes", or_else(memory, "-1")),
            (
                "memory.memsw.limit_in_bytes",
                or_else(memory.map(|bytes| bytes.saturating_mul(2)), "-1"),
            ),
        ),
        Change::new("cpu", "cpu.cfs_period_us", PERIOD),
        Change::new(
            "cpu",
            "cpu.cfs_quota_us",
            or_else(nano_cpus.map(quota_of), "-1"),
        ),
        Change::new("pids", "pids.max", or_else(pids, "max")),
    ]
}

/// The same for v2.
pub(super) fn whole_v2(
    memory: Option<u64>,
    nano_cpus: Option<u64>,
    pids: Option<u64>,
) -> Vec<Change> {
    let bandwidth = format!("{} {PERIOD}", or_else(nano_cpus.map(quota_of), "max"));
    vec![
        both(
            ("memory.max", or_else(memory, "max")),
            ("memory.swap.max", or_else(memory, "max")),
        ),
        Change::new("cpu", "cpu.max", bandwidth),
        Change::new("pids", "pids.max", or_else(pids, "max")),
    ]
}

/// v1: one file for each limit.
pub(super) fn v1(resources: &Resources) -> Vec<Change> {
    let mut changes = Vec::new();
    if resources.cpu_shares > 0 {
        changes.push(Change::new("cpu", "cpu.shares", resources.cpu_shares));
    }
    let (quota, period) = cpu_bandwidth(resources);
    let bandwidth = [
        period.map(|period| ("cpu.cfs_period_us", period.to_string())),
        quota.map(|quota| ("cpu.cfs_quota_us", quota.to_string())),
    ];
    let writes: Vec<_> = bandwidth.into_iter().flatten().collect();
    if !writes.is_empty() {
        changes.push(Change {
            controller: "cpu",
            writes,
            instead: None,
        });
    }
    cpuset(resources, &mut changes);
    if resources.memory_reservation > 0 {
        changes.push(Change::new(
            "memory",
            "memory.soft_limit_in_bytes",
            resources.memory_reservation,
        ));
    }
    let memory = [
        (resources.memory > 0).then(|| ("memory.limit_in_bytes", resources.memory.to_string())),
        (resources.memory_swap != 0).then(|| {
            (
                "memory.memsw.limit_in_bytes",
                resources.memory_swap.to_string(),
            )
        }),
    ];
    let writes: Vec<_> = memory.into_iter().flatten().collect();
    if !writes.is_empty() {
        changes.push(Change {
            controller: "memory",
            writes,
            instead: None,
        });
    }
    if let Some(limit) = resources.pids_limit {
        changes.push(Change::new("pids", "pids.max", or_max(limit)));
    }
    if resources.blkio_weight > 0 {
        let weight = resources.blkio_weight;
        changes
            .push(Change::new("blkio", "blkio.bfq.weight", weight).or_else("blkio.weight", weight));
    }
    changes
}

/// v2 (Documentation/admin-guide/cgroup-v2.rst); shares become weights as in crun and runc.
pub(super) fn v2(resources: &Resources) -> Vec<Change> {
    let mut changes = Vec::new();
    if resources.cpu_shares > 0 {
        let shares = resources.cpu_shares.clamp(2, 262_144);
        changes.push(Change::new(
            "cpu",
            "cpu.weight",
            1 + (shares - 2) * 9999 / 262_142,
        ));
    }
    match cpu_bandwidth(resources) {
        (None, None) => {}
        (quota, period) => changes.push(Change::new(
            "cpu",
            "cpu.max",
            format!(
                "{} {}",
                quota.map_or("max".into(), or_max),
                period.unwrap_or(100_000)
            ),
        )),
    }
    cpuset(resources, &mut changes);
    if resources.memory_reservation > 0 {
        changes.push(Change::new(
            "memory",
            "memory.low",
            resources.memory_reservation,
        ));
    }
    if resources.memory > 0 {
        changes.push(Change::new("memory", "memory.max", resources.memory));
    }
    if resources.memory_swap != 0 {
        let swap = if resources.memory_swap < 0 {
            "max".into()
        } else {
            (resources.memory_swap - resources.memory)
                .max(0)
                .to_string()
        };
        changes.push(Change::new("memory", "memory.swap.max", swap));
    }
    if let Some(limit) = resources.pids_limit {
        changes.push(Change::new("pids", "pids.max", or_max(limit)));
    }
    if resources.blkio_weight > 0 {
        // BFQ has docker's range, 10 to 1000; the cost model, which the kernel may have without BFQ, 1 to 10000.
        let weight = resources.blkio_weight.clamp(10, 1000);
        let of_cost = 1 + (u32::from(weight) - 10) * 9999 / 990;
        changes.push(Change::new("blkio", "io.bfq.weight", weight).or_else("io.weight", of_cost));
    }
    changes
}

fn cpuset(resources: &Resources, changes: &mut Vec<Change>) {
    if !resources.cpuset_cpus.is_empty() {
        changes.push(Change::new("cpuset", "cpuset.cpus", &resources.cpuset_cpus));
    }
    if !resources.cpuset_mems.is_empty() {
        changes.push(Change::new("cpuset", "cpuset.mems", &resources.cpuset_mems));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(changes: &[Change]) -> Vec<(&str, &str)> {
        changes
            .iter()
            .flat_map(|change| &change.writes)
            .map(|(file, value)| (*file, value.as_str()))
            .collect()
    }

    #[test]
    fn nothing_asked_nothing_written() {
        assert!(v1(&Resources::default()).is_empty());
        assert!(v2(&Resources::default()).is_empty());
    }

    #[test]
    fn weight_of_block_io_goes_where_the_kernel_has_it() {
        let resources = Resources {
            blkio_weight: 505,
            ..Resources::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::read_to_string(directory.path().join(name)).ok();
        std::fs::write(directory.path().join("io.weight"), "100").unwrap();
        v2(&resources)[0].apply(directory.path()).unwrap();
        assert_eq!(file("io.weight").as_deref(), Some("5000"));
        std::fs::write(directory.path().join("io.bfq.weight"), "100").unwrap();
        v2(&resources)[0].apply(directory.path()).unwrap();
        assert_eq!(file("io.bfq.weight").as_deref(), Some("505"));
        std::fs::write(directory.path().join("blkio.weight"), "100").unwrap();
        v1(&resources)[0].apply(directory.path()).unwrap();
        assert_eq!(file("blkio.weight").as_deref(), Some("505"));
        assert_eq!(file("blkio.bfq.weight"), None);
    }

    #[test]
    fn both_layouts() {
        let resources = Resources {
            nano_cpus: 1_500_000_000,
            cpu_shares: 1024,
            memory: 64 << 20,
            memory_swap: 96 << 20,
            pids_limit: Some(-1),
            cpuset_cpus: "0".into(),
            ..Resources::default()
        };
        assert_eq!(
            files(&v1(&resources)),
            [
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "150000"),
                ("cpuset.cpus", "0"),
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "100663296"),
                ("pids.max", "max"),
            ]
        );
        assert_eq!(
            files(&v2(&resources)),
            [
                ("cpu.weight", "39"),
                ("cpu.max", "150000 100000"),
                ("cpuset.cpus", "0"),
                ("memory.max", "67108864"),
                ("memory.swap.max", "33554432"),
                ("pids.max", "max"),
            ]
        );
    }
}
