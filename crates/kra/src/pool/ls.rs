//! `kra pool ls`.

use clap::Args;
use term::Format;

use crate::{exit::Outcome, session::Session};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let pools = session.client.pools().await?;
    if options.quiet {
        return Ok(term::print(
            &pools
                .iter()
                .map(|pool| format!("{}\n", pool.name))
                .collect::<String>(),
        )?);
    }
    match options.output {
        Format::Json => term::json(&pools)?,
        Format::Table => term::pools::table(&pools).print()?,
    }
    Ok(())
}
