//! Progress, in docker's words.
//!
//! Owns what one message says and how often bytes are counted aloud; how messages travel to a
//! client is the API's matter.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The shortest time between two counts of the same transfer.
const INTERVAL: Duration = Duration::from_millis(100);

/// One message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// What it is about: a layer's short digest, a tag; empty for the whole operation.
    pub id: String,
    /// `Downloading`, `Pull complete`, …
    pub status: String,
    /// Bytes done and bytes in all (0 where not known), while bytes are counted.
    pub bytes: Option<(u64, u64)>,
    /// For programs, such as the digest of what was pushed.
    pub aux: Option<serde_json::Value>,
}

impl Progress {
    /// `status` of the object `id`.
    pub(crate) fn of(id: &str, status: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            status: status.into(),
            ..Self::default()
        }
    }
}

/// Takes messages; called from any thread, must not block.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// Counts the bytes of one transfer aloud, not too often.
pub(crate) struct Counter {
    report: Report,
    id: String,
    status: &'static str,
    total: u64,
    last: Mutex<Option<Instant>>,
}

impl Counter {
    pub(crate) fn new(report: &Report, id: &str, status: &'static str, total: u64) -> Self {
        Self {
            report: report.clone(),
            id: id.into(),
            status,
            total,
            last: Mutex::new(None),
        }
    }

    /// `done` bytes are through.
    pub(crate) fn at(&self, done: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if due || (done >= self.total && self.total > 0) {
            *last = Some(Instant::now());
            (self.report)(Progress {
                bytes: Some((done, self.total)),
                ..Progress::of(&self.id, self.status)
            });
        }
    }
}
