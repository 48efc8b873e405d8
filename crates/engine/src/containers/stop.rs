//! Ending and freezing containers: stop, kill, restart, pause.

use std::{sync::Arc, time::Duration};

use types::{
    Error, Result,
    state::{Desired, Status},
};

use super::Container;
use crate::{Engine, Scope};

/// Seconds between the stop signal and SIGKILL when nobody says otherwise.
const STOP_TIMEOUT: i64 = 10;
/// How long a killed process may take to be seen dead before an operator should look.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// Signal names by number, from 1 (Linux, x86-64 and arm64).
const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// `9`, `KILL`, `sigkill`, `RTMIN+3`.
pub(super) fn parse_signal(text: &str) -> Result<i32> {
    let bad = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(bad())
        };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() {
            Some(0)
        } else {
            rest.strip_prefix(sign)?.parse().ok()
        }
    };
    let number = match name {
        "CLD" => Some(17),
        "IOT" => Some(6),
        "POLL" => Some(29),
        _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => offset(rest, '+').map(|n| 34 + n),
            (_, Some(rest)) => offset(rest, '-').map(|n| 64 - n),
            _ => SIGNALS
                .iter()
                .position(|known| *known == name)
                .and_then(|index| i32::try_from(index + 1).ok()),
        },
    };
    number
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(bad)
}

/// The signal of a call's parameter, which may be missing or empty.
fn given_signal(text: Option<&str>) -> Result<Option<i32>> {
    text.filter(|text| !text.is_empty())
        .map(parse_signal)
        .transpose()
}

impl Container {
    fn stop_signal(&self) -> i32 {
        self.record()
            .config
            .stop_signal
            .as_deref()
            .and_then(|text| parse_signal(text).ok())
            .unwrap_or(SIGTERM)
    }
}

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL after `timeout` seconds (-1 waits
    /// for ever). [`types::Kind::NotModified`] when it does not run.
    pub async fn container_stop(
        &self,
        scope: &Scope,
        name: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let container = self.container(scope, name)?;
        let signal = given_signal(signal)?;
        if !container.is_running() {
            return Err(Error::not_modified(format!(
                "container {} is already stopped",
                container.id
            )));
        }
        self.stop(&container, signal, timeout).await
    }

    /// Stops all containers of all namespaces, each with its own signal and time; returns how many
    /// ran. The first failure is told when all others have been stopped.
    pub async fn stop_all(&self) -> Result<u64> {
        let mut stops = tokio::task::JoinSet::new();
        for container in self.containers.all() {
            if container.is_running() {
                let engine = self.clone();
                stops.spawn(async move { engine.stop(&container, None, None).await });
            }
        }
        let count = stops.len() as u64;
        let mut outcome = Ok(count);
        while let Some(stopped) = stops.join_next().await {
            let stopped =
                stopped.unwrap_or_else(|error| Err(Error::wrap("stopping a container", error)));
            match stopped {
                // Removed meanwhile, by itself or by somebody.
                Err(error) if error.kind != types::Kind::NotFound && outcome.is_ok() => {
                    outcome = Err(error);
                }
                _ => {}
            }
        }
        outcome
    }

    /// Stops a container that may or may not run.
    pub(crate) async fn stop(
        &self,
        container: &Arc<Container>,
        signal: Option<i32>,
        timeout: Option<i64>,
    ) -> Result<()> {
        self.desire(container, |record| record.desired = Desired::Stopped)
            .await?;
        if self.end_restarting(container).await {
            return Ok(());
        }
        let signal = signal.unwrap_or_else(|| container.stop_signal());
        let seconds = timeout
            .or(container.record().config.stop_timeout)
            .unwrap_or(STOP_TIMEOUT);
        self.send_signal(container, signal).await?;
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        if !self.ended_within(container, patience).await {
            tracing::info!(id = %container.id, seconds, "a container did not stop in time and is killed");
            self.kill_and_wait(container).await?;
        }
        self.container_event(container, "stop", &[]);
        Ok(())
    }

    /// Ends the pause between two runs; true when there was one.
    pub(super) async fn end_restarting(&self, container: &Arc<Container>) -> bool {
        let _op = container.op.lock().await;
        let restarting = container.status() == Status::Restarting;
        if restarting {
            self.observe(container, |observed| {
                observed.state.status = Status::Exited;
                observed.exits += 1;
            });
        }
        restarting
    }

    /// Sends a signal and thaws a frozen container, which could not act on it.
    async fn send_signal(&self, container: &Arc<Container>, signal: i32) -> Result<()> {
        self.container_event(container, "kill", &[("signal", signal.to_string())]);
        match self.agent.signal(&container.id, signal).await {
            Ok(()) => {}
            Err(error) if error.kind == types::Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        if container.status() == Status::Paused {
            self.thaw(container).await?;
        }
        Ok(())
    }

    /// Waits until the container has ended; `None` waits for ever.
    async fn ended_within(&self, container: &Container, patience: Option<Duration>) -> bool {
        let mut observed = container.observed.subscribe();
        let ended = observed.wait_for(|observed| {
            !matches!(observed.state.status, Status::Running | Status::Paused)
        });
        match patience {
            None => ended.await.is_ok(),
            Some(patience) => tokio::time::timeout(patience, ended).await.is_ok(),
        }
    }

    /// SIGKILL, until it is seen dead.
    pub(super) async fn kill_and_wait(&self, container: &Arc<Container>) -> Result<()> {
        self.send_signal(container, SIGKILL).await?;
        if self.ended_within(container, Some(KILL_PATIENCE)).await {
            return Ok(());
        }
        Err(Error::system(format!(
            "container {} did not die within {} s of SIGKILL: a process of it hangs in the kernel, often on storage that does not answer",
            container.id,
            KILL_PATIENCE.as_secs()
        )))
    }

    /// Sends a signal; with SIGKILL waits for the end.
    pub async fn container_kill(
        &self,
        scope: &Scope,
        name: &str,
        signal: Option<&str>,
    ) -> Result<()> {
        let container = self.container(scope, name)?;
        let signal = signal
            .filter(|text| !text.is_empty())
            .map_or(Ok(SIGKILL), parse_signal)?;
        if !matches!(container.status(), Status::Running | Status::Paused) {
            if self.end_restarting(&container).await {
                return self
                    .desire(&container, |record| record.desired = Desired::Stopped)
                    .await;
            }
            return Err(Error::conflict(format!(
                "cannot kill container: {name}: container {} is not running",
                container.id
            )));
        }
        // A signal that is meant to end it also ends the restart policy's work.
        if signal == SIGKILL || signal == container.stop_signal() {
            self.desire(&container, |record| record.desired = Desired::Stopped)
                .await?;
        }
        if signal == SIGKILL {
            self.kill_and_wait(&container).await
        } else {
            self.send_signal(&container, signal).await
        }
    }

    /// Stops it if it runs, and starts it.
    pub async fn container_restart(
        &self,
        scope: &Scope,
        name: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let container = self.container(scope, name)?;
        let signal = given_signal(signal)?;
        if container.is_running() {
            // An AutoRemove container lives through a restart.
            container
                .restarting
                .store(true, std::sync::atomic::Ordering::SeqCst);
            let stopped = self.stop(&container, signal, timeout).await;
            container
                .restarting
                .store(false, std::sync::atomic::Ordering::SeqCst);
            stopped?;
        }
        let _op = container.op.lock().await;
        if container.status() != Status::Running {
            self.start_locked(&container, true).await?;
        }
        self.container_event(&container, "restart", &[]);
        Ok(())
    }

    /// Freezes a running container.
    pub async fn container_pause(&self, scope: &Scope, name: &str) -> Result<()> {
        let container = self.container(scope, name)?;
        let _op = container.op.lock().await;
        match container.status() {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {} is already paused",
                    container.id
                )));
            }
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {
                return Err(Error::conflict(format!(
                    "container {} is not running",
                    container.id
                )));
            }
        }
        self.agent.set_paused(&container.id, true).await?;
        self.observe(&container, |observed| {
            observed.state.status = Status::Paused
        });
        // On disk before the answer: recovery thaws what it finds frozen without a record.
        self.writer.flush().await;
        self.container_event(&container, "pause", &[]);
        Ok(())
    }

    /// Thaws a paused container.
    pub async fn container_unpause(&self, scope: &Scope, name: &str) -> Result<()> {
        let container = self.container(scope, name)?;
        if container.status() != Status::Paused {
            return Err(Error::conflict(format!(
                "Container {} is not paused",
                container.id
            )));
        }
        self.thaw(&container).await
    }

    async fn thaw(&self, container: &Arc<Container>) -> Result<()> {
        let _op = container.op.lock().await;
        if container.status() != Status::Paused {
            return Ok(());
        }
        self.agent.set_paused(&container.id, false).await?;
        self.observe(container, |observed| {
            observed.state.status = Status::Running
        });
        self.container_event(container, "unpause", &[]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SYS", 31),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "NOPE", "RTMIN+99", "RTMINX"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
