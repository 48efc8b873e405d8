//! `kra volume snapshot`.

mod create;
mod ls;
mod rename;
mod rm;

use clap::Subcommand;

use crate::{exit::Outcome, session::Session};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a snapshot of a volume, or of several at one moment
    #[command(after_help = create::EXAMPLES)]
    Create(create::Options),
    /// List a volume's snapshots, the oldest first
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  kra volume snapshot ls data\n  kra volume snapshot ls data -o json\n  kra volume snapshot ls data -q"
    )]
    Ls(ls::Options),
    /// Remove snapshots of a volume
    #[command(
        visible_alias = "remove",
        after_help = "Examples:\n  kra volume snapshot rm data monday\n  kra volume snapshot rm data monday tuesday"
    )]
    Rm(rm::Options),
    /// Give a snapshot another name
    #[command(after_help = "Examples:\n  kra volume snapshot rename data monday before-upgrade")]
    Rename(rename::Options),
}

pub(crate) async fn run(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Create(options) => create::run(session, options).await,
        Command::Ls(options) => ls::run(session, &options).await,
        Command::Rm(options) => rm::run(session, &options).await,
        Command::Rename(options) => rename::run(session, &options).await,
    }
}
