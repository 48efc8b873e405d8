//! What control groups do not count: the machine's CPU time and network interfaces.

use std::fs;

use types::stats::{InterfaceStats, Stats};

use crate::error::{Error, Result};

/// Nanoseconds of a clock tick.
const TICK: u64 = 10_000_000;

/// Fills in the machine's own counters.
pub(super) fn machine(stats: &mut Stats) -> Result<()> {
    let text = fs::read_to_string("/proc/stat").map_err(Error::io("read /proc/stat"))?;
    (stats.system_cpu_ns, stats.online_cpus) = parse_stat(&text);
    Ok(())
}

/// CPU time (user to softirq, as docker counts it) and processors of /proc/stat.
fn parse_stat(text: &str) -> (u64, u32) {
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .unwrap_or_default();
    let ticks: u64 = total
        .split_ascii_whitespace()
        .take(7)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let cpus = text.lines().filter(is_cpu).count();
    (ticks * TICK, u32::try_from(cpus).unwrap_or(u32::MAX))
}

/// Counters of the interfaces in the network namespace of `pid`, without loopback.
pub fn interfaces(pid: i32) -> Result<Vec<InterfaceStats>> {
    let path = format!("/proc/{pid}/net/dev");
    let text = fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
    Ok(parse_interfaces(&text))
}

/// Parses /proc/net/dev, leaving loopback out.
pub fn parse_interfaces(text: &str) -> Vec<InterfaceStats> {
    text.lines()
        .filter_map(parse_interface)
        .filter(|interface| interface.name != "lo")
        .collect()
}

fn parse_interface(line: &str) -> Option<InterfaceStats> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters
        .split_ascii_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    let &[
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = counters.as_slice()
    else {
        return None;
    };
    Some(InterfaceStats {
        name: name.trim().to_owned(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_time() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(parse_stat(text), (28 * TICK, 2));
    }

    #[test]
    fn net_dev() {
        let text = "Inter-|   Receive   |  Transmit\n face |bytes packets errs\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let [eth0] = parse_interfaces(text).try_into().unwrap();
        assert_eq!(
            (
                eth0.name.as_str(),
                eth0.rx_bytes,
                eth0.rx_dropped,
                eth0.tx_bytes,
                eth0.tx_dropped
            ),
            ("eth0", 10, 4, 50, 8)
        );
    }
}
