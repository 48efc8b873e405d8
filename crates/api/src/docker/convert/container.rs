//! `ContainerInspectResponse` and `ContainerSummary`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use engine::{record::MountRecord, view::ContainerView};
use types::{
    Time,
    container::EndpointSettings,
    state::{ContainerState, Health as ContainerHealth, HealthStatus, Status},
};

use super::when;
use crate::docker::wire::{
    GraphDriver,
    container::{
        ContainerInspect, ContainerSummary, Health, HealthResult, HostConfigSummary, MountPoint,
        NetworkSettings, NetworkSummary, PortSummary, State,
    },
};

/// Where volumes are, by name.
pub(crate) type Places = BTreeMap<String, PathBuf>;

/// `ContainerInspectResponse`.
pub(crate) fn inspect(view: &ContainerView, places: &Places) -> ContainerInspect {
    let record = &view.record;
    let (path, args) = record.command_line();
    let text = |path: &PathBuf| path.display().to_string();
    ContainerInspect {
        id: record.id.to_string(),
        created: record.created.to_string(),
        path,
        args,
        state: state(&view.state),
        image: record.image.to_string(),
        resolv_conf_path: text(&view.files.resolv_conf),
        hostname_path: text(&view.files.hostname),
        hosts_path: text(&view.files.hosts),
        log_path: text(&view.files.log),
        name: format!("/{}", record.name),
        restart_count: view.state.restart_count,
        driver: "overlay2".into(),
        platform: record.platform.clone(),
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: String::new(),
        exec_ids: Some(view.exec_ids.iter().map(ToString::to_string).collect())
            .filter(|ids: &Vec<String>| !ids.is_empty()),
        host_config: record.host.clone(),
        graph_driver: graph_driver(view),
        size_rw: view.size_rw,
        size_root_fs: view.size_root,
        mounts: record
            .mounts
            .iter()
            .map(|mount| {
                let place = mount
                    .volume
                    .as_ref()
                    .and_then(|name| places.get(name.as_str()));
                mount_point(mount, place.map(text))
            })
            .collect(),
        config: record.config.clone(),
        network_settings: network_settings(view),
    }
}

fn graph_driver(view: &ContainerView) -> GraphDriver {
    let files = &view.files;
    let mut data = BTreeMap::from([("ID".to_owned(), view.record.id.to_string())]);
    for (name, value) in [
        ("LowerDir", files.lower.clone()),
        ("MergedDir", files.merged.display().to_string()),
        ("UpperDir", files.upper.display().to_string()),
        ("WorkDir", files.work.display().to_string()),
    ] {
        data.insert(name.into(), value);
    }
    GraphDriver {
        data,
        name: "overlay2".into(),
    }
}

/// `ContainerState`. docker counts a paused and a restarting container as running.
fn state(state: &ContainerState) -> State {
    State {
        status: state.status.as_str(),
        running: state.is_running(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: state.pid,
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: state.started_at.to_string(),
        finished_at: state.finished_at.to_string(),
        health: state.health.as_ref().map(health),
    }
}

fn health(health: &ContainerHealth) -> Health {
    let log = health.log.iter().map(|probe| HealthResult {
        start: probe.start.to_string(),
        end: probe.end.to_string(),
        exit_code: probe.exit_code,
        output: probe.output.clone(),
    });
    Health {
        status: health.status.as_str(),
        failing_streak: health.failing_streak,
        log: log.collect(),
    }
}

fn mount_point(mount: &MountRecord, place: Option<String>) -> MountPoint {
    MountPoint {
        kind: mount.kind.clone(),
        name: mount
            .volume
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        source: place.unwrap_or_else(|| mount.source.clone()),
        destination: mount.target.clone(),
        driver: mount.driver.clone(),
        mode: mount.mode.clone(),
        rw: mount.writable,
        propagation: mount.propagation.clone(),
    }
}

fn network_settings(view: &ContainerView) -> NetworkSettings {
    // The sandbox is named by the last part of its path.
    let key = &view.sandbox_key;
    let legacy = view.endpoints.get("bridge").cloned().unwrap_or_default();
    NetworkSettings {
        sandbox_id: key.rsplit('/').next().unwrap_or_default().to_owned(),
        sandbox_key: key.clone(),
        ports: view.ports.clone(),
        endpoint_id: legacy.endpoint_id,
        gateway: legacy.gateway,
        global_ipv6_address: legacy.global_ipv6_address,
        global_ipv6_prefix_len: legacy.global_ipv6_prefix_len,
        ip_address: legacy.ip_address,
        ip_prefix_len: legacy.ip_prefix_len,
        ipv6_gateway: legacy.ipv6_gateway,
        mac_address: legacy.mac_address,
        networks: view.endpoints.clone(),
        ..NetworkSettings::default()
    }
}

/// `ContainerSummary`. `image_now` is the id of the image that the container's image name
/// means today: when it is another one, docker shows the id.
pub(crate) fn summary(
    view: &ContainerView,
    image_now: Option<&String>,
    now: Time,
) -> ContainerSummary {
    let record = &view.record;
    let id = record.image.to_string();
    let image = if image_now.is_none_or(|current| *current == id) {
        record.config.image.clone()
    } else {
        id.clone()
    };
    ContainerSummary {
        id: record.id.to_string(),
        names: std::iter::once(record.name.as_str())
            .chain(view.link_names.iter().map(String::as_str))
            .map(|name| format!("/{name}"))
            .collect(),
        image,
        image_id: id,
        command: command(view),
        created: record.created.unix_seconds(),
        ports: ports(view),
        size_rw: view.size_rw.unwrap_or_default(),
        size_root_fs: view.size_root.unwrap_or_default(),
        labels: record.config.labels.clone().unwrap_or_default(),
        state: view.state.status.as_str(),
        status: status(&view.state, now),
        host_config: HostConfigSummary {
            network_mode: record.host.network_mode.clone(),
            annotations: record.host.annotations.clone(),
        },
        network_settings: NetworkSummary {
            networks: view.endpoints.iter().map(endpoint_summary).collect(),
        },
        mounts: record
            .mounts
            .iter()
            .map(|mount| mount_point(mount, None))
            .collect(),
    }
}

/// A list does not show what the user asked for, only what came of it.
fn endpoint_summary((name, endpoint): (&String, &EndpointSettings)) -> (String, EndpointSettings) {
    let shown = EndpointSettings {
        links: None,
        aliases: None,
        dns_names: None,
        ..endpoint.clone()
    };
    (name.clone(), shown)
}

fn command(view: &ContainerView) -> String {
    let (mut line, args) = view.record.command_line();
    for arg in args {
        line.push(' ');
        if arg.contains(' ') {
            line.push_str(&format!("'{arg}'"));
        } else {
            line.push_str(&arg);
        }
    }
    line
}

fn ports(view: &ContainerView) -> Vec<PortSummary> {
    let mut ports = BTreeSet::new();
    for (port, bindings) in &view.ports {
        let bare = PortSummary {
            ip: String::new(),
            private_port: port.number,
            public_port: 0,
            kind: port.protocol.as_str(),
        };
        match bindings.as_deref() {
            None | Some([]) => {
                ports.insert(bare);
            }
            Some(bindings) => ports.extend(bindings.iter().map(|binding| PortSummary {
                ip: binding.host_ip.clone(),
                public_port: binding.host_port.parse().unwrap_or_default(),
                ..bare.clone()
            })),
        }
    }
    ports.into_iter().collect()
}

/// The column STATUS of `docker ps`.
fn status(state: &ContainerState, now: Time) -> String {
    let up = || when::human(now.since(state.started_at));
    let ago = || when::human(now.since(state.finished_at));
    match state.status {
        Status::Created => "Created".into(),
        Status::Running => match &state.health {
            Some(health) if health.status == HealthStatus::Starting => {
                format!("Up {} (health: starting)", up())
            }
            Some(health) => format!("Up {} ({})", up(), health.status.as_str()),
            None => format!("Up {}", up()),
        },
        Status::Paused => format!("Up {} (Paused)", up()),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, ago()),
        Status::Removing => "Removal In Progress".into(),
        Status::Dead => "Dead".into(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_column() {
        let now = Time::from_unix(1000, 0);
        let of = |status, health: Option<HealthStatus>| {
            let health = health.map(|status| ContainerHealth {
                status,
                ..ContainerHealth::default()
            });
            let at = ContainerState {
                status,
                exit_code: 137,
                started_at: Time::from_unix(940, 0),
                finished_at: Time::from_unix(998, 0),
                health,
                ..ContainerState::default()
            };
            super::status(&at, now)
        };
        assert_eq!(of(Status::Running, None), "Up About a minute");
        assert_eq!(
            of(Status::Running, Some(HealthStatus::Starting)),
            "Up About a minute (health: starting)"
        );
        assert_eq!(
            of(Status::Running, Some(HealthStatus::Healthy)),
            "Up About a minute (healthy)"
        );
        assert_eq!(
            of(Status::Paused, Some(HealthStatus::Healthy)),
            "Up About a minute (Paused)"
        );
        assert_eq!(of(Status::Exited, None), "Exited (137) 2 seconds ago");
        assert_eq!(
            of(Status::Restarting, None),
            "Restarting (137) 2 seconds ago"
        );
        assert_eq!(of(Status::Created, None), "Created");
    }

    #[test]
    fn running_as_docker_counts_it() {
        let of = |status| {
            state(&ContainerState {
                status,
                ..ContainerState::default()
            })
        };
        assert!(of(Status::Paused).running && of(Status::Paused).paused);
        assert!(of(Status::Restarting).running && of(Status::Restarting).restarting);
        assert!(!of(Status::Exited).running);
    }
}
