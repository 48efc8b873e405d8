//! `kra pool`: a look at the pools. Making them is the operator's, with `kraud pool`.

mod inspect;
mod ls;

use clap::Subcommand;

use crate::{exit::Outcome, session::Session};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the pools
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  kra pool ls\n  kra pool ls -o json\n  kra pool ls -q"
    )]
    Ls(ls::Options),
    /// Show all about pools
    #[command(
        after_help = "Examples:\n  kra pool inspect default\n  kra pool inspect default fast -o json"
    )]
    Inspect(inspect::Options),
}

pub(crate) async fn run(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Ls(options) => ls::run(session, &options).await,
        Command::Inspect(options) => inspect::run(session, &options).await,
    }
}
