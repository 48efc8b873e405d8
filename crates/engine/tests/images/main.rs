//! The library over a node's layers: load, save, tags, removal, history, usage, import.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod archives;
#[path = "../../../image/tests/common/mod.rs"]
mod common;
mod harness;
mod layers;
mod records;
mod transfer;

use std::{collections::HashSet, io::Write as _, process::Command, sync::Arc};

use agent::{NodeImages as _, local::images::LocalImages};
use catalog::{ContainerUse, PruneFilter, Removal};
use common::{Tar, config};
use engine::library::{LayerPins, Library};
use harness::{Images, images};
use serde_json::{Value, json};
use types::{
    Config, ContainerId, Digest, Kind, Namespace,
    image::{NewImage, Platform},
};

fn base() -> Vec<u8> {
    Tar::default().file("base", &[b'b'; 1000]).end()
}
fn app() -> Vec<u8> {
    Tar::default().file("app", &[b'a'; 300]).end()
}
fn nobody(_: &Digest) -> Vec<ContainerUse> {
    Vec::new()
}
