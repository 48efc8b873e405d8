//! Images on a node: layers on disk, and the archives and registries they travel by.
//!
//! [`LayerStore`] keeps unpacked layers and gives their exact tars back, mounts root file
//! systems from them and makes layers of what a container wrote. [`load()`] and [`save()`] are
//! `docker load` and `docker save`, [`archive`] is `docker cp` over any root directory,
//! [`registry`] pulls and pushes.
//!
//! This crate keeps no records, runs no containers and answers no API calls: which images
//! there are and which layers they need it is told (the crate `catalog` knows).

mod allowance;
mod apply;
pub mod archive;
mod changes;
mod durable;
mod fsutil;
pub mod fuzz;
mod headers;
mod input;
mod layers;
mod load;
mod names;
mod owners;
mod pack;
pub mod push;
pub mod registry;
mod rootfs;
mod save;
mod tar;

pub use crate::{
    allowance::Allowance,
    changes::{Change, ChangeKind},
    layers::{Ingested, LayerGuard, LayerMeta, LayerStore, TarStream},
    load::{LoadFailed, Loaded, Progress, load},
    rootfs::{RootfsSpec, Users},
    save::save,
};

use types::{Error, Result};

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::wrap("working on images", source))?
}
