//! The store: all state of the cluster as versioned key-value records.
//!
//! It owns compare-and-swap transactions, prefix watches with revisions, and leases. It
//! knows nothing of what the values mean. The shape is etcd's (v3 API), so that the
//! embedded engine and etcd can pass one [`conformance`] suite.
//!
//! Keys are UTF-8 paths without a leading slash: `ns/default/containers/<id>/spec`.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
pub mod records;

use bytes::Bytes;

pub use embedded::Embedded;

/// A point in the store's history; every committed transaction that changes something adds
/// one. The first is 1; 0 stands for "before anything".
pub type Revision = u64;

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A guard of the transaction did not hold; nothing was written.
    #[error("store: the record {key} was changed by somebody else")]
    Conflict { key: String },
    /// The watch starts before the oldest kept revision; list again.
    #[error("store: revision {revision} is compacted")]
    Compacted { revision: Revision },
    /// The lease is unknown or has expired.
    #[error("store: lease {0:?} has expired")]
    LeaseExpired(LeaseId),
    /// The engine under the store failed.
    #[error("store: {operation}: {reason}")]
    Engine { operation: String, reason: String },
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Conflict { .. } => types::Kind::Conflict,
            Error::Compacted { .. } | Error::LeaseExpired(_) => types::Kind::Unavailable,
            Error::Engine { .. } => types::Kind::System,
        };
        Self::new(kind, error.to_string())
    }
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, Error>;

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// The revision that created the key (since its last deletion).
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
    /// The lease it lives with, if any.
    pub lease: Option<LeaseId>,
}

/// Records under a prefix, in the order of their keys, at one revision.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub revision: Revision,
    pub entries: Vec<Entry>,
}

/// A condition of a transaction.
#[derive(Debug, Clone)]
pub enum Guard {
    /// The key does not exist.
    Absent(String),
    /// The key exists.
    Present(String),
    /// The key was last written at this revision; revision 0 means that it does not exist.
    Unchanged(String, Revision),
}

/// A write of a transaction.
#[derive(Debug, Clone)]
pub enum Op {
    Put {
        key: String,
        value: Bytes,
        lease: Option<LeaseId>,
    },
    Delete {
        key: String,
    },
    /// Deletes every key that starts with the prefix.
    DeletePrefix {
        prefix: String,
    },
}

/// Writes that happen all or not at all, and only when every guard holds.
///
/// The writes take effect in their order, all at one revision. Deleting what does not exist
/// is no error and no change.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    pub guards: Vec<Guard>,
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }
    /// Adds a write of `key`.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }
    /// Adds a deletion of `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }
    /// Adds a deletion of everything under `prefix`.
    #[must_use]
    pub fn delete_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.ops.push(Op::DeletePrefix {
            prefix: prefix.into(),
        });
        self
    }
}

/// A lease; records attached to it vanish when it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// One change that a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Entry),
    Deleted { key: String, revision: Revision },
}

/// A running watch. Dropping it ends it.
///
/// A watcher that falls too far behind gets [`Error::Compacted`] as the last item: list again
/// and watch from the revision of the listing. The changes of one transaction come one after
/// the other; resume after a revision only when all of its changes were seen.
pub struct Watch {
    receiver: tokio::sync::mpsc::Receiver<Result<Change>>,
}

impl Watch {
    /// A watch fed through `receiver` by an engine.
    pub fn new(receiver: tokio::sync::mpsc::Receiver<Result<Change>>) -> Self {
        Self { receiver }
    }
    /// The next change in the order of revisions; `None` when the store has shut down.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        self.receiver.recv().await
    }
}

/// The store's interface. Cheap to share as `Arc<dyn Store>`.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The record of `key`.
    async fn get(&self, key: &str) -> Result<Option<Entry>>;
    /// All records whose key starts with `prefix`.
    async fn list(&self, prefix: &str) -> Result<Listing>;
    /// Applies `txn`; returns the new revision, or the current one when nothing changed.
    /// Durable when it returns, and seen by every read that starts afterwards. A future that is
    /// dropped half-way leaves open whether the transaction happens.
    async fn commit(&self, txn: Txn) -> Result<Revision>;
    /// Changes under `prefix` after revision `after` (0: from now on). Called with the
    /// revision of a [`Listing`], it misses nothing and repeats nothing.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch>;
    /// A new lease that expires `ttl` after its last renewal. Leases outlive a restart of the
    /// store, with their time starting anew.
    async fn grant(&self, ttl: std::time::Duration) -> Result<LeaseId>;
    /// Renews a lease.
    async fn keep_alive(&self, lease: LeaseId) -> Result<()>;
    /// Ends a lease and deletes its records.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;
}
