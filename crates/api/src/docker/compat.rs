//! `docs/docker-compat.md`, made from the table of calls.

use std::fmt::Write as _;

use super::{dispatch::Support, router::table, version::ApiVersion};
use crate::auth;

/// The document.
pub fn compat_markdown() -> String {
    let rows = table();
    let count =
        |wanted: fn(&Support) -> bool| rows.iter().filter(|row| wanted(&row.support)).count();
    let mut text = format!(
        "# Compatibility with the Docker Engine API\n\n\
         Every call of the published API {max}, with its state in kraud. Versions {min} to {max} are\n\
         negotiated. This page is made from the router's table (`crates/api/src/docker/router.rs`): change\n\
         that, then run `UPDATE_DOCS=1 cargo test -p api --test compat`.\n\n\
         {full} full, {partial} partial, {missing} not yet; {all} calls in all.\n\n\
         | call | needs the role | state | missing, or what to do instead |\n|---|---|---|---|\n",
        min = ApiVersion::MIN,
        max = ApiVersion::MAX,
        full = count(|support| matches!(support, Support::Full)),
        partial = count(|support| matches!(support, Support::Partial(_))),
        missing = count(|support| matches!(support, Support::NotYet(_))),
        all = rows.len(),
    );
    for row in rows {
        let (state, remark) = match row.support {
            Support::Full => ("full", ""),
            Support::Partial(missing) => ("partial", missing),
            Support::NotYet(why) => ("not yet", why),
        };
        let _ = writeln!(
            text,
            "| `{} {}` | {} | {state} | {remark} |",
            row.method,
            row.path,
            auth::in_words(row.access)
        );
    }
    text
}
