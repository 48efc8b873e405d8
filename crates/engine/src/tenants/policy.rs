//! What a tenant may not ask of the machine. Whatever reaches beyond a container's own walls is
//! the operator's; each refusal says what was asked for.

use std::collections::BTreeMap;

use ipnet::IpNet;
use types::{
    Error, HostConfig, Result, VolumeName,
    container::{Mount, Resources},
};

use crate::{
    Scope,
    networks::config::{ENABLE_V4, ENABLE_V6},
    request::{ExecRequest, NetworkCreate},
};

/// Docker's own default capabilities; more than these a container cannot have.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sysctls of a container's own namespaces that cost nobody else anything.
const SYSCTLS: [&str; 11] = [
    "kernel.shm_rmid_forced",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// Options of a bridge network that concern nobody else.
const BRIDGE_OPTIONS: [&str; 7] = [
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.container_iface_prefix",
    "com.docker.network.driver.mtu",
    ENABLE_V4,
    ENABLE_V6,
];

fn refused(what: impl std::fmt::Display) -> Error {
    Error::forbidden(format!(
        "{what}: in the namespace of a tenant this is not offered; the operator can"
    ))
}

fn refuse(asked: bool, what: &str) -> Result<()> {
    if asked { Err(refused(what)) } else { Ok(()) }
}

fn any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// Fails when a container's host configuration reaches beyond its walls.
pub(crate) fn container(scope: &Scope, host: &HostConfig) -> Result<()> {
    if !scope.is_tenant() {
        return Ok(());
    }
    // All fields, so that a new one is not forgotten.
    let HostConfig {
        // Paths of the host are looked for among what the tenant has uploaded, when all mounts
        // are known ([`uploads`]).
        binds: _,
        container_id_file: _,
        log_config: _,
        network_mode,
        port_bindings: _,
        restart_policy: _,
        auto_remove: _,
        volume_driver: _,
        volumes_from: _,
        console_size: _,
        annotations,
        cap_add,
        cap_drop: _,
        cgroupns_mode,
        dns: _,
        dns_options: _,
        dns_search: _,
        extra_hosts: _,
        group_add: _,
        ipc_mode,
        cgroup,
        links: _,
        oom_score_adj,
        pid_mode,
        privileged,
        publish_all_ports: _,
        readonly_rootfs: _,
        security_opt,
        storage_opt: _,
        tmpfs: _,
        uts_mode,
        userns_mode,
        shm_size: _,
        sysctls,
        runtime,
        isolation: _,
        resources,
        mounts,
        masked_paths,
        readonly_paths,
        init: _,
    } = host;
    refuse(*privileged, "privileged mode")?;
    for (mode, what) in [
        (network_mode, "the host's network"),
        (pid_mode, "the host's processes (pid mode host)"),
        (ipc_mode, "the host's shared memory (ipc mode host)"),
        (uts_mode, "the host's name (uts mode host)"),
        (userns_mode, "the host's users (userns mode host)"),
        (
            cgroupns_mode,
            "the host's control groups (cgroupns mode host)",
        ),
    ] {
        refuse(mode == "host", what)?;
    }
    refuse(!cgroup.is_empty(), "another's control group")?;
    refuse(*oom_score_adj < 0, "a negative OOM score adjustment")?;
    refuse(
        annotations.as_ref().is_some_and(|map| !map.is_empty()),
        "annotations, which an OCI runtime may act on",
    )?;
    // An empty list unmasks what is masked otherwise.
    refuse(masked_paths.is_some(), "other masked paths")?;
    refuse(readonly_paths.is_some(), "other read-only paths")?;
    if !runtime.is_empty() {
        return Err(refused(format!("the runtime {runtime}")));
    }
    for mount in mounts.iter().flatten() {
        self::mount(mount)?;
    }
    for name in cap_add.iter().flatten() {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if !CAPABILITIES.contains(&plain) {
            return Err(refused(format!("the capability {name}")));
        }
    }
    for option in security_opt.iter().flatten() {
        let fine = matches!(
            option.as_str(),
            "no-new-privileges"
                | "no-new-privileges:true"
                | "no-new-privileges=true"
                | "no-new-privileges:false"
                | "no-new-privileges=false"
                | "seccomp=builtin"
                | "seccomp:builtin"
        );
        if !fine {
            let name = option.split(['=', ':']).next().unwrap_or_default();
            return Err(refused(format!("the security option {name}")));
        }
    }
    for name in sysctls.iter().flatten().map(|(name, _)| name) {
        if !SYSCTLS.contains(&name.as_str()) {
            return Err(refused(format!("the sysctl {name}")));
        }
    }
    self::resources(scope, resources)
}

/// The volume that has what was uploaded of a project of a tenant's: paths of the host in a
/// container's mounts are looked for there, below the volume's root.
///
/// # Errors
/// When the container is of no project: there is nothing else that a path could mean.
pub(crate) fn uploads(labels: Option<&BTreeMap<String, String>>, path: &str) -> Result<VolumeName> {
    let project = labels.and_then(|labels| labels.get("com.docker.compose.project"));
    match project {
        Some(project) => format!("kr-files-{project}").parse(),
        None => Err(host_path(path)),
    }
}

/// What is said of a path of the host.
pub(crate) fn host_path(path: &str) -> Error {
    refused(format!(
        "the host's path {path:?} (kra push uploads the files of a compose project)"
    ))
}

fn mount(mount: &Mount) -> Result<()> {
    let driver = mount
        .volume_options
        .as_ref()
        .and_then(|options| options.driver_config.as_ref());
    match driver {
        Some(driver) => volume(
            driver
                .options
                .iter()
                .flatten()
                .map(|(name, _)| name.as_str()),
        ),
        None => Ok(()),
    }
}

/// Fails when limits of a container name the host's devices or groups, or starve others.
pub(crate) fn resources(scope: &Scope, resources: &Resources) -> Result<()> {
    if !scope.is_tenant() {
        return Ok(());
    }
    refuse(
        !resources.cgroup_parent.is_empty(),
        "a control group of the host",
    )?;
    refuse(any(&resources.devices), "the host's devices")?;
    refuse(
        any(&resources.device_cgroup_rules),
        "rules for the host's devices",
    )?;
    refuse(
        any(&resources.device_requests),
        "the host's devices (--gpus)",
    )?;
    refuse(
        resources.cpu_realtime_period != 0 || resources.cpu_realtime_runtime != 0,
        "realtime scheduling",
    )?;
    refuse(
        resources.oom_kill_disable == Some(true),
        "memory that the kernel never takes back (oom-kill-disable)",
    )?;
    for limit in resources.ulimits.iter().flatten() {
        // They let processes go before those of others.
        refuse(
            matches!(limit.name.as_str(), "nice" | "rtprio" | "rttime"),
            &format!("the ulimit {}", limit.name),
        )?;
    }
    let of_devices = [
        &resources.blkio_device_read_bps,
        &resources.blkio_device_write_bps,
        &resources.blkio_device_read_iops,
        &resources.blkio_device_write_iops,
    ];
    refuse(
        any(&resources.blkio_weight_device) || of_devices.into_iter().any(any),
        "limits for the host's devices",
    )
}

/// Fails when a volume's options choose what is the operator's to choose.
pub(crate) fn volume_options<'a>(
    scope: &Scope,
    names: impl Iterator<Item = &'a str>,
) -> Result<()> {
    if scope.is_tenant() {
        volume(names)
    } else {
        Ok(())
    }
}

fn volume<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<()> {
    refuse(names.any(|name| name == "pool"), "the volume option pool")
}

/// Fails when a session in a container has more rights than the container.
pub(crate) fn exec(scope: &Scope, request: &ExecRequest) -> Result<()> {
    refuse(
        scope.is_tenant() && request.privileged,
        "a privileged session",
    )
}

/// Fails when a network takes something of the host's.
pub(crate) fn network(scope: &Scope, request: &NetworkCreate, occupied: &[IpNet]) -> Result<()> {
    if !scope.is_tenant() {
        return Ok(());
    }
    if !matches!(request.driver.as_str(), "" | "bridge") {
        return Err(refused(format!("the network driver {}", request.driver)));
    }
    for name in request.options.keys() {
        if !BRIDGE_OPTIONS.contains(&name.as_str()) {
            return Err(refused(format!("the network option {name}")));
        }
    }
    for subnet in &request.subnets {
        let Ok(net) = subnet.subnet.parse::<IpNet>() else {
            continue; // Refused elsewhere, in docker's words.
        };
        if !is_private(&net) {
            return Err(refused(format!("the subnet {net}, which is not private")));
        }
        if occupied
            .iter()
            .any(|other| other.contains(&net) || net.contains(other))
        {
            return Err(Error::forbidden(
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
    }
    Ok(())
}

/// Whether all of a subnet is for private use (RFC 1918, RFC 4193).
fn is_private(net: &IpNet) -> bool {
    const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
    PRIVATE
        .iter()
        .filter_map(|text| text.parse::<IpNet>().ok())
        .any(|private| private.contains(net))
}

/// Fails when a registry's address is within the machine or its network. `host` is
/// `name[:port]`.
pub(crate) fn registry(scope: &Scope, host: &str) -> Result<()> {
    if !scope.is_tenant() {
        return Ok(());
    }
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if types::address::is_inside(name) {
        return Err(refused(format!("the registry {host}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use types::{Kind, container::DeviceMapping};

    use super::*;

    fn tenant() -> Scope {
        Scope {
            namespace: "shop".parse().unwrap(),
            ..Scope::default()
        }
    }

    fn kind(result: Result<()>) -> Option<Kind> {
        result.map_err(|error| error.kind).err()
    }

    #[test]
    fn what_reaches_beyond_the_walls_is_refused() {
        let text = |value: &str| Some(vec![value.to_owned()]);
        let map = |name: &str| Some([(name.to_owned(), String::new())].into());
        type Change = Box<dyn Fn(&mut HostConfig)>;
        let cases: Vec<(&str, Change)> = vec![
            ("privileged", Box::new(|host| host.privileged = true)),
            (
                "network",
                Box::new(|host| host.network_mode = "host".into()),
            ),
            ("pid", Box::new(|host| host.pid_mode = "host".into())),
            ("ipc", Box::new(|host| host.ipc_mode = "host".into())),
            ("uts", Box::new(|host| host.uts_mode = "host".into())),
            ("userns", Box::new(|host| host.userns_mode = "host".into())),
            (
                "cgroupns",
                Box::new(|host| host.cgroupns_mode = "host".into()),
            ),
            ("oom", Box::new(|host| host.oom_score_adj = -1)),
            ("runtime", Box::new(|host| host.runtime = "runc".into())),
            (
                "annotation",
                Box::new(move |host| host.annotations = map("run.oci.hooks")),
            ),
            (
                "sysctl",
                Box::new(move |host| host.sysctls = map("kernel.core_pattern")),
            ),
            ("masks", Box::new(|host| host.masked_paths = Some(vec![]))),
            (
                "readonly",
                Box::new(|host| host.readonly_paths = Some(vec![])),
            ),
            (
                "capability",
                Box::new(move |host| host.cap_add = text("SYS_ADMIN")),
            ),
            (
                "all capabilities",
                Box::new(move |host| host.cap_add = text("ALL")),
            ),
            (
                "seccomp",
                Box::new(move |host| host.security_opt = text("seccomp=unconfined")),
            ),
            (
                "apparmor",
                Box::new(move |host| host.security_opt = text("apparmor=unconfined")),
            ),
            (
                "cgroup parent",
                Box::new(|host| host.resources.cgroup_parent = "/".into()),
            ),
            (
                "device",
                Box::new(|host| host.resources.devices = Some(vec![DeviceMapping::default()])),
            ),
            (
                "rule",
                Box::new(move |host| host.resources.device_cgroup_rules = text("a *:* rwm")),
            ),
            (
                "realtime",
                Box::new(|host| host.resources.cpu_realtime_runtime = 1),
            ),
        ];
        for (name, change) in cases {
            let mut host = HostConfig::default();
            change(&mut host);
            assert_eq!(
                kind(container(&tenant(), &host)),
                Some(Kind::Forbidden),
                "{name}"
            );
            assert_eq!(kind(container(&Scope::default(), &host)), None, "{name}");
        }
    }

    #[test]
    fn what_stays_within_is_not() {
        let host = HostConfig {
            binds: Some(vec![
                "data:/data".into(),
                "data/sub:/x".into(),
                "/anonymous".into(),
            ]),
            cap_add: Some(vec!["cap_net_raw".into(), "CHOWN".into()]),
            security_opt: Some(vec!["no-new-privileges:true".into()]),
            sysctls: Some([("net.core.somaxconn".to_owned(), "1".to_owned())].into()),
            network_mode: "default".into(),
            ipc_mode: "private".into(),
            ..HostConfig::default()
        };
        assert_eq!(kind(container(&tenant(), &host)), None);
    }

    #[test]
    fn subnets_and_registries() {
        let subnet = |text: &str| NetworkCreate {
            subnets: vec![crate::record::SubnetRecord {
                subnet: text.into(),
                ..crate::record::SubnetRecord::default()
            }],
            ..NetworkCreate::default()
        };
        let occupied = ["10.0.0.0/24".parse().unwrap()];
        for (text, wanted) in [
            ("10.9.0.0/24", None),
            ("fd00:1::/64", None),
            ("8.8.8.0/24", Some(Kind::Forbidden)),
            ("0.0.0.0/0", Some(Kind::Forbidden)),
            ("10.0.0.0/8", Some(Kind::Forbidden)),
            ("169.254.0.0/16", Some(Kind::Forbidden)),
        ] {
            assert_eq!(
                kind(network(&tenant(), &subnet(text), &occupied)),
                wanted,
                "{text}"
            );
        }
        for inside in [
            "localhost:5000",
            "127.0.0.1",
            "[::1]:5000",
            "registry:5000",
            "169.254.169.254",
            "192.168.1.1:5000",
            "[::ffff:10.0.0.1]",
            "a.localhost",
        ] {
            assert_eq!(
                kind(registry(&tenant(), inside)),
                Some(Kind::Forbidden),
                "{inside}"
            );
            assert_eq!(kind(registry(&Scope::default(), inside)), None);
        }
        for outside in ["docker.io", "ghcr.io:443", "1.1.1.1"] {
            assert_eq!(kind(registry(&tenant(), outside)), None, "{outside}");
        }
    }
}
