//! `kra volume rm`.

use clap::Args;

use super::{about, each};
use crate::{
    exit::{Code, Outcome},
    progress,
    session::Session,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
    /// A volume that does not exist is fine
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    each(&options.names, |name| async move {
        progress::waiting(
            &format!("removing {name}"),
            session.client.volume_remove(name, options.force),
        )
        .await
        .map_err(|error| {
            about(name, error).hint_if(Code::Conflict, || {
                format!("docker ps -a --filter volume={name} lists the containers that use it")
            })
        })?;
        Ok(term::line(name)?)
    })
    .await
}
