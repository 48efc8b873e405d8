//! `docker stats`.

use std::{sync::Arc, time::Duration};

use types::{Result, Time};

use super::Container;
use crate::{Engine, Scope, view::StatsSample};

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Samples of one container, one a second.
pub struct StatsStream {
    engine: Engine,
    container: Arc<Container>,
    taken: u64,
}

impl Engine {
    /// Samples of what a container uses, from now on.
    pub fn container_stats(&self, scope: &Scope, name: &str) -> Result<StatsStream> {
        let container = self.container(scope, name)?;
        Ok(StatsStream {
            engine: self.clone(),
            container,
            taken: 0,
        })
    }
}

impl StatsStream {
    /// The next sample: the first at once, the others a second apart. `None` once the
    /// container is removed. Without `stats` while it does not run.
    pub async fn next(&mut self) -> Option<StatsSample> {
        let mut removed = self.container.removed.subscribe();
        if self.taken > 0 {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _ = removed.wait_for(|removed| *removed) => {}
            }
        }
        if *removed.borrow() {
            return None;
        }
        self.taken += 1;
        let mut sample = StatsSample {
            id: self.container.id.clone(),
            name: self.container.record().name.to_string(),
            read: Time::now(),
            stats: None,
            networks: Vec::new(),
        };
        if self.container.is_running()
            && let Ok((stats, networks)) = self.engine.agent.stats(&self.container.id).await
        {
            sample.stats = Some(stats);
            sample.networks = networks;
        }
        Some(sample)
    }
}
