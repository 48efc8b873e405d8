//! Removing containers.
//!
//! The deletion of the record is the moment of removal: before it the container is whole
//! again after a crash, and after it the next start removes whatever files are left.

use std::sync::Arc;

use store::Txn;
use types::{Error, Filters, Result, Time, VolumeName, state::Status};

use super::Container;
use crate::{Engine, Scope, record::key, request::RemoveRequest, view::Pruned};

impl Engine {
    /// Removes a container; a running one only by force.
    pub async fn container_remove(
        &self,
        scope: &Scope,
        name: &str,
        request: RemoveRequest,
    ) -> Result<()> {
        let container = self.container(scope, name)?;
        let record = container.record();
        match container.status() {
            Status::Running | Status::Paused | Status::Restarting if !request.force => {
                let (state, remedy) = match container.status() {
                    Status::Paused => ("paused", "and must be unpaused first"),
                    Status::Restarting => (
                        "restarting",
                        "stop the container before removing or force remove",
                    ),
                    _ => (
                        "running",
                        "stop the container before removing or force remove",
                    ),
                };
                let joint = if state == "paused" { " " } else { ": " };
                return Err(Error::conflict(format!(
                    "cannot remove container \"/{}\": container is {state}{joint}{remedy}",
                    record.name
                )));
            }
            Status::Removing if !request.force => {
                return Err(Error::conflict(format!(
                    "removal of container {name} is already in progress"
                )));
            }
            Status::Restarting => {
                self.desire(&container, |record| {
                    record.desired = types::state::Desired::Stopped
                })
                .await?;
                // It may have come up again in this very moment.
                if !self.end_restarting(&container).await && container.is_running() {
                    self.kill_and_wait(&container).await?;
                }
            }
            Status::Running | Status::Paused => {
                self.desire(&container, |record| {
                    record.desired = types::state::Desired::Stopped
                })
                .await?;
                self.kill_and_wait(&container).await?;
            }
            _ => {}
        }
        self.remove(&container, request.volumes).await
    }

    /// Removes a container that does not run. Does nothing when somebody was faster.
    pub(super) async fn remove(&self, container: &Arc<Container>, volumes: bool) -> Result<()> {
        let _op = container.op.lock().await;
        if *container.removed.borrow() {
            return Ok(());
        }
        if container.is_running() {
            return Err(Error::conflict(format!(
                "container {} was started while it was being removed",
                container.id
            )));
        }
        let before = container.status();
        container
            .observed
            .send_modify(|observed| observed.state.status = Status::Removing);
        let removed = self.remove_locked(container, volumes).await;
        if let Err(error) = removed {
            container
                .observed
                .send_modify(|observed| observed.state.status = before);
            return Err(error.context(format_args!("removing container {}", container.id)));
        }
        self.execs.forget_all(&container.id);
        self.container_event(container, "destroy", &[]);
        container.removed.send_replace(true);
        Ok(())
    }

    async fn remove_locked(&self, container: &Arc<Container>, volumes: bool) -> Result<()> {
        self.agent.release(&container.id).await?;
        self.writer
            .forget(key::state(&container.namespace, &container.id))
            .await;
        let orphans = if volumes {
            self.only_volumes_of(container)
        } else {
            Vec::new()
        };
        let txn = Txn::new()
            .delete(key::name(&container.namespace, &container.record().name))
            .delete_prefix(format!(
                "ns/{}/containers/{}/",
                container.namespace, container.id
            ));
        let (txn, orphans) = self
            .volumes_to_remove(&container.namespace, &orphans, txn)
            .await?;
        self.store.commit(txn).await?;
        self.containers.forget(container);
        if let Err(error) = self.agent.destroy(&container.id).await {
            tracing::warn!(id = %container.id, %error, "the files of a removed container are still there; the next start of kraud removes them");
        }
        for volume in &orphans {
            self.volume_gone(volume).await;
        }
        Ok(())
    }

    /// The volumes without a name that were made for this container and that no other uses.
    fn only_volumes_of(&self, container: &Container) -> Vec<VolumeName> {
        let record = container.record();
        let own = record
            .mounts
            .iter()
            .filter(|mount| mount.origin != "volumes-from");
        own.filter_map(|mount| mount.volume.clone())
            .filter(|name| self.is_only_user(container, name))
            .collect()
    }

    /// The end of an AutoRemove container.
    pub(super) async fn remove_after_exit(&self, container: &Arc<Container>) {
        if let Err(error) = self.remove(container, true).await {
            tracing::warn!(id = %container.id, %error, "an AutoRemove container could not be removed");
        }
    }

    /// Removes all containers that do not run.
    pub async fn container_prune(&self, scope: &Scope, filters: &Filters) -> Result<Pruned> {
        filters.only(&["label", "label!", "until"])?;
        let until = crate::system::until(filters)?;
        let mut pruned = Pruned::default();
        for container in self.containers.of(&scope.namespace) {
            let record = container.record();
            let label = |name: &str| {
                record
                    .config
                    .labels
                    .as_ref()
                    .and_then(|labels| labels.get(name))
                    .map(String::as_str)
            };
            let old_enough = until.is_none_or(|until: Time| record.created < until);
            if container.is_running() || !old_enough || !crate::system::labels_pass(filters, label)
            {
                continue;
            }
            let size = self.agent.size_rw(&container.id).await.unwrap_or(0);
            match self.remove(&container, false).await {
                Ok(()) => {
                    pruned.deleted.push(container.id.to_string());
                    pruned.space_reclaimed += size;
                }
                Err(error) => tracing::warn!(id = %container.id, %error, "pruning a container"),
            }
        }
        self.prune_event(scope, "container", pruned.space_reclaimed);
        Ok(pruned)
    }
}
