//! Exec sessions.

use runtime::{ExecLaunch, Inspected, Stdio, bundle::ExecInput};
use types::{ContainerId, Error, ExecId, Result};

use super::{LocalAgent, at, start, streams::pump};
use crate::{AgentEvent, AttachTo, Attached, ExecPlan, Exit, StartError};

impl LocalAgent {
    pub(super) async fn exec_container(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        plan: &ExecPlan,
        attach: Option<AttachTo>,
    ) -> Result<(i32, Option<Attached>), StartError> {
        let launch = self.exec_launch(id, exec, plan, attach.is_some()).await?;
        let starting = self.runtime.exec(id, launch);
        let (started, attached) = match attach {
            None => (starting.await, None),
            Some(to) => {
                let (started, attached) =
                    tokio::join!(starting, self.runtime.exec_attach(id, exec, to.into()));
                (started, Some((to, attached)))
            }
        };
        let started = started.map_err(start::start_error)?;
        let attached = match attached {
            None => None,
            Some((to, attachment)) => Some(pump(attachment.map_err(Error::from)?, plan.tty, to)),
        };
        self.watch_exec(id.clone(), exec.clone());
        Ok((started.pid, attached))
    }

    async fn exec_launch(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        plan: &ExecPlan,
        wait_attach: bool,
    ) -> Result<ExecLaunch, StartError> {
        let container = self
            .live(id)
            .ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
        let spec = if plan.user.is_empty() {
            container.config.user.clone()
        } else {
            plan.user.clone()
        };
        let groups = container.host.group_add.clone().unwrap_or_default();
        let merged = self.root_of(&container);
        let user =
            tokio::task::spawn_blocking(move || runtime::user::resolve(&merged, &spec, &groups))
                .await
                .map_err(|error| StartError::from(Error::wrap("resolving a user", error)))?
                .map_err(|error| StartError::new(126, error.into()))?;
        let console_size = plan.console_size.and_then(start::console_size);
        let process = runtime::bundle::exec_process(&ExecInput {
            config: &container.config,
            host: &container.host,
            hostname: &container.hostname,
            args: &plan.command,
            env: &plan.env,
            working_dir: &plan.working_dir,
            user: &user,
            tty: plan.tty,
            privileged: plan.privileged,
            console_size,
        })
        .map_err(Error::from)?;
        let stdio = Stdio {
            tty: plan.tty,
            open_stdin: plan.stdin,
            stdin_once: true,
            console_size,
            owner: container.ids().map(|ids| (ids.first, ids.first)),
        };
        Ok(ExecLaunch {
            exec: exec.clone(),
            process,
            stdio,
            wait_attach,
        })
    }

    fn watch_exec(&self, id: ContainerId, exec: ExecId) {
        let agent = self.clone();
        tokio::spawn(async move {
            let exit = match agent.runtime.exec_wait(&id, &exec).await {
                Ok(exit) => Exit {
                    code: exit.code,
                    oom_killed: exit.oom,
                    at: at(exit.finished_at),
                },
                Err(_) => Exit {
                    code: 137,
                    oom_killed: false,
                    at: types::Time::now(),
                },
            };
            let _ = agent.events.send(AgentEvent::ExecExited { id, exec, exit });
        });
    }

    pub(super) async fn exec_ended(&self, id: &ContainerId, exec: &ExecId) -> Result<Option<Exit>> {
        Ok(match self.runtime.exec_inspect(id, exec).await? {
            Inspected::Exited(exit) => Some(Exit {
                code: exit.code,
                oom_killed: exit.oom,
                at: at(exit.finished_at),
            }),
            Inspected::Alive { .. } | Inspected::Unknown => None,
        })
    }
}
