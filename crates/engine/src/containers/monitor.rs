//! What happens when a process ends, and what the restart policy makes of it.
//!
//! ```text
//!  agent: Exited --> release (network, mounts) --> policy --+--> Restarting --pause--> start
//!                                                           +--> Exited --> AutoRemove: gone
//! ```

use std::{sync::Arc, time::Duration};

use agent::{AgentEvent, Exit, Observed};
use types::{
    Result, Time,
    container::RestartPolicy,
    state::{Desired, Status},
};

use super::Container;
use crate::Engine;

/// The pause before the first restart; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A run this long makes the next pause the first again.
const STEADY: Duration = Duration::from_secs(10);

/// A start was answered, and what was seen of it had not come to the disk before the power went. (A start that failed
/// is on record, too, but with its error.)
fn was_starting(container: &Container) -> bool {
    let state = &container.observed.borrow().state;
    state.status == Status::Created
        && state.error.is_empty()
        && container.record().desired == Desired::Running
}

/// Whether the policy wants another run after an exit that nobody asked for.
fn wants_restart(policy: &RestartPolicy, desired: Desired, exit_code: i32, restarts: u32) -> bool {
    if desired != Desired::Running {
        return false;
    }
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            exit_code != 0
                && (policy.maximum_retry_count == 0
                    || i64::from(restarts) < policy.maximum_retry_count)
        }
        _ => false,
    }
}

/// Whether the policy wants the container running after a start of the daemon.
fn wants_start(policy: &RestartPolicy, desired: Desired, exit_code: i32, restarts: u32) -> bool {
    policy.name == "always" || wants_restart(policy, desired, exit_code, restarts)
}

impl Engine {
    /// Finds out what became of every container while nobody looked, and goes on from there.
    pub(crate) async fn recover(&self) -> Result<()> {
        let containers = self.containers.all();
        // Before anything of a container is looked at: its volumes are on the pools.
        self.open_pools().await;
        let plans: Vec<_> = containers
            .iter()
            .map(|container| self.plan_to_adopt(&container.record()))
            .collect::<Result<_>>()?;
        let found = self.agent.adopt(&plans).await?;
        for (id, observed) in found {
            let Some(container) = self.containers.get(&id) else {
                continue;
            };
            self.take_up(&container, observed);
        }
        self.publish_all_names().await;
        let stopped_for_rollback = self.recover_volumes().await?;
        self.networks.after_recovery(self);
        if let Some(events) = self.agent.events() {
            tokio::spawn(self.clone().follow(events));
        }
        let (rolled_back, others): (Vec<_>, Vec<_>) = containers
            .into_iter()
            .partition(|container| stopped_for_rollback.contains(&container.id));
        for container in others {
            tokio::spawn(self.clone().resume(container));
        }
        tokio::spawn(
            self.clone()
                .resume_rolled_back(rolled_back, stopped_for_rollback),
        );
        tokio::spawn(self.clone().keep_schedules());
        Ok(())
    }

    /// Brings the observed state in line with what the agent found.
    fn take_up(&self, container: &Container, found: Observed) {
        match found {
            Observed::Running {
                pid,
                paused,
                ports,
                sandbox_key,
                endpoints,
            } => {
                self.reserve(container, &endpoints);
                // Frozen, and not because somebody asked for it: a commit was cut short.
                let stray = paused && container.status() != Status::Paused;
                if stray {
                    self.thaw_stray(&container.id);
                }
                let paused = paused && !stray;
                self.observe(container, |observed| {
                    observed.state.status = if paused {
                        Status::Paused
                    } else {
                        Status::Running
                    };
                    observed.state.pid = pid;
                    if observed.state.started_at.is_zero() {
                        observed.state.started_at = Time::now();
                    }
                    if observed.endpoints.is_empty() {
                        observed.endpoints = self.settings_of(container, &endpoints);
                    }
                    observed.ports = ports;
                    observed.sandbox_key = sandbox_key;
                });
                self.watch_health(container);
            }
            Observed::Exited(exit)
                if container.is_running() || container.status() == Status::Created =>
            {
                self.record_exit(container, &exit, Status::Exited);
            }
            // Nobody saw it end: the machine went down under it.
            Observed::Gone if container.is_running() || was_starting(container) => {
                let exit = Exit {
                    code: 255,
                    oom_killed: false,
                    at: Time::now(),
                };
                self.record_exit(container, &exit, Status::Exited);
            }
            Observed::Exited(_) | Observed::Gone => {}
        }
    }

    fn thaw_stray(&self, id: &types::ContainerId) {
        let (engine, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            if let Err(error) = engine.agent.set_paused(&id, false).await {
                tracing::warn!(%id, %error, "a container that a cut-off commit had frozen could not be thawed; docker unpause it");
            }
        });
    }

    /// Takes up the work on one container after a start of the daemon.
    async fn resume(self, container: Arc<Container>) {
        let record = container.record();
        if container.is_running() && container.status() != Status::Restarting {
            return;
        }
        let state = container.observed.borrow().state.clone();
        let never_ran = state.status == Status::Created && state.started_at.is_zero();
        if never_ran {
            self.finish_create(&container).await;
        }
        if !never_ran
            && wants_start(
                &record.host.restart_policy,
                record.desired,
                state.exit_code,
                state.restart_count,
            )
        {
            let op = container.op.lock().await;
            let started = self.start_locked(&container, false).await;
            drop(op);
            if let Err(error) = started {
                tracing::warn!(id = %container.id, %error, "the start that the restart policy wants failed; docker start tries again");
            }
        } else if record.host.auto_remove && state.status == Status::Exited {
            self.remove_after_exit(&container).await;
        }
    }

    /// Starts what a rollback had stopped when the daemon ended, in the order that it had.
    async fn resume_rolled_back(
        self,
        mut containers: Vec<Arc<Container>>,
        order: Vec<types::ContainerId>,
    ) {
        containers.sort_by_key(|container| order.iter().position(|id| *id == container.id));
        for container in containers {
            if let Err(error) = self.start_stopped(&container).await {
                tracing::warn!(id = %container.id, %error, "a container that a rollback had stopped");
            }
        }
        let noted = |volume: &Arc<crate::volumes::Volume>| !volume.record().restart.is_empty();
        for volume in self.volumes.all().into_iter().filter(noted) {
            let _op = volume.op.lock().await;
            self.started_again(&volume).await;
        }
    }

    /// A crash may have come between a create's record and its files.
    async fn finish_create(&self, container: &Container) {
        let _op = container.op.lock().await;
        let made = match self.plan(&container.record()) {
            Ok(plan) => self.agent.create(&plan).await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            tracing::warn!(id = %container.id, %error, "the create of a container could not be finished; remove it and create it again");
        }
    }

    async fn follow(self, mut events: tokio::sync::mpsc::UnboundedReceiver<AgentEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                AgentEvent::Exited { id, exit } => {
                    if let Some(container) = self.containers.get(&id) {
                        // Each exit on its own: a slow clean-up holds up nobody else.
                        tokio::spawn(self.clone().exited(container, exit));
                    }
                }
                AgentEvent::ExecExited { id, exec, exit } => self.exec_exited(&id, &exec, &exit),
                AgentEvent::Pressure(pressure) => {
                    let engine = self.clone();
                    tokio::spawn(async move { engine.relieve(pressure).await });
                }
            }
        }
    }

    /// The first process of a container has ended.
    async fn exited(self, container: Arc<Container>, exit: Exit) {
        let op = container.op.lock().await;
        if !matches!(container.status(), Status::Running | Status::Paused) {
            return;
        }
        self.stop_health(&container);
        self.execs.end_all(&container.id);
        if let Err(error) = self.agent.release(&container.id).await {
            tracing::warn!(id = %container.id, %error, "giving back what an ended container had; the next start of kraud tries again");
        }
        self.disconnect(&container).await;
        self.mount_events(&container, false);
        let record = container.record();
        let state = container.observed.borrow().state.clone();
        // Read before the exit shows: `docker restart` takes its mark back as soon as it does.
        let restarted_by_user = container
            .restarting
            .load(std::sync::atomic::Ordering::SeqCst);
        let restart = !self.is_stopping()
            && wants_restart(
                &record.host.restart_policy,
                record.desired,
                exit.code,
                state.restart_count,
            );
        self.record_exit(
            &container,
            &exit,
            if restart {
                Status::Restarting
            } else {
                Status::Exited
            },
        );
        let ran = exit.at.since(state.started_at);
        if exit.oom_killed {
            self.container_event(&container, "oom", &[]);
        }
        self.container_event(
            &container,
            "die",
            &[
                ("exitCode", exit.code.to_string()),
                ("execDuration", ran.as_secs().to_string()),
            ],
        );
        drop(op);
        if restart {
            let pause = next_pause(&container, ran);
            tracing::info!(id = %container.id, code = exit.code, ?pause, "a container ended and starts again");
            tokio::spawn(self.clone().restart_later(container, pause));
        } else if record.host.auto_remove && !restarted_by_user {
            self.remove_after_exit(&container).await;
        }
    }

    fn record_exit(&self, container: &Container, exit: &Exit, status: Status) {
        self.observe(container, |observed| {
            observed.state.status = status;
            observed.state.pid = 0;
            observed.state.exit_code = exit.code;
            observed.state.oom_killed = exit.oom_killed;
            observed.state.finished_at = exit.at;
            observed.endpoints.clear();
            observed.ports.clear();
            observed.sandbox_key.clear();
            observed.exits += 1;
        });
    }

    /// Starts the container again after the policy's pause, unless somebody stopped it.
    async fn restart_later(self, container: Arc<Container>, mut pause: Duration) {
        loop {
            let mut observed = container.observed.subscribe();
            let ended = observed.wait_for(|observed| observed.state.status != Status::Restarting);
            if tokio::time::timeout(pause, ended).await.is_ok() || self.is_stopping() {
                return;
            }
            let _op = container.op.lock().await;
            if container.status() != Status::Restarting {
                return;
            }
            if self.start_locked(&container, false).await.is_ok() {
                return;
            }
            let (record, state) = (
                container.record(),
                container.observed.borrow().state.clone(),
            );
            if !wants_restart(
                &record.host.restart_policy,
                record.desired,
                state.exit_code.max(1),
                state.restart_count,
            ) {
                return;
            }
            self.observe(&container, |observed| {
                observed.state.status = Status::Restarting;
                observed.state.restart_count += 1;
            });
            pause = next_pause(&container, Duration::ZERO);
        }
    }
}

fn next_pause(container: &Container, ran: Duration) -> Duration {
    let mut pause = container
        .backoff
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    *pause = if ran >= STEADY || pause.is_zero() {
        FIRST_PAUSE
    } else {
        (*pause * 2).min(LONGEST_PAUSE)
    };
    *pause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let policy = |name: &str, tries| RestartPolicy {
            name: name.into(),
            maximum_retry_count: tries,
        };
        let run = Desired::Running;
        assert!(wants_restart(&policy("always", 0), run, 0, 99));
        assert!(!wants_restart(&policy("always", 0), Desired::Stopped, 0, 0));
        assert!(wants_start(&policy("always", 0), Desired::Stopped, 0, 0));
        assert!(!wants_start(
            &policy("unless-stopped", 0),
            Desired::Stopped,
            0,
            0
        ));
        assert!(wants_restart(&policy("on-failure", 2), run, 1, 1));
        assert!(!wants_restart(&policy("on-failure", 2), run, 1, 2));
        assert!(!wants_restart(&policy("on-failure", 0), run, 0, 0));
        assert!(!wants_restart(&policy("no", 0), run, 1, 0));
    }
}
