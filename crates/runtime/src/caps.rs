//! Capabilities: docker's default set and the rules of `--cap-add` and `--cap-drop`.

use std::{fs, sync::LazyLock};

use oci_spec::runtime::{Capabilities, Capability};

use crate::error::{Error, Result};

/// What a container has when nothing is said (docker's documented list).
pub const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// All names, in the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Those that this process could hand on: its bounding set.
static AVAILABLE: LazyLock<Capabilities> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let bits = bits.unwrap_or(u64::MAX);
    NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| bits >> number & 1 == 1)
        .filter_map(|(_, name)| name.parse().ok())
        .collect()
});

/// The capabilities of a container.
///
/// Adding `ALL` gives all but those dropped; dropping `ALL` leaves those added.
pub fn resolve(add: &[String], drop: &[String], privileged: bool) -> Result<Capabilities> {
    let (add, drop) = (Words::parse(add)?, Words::parse(drop)?);
    if privileged {
        return Ok(AVAILABLE.clone());
    }
    let mut set: Capabilities = if add.all {
        AVAILABLE
            .iter()
            .copied()
            .filter(|capability| !drop.named.contains(capability))
            .collect()
    } else if drop.all {
        add.named.into_iter().collect()
    } else {
        let kept = DEFAULT
            .iter()
            .copied()
            .filter(|capability| !drop.named.contains(capability));
        kept.chain(add.named).collect()
    };
    // The default set is a wish: a daemon that lacks some of it can still run containers.
    set.retain(|capability| AVAILABLE.contains(capability));
    Ok(set)
}

/// Checks names as they come from a client, without a container.
pub fn validate(add: &[String], drop: &[String]) -> Result<()> {
    Words::parse(add)?;
    Words::parse(drop)?;
    Ok(())
}

/// A list of names, `ALL` apart.
struct Words {
    all: bool,
    named: Vec<Capability>,
}

impl Words {
    fn parse(words: &[String]) -> Result<Self> {
        let mut parsed = Self {
            all: false,
            named: Vec::new(),
        };
        for word in words {
            let word = word.to_ascii_uppercase();
            if word == "ALL" {
                parsed.all = true;
                continue;
            }
            let name = word.strip_prefix("CAP_").unwrap_or(&word);
            let known = NAMES
                .contains(&name)
                .then(|| name.parse::<Capability>().ok())
                .flatten();
            let Some(capability) = known else {
                return Err(Error::Invalid(format!(
                    "invalid CapAdd: unknown capability: \"CAP_{name}\""
                )));
            };
            if !AVAILABLE.contains(&capability) {
                return Err(Error::Invalid(format!(
                    "capability not supported by your kernel or not available in the current environment: \"CAP_{name}\""
                )));
            }
            parsed.named.push(capability);
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_name_is_known() {
        for name in NAMES {
            assert!(name.parse::<Capability>().is_ok(), "{name}");
        }
    }

    #[test]
    fn rules() {
        let default = resolve(&[], &[], false).unwrap();
        assert!(default.contains(&Capability::Chown) && !default.contains(&Capability::SysAdmin));
        let changed = resolve(&words("net_admin"), &words("CAP_CHOWN"), false).unwrap();
        assert!(changed.contains(&Capability::NetAdmin) && !changed.contains(&Capability::Chown));
        let one = resolve(&words("KILL"), &words("all"), false).unwrap();
        assert_eq!(one, Capabilities::from([Capability::Kill]));
        let all_but = resolve(&words("ALL"), &words("KILL"), false).unwrap();
        assert!(all_but.contains(&Capability::SysAdmin) && !all_but.contains(&Capability::Kill));
        let error = resolve(&words("nosuch"), &[], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid CapAdd: unknown capability: \"CAP_NOSUCH\""
        );
    }
}
