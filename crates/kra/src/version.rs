//! `kra version`.

use clap::Args;
use serde::Serialize;
use term::{Format, Table};

use crate::{exit::Outcome, session::Session};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Versions {
    kra: &'static str,
    host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kraud: Option<types::native::Version>,
}

/// Prints kra's own version even if there is no kraud.
pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let asked = session.client.version().await;
    let versions = Versions {
        kra: env!("CARGO_PKG_VERSION"),
        host: session.client.host().to_string(),
        kraud: asked.as_ref().ok().cloned(),
    };
    match options.output {
        Format::Json => term::json(&versions)?,
        Format::Table => {
            let mut facts = Table::of_facts();
            facts.row(["kra".into(), versions.kra.into()]);
            if let Some(kraud) = &versions.kraud {
                facts.row(["kraud".into(), kraud.version.clone()]);
                facts.row(["native API".into(), kraud.api.clone()]);
            }
            facts.row(["host".into(), versions.host]);
            facts.print()?;
        }
    }
    asked?;
    Ok(())
}
