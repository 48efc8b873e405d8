//! Rollback: a volume becomes what a snapshot holds, and that can be undone.
//!
//! ```text
//!  record RollingBack --> stop users --> safety snapshot --> swap --> record Ready --> start users
//! ```
//!
//! A crash before the safety snapshot is there leaves the volume as it was; one after it is
//! followed by the swap at the next start. The users that were stopped start again either way.

use std::sync::Arc;

use types::{
    ContainerId, Error, Result, SnapshotId, native,
    volume::{
        Content,
        schedule::{Stamp, stamped},
    },
};

use crate::{
    Engine, Scope,
    containers::Container,
    record::{SnapshotOrigin, SnapshotPhase, SnapshotRecord, VolumePhase},
    volumes::{Volume, must_be_ready},
};

impl Engine {
    /// Makes a volume what one of its snapshots holds. What it was is kept in a safety snapshot,
    /// newer snapshots stay. Running containers that use it are named and the call is refused,
    /// unless `restart` says that they be stopped and started again.
    pub async fn volume_rollback(
        &self,
        scope: &Scope,
        name: &str,
        snapshot: &str,
        restart: bool,
    ) -> Result<native::Rollback> {
        let volume = self.volume_named(scope, name)?;
        let _op = volume.op.lock().await;
        let record = volume.record();
        must_be_ready(&record)?;
        let target = volume.snapshot(snapshot)?;
        let mut users = self.running_users(std::slice::from_ref(&volume));
        users.sort_by_key(|user| user.observed.borrow().state.started_at);
        if !users.is_empty() && !restart {
            let names: Vec<String> = users
                .iter()
                .map(|user| user.record().name.to_string())
                .collect();
            return Err(Error::conflict(format!(
                "volume {name} is in use by running containers: {}; stop them first, or let the rollback stop and start them again (kra volume rollback --restart)",
                names.join(", ")
            )));
        }
        let safety = SnapshotId::random();
        let mut rolling = (*record).clone();
        rolling.phase = VolumePhase::RollingBack {
            to: target.id.clone(),
            safety: safety.clone(),
            restart: users.iter().map(|user| user.id.clone()).collect(),
        };
        self.commit_volume(&volume, rolling).await?;
        let swapped = self.stop_and_swap(&volume, &users, safety).await;
        // Whatever happened: what it comes to is decided by what is recorded.
        let finished = self.finish_rollback(&volume).await;
        let restarted = self.start_again(&users).await;
        let safety = swapped?;
        finished?;
        restarted?;
        self.apply_limit(&volume).await?;
        let facts = [
            ("snapshot", target.name.to_string()),
            ("safety", safety.name.to_string()),
        ];
        self.volume_event(&volume.record(), "rollback", &facts);
        Ok(native::Rollback {
            volume: record.name.clone(),
            snapshot: target.name.clone(),
            safety: safety.name,
            restarted: users.iter().map(|user| attachment(user)).collect(),
        })
    }

    async fn stop_and_swap(
        &self,
        volume: &Arc<Volume>,
        users: &[Arc<Container>],
        safety: SnapshotId,
    ) -> Result<SnapshotRecord> {
        // The last to start is the first to stop.
        for user in users.iter().rev() {
            let name = user.record().name.clone();
            user.restarting
                .store(true, std::sync::atomic::Ordering::SeqCst);
            let stopped = self.stop(user, None, None).await;
            user.restarting
                .store(false, std::sync::atomic::Ordering::SeqCst);
            stopped.map_err(|error| error.context(format_args!("stopping container {name}")))?;
        }
        self.take_safety(volume, safety).await
    }

    async fn take_safety(&self, volume: &Arc<Volume>, id: SnapshotId) -> Result<SnapshotRecord> {
        let record = volume.record();
        let now = types::Time::now();
        let name = (1..)
            .map(|again| stamped(Stamp::Safety, now, again))
            .find(|name| !volume.has_snapshot(name))
            .ok_or_else(|| Error::system("no name is free for a safety snapshot"))?;
        let mut snapshot = SnapshotRecord {
            id,
            volume: volume.id.clone(),
            name,
            created: now,
            origin: SnapshotOrigin::Safety,
            group: String::new(),
            content: record.content,
            phase: SnapshotPhase::Taking,
        };
        self.commit_snapshots(std::slice::from_ref(&snapshot))
            .await?;
        volume.put_snapshot(snapshot.clone());
        let plan = [(record.plan(), snapshot.id.clone())];
        if let Err(error) = self.agent.snapshots_take(&plan, &[]).await {
            self.remove_snapshot_now(volume, &snapshot).await?;
            return Err(error.context("taking the safety snapshot"));
        }
        snapshot.phase = SnapshotPhase::Ready;
        self.commit_snapshots(std::slice::from_ref(&snapshot))
            .await?;
        volume.put_snapshot(snapshot.clone());
        Ok(snapshot)
    }

    /// Brings a rollback that was begun to its end: done if its safety snapshot is there, else
    /// not begun. Gives the containers to start. The caller holds `op`.
    pub(crate) async fn finish_rollback(&self, volume: &Volume) -> Result<Vec<ContainerId>> {
        let mut record = (*volume.record()).clone();
        let VolumePhase::RollingBack {
            to,
            safety,
            restart,
        } = record.phase.clone()
        else {
            return Ok(Vec::new());
        };
        let snapshots = volume.snapshots();
        let is_safe = snapshots.iter().any(|snapshot| snapshot.id == safety);
        if is_safe {
            self.agent.volume_rollback(&record.plan(), &to).await?;
            if let Some(target) = snapshots.iter().find(|snapshot| snapshot.id == to)
                && let (Content::Image { bytes }, Content::Image { bytes: then }) =
                    (record.content, target.content)
            {
                // The volume keeps its size: it never shrinks, and the image was made to fit.
                record.content = Content::Image {
                    bytes: bytes.max(then),
                };
            }
        }
        record.phase = VolumePhase::Ready;
        self.commit_volume(volume, record).await?;
        volume.set_trouble("");
        Ok(restart)
    }

    async fn start_again(&self, users: &[Arc<Container>]) -> Result<()> {
        let mut outcome = Ok(());
        for user in users {
            let started = self.start_stopped(user).await;
            outcome = outcome.and(started);
        }
        outcome
    }

    /// Starts a container that a rollback had stopped, unless it runs or somebody removed it.
    pub(crate) async fn start_stopped(&self, user: &Arc<Container>) -> Result<()> {
        let _op = user.op.lock().await;
        if user.is_running() || *user.removed.borrow() {
            return Ok(());
        }
        let name = user.record().name.clone();
        self.start_locked(user, true).await.map_err(|error| {
            error.context(format_args!(
                "the rollback is done, but container {name} did not start again"
            ))
        })
    }
}

/// A container as the native API shows it beside a volume.
pub(crate) fn attachment(user: &Container) -> native::Attachment {
    native::Attachment {
        id: user.id.clone(),
        name: user.record().name.to_string(),
        running: user.is_running(),
    }
}
