//! The bus of events: what happened lately, and what happens from now on.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::broadcast;
use types::{Event, EventActor, Filters, Namespace, Result, Time};

use crate::request::Scope;

/// How many past events `docker events --since` can still see (as dockerd).
const KEPT: usize = 256;
/// How far a slow listener may fall behind before it loses events.
const QUEUE: usize = 4096;

/// Events of all namespaces.
pub(crate) struct Events {
    sender: broadcast::Sender<(Namespace, Arc<Event>)>,
    past: Mutex<VecDeque<(Namespace, Arc<Event>)>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            sender: broadcast::channel(QUEUE).0,
            past: Mutex::default(),
        }
    }

    /// Tells the listeners that `action` happened to an object.
    pub(crate) fn publish(
        &self,
        namespace: &Namespace,
        kind: &'static str,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let actor = EventActor {
            id: id.into(),
            attributes,
        };
        let event = Arc::new(Event {
            kind,
            action: action.into(),
            actor,
            time: Time::now(),
        });
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back((namespace.clone(), event.clone()));
        // Sent under the lock, so that no subscriber sees an event twice or not at all.
        let _ = self.sender.send((namespace.clone(), event));
    }
}

/// A subscription to events.
pub struct EventStream {
    namespace: Namespace,
    filters: Filters,
    until: Option<Time>,
    past: VecDeque<Arc<Event>>,
    live: broadcast::Receiver<(Namespace, Arc<Event>)>,
}

impl EventStream {
    /// The next event; `None` once `until` has passed.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        loop {
            let received = match self.until {
                None => self.live.recv().await,
                Some(until) => {
                    let left = until.since(Time::now());
                    tokio::time::timeout(left, self.live.recv()).await.ok()?
                }
            };
            match received {
                Ok((namespace, event))
                    if namespace == self.namespace && matches(&event, &self.filters) =>
                {
                    return Some(event);
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl crate::Engine {
    /// Past events since `since`, then live ones until `until`.
    pub fn events(
        &self,
        scope: &Scope,
        since: Option<Time>,
        until: Option<Time>,
        filters: Filters,
    ) -> Result<EventStream> {
        filters.only(&[
            "config",
            "container",
            "daemon",
            "event",
            "image",
            "label",
            "network",
            "node",
            "plugin",
            "scope",
            "secret",
            "service",
            "type",
            "volume",
        ])?;
        let past = self
            .events
            .past
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let live = self.events.sender.subscribe();
        let past = match since.or(until) {
            None => VecDeque::new(),
            Some(_) => past
                .iter()
                .filter(|(namespace, event)| {
                    *namespace == scope.namespace
                        && since.is_none_or(|since| event.time >= since)
                        && until.is_none_or(|until| event.time <= until)
                        && matches(event, &filters)
                })
                .map(|(_, event)| event.clone())
                .collect(),
        };
        Ok(EventStream {
            namespace: scope.namespace.clone(),
            filters,
            until,
            past,
            live,
        })
    }
}

/// Whether `event` passes `filters` (docker's rules: values of one filter are alternatives).
fn matches(event: &Event, filters: &Filters) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map(String::as_str);
    let is_actor = |kind: &str, wanted: &str| {
        event.kind == kind
            && (event.actor.id == wanted
                || event.actor.id.starts_with(wanted)
                || attribute("name") == Some(wanted))
    };
    // `health_status` also means `health_status: healthy`, `exec_start` also `exec_start: sh`.
    let is_action =
        |wanted: &str| event.action == wanted || event.action.split(':').next() == Some(wanted);
    let is_image = |wanted: &str| {
        let name = if event.kind == "image" {
            attribute("name")
        } else {
            attribute("image")
        };
        let bare = name.map(|name| {
            name.rsplit_once(':')
                .filter(|(_, tag)| !tag.contains('/'))
                .map_or(name, |(bare, _)| bare)
        });
        (event.kind == "image" && event.actor.id == wanted)
            || name == Some(wanted)
            || bare == Some(wanted)
    };
    filters.any("event", is_action)
        && filters.any("type", |kind| event.kind == kind)
        && filters.any("scope", |scope| scope == "local")
        && filters.any("container", |wanted| is_actor("container", wanted))
        && filters.any("volume", |wanted| is_actor("volume", wanted))
        && filters.any("network", |wanted| is_actor("network", wanted))
        && filters.any("daemon", |wanted| is_actor("daemon", wanted))
        && filters.any("image", is_image)
        && filters.labels("label", attribute)
        && ["plugin", "service", "node", "secret", "config"]
            .iter()
            .all(|kind| !filters.has(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &'static str, action: &str, id: &str, name: &str) -> Event {
        let attributes = BTreeMap::from([
            ("name".into(), name.into()),
            ("image".into(), "busybox:1".into()),
        ]);
        Event {
            kind,
            action: action.into(),
            actor: EventActor {
                id: id.into(),
                attributes,
            },
            time: Time::now(),
        }
    }

    #[test]
    fn filters_are_alternatives_within_and_conditions_across() {
        let start = event("container", "start", "abc", "web");
        let parse = |text: &str| Filters::parse(Some(text)).unwrap();
        assert!(matches(
            &start,
            &parse(r#"{"event":["stop","start"],"container":["web"]}"#)
        ));
        assert!(!matches(
            &start,
            &parse(r#"{"event":["start"],"container":["other"]}"#)
        ));
        assert!(matches(&start, &parse(r#"{"image":["busybox"]}"#)));
        assert!(!matches(&start, &parse(r#"{"type":["volume"]}"#)));
        let health = event("container", "health_status: healthy", "abc", "web");
        assert!(matches(&health, &parse(r#"{"event":["health_status"]}"#)));
    }
}
