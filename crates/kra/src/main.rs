//! `kra`: the command line of kraud's users.
//!
//! One file per command. A command asks the client, and prints; it decides nothing that
//! kraud could decide.

mod cli;
mod exit;
mod man;
mod place;
mod pool;
mod progress;
mod session;
mod version;
mod volume;

use std::process::ExitCode;

use clap::Parser as _;

use self::{
    cli::{Cli, Command},
    exit::{Failure, Outcome},
    session::Session,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn start(cli: Cli) -> Outcome {
    let command = match cli.command {
        Command::Completions { shell } => return cli::completions(shell),
        Command::Man { dir } => return man::write(&dir),
        command => command,
    };
    let session = Session::new(cli.host.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("starting the async runtime", error))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run(&session, command) => outcome,
            _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
        }
    });
    // A thread that still waits for a file or a socket must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn run(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Volume { command } => volume::run(session, command).await,
        Command::Pool { command } => pool::run(session, command).await,
        Command::Version(options) => version::run(session, &options).await,
        Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}
