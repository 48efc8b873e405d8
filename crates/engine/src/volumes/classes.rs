//! What a class and its options come to on this installation, and what is refused.

use std::sync::Arc;

use agent::volumes::{Health, PoolStatus};
use types::{
    Error, PoolName, Result,
    volume::{Class, Content, FileSystem, options::VolumeSpec},
};

use super::{Settled, Volume};
use crate::{Engine, record::SnapshotRecord};

impl Engine {
    /// Chooses the pool and settles size and content, or says what is missing.
    pub(super) async fn settle_class(
        &self,
        spec: &VolumeSpec,
        origin: Option<&(Arc<Volume>, Option<Arc<SnapshotRecord>>)>,
    ) -> Result<Settled> {
        self.must_be_offered(spec)?;
        let origin = origin.map(|(volume, snapshot)| {
            let record = volume.record();
            let content = snapshot
                .as_ref()
                .map_or(record.content, |snapshot| snapshot.content);
            (record, content)
        });
        let wanted = match &origin {
            None => spec.pool.as_ref(),
            Some((record, _)) => {
                let other = spec.pool.as_ref().filter(|pool| **pool != record.pool);
                if let Some(pool) = other {
                    return Err(Error::invalid(format!(
                        "invalid value \"{pool}\" of volume option pool: a copy lies on its origin's pool, {}",
                        record.pool
                    )));
                }
                Some(&record.pool)
            }
        };
        let (pool, status) = self.pool_for(spec.class, wanted).await?;
        let size = match &origin {
            Some((record, content)) => copy_size(spec, record, *content)?,
            None => spec.size,
        };
        if let Some(size) = size.filter(|size| *size > status.total) {
            return Err(Error::invalid(format!(
                "invalid size {size}: pool {pool} holds {} bytes in all; give a smaller size (-o size=), or grow the pool (kraud pool grow)",
                status.total
            )));
        }
        let is_block = spec.class.is_block();
        Ok(Settled {
            pool,
            content: match (is_block, size) {
                (true, Some(bytes)) => Content::Image { bytes },
                (true, None) => {
                    return Err(Error::invalid("a block volume needs a size (-o size=10G)"));
                }
                (false, _) => Content::Files,
            },
            fs: match &origin {
                Some((record, _)) => record.fs,
                None if is_block => spec.fs,
                None => FileSystem::default(),
            },
            size: size.filter(|_| !is_block),
            zone: self.settings.zone.clone(),
        })
    }

    /// Refuses what this installation cannot keep.
    fn must_be_offered(&self, spec: &VolumeSpec) -> Result<()> {
        if spec.class == Class::Rbd {
            return Err(Error::unavailable(
                "volume class rbd is not available: it needs a Ceph cluster, and this installation has none; for a block volume on this machine use class lv2",
            ));
        }
        if spec.media.is_some() {
            return Err(Error::unavailable(
                "volume option media is not available: it chooses among Ceph's pools, and this installation has no Ceph cluster",
            ));
        }
        if spec.rpo.is_some() {
            return Err(Error::unavailable(
                "volume option rpo is not available: it sets how often cold copies are made, and this installation has no cold storage",
            ));
        }
        match &spec.zone {
            Some(zone) if *zone != self.settings.zone => Err(Error::invalid(format!(
                "invalid value {zone:?} of volume option zone: there is no such zone; this node is in zone {:?}",
                self.settings.zone
            ))),
            _ => Ok(()),
        }
    }

    /// The pool that is asked for, else the default one, else the first that will do.
    pub(crate) async fn pool_for(
        &self,
        class: Class,
        wanted: Option<&PoolName>,
    ) -> Result<(PoolName, PoolStatus)> {
        let mut candidates = match wanted {
            Some(name) => vec![name.clone()],
            None => self.pools.names(),
        };
        // `false` sorts first.
        candidates.sort_by_key(|name| (*name != PoolName::default(), name.clone()));
        let mut reason = None;
        for name in candidates {
            match self.pool_usable(class, &name).await {
                Ok(status) => return Ok((name, status)),
                Err(error) => reason = reason.or(Some(error)),
            }
        }
        Err(reason.unwrap_or_else(|| {
            Error::unavailable(
                "there is no storage pool: kraud doctor says what is missing, kraud pool create makes one",
            )
        }))
    }

    async fn pool_usable(&self, class: Class, name: &PoolName) -> Result<PoolStatus> {
        if !self.pools.has(name) {
            return Err(Error::not_found(format!(
                "no such pool: {name} (kraud pool ls lists them)"
            )));
        }
        let status = self.agent.pool_status(name).await?;
        if let Health::Faulted(reason) = &status.health {
            return Err(Error::unavailable(format!(
                "pool {name} is not available: {reason}"
            )));
        }
        if class == Class::Lv1 && status.copies < 2 {
            return Err(Error::unavailable(format!(
                "volume class lv1 keeps every block twice, and pool {name} keeps it once: make a pool on two devices (kraud pool create NAME --device A --device B --mirror) and name it with -o pool="
            )));
        }
        Ok(status)
    }
}

/// The size of a copy: as its origin, or larger.
fn copy_size(
    spec: &VolumeSpec,
    origin: &crate::record::VolumeRecord,
    content: Content,
) -> Result<Option<u64>> {
    let is_image = matches!(content, Content::Image { .. });
    if spec.class.is_block() != is_image {
        return Err(Error::invalid(format!(
            "a volume of class {} cannot be a copy of {}, which is of class {}: one is a block volume and the other holds files",
            spec.class, origin.name, origin.class
        )));
    }
    let least = match content {
        Content::Image { bytes } => Some(bytes),
        Content::Files => None,
    };
    match (spec.size, least) {
        (Some(size), Some(least)) if size < least => Err(Error::invalid(format!(
            "invalid size {size}: a copy of {} cannot be smaller than its {least} bytes",
            origin.name
        ))),
        (Some(size), _) => Ok(Some(size)),
        (None, Some(least)) => Ok(Some(least)),
        (None, None) => Ok(origin.size),
    }
}
