//! What happened to whom: the events that `docker events` shows and reconcilers follow.

use std::collections::BTreeMap;

use crate::time::Time;

/// The object an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EventActor {
    /// Its id (containers, networks), name (volumes) or reference (images).
    #[serde(rename = "ID")]
    pub id: String,
    /// Its labels and facts about the event, such as `exitCode`.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The sort of object: `container`, `image`, `volume`, `network`, `daemon`.
    pub kind: &'static str,
    /// What happened, in docker's words: `create`, `start`, `die`, `exec_start: sh`, …
    pub action: String,
    /// The object.
    pub actor: EventActor,
    /// When.
    pub time: Time,
}
