//! Images: layers on disk, records in the store, and the archives they travel in.
//!
//! [`LayerStore`] keeps unpacked layers and gives their exact tars back, mounts root file
//! systems from them and makes layers of what a container wrote. [`ImageStore`] keeps the
//! records: configurations, tags, who holds which layer. [`archive`] is `docker cp` over
//! any root directory. [`registry`] pulls and pushes.
//!
//! This crate runs no containers and answers no API calls; it knows nothing of who uses an
//! image beyond what the caller tells it.

mod apply;
pub mod archive;
mod changes;
mod config;
mod durable;
mod fsutil;
pub mod fuzz;
mod headers;
mod history;
mod import;
mod input;
mod layers;
mod load;
mod names;
mod pack;
mod record;
pub mod registry;
mod remove;
mod rootfs;
mod save;
mod store;
mod tar;
mod usage;

pub use crate::{
    changes::{Change, ChangeKind},
    config::{ConfigPatch, HistoryEntry, ImageConfig, Platform, RootFs},
    history::HistoryRow,
    layers::{Ingested, LayerGuard, LayerMeta, LayerStore, TarStream},
    load::Loaded,
    record::{Descriptor, Image, LayerRef, References, Source},
    remove::{ContainerUse, InUse, PruneFilter, Pruned, Removal},
    rootfs::RootfsSpec,
    store::{ImageStore, LayerPins, NewImage, Progress},
    usage::{DiskUsage, ImageUsage},
};
