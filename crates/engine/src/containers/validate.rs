//! What is wrong with a request, in docker's words, before anything is changed.

use std::collections::BTreeMap;

use types::{
    Config, Error, HostConfig, Result,
    container::{EndpointSettings, Resources, RestartPolicy},
    port::Port,
};

/// The least memory limit that a container can start under (bytes).
const LEAST_MEMORY: i64 = 6 << 20;

/// Checks a create request; returns warnings.
pub(super) fn create(config: &Config, host: &mut HostConfig, cpus: usize) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(Error::invalid(format!(
                "invalid environment variable: {variable}"
            )));
        }
    }
    if let Some(signal) = &config.stop_signal {
        super::stop::parse_signal(signal)?;
    }
    if config.hostname.len() > 63 {
        return Err(Error::invalid(format!(
            "invalid hostname: {:?} is longer than 63 bytes",
            config.hostname
        )));
    }
    for port in config.exposed_ports.iter().flatten().map(|(port, _)| port) {
        port.parse::<Port>()
            .map_err(|_| Error::invalid(format!("invalid port specification: {port:?}")))?;
    }
    for (port, bindings) in host.port_bindings.iter().flatten() {
        for binding in bindings.iter().flatten() {
            port_range(&binding.host_port).ok_or_else(|| {
                Error::invalid(format!(
                    "invalid port specification: {:?}",
                    binding.host_port
                ))
            })?;
            if !binding.host_ip.is_empty() && binding.host_ip.parse::<std::net::IpAddr>().is_err() {
                return Err(Error::invalid(format!(
                    "invalid IP address in add-host: {:?} for port {port}",
                    binding.host_ip
                )));
            }
        }
    }
    health(config)?;
    restart_policy(&host.restart_policy)?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    modes(config, host)?;
    for entry in host.extra_hosts.iter().flatten() {
        if !entry
            .split_once([':', '='])
            .is_some_and(|(name, address)| !name.is_empty() && !address.is_empty())
        {
            return Err(Error::invalid(format!(
                "bad format for add-host: {entry:?}"
            )));
        }
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if host.log_config.driver.is_empty() {
        host.log_config.driver = "json-file".into();
    }
    log_config(host)?;
    resources(&mut host.resources, cpus, &mut warnings)?;
    if host
        .resources
        .device_requests
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        return Err(Error::invalid(
            "could not select device driver \"\" with capabilities: [[gpu]]",
        ));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation ({}): only 'default' is supported on linux",
            host.isolation
        )));
    }
    if !host.userns_mode.is_empty() && host.userns_mode != "host" {
        return Err(Error::invalid(format!(
            "invalid user namespace mode: {:?}",
            host.userns_mode
        )));
    }
    Ok(warnings)
}

/// Refuses what only networks of users can do.
pub(super) fn endpoints(
    host: &HostConfig,
    endpoints: &BTreeMap<String, EndpointSettings>,
) -> Result<()> {
    let mode = host.network_mode.as_str();
    for (name, settings) in endpoints {
        let name = if matches!(name.as_str(), "default" | "") {
            mode
        } else {
            name
        };
        if !matches!(name, "" | "default" | "bridge" | "host" | "none") {
            continue;
        }
        let fixed = settings.ipam_config.as_ref().is_some_and(|config| {
            !config.ipv4_address.is_empty() || !config.ipv6_address.is_empty()
        });
        let mut wrong = Vec::new();
        if fixed {
            wrong.push("user specified IP address is supported on user defined networks only");
        }
        if settings
            .aliases
            .as_ref()
            .is_some_and(|list| !list.is_empty())
        {
            wrong.push(
                "network-scoped alias is supported only for containers in user defined networks",
            );
        }
        if !wrong.is_empty() {
            let name = match name {
                "" | "default" => "bridge",
                other => other,
            };
            return Err(Error::invalid(format!(
                "invalid config for network {name}: invalid endpoint settings:\n{}",
                wrong.join("\n")
            )));
        }
    }
    Ok(())
}

/// `""`, `80` or `8000-8010` as first and last port; `None` when it is none of these.
pub(super) fn port_range(text: &str) -> Option<(u16, u16)> {
    if text.is_empty() {
        return Some((0, 0));
    }
    match text.split_once('-') {
        None => text.parse().ok().map(|port| (port, port)),
        Some((first, last)) => match (first.parse().ok()?, last.parse().ok()?) {
            (first, last) if first <= last => Some((first, last)),
            _ => None,
        },
    }
}

fn health(config: &Config) -> Result<()> {
    let Some(health) = &config.healthcheck else {
        return Ok(());
    };
    let least = 1_000_000;
    for (value, name) in [
        (health.interval, "Interval"),
        (health.timeout, "Timeout"),
        (health.start_period, "StartPeriod"),
        (health.start_interval, "StartInterval"),
    ] {
        if value != 0 && value < least {
            return Err(Error::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if health.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    match health.test.as_deref() {
        Some([kind, ..]) if !matches!(kind.as_str(), "NONE" | "CMD" | "CMD-SHELL") => {
            Err(Error::invalid(format!(
                "Unknown healthcheck type {kind:?} in Healthcheck: want NONE, CMD or CMD-SHELL"
            )))
        }
        _ => Ok(()),
    }
}

/// Checks a restart policy.
pub(super) fn restart_policy(policy: &RestartPolicy) -> Result<()> {
    match policy.name.as_str() {
        "always" | "unless-stopped" | "no" | "" if policy.maximum_retry_count != 0 => {
            Err(Error::invalid(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{}",
                if policy.maximum_retry_count < 0 {
                    " and cannot be negative"
                } else {
                    ""
                }
            )))
        }
        "on-failure" if policy.maximum_retry_count < 0 => Err(Error::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        )),
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(Error::invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

fn modes(config: &Config, host: &HostConfig) -> Result<()> {
    let of_container = |mode: &str| {
        mode.strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
    };
    for (mode, known, what) in [
        (&host.pid_mode, &["", "host"][..], "PID"),
        (
            &host.ipc_mode,
            &["", "none", "private", "shareable", "host"][..],
            "IPC",
        ),
    ] {
        if !known.contains(&mode.as_str()) && !of_container(mode) {
            return Err(Error::invalid(format!("invalid {what} mode: {mode}")));
        }
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(Error::invalid(format!(
            "invalid UTS mode: {}",
            host.uts_mode
        )));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return Err(Error::invalid(format!(
            "invalid cgroup namespace mode: {}",
            host.cgroupns_mode
        )));
    }
    let shares = host.network_mode.starts_with("container:");
    if shares && !of_container(&host.network_mode) {
        return Err(Error::invalid(
            "Container network mode requires a container to join: invalid container format container:<name|id>",
        ));
    }
    let host_network = host.network_mode == "host";
    let conflicts = [
        (
            shares && !config.hostname.is_empty(),
            "conflicting options: hostname and the network mode",
        ),
        (
            host.uts_mode == "host" && !config.hostname.is_empty(),
            "conflicting options: hostname and the UTS mode",
        ),
        (
            shares && host.links.is_some(),
            "conflicting options: container type network can't be used with links. This would result in undefined behavior",
        ),
        (
            host_network && host.links.as_ref().is_some_and(|l| !l.is_empty()),
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ),
        (
            shares && host.dns.as_ref().is_some_and(|l| !l.is_empty()),
            "conflicting options: dns and the network mode",
        ),
        (
            shares && host.extra_hosts.as_ref().is_some_and(|l| !l.is_empty()),
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            shares && host.port_bindings.as_ref().is_some_and(|l| !l.is_empty()),
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            shares && host.publish_all_ports,
            "conflicting options: port publishing and the container type network mode",
        ),
    ];
    for (broken, text) in conflicts {
        if broken {
            return Err(Error::invalid(text));
        }
    }
    for address in host.dns.iter().flatten() {
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid IP address: {address}")));
        }
    }
    Ok(())
}

fn log_config(host: &HostConfig) -> Result<()> {
    match host.log_config.driver.as_str() {
        "json-file" | "local" => {
            for (name, value) in &host.log_config.config {
                match name.as_str() {
                    "max-size" if value == "-1" => {}
                    "max-size" => drop(types::size::parse(value)?),
                    "max-file" => {
                        if value.parse::<u32>().map_or(true, |files| files == 0) {
                            return Err(Error::invalid("max-file cannot be less than 1"));
                        }
                    }
                    "compress" | "labels" | "labels-regex" | "env" | "env-regex" | "tag"
                    | "mode" | "max-buffer-size" => {}
                    other => {
                        return Err(Error::invalid(format!(
                            "unknown log opt '{other}' for {} log driver",
                            host.log_config.driver
                        )));
                    }
                }
            }
            Ok(())
        }
        "none" => Ok(()),
        other => Err(Error::invalid(format!(
            "logger: no log driver named '{other}' is registered"
        ))),
    }
}

/// Checks limits, and fills in what follows from others.
pub(super) fn resources(
    limits: &mut Resources,
    cpus: usize,
    warnings: &mut Vec<String>,
) -> Result<()> {
    if limits.memory != 0 && limits.memory < LEAST_MEMORY {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if limits.memory > 0 && limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return Err(Error::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if limits.memory == 0 && limits.memory_swap > 0 {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if limits.memory > 0 && limits.memory_swap == 0 {
        limits.memory_swap = limits.memory.saturating_mul(2);
    }
    if limits
        .memory_swappiness
        .is_some_and(|value| !(-1..=100).contains(&value))
    {
        return Err(Error::invalid(format!(
            "Invalid value: {}, valid memory swappiness range is 0-100",
            limits.memory_swappiness.unwrap_or_default()
        )));
    }
    if limits.memory_reservation != 0 && limits.memory_reservation < LEAST_MEMORY {
        return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if limits.memory > 0 && limits.memory_reservation > limits.memory {
        return Err(Error::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if limits.kernel_memory != 0 {
        warnings.push("Specifying a kernel memory limit is deprecated and ignored.".into());
        limits.kernel_memory = 0;
    }
    if limits.oom_kill_disable == Some(true) && limits.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".into());
    }
    if limits.nano_cpus != 0 {
        if limits.nano_cpus < 0
            || limits.nano_cpus
                > i64::try_from(cpus)
                    .unwrap_or(i64::MAX)
                    .saturating_mul(1_000_000_000)
        {
            return Err(Error::invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
        if limits.cpu_period != 0 || limits.cpu_quota != 0 {
            let other = if limits.cpu_period != 0 {
                "CPU Period"
            } else {
                "CPU Quota"
            };
            return Err(Error::invalid(format!(
                "Conflicting options: Nano CPUs and {other} cannot both be set."
            )));
        }
    }
    if limits.cpu_period != 0 && !(1_000..=1_000_000).contains(&limits.cpu_period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1_000 {
        return Err(Error::invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    if limits.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            limits.cpu_shares
        )));
    }
    for (list, name) in [
        (&limits.cpuset_cpus, "cpuset cpus"),
        (&limits.cpuset_mems, "cpuset mems"),
    ] {
        let highest = parse_cpuset(list)
            .ok_or_else(|| Error::invalid(format!("Invalid value {list} for {name}")))?;
        if name == "cpuset cpus" && highest.is_some_and(|cpu| cpu >= cpus) {
            return Err(Error::invalid(format!(
                "Requested CPUs are not available - requested {list}, available: 0-{}",
                cpus.saturating_sub(1)
            )));
        }
    }
    if limits.blkio_weight != 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return Err(Error::invalid("range of blkio weight is from 10 to 1000"));
    }
    // docker shows "no limit" as null, whichever way it was asked for.
    limits.pids_limit = limits.pids_limit.filter(|limit| *limit > 0);
    limits.memory_swappiness = limits.memory_swappiness.filter(|value| *value != -1);
    for limit in limits.ulimits.iter().flatten() {
        if limit.hard != -1 && (limit.soft > limit.hard || limit.soft == -1) {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
    }
    for device in limits.devices.iter().flatten() {
        if device.path_on_host.is_empty() {
            return Err(Error::invalid(
                "invalid device: the path on the host is empty",
            ));
        }
        if !device
            .cgroup_permissions
            .bytes()
            .all(|b| b"rwm".contains(&b))
        {
            return Err(Error::invalid(format!(
                "invalid device mode: {}",
                device.cgroup_permissions
            )));
        }
    }
    Ok(())
}

/// The highest number of a list such as `0-2,7`; `None` when it is malformed.
#[expect(
    clippy::option_option,
    reason = "malformed and empty are different answers"
)]
pub(super) fn parse_cpuset(list: &str) -> Option<Option<usize>> {
    if list.is_empty() {
        return Some(None);
    }
    let mut highest = 0;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 8192 {
            return None;
        }
        highest = highest.max(last);
    }
    Some(Some(highest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edit: impl FnOnce(&mut Config, &mut HostConfig)) -> Result<Vec<String>> {
        let (mut config, mut host) = (Config::default(), HostConfig::default());
        edit(&mut config, &mut host);
        create(&config, &mut host, 2)
    }

    #[test]
    fn refusals() {
        type Edit = fn(&mut Config, &mut HostConfig);
        let bad: &[Edit] = &[
            |c, _| c.working_dir = "x".into(),
            |c, _| c.stop_signal = Some("SIGNOPE".into()),
            |_, h| h.resources.memory = 1024,
            |_, h| h.resources.nano_cpus = 3_000_000_000,
            |_, h| h.resources.cpuset_cpus = "0-5".into(),
            |_, h| h.resources.cpuset_cpus = "x".into(),
            |_, h| h.restart_policy.name = "sometimes".into(),
            |_, h| {
                h.restart_policy = RestartPolicy {
                    name: "always".into(),
                    maximum_retry_count: 3,
                }
            },
            |_, h| h.log_config.driver = "syslog".into(),
            |_, h| h.extra_hosts = Some(vec!["nohost".into()]),
            |_, h| h.pid_mode = "container:".into(),
            |_, h| (h.auto_remove, h.restart_policy.name) = (true, "always".into()),
        ];
        for (index, edit) in bad.iter().enumerate() {
            assert!(check(edit).is_err(), "case {index}");
        }
        assert!(check(|_, _| {}).unwrap().is_empty());
    }

    #[test]
    fn swap_is_twice_the_memory() {
        let mut limits = Resources {
            memory: 64 << 20,
            ..Resources::default()
        };
        resources(&mut limits, 2, &mut Vec::new()).unwrap();
        assert_eq!(limits.memory_swap, 128 << 20);
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range(""), Some((0, 0)));
        assert_eq!(port_range("8000-8002"), Some((8000, 8002)));
        for bad in ["x", "2-1", "70000", "-", "1-"] {
            assert_eq!(port_range(bad), None, "{bad}");
        }
    }
}
