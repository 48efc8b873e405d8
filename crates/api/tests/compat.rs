//! The table of calls against the published specification and the document made from it.

use std::{collections::BTreeSet, path::Path};

/// Method and path of every call of the specification.
const SPEC: &str = include_str!("spec-routes.txt");

#[test]
fn table_names_every_call_of_the_specification() {
    let spec: BTreeSet<&str> = SPEC.lines().filter(|line| !line.is_empty()).collect();
    let rows: Vec<String> = api::docker::table()
        .iter()
        .map(|row| format!("{} {}", row.method, row.path))
        .collect();
    let table: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(table.len(), rows.len(), "a call stands in the table twice");
    assert_eq!(
        spec.difference(&table).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "missing in the table"
    );
    assert_eq!(
        table.difference(&spec).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "not in the specification"
    );
}

#[test]
fn document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/docker-compat.md");
    let wanted = api::docker::compat_markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/docker-compat.md is out of date; write it anew with: UPDATE_DOCS=1 cargo test -p api --test compat"
    );
}
