//! `kraud audit`: who did what.

use std::process::ExitCode;

use term::{Format, Table};

use crate::cli;

/// Asks the daemon and prints what it says.
pub(crate) fn run(options: &cli::Audit) -> anyhow::Result<ExitCode> {
    let last = options.last.to_string();
    let mut query: Vec<(&str, &str)> = Vec::new();
    for (name, value) in [
        ("namespace", &options.namespace),
        ("token", &options.token),
        ("call", &options.call),
        ("since", &options.since),
        ("until", &options.until),
    ] {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    if options.failed {
        query.push(("failed", "1"));
    }
    if options.last > 0 {
        query.push(("last", &last));
    }
    crate::tenant::asking(&options.place, async |client| {
        let entries = client.audit(&query).await?;
        match options.output {
            Format::Json => term::json(&entries)?,
            Format::Table => {
                let mut table = Table::new(&[
                    "TIME",
                    "NAMESPACE",
                    "ROLE",
                    "TOKEN",
                    "FROM",
                    ">STATUS",
                    "CALL",
                ]);
                for entry in entries {
                    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
                    table.row([
                        term::moment(entry.time),
                        or_dash(entry.namespace.map(|name| name.to_string())),
                        or_dash(entry.role.map(|role| role.to_string())),
                        or_dash(entry.token.map(|token| token.to_string())),
                        entry.from,
                        entry.status.to_string(),
                        entry.call,
                    ]);
                }
                table.print()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
