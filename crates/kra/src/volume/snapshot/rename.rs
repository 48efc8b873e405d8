//! `kra volume snapshot rename`.

use clap::Args;

use crate::{exit::Outcome, session::Session, volume::about};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volume
    volume: String,
    /// The snapshot's name
    old: String,
    /// Its new name
    new: String,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let renamed = session
        .client
        .snapshot_rename(&options.volume, &options.old, &options.new)
        .await
        .map_err(|error| about(&options.volume, error))?;
    term::line(renamed.name.as_str())?;
    Ok(())
}
