//! `/_ping`, `/version`, `/info`, `/system/df`.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{HeaderValue, Method, header},
    response::Response,
};
use engine::view::Info;
use types::{Error, Result, Time};

use super::{
    call, convert,
    router::Call,
    version::ApiVersion,
    wire::system::{
        AddressPool, Commit, Component, DiskUsage, IndexInfo, PlatformName, PluginsInfo,
        RegistryConfig, Runtime, SwarmInfo, SystemInfo, Version,
    },
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET` and `HEAD /_ping`
pub(super) async fn ping(call: Call) -> Result<Response> {
    let mut response = call::text("OK")?;
    let headers = response.headers_mut();
    for (name, value) in [
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        // The classic builder: there is no BuildKit behind this API.
        ("builder-version", "1"),
        ("swarm", "inactive"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if call.parts.method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        *response.body_mut() = Body::empty();
    }
    Ok(response)
}

/// Go's name of an architecture that `uname` names.
fn go_architecture(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" | "i386" => "386",
        other => other,
    }
    .to_owned()
}

/// `GET /version`
pub(super) async fn version(call: Call) -> Result<Response> {
    let node = call.state.info(&call.scope()).await?.node;
    let arch = go_architecture(&node.architecture);
    let facts = BTreeMap::from([
        ("ApiVersion", ApiVersion::MAX.to_string()),
        ("Arch", arch.clone()),
        ("Experimental", "false".into()),
        ("KernelVersion", node.kernel_version.clone()),
        ("MinAPIVersion", ApiVersion::MIN.to_string()),
        ("Os", "linux".into()),
    ]);
    let runtime = Component {
        name: node.default_runtime,
        version: node.runtime_version,
        details: BTreeMap::new(),
    };
    call::json(&Version {
        platform: PlatformName { name: "kraud" },
        components: vec![
            Component {
                name: "Engine".into(),
                version: VERSION.into(),
                details: facts,
            },
            runtime,
        ],
        version: VERSION,
        api_version: ApiVersion::MAX.to_string(),
        min_api_version: ApiVersion::MIN.to_string(),
        git_commit: "",
        go_version: "",
        os: "linux",
        arch,
        kernel_version: node.kernel_version,
        build_time: String::new(),
    })
}

/// `GET /info`
pub(super) async fn info(call: Call) -> Result<Response> {
    let info = call.state.info(&call.scope()).await?;
    call::json(&system_info(info))
}

pub(super) fn system_info(info: Info) -> SystemInfo {
    let node = info.node;
    let security = [
        (node.seccomp, "name=seccomp,profile=builtin"),
        (node.cgroupns, "name=cgroupns"),
        (info.own_users, "name=userns"),
    ];
    SystemInfo {
        id: info.id,
        containers: info.containers,
        containers_running: info.running,
        containers_paused: info.paused,
        containers_stopped: info.stopped,
        images: info.images,
        driver: "overlay2",
        driver_status: driver_status(&node.backing_filesystem, node.supports_d_type),
        plugins: PluginsInfo {
            volume: vec!["local", "nfs", "lv2", "lv1", "gfs"],
            network: vec!["bridge", "host", "macvlan", "null"],
            authorization: None,
            log: vec!["json-file", "local", "none"],
        },
        memory_limit: true,
        swap_limit: node.swap_limit,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: node.ipv4_forwarding,
        debug: false,
        n_fd: node.open_files,
        oom_kill_disable: node.cgroup_version == 1,
        n_goroutines: 0,
        system_time: Time::now().to_string(),
        logging_driver: "json-file",
        cgroup_driver: node.cgroup_driver,
        cgroup_version: node.cgroup_version.to_string(),
        n_events_listener: 0,
        kernel_version: node.kernel_version,
        operating_system: node.operating_system,
        os_version: node.os_version,
        os_type: "linux",
        architecture: node.architecture,
        index_server_address: "https://index.docker.io/v1/",
        registry_config: registry_config(info.insecure_registries),
        n_cpu: node.cpus,
        mem_total: node.memory,
        generic_resources: None,
        docker_root_dir: info.data_dir.display().to_string(),
        http_proxy: String::new(),
        https_proxy: String::new(),
        no_proxy: String::new(),
        name: node.hostname,
        labels: Vec::new(),
        experimental_build: false,
        server_version: VERSION,
        runtimes: node
            .runtimes
            .into_iter()
            .map(|(name, path)| (name, Runtime { path }))
            .collect(),
        default_runtime: node.default_runtime,
        swarm: SwarmInfo::INACTIVE,
        // Containers always outlive the daemon.
        live_restore_enabled: true,
        isolation: "",
        init_binary: node.init_binary,
        containerd_commit: Commit::default(),
        runc_commit: Commit::default(),
        init_commit: Commit::default(),
        security_options: security
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| name.to_owned())
            .collect(),
        cdi_spec_dirs: Vec::new(),
        default_address_pools: info
            .address_pools
            .iter()
            .map(|pool| AddressPool {
                base: pool.base.to_string(),
                size: pool.size,
            })
            .collect(),
        warnings: Some(node.warnings).filter(|warnings| !warnings.is_empty()),
    }
}

fn driver_status(backing: &str, d_type: bool) -> Vec<[String; 2]> {
    [
        ("Backing Filesystem", backing.to_owned()),
        ("Supports d_type", d_type.to_string()),
        ("Using metacopy", "false".into()),
        ("Native Overlay Diff", "true".into()),
        ("userxattr", "false".into()),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .into()
}

fn registry_config(insecure: Vec<String>) -> RegistryConfig {
    let index = |name: &str, hub: bool| {
        let info = IndexInfo {
            mirrors: Vec::new(),
            name: name.to_owned(),
            official: hub,
            secure: hub,
        };
        (name.to_owned(), info)
    };
    let mut config = RegistryConfig {
        insecure_registry_cidrs: vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()],
        index_configs: BTreeMap::from([index("docker.io", true)]),
        mirrors: None,
    };
    config
        .index_configs
        .extend(insecure.iter().map(|name| index(name, false)));
    config
}

/// `GET /system/df`
pub(super) async fn disk_usage(call: Call) -> Result<Response> {
    let wanted: Vec<&str> = call.query.all("type").collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|kind| !["container", "image", "volume", "build-cache"].contains(kind))
    {
        return Err(Error::invalid(format!("unknown object type: {unknown}")));
    }
    let wants = |kind: &str| wanted.is_empty() || wanted.contains(&kind);
    let usage = call.state.disk_usage(&call.scope()).await?;
    let now = Time::now();
    let containers = || {
        usage
            .containers
            .iter()
            .map(|view| convert::container::summary(view, None, now))
            .collect()
    };
    call::json(&DiskUsage {
        layers_size: if wants("image") { usage.layers_size } else { 0 },
        images: wants("image").then(|| {
            usage
                .images
                .iter()
                .map(|image| convert::image::usage(image, call.version))
                .collect()
        }),
        containers: wants("container").then(containers),
        volumes: wants("volume").then(|| usage.volumes.iter().map(convert::volume).collect()),
        build_cache: wants("build-cache").then(Vec::new),
    })
}
