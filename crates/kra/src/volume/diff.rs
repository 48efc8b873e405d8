//! `kra volume diff`.

use clap::Args;
use term::Format;
use types::native::ChangeKind;

use super::about;
use crate::{exit::Outcome, progress, session::Session};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volume
    volume: String,
    /// The snapshot to compare with
    from: String,
    /// Another snapshot; without, the volume as it is now
    to: Option<String>,
    /// Print paths only
    #[arg(short, long)]
    quiet: bool,
    /// How to print it: the table has A for added, C for changed, D for removed
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let changes = progress::waiting(
        "comparing",
        session
            .client
            .volume_diff(&options.volume, &options.from, options.to.as_deref()),
    )
    .await
    .map_err(|error| about(&options.volume, error))?;
    if options.output == Format::Json {
        return Ok(term::json(&changes)?);
    }
    let mut text = String::new();
    for change in &changes {
        if !options.quiet {
            text.push_str(match change.kind {
                ChangeKind::Added => "A ",
                ChangeKind::Changed => "C ",
                ChangeKind::Removed => "D ",
            });
        }
        text.push_str(&term::safe(&change.path));
        text.push('\n');
    }
    Ok(term::print(&text)?)
}
