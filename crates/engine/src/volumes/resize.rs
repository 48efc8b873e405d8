//! Sizes of volumes: limits, growing, and what happens when space runs short.

use agent::volumes::Pressure;
use types::{
    Error, PoolName, Result, VolumeId,
    volume::{Content, options, quota},
};

use super::Volume;
use crate::{Engine, Scope, record::VolumePhase};

/// Automatic snapshots that one report of pressure may cost at most; the next report follows.
const DROPPED_AT_ONCE: usize = 8;

impl Engine {
    /// Sets the limit on the pool that a volume's size and snapshots call for.
    pub(crate) async fn apply_limit(&self, volume: &Volume) -> Result<()> {
        let record = volume.record();
        if record.content != Content::Files {
            return Ok(());
        }
        let droppable = volume.droppable();
        self.agent
            .volume_limit(&record.plan(), record.size, droppable)
            .await
    }

    /// Makes a volume larger, mounted or not. A volume of files without a size gets one.
    pub async fn volume_grow(&self, scope: &Scope, name: &str, bytes: u64) -> Result<()> {
        let volume = self.volume_named(scope, name)?;
        let _op = volume.op.lock().await;
        let mut record = (*volume.record()).clone();
        super::must_be_ready(&record)?;
        let bytes = options::check_size(record.class, bytes)?;
        let status = self.agent.pool_status(&record.pool).await?;
        if bytes > status.total {
            return Err(Error::invalid(format!(
                "invalid size {bytes}: pool {} holds {} bytes in all; grow it first (kraud pool grow)",
                record.pool, status.total
            )));
        }
        if let Some(now) = record.bytes()
            && bytes < now
        {
            return Err(Error::invalid(format!(
                "volume {name} has {now} bytes and cannot shrink to {bytes}: make a smaller volume and copy the files"
            )));
        }
        let _turn = self
            .room_for_volume(&record, Some(bytes), record.bytes().unwrap_or(0))
            .await?;
        let Content::Image { .. } = record.content else {
            if record.size.is_none() {
                let usage = self.agent.volume_usage(&record.plan()).await?;
                if usage.live > bytes {
                    return Err(Error::invalid(format!(
                        "volume {name} holds {} bytes already: a size of {bytes} would be too small",
                        usage.live
                    )));
                }
            }
            record.size = Some(bytes);
            let before = (*volume.record()).clone();
            self.commit_volume(&volume, record).await?;
            let limited = match fault::step("engine.resize.recorded") {
                Ok(()) => self.apply_limit(&volume).await,
                Err(error) => Err(error),
            };
            let limited = limited.and_then(|()| fault::step("engine.resize.done"));
            if let Err(error) = limited {
                self.commit_volume(&volume, before).await?;
                self.adjust_limit(&volume).await;
                return Err(error);
            }
            return Ok(());
        };
        // Recorded first: a start after a crash makes the image as large as is recorded.
        record.content = Content::Image { bytes };
        let (plan, before) = (record.plan(), (*volume.record()).clone());
        self.commit_volume(&volume, record).await?;
        let resized = match fault::step("engine.resize.recorded") {
            Ok(()) => self.agent.volume_resize(&plan).await,
            Err(error) => Err(error),
        };
        if let Err(error) = resized {
            self.commit_volume(&volume, before).await?;
            return Err(error);
        }
        Ok(())
    }

    /// A node reports that something is fuller than it should be.
    pub(crate) async fn relieve(&self, pressure: Pressure) {
        match pressure {
            Pressure::Volume { id, above, .. } => self.relieve_volume(&id, above).await,
            Pressure::Pool { name, free } => self.relieve_pool(&name, free).await,
        }
    }

    /// Drops snapshots that kraud made of a volume, oldest first: automatic ones until it is below
    /// its size, of those that rollbacks left one, which makes room to write on.
    async fn relieve_volume(&self, id: &VolumeId, above: u64) {
        let Some(volume) = self.volumes.get(id) else {
            return;
        };
        // One at a time: a second report, while the space of what went is not free yet, must not
        // cost another snapshot.
        let Ok(_relieving) = volume.relieving.try_lock() else {
            return;
        };
        let record = volume.record();
        for _ in 0..DROPPED_AT_ONCE {
            // Measured again: the report may be older than what another one led to.
            match self.agent.volume_charged(&record.plan()).await {
                Ok(charged) if charged <= above => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(volume = %record.name, %error, "measuring a full volume");
                    return;
                }
            }
            let Some(oldest) = volume.next_to_drop() else {
                break;
            };
            tracing::warn!(volume = %record.name, snapshot = %oldest.name, "the volume is full: a snapshot that kraud made goes");
            if let Err(error) = self.drop_snapshot(&volume, &oldest).await {
                tracing::warn!(volume = %record.name, snapshot = %oldest.name, %error, "dropping a snapshot of a full volume");
                return;
            }
            // What was removed is counted for a moment longer.
            if let Err(error) = self.agent.pool_reclaim(&record.pool).await {
                tracing::debug!(pool = %record.pool, %error, "waiting for space");
            }
            if volume.droppable() == quota::Droppable::Safety {
                // The rest is needed to undo a rollback: what is held now decides when it goes.
                if let Err(error) = self.apply_limit(&volume).await {
                    tracing::warn!(volume = %record.name, %error, "limiting a full volume");
                }
                return;
            }
        }
        if volume.next_to_drop().is_none() {
            let kept: Vec<String> = volume
                .snapshots()
                .iter()
                .map(|snapshot| snapshot.name.to_string())
                .collect();
            if !kept.is_empty() {
                tracing::warn!(volume = %record.name, snapshots = kept.join(", "), "the volume is full, and only snapshots that users made are left: writes fail until one is removed (kra volume snapshot rm) or the volume grows (kra volume resize)");
            }
        }
    }

    /// Drops the oldest automatic snapshots of a pool, whichever volume they are of.
    async fn relieve_pool(&self, pool: &PoolName, free: u64) {
        let Ok(_relieving) = self.pools.relieving.try_lock() else {
            return;
        };
        let on_pool = |volume: &std::sync::Arc<Volume>| {
            let record = volume.record();
            record.pool == *pool && record.phase == VolumePhase::Ready
        };
        let mut oldest: Option<(
            std::sync::Arc<Volume>,
            std::sync::Arc<crate::record::SnapshotRecord>,
        )> = None;
        for volume in self.volumes.all().into_iter().filter(on_pool) {
            let Some(snapshot) = volume.next_to_drop() else {
                continue;
            };
            let is_older = oldest
                .as_ref()
                .is_none_or(|(_, other)| snapshot.created < other.created);
            if is_older {
                oldest = Some((volume, snapshot));
            }
        }
        let Some((volume, snapshot)) = oldest else {
            if self.pools.say_hopeless(pool) {
                tracing::warn!(pool = %pool, free, "a pool is nearly full and no automatic snapshot is left to drop: remove volumes or snapshots, or grow it (kraud pool grow)");
            }
            return;
        };
        tracing::warn!(pool = %pool, free, volume = %volume.record().name, snapshot = %snapshot.name, "a pool is nearly full: its oldest automatic snapshot goes");
        if let Err(error) = self.drop_snapshot(&volume, &snapshot).await {
            tracing::warn!(pool = %pool, %error, "dropping an automatic snapshot on a full pool");
        }
        if let Err(error) = self.agent.pool_reclaim(pool).await {
            tracing::debug!(pool = %pool, %error, "waiting for space");
        }
    }
}
