//! Changing the limits and the restart policy of a container.

use types::{Error, Result, container::Resources};

use super::{support, validate};
use crate::{Engine, Scope, request::UpdateRequest};

impl Engine {
    /// Changes limits, now and for later runs; returns warnings.
    pub async fn container_update(
        &self,
        scope: &Scope,
        name: &str,
        request: UpdateRequest,
    ) -> Result<Vec<String>> {
        let container = self.container(scope, name)?;
        crate::tenants::policy::resources(scope, &request.resources)?;
        self.limits_fit(&scope.namespace, &request.resources)?;
        if let Some(policy) = &request.restart_policy {
            validate::restart_policy(policy)?;
            let restarts = !matches!(policy.name.as_str(), "" | "no");
            if restarts && container.record().host.auto_remove {
                return Err(Error::invalid(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
        }
        let _op = container.op.lock().await;
        let mut resources = container.record().host.resources.clone();
        merge(&mut resources, &request.resources);
        let mut warnings = Vec::new();
        let node = self.node().await?;
        validate::resources(&mut resources, node.cpus, &mut warnings)?;
        support::resources(&mut resources, &node, &mut warnings)?;
        if request.resources.pids_limit.is_some_and(|limit| limit <= 0) {
            // A limit that is lifted is shown as 0, unlike one that never was; and it has to reach the kernel.
            resources.pids_limit = Some(0);
        }
        if container.is_running() {
            self.agent.update(&container.id, &resources).await?;
        }
        self.desire(&container, |record| {
            record.host.resources = resources;
            if let Some(policy) = request
                .restart_policy
                .filter(|policy| !policy.name.is_empty())
            {
                record.host.restart_policy = policy;
            }
        })
        .await?;
        self.container_event(&container, "update", &[]);
        Ok(warnings)
    }
}

/// Takes over every limit that the update names; zero means "not given".
fn merge(own: &mut Resources, new: &Resources) {
    if new.nano_cpus != 0 {
        (own.cpu_period, own.cpu_quota) = (0, 0);
    }
    if new.cpu_period != 0 || new.cpu_quota != 0 {
        own.nano_cpus = 0;
    }
    take(&mut own.cpu_shares, &new.cpu_shares);
    take(&mut own.nano_cpus, &new.nano_cpus);
    take(&mut own.cpu_period, &new.cpu_period);
    take(&mut own.cpu_quota, &new.cpu_quota);
    take(&mut own.cpu_realtime_period, &new.cpu_realtime_period);
    take(&mut own.cpu_realtime_runtime, &new.cpu_realtime_runtime);
    take(&mut own.cpuset_cpus, &new.cpuset_cpus);
    take(&mut own.cpuset_mems, &new.cpuset_mems);
    take(&mut own.memory, &new.memory);
    take(&mut own.memory_swap, &new.memory_swap);
    take(&mut own.memory_reservation, &new.memory_reservation);
    take(&mut own.blkio_weight, &new.blkio_weight);
    take(&mut own.pids_limit, &new.pids_limit);
    take(&mut own.memory_swappiness, &new.memory_swappiness);
    take(&mut own.oom_kill_disable, &new.oom_kill_disable);
}

fn take<T: Default + PartialEq + Clone>(own: &mut T, given: &T) {
    if *given != T::default() {
        own.clone_from(given);
    }
}
