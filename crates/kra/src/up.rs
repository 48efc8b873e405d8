//! `kra up` and its kin: a compose project on kraud, with its images and its files.
//!
//! What a project is and how it is brought up is docker compose's business. Before it, kra sends
//! what kraud lacks, and replaces services of several containers one by one.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};

use crate::{
    exit::{Failure, Outcome},
    project::{
        Project, compose,
        files::{self, Cache, Files},
        need_plugin,
    },
    push,
    session::Session,
    setup,
};

pub(crate) const UP_EXAMPLES: &str = "\
Examples:
  kra up                       # send what changed, bring the project up, wait until it is healthy
  kra up --dry-run             # only say what would be done
  kra up -f compose.yaml -f prod.yaml
  kra up --strategy recreate   # stop all containers of a service before the new ones start";

/// How containers of a service make room for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// One by one, where there are several: each new one has to be healthy before an old one stops
    Rolling,
    /// As docker compose does it: for what only one may write
    Recreate,
}

/// Options of `kra up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// A compose file of the project
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// How containers of a service make room for new ones
    #[arg(long, value_enum, default_value_t = Strategy::Rolling)]
    strategy: Strategy,
    /// Take the images that kraud has or pulls; send none
    #[arg(long)]
    no_push: bool,
    /// How many seconds a new container may take until it is healthy
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait_timeout: u64,
    /// The most that the project's mounted files may have, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = files::LIMIT)]
    upload_limit: u64,
    /// The socket of the engine that has the images [default: docker's, else podman's]
    #[arg(long, value_name = "PATH", env = "KR_ENGINE")]
    engine: Option<PathBuf>,
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    types::size::parse(text).map_err(|error| error.message)
}

/// Options of commands that are docker compose's own.
#[derive(Debug, Args)]
pub(crate) struct Pass {
    /// What docker compose gets
    #[arg(
        value_name = "ARGUMENT",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<String>,
}

/// Options of `kra sync`.
#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// A compose file of the project
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Send what has changed until now, and end
    #[arg(long)]
    once: bool,
    /// The most that the project's mounted files may have, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = files::LIMIT)]
    upload_limit: u64,
}

/// Has docker compose do something with the kraud of the session.
pub(crate) async fn pass(session: &Session, verb: &str, options: &Pass) -> Outcome {
    need_plugin()?;
    let environment = setup::environment(session).await?;
    let mut command = with(compose(&[]), &environment);
    command.arg(verb).args(&options.arguments);
    run(command).await
}

fn with(mut command: Command, environment: &[(&'static str, String)]) -> Command {
    for name in [
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
    ] {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Runs a command to its end, with this one's streams.
async fn run(mut command: Command) -> Outcome {
    let status = tokio::task::spawn_blocking(move || command.status())
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| Failure::io("running docker compose", error))?;
    match status.code() {
        Some(0) => Ok(()),
        code => Err(Failure::of_child(code)),
    }
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

/// `kra up`
pub(crate) async fn up(session: &Session, options: &Up) -> Outcome {
    need_plugin()?;
    let project = Project::load(&options.files)?;
    let environment = setup::environment(session).await?;
    let docker = Docker {
        environment,
        files: options.files.clone(),
    };
    let rolling = match options.strategy {
        Strategy::Rolling => docker.outdated(&project)?,
        Strategy::Recreate => Vec::new(),
    };
    if !options.no_push {
        push::project(session, &project, options.engine.clone(), options.dry_run).await?;
    }
    files::upload(
        &session.client,
        &project,
        options.upload_limit,
        options.dry_run,
    )
    .await?;
    for (service, old) in &rolling {
        eprintln!(
            "{service}: {} containers, replaced one by one if they are not up to date",
            old.len()
        );
    }
    if options.dry_run {
        let mut plan = docker.compose();
        plan.args(["up", "--detach", "--dry-run"]);
        return run(plan).await;
    }
    // Only now it shows which are: images may have come.
    let patience = Duration::from_secs(options.wait_timeout);
    for (service, old) in rolling {
        let docker = docker.clone();
        tokio::task::spawn_blocking(move || docker.replace(&service, &old, patience))
            .await
            .unwrap_or_else(|error| {
                Err(Failure::io(
                    "replacing containers",
                    std::io::Error::other(error),
                ))
            })?;
    }
    let mut last = docker.compose();
    last.args([
        "up",
        "--detach",
        "--wait",
        "--wait-timeout",
        &options.wait_timeout.to_string(),
    ]);
    run(last).await
}

/// `kra sync`
pub(crate) async fn sync(session: &Session, options: &Sync) -> Outcome {
    const PAUSE: Duration = Duration::from_millis(500);
    if files::are_there(&session.client) {
        return Err(Failure::usage(
            "this kraud is on the same machine: it mounts the files themselves",
        ));
    }
    let project = Project::load(&options.files)?;
    let mut there = Files::there(&session.client, &project).await?;
    let mut cache = Cache::new();
    loop {
        let now = Files::collect(&project, options.upload_limit, &mut cache)?;
        let change = now.change_from(&there);
        if !change.is_empty() {
            now.send(&session.client, &project, &change).await?;
            for path in &change.sent {
                eprintln!("sent /{path}");
            }
            for path in &change.removed {
                eprintln!("removed /{path}");
            }
            there = now;
        }
        if options.once {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// docker and docker compose, for the kraud of a session.
#[derive(Debug, Clone)]
struct Docker {
    environment: Vec<(&'static str, String)>,
    files: Vec<PathBuf>,
}

impl Docker {
    fn compose(&self) -> Command {
        with(compose(&self.files), &self.environment)
    }

    fn docker(&self) -> Command {
        with(Command::new("docker"), &self.environment)
    }

    /// Ids of a service's containers that run.
    fn containers(&self, service: &str) -> Outcome<Vec<String>> {
        let mut command = self.compose();
        command.args(["ps", "--quiet", "--status", "running", service]);
        Ok(output(command)?.lines().map(str::to_owned).collect())
    }

    /// Services of several containers, with those that run.
    fn outdated(&self, project: &Project) -> Outcome<Vec<(String, Vec<String>)>> {
        let mut found = Vec::new();
        for (name, service) in &project.services {
            if service.replicas() > 1 {
                let old = self.containers(name)?;
                if !old.is_empty() {
                    found.push((name.clone(), old));
                }
            }
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

    /// Replaces containers: one by one new ones start beside the old ones, and each has to become
    /// healthy before the next; then the old ones stop, one by one. When a new one fails, all new
    /// ones go, and the old ones have never stopped.
    ///
    /// docker compose would start an old one again that has stopped and is still there, so none
    /// stops before all new ones work; that takes room for as many more.
    fn replace(&self, service: &str, old: &[String], patience: Duration) -> Outcome {
        let fresh = self.up_to_date(service, old)?;
        let old: Vec<&String> = old
            .iter()
            .filter(|id| fresh.get(*id) == Some(&false))
            .collect();
        let mut made: Vec<String> = Vec::new();
        for done in 1..=old.len() {
            match self.start_another(service, patience, &mut made) {
                Ok(new) => eprintln!(
                    "{service}: {done} of {}: {} is healthy",
                    old.len(),
                    short(&new)
                ),
                Err(failure) => {
                    eprintln!("{service}: the old containers go on");
                    let made: Vec<&String> = made.iter().collect();
                    self.on(&["stop"], &made)?;
                    self.on(&["rm"], &made)?;
                    return Err(failure);
                }
            }
        }
        for id in &old {
            self.on(&["stop"], &[id])?;
            self.on(&["rm"], &[id])?;
            eprintln!("{service}: {} has stopped", short(id));
        }
        Ok(())
    }

    /// Starts one more container of a service, and waits until it is healthy.
    fn start_another(
        &self,
        service: &str,
        patience: Duration,
        made: &mut Vec<String>,
    ) -> Outcome<String> {
        let before = self.containers(service)?;
        let mut command = self.compose();
        let scale = format!("{service}={}", before.len() + 1);
        command.args([
            "up",
            "--detach",
            "--no-deps",
            "--no-recreate",
            "--scale",
            &scale,
            service,
        ]);
        let started = output(command);
        let after = self.all_containers(service)?;
        let new: Vec<String> = after
            .into_iter()
            .filter(|id| !before.contains(id) && !made.contains(id))
            .collect();
        made.extend(new.iter().cloned());
        started?;
        let Some(id) = new.into_iter().next() else {
            return Err(Failure::usage(format!(
                "{service}: docker compose has started no new container"
            )));
        };
        self.wait_until_healthy(service, &id, patience)?;
        Ok(id)
    }

    /// Ids of a service's containers, those too that have ended just now.
    fn all_containers(&self, service: &str) -> Outcome<Vec<String>> {
        let mut command = self.compose();
        command.args(["ps", "--all", "--quiet", service]);
        Ok(output(command)?.lines().map(str::to_owned).collect())
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
    fn on(&self, verb: &[&str], containers: &[&String]) -> Outcome {
        if containers.is_empty() {
            return Ok(());
        }
        let mut command = self.docker();
        command.args(verb).args(containers);
        output(command).map(drop)
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
