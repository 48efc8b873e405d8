//! Limits of a container in OCI terms.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};
use types::container::{Resources, ThrottleDevice};

use super::{BundleInput, devices::Devices};
use crate::{
    cgroup::{Cgroups, cpu_bandwidth},
    error::{Error, Result},
};

pub(super) fn all(input: &BundleInput<'_>, devices: &Devices) -> Result<LinuxResources> {
    let wanted = &input.host.resources;
    let mut resources = LinuxResources::default();
    resources
        .set_devices(Some(devices.rules.clone()))
        .set_memory(memory(wanted, input.cgroups))
        .set_cpu(cpu(wanted))
        .set_pids(pids(wanted))
        .set_block_io(block_io(wanted)?);
    Ok(resources)
}

fn positive(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

fn memory(wanted: &Resources, cgroups: &Cgroups) -> Option<LinuxMemory> {
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(positive(wanted.memory))
        .set_reservation(positive(wanted.memory_reservation));
    if cgroups.has_swap_limit() {
        let swap = match wanted.memory_swap {
            0 => positive(wanted.memory).map(|limit| limit.saturating_mul(2)),
            limit => Some(limit),
        };
        memory.set_swap(swap);
    }
    // Both exist in v1 only.
    if cgroups.version() == 1 {
        memory.set_swappiness(
            wanted
                .memory_swappiness
                .and_then(|value| u64::try_from(value).ok()),
        );
        memory.set_disable_oom_killer(wanted.oom_kill_disable.filter(|disable| *disable));
    }
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu(wanted: &Resources) -> Option<LinuxCpu> {
    let words = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (quota, period) = cpu_bandwidth(wanted);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive(wanted.cpu_shares).and_then(|shares| u64::try_from(shares).ok()))
        .set_quota(quota)
        .set_period(period)
        .set_realtime_runtime(positive(wanted.cpu_realtime_runtime))
        .set_realtime_period(
            positive(wanted.cpu_realtime_period).and_then(|period| u64::try_from(period).ok()),
        )
        .set_cpus(words(&wanted.cpuset_cpus))
        .set_mems(words(&wanted.cpuset_mems));
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn pids(wanted: &Resources) -> Option<LinuxPids> {
    let limit = wanted.pids_limit.and_then(positive)?;
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    Some(pids)
}

fn block_io(wanted: &Resources) -> Result<Option<LinuxBlockIo>> {
    let weights = wanted.blkio_weight_device.iter().flatten().map(|device| {
        let (major, minor) = numbers(&device.path)?;
        Ok(LinuxWeightDeviceBuilder::default()
            .major(major)
            .minor(minor)
            .weight(device.weight)
            .build()?)
    });
    let weights: Vec<_> = weights.collect::<Result<_>>()?;
    let mut block_io = LinuxBlockIo::default();
    block_io
        .set_weight((wanted.blkio_weight > 0).then_some(wanted.blkio_weight))
        .set_weight_device((!weights.is_empty()).then_some(weights))
        .set_throttle_read_bps_device(throttles(&wanted.blkio_device_read_bps)?)
        .set_throttle_write_bps_device(throttles(&wanted.blkio_device_write_bps)?)
        .set_throttle_read_iops_device(throttles(&wanted.blkio_device_read_iops)?)
        .set_throttle_write_iops_device(throttles(&wanted.blkio_device_write_iops)?);
    Ok((block_io != LinuxBlockIo::default()).then_some(block_io))
}

fn throttles(wanted: &Option<Vec<ThrottleDevice>>) -> Result<Option<Vec<LinuxThrottleDevice>>> {
    let throttles = wanted.iter().flatten().map(|device| {
        let (major, minor) = numbers(&device.path)?;
        Ok(LinuxThrottleDeviceBuilder::default()
            .major(major)
            .minor(minor)
            .rate(device.rate)
            .build()?)
    });
    let throttles: Vec<_> = throttles.collect::<Result<_>>()?;
    Ok((!throttles.is_empty()).then_some(throttles))
}

fn numbers(path: &str) -> Result<(i64, i64)> {
    let metadata =
        fs::metadata(path).map_err(|_| Error::Invalid(format!("no such device: {path:?}")))?;
    if !metadata.file_type().is_block_device() && !metadata.file_type().is_char_device() {
        return Err(Error::Invalid(format!("not a device: {path:?}")));
    }
    Ok((
        rustix::fs::major(metadata.rdev()).into(),
        rustix::fs::minor(metadata.rdev()).into(),
    ))
}
