//! The catalog: which images there are, what points at them, which layers they need.
//!
//! [`Catalog`] keeps the records of images and tags in the cluster's store, and decides what
//! a name means, what a removal takes along, what a save or a push consists of.
//!
//! It opens no file and reaches no node: that layers are where a record says they are needed
//! is the caller's matter. A record does not say on which nodes its layers lie, since what a
//! node's disk holds is known best by the node: it is asked.

#[allow(
    clippy::module_inception,
    reason = "the crate's one noun has a file of its own"
)]
mod catalog;
mod choose;
mod history;
mod import;
mod record;
mod remove;
mod usage;

pub use crate::{
    catalog::{Catalog, Index},
    history::HistoryRow,
    import::imported,
    record::{Image, References},
    remove::{ContainerUse, InUse, PruneFilter, Removal, Removed},
    usage::{DiskUsage, ImageUsage},
};
