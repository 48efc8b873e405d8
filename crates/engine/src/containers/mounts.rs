//! From `-v`, `--mount`, `--volumes-from` and an image's VOLUMEs to a list of mounts.
//!
//! Parsing is pure; [`Engine::resolve_mounts`] then finds or makes the volumes.

use crate::tenants::policy;
use std::collections::BTreeMap;

use types::{Config, Error, HostConfig, Result, VolumeName, container::Mount};

use crate::{Engine, Scope, record::MountRecord, request::VolumeCreate, volumes::Lease};

/// A volume that a container wants, and how to make it if it does not exist.
#[derive(Debug, Default)]
struct Wanted {
    name: Option<VolumeName>,
    driver: String,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

/// A mount before its volume is known.
#[derive(Debug)]
struct Parsed {
    mount: MountRecord,
    volume: Option<Wanted>,
}

fn empty(kind: &str, target: &str, origin: &str) -> MountRecord {
    MountRecord {
        kind: kind.into(),
        volume: None,
        snapshot: None,
        source: String::new(),
        target: target.into(),
        driver: String::new(),
        mode: String::new(),
        writable: true,
        propagation: String::new(),
        subpath: String::new(),
        no_copy: false,
        create_source: false,
        non_recursive: false,
        tmpfs_options: Vec::new(),
        origin: origin.into(),
    }
}

/// Checks and cleans a path inside the container.
fn clean_target(target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Error::invalid(
            "invalid specification: destination can't be '/'",
        ));
    }
    Ok(format!("/{}", parts.join("/")))
}

const PROPAGATIONS: &[&str] = &[
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

/// Parses one `-v` specification, `source:target[:options]` or `target`.
fn parse_bind(spec: &str) -> Result<Parsed> {
    let bad =
        |reason: &str| Error::invalid(format!("invalid volume specification: '{spec}'{reason}"));
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(bad("")),
    };
    if target.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(bad(""));
    }
    let target = clean_target(target).map_err(|error| bad(&format!(": {error}")))?;
    let is_path = source.starts_with('/');
    let mut mount = empty(if is_path { "bind" } else { "volume" }, &target, "binds");
    mount.mode = options.into();
    let words = || options.split(',').filter(|option| !option.is_empty());
    if words().filter(|word| matches!(*word, "ro" | "rw")).count() > 1 {
        return Err(Error::invalid(format!("invalid mode: {options}")));
    }
    for option in words() {
        match option {
            "rw" => {}
            "ro" => mount.writable = false,
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" | "volume-nocopy" if !is_path => mount.no_copy = true,
            "copy" if !is_path => {}
            "bind-nonrecursive" if is_path => mount.non_recursive = true,
            option if is_path && PROPAGATIONS.contains(&option) => {
                mount.propagation = option.into()
            }
            other => return Err(Error::invalid(format!("invalid mode: {other}"))),
        }
    }
    if is_path {
        mount.source = source.into();
        mount.create_source = true;
        if mount.propagation.is_empty() {
            mount.propagation = "rprivate".into();
        }
        return Ok(Parsed {
            mount,
            volume: None,
        });
    }
    if mount.mode.is_empty() {
        mount.mode = "z".into();
    }
    // `name/sub/path` mounts a directory of the volume.
    let (name, subpath) = source.split_once('/').unwrap_or((source, ""));
    mount.subpath = clean_subpath(subpath)?;
    let (name, snapshot) = split_snapshot(name)?;
    if snapshot.is_some() {
        mount.snapshot = snapshot;
        mount.writable = false;
    }
    let name = if name.is_empty() {
        None
    } else {
        Some(name.parse()?)
    };
    Ok(Parsed {
        mount,
        volume: Some(Wanted {
            name,
            ..Wanted::default()
        }),
    })
}

/// `volume@snapshot` means a snapshot of the volume, which can only be read.
fn split_snapshot(name: &str) -> Result<(&str, Option<types::SnapshotName>)> {
    match name.split_once('@') {
        Some((volume, snapshot)) if !volume.is_empty() => Ok((volume, Some(snapshot.parse()?))),
        _ => Ok((name, None)),
    }
}

fn clean_subpath(subpath: &str) -> Result<String> {
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!(
            "invalid volume subpath {subpath:?}: it must be a relative path within the volume"
        )));
    }
    Ok(subpath.trim_end_matches('/').into())
}

/// Checks one `--mount`.
fn parse_mount(mount: &Mount) -> Result<Parsed> {
    let bad = |reason: String| {
        Error::invalid(format!(
            "invalid mount config for type \"{}\": {reason}",
            mount.kind
        ))
    };
    if mount.target.is_empty() {
        return Err(bad("field Target must not be empty".into()));
    }
    let target = clean_target(&mount.target).map_err(|error| bad(error.message))?;
    let mut parsed = Parsed {
        mount: empty(&mount.kind, &target, "mounts"),
        volume: None,
    };
    parsed.mount.writable = !mount.read_only;
    let foreign = [
        ("bind", mount.bind_options.is_some(), "BindOptions"),
        ("volume", mount.volume_options.is_some(), "VolumeOptions"),
        ("tmpfs", mount.tmpfs_options.is_some(), "TmpfsOptions"),
    ];
    if let Some((_, _, field)) = foreign
        .iter()
        .find(|(kind, given, _)| *given && *kind != mount.kind)
    {
        return Err(bad(format!("field {field} must not be specified")));
    }
    match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty".into()));
            }
            if !mount.source.starts_with('/') {
                return Err(bad(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            if !options.propagation.is_empty()
                && !PROPAGATIONS.contains(&options.propagation.as_str())
            {
                return Err(bad(format!(
                    "invalid propagation mode: {}",
                    options.propagation
                )));
            }
            parsed.mount.source.clone_from(&mount.source);
            parsed.mount.propagation = if options.propagation.is_empty() {
                "rprivate".into()
            } else {
                options.propagation
            };
            parsed.mount.create_source = options.create_mountpoint;
            parsed.mount.non_recursive = options.non_recursive;
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            parsed.mount.no_copy = options.no_copy;
            parsed.mount.subpath = clean_subpath(&options.subpath)?;
            parsed.mount.mode = "z".into();
            if mount.source.is_empty() && !parsed.mount.subpath.is_empty() {
                return Err(bad(
                    "must not set Subpath when using anonymous volumes".into()
                ));
            }
            let (source, snapshot) =
                split_snapshot(&mount.source).map_err(|e: Error| bad(e.message))?;
            if snapshot.is_some() {
                parsed.mount.snapshot = snapshot;
                parsed.mount.writable = false;
            }
            parsed.volume = Some(Wanted {
                name: if source.is_empty() {
                    None
                } else {
                    Some(source.parse().map_err(|e: Error| bad(e.message))?)
                },
                driver: driver.name,
                options: driver.options.unwrap_or_default(),
                labels: options.labels.unwrap_or_default(),
            });
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(bad("field Source must not be specified".into()));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            if options.size_bytes < 0 {
                return Err(bad(format!("invalid size {}", options.size_bytes)));
            }
            if options.size_bytes > 0 {
                parsed
                    .mount
                    .tmpfs_options
                    .push(format!("size={}", options.size_bytes));
            }
            if let Some(mode) = options.mode.filter(|mode| *mode != 0) {
                parsed.mount.tmpfs_options.push(format!("mode={mode:o}"));
            }
            for option in options.options.into_iter().flatten() {
                parsed.mount.tmpfs_options.push(option.join("="));
            }
        }
        "" => {
            return Err(Error::invalid(
                "invalid mount config: field Type must not be empty",
            ));
        }
        "npipe" | "cluster" | "image" => {
            return Err(bad("mount type is not supported by kraud".into()));
        }
        other => return Err(Error::invalid(format!("mount type unknown: \"{other}\""))),
    }
    Ok(parsed)
}

/// All mounts of a request, later forms over earlier ones at the same target.
fn parse_all(
    config: &Config,
    host: &HostConfig,
    inherited: Vec<MountRecord>,
) -> Result<Vec<Parsed>> {
    let mut by_target: BTreeMap<String, Parsed> = BTreeMap::new();
    for mount in inherited {
        by_target.insert(
            mount.target.clone(),
            Parsed {
                mount,
                volume: None,
            },
        );
    }
    let tmpfs: Vec<String> = host
        .tmpfs
        .iter()
        .flatten()
        .map(|(target, _)| clean_target(target))
        .collect::<Result<_>>()?;
    let mut seen: Vec<String> = Vec::new();
    let binds = host.binds.iter().flatten().map(|spec| parse_bind(spec));
    let mounts = host.mounts.iter().flatten().map(parse_mount);
    for parsed in binds.chain(mounts) {
        let parsed = parsed?;
        let target = parsed.mount.target.clone();
        if seen.contains(&target) || tmpfs.contains(&target) {
            return Err(Error::invalid(format!("Duplicate mount point: {target}")));
        }
        seen.push(target.clone());
        by_target.insert(target, parsed);
    }
    for (target, _) in config.volumes.iter().flatten() {
        let target = clean_target(target)?;
        if !by_target.contains_key(&target) && !tmpfs.contains(&target) {
            let parsed = Parsed {
                mount: empty("volume", &target, "image"),
                volume: Some(Wanted::default()),
            };
            by_target.insert(target, parsed);
        }
    }
    Ok(by_target.into_values().collect())
}

impl Engine {
    /// The mounts of a new container. Volumes are found or made; those made are undone
    /// when the returned leases are dropped without [`Lease::keep`].
    pub(super) async fn resolve_mounts(
        &self,
        scope: &Scope,
        config: &Config,
        host: &HostConfig,
    ) -> Result<(Vec<MountRecord>, Vec<Lease>)> {
        let mut inherited = Vec::new();
        for spec in host.volumes_from.iter().flatten() {
            inherited.extend(self.mounts_from(scope, spec)?);
        }
        let mut parsed = parse_all(config, host, inherited)?;
        if scope.is_tenant() {
            // However they were written, and also those of another container.
            for Parsed { mount, .. } in &mut parsed {
                if mount.kind == "bind" {
                    self.find_upload(scope, config, mount).await?;
                }
            }
        }
        let (mut mounts, mut leases) = (Vec::new(), Vec::new());
        for Parsed { mut mount, volume } in parsed {
            if mount.kind == "bind" && mount.origin == "mounts" && !mount.create_source {
                self.must_exist_on_node(&mount.source).await?;
            }
            if let Some(wanted) = volume {
                self.must_not_be_a_path(scope, &mount, &wanted)?;
                let driver = if wanted.driver.is_empty() {
                    host.volume_driver.clone()
                } else {
                    wanted.driver
                };
                let request = VolumeCreate {
                    name: wanted.name.as_ref().map(ToString::to_string),
                    driver,
                    options: wanted.options,
                    labels: wanted.labels,
                };
                if let (Some(snapshot), Some(name)) = (&mount.snapshot, &request.name) {
                    // A snapshot of a volume that is not there is not made.
                    // Not "not found": at a create that would mean the image.
                    self.volume_named(scope, name)
                        .and_then(|volume| volume.snapshot(snapshot.as_str()))
                        .map_err(|error| Error::invalid(error.message))?;
                }
                let (volume, lease) = self.volume_ensure(scope, request).await?;
                let record = volume.record();
                mount.volume = Some(record.name.clone());
                mount.driver.clone_from(&record.driver);
                leases.push(lease);
            }
            mounts.push(mount);
        }
        Ok((mounts, leases))
    }

    /// A tenant's path of the host means what it has uploaded from there. The mount becomes one
    /// of that.
    async fn find_upload(
        &self,
        scope: &Scope,
        config: &Config,
        mount: &mut MountRecord,
    ) -> Result<()> {
        let name = policy::uploads(config.labels.as_ref(), &mount.source)?;
        let refusal = || policy::host_path(&mount.source);
        let volume = self
            .volume_named(scope, name.as_str())
            .map_err(|_| refusal())?;
        let subpath = clean_subpath(mount.source.trim_start_matches('/'))?;
        let record = volume.record();
        match self
            .agent
            .volume_files(&record.plan(), None, &subpath)
            .await
        {
            Err(error) if error.kind == types::Kind::NotFound => return Err(refusal()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        *mount = MountRecord {
            kind: "volume".into(),
            volume: Some(record.name.clone()),
            driver: record.driver.clone(),
            subpath,
            no_copy: true,
            create_source: false,
            propagation: String::new(),
            ..mount.clone()
        };
        Ok(())
    }

    /// `name/sub/path:/target` means a directory of a volume that exists. Of one that does
    /// not, it is far more likely a host path whose leading `./` was forgotten.
    fn must_not_be_a_path(
        &self,
        scope: &Scope,
        mount: &MountRecord,
        wanted: &Wanted,
    ) -> Result<()> {
        let Some(name) = wanted
            .name
            .as_ref()
            .filter(|_| mount.origin == "binds" && !mount.subpath.is_empty())
        else {
            return Ok(());
        };
        if self.volume_named(scope, name.as_str()).is_ok() {
            return Ok(());
        }
        let path = format!("{name}/{}", mount.subpath);
        Err(Error::invalid(format!(
            "create {path}: \"{path}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )))
    }

    async fn must_exist_on_node(&self, path: &str) -> Result<()> {
        if self.agent.path_exists(std::path::Path::new(path)).await? {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {path}"
        )))
    }

    /// The mounts of another container, for `--volumes-from name[:ro|rw]`.
    fn mounts_from(&self, scope: &Scope, spec: &str) -> Result<Vec<MountRecord>> {
        let (name, mode) = spec.split_once(':').unwrap_or((spec, "rw"));
        if name.is_empty() {
            return Err(Error::invalid(
                "volumes-from specification cannot be an empty string",
            ));
        }
        if mode
            .split(',')
            .any(|part| !matches!(part, "ro" | "rw" | "z" | "Z" | "nocopy"))
        {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        }
        let record = self.container(scope, name)?.record();
        let read_only = mode.split(',').any(|part| part == "ro");
        Ok(record
            .mounts
            .iter()
            .filter(|mount| mount.kind != "tmpfs")
            .map(|mount| MountRecord {
                writable: mount.writable && !read_only,
                origin: "volumes-from".into(),
                ..mount.clone()
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds() {
        let parsed = parse_bind("/a:/b/../c:ro,rshared").unwrap().mount;
        assert_eq!(
            (
                parsed.kind.as_str(),
                parsed.target.as_str(),
                parsed.writable
            ),
            ("bind", "/c", false)
        );
        assert_eq!(parsed.propagation, "rshared");
        let named = parse_bind("data/sub:/x:nocopy").unwrap();
        assert_eq!(named.volume.unwrap().name.unwrap().as_str(), "data");
        assert_eq!(
            (named.mount.subpath.as_str(), named.mount.no_copy),
            ("sub", true)
        );
        for bad in [
            "",
            ":/x",
            "a:",
            "a:b",
            "/a:/",
            "/a:/b:zz",
            "a:/b:c:d",
            "data/../x:/y",
            "/a:/b:nocopy",
        ] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn same_target_twice_is_refused() {
        let host = HostConfig {
            binds: Some(vec!["/a:/x".into(), "b1:/x/".into()]),
            ..HostConfig::default()
        };
        assert!(
            parse_all(&Config::default(), &host, Vec::new())
                .unwrap_err()
                .message
                .contains("Duplicate mount point")
        );
    }
}
