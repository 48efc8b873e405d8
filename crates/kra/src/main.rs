//! `kra`: the command line of kraud's users.
//!
//! One file per command. A command asks the client, and prints; it decides nothing that
//! kraud could decide.

mod blocking;
mod cli;
mod contexts;
mod exit;
mod login;
mod man;
mod place;
mod pool;
mod progress;
mod project;
mod push;
mod rolling;
mod session;
mod setup;
mod token;
mod up;
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
        Command::Logout => return login::logout(cli.context.as_deref()),
        Command::Context { command } => return login::context(&command),
        command => command,
    };
    let session = match command {
        // There is none before.
        Command::Login(_) => None,
        _ => Some(Session::new(cli.host.as_deref(), cli.context.as_deref())?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("starting the async runtime", error))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = async {
                match (command, &session) {
                    (Command::Login(options), _) => login::login(cli.host.as_deref(), &options).await,
                    (command, Some(session)) => run(session, command).await,
                    (_, None) => Ok(()),
                }
            } => outcome,
            _ = tokio::signal::ctrl_c() => {
                tokio::select! {
                    () = rolling::wind_up() => {}
                    // Whoever says it twice means it.
                    _ = tokio::signal::ctrl_c() => {}
                }
                Err(Failure::interrupted())
            }
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
        Command::Up(options) => up::up(session, &options).await,
        Command::Down(options) => up::pass(session, "down", &options).await,
        Command::Ps(options) => up::pass(session, "ps", &options).await,
        Command::Logs(options) => up::pass(session, "logs", &options).await,
        Command::Exec(options) => up::pass(session, "exec", &options).await,
        Command::Events(options) => up::pass(session, "events", &options).await,
        Command::Sync(options) => up::sync(session, &options).await,
        Command::Push(options) => push::run(session, &options).await,
        Command::Version(options) => version::run(session, &options).await,
        Command::Whoami(options) => login::whoami(session, &options).await,
        Command::Usage(options) => login::usage(session, &options).await,
        Command::Token { command } => token::run(session, command).await,
        Command::Setup { command } => setup::run(session, command).await,
        Command::Login(_)
        | Command::Logout
        | Command::Context { .. }
        | Command::Completions { .. }
        | Command::Man { .. } => Ok(()),
    }
}
