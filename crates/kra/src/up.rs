//! `kra up` and its kin: a compose project on kraud, with its images and its files.
//!
//! What a project is and how it is brought up is docker compose's business. Before it, kra sends
//! what kraud lacks, and replaces services of several containers one by one.

use std::{collections::BTreeSet, path::PathBuf, process::Command, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    blocking::blocking,
    exit::{Code, Failure, Outcome},
    project::{
        Project, compose,
        files::{self, Cache, Files},
        need_plugin,
    },
    push,
    rolling::Docker,
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
    blocking(need_plugin).await?;
    let environment = setup::environment(session).await?;
    let mut command = with(compose(&[]), &environment);
    command.arg(verb).args(&options.arguments);
    run(command).await
}

pub(crate) fn with(mut command: Command, environment: &[(&'static str, String)]) -> Command {
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
    let status = blocking(move || {
        let status = command.status();
        status.map_err(|error| Failure::io("running docker compose", error))
    })
    .await?;
    match status.code() {
        Some(0) => Ok(()),
        code => Err(Failure::of_child(code)),
    }
}

/// The project here, or of the files that are named.
pub(crate) async fn load(files: &[PathBuf]) -> Outcome<Arc<Project>> {
    let files = files.to_vec();
    blocking(move || Project::load(&files)).await.map(Arc::new)
}

/// `kra up`
pub(crate) async fn up(session: &Session, options: &Up) -> Outcome {
    blocking(need_plugin).await?;
    let project = load(&options.files).await?;
    let environment = setup::environment(session).await?;
    let docker = Docker::new(environment, &options.files, &project);
    let rolling = match options.strategy {
        Strategy::Rolling => {
            let (docker, project) = (docker.clone(), project.clone());
            blocking(move || docker.rolling(&project)).await?
        }
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
    for service in &rolling {
        eprintln!(
            "{}: {} containers, replaced one by one if they are not up to date",
            service.name, service.running
        );
    }
    if options.dry_run {
        let mut plan = docker.compose();
        plan.args(["up", "--detach", "--dry-run"]);
        return run(plan).await;
    }
    // Only now it shows which are: images may have come.
    let patience = Duration::from_secs(options.wait_timeout);
    let replacing = docker.clone();
    blocking(move || {
        let mut brought = BTreeSet::new();
        rolling
            .iter()
            .try_for_each(|service| replacing.replace(service, &mut brought, patience))
    })
    .await?;
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
    const AGAIN: Duration = Duration::from_secs(2);
    let client = &session.client;
    if files::are_there(client) {
        return Err(Failure::usage(
            "this kraud is on the same machine: it mounts the files themselves",
        ));
    }
    let project = load(&options.files).await?;
    let mut there = Files::there(client, &project).await?;
    let mut cache = Cache::new();
    let mut failed = false;
    loop {
        let now;
        (now, cache) = Files::collect(&project, options.upload_limit, cache).await?;
        let change = now.change_from(&there);
        let sent = match change.is_empty() {
            true => Ok(0),
            false => now.send(client, &project, &there, &change).await,
        };
        match sent {
            Ok(_) => {
                for path in &change.sent {
                    eprintln!("sent /{path}");
                }
                for path in &change.removed {
                    eprintln!("removed /{path}");
                }
                there = now;
                failed = false;
            }
            // Who watches waits until kraud is there again, or a file that was just being saved.
            Err(failure)
                if !options.once
                    && matches!(
                        failure.code,
                        Code::Unreachable | Code::Unavailable | Code::Failed
                    ) =>
            {
                if !failed {
                    failure.say();
                    eprintln!("it is tried again until it works");
                }
                failed = true;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(failure) => return Err(failure),
        }
        if options.once {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
