//! Exec sessions: further processes in running containers.
//!
//! They live in memory only: like dockerd's they are forgotten when the daemon restarts,
//! while their processes go on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use agent::{AttachTo, Attached, ExecPlan, Exit};
use types::{ContainerId, Error, ExecId, Result};

use crate::{
    Engine, Scope,
    containers::Container,
    request::{ExecRequest, ExecStart},
    view::ExecView,
};

/// How long an ended session can still be inspected.
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(300);

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Running { pid: i32 },
    Ended { code: i64, pid: i32 },
}

#[derive(Debug)]
struct Session {
    container: ContainerId,
    request: ExecRequest,
    phase: tokio::sync::watch::Sender<Phase>,
}

/// All sessions.
#[derive(Default)]
pub(crate) struct Table(Mutex<HashMap<ExecId, Arc<Session>>>);

impl Table {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ExecId, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions of a container that have not ended.
    pub(crate) fn of(&self, container: &ContainerId) -> Vec<ExecId> {
        let sessions = self.lock();
        let lives = |session: &Session| {
            session.container == *container
                && !matches!(*session.phase.borrow(), Phase::Ended { .. })
        };
        sessions
            .iter()
            .filter(|(_, session)| lives(session))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The container has ended and every session with it.
    pub(crate) fn end_all(&self, container: &ContainerId) {
        for session in self
            .lock()
            .values()
            .filter(|session| session.container == *container)
        {
            session.phase.send_if_modified(|phase| match *phase {
                Phase::Running { pid } => {
                    *phase = Phase::Ended { code: 137, pid };
                    true
                }
                _ => false,
            });
        }
    }

    pub(crate) fn forget_all(&self, container: &ContainerId) {
        self.lock()
            .retain(|_, session| session.container != *container);
    }
}

impl Engine {
    /// Registers a session in a running container.
    pub async fn exec_create(
        &self,
        scope: &Scope,
        name: &str,
        request: ExecRequest,
    ) -> Result<ExecId> {
        let container = self.container(scope, name)?;
        crate::tenants::policy::exec(scope, &request)?;
        self.must_run(&container)?;
        if request.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let id = ExecId::random();
        let facts = [("execID", id.to_string())];
        let line = request.cmd.as_deref().unwrap_or_default().join(" ");
        let session = Session {
            container: container.id.clone(),
            request,
            phase: tokio::sync::watch::Sender::new(Phase::Created),
        };
        self.execs.lock().insert(id.clone(), Arc::new(session));
        self.container_event(&container, format!("exec_create: {line}"), &facts);
        Ok(id)
    }

    fn session(&self, scope: &Scope, id: &str) -> Result<(ExecId, Arc<Session>, Arc<Container>)> {
        let missing = || Error::not_found(format!("No such exec instance: {id}"));
        let exec: ExecId = id.parse().map_err(|_| missing())?;
        let session = self.execs.lock().get(&exec).cloned().ok_or_else(missing)?;
        let container = self
            .containers
            .get(&session.container)
            .filter(|c| c.namespace == scope.namespace)
            .ok_or_else(missing)?;
        Ok((exec, session, container))
    }

    /// Starts a session; attached unless it is detached.
    pub async fn exec_start(
        &self,
        scope: &Scope,
        id: &str,
        start: ExecStart,
    ) -> Result<Option<Attached>> {
        let (exec, session, container) = self.session(scope, id)?;
        self.must_run(&container)?;
        match *session.phase.borrow() {
            Phase::Created => {}
            Phase::Running { .. } => {
                return Err(Error::conflict(format!(
                    "Error: Exec command {exec} is already running"
                )));
            }
            Phase::Ended { .. } => {
                return Err(Error::conflict(format!(
                    "Error: Exec command {exec} has already run"
                )));
            }
        }
        let request = &session.request;
        let to = (!start.detach).then_some(AttachTo {
            stdin: request.attach_stdin,
            stdout: request.attach_stdout,
            stderr: request.attach_stderr,
            await_start: false,
        });
        let plan = ExecPlan {
            command: request.cmd.clone().unwrap_or_default(),
            env: request.env.clone().unwrap_or_default(),
            working_dir: request.working_dir.clone(),
            user: request.user.clone(),
            tty: request.tty,
            stdin: request.attach_stdin && !start.detach,
            privileged: request.privileged,
            console_size: start.console_size.or(request.console_size),
        };
        self.run_session(&container, &exec, &session, &plan, to)
            .await
    }

    async fn run_session(
        &self,
        container: &Container,
        exec: &ExecId,
        session: &Session,
        plan: &ExecPlan,
        to: Option<AttachTo>,
    ) -> Result<Option<Attached>> {
        let line = plan.command.join(" ");
        session.phase.send_replace(Phase::Running { pid: 0 });
        match self.agent.exec(&container.id, exec, plan, to).await {
            Ok((pid, attached)) => {
                // A short command may have ended before its start was answered.
                session.phase.send_if_modified(|phase| {
                    let running = matches!(phase, Phase::Running { .. });
                    if running {
                        *phase = Phase::Running { pid };
                    }
                    running
                });
                self.container_event(
                    container,
                    format!("exec_start: {line}"),
                    &[("execID", exec.to_string())],
                );
                Ok(attached)
            }
            Err(failure) => {
                session.phase.send_replace(Phase::Ended {
                    code: failure.exit_code.into(),
                    pid: 0,
                });
                Err(failure.error)
            }
        }
    }

    /// Told by the agent.
    pub(crate) fn exec_exited(&self, container: &ContainerId, exec: &ExecId, exit: &Exit) {
        self.forget_later(container, exec);
        let Some(session) = self.execs.lock().get(exec).cloned() else {
            return;
        };
        let is_news = session.phase.send_if_modified(|phase| {
            let Phase::Running { pid } = *phase else {
                return false;
            };
            *phase = Phase::Ended {
                code: exit.code.into(),
                pid,
            };
            true
        });
        if !is_news {
            return;
        }
        if let Some(container) = self.containers.get(container) {
            let facts = [
                ("execID", exec.to_string()),
                ("exitCode", exit.code.to_string()),
            ];
            self.container_event(&container, "exec_die", &facts);
        }
    }

    /// Removes an ended session's files now, and the session itself when nobody can want to
    /// know of it any more.
    fn forget_later(&self, container: &ContainerId, exec: &ExecId) {
        let (engine, container, exec) = (self.clone(), container.clone(), exec.clone());
        tokio::spawn(async move {
            if let Err(error) = engine.agent.exec_forget(&container, &exec).await {
                tracing::warn!(id = %container, %exec, %error, "the files of an ended exec session are still there");
            }
            tokio::time::sleep(REMEMBERED).await;
            engine.execs.lock().remove(&exec);
        });
    }

    /// Sets the size of a session's terminal.
    pub async fn exec_resize(
        &self,
        scope: &Scope,
        id: &str,
        height: u16,
        width: u16,
    ) -> Result<()> {
        let (exec, session, container) = self.session(scope, id)?;
        // The client's first resize races with its start.
        let mut phase = session.phase.subscribe();
        let started = phase.wait_for(|phase| {
            matches!(phase, Phase::Running { pid } if *pid != 0)
                || matches!(phase, Phase::Ended { .. })
        });
        let running = tokio::time::timeout(std::time::Duration::from_secs(3), started)
            .await
            .is_ok();
        if !running || matches!(*session.phase.borrow(), Phase::Ended { .. }) {
            return Err(Error::conflict(format!("exec {exec} is not running")));
        }
        self.agent
            .exec_resize(&container.id, &exec, height, width)
            .await
    }

    /// A session as it is now.
    pub async fn exec_inspect(&self, scope: &Scope, id: &str) -> Result<ExecView> {
        let (exec, session, container) = self.session(scope, id)?;
        // A client that has just seen the end of the output asks for the exit code; the
        // agent's own word is newer than its event.
        let running = matches!(*session.phase.borrow(), Phase::Running { .. });
        if running && let Ok(Some(exit)) = self.agent.exec_exit(&container.id, &exec).await {
            self.exec_exited(&container.id, &exec, &exit);
        }
        let mut words = session.request.cmd.clone().unwrap_or_default().into_iter();
        let phase = *session.phase.borrow();
        Ok(ExecView {
            id: exec,
            container: session.container.clone(),
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            running: matches!(phase, Phase::Running { .. }),
            exit_code: match phase {
                Phase::Ended { code, .. } => Some(code),
                _ => None,
            },
            pid: match phase {
                Phase::Created => 0,
                Phase::Running { pid } | Phase::Ended { pid, .. } => pid,
            },
            request: session.request.clone(),
        })
    }

    /// Runs a command for kraud itself (a health check) and gives its exit and first output.
    /// Killed, with an error, after `timeout`.
    pub(crate) async fn probe(
        &self,
        container: &Container,
        command: Vec<String>,
        timeout: std::time::Duration,
    ) -> Result<(i32, String)> {
        let exec = ExecId::random();
        let request = ExecRequest {
            cmd: Some(command.clone()),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecRequest::default()
        };
        let session = Arc::new(Session {
            container: container.id.clone(),
            request,
            phase: tokio::sync::watch::Sender::new(Phase::Created),
        });
        self.execs.lock().insert(exec.clone(), session.clone());
        let plan = ExecPlan {
            command,
            ..ExecPlan::default()
        };
        let to = AttachTo {
            stdout: true,
            stderr: true,
            ..AttachTo::default()
        };
        let result = tokio::time::timeout(
            timeout,
            self.run_probe(container, &exec, &session, &plan, to),
        )
        .await;
        if result.is_err() {
            let _ = self.agent.exec_kill(&container.id, &exec).await;
        }
        self.execs.lock().remove(&exec);
        result.unwrap_or_else(|_| {
            Err(Error::unavailable(format!(
                "Health check exceeded timeout ({timeout:?})"
            )))
        })
    }

    async fn run_probe(
        &self,
        container: &Container,
        exec: &ExecId,
        session: &Session,
        plan: &ExecPlan,
        to: AttachTo,
    ) -> Result<(i32, String)> {
        /// As much as docker keeps.
        const KEPT: usize = 4096;
        let mut phase = session.phase.subscribe();
        let attached = self
            .run_session(container, exec, session, plan, Some(to))
            .await?;
        let mut output = Vec::new();
        if let Some(mut attached) = attached {
            while let Some(piece) = attached.output.recv().await {
                let (agent::Output::Stdout(bytes) | agent::Output::Stderr(bytes)) = piece;
                let room = KEPT.saturating_sub(output.len()).min(bytes.len());
                output.extend_from_slice(&bytes[..room]);
            }
        }
        let code = match phase
            .wait_for(|phase| matches!(phase, Phase::Ended { .. }))
            .await
            .as_deref()
        {
            Ok(Phase::Ended { code, .. }) => i32::try_from(*code).unwrap_or(-1),
            _ => -1,
        };
        Ok((code, String::from_utf8_lossy(&output).into_owned()))
    }
}
