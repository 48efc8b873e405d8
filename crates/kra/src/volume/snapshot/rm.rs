//! `kra volume snapshot rm`.

use clap::Args;

use crate::{
    exit::Outcome,
    progress,
    session::Session,
    volume::{about, each},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volume
    volume: String,
    /// The snapshots
    #[arg(required = true, value_name = "SNAPSHOT")]
    names: Vec<String>,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    each(&options.names, |name| async move {
        progress::waiting(
            &format!("removing {name}"),
            session.client.snapshot_remove(&options.volume, name),
        )
        .await
        .map_err(|error| about(&options.volume, error))?;
        Ok(term::line(name)?)
    })
    .await
}
