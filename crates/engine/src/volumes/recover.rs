//! What a crash cut off is finished, before anything starts.

use std::sync::Arc;

use agent::volumes::Volume as Plan;
use types::{ContainerId, Result};

use super::Volume;
use crate::{
    Engine,
    record::{SnapshotPhase, VolumePhase},
};

impl Engine {
    /// Brings all volumes from what was begun to what is. Trouble with one is its own. Returns
    /// containers that a cut-off rollback had stopped, in the order in which to start them.
    pub(crate) async fn recover_volumes(&self) -> Result<Vec<ContainerId>> {
        let mut restart = Vec::new();
        for volume in self.volumes.all() {
            let name = volume.record().name.clone();
            match self.recover_volume(&volume).await {
                Ok(containers) => restart.extend(containers),
                Err(error) => {
                    tracing::error!(volume = %name, %error, "what was begun with a volume could not be finished; the next start of kraud tries again");
                    volume.set_trouble(error.message);
                }
            }
        }
        self.report_missing().await;
        Ok(restart)
    }

    /// Goes on with what errors have left half done: removals of volumes and snapshots, and
    /// rollbacks whose volume is not there.
    pub(crate) async fn tidy_volumes(&self) {
        for volume in self.volumes.all() {
            let Ok(op) = volume.op.try_lock() else {
                continue;
            };
            if let Err(error) = self.tidy_volume(&volume).await {
                tracing::warn!(volume = %volume.record().name, %error, "what was begun with a volume could not be finished; kraud tries again later");
            }
            drop(op);
        }
    }

    async fn tidy_volume(&self, volume: &Arc<Volume>) -> Result<()> {
        match volume.record().phase {
            VolumePhase::Removing => return self.forget_volume(volume).await,
            VolumePhase::Creating { .. } | VolumePhase::Importing => return Ok(()),
            VolumePhase::RollingBack { .. } => {
                let stopped = self.finish_rollback(volume).await?;
                self.start_left(volume, &stopped).await?;
            }
            VolumePhase::Ready => {}
        }
        self.recover_snapshots(volume).await
    }

    async fn recover_volume(&self, volume: &Arc<Volume>) -> Result<Vec<ContainerId>> {
        let _op = volume.op.lock().await;
        let record = volume.record();
        match &record.phase {
            VolumePhase::Ready => {}
            VolumePhase::Creating { .. } => self.create_on_node(volume).await?,
            VolumePhase::Importing => {
                self.agent.volume_create(&record.plan(), None).await?;
                self.agent.volume_import(&record.plan()).await?;
                let mut record = (*record).clone();
                record.phase = VolumePhase::Ready;
                self.commit_volume(volume, record).await?;
            }
            VolumePhase::Removing => {
                self.forget_volume(volume).await?;
                return Ok(Vec::new());
            }
            VolumePhase::RollingBack { .. } => {}
        }
        self.recover_snapshots(volume).await?;
        let restart = self.finish_rollback(volume).await?;
        if volume.record().size.is_some() {
            self.apply_limit(volume).await?;
        }
        Ok(restart)
    }

    /// Snapshots that were being taken are not: nobody was told that they are. Those that were
    /// going are gone.
    pub(crate) async fn recover_snapshots(&self, volume: &Volume) -> Result<()> {
        let mut outcome = Ok(());
        for snapshot in volume.all_snapshots() {
            if snapshot.phase != SnapshotPhase::Ready {
                let removed = self.remove_snapshot_now(volume, &snapshot).await;
                outcome = outcome.and(removed);
            }
        }
        outcome
    }

    /// A volume whose dataset is not where it should be is told of, never made anew: an empty
    /// volume in place of somebody's data would look like the data were gone for good.
    async fn report_missing(&self) {
        let volumes = self.volumes.all();
        let plans: Vec<Plan> = volumes
            .iter()
            .map(|volume| volume.record().plan())
            .collect();
        let missing = match self.agent.volumes_missing(&plans).await {
            Ok(missing) => missing,
            Err(error) => {
                tracing::warn!(%error, "looking for the volumes on their pools");
                return;
            }
        };
        for volume in volumes {
            if missing.contains(&volume.id) {
                let record = volume.record();
                tracing::error!(volume = %record.name, pool = %record.pool, "a volume is recorded but not on its pool");
                volume.set_trouble(format!("it is not on pool {}", record.pool));
            }
        }
    }
}
