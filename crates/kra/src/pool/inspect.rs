//! `kra pool inspect`.

use clap::Args;
use term::Format;

use crate::{
    exit::{Code, Failure, Outcome},
    session::Session,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The pools
    #[arg(required = true, value_name = "POOL")]
    names: Vec<String>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let mut pools = Vec::new();
    for name in &options.names {
        pools.push(session.client.pool(name).await.map_err(|error| {
            Failure::from(error).hint_if(Code::NotFound, || "kra pool ls lists the pools".into())
        })?);
    }
    match options.output {
        Format::Json => term::json(&pools)?,
        Format::Table => {
            let texts: Vec<String> = pools
                .iter()
                .map(|pool| term::pools::facts(pool).text())
                .collect();
            term::print(&texts.join("\n"))?;
        }
    }
    Ok(())
}
