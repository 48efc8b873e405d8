//! Starting containers.

use std::{sync::atomic::Ordering, time::Duration};

use agent::StartError;
use types::{
    ContainerId, Error, Kind, Result, Time,
    state::{ContainerState, Desired, Status},
};

use super::Container;
use crate::{Engine, Scope};

impl Engine {
    /// Starts a container. [`Kind::NotModified`] when it runs already.
    pub async fn container_start(&self, scope: &Scope, name: &str) -> Result<()> {
        let container = self.container(scope, name)?;
        let _op = container.op.lock().await;
        match container.status() {
            Status::Running => {
                return Err(Error::not_modified(format!(
                    "container {} is already started",
                    container.id
                )));
            }
            Status::Paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Status::Removing | Status::Dead => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            Status::Created | Status::Exited | Status::Restarting => {}
        }
        *container
            .backoff
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Duration::ZERO;
        let result = self.start_locked(&container, true).await;
        if result.is_err() && container.record().host.auto_remove {
            drop(_op);
            self.remove_after_exit(&container).await;
        }
        result
    }

    /// Starts a container whose `op` lock the caller holds.
    pub(crate) async fn start_locked(&self, container: &Container, by_user: bool) -> Result<()> {
        let started = self.try_start(container, by_user).await;
        if let Err(failure) = &started {
            tracing::info!(id = %container.id, error = %failure.error, "a container could not be started");
            if failure.connected {
                self.disconnect(container).await;
            } else {
                self.give_back(container).await;
            }
            if let Err(error) = self.agent.release(&container.id).await {
                tracing::warn!(id = %container.id, %error, "giving back what a failed start had taken");
            }
            self.observe(container, |observed| {
                // One that has never run stays `created`, as in docker.
                if observed.state.status != Status::Created {
                    observed.state.status = Status::Exited;
                }
                observed.state.exit_code = failure.exit_code;
                observed.state.error = failure.error.message.clone();
                observed.state.pid = 0;
                observed.exits += 1;
            });
        }
        started.map_err(|failure| failure.error)
    }

    /// Tells listeners that the volumes of a container are in use from now on, or no more.
    pub(super) fn mount_events(&self, container: &Container, mounted: bool) {
        for mount in &container.record().mounts {
            let Some(name) = &mount.volume else { continue };
            let mut attributes = std::collections::BTreeMap::from([
                ("driver".to_owned(), mount.driver.clone()),
                ("container".to_owned(), container.id.to_string()),
            ]);
            if mounted {
                attributes.insert("destination".into(), mount.target.clone());
                attributes.insert("read/write".into(), mount.writable.to_string());
                attributes.insert("propagation".into(), mount.propagation.clone());
            }
            let action = if mounted { "mount" } else { "unmount" };
            self.events.publish(
                &container.namespace,
                "volume",
                action,
                name.as_str(),
                attributes,
            );
        }
    }

    async fn try_start(&self, container: &Container, by_user: bool) -> Result<(), StartError> {
        let record = container.record();
        let failed = |error: Error| StartError {
            connected: false,
            ..StartError::from(error)
        };
        self.sources_run(&record).map_err(failed)?;
        self.links_run(&record).map_err(failed)?;
        let _turn = self.room_for_ports(&record).await.map_err(failed)?;
        let allocated = self
            .connect(container, &record)
            .map_err(|error| failed(error.context("failed to set up container networking")))?;
        // Before it runs: it may ask for its own name first of all.
        self.publish_names(
            &container.namespace,
            allocated.iter().map(|one| one.name.clone()).collect(),
        )
        .await;
        let plan = self.plan_connected(&record, &allocated).map_err(failed)?;
        let hold = container.early_attaches.load(Ordering::SeqCst) > 0;
        container.starting.send_modify(|count| *count += 1);
        // What the user wants is on disk by the time that the start is answered; the
        // node is not kept waiting for it.
        let (desired, started) = tokio::join!(
            async {
                if by_user && record.desired != Desired::Running {
                    self.desire(container, |record| record.desired = Desired::Running)
                        .await
                } else {
                    Ok(())
                }
            },
            self.agent.start(&plan, hold)
        );
        if !matches!(&started, Err(failure) if !failure.connected) {
            for one in &allocated {
                self.network_event(container, "connect", one);
            }
        }
        let started = started?;
        desired?;
        self.mount_events(container, true);
        let first_health = self.first_health(&record);
        self.observe(container, |observed| {
            observed.state = ContainerState {
                status: Status::Running,
                pid: started.pid,
                started_at: Time::now(),
                finished_at: observed.state.finished_at,
                restart_count: if by_user {
                    0
                } else {
                    observed.state.restart_count + 1
                },
                health: first_health,
                ..ContainerState::default()
            };
            observed.endpoints = allocated
                .iter()
                .map(|one| (one.name.clone(), one.settings.clone()))
                .collect();
            observed.ports = started.ports;
            observed.sandbox_key = started.sandbox_key;
        });
        self.container_event(container, "start", &[]);
        self.watch_health(container);
        Ok(())
    }

    /// Whether the containers whose namespaces this one joins run.
    fn sources_run(&self, record: &crate::record::ContainerRecord) -> Result<()> {
        for (mode, what) in [
            (&record.host.network_mode, "network"),
            (&record.host.pid_mode, "PID"),
            (&record.host.ipc_mode, "IPC"),
        ] {
            let Some(id) = mode.strip_prefix("container:") else {
                continue;
            };
            let other = id
                .parse::<ContainerId>()
                .ok()
                .and_then(|id| self.containers.get(&id));
            match other {
                None => return Err(Error::not_found(format!("No such container: {id}"))),
                Some(other) if !other.is_running() => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!(
                            "cannot join {what} namespace of a non running container: container {id} is {}",
                            other.status().as_str()
                        ),
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
