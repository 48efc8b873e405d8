//! Health checks.

use std::{sync::Arc, time::Duration};

use types::{
    Time,
    container::HealthConfig,
    state::{Health, HealthStatus, Probe, Status},
};

use crate::{Engine, containers::Container, record::ContainerRecord};

/// Probes kept for inspect.
const KEPT: usize = 5;

/// A health check with its defaults filled in.
#[derive(Debug, Clone, PartialEq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Check {
    /// `None` when there is nothing to check.
    fn of(record: &ContainerRecord) -> Option<Self> {
        let config: &HealthConfig = record.config.healthcheck.as_ref()?;
        let test = config.test.as_deref()?;
        let command = match test {
            [kind, words @ ..] if kind == "CMD" && !words.is_empty() => words.to_vec(),
            [kind, words @ ..] if kind == "CMD-SHELL" && !words.is_empty() => {
                let mut shell = record
                    .config
                    .shell
                    .clone()
                    .unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                shell.push(words.join(" "));
                shell
            }
            _ => return None,
        };
        let or = |nanoseconds: i64, seconds| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => Duration::from_secs(seconds),
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        Some(Self {
            command,
            interval: or(config.interval, 30),
            timeout: or(config.timeout, 30),
            start_period: or(config.start_period, 0),
            start_interval: or(config.start_interval, 5),
            retries: u32::try_from(config.retries)
                .ok()
                .filter(|retries| *retries > 0)
                .unwrap_or(3),
        })
    }
}

/// The health after one more probe. In the start period failures do not count.
fn judge(mut health: Health, probe: Probe, retries: u32, starting: bool) -> Health {
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else if !(starting && health.status == HealthStatus::Starting) {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health.log.push(probe);
    let surplus = health.log.len().saturating_sub(KEPT);
    health.log.drain(..surplus);
    health
}

impl Engine {
    /// The health of a container that begins to run; `None` without a check.
    pub(crate) fn first_health(&self, record: &ContainerRecord) -> Option<Health> {
        Check::of(record).map(|_| Health::default())
    }

    /// Begins the checks of a running container, if it has any.
    pub(crate) fn watch_health(&self, container: &Container) {
        let Some(check) = Check::of(&container.record()) else {
            return;
        };
        let Some(container) = self.containers.get(&container.id) else {
            return;
        };
        let task = tokio::spawn(self.clone().check_health(container.clone(), check)).abort_handle();
        let mut slot = container
            .health
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(former) = slot.replace(task) {
            former.abort();
        }
    }

    /// Ends the checks.
    pub(crate) fn stop_health(&self, container: &Container) {
        let task = container
            .health
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            task.abort();
        }
    }

    async fn check_health(self, container: Arc<Container>, check: Check) {
        loop {
            let (started, status) = {
                let observed = container.observed.borrow();
                (
                    observed.state.started_at,
                    observed.state.health.clone().unwrap_or_default().status,
                )
            };
            let in_start_period = Time::now().since(started) < check.start_period;
            let starting = in_start_period && status == HealthStatus::Starting;
            tokio::time::sleep(if starting {
                check.start_interval.min(check.interval)
            } else {
                check.interval
            })
            .await;
            // A frozen container cannot answer; that says nothing of its health.
            if container.status() != Status::Running {
                continue;
            }
            let start = Time::now();
            let result = self
                .probe(&container, check.command.clone(), check.timeout)
                .await;
            if !container.is_running() || self.is_stopping() {
                return;
            }
            let (exit_code, output) = result.unwrap_or_else(|error| (-1, error.message));
            let probe = Probe {
                start,
                end: Time::now(),
                exit_code,
                output,
            };
            let starting = Time::now().since(started) < check.start_period;
            self.record_probe(&container, probe, check.retries, starting);
        }
    }

    fn record_probe(&self, container: &Container, probe: Probe, retries: u32, starting: bool) {
        let before = container
            .observed
            .borrow()
            .state
            .health
            .clone()
            .unwrap_or_default();
        let former = before.status;
        let after = judge(before, probe, retries, starting);
        let now = after.status;
        self.observe(container, |observed| observed.state.health = Some(after));
        if now != former {
            tracing::info!(id = %container.id, from = former.as_str(), to = now.as_str(), "the health of a container changed");
            self.container_event(container, format!("health_status: {}", now.as_str()), &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(exit_code: i32) -> Probe {
        Probe {
            exit_code,
            ..Probe::default()
        }
    }

    #[test]
    fn verdicts() {
        let failing = judge(Health::default(), probe(1), 2, false);
        assert_eq!(
            (failing.status, failing.failing_streak),
            (HealthStatus::Starting, 1)
        );
        let unhealthy = judge(failing.clone(), probe(1), 2, false);
        assert_eq!(unhealthy.status, HealthStatus::Unhealthy);
        assert_eq!(
            judge(unhealthy, probe(0), 2, false).status,
            HealthStatus::Healthy
        );
        let forgiven = judge(Health::default(), probe(1), 1, true);
        assert_eq!(
            (forgiven.status, forgiven.failing_streak),
            (HealthStatus::Starting, 0)
        );
        let mut health = Health::default();
        for _ in 0..9 {
            health = judge(health, probe(0), 3, false);
        }
        assert_eq!(health.log.len(), KEPT);
    }
}
