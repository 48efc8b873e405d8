//! The bodies of docker's answers, with exactly docker's presence of fields.
//!
//! Clients differ on null, missing and empty. The rule here: `Option` without `skip` is
//! `null` when empty (Go's nil slices and maps), `skip` leaves a field out (Go's
//! `omitempty`), everything else is always there. [`super::convert`] fills them.

pub mod container;
pub mod event;
pub mod exec;
pub mod image;
pub mod network;
pub mod progress;
pub mod stats;
pub mod system;
pub mod volume;

use serde::Serialize;

/// `IDResponse`: what commit and exec create answer.
#[derive(Debug, Clone, Serialize)]
pub struct IdResponse {
    #[serde(rename = "Id")]
    pub id: String,
}

/// The storage driver's part of an inspect.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    pub data: std::collections::BTreeMap<String, String>,
    pub name: String,
}

pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
