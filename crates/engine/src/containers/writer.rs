//! Writes observed state down behind the caller's back, in order.
//!
//! Observed state is what the node showed; after a crash it is found again by
//! [`agent::NodeAgent::adopt`]. So nobody waits for the disk to have it, and of several
//! writes of one key that queue up only the last is made.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use store::{Op, Store, Txn};
use tokio::sync::{mpsc, oneshot};

enum Message {
    Put(String, Bytes),
    Forget(String),
    Flush(oneshot::Sender<()>),
}

/// The handle of the writing task; it ends when the handle is dropped.
pub(crate) struct StateWriter(mpsc::UnboundedSender<Message>);

impl StateWriter {
    pub(crate) fn spawn(store: Arc<dyn Store>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(write_all(store, receiver));
        Self(sender)
    }

    pub(crate) fn write<R: types::record::Record>(&self, key: String, observed: &R) {
        match types::record::encode(observed) {
            Ok(value) => drop(self.0.send(Message::Put(key, value.into()))),
            Err(error) => {
                tracing::error!(%key, %error, "an observed state could not be encoded; after a restart an older one shows")
            }
        }
    }

    /// Drops writes of `key` that are still queued and makes sure that none is under way.
    pub(crate) async fn forget(&self, key: String) {
        let _ = self.0.send(Message::Forget(key));
        self.flush().await;
    }

    /// Returns when all earlier writes are on disk.
    pub(crate) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        let _ = self.0.send(Message::Flush(done));
        let _ = wait.await;
    }
}

async fn write_all(store: Arc<dyn Store>, mut receiver: mpsc::UnboundedReceiver<Message>) {
    while let Some(first) = receiver.recv().await {
        let mut pending = BTreeMap::new();
        let mut flushes = Vec::new();
        let mut take = |message| match message {
            Message::Put(key, value) => drop(pending.insert(key, value)),
            Message::Forget(key) => drop(pending.remove(&key)),
            Message::Flush(done) => flushes.push(done),
        };
        take(first);
        while let Ok(message) = receiver.try_recv() {
            take(message);
        }
        if !pending.is_empty() {
            let ops = pending
                .into_iter()
                .map(|(key, value)| Op::Put {
                    key,
                    value,
                    lease: None,
                })
                .collect();
            if let Err(error) = store
                .commit(Txn {
                    guards: Vec::new(),
                    ops,
                })
                .await
            {
                tracing::error!(%error, "observed states could not be written; check the disk of the data directory");
            }
        }
        for done in flushes {
            let _ = done.send(());
        }
    }
}
