//! Quotas and use in words, for both command lines.

use types::native::QuotaUse;

use crate::{Table, bytes};

/// What there is and what there may be, one thing in a row.
pub fn table(found: &QuotaUse) -> Table {
    let mut table = Table::new(&["WHAT", ">USED", ">QUOTA"]);
    let quota = &found.quota;
    let none = || "-".to_owned();
    let mut row = |what: &str, used: Option<String>, limit: Option<String>| {
        table.row([
            what.to_owned(),
            used.unwrap_or_else(none),
            limit.unwrap_or_else(none),
        ]);
    };
    let count = |value: u64| value.to_string();
    row(
        "containers",
        Some(count(found.containers)),
        quota.containers.map(count),
    );
    row("memory", found.memory.map(bytes), quota.memory.map(bytes));
    row("cpus", None, quota.cpus.map(|cpus| cpus.to_string()));
    row("pids", found.pids.map(count), quota.pids.map(count));
    row("disk bytes/s", None, quota.io.map(bytes));
    row("disk operations/s", None, quota.iops.map(count));
    row("disk", found.disk.map(bytes), quota.disk.map(bytes));
    row("images", Some(bytes(found.images)), quota.images.map(bytes));
    row(
        "published ports",
        Some(count(found.ports)),
        quota.ports.map(count),
    );
    row(
        "snapshots",
        Some(count(found.snapshots)),
        quota.snapshots.map(count),
    );
    for (class, used) in &found.volumes {
        row(
            &format!("volumes of class {}", class.as_str()),
            Some(bytes(*used)),
            quota.volumes.get(class).copied().map(bytes),
        );
    }
    table
}
