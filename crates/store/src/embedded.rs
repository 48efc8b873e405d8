//! The embedded engine: SQLite in WAL mode, for an installation of one node.
//!
//! One thread owns the writing connection and puts every queued transaction into one SQLite
//! commit (group commit); a few threads own reading connections. Watches are fed from a
//! bounded history in memory. This module wires those parts and implements [`Store`]; how the
//! file is laid out is in `schema`, what a write does is in `writer`.
//!
//! It does not span machines: a second process on the same file is refused.

mod history;
mod leases;
mod readers;
mod schema;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::{Entry, Error, Guard, LeaseId, Listing, Op, Result, Revision, Store, Txn, Watch};
use history::History;
use leases::Leases;
use readers::Readers;
use writer::{Work, Writer};

/// What a commit has survived when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The write is on the disk: it survives a loss of power.
    #[default]
    Full,
    /// The write is with the kernel: it survives a crash of the process, not of the machine.
    /// The file stays consistent either way.
    Normal,
}

/// How much of the past a watch can still start from. Older revisions are compacted.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimit {
    /// Revisions that are kept at most.
    pub revisions: usize,
    /// Bytes of keys and values that are kept at most; the newest revision always stays.
    pub bytes: usize,
}

impl Default for HistoryLimit {
    fn default() -> Self {
        Self {
            revisions: 4096,
            bytes: 8 << 20,
        }
    }
}

/// Settings of an [`Embedded`] store.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub durability: Durability,
    pub history: HistoryLimit,
}

/// A store in one SQLite file.
///
/// Dropping it waits for the commit in hand (usually milliseconds), ends every watch and
/// closes the file.
pub struct Embedded {
    // The order of the fields is the order of shutting down: a reading connection that closes
    // last could not fold the write-ahead log into the file; the lock goes at the very end.
    readers: Readers,
    writer: Writer,
    history: Arc<History>,
    leases: Arc<Leases>,
    next_lease: AtomicI64,
    _lock: schema::FileLock,
}

impl Embedded {
    /// Opens the store at `path`, making the file and its directory where they are missing.
    ///
    /// Blocks on the disk; call it before the runtime serves anything, or off the runtime.
    ///
    /// # Errors
    /// [`Error::Engine`] when another process has the store open, when the file is not a
    /// store, or when a newer kraud wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// [`Embedded::open`] with settings.
    pub fn open_with(path: &Path, options: Options) -> Result<Self> {
        let lock = schema::FileLock::take(path)?;
        let opened = schema::open_writer(path, options.durability)?;
        let history = Arc::new(History::new(opened.revision, options.history));
        let leases = Arc::new(Leases::new(opened.leases));
        let writer = Writer::start(
            opened.connection,
            opened.revision,
            history.clone(),
            leases.clone(),
        )?;
        let readers = Readers::start(path)?;
        Ok(Self {
            readers,
            writer,
            history,
            leases,
            next_lease: AtomicI64::new(opened.next_lease),
            _lock: lock,
        })
    }
}

#[async_trait::async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let wanted = key.to_owned();
        self.readers
            .read(
                || format!("reading {key}"),
                move |connection| schema::get(connection, &wanted),
            )
            .await
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        let wanted = prefix.to_owned();
        self.readers
            .read(
                || format!("listing {prefix}"),
                move |connection| schema::list(connection, &wanted),
            )
            .await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        check_keys(&txn)?;
        self.writer.submit(Work::Commit(txn)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        self.history.watch(prefix.to_owned(), after)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        let lease = LeaseId(self.next_lease.fetch_add(1, Ordering::Relaxed));
        let ttl = leases::checked_ttl(ttl)?;
        self.writer.submit(Work::Grant { lease, ttl }).await?;
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.leases.renew(lease)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.writer.submit(Work::Revoke(lease)).await.map(drop)
    }
}

/// Refuses empty keys, which no engine can tell from "everything".
fn check_keys(txn: &Txn) -> Result<()> {
    let guarded = txn.guards.iter().map(|guard| match guard {
        Guard::Absent(key) | Guard::Present(key) | Guard::Unchanged(key, _) => key,
    });
    let written = txn.ops.iter().filter_map(|op| match op {
        Op::Put { key, .. } | Op::Delete { key } => Some(key),
        Op::DeletePrefix { .. } => None,
    });
    if guarded.chain(written).any(String::is_empty) {
        return Err(engine_error("committing", "a key is empty"));
    }
    Ok(())
}

/// An [`Error::Engine`] for a failed `operation`.
fn engine_error(operation: impl Into<String>, reason: impl ToString) -> Error {
    Error::Engine {
        operation: operation.into(),
        reason: reason.to_string(),
    }
}

/// An [`Error::Engine`] for what SQLite answered to `operation`.
fn sqlite_error(operation: impl Into<String>, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
    let hint = match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => " (another process holds the database; end it)",
        Some(DiskFull) => " (free some space on its file system)",
        _ => "",
    };
    engine_error(operation, format!("{error}{hint}"))
}

#[cfg(test)]
mod tests;
