//! `kra man`.

use std::path::Path;

use clap::CommandFactory as _;

use crate::{
    cli::Cli,
    exit::{Failure, Outcome},
};

/// Writes a page for the program and one for each command.
pub(crate) fn write(dir: &Path) -> Outcome {
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|error| Failure::io(&format!("writing manual pages to {}", dir.display()), error))
}
