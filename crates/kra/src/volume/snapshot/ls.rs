//! `kra volume snapshot ls`.

use clap::Args;
use term::{Format, Table};
use types::{Time, native::Snapshot};

use crate::{
    exit::Outcome,
    session::Session,
    volume::{about, print_names, size},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volume
    volume: String,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let snapshots = session
        .client
        .snapshots(&options.volume)
        .await
        .map_err(|error| about(&options.volume, error))?;
    if options.quiet {
        return print_names(snapshots.iter().map(|snapshot| &snapshot.name));
    }
    match options.output {
        Format::Json => term::json(&snapshots)?,
        Format::Table => table(&snapshots, Time::now()).print()?,
    }
    Ok(())
}

fn table(snapshots: &[Snapshot], now: Time) -> Table {
    let used = snapshots.iter().any(|snapshot| snapshot.used.is_some());
    let mut heads = vec!["NAME", "CREATED (UTC)", "AGE", "ORIGIN"];
    if used {
        heads.push(">USED");
    }
    let mut table = Table::new(&heads);
    for snapshot in snapshots {
        let mut row = vec![
            snapshot.name.to_string(),
            term::moment(snapshot.created),
            term::age(snapshot.created, now),
            match snapshot.period {
                Some(period) => format!("{} ({period})", snapshot.origin.as_str()),
                None => snapshot.origin.as_str().into(),
            },
        ];
        if used {
            row.push(size(snapshot.used));
        }
        table.row(row);
    }
    table
}
