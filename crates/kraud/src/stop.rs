//! `kraud stop`.

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{cli, config::Config, instance::Instance};

/// How long the daemon may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops the daemon of a data directory. Fine when none runs.
pub(crate) fn run(options: &cli::Stop) -> anyhow::Result<ExitCode> {
    let config = Config::load(&options.place)?;
    if !config.data_dir.exists() {
        println!("there is no kraud in {}", config.data_dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let instance = Instance::of(&config.data_dir)?;
    let pid = daemon(&instance);
    if options.containers {
        if pid.is_none() {
            bail!(
                "kraud does not run on {}: start it (kraud serve) to stop its containers",
                config.data_dir.display()
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the async runtime")?;
        let stopped = runtime.block_on(stop_containers(&config.socket))?;
        println!("stopped {stopped} containers");
    }
    let Some(pid) = pid else {
        println!("kraud does not run on {}", config.data_dir.display());
        return Ok(ExitCode::SUCCESS);
    };
    kill(pid, Signal::SIGTERM).with_context(|| format!("sending SIGTERM to process {pid}"))?;
    let begun = std::time::Instant::now();
    while daemon(&instance).is_some() {
        if begun.elapsed() > PATIENCE {
            bail!(
                "process {pid} has not ended within {} s; see its log",
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("stopped kraud (process {pid})");
    Ok(ExitCode::SUCCESS)
}

/// The running daemon, if any. A pid file outlives a killed daemon, and its number may by
/// now be somebody else's: the command line tells.
fn daemon(instance: &Instance) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(instance.pid_file())
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == "kraud").then(|| Pid::from_raw(pid))
}

/// Asks the daemon to stop every container, those of tenants too; returns how many it stopped.
async fn stop_containers(socket: &std::path::Path) -> anyhow::Result<u64> {
    let client = client::Client::new(client::Host::Unix(socket.to_owned()));
    Ok(client.stop().await?)
}
