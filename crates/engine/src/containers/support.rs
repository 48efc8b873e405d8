//! What the node of a container can do of what was asked for.

use agent::NodeInfo;
use types::{Error, HostConfig, Result, container::Resources};

use super::validate::parse_cpuset;

/// Refuses or, with a warning, takes back limits that the node's kernel does not have.
pub(super) fn resources(
    limits: &mut Resources,
    node: &NodeInfo,
    warnings: &mut Vec<String>,
) -> Result<()> {
    if limits.blkio_weight != 0 && !node.blkio_weight {
        warnings.push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into());
        limits.blkio_weight = 0;
    }
    let highest = |list: &str| parse_cpuset(list).flatten();
    if let (Some(wanted), Some(there)) = (highest(&limits.cpuset_mems), highest(&node.memory_nodes))
        && wanted > there
    {
        return Err(Error::invalid(format!(
            "Requested memory nodes are not available - requested {}, available: {}",
            limits.cpuset_mems, node.memory_nodes
        )));
    }
    Ok(())
}

/// Refuses options of storage drivers: the overlay driver has none that works here.
pub(super) fn storage(host: &HostConfig) -> Result<()> {
    match host.storage_opt.iter().flatten().next() {
        None => Ok(()),
        Some((name, _)) if name.eq_ignore_ascii_case("size") => Err(Error::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        )),
        Some((name, _)) => Err(Error::invalid(format!("unknown option {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks() {
        let node = NodeInfo {
            memory_nodes: "0-1".into(),
            ..NodeInfo::default()
        };
        let mut warnings = Vec::new();
        let mut limits = Resources {
            blkio_weight: 500,
            cpuset_mems: "1".into(),
            ..Resources::default()
        };
        resources(&mut limits, &node, &mut warnings).unwrap();
        assert_eq!((limits.blkio_weight, warnings.len()), (0, 1));
        limits.cpuset_mems = "0-2".into();
        assert!(resources(&mut limits, &node, &mut warnings).is_err());
    }
}
