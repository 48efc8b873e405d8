//! Pools in words, for both command lines.

use types::native::{Pool, PoolSource};

use crate::{Table, bytes};

/// All pools, one in a row.
pub fn table(pools: &[Pool]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "ENGINE",
        ">TOTAL",
        ">USED",
        ">FREE",
        ">VOLUMES",
        "REDUNDANCY",
        "HEALTH",
    ]);
    for pool in pools {
        table.row([
            pool.name.to_string(),
            pool.engine.to_string(),
            bytes(pool.total),
            bytes(pool.used),
            bytes(pool.free),
            pool.volumes.to_string(),
            pool.redundancy.clone(),
            health(pool),
        ]);
    }
    table
}

fn health(pool: &Pool) -> String {
    match &pool.status {
        Some(status) => format!("{}: {status}", pool.health.as_str()),
        None => pool.health.as_str().to_owned(),
    }
}

/// One pool, one fact in a row.
pub fn facts(pool: &Pool) -> Table {
    let mut facts = Table::of_facts();
    let source = match &pool.source {
        PoolSource::File { size, path } => match path {
            Some(path) => format!("file {} of {}", path.display(), bytes(*size)),
            None => format!("file of {}", bytes(*size)),
        },
        PoolSource::Devices { mirror: true, .. } => "devices, mirrored".into(),
        PoolSource::Devices { .. } => "devices".into(),
        PoolSource::Directory { path } => format!("directory {}", path.display()),
    };
    let devices: Vec<String> = pool
        .devices
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    for (name, value) in [
        ("Name", pool.name.to_string()),
        ("Engine", pool.engine.to_string()),
        ("Node", pool.node.clone()),
        ("Health", health(pool)),
        ("Source", source),
        ("Devices", devices.join(", ")),
        ("Redundancy", pool.redundancy.clone()),
        ("Copies", pool.copies.to_string()),
        ("Total", bytes(pool.total)),
        ("Used", bytes(pool.used)),
        ("Free", bytes(pool.free)),
        ("Volumes", pool.volumes.to_string()),
        ("Mounted at", pool.root.display().to_string()),
    ] {
        if !value.is_empty() {
            facts.row([name.to_owned(), value]);
        }
    }
    facts
}
