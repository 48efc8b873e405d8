//! The daemon's binary: configuration, wiring of concrete drivers, subcommands.

mod audit;
mod cli;
mod config;
mod doctor;
mod instance;
mod notify;
mod pool;
mod serve;
mod stop;
mod tenant;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = match cli.command {
        cli::Command::Serve(options) => serve::run(&options),
        cli::Command::Stop(options) => stop::run(&options),
        cli::Command::Doctor(options) => doctor::run(&options),
        cli::Command::Pool(options) => pool::run(&options),
        cli::Command::Tenant(options) => tenant::run(&options),
        cli::Command::Audit(options) => audit::run(&options),
        cli::Command::Fingerprint(options) => tenant::fingerprint(&options, false),
        cli::Command::RotateAuthority(options) => tenant::fingerprint(&options, true),
        cli::Command::Completions { shell } => {
            cli::completions(shell);
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Man { dir } => cli::man_pages(&dir).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kraud: {error:#}");
            ExitCode::FAILURE
        }
    }
}
