//! Device nodes and the rules of who may use which.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use types::{HostConfig, container::DeviceMapping};

use crate::error::{Error, Result};

/// Nodes to make and rules for all devices.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) nodes: Vec<LinuxDevice>,
    pub(super) rules: Vec<LinuxDeviceCgroup>,
}

/// `bound` get a rule and no node.
pub(super) fn resolve(host: &HostConfig, bound: &[DeviceMapping]) -> Result<Devices> {
    if host.privileged {
        let mut nodes = Vec::new();
        collect(Path::new("/dev"), Path::new("/dev"), &mut nodes)?;
        return Ok(Devices {
            nodes,
            rules: vec![rule(true, LinuxDeviceType::A, None, None, "rwm")],
        });
    }
    let mut devices = Devices {
        nodes: Vec::new(),
        rules: default_rules(),
    };
    for mapping in host.resources.devices.iter().flatten() {
        add(mapping, &mut devices)?;
    }
    let made = devices.nodes.len();
    for mapping in bound {
        add(mapping, &mut devices)?;
    }
    devices.nodes.truncate(made);
    for text in host.resources.device_cgroup_rules.iter().flatten() {
        devices.rules.push(parse_rule(text)?);
    }
    Ok(devices)
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(kind))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

/// Nothing but making nodes, the terminals, and the devices that every container has.
fn default_rules() -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceType::{A, B, C};
    let mut rules = vec![
        rule(false, A, None, None, "rwm"),
        rule(true, C, None, None, "m"),
        rule(true, B, None, None, "m"),
    ];
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ] {
        rules.push(rule(true, C, Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(true, C, Some(136), None, "rwm"));
    rules
}

/// One `--device`; a directory stands for all devices below it.
fn add(mapping: &DeviceMapping, devices: &mut Devices) -> Result<()> {
    let host = Path::new(&mapping.path_on_host);
    let inside = if mapping.path_in_container.is_empty() {
        host
    } else {
        Path::new(&mapping.path_in_container)
    };
    let access = if mapping.cgroup_permissions.is_empty() {
        "rwm"
    } else {
        &mapping.cgroup_permissions
    };
    if !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(Error::Invalid(format!("invalid device mode: {access}")));
    }
    let failed = |error: io::Error| {
        Error::Invalid(format!(
            "error gathering device information while adding custom device {:?}: {}",
            mapping.path_on_host,
            words(&error)
        ))
    };
    let first = devices.nodes.len();
    let metadata = fs::metadata(host).map_err(failed)?;
    if metadata.is_dir() {
        collect(host, inside, &mut devices.nodes)?;
    } else {
        let node = node(&metadata, inside.to_owned());
        devices
            .nodes
            .push(node.ok_or_else(|| failed(io::Error::other("not a device node")))?);
    }
    let rules = devices.nodes[first..].iter().map(|node| {
        rule(
            true,
            node.typ(),
            Some(node.major()),
            Some(node.minor()),
            access,
        )
    });
    devices.rules.extend(rules);
    Ok(())
}

fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "no such file or directory".into()
    } else {
        error.to_string()
    }
}

/// All devices below `host`, but the terminals and shared memory that are the container's own.
fn collect(host: &Path, inside: &Path, nodes: &mut Vec<LinuxDevice>) -> Result<()> {
    let entries = fs::read_dir(host).map_err(Error::io(format!("list {}", host.display())))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if [
            "pts",
            "shm",
            "fd",
            "mqueue",
            ".lxc",
            ".lxd-mounts",
            ".udev",
            "console",
        ]
        .iter()
        .any(|own| name == *own)
        {
            continue;
        }
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        if metadata.is_dir() {
            collect(&entry.path(), &inside.join(&name), nodes)?;
        } else {
            nodes.extend(node(&metadata, inside.join(&name)));
        }
    }
    Ok(())
}

fn node(metadata: &fs::Metadata, path: PathBuf) -> Option<LinuxDevice> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let (major, minor) = (
        rustix::fs::major(metadata.rdev()),
        rustix::fs::minor(metadata.rdev()),
    );
    let mut device = LinuxDevice::default();
    device
        .set_path(path)
        .set_typ(kind)
        .set_major(major.into())
        .set_minor(minor.into())
        .set_file_mode(Some(metadata.mode() & 0o7777))
        .set_uid(Some(metadata.uid()))
        .set_gid(Some(metadata.gid()));
    Some(device)
}

/// `c 42:* rmw`
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let invalid = || Error::Invalid(format!("invalid device cgroup rule format: '{text}'"));
    let [kind, numbers, access] = text
        .split(' ')
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| invalid())?;
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| {
        if text == "*" {
            Ok(None)
        } else {
            text.parse::<u32>()
                .map(|number| Some(i64::from(number)))
                .map_err(|_| invalid())
        }
    };
    if access.is_empty() || access.len() > 3 || !access.chars().all(|letter| "rwm".contains(letter))
    {
        return Err(invalid());
    }
    Ok(rule(true, kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        assert_eq!(
            parse_rule("c 42:* rmw").unwrap(),
            rule(true, LinuxDeviceType::C, Some(42), None, "rmw")
        );
        for bad in [
            "", "c 1:2", "x 1:2 r", "c 1 r", "c 1:2 q", "c 1:-2 r", "c  1:2 r",
        ] {
            assert!(parse_rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn devices() {
        let mapping = |path: &str| DeviceMapping {
            path_on_host: path.into(),
            path_in_container: "/dev/other".into(),
            cgroup_permissions: "r".into(),
        };
        let mut devices = Devices::default();
        add(&mapping("/dev/null"), &mut devices).unwrap();
        assert_eq!((devices.nodes[0].major(), devices.nodes[0].minor()), (1, 3));
        assert_eq!(devices.nodes[0].path(), Path::new("/dev/other"));
        assert_eq!(devices.rules[0].access().as_deref(), Some("r"));
        let error = add(&mapping("/dev/nosuch"), &mut devices)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory"
        );
        assert!(add(&mapping("/etc/passwd"), &mut devices).is_err());
    }
}
