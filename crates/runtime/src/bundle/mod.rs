//! What docker's configuration means in OCI terms: [`BundleInput`] in, [`Spec`] out.
//!
//! Pure but for looking at device nodes (`--device`, `--privileged`) and at which sysctls the
//! kernel has. Making the root file system and the mounts' sources is the agent's work.

mod devices;
mod mounts;
mod process;
mod resources;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Root, Spec};
use types::{Config, ContainerId, HostConfig, container::DeviceMapping};

pub use self::{
    mounts::{BundleMount, MountKind, Shm},
    process::{ExecInput, exec_process},
};
use crate::{
    caps,
    cgroup::Cgroups,
    error::{Error, Result},
    seccomp,
    user::ResolvedUser,
};

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Namespace {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// The one behind this file (a bind mount or /proc/PID/ns/…).
    Path(PathBuf),
}

/// Everything that a bundle is made from.
#[derive(Debug, Clone)]
pub struct BundleInput<'a> {
    pub id: &'a ContainerId,
    /// Merged with the image's.
    pub config: &'a Config,
    pub host: &'a HostConfig,
    /// The mounted root file system.
    pub rootfs: &'a Path,
    /// Empty leaves the host's name.
    pub hostname: &'a str,
    pub network: Namespace,
    pub pid: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    /// The user namespace, mounted there; `None` for the host's. Owners on the root file system
    /// and on the mounts' sources are seen through it already.
    pub users: Option<&'a Path>,
    /// Devices that come by a mount, and only have to be allowed.
    pub bound_devices: &'a [DeviceMapping],
    /// From [`crate::user::resolve`].
    pub user: &'a ResolvedUser,
    /// Volumes, host directories and tmpfs, resolved; any order.
    pub mounts: &'a [BundleMount],
    /// Generated files, bound to /etc/hosts, /etc/hostname and /etc/resolv.conf.
    pub hosts_file: Option<PathBuf>,
    pub hostname_file: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
    pub shm: Shm,
    /// `NAME=value`, below the configuration's own.
    pub extra_env: &'a [String],
    /// From [`crate::Runtime::cgroup_path`].
    pub cgroup_path: &'a str,
    /// From [`crate::Runtime::cgroups`].
    pub cgroups: &'a Cgroups,
    /// The init for `--init` on the host.
    pub init: Option<&'a Path>,
}

/// Where `--init` is bound in the container.
const INIT_PATH: &str = "/sbin/docker-init";

/// The specification of a container.
pub fn build(input: &BundleInput<'_>) -> Result<Spec> {
    let security = Security::parse(input.host)?;
    let mut spec = Spec::default();
    // The default brings a name of its own.
    spec.set_hostname(None);
    let mut root = Root::default();
    root.set_path(input.rootfs.to_owned())
        .set_readonly(Some(input.host.readonly_rootfs));
    spec.set_version("1.0.2".into())
        .set_root(Some(root))
        .set_process(Some(process::container(input, &security)?))
        .set_mounts(Some(mounts::all(input)?))
        .set_linux(Some(linux(input, &security)?))
        .set_annotations(
            input
                .host
                .annotations
                .clone()
                .map(|annotations| annotations.into_iter().collect()),
        );
    if input.uts == Namespace::Private && !input.hostname.is_empty() {
        spec.set_hostname(Some(input.hostname.to_owned()));
        if !input.config.domainname.is_empty() {
            spec.set_domainname(Some(input.config.domainname.clone()));
        }
    }
    Ok(spec)
}

fn linux(input: &BundleInput<'_>, security: &Security) -> Result<Linux> {
    let host = input.host;
    let devices = devices::resolve(host, input.bound_devices)?;
    let mut linux = Linux::default();
    linux
        .set_cgroups_path(Some(input.cgroup_path.into()))
        .set_namespaces(Some(namespaces(input)))
        .set_sysctl(Some(sysctls(input)))
        .set_resources(Some(resources::all(input, &devices)?))
        .set_devices(Some(devices.nodes))
        .set_seccomp(security.seccomp(input)?)
        .set_rootfs_propagation(mounts::root_propagation(input.mounts))
        .set_masked_paths(Some(paths(
            host,
            security,
            &host.masked_paths,
            &MASKED_PATHS,
        )))
        .set_readonly_paths(Some(paths(
            host,
            security,
            &host.readonly_paths,
            &READONLY_PATHS,
        )));
    Ok(linux)
}

/// docker's default of what is hidden from a container.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// docker's default of what a container cannot write.
pub const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

fn paths(
    host: &HostConfig,
    security: &Security,
    given: &Option<Vec<String>>,
    default: &[&str],
) -> Vec<String> {
    if host.privileged || security.system_paths_unconfined {
        return Vec::new();
    }
    given
        .clone()
        .unwrap_or_else(|| default.iter().map(|&path| path.to_owned()).collect())
}

fn namespaces(input: &BundleInput<'_>) -> Vec<LinuxNamespace> {
    let cgroup = match input.host.cgroupns_mode.as_str() {
        "private" => Namespace::Private,
        "host" => Namespace::Host,
        _ if input.cgroups.version() == 2 => Namespace::Private,
        _ => Namespace::Host,
    };
    let users = match input.users {
        Some(path) => Namespace::Path(path.to_owned()),
        None => Namespace::Host,
    };
    let all = [
        (LinuxNamespaceType::User, &users),
        (LinuxNamespaceType::Mount, &Namespace::Private),
        (LinuxNamespaceType::Network, &input.network),
        (LinuxNamespaceType::Uts, &input.uts),
        (LinuxNamespaceType::Pid, &input.pid),
        (LinuxNamespaceType::Ipc, &input.ipc),
        (LinuxNamespaceType::Cgroup, &cgroup),
    ];
    let namespace = |(kind, from): (LinuxNamespaceType, &Namespace)| {
        let path = match from {
            Namespace::Host => return None,
            Namespace::Private => None,
            Namespace::Path(path) => Some(path.clone()),
        };
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        Some(namespace)
    };
    all.into_iter().filter_map(namespace).collect()
}

/// Those asked for, and docker's two defaults for a network of the container's own: pinging
/// and low ports need no privilege there.
fn sysctls(input: &BundleInput<'_>) -> std::collections::HashMap<String, String> {
    let mut sysctls = std::collections::HashMap::new();
    let shared =
        input.network == Namespace::Host || input.host.network_mode.starts_with("container:");
    // In a user namespace the range of groups has ids that do not exist there: whoever made the
    // network namespace has set both.
    if !shared && input.users.is_none() {
        for (name, value) in [
            ("net.ipv4.ping_group_range", "0 2147483647"),
            ("net.ipv4.ip_unprivileged_port_start", "0"),
        ] {
            if Path::new("/proc/sys").join(name.replace('.', "/")).exists() {
                sysctls.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    sysctls.extend(input.host.sysctls.clone().unwrap_or_default());
    sysctls
}

/// What `--security-opt` and `--privileged` say.
#[derive(Debug, Default)]
struct Security {
    no_new_privileges: bool,
    /// `unconfined`, `builtin`, or a profile's JSON; `None` is the default one.
    seccomp: Option<String>,
    system_paths_unconfined: bool,
}

impl Security {
    fn parse(host: &HostConfig) -> Result<Self> {
        let mut security = Self::default();
        for option in host.security_opt.iter().flatten() {
            // Old clients write `seccomp:unconfined`.
            let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
            match (name, value) {
                ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
                ("no-new-privileges", "false") => security.no_new_privileges = false,
                ("seccomp", profile) => security.seccomp = Some(profile.to_owned()),
                ("systempaths", "unconfined") => security.system_paths_unconfined = true,
                // Neither is enforced here.
                ("label" | "apparmor" | "writable-cgroups", _) => {}
                _ => {
                    return Err(Error::Invalid(format!(
                        "invalid --security-opt 2: {option:?}"
                    )));
                }
            }
        }
        Ok(security)
    }

    fn seccomp(&self, input: &BundleInput<'_>) -> Result<Option<oci_spec::runtime::LinuxSeccomp>> {
        let capabilities = capabilities(input.host)?;
        match self.seccomp.as_deref() {
            Some("unconfined") => Ok(None),
            None if input.host.privileged => Ok(None),
            None | Some("builtin") => Ok(Some(seccomp::default_profile(&capabilities))),
            Some(profile) => seccomp::parse(profile, &capabilities).map(Some),
        }
    }
}

fn capabilities(host: &HostConfig) -> Result<oci_spec::runtime::Capabilities> {
    let list = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    caps::resolve(&list(&host.cap_add), &list(&host.cap_drop), host.privileged)
}
