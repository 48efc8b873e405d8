//! `ContainerStatsResponse`: what a container uses, in docker's two dialects.
//!
//! On cgroup v1 block I/O is lists, memory has `max_usage` and `failcnt` and the CPU is
//! given per processor; on v2 those are missing and most lists are `null`. A container that
//! does not run has all objects, with nothing but zeroes in them.

use std::collections::BTreeMap;

use serde::Serialize;
use types::{
    Time,
    stats::{InterfaceStats, Stats},
};

use super::is_zero;

/// One sample, with the CPU part of the one before.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StatsResponse {
    /// With a leading slash.
    pub name: String,
    pub id: String,
    pub read: Time,
    pub preread: Time,
    pub pids_stats: PidsStats,
    pub blkio_stats: BlkioStats,
    pub num_procs: u32,
    pub storage_stats: Nothing,
    pub cpu_stats: CpuStats,
    pub precpu_stats: CpuStats,
    pub memory_stats: MemoryStats,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, NetworkStats>,
}

/// Always `{}`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Nothing {}

#[derive(Debug, Clone, Default, Serialize)]
pub struct PidsStats {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

type BlkioEntries = Option<Vec<BlkioEntry>>;

#[derive(Debug, Clone, Default, Serialize)]
pub struct BlkioStats {
    pub io_service_bytes_recursive: BlkioEntries,
    pub io_serviced_recursive: BlkioEntries,
    pub io_queue_recursive: BlkioEntries,
    pub io_service_time_recursive: BlkioEntries,
    pub io_wait_time_recursive: BlkioEntries,
    pub io_merged_recursive: BlkioEntries,
    pub io_time_recursive: BlkioEntries,
    pub sectors_recursive: BlkioEntries,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlkioEntry {
    pub major: u64,
    pub minor: u64,
    pub op: &'static str,
    pub value: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct CpuStats {
    pub cpu_usage: CpuUsage,
    #[serde(skip_serializing_if = "is_zero")]
    pub system_cpu_usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub online_cpus: u32,
    pub throttling_data: Throttling,
}

/// Nanoseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CpuUsage {
    pub total_usage: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_usage: Vec<u64>,
    pub usage_in_kernelmode: u64,
    pub usage_in_usermode: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled_time: u64,
}

/// Bytes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemoryStats {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_usage: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub failcnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl From<&Stats> for CpuStats {
    fn from(stats: &Stats) -> Self {
        Self {
            cpu_usage: CpuUsage {
                total_usage: stats.cpu_total_ns,
                percpu_usage: stats.cpu_per_cpu_ns.clone(),
                usage_in_kernelmode: stats.cpu_system_ns,
                usage_in_usermode: stats.cpu_user_ns,
            },
            system_cpu_usage: stats.system_cpu_ns,
            online_cpus: stats.online_cpus,
            throttling_data: Throttling {
                periods: stats.throttle_periods,
                throttled_periods: stats.throttled_periods,
                throttled_time: stats.throttled_ns,
            },
        }
    }
}

impl From<&Stats> for BlkioStats {
    fn from(stats: &Stats) -> Self {
        let (read, write) = if stats.cgroup_v2 {
            ("read", "write")
        } else {
            ("Read", "Write")
        };
        let mut bytes = Vec::new();
        let mut operations = Vec::new();
        for device in &stats.blkio {
            let entry = |op, value| BlkioEntry {
                major: device.major,
                minor: device.minor,
                op,
                value,
            };
            bytes.extend([
                entry(read, device.read_bytes),
                entry(write, device.write_bytes),
            ]);
            operations.extend([entry(read, device.read_ops), entry(write, device.write_ops)]);
        }
        if stats.cgroup_v2 {
            // v2 has no operation counts and none of the rest in docker's answers.
            let bytes = Some(bytes).filter(|entries| !entries.is_empty());
            return Self {
                io_service_bytes_recursive: bytes,
                ..Self::default()
            };
        }
        let none = || Some(Vec::new());
        Self {
            io_service_bytes_recursive: Some(bytes),
            io_serviced_recursive: Some(operations),
            io_queue_recursive: none(),
            io_service_time_recursive: none(),
            io_wait_time_recursive: none(),
            io_merged_recursive: none(),
            io_time_recursive: none(),
            sectors_recursive: none(),
        }
    }
}

impl From<&Stats> for MemoryStats {
    fn from(stats: &Stats) -> Self {
        Self {
            usage: stats.memory_usage,
            max_usage: if stats.cgroup_v2 {
                0
            } else {
                stats.memory_max_usage
            },
            stats: stats.memory_stat.clone(),
            failcnt: if stats.cgroup_v2 {
                0
            } else {
                stats.memory_failcnt
            },
            limit: stats.memory_limit.unwrap_or_default(),
        }
    }
}

impl From<&Stats> for PidsStats {
    fn from(stats: &Stats) -> Self {
        let unlimited = if stats.cgroup_v2 { u64::MAX } else { 0 };
        Self {
            current: stats.pids_current,
            limit: stats.pids_limit.unwrap_or(unlimited),
        }
    }
}

impl From<&InterfaceStats> for NetworkStats {
    fn from(stats: &InterfaceStats) -> Self {
        Self {
            rx_bytes: stats.rx_bytes,
            rx_packets: stats.rx_packets,
            rx_errors: stats.rx_errors,
            rx_dropped: stats.rx_dropped,
            tx_bytes: stats.tx_bytes,
            tx_packets: stats.tx_packets,
            tx_errors: stats.tx_errors,
            tx_dropped: stats.tx_dropped,
        }
    }
}
