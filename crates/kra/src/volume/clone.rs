//! `kra volume clone`.

use clap::Args;
use types::{native::VolumeClone, volume::options::Origin};

use super::about;
use crate::{
    exit::{Code, Outcome},
    progress,
    session::Session,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to copy
    #[arg(value_name = "VOLUME[@SNAPSHOT]")]
    source: Origin,
    /// The name of the copy
    name: String,
}

pub(crate) async fn run(session: &Session, options: Options) -> Outcome {
    let Origin { volume, snapshot } = options.source;
    let wanted = VolumeClone {
        name: options.name,
        snapshot,
    };
    let made = progress::waiting(
        "cloning",
        session.client.volume_clone(volume.as_str(), &wanted),
    )
    .await
    .map_err(|error| {
        about(volume.as_str(), error)
            .hint_if(Code::Conflict, || "choose another name for the copy".into())
    })?;
    term::line(made.name.as_str())?;
    Ok(())
}
