//! `kra volume resize`.

use clap::Args;
use types::size;

use super::about;
use crate::{
    exit::{Failure, Outcome},
    progress,
    session::Session,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volume
    volume: String,
    /// Its new size, or how much is added: 20G, +5G
    #[arg(allow_hyphen_values = true)]
    size: String,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let name = &options.volume;
    let wanted = match options.size.strip_prefix('+') {
        None => number(&options.size)?,
        Some(more) => {
            let volume = session.client.volume(name).await;
            let now = volume
                .map_err(|error| about(name, error))?
                .size
                .ok_or_else(|| {
                    Failure::usage(format!(
                        "{name} has no size that could be added to: give a size without +"
                    ))
                })?;
            now.saturating_add(number(more)?)
        }
    };
    let volume = progress::waiting("resizing", session.client.volume_resize(name, wanted))
        .await
        .map_err(|error| about(name, error))?;
    term::line(&format!("{name}: {}", super::size(volume.size)))?;
    Ok(())
}

fn number(text: &str) -> Outcome<u64> {
    size::parse(text).map_err(|_| {
        Failure::usage(format!(
            "{text:?} is not a size; want a number and a unit, such as 20G or +5G"
        ))
    })
}
