//! Images: layers on disk, records in the store, and the archives they travel in.
//!
//! [`LayerStore`] keeps unpacked layers and gives their exact tars back, mounts root file
//! systems from them and makes layers of what a container wrote. [`ImageStore`] keeps the
//! records: configurations, tags, who holds which layer. [`archive`] is `docker cp` over
//! any root directory. [`registry`] pulls and pushes.
//!
//! This crate runs no containers and answers no API calls; it knows nothing of who uses an
//! image beyond what the caller tells it.

pub mod archive;
mod config;
mod history;
mod layers;
mod record;
mod remove;
mod rootfs;
mod store;
mod usage;

pub use crate::{
    config::{ConfigPatch, HistoryEntry, ImageConfig, Platform},
    history::HistoryRow,
    layers::{Ingested, LayerGuard, LayerMeta, LayerStore, TarStream},
    record::{Descriptor, Image, LayerRef, References, Source},
    remove::{ContainerUse, PruneFilter, Pruned, Removal},
    rootfs::{Change, ChangeKind, RootfsSpec},
    store::{ImageStore, LayerPins, Loaded, NewImage, Progress},
    usage::{DiskUsage, ImageUsage},
};
