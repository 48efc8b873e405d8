//! Seccomp profiles: docker's JSON form, and its default one ([`default`]).
//!
//! A rule of such a profile may depend on the machine's architecture, on the kernel and on
//! the container's capabilities; what is left of it are plain OCI rules.

mod compiled;
mod default;

use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSyscall,
};
use serde::Deserialize;

use crate::error::{Error, Result};

pub(crate) use self::compiled::{Compiled, Key};
pub use self::default::default_profile;

/// docker's form of a profile.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<std::path::PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    arches: Option<Vec<String>>,
    caps: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Parses docker's form for a container with these capabilities.
pub fn parse(json: &str, capabilities: &Capabilities) -> Result<LinuxSeccomp> {
    let invalid =
        |reason: String| Error::Invalid(format!("decoding seccomp profile failed: {reason}"));
    let profile: Profile =
        serde_json::from_str(json).map_err(|error| invalid(error.to_string()))?;
    if profile.architectures.is_some() && profile.arch_map.is_some() {
        return Err(invalid("both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'".into()));
    }
    let machine = Machine::this(capabilities);
    let mut rules = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        let names = match (rule.name, rule.names) {
            (Some(_), Some(names)) if !names.is_empty() => {
                return Err(invalid("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'".into()));
            }
            (Some(name), _) => vec![name],
            (None, names) => names.unwrap_or_default(),
        };
        let applies = rule
            .includes
            .is_none_or(|condition| machine.meets(&condition))
            && !rule
                .excludes
                .is_some_and(|condition| machine.meets_any(&condition));
        if applies && !names.is_empty() {
            let mut syscall = LinuxSyscall::default();
            syscall
                .set_names(names)
                .set_action(rule.action)
                .set_errno_ret(rule.errno_ret)
                .set_args(rule.args.filter(|args| !args.is_empty()));
            rules.push(syscall);
        }
    }
    let mapped = profile.arch_map.map(|map| machine.architectures(map));
    let mut seccomp = LinuxSeccomp::default();
    seccomp
        .set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(profile.architectures.or(mapped))
        .set_flags(profile.flags)
        .set_listener_path(profile.listener_path)
        .set_listener_metadata(profile.listener_metadata)
        .set_syscalls(Some(rules));
    Ok(seccomp)
}

/// What conditions are about.
struct Machine<'a> {
    /// As Go names it.
    arch: &'static str,
    kernel: (u32, u32),
    capabilities: &'a Capabilities,
}

impl<'a> Machine<'a> {
    fn this(capabilities: &'a Capabilities) -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "x86",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        let release = rustix::system::uname();
        Self {
            arch,
            kernel: version(&release.release().to_string_lossy()),
            capabilities,
        }
    }

    fn has_all(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.has(name))
    }
    fn has(&self, name: &str) -> bool {
        let parsed = name.trim_start_matches("CAP_").parse();
        parsed.is_ok_and(|capability| self.capabilities.contains(&capability))
    }
    fn is_arch(&self, arches: &[String]) -> bool {
        arches.iter().any(|arch| arch == self.arch)
    }
    fn has_kernel(&self, minimum: &str) -> bool {
        self.kernel >= version(minimum)
    }

    /// Everything that is asked for.
    fn meets(&self, wanted: &Condition) -> bool {
        wanted
            .arches
            .as_deref()
            .is_none_or(|arches| arches.is_empty() || self.is_arch(arches))
            && wanted
                .caps
                .as_deref()
                .is_none_or(|names| self.has_all(names))
            && wanted
                .min_kernel
                .as_deref()
                .is_none_or(|minimum| self.has_kernel(minimum))
    }

    /// Anything that is excluded.
    fn meets_any(&self, excluded: &Condition) -> bool {
        excluded
            .arches
            .as_deref()
            .is_some_and(|arches| self.is_arch(arches))
            || excluded
                .caps
                .as_deref()
                .is_some_and(|names| names.iter().any(|name| self.has(name)))
            || excluded
                .min_kernel
                .as_deref()
                .is_some_and(|minimum| self.has_kernel(minimum))
    }

    fn architectures(&self, map: Vec<ArchMap>) -> Vec<Arch> {
        let own = native();
        let entry = map
            .into_iter()
            .find(|entry| Some(entry.architecture) == own);
        entry.map_or_else(Vec::new, |entry| {
            std::iter::once(entry.architecture)
                .chain(entry.sub_architectures.into_iter().flatten())
                .collect()
        })
    }
}

/// libseccomp's name for this machine.
fn native() -> Option<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Arch::ScmpArchX86_64),
        "aarch64" => Some(Arch::ScmpArchAarch64),
        "riscv64" => Some(Arch::ScmpArchRiscv64),
        "s390x" => Some(Arch::ScmpArchS390x),
        "powerpc64" => Some(Arch::ScmpArchPpc64le),
        _ => None,
    }
}

/// Major and minor number of a kernel.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Capability;

    use super::*;

    #[test]
    fn conditions() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[
              {"names":["read"],"action":"SCMP_ACT_ALLOW","args":[],"comment":"x","includes":{},"excludes":{}},
              {"name":"mount","action":"SCMP_ACT_ALLOW","args":null,"includes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"excludes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["future"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.1"}},
              {"names":["other"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["vax"]}}]}"#;
        let names = |capabilities: &[Capability]| {
            let profile = parse(json, &capabilities.iter().copied().collect()).unwrap();
            profile
                .syscalls()
                .iter()
                .flatten()
                .flat_map(|syscall| syscall.names().clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["read", "clone3"]);
        assert_eq!(names(&[Capability::SysAdmin]), ["read", "mount"]);
    }

    #[test]
    fn bad_profiles() {
        for bad in ["", "{}", "[]", r#"{"defaultAction":"NOPE"}"#] {
            let error = parse(bad, &Capabilities::new()).unwrap_err().to_string();
            assert!(
                error.starts_with("decoding seccomp profile failed: "),
                "{error}"
            );
        }
    }

    #[test]
    fn versions() {
        assert_eq!(version("6.1.0-13-amd64"), (6, 1));
        assert!(version("4.8") < version("4.19.0"));
    }
}
