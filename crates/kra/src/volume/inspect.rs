//! `kra volume inspect`.

use clap::Args;
use term::{Format, Table};
use types::{Time, native::Volume};

use super::{ls::health, size, some_or_all};
use crate::{exit::Outcome, session::Session};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let volumes = some_or_all(session, &options.names).await?;
    match options.output {
        Format::Json => term::json(&volumes)?,
        Format::Table => {
            let now = Time::now();
            let texts: Vec<String> = volumes.iter().map(|one| facts(one, now).text()).collect();
            term::print(&texts.join("\n"))?;
        }
    }
    Ok(())
}

fn facts(volume: &Volume, now: Time) -> Table {
    let when = |time: Option<Time>| {
        time.map_or_else(String::new, |time| {
            format!("{} UTC ({})", term::moment(time), term::age(time, now))
        })
    };
    let mut facts = Table::of_facts();
    for (name, value) in [
        ("Name", volume.name.to_string()),
        ("Id", volume.id.short().to_owned()),
        ("Class", volume.class.to_string()),
        ("Health", health(volume)),
        ("Redundancy", volume.redundancy.clone()),
        ("Pool", format!("{} ({})", volume.pool, volume.engine)),
        ("Node", volume.node.clone()),
        ("Zone", volume.zone.clone().unwrap_or_default()),
        (
            "Size",
            volume
                .size
                .map_or_else(|| "as much as the pool has".into(), term::bytes),
        ),
        (
            "File system",
            volume.fs.map(|fs| fs.to_string()).unwrap_or_default(),
        ),
        ("Used", size(volume.usage.map(|usage| usage.total))),
        ("  live", size(volume.usage.map(|usage| usage.live))),
        (
            "  only snapshots",
            size(volume.usage.map(|usage| usage.snapshots)),
        ),
        ("Snapshots", volume.snapshots.to_string()),
        ("  last", when(volume.last_snapshot)),
        ("  next", when(volume.next_snapshot)),
        ("  schedule", volume.schedule.to_string()),
        ("Used by", users(volume)),
        ("Created", when(Some(volume.created))),
        ("Labels", pairs(&volume.labels)),
        ("Options", pairs(&volume.options)),
    ] {
        if !value.is_empty() {
            facts.row([name.to_owned(), value]);
        }
    }
    facts
}

fn users(volume: &Volume) -> String {
    let words: Vec<String> = volume
        .attached_to
        .iter()
        .map(|one| {
            let state = if one.running { "running" } else { "stopped" };
            format!("{} ({}, {state})", one.name, one.id.short())
        })
        .collect();
    words.join(", ")
}

fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    let words: Vec<String> = map
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    words.join(" ")
}
