//! `kra volume rollback`.

use clap::Args;
use term::Format;
use types::native::{Rollback, RollbackRequest};

use super::about;
use crate::{
    exit::{Code, Outcome},
    progress,
    session::Session,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volume
    volume: String,
    /// The snapshot to go back to
    snapshot: String,
    /// Stop the containers that use it, and start them again afterwards
    #[arg(long)]
    restart: bool,
    /// Print the name of the snapshot of what it was, and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// How to print what was done
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: Options) -> Outcome {
    let wanted = RollbackRequest {
        snapshot: options.snapshot,
        restart: options.restart,
    };
    let name = &options.volume;
    let done = progress::waiting(
        &format!("rolling {name} back"),
        session.client.volume_rollback(name, &wanted),
    )
    .await
    .map_err(|error| {
        about(name, error).hint_if(Code::Conflict, || {
            "--restart stops the containers that use it, and starts them again afterwards".into()
        })
    })?;
    match options.output {
        Format::Json => term::json(&done)?,
        Format::Table if options.quiet => term::line(done.safety.as_str())?,
        Format::Table => term::print(&told(&done))?,
    }
    Ok(())
}

fn told(done: &Rollback) -> String {
    let Rollback {
        volume,
        snapshot,
        safety,
        restarted,
    } = done;
    let mut text = format!("{volume} is as it was at {snapshot}\n");
    if !restarted.is_empty() {
        let names: Vec<String> = restarted.iter().map(|one| term::safe(&one.name)).collect();
        text.push_str(&format!("started again: {}\n", names.join(", ")));
    }
    text.push_str(&format!(
        "what it was before is {safety}; to undo this: kra volume rollback {volume} {safety}\n"
    ));
    text
}
