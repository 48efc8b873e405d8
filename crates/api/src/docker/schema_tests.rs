//! Answers against the published schema: names, types, and what must be there.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use catalog::{HistoryRow, Image};
use engine::{
    ImageView,
    record::{ContainerRecord, MountRecord, VolumeRecord},
    view::{
        ContainerView, Files, ImageUsage, NetworkMember, NetworkView, SubnetView, VolumeUsage,
        VolumeView,
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use types::{
    Config, ContainerId, Digest, ExecId, HostConfig, NetworkId, NodeId, Time,
    container::{EndpointSettings, PortBinding},
    image::{ImageConfig, LayerRef},
    state::{ContainerState, Desired, Health, HealthStatus, Probe, Status},
    stats::{BlkioStat, Stats},
};

use super::{convert, version::ApiVersion, wire};

/// The specification's definitions and answers (made by scripts/spec-to-schema.py).
struct Schema(Value);

impl Schema {
    fn load() -> Self {
        Self(serde_json::from_str(include_str!("../../tests/schema/definitions.json")).unwrap())
    }

    /// Fails with everything that is wrong with an answer to `call`.
    #[track_caller]
    fn check(&self, call: &str, answer: &impl Serialize) {
        let schema = &self.0["responses"][call];
        assert!(
            schema.is_object(),
            "the specification has no answer to {call}"
        );
        let mut faults = Vec::new();
        self.walk(
            call,
            schema,
            &serde_json::to_value(answer).unwrap(),
            &mut faults,
        );
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    fn walk(&self, at: &str, schema: &Value, value: &Value, faults: &mut Vec<String>) {
        if let Some(target) = schema["$ref"].as_str() {
            let name = target.rsplit('/').next().unwrap();
            return self.walk(at, &self.0["definitions"][name], value, faults);
        }
        let (properties, required) = self.members(schema);
        let kind = schema["type"].as_str().unwrap_or(if properties.is_empty() {
            "any"
        } else {
            "object"
        });
        let fits = match kind {
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            // Go writes an empty list or map as null, and docker never cared.
            "array" => value.is_array() || value.is_null(),
            "object" => value.is_object() || value.is_null(),
            _ => true,
        };
        let nullable = schema["x-nullable"] == json!(true)
            || NULL_UNDOCUMENTED.iter().any(|name| at.ends_with(name));
        if !(fits || value.is_null() && nullable) {
            faults.push(format!("{at}: want {kind}, found {value}"));
        }
        if let (Some(wanted), Some(found)) = (schema["enum"].as_array(), value.as_str())
            && !found.is_empty()
            && !wanted.contains(value)
        {
            faults.push(format!("{at}: {value} is none of {wanted:?}"));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.walk(&format!("{at}[{index}]"), &schema["items"], item, faults);
        }
        let Some(object) = value.as_object() else {
            return;
        };
        for name in required.iter().filter(|name| !object.contains_key(**name)) {
            faults.push(format!("{at}.{name}: missing"));
        }
        for (name, member) in object {
            let inner = format!("{at}.{name}");
            match (
                properties.get(name.as_str()),
                &schema["additionalProperties"],
            ) {
                (Some(schema), _) => self.walk(&inner, schema, member, faults),
                (None, Value::Object(other)) => {
                    self.walk(&inner, &Value::Object(other.clone()), member, faults)
                }
                (None, _) if !properties.is_empty() && !UNDOCUMENTED.contains(&name.as_str()) => {
                    faults.push(format!("{inner}: not in the specification"));
                }
                (None, _) => {}
            }
        }
    }

    /// Properties and required names, those of `allOf` included.
    fn members<'s>(&'s self, schema: &'s Value) -> (BTreeMap<&'s str, &'s Value>, Vec<&'s str>) {
        let mut properties: BTreeMap<&str, &Value> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str(), schema))
            .collect();
        let mut required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            let part = match part["$ref"].as_str() {
                Some(target) => &self.0["definitions"][target.rsplit('/').next().unwrap()],
                None => part,
            };
            let (more, needed) = self.members(part);
            properties.extend(more);
            required.extend(needed);
        }
        (properties, required)
    }
}

/// What docker sends and its specification forgets.
const UNDOCUMENTED: [&str; 7] = [
    "Cgroup",
    "Isolation",
    "num_procs",
    "storage_stats",
    "name",
    "id",
    "status",
];
/// What docker sends as null and its specification does not say so.
const NULL_UNDOCUMENTED: [&str; 2] = [".MemorySwappiness", ".OomKillDisable"];

fn container() -> ContainerView {
    let endpoint = EndpointSettings {
        ip_address: "172.17.0.2".into(),
        ip_prefix_len: 16,
        ..EndpointSettings::default()
    };
    let mount = MountRecord {
        snapshot: None,
        kind: "volume".into(),
        volume: Some("data".parse().unwrap()),
        source: String::new(),
        target: "/data".into(),
        driver: "local".into(),
        mode: "z".into(),
        writable: true,
        propagation: String::new(),
        subpath: String::new(),
        no_copy: false,
        create_source: false,
        non_recursive: false,
        tmpfs_options: Vec::new(),
        origin: "binds".into(),
    };
    let record = ContainerRecord {
        id: ContainerId::random(),
        namespace: Default::default(),
        name: "web".parse().unwrap(),
        node: NodeId::local(),
        created: Time::from_unix(1000, 0),
        image: Digest::of(b"image"),
        layers: Vec::new(),
        platform: "linux".into(),
        config: Config {
            image: "busybox".into(),
            cmd: Some(vec!["sh".into(), "-c".into(), "a b".into()]),
            labels: Some(BTreeMap::from([("a".into(), "b".into())])),
            ..Config::default()
        },
        host: HostConfig {
            network_mode: "bridge".into(),
            ..HostConfig::default()
        },
        endpoints: BTreeMap::new(),
        mounts: vec![mount],
        desired: Desired::Running,
    };
    let probe = Probe {
        start: Time::from_unix(1, 0),
        end: Time::from_unix(2, 0),
        exit_code: 0,
        output: "ok".into(),
    };
    let state = ContainerState {
        status: Status::Running,
        pid: 4,
        started_at: Time::from_unix(1001, 0),
        health: Some(Health {
            status: HealthStatus::Healthy,
            failing_streak: 0,
            log: vec![probe],
        }),
        ..ContainerState::default()
    };
    ContainerView {
        record: Arc::new(record),
        state,
        endpoints: BTreeMap::from([("bridge".into(), endpoint)]),
        ports: BTreeMap::from([
            (
                "80/tcp".parse().unwrap(),
                Some(vec![PortBinding {
                    host_ip: "0.0.0.0".into(),
                    host_port: "8080".into(),
                }]),
            ),
            ("81/udp".parse().unwrap(), None),
        ]),
        sandbox_key: "/run/kraud/netns/abc".into(),
        files: Files::default(),
        link_names: vec!["other/alias".into()],
        exec_ids: vec![ExecId::random()],
        size_rw: Some(5),
        size_root: Some(10),
    }
}

fn image() -> ImageView {
    let config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        created: Some(Time::from_unix(7, 0)),
        config: Some(Config {
            cmd: Some(vec!["sh".into()]),
            ..Config::default()
        }),
        ..ImageConfig::default()
    };
    let image = Image {
        id: Digest::of(b"image"),
        raw_config: String::new(),
        config,
        layers: vec![LayerRef {
            diff_id: Digest::of(b"layer"),
            size: 6,
        }],
        parent: None,
        last_tagged: Time::from_unix(8, 0),
        source: None,
        aliases: Vec::new(),
    };
    let references = catalog::References {
        tags: vec!["busybox:latest".parse().unwrap()],
        digests: Vec::new(),
    };
    ImageView {
        image: Arc::new(image),
        references,
    }
}

fn volume() -> VolumeView {
    let record = VolumeRecord {
        id: types::VolumeId::random(),
        namespace: types::Namespace::default(),
        name: "data".parse().unwrap(),
        driver: "local".into(),
        class: types::volume::Class::Nfs,
        created: Time::from_unix(9, 5),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        anonymous: false,
        node: types::NodeId::local(),
        pool: types::PoolName::default(),
        content: types::volume::Content::Files,
        fs: types::volume::FileSystem::default(),
        size: None,
        zone: String::new(),
        schedule: types::volume::schedule::Schedule::NONE,
        scheduled: Time::from_unix(9, 5),
        phase: engine::record::VolumePhase::Ready,
        restart: Vec::new(),
    };
    let usage = Some(VolumeUsage {
        references: 1,
        size: 2,
    });
    VolumeView {
        record: Arc::new(record),
        mountpoint: PathBuf::from("/volumes/data"),
        usage,
        status: BTreeMap::new(),
    }
}

#[test]
fn containers() {
    let (schema, view) = (Schema::load(), container());
    let places = BTreeMap::from([("data".to_owned(), PathBuf::from("/volumes/data"))]);
    let inspect = convert::container::inspect(&view, &places);
    schema.check("GET /containers/{id}/json", &inspect);
    let inspect = serde_json::to_value(&inspect).unwrap();
    assert_eq!(inspect["Name"], "/web");
    assert_eq!(
        (&inspect["Path"], &inspect["Args"]),
        (&json!("sh"), &json!(["-c", "a b"]))
    );
    assert_eq!(inspect["NetworkSettings"]["IPAddress"], "172.17.0.2");
    assert_eq!(inspect["NetworkSettings"]["SandboxID"], "abc");
    assert_eq!(
        inspect["NetworkSettings"]["Ports"],
        json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/udp": null})
    );
    assert_eq!(inspect["Mounts"][0]["Source"], "/volumes/data");
    assert_eq!(inspect["HostConfig"]["Binds"], Value::Null);

    let summary = convert::container::summary(&view, None, Time::from_unix(1061, 0));
    schema.check("GET /containers/json", &[&summary]);
    let summary = serde_json::to_value(&summary).unwrap();
    assert_eq!(summary["Command"], "sh -c 'a b'");
    assert_eq!(summary["Status"], "Up About a minute (healthy)");
    assert_eq!(
        summary["Ports"],
        json!([{"PrivatePort": 81, "Type": "udp"}, {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}])
    );
    let other = Digest::of(b"other").to_string();
    let renamed = convert::container::summary(&view, Some(&other), Time::from_unix(1061, 0));
    assert_eq!(renamed.image, view.record.image.as_str());
}

#[test]
fn smaller_container_answers() {
    use wire::container::{
        ContainerCreated, ContainerUpdated, ContainersPruned, FilesystemChange, TopResponse,
        WaitResponse,
    };
    let schema = Schema::load();
    schema.check(
        "POST /containers/create",
        &ContainerCreated {
            id: "x".into(),
            warnings: Vec::new(),
        },
    );
    schema.check(
        "POST /containers/{id}/wait",
        &WaitResponse {
            error: None,
            status_code: 3,
        },
    );
    schema.check(
        "POST /containers/{id}/update",
        &ContainerUpdated { warnings: None },
    );
    schema.check(
        "GET /containers/{id}/top",
        &TopResponse {
            processes: vec![vec!["1".into()]],
            titles: vec!["PID".into()],
        },
    );
    schema.check(
        "GET /containers/{id}/changes",
        &[FilesystemChange {
            kind: 1,
            path: "/a".into(),
        }],
    );
    schema.check(
        "POST /containers/prune",
        &ContainersPruned {
            containers_deleted: None,
            space_reclaimed: 0,
        },
    );
    let created = serde_json::to_string(&ContainerCreated {
        id: "x".into(),
        warnings: Vec::new(),
    })
    .unwrap();
    assert_eq!(created, r#"{"Id":"x","Warnings":[]}"#);
}

#[test]
fn stats() {
    let schema = Schema::load();
    let sample = |cgroup_v2| {
        let stats = Stats {
            cgroup_v2,
            cpu_total_ns: 5,
            memory_usage: 6,
            memory_max_usage: 7,
            pids_current: 1,
            blkio: vec![BlkioStat {
                major: 8,
                read_bytes: 1,
                ..BlkioStat::default()
            }],
            ..Stats::default()
        };
        let answer = wire::stats::StatsResponse {
            blkio_stats: (&stats).into(),
            cpu_stats: (&stats).into(),
            memory_stats: (&stats).into(),
            pids_stats: (&stats).into(),
            ..Default::default()
        };
        schema.check("GET /containers/{id}/stats", &answer);
        serde_json::to_value(&answer).unwrap()
    };
    let (v1, v2) = (sample(false), sample(true));
    assert_eq!(v1["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(
        v1["blkio_stats"]["io_service_bytes_recursive"][0],
        json!({"major": 8, "minor": 0, "op": "Read", "value": 1})
    );
    assert_eq!(
        (
            &v1["memory_stats"]["max_usage"],
            &v1["blkio_stats"]["io_queue_recursive"]
        ),
        (&json!(7), &json!([]))
    );
    assert_eq!(
        v2["blkio_stats"]["io_service_bytes_recursive"][0]["op"],
        "read"
    );
    assert_eq!(
        (
            v2["memory_stats"].get("max_usage"),
            &v2["blkio_stats"]["io_queue_recursive"]
        ),
        (None, &Value::Null)
    );
    assert_eq!(v2["pids_stats"]["limit"], json!(u64::MAX));
}

#[test]
fn images() {
    let (schema, view) = (Schema::load(), image());
    schema.check(
        "GET /images/{name}/json",
        &convert::image::inspect(&view, ApiVersion::MAX),
    );
    schema.check(
        "GET /images/json",
        &[convert::image::summary(&view, -1, -1, ApiVersion::MAX)],
    );
    let old =
        serde_json::to_value(convert::image::summary(&view, -1, -1, ApiVersion::MIN)).unwrap();
    assert_eq!(
        (&old["VirtualSize"], &old["SharedSize"], &old["Labels"]),
        (&json!(6), &json!(-1), &Value::Null)
    );
    let row = HistoryRow {
        id: None,
        created: Time::from_unix(1, 0),
        created_by: "x".into(),
        tags: Vec::new(),
        size: 1,
        comment: String::new(),
    };
    let row = convert::image::history(row);
    schema.check("GET /images/{name}/history", &[&row]);
    assert_eq!(serde_json::to_value(&row).unwrap()["Tags"], Value::Null);
    let removals = [
        convert::image::removal(engine::view::ImageRemoval::Untagged("a:b".into())),
        convert::image::removal(engine::view::ImageRemoval::Deleted(Digest::of(b""))),
    ];
    schema.check("DELETE /images/{name}", &removals);
}

#[test]
fn volumes_and_networks() {
    let schema = Schema::load();
    let volume = convert::volume(&volume());
    schema.check("GET /volumes/{name}", &volume);
    assert_eq!(volume.created_at, "1970-01-01T00:00:09Z");
    schema.check(
        "GET /volumes",
        &wire::volume::VolumeList {
            volumes: vec![volume],
            warnings: None,
        },
    );
    let view = NetworkView {
        id: NetworkId::random(),
        name: "n".into(),
        created: Time::from_unix(1, 0),
        driver: "bridge".into(),
        internal: false,
        enable_ipv4: true,
        enable_ipv6: false,
        ipam_options: None,
        attachable: false,
        subnets: vec![SubnetView {
            subnet: "172.18.0.0/16".into(),
            gateway: "172.18.0.1".into(),
            ip_range: String::new(),
            aux: BTreeMap::from([("a".into(), "172.17.0.9".into())]),
        }],
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        containers: BTreeMap::from([(
            ContainerId::random(),
            NetworkMember {
                name: "web".into(),
                endpoint_id: "e".into(),
                mac_address: "02:42:ac:12:00:02".into(),
                ipv4_address: "172.18.0.2/16".into(),
                ipv6_address: String::new(),
            },
        )]),
    };
    let network = convert::network(&view);
    schema.check("GET /networks/{id}", &network);
    let network = serde_json::to_value(&network).unwrap();
    assert_eq!(
        network["IPAM"],
        json!({"Driver": "default", "Options": null, "Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1", "AuxiliaryAddresses": {"a": "172.17.0.9"}}]})
    );
    let created = wire::network::NetworkCreated {
        id: "x".into(),
        warning: String::new(),
    };
    schema.check("POST /networks/create", &created);
}

#[test]
fn system() {
    let schema = Schema::load();
    let usage = ImageUsage {
        image: image().image,
        references: vec!["busybox:latest".into()],
        repo_digests: Vec::new(),
        shared_size: 3,
        containers: 1,
    };
    let answer = wire::system::DiskUsage {
        layers_size: 6,
        images: Some(vec![convert::image::usage(&usage, ApiVersion::MAX)]),
        containers: Some(vec![convert::container::summary(
            &container(),
            None,
            Time::from_unix(0, 0),
        )]),
        volumes: Some(vec![convert::volume(&volume())]),
        build_cache: None,
    };
    schema.check("GET /system/df", &answer);
    let mut info = engine::view::Info::default();
    info.node.cgroup_version = 2;
    info.address_pools = network::ipam::default_pools();
    info.insecure_registries = vec!["registry.lan:5000".into()];
    schema.check("GET /info", &super::system::system_info(info));
    let auth = wire::system::AuthResponse {
        identity_token: String::new(),
        status: "Login Succeeded".into(),
    };
    schema.check("POST /auth", &auth);
}

#[test]
fn events() {
    let event = types::Event {
        kind: "container",
        action: "die".into(),
        actor: types::EventActor {
            id: "abc".into(),
            attributes: BTreeMap::from([("image".into(), "busybox".into())]),
        },
        time: Time::from_unix(1, 2),
    };
    let wire = serde_json::to_value(wire::event::EventMessage::from(&event)).unwrap();
    assert_eq!(
        wire,
        json!({
            "status": "die", "id": "abc", "from": "busybox", "Type": "container", "Action": "die",
            "Actor": {"ID": "abc", "Attributes": {"image": "busybox"}}, "scope": "local", "time": 1, "timeNano": 1_000_000_002_i64,
        })
    );
    let volume = types::Event {
        kind: "volume",
        ..event
    };
    let wire = serde_json::to_value(wire::event::EventMessage::from(&volume)).unwrap();
    assert!(wire.get("status").is_none() && wire.get("id").is_none() && wire.get("from").is_none());
}
