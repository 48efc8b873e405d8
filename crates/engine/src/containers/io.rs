//! Streams of containers: attach, logs, the terminal's size, top.

use std::sync::{Arc, atomic::Ordering};

use agent::{AttachTo, Attached, Input, LogQuery, LogStream, Output};
use tokio::sync::mpsc;
use types::{Error, Result, state::Status};

use super::Container;
use crate::{Engine, Scope, request::AttachRequest, view::Top};

/// Pieces of output under way to a client that attached before the start.
const QUEUE: usize = 16;

impl Engine {
    /// Attaches to a container. One that does not run yet delivers from its start on: the
    /// process begins only once such a client is connected, so that it misses nothing.
    pub async fn container_attach(
        &self,
        scope: &Scope,
        name: &str,
        request: AttachRequest,
    ) -> Result<Attached> {
        let container = self.container(scope, name)?;
        match container.status() {
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "Container {} is paused, unpause the container before attach.",
                    container.id
                )));
            }
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {}
        }
        let record = container.record();
        let to = AttachTo {
            // Input is taken only by a container that was made with an open standard input.
            stdin: request.stdin && request.stream && record.config.open_stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            await_start: container.status() != Status::Running,
        };
        let history = if request.logs {
            Some(self.history(&container, request).await?)
        } else {
            None
        };
        let attached = if !request.stream {
            Attached {
                tty: record.config.tty,
                output: mpsc::channel(1).1,
                input: None,
            }
        } else if container.status() == Status::Running {
            self.agent.attach(&container.id, to).await?
        } else {
            self.attach_early(container.clone(), to)
        };
        self.container_event(&container, "attach", &[]);
        Ok(match history {
            Some(history) => with_history(history, attached),
            None => attached,
        })
    }

    /// What was logged so far.
    async fn history(&self, container: &Container, request: AttachRequest) -> Result<LogStream> {
        let query = LogQuery {
            stdout: request.stdout,
            stderr: request.stderr,
            ..LogQuery::default()
        };
        self.agent.logs(&container.id, query).await
    }

    /// Promises a client the output of a process that has not begun.
    fn attach_early(&self, container: Arc<Container>, to: AttachTo) -> Attached {
        let (output, receiver) = mpsc::channel(QUEUE);
        let (input, inputs) = mpsc::channel(QUEUE);
        let tty = container.record().config.tty;
        // Counted before the caller hears of it: a start that follows will wait for us.
        container.early_attaches.fetch_add(1, Ordering::SeqCst);
        let starting = container.starting.subscribe();
        let engine = self.clone();
        tokio::spawn(async move {
            let connected = engine
                .connect_early(&container, to, starting, &output)
                .await;
            container.early_attaches.fetch_sub(1, Ordering::SeqCst);
            if let Some(attached) = connected {
                join(attached, output, inputs).await;
            }
        });
        Attached {
            tty,
            output: receiver,
            input: to.stdin.then_some(input),
        }
    }

    async fn connect_early(
        &self,
        container: &Container,
        to: AttachTo,
        mut starting: tokio::sync::watch::Receiver<u64>,
        output: &mpsc::Sender<Output>,
    ) -> Option<Attached> {
        let mut removed = container.removed.subscribe();
        tokio::select! {
            changed = starting.changed() => changed.ok()?,
            _ = removed.wait_for(|removed| *removed) => return None,
            () = output.closed() => return None,
        }
        let exits = container.observed.borrow().exits;
        let mut observed = container.observed.subscribe();
        tokio::select! {
            attached = self.agent.attach(&container.id, to) => attached.ok(),
            // The start failed; nothing will ever be there to attach to.
            _ = observed.wait_for(|observed| observed.exits > exits) => None,
        }
    }

    /// Reads a container's log.
    pub async fn container_logs(
        &self,
        scope: &Scope,
        name: &str,
        mut query: LogQuery,
    ) -> Result<LogStream> {
        if !query.stdout && !query.stderr {
            return Err(Error::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        let container = self.container(scope, name)?;
        let record = container.record();
        if record.host.log_config.driver == "none" {
            return Err(Error::not_implemented(
                "configured logging driver does not support reading",
            ));
        }
        query.follow &= container.is_running();
        let mut stream = self.agent.logs(&container.id, query).await?;
        stream.tty = record.config.tty;
        Ok(stream)
    }

    /// Sets the size of a container's terminal.
    pub async fn container_resize(
        &self,
        scope: &Scope,
        name: &str,
        height: u16,
        width: u16,
    ) -> Result<()> {
        let container = self.container(scope, name)?;
        if !container.is_running() {
            return Err(Error::conflict(format!(
                "container {} is not running",
                container.id
            )));
        }
        self.agent.resize(&container.id, height, width).await?;
        self.container_event(
            &container,
            "resize",
            &[("height", height.to_string()), ("width", width.to_string())],
        );
        Ok(())
    }

    /// The container's processes as `ps` shows them.
    pub async fn container_top(&self, scope: &Scope, name: &str, arguments: &str) -> Result<Top> {
        let container = self.container(scope, name)?;
        if !container.is_running() {
            return Err(Error::conflict(format!(
                "container {} is not running",
                container.id
            )));
        }
        if container.status() == Status::Restarting {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let arguments = if arguments.is_empty() {
            "-ef"
        } else {
            arguments
        };
        let (titles, processes) = self.agent.top(&container.id, arguments).await?;
        self.container_event(&container, "top", &[]);
        Ok(Top { titles, processes })
    }
}

/// Pumps both directions until the process or the client ends.
async fn join(attached: Attached, output: mpsc::Sender<Output>, mut inputs: mpsc::Receiver<Input>) {
    let Attached {
        output: mut from,
        input,
        ..
    } = attached;
    let forward_input = async move {
        let Some(to) = input else { return };
        while let Some(message) = inputs.recv().await {
            if to.send(message).await.is_err() {
                return;
            }
        }
    };
    let forward_output = async move {
        while let Some(piece) = from.recv().await {
            if output.send(piece).await.is_err() {
                return;
            }
        }
    };
    // Input that ends first (a closed stdin) must not cut the output off.
    let feeding = tokio::spawn(forward_input);
    forward_output.await;
    feeding.abort();
}

/// The log first, then what comes.
fn with_history(mut history: LogStream, attached: Attached) -> Attached {
    let Attached {
        tty,
        output: mut live,
        input,
    } = attached;
    let (sender, output) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(Ok(entries)) = history.entries.recv().await {
            for entry in entries {
                let piece = if entry.stderr {
                    Output::Stderr(entry.message)
                } else {
                    Output::Stdout(entry.message)
                };
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        }
        while let Some(piece) = live.recv().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    Attached { tty, output, input }
}
