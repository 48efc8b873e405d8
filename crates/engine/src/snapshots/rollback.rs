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
        // One that an error left half done is brought to its end first.
        let left = self.finish_rollback(&volume).await?;
        self.start_left(&volume, &left).await?;
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
        let finished = match swapped {
            Ok(_) => self.finish_rollback(&volume).await.map(drop),
            Err(_) => self.give_up_rollback(&volume).await,
        };
        let finished = match finished {
            Err(error) => Err(self.settle_rollback(&volume, error).await),
            Ok(()) => Ok(()),
        };
        let restarted = self.start_again(&users).await;
        self.started_again(&volume).await;
        if let Err(error) = fault::step("engine.rollback.started") {
            tracing::warn!(%error, "after a rollback");
        }
        let safety = swapped?;
        finished?;
        restarted?;
        self.adjust_limit(&volume).await;
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

    /// Takes a rollback back that has not come to its swap. The caller holds `op`.
    async fn give_up_rollback(&self, volume: &Volume) -> Result<()> {
        let mut record = (*volume.record()).clone();
        record.end_rollback();
        self.commit_volume(volume, record).await
    }

    /// After an error on the node: the live content is what it was or what it should become, and
    /// either is whole if it is there. So the volume can be used, and rolled back again.
    async fn settle_rollback(&self, volume: &Volume, error: Error) -> Error {
        let mut record = (*volume.record()).clone();
        let VolumePhase::RollingBack { safety, .. } = record.phase.clone() else {
            return error;
        };
        let kept = volume.snapshots().into_iter().find(|it| it.id == safety);
        let plan = [record.plan()];
        let is_there = match self.agent.volumes_missing(&plan).await {
            Ok(missing) => missing.is_empty(),
            Err(_) => false,
        };
        if !is_there {
            return error;
        }
        record.end_rollback();
        if let Err(second) = self.commit_volume(volume, record).await {
            tracing::warn!(volume = %volume.record().name, error = %second, "ending a failed rollback; kraud tries again later");
            return error;
        }
        match kept {
            Some(kept) => error.context(format_args!(
                "rolling back; snapshot {} has what the volume was before",
                kept.name
            )),
            None => error,
        }
    }

    /// Starts what a rollback had stopped that was cut off. The caller holds `op`.
    pub(crate) async fn start_left(&self, volume: &Volume, stopped: &[ContainerId]) -> Result<()> {
        let users: Vec<_> = stopped
            .iter()
            .filter_map(|id| self.containers.get(id))
            .collect();
        let started = self.start_again(&users).await;
        self.started_again(volume).await;
        started
    }

    /// Takes note that what a rollback had stopped has been started, as far as it could be.
    pub(crate) async fn started_again(&self, volume: &Volume) {
        let mut record = (*volume.record()).clone();
        if record.restart.is_empty() {
            return;
        }
        record.restart.clear();
        if let Err(error) = self.commit_volume(volume, record).await {
            tracing::warn!(volume = %volume.record().name, %error, "recording that a rollback's containers run again; the next start of kraud starts them if they do not run then");
        }
    }

    async fn stop_and_swap(
        &self,
        volume: &Arc<Volume>,
        users: &[Arc<Container>],
        safety: SnapshotId,
    ) -> Result<SnapshotRecord> {
        fault::step("engine.rollback.recorded")?;
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
        fault::step("engine.rollback.stopped")?;
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
        let taken = async {
            fault::step("engine.rollback.announced")?;
            self.agent.snapshots_take(&plan, &[]).await?;
            fault::step("engine.rollback.taken")?;
            self.commit_ready(std::slice::from_ref(&snapshot)).await
        };
        if let Err(error) = taken.await {
            let volumes = std::slice::from_ref(volume);
            self.undo_snapshots(volumes, std::slice::from_ref(&snapshot))
                .await;
            return Err(error.context("taking the safety snapshot"));
        }
        snapshot.phase = SnapshotPhase::Ready;
        volume.put_snapshot(snapshot.clone());
        Ok(snapshot)
    }

    /// Brings a rollback that was begun to its end: done if its safety snapshot is there, else
    /// not begun. Gives the containers to start. The caller holds `op`.
    pub(crate) async fn finish_rollback(&self, volume: &Volume) -> Result<Vec<ContainerId>> {
        let mut record = (*volume.record()).clone();
        let VolumePhase::RollingBack { to, safety, .. } = record.phase.clone() else {
            return Ok(record.restart);
        };
        let snapshots = volume.snapshots();
        let is_safe = snapshots.iter().any(|snapshot| snapshot.id == safety);
        if is_safe {
            fault::step("engine.rollback.safe")?;
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
        fault::step("engine.rollback.swapped")?;
        record.end_rollback();
        let restart = record.restart.clone();
        self.commit_volume(volume, record).await?;
        volume.set_trouble("");
        if let Err(error) = fault::step("engine.rollback.ready") {
            tracing::warn!(%error, "after a rollback");
        }
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
