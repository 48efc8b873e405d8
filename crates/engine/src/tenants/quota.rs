//! What a tenant may have, and what it has.
//!
//! Whatever counts is counted before it is recorded, with others of the same tenant held back
//! until it is: two that come at once cannot both take the last place.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use agent::{
    plan::{Share, ShareDisk, ShareUse},
    volumes::Volume,
};
use tokio::sync::OwnedMutexGuard;
use types::{
    Error, Namespace, Result, VolumeName,
    container::Resources,
    native::{Quota, QuotaUse},
    volume::{Class, Content, FileSystem},
};

use crate::{
    Engine, Scope,
    record::{ContainerRecord, SnapshotOrigin, VolumeRecord},
};

/// Holds others of the namespace back that want more of the same.
pub(crate) type Turn = Option<OwnedMutexGuard<()>>;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Containers,
    Ports,
    Snapshots,
    Volumes,
}

type Lock = Arc<tokio::sync::Mutex<()>>;

/// One lock for each tenant and kind. Taken in the order of the kinds.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<(Namespace, Kind), Lock>>);

impl Turns {
    async fn take(&self, namespace: &Namespace, kind: Kind) -> Turn {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry((namespace.clone(), kind)).or_default().clone()
        };
        Some(lock.lock_owned().await)
    }
}

/// Fails unless `wanted` more fit.
pub(crate) fn fits(
    namespace: &Namespace,
    what: &str,
    limit: u64,
    used: u64,
    wanted: u64,
) -> Result<()> {
    if used.saturating_add(wanted) > limit {
        return Err(Error::forbidden(format!(
            "the quota of {namespace} is {limit} {what}: {used} are in use, and {wanted} more would be too many"
        )));
    }
    Ok(())
}

/// Tells the library how much of images tenants may have.
pub(crate) struct Limits(pub(crate) std::sync::Weak<crate::Inner>);

impl crate::library::ImageLimits for Limits {
    fn image_bytes(&self, namespace: &Namespace) -> Option<u64> {
        let engine = self.0.upgrade()?;
        engine.identities.quota(namespace)?.images
    }
}

impl Engine {
    /// A tenant's quota.
    pub fn quota(&self, namespace: &Namespace) -> Result<Quota> {
        self.identities
            .quota(namespace)
            .ok_or_else(|| Error::not_found(format!("no such tenant: {namespace}")))
    }

    /// Sets a tenant's quota. What is there already stays, even if it is more.
    pub async fn quota_set(&self, namespace: &Namespace, quota: Quota) -> Result<Quota> {
        if quota.volumes.contains_key(&Class::Rbd) {
            return Err(Error::invalid(
                "invalid quota: there are no volumes of class rbd yet",
            ));
        }
        self.identities.quota_set(namespace, quota).await?;
        if let Some(share) = self.share(namespace) {
            self.agent.share_limit(&share).await?;
        }
        self.quota(namespace)
    }

    /// What a namespace has of what quotas are for.
    pub async fn quota_use(&self, scope: &Scope, namespace: Option<Namespace>) -> Result<QuotaUse> {
        let namespace = self.named(scope, namespace)?;
        let mut quota = self.identities.quota(&namespace).unwrap_or_default();
        let measured = match self.share(&namespace) {
            Some(share) => {
                // What holds where nothing is set.
                quota.pids.get_or_insert(Share::PIDS);
                quota.disk.get_or_insert(Quota::DISK);
                self.agent.share_use(&share).await?
            }
            None => ShareUse::default(),
        };
        let mut volumes = BTreeMap::new();
        for class in Class::ALL {
            let used = self.volume_bytes(&namespace, class);
            if used > 0 || quota.volumes.contains_key(&class) {
                volumes.insert(class, used);
            }
        }
        Ok(QuotaUse {
            namespace: namespace.clone(),
            quota,
            containers: self.containers.of(&namespace).len() as u64,
            ports: self.ports(&namespace),
            snapshots: self.snapshot_count(&namespace),
            volumes,
            memory: measured.memory,
            pids: measured.pids,
            disk: measured.disk,
            images: self.images.charge(&namespace).await?,
        })
    }

    /// The control group of a tenant's containers together; none for the operator.
    pub(crate) fn share(&self, namespace: &Namespace) -> Option<Share> {
        if *namespace == Namespace::default() {
            return None;
        }
        let quota = self.identities.quota(namespace).unwrap_or_default();
        Some(Share {
            name: format!("tenant-{namespace}"),
            memory: quota.memory,
            nano_cpus: quota.cpus.map(|cpus| (cpus * 1e9) as u64),
            pids: Some(quota.pids.unwrap_or(Share::PIDS)),
            ids: self.identities.ids(namespace),
            io_bytes: quota.io,
            io_operations: quota.iops,
            disk: self.identities.disk(namespace).map(|disk| ShareDisk {
                volume: Volume {
                    id: disk.dataset,
                    name: VolumeName::kept_for(namespace),
                    pool: disk.pool,
                    content: Content::Files,
                    fs: FileSystem::default(),
                },
                bytes: quota.disk.unwrap_or(Quota::DISK),
            }),
        })
    }

    /// Snapshots that the tenant made. How many others there are its schedules say.
    fn snapshot_count(&self, namespace: &Namespace) -> u64 {
        self.volumes
            .of(namespace)
            .iter()
            .flat_map(|volume| volume.all_snapshots())
            .filter(|snapshot| snapshot.origin == SnapshotOrigin::User)
            .count() as u64
    }

    fn volume_bytes(&self, namespace: &Namespace, class: Class) -> u64 {
        self.volumes
            .of(namespace)
            .iter()
            .map(|volume| volume.record())
            .filter(|record| record.class == class)
            .filter_map(|record| record.bytes())
            .sum()
    }

    /// Host ports of all containers that run.
    fn ports(&self, namespace: &Namespace) -> u64 {
        self.containers
            .of(namespace)
            .iter()
            .filter(|container| container.is_running())
            .map(|container| published(&container.record()))
            .sum()
    }

    fn quota_of(&self, namespace: &Namespace) -> Option<Quota> {
        if *namespace == Namespace::default() {
            return None;
        }
        self.identities.quota(namespace)
    }

    /// Fails when a container's own limits are above what all may have together.
    pub(crate) fn limits_fit(&self, namespace: &Namespace, wanted: &Resources) -> Result<()> {
        let quota = self.quota_of(namespace).unwrap_or_default();
        if let Some(limit) = quota.memory
            && u64::try_from(wanted.memory).unwrap_or(0) > limit
        {
            return Err(Error::forbidden(format!(
                "the quota of {namespace} is {limit} bytes of memory: a container cannot have {}",
                wanted.memory
            )));
        }
        let cpus = wanted.nano_cpus as f64 / 1e9;
        match quota.cpus {
            Some(limit) if cpus > limit => Err(Error::forbidden(format!(
                "the quota of {namespace} is {limit} processors: a container cannot have {cpus}"
            ))),
            _ => Ok(()),
        }
    }

    /// Fails unless one more container fits, and its own limits are within the quota.
    pub(crate) async fn room_for_container(
        &self,
        namespace: &Namespace,
        host: &types::HostConfig,
    ) -> Result<Turn> {
        self.limits_fit(namespace, &host.resources)?;
        let Some(quota) = self.quota_of(namespace) else {
            return Ok(None);
        };
        let Some(limit) = quota.containers else {
            return Ok(None);
        };
        let turn = self.turns.take(namespace, Kind::Containers).await;
        fits(
            namespace,
            "containers",
            limit,
            self.containers.of(namespace).len() as u64,
            1,
        )?;
        Ok(turn)
    }

    /// Fails unless the ports of a container that starts fit.
    pub(crate) async fn room_for_ports(&self, record: &ContainerRecord) -> Result<Turn> {
        let namespace = &record.namespace;
        let wanted = published(record);
        let limit = self.quota_of(namespace).and_then(|quota| quota.ports);
        let (Some(limit), 1..) = (limit, wanted) else {
            return Ok(None);
        };
        let turn = self.turns.take(namespace, Kind::Ports).await;
        fits(
            namespace,
            "published ports",
            limit,
            self.ports(namespace),
            wanted,
        )?;
        Ok(turn)
    }

    /// Fails unless so many more snapshots fit.
    pub(crate) async fn room_for_snapshots(
        &self,
        namespace: &Namespace,
        wanted: usize,
    ) -> Result<Turn> {
        let limit = self.quota_of(namespace).and_then(|quota| quota.snapshots);
        let Some(limit) = limit else {
            return Ok(None);
        };
        let turn = self.turns.take(namespace, Kind::Snapshots).await;
        fits(
            namespace,
            "snapshots",
            limit,
            self.snapshot_count(namespace),
            wanted as u64,
        )?;
        Ok(turn)
    }

    /// Fails unless a new volume fits, or one that shall have `bytes` instead of what it has.
    pub(crate) async fn room_for_volume(
        &self,
        record: &VolumeRecord,
        bytes: Option<u64>,
        has: u64,
    ) -> Result<Turn> {
        let namespace = &record.namespace;
        let limit = self
            .quota_of(namespace)
            .and_then(|quota| quota.volumes.get(&record.class).copied());
        let Some(limit) = limit else {
            return Ok(None);
        };
        let class = record.class.as_str();
        let turn = self.turns.take(namespace, Kind::Volumes).await;
        let used = self.volume_bytes(namespace, record.class);
        let Some(bytes) = bytes else {
            return Err(Error::forbidden(format!(
                "volume {} needs a size: the quota of {namespace} is {limit} bytes of class {class}, and {used} are in use (docker volume create -d {class} -o size=1G …)",
                record.name
            )));
        };
        fits(
            namespace,
            &format!("bytes of volumes of class {class}"),
            limit,
            used.saturating_sub(has),
            bytes,
        )?;
        Ok(turn)
    }
}

/// How many ports of the host a container wants.
fn published(record: &ContainerRecord) -> u64 {
    let bindings = record.host.port_bindings.iter().flatten();
    let named: usize = bindings
        .map(|(_, bindings)| bindings.as_deref().map_or(0, |list| list.len().max(1)))
        .sum();
    let exposed = match record.host.publish_all_ports {
        true => record.config.exposed_ports.iter().flatten().count(),
        false => 0,
    };
    named.max(exposed) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_named() {
        let shop: Namespace = "shop".parse().unwrap();
        assert!(fits(&shop, "containers", 3, 2, 1).is_ok());
        let error = fits(&shop, "containers", 3, 3, 1).unwrap_err();
        assert_eq!(error.kind, types::Kind::Forbidden);
        assert_eq!(
            error.message,
            "the quota of shop is 3 containers: 3 are in use, and 1 more would be too many"
        );
        assert!(fits(&shop, "bytes", 7, u64::MAX, 1).is_err());
    }
}
