//! `EventMessage`.

use serde::Serialize;
use types::{Event, EventActor};

/// One line of `GET /events`. The first three repeat the rest for old clients, and only
/// containers and images have them.
#[derive(Debug, Clone, Serialize)]
pub struct EventMessage {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    #[serde(rename = "Type")]
    pub kind: &'static str,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: EventActor,
    pub scope: &'static str,
    /// Seconds since 1970.
    pub time: i64,
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

impl From<&Event> for EventMessage {
    fn from(event: &Event) -> Self {
        let (status, id) = match event.kind {
            "container" | "image" => (event.action.clone(), event.actor.id.clone()),
            _ => Default::default(),
        };
        let from = match event.kind {
            "container" => event
                .actor
                .attributes
                .get("image")
                .cloned()
                .unwrap_or_default(),
            _ => String::new(),
        };
        Self {
            status,
            id,
            from,
            kind: event.kind,
            action: event.action.clone(),
            actor: event.actor.clone(),
            scope: "local",
            time: event.time.unix_seconds(),
            time_nano: event.time.unix_nanos(),
        }
    }
}
