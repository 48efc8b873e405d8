//! Waiting for a container to end.

use std::sync::Arc;

use types::Result;

use super::Container;
use crate::{Engine, Scope, request::WaitCondition, view::WaitOutcome};

/// A wait that has been registered: whatever happens from now on is seen by it.
pub struct Waiter {
    container: Arc<Container>,
    condition: WaitCondition,
    exits_before: u64,
    observed: tokio::sync::watch::Receiver<crate::record::ObservedRecord>,
    removed: tokio::sync::watch::Receiver<bool>,
}

impl Engine {
    /// Registers a wait. Fails only when there is no such container.
    pub fn container_wait(
        &self,
        scope: &Scope,
        name: &str,
        condition: WaitCondition,
    ) -> Result<Waiter> {
        let container = self.container(scope, name)?;
        let observed = container.observed.subscribe();
        let removed = container.removed.subscribe();
        let exits_before = observed.borrow().exits;
        Ok(Waiter {
            container,
            condition,
            exits_before,
            observed,
            removed,
        })
    }
}

impl Waiter {
    /// Waits until the condition holds.
    pub async fn outcome(mut self) -> WaitOutcome {
        let before = self.exits_before;
        match self.condition {
            WaitCondition::NotRunning => {
                // One that its restart policy starts again has not been running in between.
                self.until(|observed| !observed.state.is_running() || observed.exits > before)
                    .await;
            }
            WaitCondition::NextExit => {
                self.until(|observed| observed.exits > before).await;
            }
            WaitCondition::Removed => {
                let _ = self.removed.wait_for(|removed| *removed).await;
            }
        }
        let observed = self.container.observed.borrow();
        // One that is removed has been told why it could not start by the start itself.
        let is_told = self.condition == WaitCondition::Removed;
        let error = Some(observed.state.error.clone()).filter(|text| !text.is_empty() && !is_told);
        WaitOutcome {
            exit_code: observed.state.exit_code.into(),
            error,
        }
    }

    async fn until(&mut self, holds: impl Fn(&crate::record::ObservedRecord) -> bool) {
        // A container that is removed does not exit any more.
        tokio::select! {
            _ = self.observed.wait_for(|observed| holds(observed)) => {}
            _ = self.removed.wait_for(|removed| *removed) => {}
        }
    }
}
