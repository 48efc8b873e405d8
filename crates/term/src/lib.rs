//! What `kra` and `kraud` print: tables for people, JSON for programs, sizes and ages.
//!
//! Nothing here knows what is printed or where it comes from.

mod human;
pub mod pools;
pub mod quota;
mod table;

use std::io::{self, Write as _};

use serde::Serialize;

pub use self::{
    human::{age, bytes, moment, safe},
    table::Table,
};

/// Who the output is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// Writes text to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to standard output.
pub fn line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes JSON to standard output, indented.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}
