//! `kra volume`.

mod clone;
mod cp;
mod create;
mod diff;
mod inspect;
mod ls;
mod ls_files;
mod resize;
mod rm;
mod rollback;
mod snapshot;
mod usage;

use clap::Subcommand;
use types::native::Volume;

use crate::{
    exit::{Code, Failure, Outcome},
    session::Session,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the volumes
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  kra volume ls\n  kra volume ls --class lv2\n  kra volume ls -o json\n  kra volume ls -q"
    )]
    Ls(ls::Options),
    /// Show all about volumes
    #[command(
        after_help = "Examples:\n  kra volume inspect data\n  kra volume inspect data other -o json"
    )]
    Inspect(inspect::Options),
    /// Make a volume
    #[command(after_help = create::EXAMPLES)]
    Create(Box<create::Options>),
    /// Remove volumes with all their snapshots
    #[command(
        visible_alias = "remove",
        after_help = "Examples:\n  kra volume rm data\n  kra volume rm -f data other"
    )]
    Rm(rm::Options),
    /// Make a volume larger, while it is in use
    #[command(after_help = "Examples:\n  kra volume resize data 20G\n  kra volume resize data +5G")]
    Resize(resize::Options),
    /// Show what volumes take, live data and snapshots apart
    #[command(
        after_help = "Examples:\n  kra volume usage\n  kra volume usage data\n  kra volume usage -o json"
    )]
    Usage(usage::Options),
    /// Make an independent copy of a volume or of a snapshot, in no time
    #[command(
        after_help = "Examples:\n  kra volume clone data copy\n  kra volume clone data@monday copy"
    )]
    Clone(clone::Options),
    /// Make a volume's content that of a snapshot; what it was is kept as a snapshot too
    #[command(
        after_help = "Examples:\n  kra volume rollback data monday\n  kra volume rollback data monday --restart"
    )]
    Rollback(rollback::Options),
    /// List what changed from a snapshot to another, or to now
    #[command(
        after_help = "Examples:\n  kra volume diff data monday\n  kra volume diff data monday tuesday -o json"
    )]
    Diff(diff::Options),
    /// List files of a volume or of a snapshot
    #[command(
        visible_alias = "files",
        after_help = "Examples:\n  kra volume ls-files data\n  kra volume ls-files data@monday:/etc\n  kra volume ls-files data:/etc -o json"
    )]
    LsFiles(ls_files::Options),
    /// Copy files out of a volume or a snapshot, and into a volume
    #[command(after_help = cp::EXAMPLES)]
    Cp(cp::Options),
    /// Snapshots of volumes
    #[command(visible_alias = "snap", arg_required_else_help = true)]
    Snapshot {
        #[command(subcommand)]
        command: snapshot::Command,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Ls(options) => ls::run(session, &options).await,
        Command::Inspect(options) => inspect::run(session, &options).await,
        Command::Create(options) => create::run(session, *options).await,
        Command::Rm(options) => rm::run(session, &options).await,
        Command::Resize(options) => resize::run(session, &options).await,
        Command::Usage(options) => usage::run(session, &options).await,
        Command::Clone(options) => clone::run(session, options).await,
        Command::Rollback(options) => rollback::run(session, options).await,
        Command::Diff(options) => diff::run(session, &options).await,
        Command::LsFiles(options) => ls_files::run(session, &options).await,
        Command::Cp(options) => cp::run(session, options).await,
        Command::Snapshot { command } => snapshot::run(session, command).await,
    }
}

/// A failure about volume `name`, with what to do next.
fn about(name: &str, error: client::Error) -> Failure {
    let snapshot = error.to_string().contains("snapshot");
    Failure::from(error).hint_if(Code::NotFound, || {
        if snapshot {
            format!("kra volume snapshot ls {name} lists the snapshots")
        } else {
            "kra volume ls lists the volumes".into()
        }
    })
}

/// Some volumes by name, or all.
async fn some_or_all(session: &Session, names: &[String]) -> Outcome<Vec<Volume>> {
    if names.is_empty() {
        return Ok(session.client.volumes().await?);
    }
    let mut volumes = Vec::new();
    for name in names {
        let found = session.client.volume(name).await;
        volumes.push(found.map_err(|error| about(name, error))?);
    }
    Ok(volumes)
}

/// Does something with each name, says what went wrong with which, and goes on.
async fn each<'a, F>(names: &'a [String], mut work: impl FnMut(&'a str) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let mut first = None;
    for name in names {
        if let Err(failure) = work(name).await {
            failure.say();
            first.get_or_insert(failure.code);
        }
    }
    first.map_or(Ok(()), |code| Err(Failure::reported(code)))
}

/// Prints one name a line.
fn print_names<T: ToString>(names: impl IntoIterator<Item = T>) -> Outcome {
    let text: String = names
        .into_iter()
        .map(|name| format!("{}\n", term::safe(&name.to_string())))
        .collect();
    Ok(term::print(&text)?)
}

/// A size, or what stands for none.
fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), term::bytes)
}
