//! `/containers`, by what the calls are about.

pub mod archive;
pub mod commit;
pub mod create;
pub mod io;
pub mod lifecycle;
pub mod list;
pub mod stats;
