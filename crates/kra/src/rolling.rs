//! Replaces the containers of a service one by one, with docker and docker compose as they are.
//!
//! What a container is made of stays docker compose's business: it makes the new ones. Which runs
//! when is decided here.

use std::{
    collections::{BTreeSet, HashMap},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    exit::{Failure, Outcome},
    project::{Condition, Order, Project, compose},
    up::with,
};

/// Containers are being replaced: the end of the program waits until those are back that have to.
static REPLACING: AtomicBool = AtomicBool::new(false);
/// The user wants it to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The user has pressed ctrl-C: waits until no service is half replaced.
pub(crate) async fn wind_up() {
    INTERRUPTED.store(true, Ordering::SeqCst);
    while REPLACING.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// While it is there containers are being replaced.
struct Replacing;

impl Replacing {
    fn new() -> Self {
        REPLACING.store(true, Ordering::SeqCst);
        Self
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        REPLACING.store(false, Ordering::SeqCst);
    }
}

fn not_interrupted() -> Outcome {
    match INTERRUPTED.load(Ordering::SeqCst) {
        true => Err(Failure::interrupted()),
        false => Ok(()),
    }
}

/// docker and docker compose, for a project on the kraud of a session.
#[derive(Debug, Clone)]
pub(crate) struct Docker {
    environment: Vec<(&'static str, String)>,
    files: Vec<PathBuf>,
    project: String,
}

/// A service of several containers.
#[derive(Debug)]
pub(crate) struct Rolling {
    pub(crate) name: String,
    /// How many run.
    pub(crate) running: usize,
    order: Order,
    /// Only docker compose may start its containers: it has more to do than to start them.
    by_compose: bool,
    /// Services that it needs and that are not replaced one by one.
    needs: Vec<(String, Condition)>,
}

/// The output of a command that must succeed.
fn output(mut command: Command) -> Outcome<String> {
    let ran = command
        .stdin(Stdio::null())
        // Ctrl-C is for this program, which has to put back what was there.
        .process_group(0)
        .output()
        .map_err(|error| Failure::io("running docker", error))?;
    if !ran.status.success() {
        let words = String::from_utf8_lossy(&ran.stderr);
        return Err(Failure::usage(format!("docker: {}", words.trim())));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

impl Docker {
    pub(crate) fn new(
        environment: Vec<(&'static str, String)>,
        files: &[PathBuf],
        project: &Project,
    ) -> Self {
        Self {
            environment,
            files: files.to_vec(),
            project: project.name.clone(),
        }
    }

    pub(crate) fn compose(&self) -> Command {
        with(compose(&self.files), &self.environment)
    }

    fn docker(&self) -> Command {
        with(Command::new("docker"), &self.environment)
    }

    /// Ids of a service's containers in a state, or of all; not of those that `docker compose run`
    /// has made.
    fn containers(&self, service: &str, state: Option<&str>) -> Outcome<Vec<String>> {
        let mut command = self.docker();
        command.args(["ps", "--all", "--quiet", "--no-trunc"]);
        let label = |name: &str, value: &str| format!("label=com.docker.compose.{name}={value}");
        let mut filters = vec![
            label("project", &self.project),
            label("service", service),
            label("oneoff", "False"),
        ];
        filters.extend(state.map(|state| format!("status={state}")));
        for filter in &filters {
            command.args(["--filter", filter]);
        }
        Ok(output(command)?.lines().map(str::to_owned).collect())
    }

    /// Services of several containers of which some run: those that others need come first.
    pub(crate) fn rolling(&self, project: &Project) -> Outcome<Vec<Rolling>> {
        let mut found = Vec::new();
        for (name, service) in project.in_order() {
            if service.replicas() < 2 {
                continue;
            }
            let running = self.containers(name, Some("running"))?.len();
            if running == 0 {
                continue;
            }
            if service.has_last_words() {
                eprintln!("{name}: has pre_stop hooks, so docker compose replaces all at once");
                continue;
            }
            found.push(Rolling {
                name: name.to_owned(),
                running,
                order: service.order(),
                by_compose: project.is_filled_at_start(service),
                needs: project.needs(service),
            });
        }
        let names: BTreeSet<String> = found.iter().map(|one| one.name.clone()).collect();
        for one in &mut found {
            one.needs.retain(|(name, _)| !names.contains(name));
        }
        Ok(found)
    }

    /// Brings up what a service needs, and waits until it is as it is needed; `brought` knows what
    /// has been before. What ends by itself runs again with the last `docker compose up`, as it
    /// does with every one.
    fn bring_needs(
        &self,
        service: &Rolling,
        brought: &mut BTreeSet<String>,
        patience: Duration,
    ) -> Outcome {
        let names = service.needs.iter().map(|(name, _)| name);
        let fresh: Vec<&String> = names.filter(|name| !brought.contains(*name)).collect();
        if !fresh.is_empty() {
            let mut needed = self.compose();
            needed.args(["up", "--detach"]).args(&fresh);
            output(needed)?;
            brought.extend(fresh.into_iter().cloned());
        }
        for (name, condition) in &service.needs {
            for id in self.containers(name, None)? {
                match condition {
                    Condition::Started => {}
                    Condition::Healthy => self.wait_until_healthy(name, &id, patience)?,
                    Condition::Completed => self.wait_until_ended(name, &id, patience)?,
                }
            }
        }
        Ok(())
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
    /// healthy before the next; when one does not, or the user interrupts, all new ones go, and
    /// old ones that have stopped start again.
    pub(crate) fn replace(
        &self,
        service: &Rolling,
        brought: &mut BTreeSet<String>,
        patience: Duration,
    ) -> Outcome {
        let name = &service.name;
        let running = self.containers(name, Some("running"))?;
        let fresh = self.up_to_date(name, &running)?;
        let old: Vec<String> = running
            .into_iter()
            .filter(|id| fresh.get(id) == Some(&false))
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        self.bring_needs(service, brought, patience)?;
        not_interrupted()?;
        // What an earlier kra that was killed has made and not started.
        let left = self.containers(name, Some("created"))?;
        self.on(&["rm", "--volumes"], &left)?;
        let _replacing = Replacing::new();
        let mut made = Vec::new();
        let replaced = if service.by_compose {
            self.beside(name, &old, patience, &mut made)
        } else {
            self.in_turn(service, &old, patience, &mut made)
        };
        if let Err(failure) = replaced {
            self.put_back(name, &old, &made);
            return Err(failure.hint(
                "where there is no room for one more, or only one may write: --strategy recreate stops the old ones first",
            ));
        }
        self.on(&["stop"], &old)?;
        self.on(&["rm"], &old)?;
        eprintln!("{name}: {} old containers are gone", old.len());
        Ok(())
    }

    /// The new containers go, and the old ones run as before. One that is in the way of that is in
    /// nobody else's.
    fn put_back(&self, name: &str, old: &[String], made: &[String]) {
        let mut whole = true;
        let mut each = |verb: &[&str], containers: &[String]| {
            for id in containers {
                if let Err(failure) = self.on(verb, &[id]) {
                    failure.say();
                    whole = false;
                }
            }
        };
        each(&["stop"], made);
        // Those that run are not touched by it.
        each(&["start"], old);
        each(&["rm", "--volumes"], made);
        match whole {
            true => eprintln!("{name}: the old containers are back"),
            false => eprintln!("{name}: not all is as it was; see docker compose ps --all"),
        }
    }

    /// One new container starts, and when it is healthy one old one stops; the other way round
    /// where the project says so. One more runs meanwhile, or one less.
    fn in_turn(
        &self,
        service: &Rolling,
        old: &[String],
        patience: Duration,
        made: &mut Vec<String>,
    ) -> Outcome {
        let name = &service.name;
        let before = self.containers(name, None)?;
        let grown = self.scale(
            name,
            before.len() + old.len(),
            &["--no-start", "--no-deps", "--no-recreate"],
        );
        let after = self.containers(name, None)?;
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
            not_interrupted()?;
            if service.order == Order::StopFirst {
                self.on(&["stop"], &[old])?;
            }
            self.on(&["start"], &[new])?;
            self.wait_until_healthy(name, new, patience)?;
            if service.order == Order::StartFirst {
                self.on(&["stop"], &[old])?;
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
        old: &[String],
        patience: Duration,
        made: &mut Vec<String>,
    ) -> Outcome {
        for done in 1..=old.len() {
            not_interrupted()?;
            let before = self.containers(name, None)?;
            let grown = self.scale(name, before.len() + 1, &["--no-deps", "--no-recreate"]);
            let after = self.containers(name, None)?;
            let new: Vec<String> = after
                .into_iter()
                .filter(|id| !before.contains(id))
                .collect();
            made.extend(new.iter().cloned());
            grown?;
            let [new] = new.as_slice() else {
                return Err(Failure::failed(format!(
                    "{name}: docker compose was to make one new container, and has made {}",
                    new.len()
                )));
            };
            self.wait_until_healthy(name, new, patience)?;
            eprintln!("{name}: {done} of {}: {} is healthy", old.len(), short(new));
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
        let state =
            "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}";
        let waited = self.wait(id, state, patience, |state, since| match state {
            "running healthy" => Some(true),
            "running none" if since >= STANDS => Some(true),
            "running none" | "running starting" | "created none" | "created starting" => None,
            _ => Some(false),
        })?;
        waited.map_err(|why| self.unhealthy(service, id, &why))
    }

    /// Waits for a container that does something and ends.
    fn wait_until_ended(&self, service: &str, id: &str, patience: Duration) -> Outcome {
        let state = "{{.State.Status}} {{.State.ExitCode}}";
        let waited = self.wait(id, state, patience, |state, _| match state {
            "exited 0" => Some(true),
            _ if state.starts_with("running") || state.starts_with("created") => None,
            _ => Some(false),
        })?;
        waited.map_err(|why| Failure::failed(format!("{service}: {}: {why}", short(id))))
    }

    /// Looks at a container's state, in this format, until it is well or not; else says why not.
    fn wait(
        &self,
        id: &str,
        format: &str,
        patience: Duration,
        is_well: impl Fn(&str, Duration) -> Option<bool>,
    ) -> Outcome<Result<(), String>> {
        let begun = Instant::now();
        loop {
            let mut inspect = self.docker();
            inspect.args(["inspect", "--format", format, id]);
            let state = output(inspect)?;
            match is_well(&state, begun.elapsed()) {
                Some(true) => return Ok(Ok(())),
                Some(false) => return Ok(Err(format!("it is {state}"))),
                None if begun.elapsed() > patience => {
                    return Ok(Err(format!(
                        "it was {state} after {} s",
                        patience.as_secs()
                    )));
                }
                None => {}
            }
            not_interrupted()?;
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
            "{service}: the container {} has not become healthy: {why}{}{words}",
            short(id),
            if words.is_empty() { "" } else { "\n" }
        ))
    }

    /// Does something with containers; with none, nothing.
    fn on(&self, verb: &[&str], containers: &[impl AsRef<str>]) -> Outcome {
        if containers.is_empty() {
            return Ok(());
        }
        let mut command = self.docker();
        command.args(verb);
        command.args(containers.iter().map(AsRef::as_ref));
        output(command).map(drop)
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
