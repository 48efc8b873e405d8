//! Replaces the containers of a service one by one, with docker and docker compose as they are.
//!
//! What a container is made of stays docker compose's business: it makes the new ones. Which runs
//! when is decided here.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    exit::{Failure, Outcome},
    project::{Order, Project, compose},
    up::with,
};

/// docker and docker compose, for the kraud of a session.
#[derive(Debug, Clone)]
pub(crate) struct Docker {
    environment: Vec<(&'static str, String)>,
    files: Vec<PathBuf>,
}

/// A service of several containers.
#[derive(Debug)]
pub(crate) struct Rolling {
    pub(crate) name: String,
    /// Ids of those that run.
    pub(crate) old: Vec<String>,
    order: Order,
    /// Only docker compose may start its containers: it has more to do than to start them.
    by_compose: bool,
    /// Services that it needs and that are not replaced one by one.
    needs: Vec<String>,
}

/// The output of a command that must succeed.
fn output(mut command: Command) -> Outcome<String> {
    let ran = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::io("running docker", error))?;
    if !ran.status.success() {
        let words = String::from_utf8_lossy(&ran.stderr);
        return Err(Failure::usage(format!("docker: {}", words.trim())));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

fn ids(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

impl Docker {
    pub(crate) fn new(environment: Vec<(&'static str, String)>, files: &[PathBuf]) -> Self {
        Self {
            environment,
            files: files.to_vec(),
        }
    }

    pub(crate) fn compose(&self) -> Command {
        with(compose(&self.files), &self.environment)
    }

    fn docker(&self) -> Command {
        with(Command::new("docker"), &self.environment)
    }

    /// Ids of a service's containers in one of these states, or of all.
    fn containers(&self, service: &str, states: &[&str]) -> Outcome<Vec<String>> {
        let mut command = self.compose();
        command.args(["ps", "--all", "--quiet"]);
        for state in states {
            command.args(["--status", state]);
        }
        command.arg(service);
        Ok(ids(&output(command)?))
    }

    /// Services of several containers of which some run: those that others need come first.
    pub(crate) fn rolling(&self, project: &Project) -> Outcome<Vec<Rolling>> {
        let mut found = Vec::new();
        for name in project.in_order() {
            let Some(service) = project.services.get(name) else {
                continue;
            };
            if service.replicas() < 2 {
                continue;
            }
            let old = self.containers(name, &["running"])?;
            if old.is_empty() {
                continue;
            }
            found.push(Rolling {
                name: name.to_owned(),
                old,
                order: service.order(),
                by_compose: project.is_filled_at_start(service),
                needs: service.needs().map(str::to_owned).collect(),
            });
        }
        let names: BTreeSet<String> = found.iter().map(|one| one.name.clone()).collect();
        for one in &mut found {
            one.needs.retain(|name| !names.contains(name));
        }
        Ok(found)
    }

    /// Which of a service's containers are as the project wants them now.
    fn up_to_date(&self, service: &str, containers: &[String]) -> Outcome<HashMap<String, bool>> {
        let mut wanted = self.compose();
        wanted.args(["config", "--hash", service]);
        let wanted = output(wanted)?;
        let wanted = wanted
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned();
        let mut inspect = self.docker();
        inspect.args(["inspect", "--format"]);
        inspect.arg("{{.Id}} {{index .Config.Labels \"com.docker.compose.config-hash\"}} {{.Image}} {{.Config.Image}}");
        inspect.args(containers);
        let mut found = HashMap::new();
        for line in output(inspect)?.lines() {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (id, hash, image, name) = (word(), word(), word(), word());
            let mut newest = self.docker();
            newest.args(["image", "inspect", "--format", "{{.Id}}", &name]);
            // An image that is only to be pulled is another one.
            let newest = output(newest).unwrap_or_default();
            found.insert(id, hash == wanted && image == newest);
        }
        Ok(found)
    }

    /// Replaces the containers of a service that are not up to date. Each new one has to become
    /// healthy before the next; when one does not, all new ones go, and the old ones run as
    /// before.
    pub(crate) fn replace(&self, service: &Rolling, patience: Duration) -> Outcome {
        let fresh = self.up_to_date(&service.name, &service.old)?;
        let old: Vec<&String> = service
            .old
            .iter()
            .filter(|id| fresh.get(*id) == Some(&false))
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        if !service.needs.is_empty() {
            let mut needed = self.compose();
            needed.args(["up", "--detach"]).args(&service.needs);
            output(needed)?;
        }
        // What an earlier kra that was interrupted has made and not started.
        let left = self.containers(&service.name, &["created"])?;
        self.on("rm", &left)?;
        let mut made = Vec::new();
        let replaced = if service.by_compose {
            self.beside(&service.name, &old, patience, &mut made)
        } else {
            self.in_turn(service, &old, patience, &mut made)
        };
        let (name, count) = (&service.name, old.len());
        if let Err(failure) = replaced {
            self.on("stop", &made)?;
            self.on("rm", &made)?;
            // Those that run are not touched by it.
            self.on("start", &old)?;
            eprintln!("{name}: the old containers are back");
            return Err(failure.hint(
                "where there is no room for one more, or only one may write: --strategy recreate stops the old ones first",
            ));
        }
        self.on("stop", &old)?;
        self.on("rm", &old)?;
        eprintln!("{name}: {count} old containers are gone");
        Ok(())
    }

    /// One new container starts, and when it is healthy one old one stops; the other way round
    /// where the project says so. There are never more of them than one beside what is wanted.
    fn in_turn(
        &self,
        service: &Rolling,
        old: &[&String],
        patience: Duration,
        made: &mut Vec<String>,
    ) -> Outcome {
        let name = &service.name;
        let before = self.containers(name, &[])?;
        if !service.needs.is_empty() {
            // Waits until what it needs is as it wants it.
            self.scale(name, before.len(), &["--no-recreate"])?;
        }
        let grown = self.scale(
            name,
            before.len() + old.len(),
            &["--no-start", "--no-deps", "--no-recreate"],
        );
        let after = self.containers(name, &[])?;
        made.extend(after.into_iter().filter(|id| !before.contains(id)));
        grown?;
        if made.len() < old.len() {
            return Err(Failure::failed(format!(
                "{name}: docker compose has made {} of {} new containers",
                made.len(),
                old.len()
            )));
        }
        for (done, (new, old)) in (1..).zip(made.iter().zip(old)) {
            if service.order == Order::StopFirst {
                self.on("stop", &[old])?;
            }
            self.on("start", &[new])?;
            self.wait_until_healthy(name, new, patience)?;
            if service.order == Order::StartFirst {
                self.on("stop", &[old])?;
            }
            eprintln!(
                "{name}: {done} of {}: {} has taken over from {}",
                made.len(),
                short(new),
                short(old)
            );
        }
        Ok(())
    }

    /// One by one all new containers start beside the old ones. docker compose, asked for one
    /// more, would start an old one again that has stopped, so none stops before all new ones
    /// work.
    fn beside(
        &self,
        name: &str,
        old: &[&String],
        patience: Duration,
        made: &mut Vec<String>,
    ) -> Outcome {
        for done in 1..=old.len() {
            let before = self.containers(name, &[])?;
            let grown = self.scale(name, before.len() + 1, &["--no-deps", "--no-recreate"]);
            let after = self.containers(name, &[])?;
            let new = after.into_iter().find(|id| !before.contains(id));
            made.extend(new.clone());
            grown?;
            let Some(new) = new else {
                return Err(Failure::failed(format!(
                    "{name}: docker compose has started no new container"
                )));
            };
            self.wait_until_healthy(name, &new, patience)?;
            eprintln!(
                "{name}: {done} of {}: {} is healthy",
                old.len(),
                short(&new)
            );
        }
        Ok(())
    }

    /// Has docker compose see to it that a service has so many containers.
    fn scale(&self, service: &str, count: usize, how: &[&str]) -> Outcome {
        let mut command = self.compose();
        command.arg("up").args(how);
        if !how.contains(&"--no-start") {
            command.arg("--detach");
        }
        command.args(["--scale", &format!("{service}={count}"), service]);
        output(command).map(drop)
    }

    fn wait_until_healthy(&self, service: &str, id: &str, patience: Duration) -> Outcome {
        /// Without a health check: still running after that long.
        const STANDS: Duration = Duration::from_secs(2);
        let begun = Instant::now();
        loop {
            let mut inspect = self.docker();
            inspect.args([
                "inspect",
                "--format",
                "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
                id,
            ]);
            let state = output(inspect)?;
            match state.as_str() {
                "running healthy" => return Ok(()),
                "running none" if begun.elapsed() >= STANDS => return Ok(()),
                "running none" | "running starting" | "created none" | "created starting" => {}
                _ => return Err(self.unhealthy(service, id, &format!("it is {state}"))),
            }
            if begun.elapsed() > patience {
                let why = format!("it was {state} after {} s", patience.as_secs());
                return Err(self.unhealthy(service, id, &why));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn unhealthy(&self, service: &str, id: &str, why: &str) -> Failure {
        let mut logs = self.docker();
        logs.args(["logs", "--tail", "10", id]);
        let words = logs
            .output()
            .map(|ran| [ran.stdout, ran.stderr].concat())
            .unwrap_or_default();
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        Failure::failed(format!(
            "{service}: the new container {} has not become healthy: {why}{}{words}",
            short(id),
            if words.is_empty() { "" } else { "\n" }
        ))
    }

    /// Does something with containers; with none, nothing.
    fn on(&self, verb: &str, containers: &[impl AsRef<str>]) -> Outcome {
        if containers.is_empty() {
            return Ok(());
        }
        let mut command = self.docker();
        command.arg(verb);
        command.args(containers.iter().map(AsRef::as_ref));
        output(command).map(drop)
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
