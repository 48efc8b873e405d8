//! A container's mounts: the kernel's file systems, generated files, volumes, tmpfs.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{BundleInput, INIT_PATH, Namespace};
use crate::error::{Error, Result};

/// A mount whose source is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleMount {
    /// Absolute path in the container.
    pub target: PathBuf,
    pub read_only: bool,
    pub kind: MountKind,
}

impl BundleMount {
    /// The host's path that it shows, if it is one.
    pub fn source_mut(&mut self) -> Option<&mut PathBuf> {
        match &mut self.kind {
            MountKind::Bind { source, .. } => Some(source),
            MountKind::Tmpfs { .. } => None,
        }
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
        /// `rprivate` (also when empty), `private`, `rshared`, `shared`, `rslave`, `slave`.
        propagation: String,
        /// Mounts below it are read-only too, where the kernel can do that.
        recursive_read_only: bool,
    },
    /// Memory; options as docker's `--tmpfs`, such as `size=64m`, `mode=1770`, `exec`.
    Tmpfs { options: Vec<String> },
}

/// What is at /dev/shm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shm {
    /// A tmpfs of the container's own with this many bytes.
    Private(u64),
    /// A directory that several containers, or the host, share.
    Directory(PathBuf),
    /// Nothing (`--ipc none`).
    None,
}

impl Default for Shm {
    fn default() -> Self {
        Self::Private(64 << 20)
    }
}

/// All mounts, in the order in which they must be made.
pub(super) fn all(input: &BundleInput<'_>) -> Result<Vec<Mount>> {
    let mut user: Vec<Mount> = input.mounts.iter().map(given).collect::<Result<_>>()?;
    let targets: Vec<PathBuf> = user
        .iter()
        .map(|mount| clean(mount.destination()))
        .collect();
    let is_given = |mount: &Mount| targets.contains(&clean(mount.destination()));

    let mut mounts = kernel(input);
    mounts.extend(shm(input));
    mounts.retain(|mount| !is_given(mount));
    user.extend(
        generated(input)
            .into_iter()
            .filter(|mount| !is_given(mount)),
    );
    // What lies deeper is mounted later; a volume over /etc does not hide /etc/hosts.
    user.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(user);
    Ok(mounts)
}

fn mount(
    kind: &str,
    source: impl Into<PathBuf>,
    target: impl Into<PathBuf>,
    options: &[&str],
) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(target.into())
        .set_typ(Some(kind.into()))
        .set_source(Some(source.into()))
        .set_options(Some(
            options.iter().map(|&option| option.to_owned()).collect(),
        ));
    mount
}

/// Without `.`, `..` and double slashes.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => cleaned.push(name),
            std::path::Component::ParentDir => drop(cleaned.pop()),
            _ => {}
        }
    }
    cleaned
}

/// The kernel's own file systems, with the options that docker gives them.
fn kernel(input: &BundleInput<'_>) -> Vec<Mount> {
    let access = if input.host.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "tmpfs",
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "sysfs",
            "sysfs",
            "/sys",
            &["nosuid", "noexec", "nodev", access],
        ),
        // Each OCI runtime gives this the form of the machine's layout.
        mount(
            "cgroup",
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", access],
        ),
    ];
    match (&input.ipc, &input.shm) {
        (_, Shm::None) => {}
        (Namespace::Host, _) => mounts.push(mount(
            "bind",
            "/dev/mqueue",
            "/dev/mqueue",
            &["rbind", "rprivate", "nosuid", "noexec", "nodev"],
        )),
        _ => mounts.push(mount(
            "mqueue",
            "mqueue",
            "/dev/mqueue",
            &["nosuid", "noexec", "nodev"],
        )),
    }
    mounts.retain(|mount| {
        mount.typ().as_deref() != Some("bind")
            || mount
                .source()
                .as_ref()
                .is_some_and(|source| source.exists())
    });
    mounts
}

fn shm(input: &BundleInput<'_>) -> Option<Mount> {
    match &input.shm {
        Shm::None => None,
        Shm::Directory(path) => Some(mount("bind", path, "/dev/shm", &["rbind", "rprivate"])),
        Shm::Private(size) => {
            let size = format!("size={size}");
            Some(mount(
                "tmpfs",
                "shm",
                "/dev/shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            ))
        }
    }
}

/// Files that kraud writes for the container.
fn generated(input: &BundleInput<'_>) -> Vec<Mount> {
    let access = if input.host.readonly_rootfs {
        "ro"
    } else {
        "rw"
    };
    let files = [
        (&input.resolv_conf, "/etc/resolv.conf"),
        (&input.hostname_file, "/etc/hostname"),
        (&input.hosts_file, "/etc/hosts"),
    ];
    let mut mounts: Vec<Mount> = files
        .into_iter()
        .filter_map(|(source, target)| {
            Some(mount(
                "bind",
                source.as_ref()?,
                target,
                &["rbind", "rprivate", access],
            ))
        })
        .collect();
    if let Some(init) = super::process::init(input) {
        mounts.push(mount("bind", init, INIT_PATH, &["bind", "ro"]));
    }
    mounts
}

/// A volume, a host path or a tmpfs that the user asked for.
fn given(wanted: &BundleMount) -> Result<Mount> {
    let target = clean(&wanted.target);
    if target == Path::new("/") {
        return Err(Error::Invalid(
            "invalid volume specification: destination can't be '/'".into(),
        ));
    }
    Ok(match &wanted.kind {
        MountKind::Bind {
            source,
            recursive,
            propagation,
            recursive_read_only,
        } => {
            let propagation = if propagation.is_empty() {
                "rprivate"
            } else {
                propagation
            };
            let bind = if *recursive { "rbind" } else { "bind" };
            let access = match (
                wanted.read_only,
                *recursive && *recursive_read_only && propagation == "rprivate",
            ) {
                (false, _) => "rw",
                (true, false) => "ro",
                (true, true) => "rro",
            };
            mount("bind", source, target, &[bind, propagation, access])
        }
        MountKind::Tmpfs { options } => {
            let mut all = vec!["noexec", "nosuid", "nodev"];
            if wanted.read_only {
                all.push("ro");
            }
            all.extend(
                options
                    .iter()
                    .map(String::as_str)
                    .filter(|option| !option.is_empty()),
            );
            mount("tmpfs", "tmpfs", target, &all)
        }
    })
}

/// A mount that is to receive or send mount events needs a root that passes them on.
pub(super) fn root_propagation(mounts: &[BundleMount]) -> Option<String> {
    let has = |words: [&str; 2]| {
        mounts.iter().any(|mount| matches!(&mount.kind, MountKind::Bind { propagation, .. } if words.contains(&propagation.as_str())))
    };
    if has(["shared", "rshared"]) {
        Some("shared".into())
    } else if has(["slave", "rslave"]) {
        Some("slave".into())
    } else {
        None
    }
}
