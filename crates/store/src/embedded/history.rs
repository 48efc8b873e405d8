//! The recent past, kept in memory, and the watches that read it.
//!
//! Every watch is a task with a cursor into one shared, bounded history: what is past and what
//! is live come from the same place, so there is no seam to lose a change at, and a slow
//! watcher costs nothing: the history moves on, and the watcher learns that it is compacted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::HistoryLimit;
use crate::{Change, Error, Result, Revision, Watch};

/// Changes that wait in a watch for its owner.
const BUFFER: usize = 64;
/// Revisions that a watch takes from the history at a time.
const STRIDE: usize = 64;

/// What one transaction changed.
struct Step {
    revision: Revision,
    changes: Arc<[Change]>,
    bytes: usize,
}

struct Past {
    steps: VecDeque<Step>,
    bytes: usize,
    /// Watches can start after this revision, or after any later one.
    floor: Revision,
}

pub(super) struct History {
    past: Arc<Mutex<Past>>,
    limit: HistoryLimit,
    /// The newest revision; dropping it ends the watches.
    newest: watch::Sender<Revision>,
}

impl History {
    pub(super) fn new(revision: Revision, limit: HistoryLimit) -> Self {
        let past = Past {
            steps: VecDeque::new(),
            bytes: 0,
            floor: revision,
        };
        let (newest, _) = watch::channel(revision);
        Self {
            past: Arc::new(Mutex::new(past)),
            limit,
            newest,
        }
    }

    /// Adds committed transactions, in their order, and wakes the watches.
    pub(super) fn publish(&self, steps: Vec<(Revision, Vec<Change>)>) {
        let Some(&(newest, _)) = steps.last() else {
            return;
        };
        {
            let mut past = lock(&self.past);
            for (revision, changes) in steps {
                let bytes = changes.iter().map(size).sum();
                past.bytes += bytes;
                past.steps.push_back(Step {
                    revision,
                    changes: changes.into(),
                    bytes,
                });
            }
            past.trim(self.limit);
        }
        self.newest.send_replace(newest);
    }

    pub(super) fn watch(&self, prefix: String, after: Revision) -> Result<Watch> {
        let newest = self.newest.subscribe();
        let cursor = if after == 0 { *newest.borrow() } else { after };
        let floor = lock(&self.past).floor;
        if cursor < floor {
            return Err(Error::Compacted { revision: cursor });
        }
        let (sender, receiver) = mpsc::channel(BUFFER);
        let past = self.past.clone();
        tokio::spawn(
            Follower {
                past,
                newest,
                prefix,
                cursor,
                sender,
            }
            .run(),
        );
        Ok(Watch::new(receiver))
    }
}

fn lock(past: &Mutex<Past>) -> MutexGuard<'_, Past> {
    past.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memory that a change holds, roughly.
fn size(change: &Change) -> usize {
    const OVERHEAD: usize = 128;
    match change {
        Change::Put(entry) => OVERHEAD + entry.key.len() + entry.value.len(),
        Change::Deleted { key, .. } => OVERHEAD + key.len(),
    }
}

impl Past {
    fn trim(&mut self, limit: HistoryLimit) {
        while self.steps.len() > limit.revisions.max(1)
            || (self.bytes > limit.bytes && self.steps.len() > 1)
        {
            let Some(oldest) = self.steps.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes;
            self.floor = oldest.revision;
        }
    }

    /// The next few steps after `cursor`; an error when some of them are gone.
    fn after(&self, cursor: Revision) -> Result<Vec<(Revision, Arc<[Change]>)>> {
        if cursor < self.floor {
            return Err(Error::Compacted { revision: cursor });
        }
        let first = self.steps.partition_point(|step| step.revision <= cursor);
        let steps = self.steps.range(first..).take(STRIDE);
        Ok(steps
            .map(|step| (step.revision, step.changes.clone()))
            .collect())
    }
}

/// The task behind one watch.
struct Follower {
    past: Arc<Mutex<Past>>,
    newest: watch::Receiver<Revision>,
    prefix: String,
    cursor: Revision,
    sender: mpsc::Sender<Result<Change>>,
}

impl Follower {
    async fn run(mut self) {
        while self.deliver().await {
            tokio::select! {
                changed = self.newest.changed() => {
                    if changed.is_err() {
                        // The store is gone; what it committed last is still owed.
                        self.deliver().await;
                        return;
                    }
                }
                () = self.sender.closed() => return,
            }
        }
    }

    /// Sends everything up to the newest revision; false when the watch has ended.
    async fn deliver(&mut self) -> bool {
        loop {
            let steps = lock(&self.past).after(self.cursor);
            let steps = match steps {
                Ok(steps) if steps.is_empty() => return true,
                Ok(steps) => steps,
                Err(error) => {
                    // No matter if nobody listens any more: the watch ends here.
                    let _ = self.sender.send(Err(error)).await;
                    return false;
                }
            };
            for (revision, changes) in steps {
                for change in changes
                    .iter()
                    .filter(|change| key(change).starts_with(&self.prefix))
                {
                    if self.sender.send(Ok(change.clone())).await.is_err() {
                        return false;
                    }
                }
                self.cursor = revision;
            }
        }
    }
}

fn key(change: &Change) -> &str {
    match change {
        Change::Put(entry) => &entry.key,
        Change::Deleted { key, .. } => key,
    }
}
