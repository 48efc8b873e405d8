//! After a start of the daemon: what lives is taken over, what nobody knows is removed.

use std::{collections::HashSet, fs, sync::Arc};

use runtime::Inspected;
use types::{ContainerId, Result, error::ResultExt as _};

use super::{
    Live, LocalAgent, at, blocking,
    networks::{links, port_map, target},
    start::StartedPlan,
};
use crate::{Exit, NodeAgent as _, Observed, Plan, SandboxPlan};

impl LocalAgent {
    pub(super) async fn adopt_all(&self, plans: &[Plan]) -> Result<Vec<(ContainerId, Observed)>> {
        let mut found = Vec::new();
        let mut living = Vec::new();
        for plan in plans {
            let observed = match self
                .runtime
                .inspect(&plan.id, &self.state_dir(&plan.id))
                .await?
            {
                Inspected::Alive { pid } => match self.started_plan(&plan.id).await? {
                    Some(started) => {
                        living.push(started.clone());
                        self.take_over(&plan.id, pid, started).await
                    }
                    // Killed between the run's preparation and its bookkeeping: not ours to guess.
                    None => Observed::Gone,
                },
                Inspected::Exited(exit) => Observed::Exited(Exit {
                    code: exit.code,
                    oom_killed: exit.oom,
                    at: at(exit.finished_at),
                }),
                Inspected::Unknown => Observed::Gone,
            };
            found.push((plan.id.clone(), observed));
        }
        self.remove_strangers(plans, &living).await?;
        let volumes = self.volumes.clone();
        blocking(move || volumes.settle()).await?;
        Ok(found)
    }

    pub(super) async fn started_plan(&self, id: &ContainerId) -> Result<Option<StartedPlan>> {
        let file = self.plan_file(id);
        blocking(move || match fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(types::Error::wrap(
                format_args!("reading {}", file.display()),
                error,
            )),
            // Cut off by a crash: as good as missing.
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        })
        .await
    }

    async fn take_over(&self, id: &ContainerId, pid: i32, started: StartedPlan) -> Observed {
        let plan = Arc::new(started.plan);
        self.lives().insert(
            id.clone(),
            Live {
                plan: plan.clone(),
                pid,
            },
        );
        self.watch(id.clone());
        let (agent, adopted) = (self.clone(), plan.clone());
        let _ = blocking(move || {
            agent.adopt_volumes(&adopted);
            Ok(())
        })
        .await;
        let endpoints = match &plan.network {
            SandboxPlan::Own { endpoints, .. } => endpoints.clone(),
            _ => Vec::new(),
        };
        Observed::Running {
            pid,
            paused: self.runtime.is_paused(id).await.unwrap_or(false),
            ports: port_map(&started.ports),
            sandbox_key: self.sandbox_key(&plan),
            endpoints,
        }
    }

    /// Removes whatever belongs to no container that should exist or run.
    async fn remove_strangers(&self, plans: &[Plan], living: &[StartedPlan]) -> Result<()> {
        let running: HashSet<ContainerId> = living
            .iter()
            .map(|started| started.plan.id.clone())
            .collect();
        let known: HashSet<ContainerId> = plans.iter().map(|plan| plan.id.clone()).collect();
        let mut dead: HashSet<ContainerId> = self.runtime.list().await?.into_iter().collect();
        for dir in [
            self.run_dir.join("plans"),
            self.run_dir.join("shm"),
            self.run_dir.join("users"),
            self.data_dir.join("containers"),
        ] {
            dead.extend(listed(&dir)?);
        }
        dead.retain(|id| !running.contains(id));
        let mut live = Vec::new();
        for started in living {
            live.push(live_network(started)?);
        }
        let report = self.networks.reconcile(&live).await?;
        for (id, port, reason) in report.failed_ports {
            tracing::warn!(%id, ?port, reason, "a published port could not be taken up again for local clients");
        }
        for started in living {
            if let Err(error) = self.serve_names_again(&started.plan).await {
                tracing::warn!(id = %started.plan.id, %error, "a container is without names until it starts again");
            }
        }
        for id in dead {
            self.release_container(&id).await?;
            if !known.contains(&id) {
                tracing::info!(%id, "removing what is left of a container without a record");
                self.destroy(&id).await?;
            }
        }
        Ok(())
    }
}

/// Ids among the names in a directory, with or without an ending.
fn listed(dir: &std::path::Path) -> Result<Vec<ContainerId>> {
    let entries = fs::read_dir(dir).during(|| format!("listing {}", dir.display()))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.split('.').next()?.parse().ok())
        .collect())
}

fn live_network(started: &StartedPlan) -> Result<network::Live> {
    let plan = &started.plan;
    let (endpoints, published) = match &plan.network {
        SandboxPlan::Own { endpoints, .. } => {
            let target = target(plan, endpoints).filter(|_| !started.ports.is_empty());
            let published = target.map(|target| (target, started.ports.clone()));
            (links(endpoints)?, published)
        }
        _ => (Vec::new(), None),
    };
    Ok(network::Live {
        id: plan.id.clone(),
        endpoints,
        published,
    })
}
