//! Automatic snapshots: taken when they are due, dropped when their time is over.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use types::{
    Result, Time,
    volume::schedule::{self, Automatic},
};

use crate::{
    Engine,
    record::{SnapshotOrigin, VolumePhase},
    volumes::Volume,
};

/// How often schedules are looked at. Times are compared with the clock on the wall each time,
/// so that a clock that jumps is noticed soon.
const PERIOD: Duration = Duration::from_secs(20);
/// Volumes that are looked at at once.
const AT_ONCE: usize = 8;

impl Engine {
    /// Follows the schedules of all volumes until kraud ends.
    pub(crate) async fn keep_schedules(self) {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.is_stopping() {
                return;
            }
            self.tidy_volumes().await;
            let volumes = futures_util::stream::iter(self.volumes.all());
            // A command in a container that takes its time holds up few others.
            volumes
                .for_each_concurrent(AT_ONCE, |volume| {
                    let engine = self.clone();
                    async move { engine.look_at_schedule(&volume).await }
                })
                .await;
        }
    }

    async fn look_at_schedule(&self, volume: &Arc<Volume>) {
        let record = volume.record();
        if record.phase != VolumePhase::Ready {
            return;
        }
        if let Err(error) = self.follow_schedule(volume, Time::now()).await {
            tracing::warn!(volume = %record.name, %error, "the volume's automatic snapshots; the next try is in {} s", PERIOD.as_secs());
        }
    }

    async fn follow_schedule(&self, volume: &Arc<Volume>, now: Time) -> Result<()> {
        let record = volume.record();
        let existing = automatic(volume);
        for period in schedule::due(record.schedule, record.scheduled, &existing, now) {
            let users = self.running_users(std::slice::from_ref(volume));
            self.before_snapshot(&users).await?;
            let taken = self
                .take_snapshots(
                    std::slice::from_ref(volume),
                    None,
                    SnapshotOrigin::Automatic(period),
                )
                .await;
            self.after_snapshot(&users).await;
            taken?;
        }
        // Later than what was taken just now: a snapshot of the future counts as an old one.
        let now = Time::now();
        let all = volume.automatic();
        let existing: Vec<Automatic> = all.iter().map(|(automatic, _)| *automatic).collect();
        for over in schedule::expired(record.schedule, &existing, now) {
            let found = all.iter().find(|(automatic, _)| *automatic == over);
            let Some((_, snapshot)) = found else { continue };
            // One that a container mounts stays until it does not.
            let mounted = self.users_of(&record).iter().any(|user| {
                let mounts = &user.record().mounts;
                mounts.iter().any(|mount| {
                    mount.volume.as_ref() == Some(&record.name)
                        && mount.snapshot.as_ref() == Some(&snapshot.name)
                })
            });
            if !mounted {
                self.drop_snapshot(volume, snapshot).await?;
            }
        }
        Ok(())
    }
}

/// The automatic snapshots of a volume.
pub(crate) fn automatic(volume: &Volume) -> Vec<Automatic> {
    volume
        .automatic()
        .into_iter()
        .map(|(automatic, _)| automatic)
        .collect()
}
