//! `kra volume ls`.

use clap::Args;
use term::{Format, Table};
use types::{Time, native::Volume, volume::Class};

use super::{print_names, size};
use crate::{exit::Outcome, session::Session};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only those of a class
    #[arg(long, value_name = "CLASS")]
    class: Option<Class>,
    /// Only those on a pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let mut volumes = session.client.volumes().await?;
    volumes.retain(|volume| {
        options.class.is_none_or(|class| volume.class == class)
            && options
                .pool
                .as_deref()
                .is_none_or(|pool| volume.pool.as_str() == pool)
    });
    if options.quiet {
        return print_names(volumes.iter().map(|volume| &volume.name));
    }
    match options.output {
        Format::Json => term::json(&volumes)?,
        Format::Table => table(&volumes, Time::now()).print()?,
    }
    Ok(())
}

fn table(volumes: &[Volume], now: Time) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "CLASS",
        "POOL",
        ">SIZE",
        ">USED",
        ">SNAPSHOTS",
        "LAST SNAPSHOT",
        "IN USE BY",
        "HEALTH",
    ]);
    for volume in volumes {
        table.row([
            volume.name.to_string(),
            volume.class.to_string(),
            volume.pool.to_string(),
            size(volume.size),
            size(volume.usage.map(|usage| usage.total)),
            volume.snapshots.to_string(),
            volume
                .last_snapshot
                .map_or_else(|| "never".into(), |time| term::age(time, now)),
            users(volume),
            volume.health.as_str().into(),
        ]);
    }
    table
}

/// Names of the running containers that use it, shortened.
fn users(volume: &Volume) -> String {
    let running: Vec<&str> = volume
        .attached_to
        .iter()
        .filter(|container| container.running)
        .map(|container| container.name.as_str())
        .collect();
    match running.as_slice() {
        [] => "-".into(),
        [one] => (*one).into(),
        [one, two] => format!("{one}, {two}"),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

/// Health with what is wrong, where something is.
pub(super) fn health(volume: &Volume) -> String {
    match &volume.status {
        Some(status) => format!("{}: {status}", volume.health.as_str()),
        None => volume.health.as_str().into(),
    }
}
