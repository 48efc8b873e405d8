//! What a container uses, as the kernel's control groups count it.

/// One sample. Units: bytes, nanoseconds, counts. A `None` limit means unlimited.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// CPU time used.
    pub cpu_total_ns: u64,
    /// … in user mode.
    pub cpu_user_ns: u64,
    /// … in kernel mode.
    pub cpu_system_ns: u64,
    /// CPU time per processor (cgroup v1 only, else empty).
    pub cpu_per_cpu_ns: Vec<u64>,
    /// Periods of the CPU bandwidth controller.
    pub throttle_periods: u64,
    /// … in which the group was throttled.
    pub throttled_periods: u64,
    /// Time throttled.
    pub throttled_ns: u64,
    /// CPU time of the whole machine since boot, all processors.
    pub system_cpu_ns: u64,
    /// Processors online.
    pub online_cpus: u32,
    /// Memory in use, page cache included.
    pub memory_usage: u64,
    /// Its highest value (0 where the kernel does not say).
    pub memory_max_usage: u64,
    /// Limit; `None` when there is none.
    pub memory_limit: Option<u64>,
    /// Times the limit was hit (cgroup v1 `failcnt`).
    pub memory_failcnt: u64,
    /// The kernel's own counters of `memory.stat`, by name.
    pub memory_stat: std::collections::BTreeMap<String, u64>,
    /// Processes and threads.
    pub pids_current: u64,
    /// Limit; `None` when there is none.
    pub pids_limit: Option<u64>,
    /// Block I/O per device.
    pub blkio: Vec<BlkioStat>,
    /// Whether the numbers come from cgroup v2 (the wire form differs).
    pub cgroup_v2: bool,
}

/// Block I/O of one device.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BlkioStat {
    /// Device number, major.
    pub major: u64,
    /// Device number, minor.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
}

/// Counters of one network interface.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InterfaceStats {
    /// Its name inside the container.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Received packets dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Sent packets dropped.
    pub tx_dropped: u64,
}
