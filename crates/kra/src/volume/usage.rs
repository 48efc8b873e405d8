//! `kra volume usage`.

use clap::Args;
use serde::Serialize;
use term::{Format, Table};
use types::native::{Volume, VolumeUsage};

use super::{size, some_or_all};
use crate::{exit::Outcome, session::Session};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volumes; all without any
    #[arg(value_name = "VOLUME")]
    names: Vec<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    size: Option<u64>,
    snapshots: usize,
    usage: Option<VolumeUsage>,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let mut volumes = some_or_all(session, &options.names).await?;
    if options.names.is_empty() {
        // What takes most is looked for.
        volumes.sort_by_key(|volume| std::cmp::Reverse(volume.usage.map(|usage| usage.total)));
    }
    match options.output {
        Format::Json => {
            let rows: Vec<Row<'_>> = volumes
                .iter()
                .map(|volume| Row {
                    name: volume.name.as_str(),
                    size: volume.size,
                    snapshots: volume.snapshots,
                    usage: volume.usage,
                })
                .collect();
            term::json(&rows)?;
        }
        Format::Table => table(&volumes).print()?,
    }
    Ok(())
}

fn table(volumes: &[Volume]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        ">SIZE",
        ">LIVE",
        ">ONLY SNAPSHOTS",
        ">TOTAL",
        ">USED",
        ">SNAPSHOTS",
    ]);
    for volume in volumes {
        let of = |part: fn(VolumeUsage) -> u64| size(volume.usage.map(part));
        table.row([
            volume.name.to_string(),
            size(volume.size),
            of(|usage| usage.live),
            of(|usage| usage.snapshots),
            of(|usage| usage.total),
            percent(volume),
            volume.snapshots.to_string(),
        ]);
    }
    table
}

/// How much of the size is taken.
fn percent(volume: &Volume) -> String {
    match (volume.usage, volume.size) {
        (Some(usage), Some(size)) if size > 0 => {
            format!("{:.0}%", usage.total as f64 * 100.0 / size as f64)
        }
        _ => "-".into(),
    }
}
